"""Stabilisers that average weights over the run."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from ganstudy.gan.losses import Memory
from ganstudy.gan.regularizers.base import Role
from ganstudy.gan.stabilizers.base import STABILIZERS, Stabilizer
from ganstudy.registry import component

if TYPE_CHECKING:
    from ganstudy.gan.config import TrainConfig


@STABILIZERS.register("ema", paper="Yazici et al. 2019, arXiv:1806.04498; Karras et al. 2018")
@component
class ExponentialMovingAverage(Stabilizer):
    """Sample from an average of the generator's weights, its half-life counted in images.

    Parameters are averaged and buffers copied, as in StyleGAN; the average starts as a copy.

    Elsewhere:
        StudioGAN averages with a decay of 0.9999 per update from update 1,000 on, float buffers
        too; compare_gan from 40,000 on, trainable weights only. StyleGAN's half-life is counted in
        images, as here, and ramps up (500,000 in its configuration for CIFAR-10).
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


@STABILIZERS.register("average_never_updated", paper="no paper: a common mistake, as a control")
@component
class AverageNeverUpdated(Stabilizer):
    """Sample from a copy of the generator that is never updated: it stays as initialised.

    A defect on purpose, for a study's control `broken`: the game is played as ever, and what is
    sampled, scored and kept is the generator before its first update. Beside `ema`, whose average
    it puts out of use, its copy is the one that is sampled: the first average by name is.

    Elsewhere:
        No code does so on purpose; a script that forgets to update its average does.
    """

    averages: ClassVar[bool] = True

    def averaged(self, generator: nn.Module) -> nn.Module:
        return copy.deepcopy(generator).requires_grad_(False)


@STABILIZERS.register("historical_averaging", paper="Salimans et al. 2016, arXiv:1606.03498")
@component
class HistoricalAveraging(Stabilizer):
    """weight * |theta - mean of its past values|^2 in the loss of either network.

    The mean is over the weights after every update of that network, its start included, all
    equally, as in the paper: it pulls a game that circles towards the centre of its circle.

    Elsewhere:
        torchgan's takes an optimiser step of its own on the penalty alone.
    """

    weight: Annotated[float, Field(ge=0)] = 1.0
    """Factor of the penalty; 0 is off."""

    def memory(self, config: TrainConfig, networks: Mapping[Role, nn.Module]) -> Memory:
        if self.weight == 0:
            return {}
        memory = {f"{role}.values": torch.ones(()) for role in networks}
        for role, network in networks.items():
            for name, value in network.named_parameters():
                memory[f"{role}.{name}"] = value.detach().clone()
        return memory

    def weight_penalty(self, network: nn.Module, role: Role, memory: Memory) -> Tensor | None:
        if self.weight == 0:
            return None
        distances = [
            (value - memory[f"{role}.{name}"]).square().sum()
            for name, value in network.named_parameters()
        ]
        return self.weight * torch.stack(distances).sum()

    @torch.no_grad()
    def after_step(self, network: nn.Module, role: Role, memory: Memory) -> None:
        if self.weight == 0:
            return
        count = memory[f"{role}.values"].add_(1)
        for name, value in network.named_parameters():
            memory[f"{role}.{name}"].lerp_(value, 1 / count)
