"""DCGAN."""

from __future__ import annotations

import torch
from torch import nn

from ganstudy.gan.architectures.base import (
    ARCHITECTURES,
    Architecture,
    ImageShape,
    Normalization,
    Width,
    apply_spectral_norm,
    initialize,
    normalization,
)
from ganstudy.registry import component


@torch.no_grad()
def init_normal(network: nn.Module, std: float = 0.02) -> nn.Module:
    """Draw weights from N(0, std), scales of batch norm from N(1, std), biases 0: DCGAN's init."""
    initialize(network, "normal")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            nn.init.normal_(module.weight, 1.0, std)
            nn.init.zeros_(module.bias)
    return network


@ARCHITECTURES.register("dcgan", paper="Radford et al. 2016, arXiv:1511.06434")
@component
class DCGAN(Architecture):
    """Strided 4x4 convolutions, halving or doubling the image down to a side of 4 or 7.

    Makes square images of side 4 * 2^s or 7 * 2^s, s >= 1. The rules of the paper: no pooling,
    batch norm everywhere but at the generator's output and the discriminator's input, ReLU in the
    generator, leaky ReLU (0.2) in the discriminator, N(0, 0.02) weights. The discriminator's
    normalisation is an option, since batch norm there breaks per-sample gradient penalties.
    """

    width: Width = 64
    """Channels next to the image; they double at each halving."""
    discriminator_normalization: Normalization = "batch"
    """Normalisation of the discriminator's feature maps."""
    spectral_norm: bool = False
    """Spectral normalisation of every discriminator layer (Miyato et al. 2018)."""

    def generator(self, image_shape: ImageShape) -> nn.Module:
        return self._upsampling(image_shape, "batch")

    def decoder(self, image_shape: ImageShape) -> nn.Module:
        network = self._upsampling(image_shape, self.discriminator_normalization)
        return apply_spectral_norm(network) if self.spectral_norm else network

    def _upsampling(self, image_shape: ImageShape, norm: Normalization) -> nn.Module:
        channels, side, _ = image_shape
        widths = self._widths(image_shape)
        base, bias = side >> len(widths), norm != "batch"
        layers: list[nn.Module] = [
            nn.Linear(self.latent_dim, widths[-1] * base * base, bias=bias),
            nn.Unflatten(1, (widths[-1], base, base)),
        ]
        for width, narrower in zip(widths[:0:-1], widths[-2::-1], strict=True):
            layers += [normalization(norm, width), nn.ReLU()]
            layers += [nn.ConvTranspose2d(width, narrower, 4, 2, 1, bias=bias)]
        layers += [normalization(norm, widths[0]), nn.ReLU()]
        layers += [nn.ConvTranspose2d(widths[0], channels, 4, 2, 1), nn.Tanh()]
        return initialize(init_normal(nn.Sequential(*layers)), self.initialization)

    def discriminator(self, image_shape: ImageShape, outputs: int = 1) -> nn.Module:
        channels, side, _ = image_shape
        widths = self._widths(image_shape)
        bias = self.discriminator_normalization != "batch"
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 4, 2, 1), nn.LeakyReLU(0.2)]
        for narrower, width in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Conv2d(narrower, width, 4, 2, 1, bias=bias)]
            layers += [normalization(self.discriminator_normalization, width), nn.LeakyReLU(0.2)]
        base = side >> len(widths)
        layers += [nn.Flatten(), nn.Linear(widths[-1] * base * base, outputs)]
        network = initialize(init_normal(nn.Sequential(*layers)), self.initialization)
        return apply_spectral_norm(network) if self.spectral_norm else network

    def _widths(self, image_shape: ImageShape) -> list[int]:
        """Return the channels after each halving, from the image inwards."""
        _, height, width = image_shape
        halvings = next(
            (s for s in range(1, 10) if height in (4 << s, 7 << s) and height == width), None
        )
        if halvings is None:
            raise ValueError(
                f"dcgan makes square images of side 4 * 2^s or 7 * 2^s "
                f"(8, 14, 16, 28, 32, 56, 64, ...), not {height}x{width}; "
                f"use the architecture mlp or resize the data"
            )
        return [self.width << s for s in range(halvings)]
