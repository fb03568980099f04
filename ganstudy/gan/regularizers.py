"""Regularisers of the discriminator: penalties at points, and hooks around an update.

A regulariser overrides only the hooks it needs; the base does nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from ganstudy.registry import Component, Registry, component

Discriminator = Callable[[Tensor], Tensor]
"""Images (batch, channels, height, width) -> logits (batch, 1)."""

Weight = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


class Regularizer(Component):
    """A constraint on the discriminator."""

    def penalty(
        self, discriminator: Discriminator, real: Tensor, fake: Tensor, rng: torch.Generator
    ) -> Tensor | None:
        """Return what is added to the discriminator's loss, or None.

        Args:
            discriminator: Images -> logits (batch, 1).
            real: Real images, (batch, channels, height, width) in [-1, 1].
            fake: Generated images of the same shape, detached.
            rng: CPU generator of the stream "penalty"; the only source of randomness.
        """
        return None

    def after_update(self, discriminator: nn.Module) -> None:
        """Change the discriminator right after its optimiser's step."""


REGULARIZERS: Registry[Regularizer] = Registry("regularizer")


def input_gradient_norm(discriminator: Discriminator, images: Tensor) -> Tensor:
    """Return the per-sample L2 norm of the logit's gradient at `images`, (batch,), differentiable.

    The norm is over all of channels, height and width. At a gradient of exactly zero torch's norm
    has derivative 0, so nothing needs to be added inside the root.
    """
    images = images.detach().requires_grad_()
    logits = discriminator(images)
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.flatten(1).norm(dim=1)


@REGULARIZERS.register("weight_clip", paper="Arjovsky et al. 2017, arXiv:1701.07875, algorithm 1")
@component
class WeightClip(Regularizer):
    """Clamp every parameter of the discriminator, biases included, after its step."""

    limit: Positive = 0.01
    """Largest absolute value of a parameter."""

    @torch.no_grad()
    def after_update(self, discriminator: nn.Module) -> None:
        torch._foreach_clamp_min_(list(discriminator.parameters()), -self.limit)
        torch._foreach_clamp_max_(list(discriminator.parameters()), self.limit)


@REGULARIZERS.register("gradient_penalty", paper="Gulrajani et al. 2017, arXiv:1704.00028")
@component
class GradientPenalty(Regularizer):
    """weight * E (norm - target)^2 at points between real and fake, one alpha per sample."""

    weight: Weight = 10.0
    """Factor of the penalty (lambda in the paper)."""
    target: Weight = 1.0
    """Norm of the gradient that costs nothing."""

    def penalty(
        self, discriminator: Discriminator, real: Tensor, fake: Tensor, rng: torch.Generator
    ) -> Tensor:
        alpha = torch.rand(len(real), 1, 1, 1, generator=rng).to(real)
        norms = input_gradient_norm(discriminator, torch.lerp(fake, real, alpha))
        return self.weight * (norms - self.target).square().mean()


@REGULARIZERS.register("r1", paper="Mescheder et al. 2018, arXiv:1801.04406, equation 9")
@component
class R1(Regularizer):
    """weight / 2 * E norm^2 of the logit's gradient at real images; the half is the paper's."""

    weight: Weight = 10.0
    """Factor of the penalty (gamma in the paper)."""

    def penalty(
        self, discriminator: Discriminator, real: Tensor, fake: Tensor, rng: torch.Generator
    ) -> Tensor:
        return self.weight / 2 * input_gradient_norm(discriminator, real).square().mean()
