"""Stabilisers: tricks around the game that are neither a loss nor a penalty.

A stabiliser overrides only the hooks it needs. Anything that a stabiliser must remember is a
module it makes for the trainer, so that it is saved and resumed with everything else.
"""

from __future__ import annotations

import copy
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from ganstudy.registry import Component, Registry, component


class Stabilizer(Component):
    """A change to how the game is played."""

    averages: ClassVar[bool] = False
    """Whether all it does is to average the generator, which needs no discriminator."""

    def discriminator_input(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Return what the discriminator sees in place of `images` (real or fake, in training)."""
        return images

    def averaged(self, generator: nn.Module) -> nn.Module | None:
        """Return the module that is sampled in place of the generator, or None."""
        return None

    def update_average(self, average: nn.Module, generator: nn.Module, batch_size: int) -> None:
        """Move `average` towards `generator` after a generator update."""


STABILIZERS: Registry[Stabilizer] = Registry("stabilizer")


@STABILIZERS.register("ema", paper="Yazici et al. 2019, arXiv:1806.04498; Karras et al. 2018")
@component
class ExponentialMovingAverage(Stabilizer):
    """Sample from an average of the generator's weights, its half-life counted in images.

    Parameters are averaged and buffers copied, as in StyleGAN; the average starts as a copy.
    """

    averages: ClassVar[bool] = True

    halflife_images: Annotated[float, Field(gt=0)] = 5_000.0
    """Generated training images after which a weight's share in the average has halved."""

    def averaged(self, generator: nn.Module) -> nn.Module:
        return copy.deepcopy(generator).requires_grad_(False)

    @torch.no_grad()
    def update_average(self, average: nn.Module, generator: nn.Module, batch_size: int) -> None:
        decay = 0.5 ** (batch_size / self.halflife_images)
        for mean, value in zip(average.parameters(), generator.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)
        for kept, buffer in zip(average.buffers(), generator.buffers(), strict=True):
            kept.copy_(buffer)


@STABILIZERS.register("instance_noise", paper="Sonderby et al. 2017, arXiv:1610.04490")
@component
class InstanceNoise(Stabilizer):
    """Add Gaussian noise to every image that the discriminator trains on, real and fake."""

    sigma: Annotated[float, Field(ge=0)] = 0.1
    """Standard deviation, in units of images in [-1, 1]."""

    def discriminator_input(self, images: Tensor, rng: torch.Generator) -> Tensor:
        if self.sigma == 0:
            return images
        return images + self.sigma * torch.randn(images.shape, generator=rng).to(images)
