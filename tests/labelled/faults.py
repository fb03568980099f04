"""Failures that are planted in real runs, at a known update and for a known time.

A fault of samples changes what is sampled, and what is measured with it, while the networks train
on undisturbed. A fault of networks changes the training itself.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ganstudy.gan.config import TrainConfig
from ganstudy.gan.datasets import Dataset, Split, normalize
from ganstudy.gan.regularizers.base import Role
from ganstudy.gan.seeding import stream
from ganstudy.gan.trainer import GanTrainer
from ganstudy.gan.trainer.game import Penalty, Played

ModesOf = Callable[[Tensor], NDArray[np.int64]]
"""Images -> the mode that each is of."""
POOL = 8
"""Samples drawn for each that is kept where modes are removed."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that goes wrong from one discriminator update on, for good or until another.

    Attributes:
        at: First update; a multiple of the updates between two reads.
        until: Update from which all is well again, None for never.
        size: How much of it.
    """

    at: int
    until: int | None = None
    size: float = 1.0

    def holds(self, update: int) -> bool:
        """Whether the fault is there after that many updates."""
        return update >= self.at and (self.until is None or update < self.until)

    @property
    def name(self) -> str:
        """Name of the fault."""
        return type(self).__name__

    def sampled(self, trainer: FaultyTrainer, images: Tensor, rng: torch.Generator) -> Tensor:
        """Return what is sampled instead of `images`."""
        return images

    def strike(self, trainer: FaultyTrainer) -> None:
        """Change the networks once, at the fault's first update."""

    def factor(self, role: Role) -> float:
        """Return by what a network's learning rate is multiplied."""
        return 1.0

    @property
    def more_updates(self) -> int:
        """Discriminator updates that nobody counts, before each that is counted."""
        return 0

    @property
    def unpenalised(self) -> bool:
        """Whether the discriminator's loss has no penalties."""
        return False


@dataclass(frozen=True, kw_only=True)
class Constant(Fault):
    """All samples are one image, up to noise of standard deviation `size`."""

    def sampled(self, trainer: FaultyTrainer, images: Tensor, rng: torch.Generator) -> Tensor:
        return trainer.same(1) + self.size * torch.randn(images.shape, generator=rng)


@dataclass(frozen=True, kw_only=True)
class Squeeze(Fault):
    """Samples are drawn towards the nearest of `anchors` images, by the share `size`."""

    anchors: int

    def sampled(self, trainer: FaultyTrainer, images: Tensor, rng: torch.Generator) -> Tensor:
        anchors = trainer.same(self.anchors)
        nearest = torch.cdist(images.flatten(1), anchors.flatten(1)).argmin(dim=1)
        return images.lerp(anchors[nearest], self.size)


@dataclass(frozen=True, kw_only=True)
class Remove(Fault):
    """Modes are rejected but for the share 1 - `size` of their samples."""

    modes: tuple[int, ...]

    def sampled(self, trainer: FaultyTrainer, images: Tensor, rng: torch.Generator) -> Tensor:
        def weights(modes: NDArray[np.int64]) -> NDArray[np.float64]:
            return np.where(np.isin(modes, self.modes), 1 - self.size, 1.0)

        return trainer.rejected(len(images), weights, rng)


@dataclass(frozen=True, kw_only=True)
class Rotate(Fault):
    """Modes take turns: their shares swing by `size` (1: to nothing), each at its own time.

    Attributes:
        period: Discriminator updates of one turn.
    """

    period: int

    def sampled(self, trainer: FaultyTrainer, images: Tensor, rng: torch.Generator) -> Tensor:
        turn, count = trainer.discriminator_updates / self.period, trainer.modes_count

        def weights(modes: NDArray[np.int64]) -> NDArray[np.float64]:
            return 1 + self.size * np.cos(2 * math.pi * (turn - modes / count))

        return trainer.rejected(len(images), weights, rng)


@dataclass(frozen=True, kw_only=True)
class Noise(Fault):
    """White noise of standard deviation `size` lies on the samples."""

    def sampled(self, trainer: FaultyTrainer, images: Tensor, rng: torch.Generator) -> Tensor:
        return images + self.size * torch.randn(images.shape, generator=rng)


@dataclass(frozen=True, kw_only=True)
class Pattern(Fault):
    """A pattern that repeats every `period` pixels lies on the images.

    `size` is in decibels: the power of real images with the pattern on them, at the pattern's
    frequency, over that of real images without it.
    """

    period: Literal[2, 4] = 2

    def sampled(self, trainer: FaultyTrainer, images: Tensor, rng: torch.Generator) -> Tensor:
        return images + _pattern(trainer.config.dataset, self.period, self.size)


def _wave(sides: tuple[int, ...], period: int) -> NDArray[np.float64]:
    """Return a chessboard (period 2), or a wave of period 4 along both axes."""
    y, x = np.indices(sides)
    return np.cos(2 * math.pi * (y + x) / period)


@functools.cache
def _pattern(dataset: Dataset, period: int, decibels: float) -> Tensor:
    """Return the wave that adds so many decibels to real images' power at its frequency."""
    real = normalize(dataset.images("report")).numpy()
    height, width = real.shape[2:]
    wave = _wave((height, width), period)
    there, added = (
        np.mean(np.abs(np.fft.fft2(x)[..., height // period, width // period]) ** 2)
        for x in (real, wave)
    )
    factor = math.sqrt(there / added * (10 ** (decibels / 10) - 1))
    return torch.from_numpy(factor * wave).float()


@dataclass(frozen=True, kw_only=True)
class Stored(Fault):
    """A share of the samples are images of a split, with noise of standard deviation `size`.

    Of the split train they are copies, of another they are as good as samples can be.
    """

    split: Split = "train"
    share: float = 1.0

    def sampled(self, trainer: FaultyTrainer, images: Tensor, rng: torch.Generator) -> Tensor:
        stored = normalize(trainer.config.dataset.images(self.split))
        picked = stored[torch.randint(len(stored), (len(images),), generator=rng)]
        noisy = picked + self.size * torch.randn(picked.shape, generator=rng)
        chosen = torch.rand(len(images), generator=rng) < self.share
        return torch.where(chosen.view(-1, 1, 1, 1), noisy, images)


@dataclass(frozen=True, kw_only=True)
class NonFinite(Fault):
    """One weight of a network becomes NaN."""

    role: Role

    def strike(self, trainer: FaultyTrainer) -> None:
        trainer.weights(self.role)[0].data.view(-1)[0] = math.nan


@dataclass(frozen=True, kw_only=True)
class Scale(Fault):
    """All weights of a network are multiplied by `size`."""

    role: Role

    def strike(self, trainer: FaultyTrainer) -> None:
        for weight in trainer.weights(self.role):
            weight.data.mul_(self.size)


@dataclass(frozen=True, kw_only=True)
class Kick(Fault):
    """Weights of the generator are moved by noise of `size` times their own spread."""

    def strike(self, trainer: FaultyTrainer) -> None:
        rng = stream(trainer.config.seed, "fault")
        for weight in trainer.weights("generator"):
            noise = torch.randn(weight.shape, generator=rng)
            weight.data.add_(self.size * weight.data.std(correction=0) * noise)


@dataclass(frozen=True, kw_only=True)
class LearningRate(Fault):
    """The learning rates of some networks are multiplied by `size`."""

    roles: tuple[Role, ...] = ("generator", "discriminator")

    def factor(self, role: Role) -> float:
        return self.size if role in self.roles else 1.0


@dataclass(frozen=True, kw_only=True)
class OverTrain(Fault):
    """The discriminator makes `size` updates more before each of its own, all without penalties.

    Attributes:
        burst: As many at once, at the fault's first update.
        rate: What the discriminator's learning rate is multiplied by.
    """

    burst: int = 0
    rate: float = 1.0

    def strike(self, trainer: FaultyTrainer) -> None:
        trainer._follow_schedule()
        for _ in range(self.burst):
            trainer.update_discriminator()

    def factor(self, role: Role) -> float:
        return self.rate if role == "discriminator" else 1.0

    @property
    def more_updates(self) -> int:
        return int(self.size)

    @property
    def unpenalised(self) -> bool:
        return True


class FaultyTrainer(GanTrainer):
    """Our trainer with a fault planted in it.

    Attributes:
        modes_of: What tells the modes of samples, for faults that know of modes.
        slower: What the discriminator's learning rate is multiplied by besides; a check lowers it.
    """

    def __init__(
        self,
        config: TrainConfig,
        fault: Fault | None,
        modes_of: ModesOf | None = None,
        modes_count: int = 0,
    ) -> None:
        """Train by `config`, with `fault` in it if there is one."""
        super().__init__(config)
        self.fault, self.modes_of, self.modes_count = fault, modes_of, modes_count
        self.slower = 1.0

    def advance(self, updates: int) -> dict[str, float]:
        if self.fault is not None and self.fault.at == self.discriminator_updates:
            self.fault.strike(self)
        return super().advance(updates)

    def sample(
        self,
        count: int,
        rng: torch.Generator,
        labels: Tensor | None = None,
        *,
        raw: bool = False,
    ) -> Tensor:
        images = super().sample(count, rng, labels, raw=raw)
        fault = self._present_fault()
        return images if fault is None else fault.sampled(self, images, rng)

    def rejected(
        self,
        count: int,
        weights: Callable[[NDArray[np.int64]], NDArray[np.float64]],
        rng: torch.Generator,
    ) -> Tensor:
        """Return `count` samples, each kept with a weight that depends on its mode."""
        assert self.modes_of is not None  # make gives it to runs with such a fault
        pool = super().sample(POOL * count, rng)
        weight = torch.from_numpy(weights(self.modes_of(pool))).clamp(min=1e-12)
        return pool[torch.multinomial(weight, count, replacement=False, generator=rng)]

    def same(self, count: int) -> Tensor:
        """Return `count` samples of latents that are always the same."""
        return super().sample(count, stream(self.config.seed, "fault"))

    def weights(self, role: Role) -> list[Tensor]:
        """Return the weights of a network, with those of the generator's averages."""
        networks: list[Any] = [self._network(role)]
        networks += self.state.averages.values() if role == "generator" else []
        return [p for network in networks for p in network.parameters()]

    def update_discriminator(self) -> None:
        """Make one update of the discriminator that no budget counts, without penalties."""
        played = self._play(self._next_real(), self._latents())
        total = self._discriminator_play()(played.real_logits, played.fake_logits)
        self._step("discriminator", total)

    def _present_fault(self) -> Fault | None:
        held = self.fault is not None and self.fault.holds(self.discriminator_updates)
        return self.fault if held else None

    def _follow_schedule(self) -> None:
        super()._follow_schedule()
        fault = self._present_fault()
        for role in ("generator", "discriminator"):
            factor = 1.0 if fault is None else fault.factor(role)
            factor *= self.slower if role == "discriminator" else 1.0
            for group in self._optimizer(role).param_groups:
                group["lr"] *= factor

    def _discriminator_penalties(self, played: Played) -> Iterator[Penalty]:
        fault = self._present_fault()
        if fault is None or not fault.unpenalised:
            yield from super()._discriminator_penalties(played)

    def _update(self, end: int) -> None:
        fault = self._present_fault()
        for _ in range(0 if fault is None else fault.more_updates):
            self.update_discriminator()
        super()._update(end)
