"""What each stabiliser does to a game that loses modes, and what it costs.

    python benchmarks/stabilizers.py [--seeds N] [--updates N] [--dataset ring|grid]
                                     [--only NAME ...]

The game is one that a plain GAN loses, after Metz et al. 2017 (arXiv:1611.02163): Gaussians on a
ring, or on a grid, small fully connected networks, and a generator that learns at twice the
discriminator's rate. Every row is one stabiliser at its defaults, or at the options named, over
the same seeds as the plain game; nothing has been tuned row by row.

A run is looked at five times in its last fifth, 1,000 samples a look, since a generator that
wanders from mode to mode has no last state worth the name; it counts by the mean of its looks.
A mode is covered where one sample lies within 3 standard deviations of its centre, and held where
a quarter of its fair share of the samples does: points strewn over the square cover about 7.5 of
the ring's 8 modes, and hold none.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import stats

from ganstudy.gan.config import TrainConfig
from ganstudy.gan.trainer import GanTrainer
from ganstudy.measure.metrics import Drawn, Sample
from ganstudy.measure.metrics.modes import Modes, high_quality_fraction, mode_reader, modes_covered

STD = 0.02
"""Of every Gaussian: wider than the data sets' own, so that some thousand updates can hit it."""
PLAIN: Mapping[str, Any] = {
    "architecture": {"name": "mlp", "width": 64, "latent_dim": 16},
    "optimizer": {"lr": 1e-3, "beta1": 0.5},
    "ttur_ratio": 0.5,
    "batch_size": 60,  # a multiple of 2, 3 and 4 images a pack
}
VARIANTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "unrolled_discriminator": ("unrolled_discriminator", {}),
    "packing, 2 images": ("packing", {"images": 2}),
    "packing, 3 images": ("packing", {"images": 3}),
    "packing, 4 images": ("packing", {"images": 4}),
    "minibatch_discrimination": ("minibatch_discrimination", {}),
    "minibatch_stddev": ("minibatch_stddev", {}),
    "several_discriminators": ("several_discriminators", {}),
    "top_k": ("top_k", {}),
    "experience_replay": ("experience_replay", {}),
    "feature_matching": ("feature_matching", {}),
    "instance_noise, until 0.75": ("instance_noise", {"until": 0.75}),
    "label_smoothing": ("label_smoothing", {}),
    "label_flipping": ("label_flipping", {}),
    "historical_averaging": ("historical_averaging", {}),
    "ema": ("ema", {}),
    "discriminator_freezing": ("discriminator_freezing", {}),
}
"""Label -> stabiliser and its options; the augmentations are of images, not of points."""
LOOKS, SAMPLES = 5, 1000


class Run(NamedTuple):
    """What one run came to; modes and share are means over its looks."""

    covered: float
    held: float
    quality: float
    seconds: float


def trained(dataset: str, updates: int, seed: int, stabilizers: Mapping[str, Any]) -> Run:
    """Train one game and look at what it generates in its last fifth."""
    settings = {
        "dataset": {"name": dataset, "std": STD},
        "discriminator_updates": updates,
        "seed": seed,
        "stabilizers": stabilizers,
    }
    config = TrainConfig.from_dict({**PLAIN, **settings})
    trainer, read = GanTrainer(config), mode_reader(config.dataset).read
    every = updates // (5 * LOOKS)
    # Of this process alone: others share the machine.
    begun = time.process_time()
    trainer.advance(updates - LOOKS * every)
    looks = []
    for look in range(LOOKS):
        trainer.advance(every)
        points = trainer.sample(SAMPLES, torch.Generator().manual_seed(look))
        looks.append(scores(read(Drawn(points, Sample(points.flatten(1).numpy())))))
    return Run(*np.mean(looks, axis=0).tolist(), time.process_time() - begun)


def scores(modes: Modes) -> tuple[float, float, float]:
    """Return modes covered, modes held and the share of samples of high quality."""
    counts = np.bincount(modes.nearest[modes.inside], minlength=modes.known)
    held = int((counts >= len(modes.inside) / modes.known / 4).sum())
    return modes_covered(modes), held, high_quality_fraction(modes).value


def difference(runs: list[Run], plain: list[Run], of: Callable[[Run], float]) -> str:
    """Return the mean of the paired differences with its 95 % interval (t)."""
    paired = [of(run) - of(other) for run, other in zip(runs, plain, strict=True)]
    mean = statistics.mean(paired)
    if len(paired) == 1:
        return f"{mean:+5.1f}"
    half = stats.t.ppf(0.975, len(paired) - 1) * stats.sem(paired)
    return f"{mean:+5.1f} ({mean - half:+5.1f} to {mean + half:+5.1f})"


def row(label: str, runs: list[Run], plain: list[Run]) -> str:
    """Return one line of the table."""
    covered, held, quality, _ = np.mean(runs, axis=0)
    ratios = [run.seconds / other.seconds for run, other in zip(runs, plain, strict=True)]
    return (
        f"{label:27} {covered:7.1f}  {difference(runs, plain, lambda run: run.covered):24} "
        f"{held:4.1f}  {difference(runs, plain, lambda run: run.held):24} "
        f"{quality:7.2f} {statistics.median(ratios):8.1f}"
    )


def main() -> None:
    """Train all and print the table, row by row as it comes."""
    parser = argparse.ArgumentParser(description="What each stabiliser does where modes are lost.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=1500)
    parser.add_argument("--dataset", choices=("ring", "grid"), default="ring")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="stabilisers; all by default")
    told = parser.parse_args()
    torch.set_num_threads(1)

    def runs(stabilizers: Mapping[str, Any]) -> list[Run]:
        return [trained(told.dataset, told.updates, s, stabilizers) for s in range(told.seeds)]

    print(f"{told.dataset}, std {STD:g}, {told.updates} updates, n = {told.seeds} seeds; "
          f"differences to plain are paired by seed, with 95 % intervals (t)")  # fmt: skip
    print(f"{'':27} {'covered':7}  {'difference':24} {'held':4}  {'difference':24} "
          f"{'quality':7} {'seconds x':>8}")  # fmt: skip
    plain = runs({})
    print(row("plain", plain, plain), flush=True)
    for label, (name, options) in VARIANTS.items():
        if told.only is None or name in told.only:
            print(row(label, runs({name: options}), plain), flush=True)


if __name__ == "__main__":
    main()
