"""Residual networks of spectral normalisation."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu

from ganstudy.gan.architectures.base import (
    ARCHITECTURES,
    Across,
    Convolutional,
    ImageShape,
    Kernel,
    Maps,
    Width,
    base_and_doublings,
    head,
    initialize,
)
from ganstudy.gan.architectures.parts import Normalization, Upsampling, normalization
from ganstudy.registry import component


class UpBlock(nn.Module):
    """Norm, ReLU, doubling by a convolution, norm, ReLU, 3x3 convolution; beside it a shortcut."""

    def __init__(self, channels: int, norm: Normalization, doubled: list[nn.Module]) -> None:
        """Build a block that doubles the side by the layers `doubled`."""
        super().__init__()
        self.norm1, self.norm2 = normalization(norm, channels), normalization(norm, channels)
        self.conv1 = nn.Sequential(*doubled)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.shortcut = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, channels, 2 height, 2 width)."""
        y = self.conv1(relu(self.norm1(x)))
        y = self.conv2(relu(self.norm2(y)))
        return y + self.shortcut(interpolate(x, scale_factor=2, mode="nearest"))


class DownBlock(nn.Module):
    """Norm, ReLU, 3x3 convolution, twice, then averaging over 2x2; beside it a shortcut.

    The first block of a network has no activation before it, and its shortcut averages first.
    """

    def __init__(
        self, inputs: int, outputs: int, norm: Normalization, *, halves: bool, first: bool = False
    ) -> None:
        """Build a block that halves the side, or keeps it."""
        super().__init__()
        self.halves, self.first = halves, first
        self.norm1 = nn.Identity() if first else normalization(norm, inputs)
        self.norm2 = normalization(norm, outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 1, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        plain = inputs == outputs and not halves
        self.shortcut = nn.Identity() if plain else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, outputs, height, width), both halved where the block halves."""
        y = self.conv1(x if self.first else relu(self.norm1(x)))
        y = self.conv2(relu(self.norm2(y)))
        if not self.halves:
            return y + self.shortcut(x)
        if self.first:
            return avg_pool2d(y, 2) + self.shortcut(avg_pool2d(x, 2))
        return avg_pool2d(y + self.shortcut(x), 2)


class SumPool(nn.Module):
    """ReLU, then the sum over all places, (batch, channels)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled features."""
        return relu(x).sum(dim=(2, 3))


@ARCHITECTURES.register("resnet", paper="Miyato et al. 2018, arXiv:1802.05957, table 4")
@component
class ResNet(Convolutional):
    """Residual blocks, as SNGAN has them for CIFAR-10; square images of side 4 * 2^s or 7 * 2^s.

    Generator: a linear layer to a map of side 4 or 7, blocks that double it, batch norm, ReLU, a
    3x3 convolution, tanh, 256 channels throughout. Discriminator: two blocks that halve (one where
    the side is 8 or 14), two that do not, ReLU, the sum over all places, a linear layer, 128
    channels throughout, spectral norm on all of it by default. Weights are Xavier's (uniform),
    with a gain of root 2 in the two convolutions of each block and 1 elsewhere, as in the authors'
    code.

    Elsewhere:
        mimicry draws the same weights, and doubles maps bilinearly. compare_gan draws them from
        N(0, 0.02), StudioGAN orthogonally. The authors' last layer has no bias.
    """

    latent_dim: Width = 128
    """Dimension of the latent."""
    width: Width = 128
    """Channels of the discriminator; the generator has twice as many."""
    discriminator_width: Width | None = None
    """Channels of the discriminator, where the generator's are 2 `width` all the same."""
    depth: Annotated[int, Field(ge=0)] = 2
    """Blocks of the discriminator that keep the side."""
    spectral_norm: bool = True
    """Spectral normalisation of every discriminator layer."""
    upsampling: Upsampling = "resize_conv"
    """How the first convolution of a generator's block doubles the map: resize_conv (nearest
    neighbour, then a convolution), transposed (a transposed convolution of stride 2) or sub_pixel
    (a convolution to 4 times the channels, laid out in 2x2); the shortcut is nearest neighbour."""
    upsampling_kernel: Kernel = 3
    """Side of the kernel of the convolutions that double a map, 2 to 7."""

    def maps(self, image_shape: ImageShape) -> Maps:
        base, doublings = base_and_doublings(self.name, image_shape)
        return [(base << s, base << s) for s in range(doublings, -1, -1)]

    def discriminator_maps(self, image_shape: ImageShape) -> Maps:
        return self.maps(image_shape)[1:3]

    def to_images(self, image_shape: ImageShape, width: int, norm: Normalization) -> nn.Module:
        wide, maps = 2 * width, self.maps(image_shape)
        layers: list[nn.Module] = [
            nn.Linear(self.latent_dim, wide * maps[-1][0] * maps[-1][1]),
            nn.Unflatten(1, (wide, *maps[-1])),
            *self.attended(maps[-1], wide),
        ]
        for size in maps[-2::-1]:
            layers += [UpBlock(wide, norm, self.doubled(wide, wide)), *self.attended(size, wide)]
        last = nn.Conv2d(wide, image_shape[0], 3, 1, 1)
        return nn.Sequential(*layers, self.norm(norm, wide), nn.ReLU(), last, nn.Tanh())

    def from_images(self, image_shape: ImageShape, outputs: int, across: Across) -> nn.Module:
        width, norm = self._judging_width, self.discriminator_normalization
        layers: list[nn.Module] = []
        channels = image_shape[0]
        for size in self.discriminator_maps(image_shape):
            layers.append(DownBlock(channels, width, norm, halves=True, first=not layers))
            layers += self.attended(size, width)
            channels = width
        layers += [DownBlock(width, width, norm, halves=False) for _ in range(self.depth)]
        return nn.Sequential(*layers, SumPool(), head(width, outputs, across))

    @torch.no_grad()
    def draw(self, network: nn.Module) -> nn.Module:
        initialize(network, "xavier")
        for block in network.modules():
            if not isinstance(block, UpBlock | DownBlock):
                continue
            for layer in (*block.conv1.modules(), *block.conv2.modules()):
                if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                    nn.init.xavier_uniform_(layer.weight, gain=math.sqrt(2))
        return network
