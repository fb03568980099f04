"""The convolutional networks of spectral normalisation."""

from __future__ import annotations

from torch import nn

from ganstudy.gan.architectures.base import (
    ARCHITECTURES,
    Across,
    Convolutional,
    ImageShape,
    Maps,
    check_multiples,
    head,
    initialize,
)
from ganstudy.gan.architectures.parts import Normalization
from ganstudy.registry import component


@ARCHITECTURES.register("sndcgan", paper="Miyato et al. 2018, arXiv:1802.05957, table 3")
@component
class SNDCGAN(Convolutional):
    """Seven convolutions against three upsampling ones, for images whose sides are multiples of 8.

    Discriminator: 3x3 convolutions of stride 1 and 4x4 ones of stride 2 in turns, `width` to
    8 `width` channels, leaky ReLU (0.1), a linear layer; spectral norm on all of it by default.
    Generator: a linear layer to 8 `width` channels at an eighth of the side, three 4x4 transposed
    convolutions of stride 2, a 3x3 convolution; batch norm and ReLU; tanh. The paper's width is
    64. Weights are from N(0, 0.02), as in the authors' code; scales of norms begin at 1.

    Elsewhere:
        The authors' code and compare_gan have the same channels; StudioGAN doubles them at the
        3x3 convolutions and keeps them at the 4x4 ones. compare_gan's accepts spectral norm or
        nothing in the discriminator.
    """

    spectral_norm: bool = True
    """Spectral normalisation of every discriminator layer."""

    def maps(self, image_shape: ImageShape) -> Maps:
        height, width = check_multiples(self.name, image_shape, 8)
        return [(height >> s, width >> s) for s in range(4)]

    def to_images(self, image_shape: ImageShape, width: int, norm: Normalization) -> nn.Module:
        maps = self.maps(image_shape)
        flat = 8 * width * maps[-1][0] * maps[-1][1]
        layers: list[nn.Module] = [
            nn.Linear(self.latent_dim, flat),
            nn.Unflatten(1, (8 * width, *maps[-1])),
        ]
        for level, size in reversed(list(enumerate(maps))):
            channels = width << level
            layers += [self.norm(norm, channels), nn.ReLU()]
            layers += self.kept(size, channels, norm, nn.ReLU())
            if level:
                layers += self.doubled(channels, channels // 2)
        return nn.Sequential(*layers, nn.Conv2d(width, image_shape[0], 3, 1, 1), nn.Tanh())

    def from_images(self, image_shape: ImageShape, outputs: int, across: Across) -> nn.Module:
        maps, width = self.maps(image_shape), self._judging_width
        norm, leaky = self.discriminator_normalization, nn.LeakyReLU(0.1)
        layers: list[nn.Module] = [nn.Conv2d(image_shape[0], width, 3, 1, 1), leaky]
        layers += self.kept(maps[0], width, norm, leaky)
        for size in maps[1:]:
            wider = 2 * width
            layers += [nn.Conv2d(width, wider, 4, 2, 1), self.norm(norm, wider), leaky]
            layers += [nn.Conv2d(wider, wider, 3, 1, 1), self.norm(norm, wider), leaky]
            layers += self.kept(size, wider, norm, leaky)
            width = wider
        flat = width * maps[-1][0] * maps[-1][1]
        return nn.Sequential(*layers, nn.Flatten(), head(flat, outputs, across))

    def draw(self, network: nn.Module) -> nn.Module:
        return initialize(network, "normal")
