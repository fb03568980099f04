"""What measures cost over the reference implementations, and what a blind one is fooled by.

    python benchmarks/measures.py [--rounds N] [--only SECTION ...]

Everything runs on one thread, in turns within one run; a multiple is the median over rounds of
times paired by round. The statistics of the reference are known beforehand on both sides, as they
are in a study: what is timed leads from generated features to the number.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from threadpoolctl import threadpool_limits

from ganstudy.gan.datasets import DATASETS
from ganstudy.measure.features import FEATURES
from ganstudy.measure.metrics import Sample, frechet_distance, kernel_distance
from ganstudy.measure.metrics.gaussian import FrechetDistance

Array = NDArray[np.floating]


class Race(NamedTuple):
    """Two ways to one number, and by how many times ours must be faster."""

    what: str
    ours: Callable[[], float]
    theirs: Callable[[], float]
    goal: float
    scale: float
    """Against which a difference of the two numbers is small."""


def timed(way: Callable[[], float]) -> tuple[float, float]:
    """Return the number and its wall time in seconds."""
    begun = time.perf_counter()
    return way(), time.perf_counter() - begun


def run(race: Race, rounds: int) -> None:
    """Time both ways in turns; print times, the multiple and how far the numbers differ."""
    ours, theirs, differ = [], [], 0.0
    for round_ in range(rounds):
        # Every other round backwards, so that a drift of the machine favours nobody.
        ways = (race.ours, race.theirs) if round_ % 2 == 0 else (race.theirs, race.ours)
        found = {way: timed(way) for way in ways}
        ours.append(found[race.ours][1])
        theirs.append(found[race.theirs][1])
        differ = max(differ, abs(found[race.ours][0] - found[race.theirs][0]) / race.scale)
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4)
    reached = "reached" if median >= race.goal else "NOT REACHED"
    print(f"{race.what}\n"
          f"    ours {statistics.median(ours):.2f} s, theirs {statistics.median(theirs):.2f} s: "
          f"{median:.1f} times faster (quartiles {low:.1f} to {high:.1f}), "
          f"goal {race.goal:g}: {reached}\n"
          f"    the numbers differ by {differ:.1e} of the traces")  # fmt: skip


def uneven(n: int, d: int, seed: int, stretch: float = 1.0) -> Array:
    """Return Gaussian features with variances as uneven as a network's, (n, d) float32."""
    scales = np.arange(1, d + 1) ** -0.5
    return (np.random.default_rng(seed).normal(size=(n, d)) * scales * stretch).astype(np.float32)


def moments(x: Array) -> tuple[Array, Array]:
    """Return mean and covariance as pytorch-fid computes them."""
    return x.mean(axis=0, dtype=np.float64), np.cov(x.astype(np.float64), rowvar=False)


def by_square_root(generated: Array, real: tuple[Array, Array]) -> float:
    """Return the Fréchet distance by scipy's matrix square root, as pytorch-fid does."""
    (mean_g, c_g), (mean_r, c_r) = moments(generated), real
    root = sqrtm(c_g @ c_r)
    if not np.isfinite(root).all():
        offset = 1e-6 * np.eye(len(c_g))
        root = sqrtm((c_g + offset) @ (c_r + offset))
    shift = mean_g - mean_r
    return float(shift @ shift + np.trace(c_g) + np.trace(c_r) - 2 * np.trace(root).real)


def frechet(rounds: int) -> None:
    """Fréchet distance at d = 2048 against the matrix square root."""
    d = 2048
    for n, goal in ((10_000, 10.0), (1_000, 10.0)):
        generated, real = uneven(n, d, 0, 1.1), uneven(10_000, d, 1)
        known, sample = moments(real), Sample(real, "real")
        begun = time.perf_counter()
        FrechetDistance().prepare(sample)
        print(f"the reference's statistics, once: {time.perf_counter() - begun:.1f} s")
        traces = float(np.trace(known[1]) + generated.var(axis=0, dtype=np.float64).sum())

        def ours(x: Array = generated, y: Sample = sample) -> float:
            return frechet_distance(x, y)

        def theirs(x: Array = generated, y: tuple[Array, Array] = known) -> float:
            return by_square_root(x, y)

        run(Race(f"Fréchet distance, n = {n}, d = {d}", ours, theirs, goal, traces), rounds)


def shrunken(rounds: int) -> None:
    """What 3 % of shrinking does to scores of 1,000 samples of 1,280 features."""
    dataset, network = DATASETS.build("mnist5k"), FEATURES.build("lite0")
    extract = network.extractor(dataset)
    real, other = (extract(dataset.images(split)) for split in ("select", "report"))
    center = other.mean(axis=0)
    print(f"lite0 features of mnist5k, n = {len(real)}, d = {real.shape[1]}: other real digits, "
          f"as they are and shrunk towards their mean")  # fmt: skip
    print(f"{'':10}{'Fréchet distance':>18}{'kernel distance':>20}{'standard error':>16}")
    for shrunk in (0.0, 0.03, 0.1):
        features = center + (1 - shrunk) * (other - center)
        kernel = kernel_distance(features, real)
        print(f"{shrunk:<10.0%}{frechet_distance(features, real):18.4f}"
              f"{kernel.value:20.6f}{kernel.standard_error:16.6f}")  # fmt: skip


SECTIONS = {"frechet": frechet, "shrunken": shrunken}


def main() -> None:
    """Run the sections that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, numpy {np.__version__}, scipy {scipy.__version__}, "
          f"1 thread, {asked.rounds} rounds")  # fmt: skip
    with threadpool_limits(1):
        for name in asked.only:
            SECTIONS[name](asked.rounds)


if __name__ == "__main__":
    main()
