"""The one architecture of Lucic et al. 2018, taken over from InfoGAN."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from ganstudy.gan.architectures.base import (
    ARCHITECTURES,
    Across,
    Convolutional,
    ImageShape,
    Maps,
    Prior,
    ScaledSigmoid,
    Width,
    check_multiples,
    head,
)
from ganstudy.gan.architectures.parts import FlatNormalization, Normalization, normalization
from ganstudy.registry import component

EPSILON = 1e-3
"""Of batch norm, TensorFlow's."""


@ARCHITECTURES.register("infogan", paper="Chen et al. 2016, arXiv:1606.03657; Lucic et al. 2018")
@component
class InfoGAN(Convolutional):
    """Two convolutions and two wide fully connected layers each, as in Lucic et al. 2018.

    Generator: FC 1024, FC 128 (h / 4) (w / 4), two 4x4 transposed convolutions of stride 2, batch
    norm and leaky ReLU (0.2) after all but the last, a sigmoid. Discriminator: 4x4 convolutions of
    stride 2 to 64 and 128, FC 1024, FC 1, leaky ReLU, normalisation after all but the first and
    the last. Weights from N(0, 0.02), those of the discriminator's convolutions cut at two
    deviations. At 28x28x1 the two have 6.64 and 6.56 million parameters. `width` scales every
    layer, 64 being the paper's.

    Elsewhere:
        compare_gan's first release, which made the paper's numbers, passes real and fake through
        the discriminator one after the other, as here; its last one together, which changes batch
        norm. Its images are in [0, 1].
    """

    prior: Prior = "uniform"
    """Distribution of the latent: uniform on [-1, 1] in every dimension, N(0, I), or truncated:
    N(0, 1) in every dimension, cut at +-`truncation`."""
    width: Width = 64
    """Channels next to the image; the fully connected layer has 16 times as many units."""
    generator_normalization: FlatNormalization = "batch"
    """Normalisation of all but the generator's last layer."""
    discriminator_normalization: FlatNormalization = "batch"
    """Normalisation of the discriminator's second and third layer."""
    generator_slope: Annotated[float, Field(ge=0)] = 0.2
    """Slope of the generator's leaky ReLU; 0, a ReLU, in the decoder of the paper's VAE."""
    momentum: Annotated[float, Field(gt=0, le=1)] = 0.001
    """Share of a batch in batch norm's running statistics; the paper's is made for 15,000 updates
    and more: shorter runs are sampled with statistics of long ago unless it is raised."""

    def maps(self, image_shape: ImageShape) -> Maps:
        height, width = check_multiples(self.name, image_shape, 4)
        return [(height // 2, width // 2), (height // 4, width // 4)]

    def to_images(self, image_shape: ImageShape, width: int, norm: Normalization) -> nn.Module:
        units, leaky = 16 * width, nn.LeakyReLU(self.generator_slope)
        coded = [nn.Linear(self.latent_dim, units), self._flat_norm(norm, units), leaky]
        return nn.Sequential(*coded, *self._growing(units, image_shape, width, norm, leaky))

    def from_images(self, image_shape: ImageShape, outputs: int, across: Across) -> nn.Module:
        width, norm, leaky = self._judging_width, self.discriminator_normalization, _leaky()
        flat, units = self._flat(image_shape, width), 16 * width
        return nn.Sequential(
            *self._halving(image_shape, [self.norm(norm, 2 * width), leaky]),
            *[nn.Linear(flat, units), self._flat_norm(norm, units), leaky],
            head(units, outputs, across),
        )

    def auto_encoder(self, image_shape: ImageShape) -> nn.Module:
        """Return the auto-encoder that the paper's BEGAN has: two layers, a code of `width`."""
        self._check_one_scale()
        self._check_attention(image_shape)
        code, norm = self._judging_width, self.discriminator_normalization
        flat = self._flat(image_shape, code)
        coded = [nn.Linear(flat, code), self._flat_norm(norm, code), _leaky()]
        encoder = self._drawn(nn.Sequential(*self._halving(image_shape, []), *coded))
        return self._judging(nn.Sequential(encoder, self.decoder(image_shape)))

    def decoder(self, image_shape: ImageShape) -> nn.Module:
        code, norm = self._judging_width, self.discriminator_normalization
        layers = self._growing(code, image_shape, code, norm, _leaky())
        return self._drawn(nn.Sequential(*layers))

    def norm(self, kind: Normalization, channels: int) -> nn.Module:
        return normalization(kind, channels, epsilon=EPSILON, momentum=self.momentum)

    @torch.no_grad()
    def draw(self, network: nn.Module) -> nn.Module:
        for module in network.modules():
            if isinstance(module, nn.Linear | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.Conv2d):
                nn.init.trunc_normal_(module.weight, 0.0, 0.02, -0.04, 0.04)
            else:
                continue
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        return network

    def _growing(
        self,
        inputs: int,
        image_shape: ImageShape,
        width: int,
        norm: Normalization,
        leaky: nn.Module,
    ) -> list[nn.Module]:
        """Return the layers from (batch, inputs) to images, `width` wide next to them."""
        (middle, inmost), flat = self.maps(image_shape), self._flat(image_shape, width)
        return [
            *[nn.Linear(inputs, flat), self._flat_norm(norm, flat), leaky],
            nn.Unflatten(1, (2 * width, *inmost)),
            *self.kept(inmost, 2 * width, norm, leaky),
            *[*self.doubled(2 * width, width), self.norm(norm, width), leaky],
            *self.kept(middle, width, norm, leaky),
            *[*self.doubled(width, image_shape[0]), ScaledSigmoid()],
        ]

    def _halving(self, image_shape: ImageShape, between: list[nn.Module]) -> list[nn.Module]:
        """Return the layers from images to (batch, flat), `between` behind the second one."""
        (middle, inmost), width = self.maps(image_shape), self._judging_width
        norm = self.discriminator_normalization
        return [
            *[nn.Conv2d(image_shape[0], width, 4, 2, 1), _leaky()],
            *self.kept(middle, width, norm, _leaky()),
            *[nn.Conv2d(width, 2 * width, 4, 2, 1), *between],
            *self.kept(inmost, 2 * width, norm, _leaky()),
            nn.Flatten(),
        ]

    def _flat(self, image_shape: ImageShape, width: int) -> int:
        """Return the number of values in the inmost map."""
        return 2 * width * math.prod(self.maps(image_shape)[-1])

    def _flat_norm(self, kind: Normalization, units: int) -> nn.Module:
        return normalization(kind, units, flat=True, epsilon=EPSILON, momentum=self.momentum)


def _leaky() -> nn.Module:
    return nn.LeakyReLU(0.2)
