"""DCGAN."""

from __future__ import annotations

import torch
from torch import nn

from ganstudy.gan.architectures.base import (
    ARCHITECTURES,
    Across,
    Convolutional,
    ImageShape,
    Normalization,
    Width,
    base_and_doublings,
    head,
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
class DCGAN(Convolutional):
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

    def upsampling(self, image_shape: ImageShape, norm: Normalization) -> nn.Module:
        base, widths = self._base_and_widths(image_shape)
        bias = norm != "batch"
        layers: list[nn.Module] = [
            nn.Linear(self.latent_dim, widths[-1] * base * base, bias=bias),
            nn.Unflatten(1, (widths[-1], base, base)),
        ]
        for width, narrower in zip(widths[:0:-1], widths[-2::-1], strict=True):
            layers += [normalization(norm, width), nn.ReLU()]
            layers += [nn.ConvTranspose2d(width, narrower, 4, 2, 1, bias=bias)]
        layers += [normalization(norm, widths[0]), nn.ReLU()]
        layers += [nn.ConvTranspose2d(widths[0], image_shape[0], 4, 2, 1), nn.Tanh()]
        return nn.Sequential(*layers)

    def downsampling(self, image_shape: ImageShape, outputs: int, across: Across) -> nn.Module:
        base, widths = self._base_and_widths(image_shape)
        bias = self.discriminator_normalization != "batch"
        layers: list[nn.Module] = [nn.Conv2d(image_shape[0], widths[0], 4, 2, 1)]
        layers += [nn.LeakyReLU(0.2)]
        for narrower, width in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Conv2d(narrower, width, 4, 2, 1, bias=bias)]
            layers += [normalization(self.discriminator_normalization, width), nn.LeakyReLU(0.2)]
        layers += [nn.Flatten(), head(widths[-1] * base * base, outputs, across)]
        return nn.Sequential(*layers)

    def draw(self, network: nn.Module) -> nn.Module:
        return init_normal(network)

    def _base_and_widths(self, image_shape: ImageShape) -> tuple[int, list[int]]:
        """Return the inmost side, and the channels after each halving from the image inwards."""
        base, halvings = base_and_doublings(self.name, image_shape)
        return base, [self.width << s for s in range(halvings)]
