"""Stabilisers: tricks around the game that are neither a loss nor a penalty on gradients.

A stabiliser overrides only the hooks it needs; the base does nothing. What it must remember is a
dict of tensors that the trainer saves and resumes with everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from ganstudy.gan.architectures import ImageShape
from ganstudy.gan.losses import Memory
from ganstudy.gan.regularizers.base import Role
from ganstudy.registry import Component, Registry

if TYPE_CHECKING:
    from ganstudy.gan.config import TrainConfig

Share = Annotated[float, Field(ge=0, le=1)]
Build = Callable[[ImageShape], nn.Module]
"""Image shape -> discriminator."""
DiscriminatorLoss = Callable[[Tensor, Tensor], Tensor]
"""(real_logits, fake_logits) -> scalar."""
GeneratorLoss = Callable[[Tensor, Tensor | None], Tensor]
"""(fake_logits, real_logits where the loss reads them) -> scalar."""
Network = Callable[..., Tensor]
"""A discriminator: images (and labels) -> logits."""


class Features(NamedTuple):
    """What each head of the discriminator was given of one batch of either side."""

    fake: list[Tensor]
    real: list[Tensor]


class Turn(NamedTuple):
    """Where the run stands at the update at hand."""

    progress: float
    """Share of the budget that has been trained, in [0, 1]."""
    memory: Memory
    """What this stabiliser remembers."""
    rng: torch.Generator
    """CPU generator of the stream "stabilizers"; the only source of randomness."""
    features: Features | None = None
    """For the generator's loss, where `reads_features`."""


class Stabilizer(Component):
    """A change to how the game is played."""

    averages: ClassVar[bool] = False
    """Whether all it does is to average the generator, which needs no discriminator."""

    def check(self, config: TrainConfig) -> None:
        """Raise ValueError where it cannot work with the rest of `config`."""

    def memory(self, config: TrainConfig, networks: Mapping[Role, nn.Module]) -> Memory:
        """Return what it remembers, before the first update."""
        return {}

    def signals(self, memory: Memory) -> Mapping[str, Tensor]:
        """Return what of its memory is worth a signal, by name, after a discriminator update."""
        return {}

    # How the discriminator is built.

    @property
    def across(self) -> Callable[[int], nn.Module] | None:
        """The maker of a layer across the batch, by which a logit depends on all of it, or None.

        Features -> a module (batch, features) -> (batch, out_features), as in `Across`.
        """
        return None

    def judge(self, build: Build, image_shape: ImageShape) -> nn.Module:
        """Return the discriminator of images of `image_shape`; `build` makes one of any shape."""
        return build(image_shape)

    # What the discriminator is shown, and whether it learns from it.

    def presented(self, fake: Tensor, turn: Turn) -> Tensor:
        """Return the fakes that the discriminator trains on in place of `fake`."""
        return fake

    def discriminator_input(self, images: Tensor, turn: Turn) -> Tensor:
        """Return what it sees in place of `images`, real or fake, in both networks' updates."""
        return images

    def learns(self, turn: Turn) -> bool:
        """Return whether the discriminator makes the step that is due."""
        return True

    def remember(
        self, memory: Memory, real_logits: Tensor, fake_logits: Tensor, config: TrainConfig
    ) -> None:
        """Change `memory` in place after the discriminator's pass, logits (batch, judgements)."""

    # What the two are trained on.

    def discriminator_loss(self, play: DiscriminatorLoss, turn: Turn) -> DiscriminatorLoss:
        """Return the discriminator's loss in place of `play`."""
        return play

    def generator_loss(self, play: GeneratorLoss, turn: Turn) -> GeneratorLoss:
        """Return the generator's loss in place of `play`."""
        return play

    @property
    def reads_features(self) -> bool:
        """Whether `generator_loss` needs the discriminator's features."""
        return False

    def weight_penalty(self, network: nn.Module, role: Role, memory: Memory) -> Tensor | None:
        """Return what is added to the loss of the network in `role` for its weights, or None."""
        return None

    def after_step(self, network: nn.Module, role: Role, memory: Memory) -> None:
        """Change `memory` in place right after a step of the network in `role`."""

    def opponent(
        self,
        discriminator: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: Callable[[Network], Tensor],
    ) -> Network | None:
        """Return what the generator plays against in place of `discriminator`, or None.

        Args:
            discriminator: As it stands.
            optimizer: Its own.
            loss: A discriminator -> its loss on this update's reals and fakes, which carries
                gradients to both networks.
        """
        return None

    # What is sampled.

    def averaged(self, generator: nn.Module) -> nn.Module | None:
        """Return the module that is sampled in place of the generator, or None."""
        return None

    def update_average(self, average: nn.Module, generator: nn.Module, batch_size: int) -> None:
        """Move `average` towards `generator` after a generator update."""


STABILIZERS: Registry[Stabilizer] = Registry("stabilizer")
