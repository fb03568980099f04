"""Regularisers: penalties at points, on logits, on latents or on weights, and hooks at a step.

A regulariser overrides only the hooks it needs; the base does nothing. Each docstring ends with
what the public code bases compute under the same name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ganstudy.gan.architectures import ImageShape
from ganstudy.gan.losses import Memory
from ganstudy.registry import Component, Registry, component

Network = Callable[[Tensor], Tensor]
"""A discriminator, images (batch, channels, height, width) -> logits (batch, 1), or a generator,
latents (batch, latent_dim) -> images."""
Role = Literal["generator", "discriminator"]
Roles = Literal["generator", "discriminator", "both"]

Weight = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


@component
class Regularizer(Component):
    """A constraint on the game."""

    differentiates_input: ClassVar[bool] = False
    """Whether it differentiates the discriminator by its input, sample by sample: batch norm then
    makes it another penalty, and torch.compile, without double backward, cannot compile it."""

    interval: Annotated[int, Field(ge=1)] = 1
    """Apply at every interval-th update of a network, the first included; what is added to a loss
    is then multiplied by it, so that its mean strength stays (lazy regularisation)."""

    def check(self, image_shape: ImageShape) -> None:
        """Raise ValueError for data of a shape that this regulariser cannot work on."""

    def penalty(
        self, discriminator: Network, real: Tensor, fake: Tensor, rng: torch.Generator
    ) -> Tensor | None:
        """Return what is added to the discriminator's loss, or None.

        Args:
            discriminator: Images -> logits (batch, 1).
            real: Real images, (batch, channels, height, width) in [-1, 1].
            fake: Generated images of the same shape, detached.
            rng: CPU generator of the stream "penalty"; the only source of randomness.
        """
        return None

    def logit_penalty(
        self, real_logits: Tensor, fake_logits: Tensor, memory: Memory
    ) -> Tensor | None:
        """Return what is added to the discriminator's loss for its logits, (batch, 1), or None."""
        return None

    def latent_penalty(
        self, discriminator: Network, generator: Network, latents: Tensor, rng: torch.Generator
    ) -> Tensor | None:
        """Return what is added to the discriminator's loss for `latents`, or None."""
        return None

    def generator_penalty(
        self, generator: Network, latents: Tensor, rng: torch.Generator
    ) -> Tensor | None:
        """Return what is added to the generator's loss for `latents`, or None."""
        return None

    def weight_penalty(self, network: nn.Module, role: Role) -> Tensor | None:
        """Return what is added to the loss of the network in `role` for its weights, or None."""
        return None

    def before_step(self, network: nn.Module, role: Role) -> None:
        """Change the gradients of `network` before its optimiser's step."""

    def after_step(self, network: nn.Module, role: Role) -> None:
        """Change `network` right after its optimiser's step."""

    def memory(self) -> Memory:
        """Return what this regulariser remembers, before the first update."""
        return {}

    def remember(
        self, memory: Memory, real_logits: Tensor, fake_logits: Tensor, updates: int
    ) -> None:
        """Change `memory` in place at every discriminator update, before its penalties are taken.

        Args:
            memory: What `memory` gave, changed so far.
            real_logits: This update's logits on real images, detached.
            fake_logits: And on fakes.
            updates: Discriminator updates made before this one.
        """


REGULARIZERS: Registry[Regularizer] = Registry("regularizer")
