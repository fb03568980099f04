"""Stabilisers that change what the discriminator is shown, and under which label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from ganstudy.gan.losses import Memory
from ganstudy.gan.regularizers.base import Role
from ganstudy.gan.stabilizers.base import (
    STABILIZERS,
    DiscriminatorLoss,
    Share,
    Stabilizer,
    Turn,
)
from ganstudy.registry import component

if TYPE_CHECKING:
    from ganstudy.gan.config import TrainConfig


@STABILIZERS.register(
    "instance_noise", paper="Sonderby et al. 2017, arXiv:1610.04490; Arjovsky & Bottou 2017"
)
@component
class InstanceNoise(Stabilizer):
    """Add Gaussian noise to every image that the discriminator trains on, real and fake.

    The noise can be annealed: linearly to 0 at a share of the budget.

    Elsewhere:
        Seldom in the large code bases; Sonderby anneals linearly, as here.
    """

    sigma: Annotated[float, Field(ge=0)] = 0.1
    """Standard deviation at first, in units of images in [-1, 1]; 0 is off."""
    until: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the budget at which the noise has fallen to 0; null keeps it as it is."""

    def discriminator_input(self, images: Tensor, turn: Turn) -> Tensor:
        left = 1.0 if self.until is None else max(0.0, 1 - turn.progress / self.until)
        if self.sigma * left == 0:
            return images
        return images + self.sigma * left * torch.randn(images.shape, generator=turn.rng).to(
            images
        )


@STABILIZERS.register("label_smoothing", paper="Salimans et al. 2016, arXiv:1606.03498")
@component
class LabelSmoothing(Stabilizer):
    """One-sided: the discriminator's target on real images is 1 - amount, that on fakes stays 0.

    With a(r) its loss on an image called real and b(r) on one called fake, it minimises
    E (1 - amount) a(r) + amount b(r) + E b(f), up to a constant. For losses whose logits have a
    boundary between real and fake; for least squares it is the target 1 - amount.

    Elsewhere:
        Many codes smooth both sides, which Salimans et al. advise against: where the data is
        absent, the model's own mistakes are then held up as targets.
    """

    amount: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    """How far the target of real images lies below 1; 0 is off."""

    def check(self, config: TrainConfig) -> None:
        if self.amount:
            needs_boundary(config, "has no target to smooth")

    def discriminator_loss(self, play: DiscriminatorLoss, turn: Turn) -> DiscriminatorLoss:
        if self.amount == 0:
            return play

        def smoothed(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
            # b(r) - a(r), had from a loss that is a sum of both sides by a constant other side.
            zero = torch.zeros_like(real_logits)
            difference = play(zero, real_logits) - play(real_logits, zero)
            return play(real_logits, fake_logits) + self.amount * difference

        return smoothed


@STABILIZERS.register(
    "label_flipping", paper="Chintala et al. 2016, github.com/soumith/ganhacks, number 6"
)
@component
class LabelFlipping(Stabilizer):
    """The discriminator is told the wrong label of some pairs of a real and a fake image.

    Pair i of an update is exchanged with the given probability. Its logits are exchanged, not the
    images, so that batch norm still sees reals and fakes apart, and signals are of the true
    labels.

    Elsewhere:
        Often written as a flip of whole batches every so many updates.
    """

    probability: Annotated[float, Field(ge=0, lt=0.5)] = 0.05
    """Share of the pairs that are exchanged; 0 is off."""

    def discriminator_loss(self, play: DiscriminatorLoss, turn: Turn) -> DiscriminatorLoss:
        if self.probability == 0:
            return play

        def flipped(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
            coins = torch.rand(len(real_logits), 1, generator=turn.rng)
            wrong = (coins < self.probability).to(real_logits.device)
            return play(
                torch.where(wrong, fake_logits, real_logits),
                torch.where(wrong, real_logits, fake_logits),
            )

        return flipped


@STABILIZERS.register("experience_replay", paper="Shrivastava et al. 2017, arXiv:1612.07828")
@component
class ExperienceReplay(Stabilizer):
    """A share of the fakes that the discriminator trains on was made in earlier updates.

    They come from a buffer, which fills first; then as many of the newest fakes as were replaced
    take random places in it.

    Elsewhere:
        CycleGAN and pix2pixHD have a pool of 50 images, each fake with probability 1/2 being
        exchanged for one of them.
    """

    share: Share = 0.5
    """Share of a batch that comes from the buffer; 0 is off."""
    images: Annotated[int, Field(ge=1)] = 2048
    """Images that the buffer holds."""

    def check(self, config: TrainConfig) -> None:
        if self.share and config.conditioning.uses_labels:
            raise ValueError("the buffer keeps no labels: use it without conditioning")
        if self.share and config.generator_optimizer.extrapolates:
            raise ValueError(
                "extragradient looks twice at one update's fakes, which a buffer would change in "
                "between: use another optimiser"
            )

    def memory(self, config: TrainConfig, networks: Mapping[Role, nn.Module]) -> Memory:
        if self.share == 0:
            return {}
        images = torch.zeros(self.images, *config.dataset.image_shape)
        return {"images": images, "held": torch.zeros((), dtype=torch.int64)}

    def presented(self, fake: Tensor, turn: Turn) -> Tensor:
        count = round(self.share * len(fake))
        if count == 0:
            return fake
        buffer, held = turn.memory["images"], int(turn.memory["held"])
        kept, newest = fake[: len(fake) - count], fake[len(fake) - count :]
        picked = torch.randint(max(held, 1), (count,), generator=turn.rng)
        shown = torch.cat([kept, buffer[picked].to(fake)]) if held else fake
        self._store(newest, turn)
        return shown

    def _store(self, newest: Tensor, turn: Turn) -> None:
        buffer, held = turn.memory["images"], turn.memory["held"]
        free = min(len(newest), self.images - int(held))
        places = torch.randint(self.images, (len(newest),), generator=turn.rng)
        places[:free] = torch.arange(free) + int(held)
        buffer[places] = newest.to(buffer)
        held += free


def needs_boundary(config: TrainConfig, why: str) -> None:
    """Raise ValueError where the loss has no logit between real and fake."""
    if config.loss.boundary is None:
        raise ValueError(
            f"{config.loss.name} {why}: use it with a loss that has a boundary between real and "
            f"fake (non_saturating, minimax, hinge, least_squares, an f-divergence)"
        )
