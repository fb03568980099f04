"""How often detectors raise a false alarm on healthy series, by the length of the run.

    python benchmarks/false_alarms.py [--kind KIND]... [--runs N] [--seed N]
    python benchmarks/false_alarms.py --cycles [--runs N]    # what oscillation misses

Simulates runs of 15,625 updates in which nothing goes wrong: signals every 25 updates and probes
of 500 samples, every 50 updates or 20 to the run. Signals and scores are noise about a level
(white, or autoregressive of order 1 with coefficient 0.5 or 0.8), or about a level that they decay
to. Every detector reads all of it. Printed is, for each kind, how many runs had a false event
within 400, 3,000 and 15,625 updates, with one-sided 95 % bounds (Clopper and Pearson). Random walks
are shown for oscillation only: a value that wanders off is no healthy run for other kinds.

The constants of the detectors were chosen on other seeds (below 100) than those of the default.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent.parent))

from ganstudy.measure.events import DETECTORS, Detector, names, replay  # noqa: E402
from ganstudy.records import Point  # noqa: E402
from tests.labelled.scoring import Share  # noqa: E402

Array = NDArray[np.float64]
BUDGET, READ_EVERY, PROBE_EVERY, PER_BUDGET = 15_625, 25, 50, 20
LENGTHS = (400, 3_000, 15_625)
SAMPLES, MODES = 500, 8
NOISES: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "white": lambda rng, n: autoregressive(rng, n, 0.0),
    "AR(1) 0.5": lambda rng, n: autoregressive(rng, n, 0.5),
    "AR(1) 0.8": lambda rng, n: autoregressive(rng, n, 0.8),
    "decay": lambda rng, n: decaying(rng, n),
    "walk": lambda rng, n: rng.standard_normal(n).cumsum(),
}


def autoregressive(rng: np.random.Generator, n: int, coefficient: float) -> Array:
    """Return noise of variance 1, (n,)."""
    shocks = rng.standard_normal(n) * math.sqrt(1 - coefficient**2)
    values = np.empty(n)
    values[0] = last = rng.standard_normal()
    for i in range(1, n):
        values[i] = last = coefficient * last + shocks[i]
    return values


def decaying(rng: np.random.Generator, n: int) -> Array:
    """Return noise about an exponential decay from 2 to 20 standard deviations, (n,)."""
    length, height = rng.choice([5, 15, 50, 150]), rng.choice([2, 5, 20])
    return height * np.exp(-np.arange(n) / length) + rng.standard_normal(n)


def signals(rng: np.random.Generator, noise: str, reads: int) -> dict[str, Array]:
    """Return the signals of a healthy run, (reads,) each."""

    def drawn() -> Array:
        return NOISES[noise](rng, reads)

    # A Wasserstein logit has no scale and no centre: here its noise is far above divergence's
    # floor of 10, and it crosses zero.
    return {
        "discriminator_loss": 1.3 + 0.1 * drawn(),
        "generator_loss": 30 * drawn(),
        "real_logits_mean": 30 * drawn(),
        "fake_logits_mean": 0.3 * drawn(),
        "generator_weight_norm": 20 + 0.5 * drawn(),
        "generator_grad_norm": np.exp(0.5 * drawn()),
        "discriminator_grad_norm": np.exp(0.5 * drawn()),
        names.TRAIN_AUC: 1 / (1 + np.exp(-(3 + 0.5 * drawn()))),
        names.SLOPE: 1 / (1 + np.exp(-0.5 * drawn())),
        names.INPUT_GRADIENT: np.exp(0.5 * drawn()),
    }


def probes(rng: np.random.Generator, noise: str, count: int) -> dict[str, Array]:
    """Return the values of a healthy run's probes, (count,) each; the score comes last.

    Modes have the shares of the data; the counts are multinomial, of shares that waver by a tenth.
    The score has a standard error of a tenth of its level, as it is told.
    """

    def drawn() -> Array:
        return NOISES[noise](rng, count)

    wavering = np.exp(0.1 * np.stack([drawn() for _ in range(MODES)], axis=1))
    wavering = wavering / wavering.sum(axis=1, keepdims=True)
    shares = np.stack([rng.multinomial(SAMPLES, p) for p in wavering]) / SAMPLES
    entropy = -(shares * np.log(np.maximum(shares, 1e-12))).sum(axis=1)
    score = np.maximum(100 + 10 * drawn(), 1.0)
    return {
        **{f"{names.SHARE}{k}": shares[:, k] * MODES for k in range(MODES)},
        names.EFFECTIVE_MODES: np.exp(entropy) / MODES,
        names.DIVERSITY: 0.9 + 0.03 * drawn(),
        names.AUC: 1 / (1 + np.exp(-(2 + 0.3 * drawn()))),
        names.CHECKERBOARD: 3 + 1.0 * drawn(),
        names.CHECKERBOARD_SE: np.full(count, 1.0),
        names.MEMORIZATION: drawn(),
        names.SCORE_SE: np.full(count, 10.0),
        names.SCORE: score,
    }


def untrained() -> list[Point]:
    """Return the probe of the untrained generator: far worse than all that follows."""
    values = {names.FLOOR: 20.0, names.SCORE_SE: 10.0, names.SCORE: 2000.0}
    return [Point(name, 0, 0, 0, 0.0, value) for name, value in values.items()]


def healthy(rng: np.random.Generator, noise: str, probe_updates: Sequence[int]) -> list[Point]:
    """Return the points of a healthy run in the order of their recording."""
    reads = BUDGET // READ_EVERY
    read, probed = signals(rng, noise, reads), probes(rng, noise, len(probe_updates))
    at = {update: i for i, update in enumerate(probe_updates)}
    points = untrained()
    for i in range(reads):
        update = READ_EVERY * (i + 1)
        points += [Point(n, update, update, 0, 0.0, float(v[i])) for n, v in read.items()]
        if update in at:
            row = at[update]
            points += [Point(n, update, update, 0, 0.0, float(v[row])) for n, v in probed.items()]
    return points


def often() -> list[int]:
    """Return the updates of probes that come every 50 updates."""
    return list(range(PROBE_EVERY, BUDGET + 1, PROBE_EVERY))


def by_default(budget: int = BUDGET) -> list[int]:
    """Return the updates of 20 probes: each at the first read at or after a twentieth."""
    steps = (math.ceil(budget * k / PER_BUDGET / READ_EVERY) for k in range(1, PER_BUDGET + 1))
    return [READ_EVERY * step for step in steps]


def first_events(points: Sequence[Point], detectors: Sequence[Detector]) -> dict[str, int]:
    """Return kind -> update of its first detection."""
    found: dict[str, int] = {}
    for event in replay(points, detectors):
        found.setdefault(event.kind, event.detected)
    return found


def shown(count: int, of: int) -> str:
    """Return a count with the bound that its share is below."""
    return f"{count:4} ({100 * Share(count, of).upper:.1f} %)"


def false_alarms(kinds: Sequence[str], runs: int, seed: int) -> None:
    """Print the table of one pace of probes after the other."""
    for label, updates in (("every 50 updates", often()), ("20 to a run", by_default())):
        print(f"\nprobes {label}; {runs} runs each; runs with a false event (95 % upper bound)")
        print(f"{'kind':28}{'noise':12}" + "".join(f"{n:>8,} updates" for n in LENGTHS))
        for noise in NOISES:
            watched = ["oscillation"] if noise == "walk" else kinds
            detectors = [DETECTORS.build(kind) for kind in watched]
            counts: Counter[tuple[str, int]] = Counter()
            for run in range(runs):
                points = healthy(np.random.default_rng([seed, run]), noise, updates)
                for kind, update in first_events(points, detectors).items():
                    counts.update((kind, n) for n in LENGTHS if update <= n)
            for kind in watched:
                row = "".join(f"{shown(counts[kind, n], runs):>16}" for n in LENGTHS)
                print(f"{kind:28}{noise:12}{row}", flush=True)


def sines(rng: np.random.Generator, reads: int, period: float) -> list[Point]:
    """Return a logit that is a sine with noise of a fifth of its amplitude."""
    phase = rng.random()
    values = np.sin(2 * np.pi * (np.arange(reads) / period + phase))
    values += 0.2 * rng.standard_normal(reads)
    at = range(READ_EVERY, READ_EVERY * (reads + 1), READ_EVERY)
    return [
        Point("fake_logits_mean", u, u, 0, 0.0, v) for u, v in zip(at, values.tolist(), strict=True)
    ]


def cycles(runs: int, seed: int) -> None:
    """Print how many sines oscillation detects, by the run's length and the period."""
    detector = [DETECTORS.build("oscillation")]
    print(f"{'reads':>6}{'period':>8}  detected of {runs} (95 % lower bound)")
    for reads in (60, 120, 400, 625):
        for period in sorted({5, 10, reads // 12, reads // 6, reads // 3}):
            found = sum(
                bool(replay(sines(np.random.default_rng([seed, run]), reads, period), detector))
                for run in range(runs)
            )
            print(f"{reads:6}{period:8}  {found:4} ({100 * Share(found, runs).lower:.1f} %)")


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", action="append", choices=DETECTORS.names())
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--cycles", action="store_true", help="the power of oscillation instead")
    arguments = parser.parse_args()
    begun = time.process_time()
    if arguments.cycles:
        cycles(arguments.runs, arguments.seed)
    else:
        false_alarms(arguments.kind or DETECTORS.names(), arguments.runs, arguments.seed)
    print(f"\n{time.process_time() - begun:.0f} s of processor time", file=sys.stderr)


if __name__ == "__main__":
    main()
