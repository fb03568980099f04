"""What measures cost over the reference implementations, and what a blind one is fooled by.

    python benchmarks/measures.py [--rounds N] [--only SECTION ...] [--large]

Everything runs on one thread, in turns within one run; a multiple is the median over rounds of
times paired by round. The statistics of the reference are known beforehand on both sides, as they
are in a study: what is timed leads from generated features to the number.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import resource
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from prdc import compute_prdc
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist, pdist
from threadpoolctl import threadpool_limits

from ganstudy.gan.datasets import DATASETS
from ganstudy.measure.features import FEATURES
from ganstudy.measure.metrics import METRICS, Sample, frechet_distance, kernel_distance, prdc
from ganstudy.measure.metrics.gaussian import FrechetDistance
from ganstudy.measure.metrics.neighbours import Precision
from ganstudy.measure.protocol import evaluator
from ganstudy.store import StudyFolder
from ganstudy.study.checks import load_study
from ganstudy.study.plan import plan
from ganstudy.trial import run_trial

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


def network_like(n: int, d: int, seed: int) -> Array:
    """Return features that are not negative and mostly along 20 directions, (n, d) float32."""
    directions = np.random.default_rng(99).normal(size=(20, d)) * np.linspace(3, 0.2, 20)[:, None]
    rng, features = np.random.default_rng(seed), np.empty((n, d), np.float32)
    for start in range(0, n, 1000):  # no float64 copy of all: what is in memory is told of below
        rows = features[start : start + 1000]
        noise = 0.3 * rng.normal(size=rows.shape)
        rows[:] = np.maximum(rng.normal(size=(len(rows), 20)) @ directions + noise, 0)
    return features


def isotropic(n: int, d: int, seed: int) -> Array:
    """Return Gaussian features of equal variances, (n, d) float32."""
    return np.random.default_rng(seed).standard_normal((n, d), dtype=np.float32)


def prdc_package(generated: Array, real: Array) -> tuple[float, ...]:
    """Return the four scores of the package prdc, k = 5."""
    with contextlib.redirect_stdout(io.StringIO()):
        found = compute_prdc(real, generated, nearest_k=5)
    return tuple(found[name] for name in ("precision", "recall", "density", "coverage"))


def processor_seconds(way: Callable[[], object]) -> float:
    """Return processor time: the package asks for 8 threads, where ours has one."""
    begun = time.process_time()
    way()
    return time.process_time() - begun


def prdc_ways(generated: Array, real: Array) -> dict[str, Callable[[], object]]:
    """Return the ways to four scores: ours, the same with real balls known, the package's."""
    known = Sample(real)
    Precision().prepare(known)
    return {
        "from features": lambda: prdc(generated, real),
        "the real balls known": lambda: prdc(generated, known),
        "package": lambda: prdc_package(generated, real),
    }


def neighbours(rounds: int) -> None:
    """Precision, recall, density and coverage at d = 1280 against the package prdc."""
    n, d = 10_000, 1280
    for what, draw in (("a network's features", network_like), ("isotropic", isotropic)):
        generated, real = draw(n, d, 0), draw(n, d, 1)
        ways = prdc_ways(generated, real)
        spent: dict[str, list[float]] = {way: [] for way in ways}
        for round_ in range(rounds):
            for way in list(ways) if round_ % 2 == 0 else list(reversed(ways)):
                spent[way].append(processor_seconds(ways[way]))
        tracemalloc.start()
        found = prdc(generated, real)
        held = tracemalloc.get_traced_memory()[1] / 2**30
        tracemalloc.stop()
        gap = np.abs(np.subtract(found, prdc_package(generated, real))).max()
        print(f"precision, recall, density, coverage, n = {n}, d = {d}, {what}: the package takes "
              f"{statistics.median(spent['package']):.2f} s of processor time; "
              f"the numbers differ by {gap:.1e}")  # fmt: skip
        reached = "reached" if held <= 1 else "NOT REACHED"
        print(f"    at most {held:.2f} GiB beyond the features, goal 1: {reached}")
        for way, goal in (("from features", 3.0), ("the real balls known", 5.0)):
            ratios = [b / a for a, b in zip(spent[way], spent["package"], strict=True)]
            low, median, high = statistics.quantiles(ratios, n=4)
            reached = "reached" if median >= goal else "NOT REACHED"
            print(f"    {way}: ours {statistics.median(spent[way]):.2f} s, {median:.1f} times "
                  f"less (quartiles {low:.1f} to {high:.1f}), "
                  f"goal {goal:g}: {reached}")  # fmt: skip


def by_scipy(generated: Array, real: Array) -> tuple[float, ...]:
    """Return precision and recall (k = 3), density and coverage (k = 5) and diversity plainly."""

    def radii(x: Array, k: int) -> Array:
        return np.asarray(np.partition(cdist(x, x), k, axis=1)[:, k])

    distances = cdist(generated, real)
    inside = distances <= radii(real, 5)
    return (
        float((distances <= radii(real, 3)).any(axis=1).mean()),
        float((distances <= radii(generated, 3)[:, None]).any(axis=0).mean()),
        float(inside.sum(axis=1).mean() / 5),
        float(inside.any(axis=0).mean()),
        float(pdist(generated).mean() / pdist(real).mean()),
    )


def small(rounds: int) -> None:
    """All five scores of neighbours at the size of every evaluation, against plain scipy."""
    generated, real = network_like(1000, 64, 0), Sample(network_like(1000, 64, 1))
    metrics = [METRICS.build(name) for name in
               ("precision", "recall", "density", "coverage", "diversity")]  # fmt: skip

    def ours() -> tuple[float, ...]:
        sample = Sample(generated)
        return tuple(metric(sample, real).value for metric in metrics)

    gap = np.abs(np.subtract(ours(), by_scipy(generated, real.features))).max()
    spent = [(processor_seconds(ours),
              processor_seconds(lambda: by_scipy(generated, real.features)))
             for _ in range(4 * rounds)]  # fmt: skip
    low, median, high = statistics.quantiles([b / a for a, b in spent], n=4)
    print(f"five scores of neighbours, n = 1000, d = 64: ours "
          f"{1e3 * statistics.median(a for a, _ in spent):.1f} ms of processor time, "
          f"{median:.0f} times less than scipy (quartiles {low:.0f} to {high:.0f}); "
          f"the numbers differ by {gap:.1e}")  # fmt: skip


def large_process() -> None:
    """Score 50,000 samples in a process of their own; print what it held at most."""
    with threadpool_limits(1):
        generated, real = network_like(50_000, 1280, 0), network_like(50_000, 1280, 1)
        print(prdc(generated, real))
    # In KiB on Linux.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    reached = "reached" if peak <= 2 else "NOT REACHED"
    print(f"n = 50000, d = 1280: {time.process_time():.0f} s of processor time, at most "
          f"{peak:.2f} GiB resident with both samples, goal 2: {reached}")  # fmt: skip


def large() -> None:
    """Run `large_process` in a fresh process."""
    process = multiprocessing.get_context("spawn").Process(target=large_process)
    process.start()
    process.join()


EVALUATION_GOAL = 0.15


def quickstart(rounds: int) -> None:
    """Print which share of a quickstart trial's time goes into all of its evaluations."""
    spec = load_study(Path(__file__).parents[1] / "studies" / "quickstart.yaml")
    trials = plan(spec)[: len(spec.arms)]  # the first config of every arm
    shares = []
    with tempfile.TemporaryDirectory() as runs:
        folder = StudyFolder(Path(runs) / "quickstart")
        folder.create()
        # Made once for a study, by its driver.
        evaluator(spec.measure, spec.dataset, "select", folder.folder / "features")
        for trial in trials:
            result = run_trial(trial, folder.trial(trial.trial_id)).result
            shares.append(result.evaluate_seconds / result.seconds)
            print(f"  {trial.trial_id}: {shares[-1]:.3f} of {result.seconds:.0f} s evaluating")
    middle = statistics.median(shares)
    said = "reached" if middle <= EVALUATION_GOAL else "NOT REACHED"
    print(f"share of a quickstart trial in evaluation {middle:.3f}, median of {len(shares)} "
          f"({min(shares):.3f} to {max(shares):.3f}), goal {EVALUATION_GOAL}: {said}")  # fmt: skip


SECTIONS = {
    "frechet": frechet,
    "shrunken": shrunken,
    "neighbours": neighbours,
    "small": small,
    "quickstart": quickstart,
}


def main() -> None:
    """Run the sections that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--large", action="store_true", help="also 50,000 samples: 10 minutes")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, numpy {np.__version__}, scipy {scipy.__version__}, "
          f"1 thread, {asked.rounds} rounds")  # fmt: skip
    with threadpool_limits(1):
        for name in asked.only:
            SECTIONS[name](asked.rounds)
        if asked.large:
            large()


if __name__ == "__main__":
    main()
