"""Adversarial losses. r = logits on real, f = logits on fake, both (batch, 1) -> scalar.

Every loss takes logits, never probabilities, and averages over the batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

from ganstudy.registry import Component, Registry, component


class Loss(Component, ABC):
    """What the two networks minimise."""

    generator_reads_real: ClassVar[bool] = False
    """Whether `generator` needs the logits on real images (relativistic losses do)."""

    @abstractmethod
    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Return the discriminator's loss.

        Args:
            real_logits: Logits on real images, (batch, 1).
            fake_logits: Logits on generated images, (batch, 1).
        """

    @abstractmethod
    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """Return the generator's loss; `real_logits` only where `generator_reads_real`."""


LOSSES: Registry[Loss] = Registry("loss")


@LOSSES.register("non_saturating", paper="Goodfellow et al. 2014, arXiv:1406.2661, section 3")
@component
class NonSaturating(Loss):
    """Logistic loss; the generator maximises log D(fake): E s(-r) + E s(f), then E s(-f)."""

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return softplus(-real_logits).mean() + softplus(fake_logits).mean()

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return softplus(-fake_logits).mean()


@LOSSES.register("minimax", paper="Goodfellow et al. 2014, arXiv:1406.2661, equation 1")
@component
class Minimax(NonSaturating):
    """Logistic loss; the generator minimises log(1 - D(fake)): it saturates where D is sure."""

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return -softplus(fake_logits).mean()


@LOSSES.register("wasserstein", paper="Arjovsky et al. 2017, arXiv:1701.07875")
@component
class Wasserstein(Loss):
    """Difference of mean logits, E f - E r; needs a Lipschitz bound from elsewhere."""

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return fake_logits.mean() - real_logits.mean()

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return -fake_logits.mean()


@LOSSES.register("hinge", paper="Lim & Ye 2017, arXiv:1705.02894; Miyato et al. 2018")
@component
class Hinge(Loss):
    """Margin loss E relu(1 - r) + E relu(1 + f); the generator minimises -E f, unbounded."""

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return relu(1 - real_logits).mean() + relu(1 + fake_logits).mean()

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return -fake_logits.mean()


def logit_slope(loss: Loss, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
    """Return mean |dL_G / df| per sample: how much the loss lets the generator learn.

    The mean over the batch that every loss takes is undone, so that 1 is the slope of the
    Wasserstein loss at any batch size. Adam hides a vanishing slope from gradient norms.
    """
    logits = fake_logits.detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(loss.generator(logits, real_logits), logits)
    return slope.abs().sum()
