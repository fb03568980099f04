"""What each regulariser, optimiser, loss and mode of running costs over the plain update.

    python benchmarks/objectives.py [--rounds N]

The plain update is the quickstart's plainest arm: a DCGAN of width 16 on 28x28 digits, batch 64,
non-saturating loss, Adam, one generator update per discriminator update, one thread. Everything is
timed in turns within one run; a multiple is the median over rounds of times paired by round.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch

from ganstudy.gan.config import TrainConfig
from ganstudy.gan.losses import LOSSES
from ganstudy.gan.optimizers import OPTIMIZERS
from ganstudy.gan.regularizers import REGULARIZERS
from ganstudy.gan.trainer import NetworkTrainer, build_trainer

PLAIN: Mapping[str, Any] = {
    "architecture": {"name": "dcgan", "width": 16, "discriminator_normalization": "none"}
}
UPDATES = 8
"""Updates per window; a lazy interval of 4 falls twice into each."""


def variants() -> dict[str, dict[str, Any]]:
    """Return what is timed: label -> settings laid over the plain arm."""
    lazy = ("r1", "gradient_penalty")
    found: dict[str, dict[str, Any]] = {"plain": {}}
    for name in REGULARIZERS.names():
        options = {"warmup_updates": 0} if name == "lecam" else {}
        found[f"regularizer {name}"] = {"regularizers": {name: options}}
        if name in lazy:
            found[f"regularizer {name}, interval 4"] = {"regularizers": {name: {"interval": 4}}}
    both = {"r1": {}, "r2": {}}
    found["regularizers r1 and r2"] = {"regularizers": both}
    found |= {f"optimizer {name}": {"optimizer": name} for name in OPTIMIZERS.names()}
    found |= {f"loss {name}": {"loss": name} for name in LOSSES.names()}
    found["precision bfloat16"] = {"precision": "bfloat16"}
    if shutil.which("g++"):
        found["compile"] = {"compile": True}
    return found


def trainer(settings: Mapping[str, Any]) -> NetworkTrainer:
    """Return the trainer of one variant."""
    return build_trainer(TrainConfig.from_dict({**PLAIN, **settings}))


def timed(trained: NetworkTrainer) -> float:
    """Return seconds per update over one window."""
    begun = time.perf_counter()
    trained.advance(UPDATES)
    return (time.perf_counter() - begun) / UPDATES


def main() -> None:
    """Time all variants in turns and print their multiples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    trainers = {label: trainer(settings) for label, settings in variants().items()}
    times: dict[str, list[float]] = {label: [] for label in trainers}
    for trained in trainers.values():
        trained.advance(UPDATES)
    for round_ in range(rounds):
        # Every other round backwards, so that a drift of the machine favours nobody.
        order = list(trainers) if round_ % 2 == 0 else list(reversed(trainers))
        for label in order:
            times[label].append(timed(trainers[label]))
    plain = statistics.median(times["plain"]) * 1e3
    print(f"torch {torch.__version__}, 1 thread, {rounds} rounds of {UPDATES} updates; "
          f"a plain update takes {plain:.1f} ms")  # fmt: skip
    print(f"{'':46} multiple of the plain update (quartiles)")
    for label, seconds in times.items():
        ratios = [a / b for a, b in zip(seconds, times["plain"], strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4)
        print(f"{label:46} {median:5.2f}  ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
