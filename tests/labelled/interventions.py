"""What can be asked of a run only by doing something to it once it is over."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ganstudy.gan.config import TrainConfig
from ganstudy.gan.datasets import BatchSampler, normalize
from ganstudy.gan.losses import auc
from ganstudy.gan.seeding import seeded_init, stream
from ganstudy.gan.state import build_discriminator
from ganstudy.gan.trainer import GanTrainer
from ganstudy.trial import READ_EVERY
from tests.labelled.faults import FaultyTrainer
from tests.labelled.outside import Outside

CLEAR_GAIN = 0.9
"""Score after an intervention over the score without, up to which it is a gain and no luck."""
NOT_LEARNT = 0.9
"""Best score over the untrained generator's, above which nothing is learnt."""


def fork_gains(trainer: FaultyTrainer, state: Mapping[str, Any], watch: Outside) -> bool:
    """Return whether a slower or a frozen discriminator would have made the run better.

    Args:
        trainer: At the end of the run.
        state: Of the trainer halfway.
        watch: What judges the two.
    """
    went_on, end = watch.look(trainer, final=True), trainer.discriminator_updates
    for slower in (0.1, 0.0):
        fork = FaultyTrainer(trainer.config, trainer.fault, trainer.modes_of, trainer.modes_count)
        fork.load_state_dict(copy.deepcopy(dict(state)))
        fork.slower = slower
        while fork.discriminator_updates < end:
            fork.advance(READ_EVERY)
        found = watch.look(fork, final=True)
        surely = went_on.score - found.score > 2 * math.hypot(went_on.error, found.error)
        if surely and found.score < CLEAR_GAIN * went_on.score:
            return True
    return False


def fresh_auc(trainer: GanTrainer, updates: int = 500) -> float:
    """Return the held-out AUC of a fresh discriminator against the generator as it stands."""
    config = trainer.config
    with seeded_init(config.seed, "fresh"):
        network = build_discriminator(config, config.dataset.image_shape)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    rng = stream(config.seed, "fresh")
    fakes = trainer.sample(5000, rng)
    if not fakes.isfinite().all():
        return math.nan
    batches = BatchSampler(config.dataset.images("train"), config.batch_size, rng)
    for _ in range(updates):
        fake = fakes[torch.randint(len(fakes), (config.batch_size,), generator=rng)]
        optimizer.zero_grad()
        loss = softplus(-network(batches.next())).mean() + softplus(network(fake)).mean()
        loss.backward()
        optimizer.step()
    real = normalize(config.dataset.images("report"))
    return float(auc(_judge(network, real), _judge(network, trainer.sample(len(real), rng))))


@torch.no_grad()
def _judge(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    network.eval()
    return network(images)


def learns_later(config: TrainConfig, watch: Outside, times: int = 3) -> bool:
    """Return whether so many times the budget makes the generator better than untrained."""
    longer = replace(config, discriminator_updates=times * config.discriminator_updates)
    trainer = FaultyTrainer(longer, None)
    first = watch.look(trainer)
    for _ in range(longer.discriminator_updates // 100):
        trainer.advance(100)
        look = watch.look(trainer)
        if look.finite and look.score <= NOT_LEARNT * first.score:
            return True
    return False
