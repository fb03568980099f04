"""Residual networks of spectral normalisation."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu

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


class UpBlock(nn.Module):
    """Norm, ReLU, doubling, 3x3 convolution, norm, ReLU, 3x3 convolution; beside it a shortcut."""

    def __init__(self, inputs: int, outputs: int, norm: Normalization) -> None:
        """Build a block that doubles the side."""
        super().__init__()
        self.norm1, self.norm2 = normalization(norm, inputs), normalization(norm, outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 1, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, outputs, 2 height, 2 width)."""
        y = self.conv1(interpolate(relu(self.norm1(x)), scale_factor=2, mode="nearest"))
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
    channels throughout, spectral norm on all of it by default. Weights are Xavier's.

    Elsewhere:
        mimicry draws weights with a gain of root 2 inside the blocks and 1 outside.
    """

    latent_dim: Width = 128
    """Dimension of the latent."""
    width: Width = 128
    """Channels of the discriminator; the generator has twice as many."""
    depth: Annotated[int, Field(ge=0)] = 2
    """Blocks of the discriminator that keep the side."""
    spectral_norm: bool = True
    """Spectral normalisation of every discriminator layer."""

    def downsampling(self, image_shape: ImageShape, outputs: int, across: Across) -> nn.Module:
        channels, norm = image_shape[0], self.discriminator_normalization
        _, doublings = base_and_doublings(self.name, image_shape)
        halvings = min(2, doublings)
        layers: list[nn.Module] = [
            DownBlock(channels, self.width, norm, halves=True, first=True),
            *(DownBlock(self.width, self.width, norm, halves=True) for _ in range(halvings - 1)),
            *(DownBlock(self.width, self.width, norm, halves=False) for _ in range(self.depth)),
            SumPool(),
            head(self.width, outputs, across),
        ]
        return nn.Sequential(*layers)

    def upsampling(self, image_shape: ImageShape, norm: Normalization) -> nn.Module:
        channels, wide = image_shape[0], 2 * self.width
        base, doublings = base_and_doublings(self.name, image_shape)
        layers: list[nn.Module] = [
            nn.Linear(self.latent_dim, wide * base * base),
            nn.Unflatten(1, (wide, base, base)),
            *(UpBlock(wide, wide, norm) for _ in range(doublings)),
            normalization(norm, wide),
            nn.ReLU(),
            nn.Conv2d(wide, channels, 3, 1, 1),
            nn.Tanh(),
        ]
        return nn.Sequential(*layers)

    def draw(self, network: nn.Module) -> nn.Module:
        return initialize(network, "xavier")
