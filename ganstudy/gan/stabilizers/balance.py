"""Stabilisers that keep the two networks in balance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from ganstudy.gan.losses import Memory, auc
from ganstudy.gan.regularizers.base import Role
from ganstudy.gan.stabilizers.base import STABILIZERS, Share, Stabilizer, Turn
from ganstudy.registry import component

if TYPE_CHECKING:
    from ganstudy.gan.config import TrainConfig


@STABILIZERS.register(
    "discriminator_freezing",
    paper="a folk remedy, as in Chollet 2017 and github.com/soumith/ganhacks",
)
@component
class DiscriminatorFreezing(Stabilizer):
    """The discriminator does not learn while it tells reals from fakes too well.

    How well is its AUC on the batches it trains on, averaged over the last updates; unlike its
    loss it means the same for every loss. An update without a step still counts and still reads
    its batch, or the budget would never end.

    Elsewhere:
        Usually a threshold on the discriminator's loss or accuracy, of one batch.
    """

    threshold: Share = 0.95
    """AUC above which the discriminator is frozen; 1 is off."""
    halflife_updates: Annotated[float, Field(gt=0)] = 5.0
    """Discriminator updates after which an update's share in the average has halved."""

    def check(self, config: TrainConfig) -> None:
        if config.simultaneous or config.discriminator_optimizer.extrapolates:
            raise ValueError("freezes one network: use it in an alternating game")

    def memory(self, config: TrainConfig, networks: Mapping[Role, nn.Module]) -> Memory:
        # Undecided at first; the share of frozen updates is a signal.
        return {"auc": torch.tensor(0.5, dtype=torch.float64), "frozen": torch.zeros(())}

    def learns(self, turn: Turn) -> bool:
        return not turn.memory["auc"] > self.threshold

    def remember(
        self, memory: Memory, real_logits: Tensor, fake_logits: Tensor, config: TrainConfig
    ) -> None:
        memory["frozen"].fill_(float(memory["auc"] > self.threshold))
        now = auc(real_logits, fake_logits).to(memory["auc"])
        memory["auc"].lerp_(now, 1 - 0.5 ** (1 / self.halflife_updates))

    def signals(self, memory: Memory) -> Mapping[str, Tensor]:
        return {"discriminator_freezing/frozen": memory["frozen"]}
