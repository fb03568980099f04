"""The one architecture of Lucic et al. 2018, taken over from InfoGAN."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from ganstudy.gan.architectures.base import (
    ARCHITECTURES,
    Across,
    Architecture,
    ImageShape,
    Normalization,
    Prior,
    ScaledSigmoid,
    Width,
    apply_spectral_norm,
    head,
    initialize,
)
from ganstudy.registry import component

EPSILON = 1e-3
"""Of batch norm, TensorFlow's."""


@ARCHITECTURES.register("infogan", paper="Chen et al. 2016, arXiv:1606.03657; Lucic et al. 2018")
@component
class InfoGAN(Architecture):
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
    """Distribution of the latent: uniform on [-1, 1] in every dimension, or N(0, I)."""
    width: Width = 64
    """Channels next to the image; the fully connected layer has 16 times as many units."""
    discriminator_normalization: Normalization = "batch"
    """Normalisation of the discriminator's second and third layer."""
    spectral_norm: bool = False
    """Spectral normalisation of every discriminator layer (Miyato et al. 2018)."""
    generator_slope: Annotated[float, Field(ge=0)] = 0.2
    """Slope of the generator's leaky ReLU; 0, a ReLU, in the decoder of the paper's VAE."""
    momentum: Annotated[float, Field(gt=0, le=1)] = 0.001
    """Share of a batch in batch norm's running statistics; the paper's is made for 15,000 updates
    and more: shorter runs are sampled with statistics of long ago unless it is raised."""

    def generator(self, image_shape: ImageShape) -> nn.Module:
        channels, height, width = self._checked(image_shape)
        units, inner = 16 * self.width, 2 * self.width
        flat = inner * (height // 4) * (width // 4)
        layers = [
            nn.Linear(self.latent_dim, units), self._norm("batch", units), self._leaky(),
            nn.Linear(units, flat), self._norm("batch", flat), self._leaky(),
            nn.Unflatten(1, (inner, height // 4, width // 4)),
            nn.ConvTranspose2d(inner, self.width, 4, 2, 1),
            self._norm("batch", self.width, spatial=True), self._leaky(),
            nn.ConvTranspose2d(self.width, channels, 4, 2, 1), ScaledSigmoid(),
        ]  # fmt: skip
        return self._initialized(nn.Sequential(*layers))

    def discriminator(
        self, image_shape: ImageShape, outputs: int = 1, across: Across = ()
    ) -> nn.Module:
        channels, height, width = self._checked(image_shape)
        kind, units, inner = self.discriminator_normalization, 16 * self.width, 2 * self.width
        layers = [
            nn.Conv2d(channels, self.width, 4, 2, 1), nn.LeakyReLU(0.2),
            nn.Conv2d(self.width, inner, 4, 2, 1), self._norm(kind, inner, spatial=True),
            nn.LeakyReLU(0.2), nn.Flatten(),
            nn.Linear(inner * (height // 4) * (width // 4), units), self._norm(kind, units),
            nn.LeakyReLU(0.2), head(units, outputs, across),
        ]  # fmt: skip
        network = self._initialized(nn.Sequential(*layers))
        return apply_spectral_norm(network) if self.spectral_norm else network

    def auto_encoder(self, image_shape: ImageShape) -> nn.Module:
        """Return the auto-encoder that the paper's BEGAN has: two layers, a code of `width`."""
        channels, height, width = self._checked(image_shape)
        kind, inner = self.discriminator_normalization, 2 * self.width
        flat = inner * (height // 4) * (width // 4)
        encoder = [
            nn.Conv2d(channels, self.width, 4, 2, 1), nn.LeakyReLU(0.2),
            nn.Conv2d(self.width, inner, 4, 2, 1), nn.Flatten(),
            nn.Linear(flat, self.width), self._norm(kind, self.width), nn.LeakyReLU(0.2),
        ]  # fmt: skip
        coded = self._initialized(nn.Sequential(*encoder))
        network = nn.Sequential(coded, self.decoder(image_shape))
        return apply_spectral_norm(network) if self.spectral_norm else network

    def decoder(self, image_shape: ImageShape) -> nn.Module:
        channels, height, width = self._checked(image_shape)
        kind, inner = self.discriminator_normalization, 2 * self.width
        flat = inner * (height // 4) * (width // 4)
        layers = [
            nn.Linear(self.width, flat), self._norm(kind, flat), nn.LeakyReLU(0.2),
            nn.Unflatten(1, (inner, height // 4, width // 4)),
            nn.ConvTranspose2d(inner, self.width, 4, 2, 1),
            self._norm(kind, self.width, spatial=True), nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(self.width, channels, 4, 2, 1), ScaledSigmoid(),
        ]  # fmt: skip
        return self._initialized(nn.Sequential(*layers))

    def _leaky(self) -> nn.Module:
        return nn.LeakyReLU(self.generator_slope)

    def _norm(
        self, kind: Literal["batch", "layer", "none"], size: int, spatial: bool = False
    ) -> nn.Module:
        if kind == "batch":
            norm = nn.BatchNorm2d if spatial else nn.BatchNorm1d
            return norm(size, eps=EPSILON, momentum=self.momentum)
        return nn.GroupNorm(1, size, eps=EPSILON) if kind == "layer" else nn.Identity()

    @torch.no_grad()
    def _initialized(self, network: nn.Module) -> nn.Module:
        for module in network.modules():
            if isinstance(module, nn.Linear | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.Conv2d):
                nn.init.trunc_normal_(module.weight, 0.0, 0.02, -0.04, 0.04)
            else:
                continue
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        return initialize(network, self.initialization)

    def _checked(self, image_shape: ImageShape) -> ImageShape:
        _, height, width = image_shape
        if height % 4 or width % 4:
            raise ValueError(
                f"infogan makes images whose sides are multiples of 4, not {height}x{width}; "
                f"use the architecture mlp or resize the data"
            )
        return image_shape
