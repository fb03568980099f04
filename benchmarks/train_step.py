"""What the trainer costs over a bare loop, and what channels_last gives.

    python benchmarks/train_step.py [--rounds N]

The same two networks (a DCGAN of width 16 on 28x28 digits, batch 64, non-saturating loss, Adam)
are trained by a hand-written PyTorch loop and by ours at the default cadence of signals, in turns
within one run on one thread; the ratio is the median over rounds of paired times. Goal: 1.05.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch.nn.functional import softplus

from ganstudy.gan.config import TrainConfig
from ganstudy.gan.datasets import normalize
from ganstudy.gan.state import TrainerState
from ganstudy.gan.trainer import GanTrainer
from ganstudy.trial import READ_EVERY

GOAL = 1.05


def config(memory_format: str) -> TrainConfig:
    """Return the quickstart's plainest arm."""
    architecture = {"name": "dcgan", "width": 16, "discriminator_normalization": "none"}
    return TrainConfig.from_dict({"architecture": architecture, "memory_format": memory_format})


def ours(memory_format: str) -> Callable[[int], object]:
    """Return our trainer's `advance`, which reads all signals once."""
    return GanTrainer(config(memory_format)).advance


def bare(memory_format: str) -> Callable[[int], object]:
    """Return a loop as one writes it by hand: no signals, no streams, nothing recorded."""
    settings = config(memory_format)
    state = TrainerState.initial(settings, "cpu")
    generator, discriminator = state.generator.train(), state.discriminator.train()
    images = normalize(settings.dataset.images("train"))
    layout = torch.channels_last if memory_format == "channels_last" else torch.contiguous_format
    images = images.contiguous(memory_format=layout)
    d_optimizer = torch.optim.Adam(discriminator.parameters(), 2e-4, (0.5, 0.999))
    g_optimizer = torch.optim.Adam(generator.parameters(), 2e-4, (0.5, 0.999))

    def advance(updates: int) -> None:
        for _ in range(updates):
            real = images[torch.randint(len(images), (64,))]
            with torch.no_grad():
                fake = generator(torch.randn(64, 64))
            loss = softplus(-discriminator(real)).mean() + softplus(discriminator(fake)).mean()
            d_optimizer.zero_grad(set_to_none=True)
            loss.backward()
            d_optimizer.step()
            discriminator.requires_grad_(False)
            loss = softplus(-discriminator(generator(torch.randn(64, 64)))).mean()
            g_optimizer.zero_grad(set_to_none=True)
            loss.backward()
            g_optimizer.step()
            discriminator.requires_grad_(True)

    return advance


def timed(advance: Callable[[int], object]) -> float:
    """Return seconds per update over one window of signals."""
    begun = time.perf_counter()
    advance(READ_EVERY)
    return (time.perf_counter() - begun) / READ_EVERY


def main() -> None:
    """Time all four in turns and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    loops = {
        (kind.__name__, layout): kind(layout)
        for layout in ("channels_last", "contiguous")
        for kind in (bare, ours)
    }
    times: dict[tuple[str, str], list[float]] = {key: [] for key in loops}
    for advance in loops.values():
        advance(READ_EVERY)
    for round_ in range(rounds):
        # Every other round backwards, so that a drift of the machine favours nobody.
        order = list(loops) if round_ % 2 == 0 else list(reversed(loops))
        for key in order:
            times[key].append(timed(loops[key]))
    print(f"torch {torch.__version__}, 1 thread, {rounds} rounds of {READ_EVERY} updates")
    for key, seconds in times.items():
        spread = f"{min(seconds) * 1e3:.1f} to {max(seconds) * 1e3:.1f}"
        print(
            f"{' '.join(key):22} {statistics.median(seconds) * 1e3:6.1f} ms an update ({spread})"
        )
    for layout in ("channels_last", "contiguous"):
        show(f"ours / bare, {layout}", times["ours", layout], times["bare", layout], GOAL)
    show("channels_last / contiguous, ours", times["ours", "channels_last"],
         times["ours", "contiguous"], None)  # fmt: skip


def show(what: str, first: list[float], second: list[float], goal: float | None) -> None:
    """Print the median of the paired ratios, with its quartiles and whether the goal is met."""
    ratios = [a / b for a, b in zip(first, second, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4)
    verdict = "" if goal is None else f", goal {goal}: {'reached' if median <= goal else 'MISSED'}"
    print(f"{what}: {median:.3f} (quartiles {low:.3f} to {high:.3f}){verdict}")


if __name__ == "__main__":
    main()
