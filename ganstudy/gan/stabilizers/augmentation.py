"""Differentiable augmentation of whatever the discriminator sees, always at full strength."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from ganstudy.gan.stabilizers.base import STABILIZERS, Stabilizer, Turn
from ganstudy.registry import component

if TYPE_CHECKING:
    from ganstudy.gan.config import TrainConfig

SHIFT = 8
"""Images move by at most one part in so many of their side."""


@STABILIZERS.register("diff_augment", paper="Zhao et al. 2020, arXiv:2006.10738")
@component
class DiffAugment(Stabilizer):
    """Recolour, move and cut every image that the discriminator sees, real and fake.

    Both networks train through it, so that the generator is not taught the augmentations. In
    this order, each image with draws of its own: brightness + U(-0.5, 0.5), saturation x U(0, 2)
    around the mean of a pixel's channels (nothing on one channel), contrast x U(0.5, 1.5) around
    the image's mean; a move by whole pixels, up to an eighth of either side, rounded to nearest; a
    rectangle of half of either side (an odd one rounded up), centred anywhere in the image, is cut
    out. What moves in and what is cut out is 0, which is mid-grey in [-1, 1] and not the black
    around a digit. Colours may leave [-1, 1].

    Elsewhere:
        The same in the authors' code for PyTorch and in StudioGAN; the authors' code for
        TensorFlow rounds both down. zCR (latent_consistency) compares images
        that are not augmented.
    """

    color: bool = True
    """Whether brightness, saturation and contrast change."""
    translation: bool = True
    """Whether images move, zeros following."""
    cutout: bool = True
    """Whether a part of each image, of half its height and width, is set to 0."""

    def check(self, config: TrainConfig) -> None:
        if self.color or self.translation or self.cutout:
            refuse_points(config)

    def discriminator_input(self, images: Tensor, turn: Turn) -> Tensor:
        rng, (batch, _, height, width) = turn.rng, images.shape
        if self.color:
            brightness, saturation, contrast = torch.rand(3, batch, generator=rng)
            images = recolored(images, brightness - 0.5, 2 * saturation, contrast + 0.5)
        if self.translation:
            most = [(n + SHIFT // 2) // SHIFT for n in (height, width)]
            down, right = (_whole(-n, n, batch, rng) for n in most)
            images = translated(images, down, right)
        if self.cutout:
            # An odd length has its middle on one of n pixels, an even one on one of n + 1 edges.
            row, column = (_whole(0, n - hole_side(n) % 2, batch, rng) for n in (height, width))
            images = cut(images, row, column)
        return images


def refuse_points(config: TrainConfig) -> None:
    """Raise ValueError where the data are points and not images."""
    if config.dataset.image_shape[1:] == (1, 1):
        raise ValueError(f"{config.dataset.name} has points, no images to augment: leave it out")


def recolored(images: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    """Return `images` with, one after the other, one change of each kind.

    Args:
        images: (batch, channels, height, width).
        brightness: What is added, (batch,).
        saturation: Factor around the mean of each pixel's channels, (batch,).
        contrast: Factor around the mean of the whole image, (batch,).
    """
    images = images + of_images(brightness, images)
    grey = images.mean(1, keepdim=True)
    images = (images - grey) * of_images(saturation, images) + grey
    mean = images.mean((1, 2, 3), keepdim=True)
    return (images - mean) * of_images(contrast, images) + mean


def translated(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Return `images` moved by whole pixels, zeros following.

    Args:
        images: (batch, channels, height, width).
        down: Pixels, (batch,) int64; up where negative.
        right: Pixels, (batch,) int64; to the left where negative.
    """
    batch, channels, height, width = images.shape
    # One line of zeros on every side is enough: whatever comes from beyond is clamped to it.
    rows = (torch.arange(height) - down[:, None] + 1).clamp(0, height + 1)
    columns = (torch.arange(width) - right[:, None] + 1).clamp(0, width + 1)
    sources = rows[:, :, None] * (width + 2) + columns[:, None, :]
    return taken(pad(images, (1, 1, 1, 1)), sources.to(images.device))


def hole_side(side: int) -> int:
    """Return the pixels that are cut out of a side: half of it, an odd one rounded up."""
    return (side + 1) // 2


def cut(images: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Return `images` with 0 in a rectangle of half of either side, what of it lies inside.

    Args:
        images: (batch, channels, height, width).
        row: First row below the rectangle's middle, (batch,) int64.
        column: First column to the right of its middle, (batch,) int64.
    """
    inside = []
    for middle, side in ((row, images.shape[2]), (column, images.shape[3])):
        size = hole_side(side)
        offset = torch.arange(side) - (middle - size // 2)[:, None]
        inside.append((offset >= 0) & (offset < size))
    rows, columns = inside
    hole = rows[:, None, :, None] & columns[:, None, None, :]
    # A product, as in the authors' code: where the image is NaN, it stays NaN.
    return images * (~hole).to(images)


def taken(images: Tensor, sources: Tensor) -> Tensor:
    """Return each pixel from where `sources` says, (batch, height, width) places in a flat image.

    Differentiable as often as one likes.
    """
    index = sources.flatten(1)[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, index).unflatten(2, sources.shape[1:])


def of_images(values: Tensor, images: Tensor) -> Tensor:
    """Return one value per image, (batch,), as a factor or a term of `images`."""
    return values.view(-1, 1, 1, 1).to(images)


def _whole(low: int, high: int, batch: int, rng: torch.Generator) -> Tensor:
    """Return whole numbers between `low` and `high`, both included."""
    return torch.randint(low, high + 1, (batch,), generator=rng)
