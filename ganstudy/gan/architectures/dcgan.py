"""DCGAN."""

from __future__ import annotations

import torch
from torch import nn

from ganstudy.gan.architectures.base import (
    ARCHITECTURES,
    Across,
    Convolutional,
    ImageShape,
    Maps,
    base_and_doublings,
    head,
    initialize,
)
from ganstudy.gan.architectures.parts import Normalization
from ganstudy.registry import component


@torch.no_grad()
def init_normal(network: nn.Module, std: float = 0.02) -> nn.Module:
    """Draw weights from N(0, std), scales of norms from N(1, std), biases 0: DCGAN's init."""
    initialize(network, "normal")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.GroupNorm | nn.InstanceNorm2d):
            nn.init.normal_(module.weight, 1.0, std)
            nn.init.zeros_(module.bias)
    return network


@ARCHITECTURES.register("dcgan", paper="Radford et al. 2016, arXiv:1511.06434")
@component
class DCGAN(Convolutional):
    """Strided 4x4 convolutions, halving or doubling the image down to a side of 4 or 7.

    Makes square images of side 4 * 2^s or 7 * 2^s, s >= 1. The rules of the paper: no pooling,
    batch norm everywhere but at the generator's output and the discriminator's input, ReLU in the
    generator, leaky ReLU (0.2) in the discriminator, N(0, 0.02) weights. Normalisation is an
    option, since batch norm in the discriminator breaks per-sample gradient penalties.
    """

    discriminator_normalization: Normalization = "batch"
    """Normalisation of the discriminator's feature maps."""

    def maps(self, image_shape: ImageShape) -> Maps:
        base, doublings = base_and_doublings(self.name, image_shape)
        return [(base << s, base << s) for s in reversed(range(doublings))]

    def to_images(self, image_shape: ImageShape, width: int, norm: Normalization) -> nn.Module:
        maps, bias = self.maps(image_shape), norm != "batch"
        widths = [width << s for s in range(len(maps))]
        flat = widths[-1] * maps[-1][0] * maps[-1][1]
        layers: list[nn.Module] = [
            nn.Linear(self.latent_dim, flat, bias=bias),
            nn.Unflatten(1, (widths[-1], *maps[-1])),
        ]
        for level in range(len(maps) - 1, -1, -1):
            layers += [self.norm(norm, widths[level]), nn.ReLU()]
            layers += self.kept(maps[level], widths[level], norm, nn.ReLU())
            if level:
                layers += self.doubled(widths[level], widths[level - 1], bias)
        return nn.Sequential(*layers, *self.doubled(widths[0], image_shape[0]), nn.Tanh())

    def from_images(self, image_shape: ImageShape, outputs: int, across: Across) -> nn.Module:
        maps = self.maps(image_shape)
        widths = [self._judging_width << s for s in range(len(maps))]
        flat = widths[-1] * maps[-1][0] * maps[-1][1]
        halving = self.halving(image_shape[0], maps, widths)
        return nn.Sequential(*halving, nn.Flatten(), head(flat, outputs, across))

    def halving(self, channels: int, maps: Maps, widths: list[int]) -> list[nn.Module]:
        """Return the discriminator's layers from images to the last of `maps`, of `widths`."""
        norm, leaky = self.discriminator_normalization, nn.LeakyReLU(0.2)
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 4, 2, 1), leaky]
        layers += self.kept(maps[0], widths[0], norm, leaky)
        for size, narrower, width in zip(maps[1:], widths[:-1], widths[1:], strict=True):
            layers += [nn.Conv2d(narrower, width, 4, 2, 1, bias=norm != "batch")]
            layers += [self.norm(norm, width), leaky, *self.kept(size, width, norm, leaky)]
        return layers

    def draw(self, network: nn.Module) -> nn.Module:
        return init_normal(network)
