"""The convolutional networks of spectral normalisation."""

from __future__ import annotations

from torch import nn

from ganstudy.gan.architectures.base import (
    ARCHITECTURES,
    Across,
    Convolutional,
    ImageShape,
    Normalization,
    Width,
    head,
    normalization,
)
from ganstudy.gan.architectures.dcgan import init_normal
from ganstudy.registry import component


@ARCHITECTURES.register("sndcgan", paper="Miyato et al. 2018, arXiv:1802.05957, table 3")
@component
class SNDCGAN(Convolutional):
    """Seven convolutions against three upsampling ones, for images whose sides are multiples of 8.

    Discriminator: 3x3 convolutions of stride 1 and 4x4 ones of stride 2 in turns, `width` to
    8 `width` channels, leaky ReLU (0.1), a linear layer; spectral norm on all of it by default.
    Generator: a linear layer to 8 `width` channels at an eighth of the side, three 4x4 transposed
    convolutions of stride 2, a 3x3 convolution; batch norm and ReLU; tanh. The paper's width is
    64.

    Elsewhere:
        compare_gan's accepts spectral norm or nothing in the discriminator.
    """

    width: Width = 64
    """Channels next to the image; they double at each halving."""
    spectral_norm: bool = True
    """Spectral normalisation of every discriminator layer."""

    def downsampling(self, image_shape: ImageShape, outputs: int, across: Across) -> nn.Module:
        channels, height, width = _checked(image_shape)
        widths = [self.width << s for s in range(4)]
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 3, 1, 1), nn.LeakyReLU(0.1)]
        for narrower, wider in zip(widths[:-1], widths[1:], strict=True):
            layers += self._layer(nn.Conv2d(narrower, wider, 4, 2, 1), wider)
            layers += self._layer(nn.Conv2d(wider, wider, 3, 1, 1), wider)
        flat = widths[-1] * (height // 8) * (width // 8)
        layers += [nn.Flatten(), head(flat, outputs, across)]
        return nn.Sequential(*layers)

    def draw(self, network: nn.Module) -> nn.Module:
        return init_normal(network)

    def _layer(self, convolution: nn.Module, channels: int) -> list[nn.Module]:
        norm = normalization(self.discriminator_normalization, channels)
        return [convolution, norm, nn.LeakyReLU(0.1)]

    def upsampling(self, image_shape: ImageShape, norm: Normalization) -> nn.Module:
        channels, height, width = _checked(image_shape)
        widths = [self.width << s for s in (3, 2, 1, 0)]
        flat = widths[0] * (height // 8) * (width // 8)
        layers: list[nn.Module] = [
            nn.Linear(self.latent_dim, flat),
            nn.Unflatten(1, (widths[0], height // 8, width // 8)),
            normalization(norm, widths[0]),
            nn.ReLU(),
        ]
        for wider, narrower in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.ConvTranspose2d(wider, narrower, 4, 2, 1)]
            layers += [normalization(norm, narrower), nn.ReLU()]
        layers += [nn.Conv2d(widths[-1], channels, 3, 1, 1), nn.Tanh()]
        return nn.Sequential(*layers)


def _checked(image_shape: ImageShape) -> ImageShape:
    _, height, width = image_shape
    if height % 8 or width % 8:
        raise ValueError(
            f"sndcgan makes images whose sides are multiples of 8, not {height}x{width}; "
            f"use the architecture dcgan or infogan, or resize the data"
        )
    return image_shape
