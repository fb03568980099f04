"""The latents whose images are nearest to others: a generator inverted by gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ganstudy.measure.metrics.base import Latents

Floats = NDArray[np.float64]

BLOCK = 256
"""Latents that are searched at a time."""
MEMORY, FIRST_STEP = 10, 0.1
"""Of L-BFGS: steps that are remembered, and the first one's length."""


class Search(NamedTuple):
    """How the latents of images are looked for.

    Attributes:
        draws: Latents drawn from the prior, of which the nearest ones are started from.
        restarts: How many of them, for each image.
        steps: Of L-BFGS, from each.
        clamp: Whether latents stay within the range of the draws, dimension by dimension.
        seed: Of the draws.
    """

    draws: int
    restarts: int
    steps: int
    clamp: bool
    seed: int


class Inverted(NamedTuple):
    """Squared distances of n images to a generator's nearest images that were found.

    Attributes:
        screened: Among the draws alone, (n,).
        half: After half of the steps, (n,).
        found: After all of them, (n,); never above `half`, nor that above `screened`.
    """

    screened: Floats
    half: Floats
    found: Floats


def invert(latents: Latents, images: Tensor, search: Search) -> Inverted:
    """Return how near a generator comes to each of `images`, by gradients on its latents.

    Each image's search begins at the nearest of many draws and goes only where it comes nearer, so
    that more steps or restarts never find less. A step does not know how many there are: the first
    half of a search is the search of half as many steps.

    Args:
        latents: The generator. Its weights collect no gradients.
        images: (n >= 1, channels, height, width) in [-1, 1].
        search: How to search.

    Returns:
        The distances; NaN where an image of a draw is not finite.
    """
    if len(images) < 1:
        raise ValueError(f"images must be (n >= 1, c, h, w), got shape {tuple(images.shape)}")
    drawn = latents.draw(search.draws, torch.Generator().manual_seed(search.seed))
    made = _images_of(latents, drawn)
    if made.shape[1] != images[0].numel():
        shape = tuple(images.shape[1:])
        raise ValueError(f"images of shape {shape} are not what the generator makes")
    if not made.isfinite().all():
        return Inverted(*np.full((3, len(images)), math.nan))
    # Less the image's own square, which is the same for all draws.
    distances = made.square().sum(dim=1) - 2 * images.flatten(1) @ made.T
    nearest = distances.topk(min(search.restarts, len(drawn)), dim=1, largest=False).indices
    generate, coordinates = (
        _within_draws(latents, drawn) if search.clamp else (latents.generate, drawn)
    )
    parts = []
    for part in torch.arange(len(images)).split(max(1, BLOCK // nearest.shape[1])):
        starts, wanted = coordinates[nearest[part]], images[part]
        wanted = wanted.repeat_interleave(starts.shape[1], dim=0)
        found = Descent(generate, starts.flatten(0, 1), wanted).run(search.steps)
        parts.append(found.view(3, *starts.shape[:2]).amin(dim=2).double().numpy())
    return Inverted(*np.concatenate(parts, axis=1))


def _within_draws(latents: Latents, drawn: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Return the generator in coordinates of which each is a latent's, and the draws in these.

    A latent is the sine of its coordinate, stretched to the range of the draws in its dimension:
    all coordinates are allowed, and no gradient is cut off. The range of n draws is widened by
    (n + 1) / (n - 1), which makes it an unbiased estimate of a uniform prior's and leaves no
    draw at its very end, where a sine has no slope.
    """
    least, most, n = drawn.amin(dim=0), drawn.amax(dim=0), len(drawn)
    middle, half = (least + most) / 2, (most - least) / 2 * (n + 1) / (n - 1)

    def generate(coordinates: Tensor) -> Tensor:
        m, h = middle.to(coordinates.device), half.to(coordinates.device)
        return latents.generate(m + h * coordinates.sin())

    # A dimension that is the same in all draws stays as it is.
    return generate, ((drawn - middle) / half.clamp(min=1e-30)).asin()


@torch.no_grad()
def _images_of(latents: Latents, drawn: Tensor) -> Tensor:
    return torch.cat([latents.generate(block).cpu().flatten(1) for block in drawn.split(BLOCK)])


class Descent:
    """L-BFGS on many points at once, each with steps and a memory of its own.

    A step that leads further away is not taken, and the next one is shortened; what it tells of
    the curvature is kept (Liu & Nocedal 1989, doi:10.1007/BF01589116).
    """

    def __init__(
        self, generate: Callable[[Tensor], Tensor], starts: Tensor, images: Tensor
    ) -> None:
        """Begin at `starts`, (n, ...), of which each looks for its own of `images`, (n, ...)."""
        self.generate, self.shape = generate, starts.shape
        with torch.no_grad():
            device = generate(starts[:1]).device
        self.wanted, self.z = images.to(device), starts.flatten(1).to(device)
        self.distances, self.slopes = self._judge(self.z)
        self.stride = torch.ones_like(self.distances)
        self.memory: list[tuple[Tensor, Tensor, Tensor]] = []

    def run(self, steps: int) -> Tensor:
        """Return the distances before the first step, after half of the steps and after all."""
        met = [self.distances]
        for _ in range(steps):
            self._step()
            met.append(self.distances)
        return torch.stack((met[0], met[steps // 2], met[-1])).cpu()

    def _judge(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return squared distances, (n,), and their gradients, (n, d)."""
        z = z.detach().requires_grad_()
        with torch.enable_grad():
            made = self.generate(z.view(self.shape))
            # Halves the range of [-1, 1] to that of [0, 1].
            distances = ((made - self.wanted) / 2).square().flatten(1).sum(dim=1)
            (slopes,) = torch.autograd.grad(distances.sum(), z)
        return distances.detach(), slopes

    def _step(self) -> None:
        """Take a step where it leads nearer, and remember the curvature on its way."""
        tried = self.z - self.stride[:, None] * self._direction()
        distances, slopes = self._judge(tried)
        self._remember(tried - self.z, slopes - self.slopes)
        nearer = distances < self.distances
        self.z = torch.where(nearer[:, None], tried, self.z)
        self.slopes = torch.where(nearer[:, None], slopes, self.slopes)
        self.distances = torch.where(nearer, distances, self.distances)
        self.stride = torch.where(nearer, 1.0, (0.4 * self.stride).clamp(min=1e-3))

    def _remember(self, moved: Tensor, turned: Tensor) -> None:
        """Keep a step and the change of slope along it, where the two agree."""
        product = (moved * turned).sum(dim=1)
        agree = product > 1e-8 * moved.norm(dim=1) * turned.norm(dim=1)
        kept = (
            torch.where(agree[:, None], moved, 0.0),
            torch.where(agree[:, None], turned, 0.0),
            torch.where(agree, 1 / product, 0.0),
        )
        self.memory = [*self.memory[1 - MEMORY :], kept]

    def _direction(self) -> Tensor:
        """Return the slopes times the inverse curvature, as far as it is remembered."""
        slopes = self.slopes
        plain = slopes * (FIRST_STEP / slopes.norm(dim=1, keepdim=True).clamp(min=1e-12))
        if not self.memory:
            return plain
        found, parts = slopes, []
        for moved, turned, weight in reversed(self.memory):
            parts.append(weight * (moved * found).sum(dim=1))
            found = found - parts[-1][:, None] * turned
        _, turned, weight = self.memory[-1]
        # Where the last step told nothing there is no scale to trust.
        told = weight > 0
        scale = torch.where(told, 1 / (weight * turned.square().sum(dim=1)), 0.0)
        found = found * scale[:, None]
        for (moved, turned, weight), part in zip(self.memory, reversed(parts), strict=True):
            found = found + (part - weight * (turned * found).sum(dim=1))[:, None] * moved
        downhill = told & ((found * slopes).sum(dim=1) > 0)
        return torch.where(downhill[:, None], found, plain)
