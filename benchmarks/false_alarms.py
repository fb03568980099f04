"""How often detectors raise a false alarm on healthy series, by the length of the run.

    python benchmarks/false_alarms.py [--kind KIND]... [--noise NOISE]... [--runs N] [--seed N]
    python benchmarks/false_alarms.py --cycles [--runs N]    # which cycles oscillation detects

Simulates runs of 15,625 updates in which nothing goes wrong: signals every 25 updates, and probes
of 500 samples every 50 updates or 20 to the run. Signals and scores are noise about a level
(white, or autoregressive of order 1 with coefficient 0.5 or 0.8), or decay to their level. Prints,
for each kind, how many runs had a false event within 400, 3,000 and 15,625 updates, and the
one-sided 95 % upper bounds (Clopper and Pearson). Random walks are for oscillation only: a value
that wanders off is not healthy for the other kinds. Takes half an hour of one core; 1,000 runs of
one kind and one noise take about a minute.

Oscillation's constants were chosen on seeds below 100, and the logits' part of its chance after a
look at seed 1000; the default seed is a later one.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.special import expit
from scipy.stats import entropy

sys.path.insert(0, str(Path(__file__).parent.parent))

from ganstudy.measure.events import DETECTORS, Detector, names, replay  # noqa: E402
from ganstudy.records import Point  # noqa: E402
from tests.labelled.scoring import Share  # noqa: E402

Array = NDArray[np.float64]
BUDGET, READ_EVERY, PROBE_EVERY, PER_BUDGET = 15_625, 25, 50, 20
LENGTHS = (400, 3_000, 15_625)
SAMPLES, MODES = 500, 8
NOISES = ("white", "AR(1) 0.5", "AR(1) 0.8", "decay", "walk")


def autoregressive(rng: np.random.Generator, n: int, coefficient: float) -> Array:
    """Return noise of variance 1, (n,)."""
    shocks = rng.standard_normal(n)
    shocks[1:] *= math.sqrt(1 - coefficient**2)
    return np.asarray(lfilter([1.0], [1.0, -coefficient], shocks), dtype=np.float64)


def noise_of(name: str, rng: np.random.Generator, n: int, most: float, lengths: Array) -> Array:
    """Return n readings of a noise with standard deviation 1.

    Args:
        name: One of `NOISES`.
        rng: Source of randomness.
        n: Readings.
        most: Greatest height, in standard deviations, from which a decaying series begins.
        lengths: Readings within which it falls to 1 / e, one of which is drawn.
    """
    if name == "walk":
        return rng.standard_normal(n).cumsum()
    if name == "decay":
        height = min(most, rng.choice([2.0, 5.0, 20.0]))
        return height * np.exp(-np.arange(n) / rng.choice(lengths)) + rng.standard_normal(n)
    return autoregressive(rng, n, 0.0 if name == "white" else float(name.removeprefix("AR(1)")))


def signals(rng: np.random.Generator, noise: str, reads: int) -> dict[str, Array]:
    """Return the signals of a healthy run, (reads,) each."""

    def drawn(most: float = 20.0) -> Array:
        return noise_of(noise, rng, reads, most, np.array([5, 15, 50, 150]))

    # A Wasserstein logit has no scale and no centre: here its noise is far above divergence's
    # floor of 10, and it crosses zero. Gradients that decay do so by a factor of 12 at most.
    return {
        "discriminator_loss": 1.3 + 0.1 * drawn(),
        "generator_loss": 30 * drawn(),
        "real_logits_mean": 30 * drawn(),
        "fake_logits_mean": 0.3 * drawn(),
        "generator_weight_norm": 20 + 0.5 * drawn(),
        "generator_grad_norm": np.exp(0.5 * drawn(5.0)),
        "discriminator_grad_norm": np.exp(0.5 * drawn(5.0)),
        names.TRAIN_AUC: expit(3 + 0.5 * drawn(5.0)),
        names.SLOPE: expit(0.5 * drawn(5.0)),
        names.INPUT_GRADIENT: np.exp(0.5 * drawn(5.0)),
    }


def probes(rng: np.random.Generator, noise: str, count: int) -> dict[str, Array]:
    """Return the values of a healthy run's probes, (count,) each; the score comes last.

    Levels, noise and standard errors are about those of the labelled healthy runs on digits. Modes
    have the shares of the data; counts are multinomial, of probabilities that waver by a fifth.
    """

    def drawn() -> Array:
        return noise_of(noise, rng, count, 5.0, np.array([1, 2, 3]))

    wavering = np.exp(0.2 * np.stack([drawn() for _ in range(MODES)], axis=1))
    wavering = wavering / wavering.sum(axis=1, keepdims=True)
    shares = np.stack([rng.multinomial(SAMPLES, p) for p in wavering]) / SAMPLES
    return {
        **{f"{names.SHARE}{k}": shares[:, k] * MODES for k in range(MODES)},
        names.EFFECTIVE_MODES: np.exp(entropy(shares, axis=1)) / MODES,
        names.DIVERSITY: 0.94 + 0.03 * drawn(),
        names.AUC: expit(1.9 + 0.4 * drawn()),  # 0.87 with a standard deviation of 0.045
        names.CHECKERBOARD: 2 + 0.8 * drawn(),
        names.CHECKERBOARD_SE: np.full(count, 0.23),
        names.MEMORIZATION: 0.3 * drawn(),
        names.SCORE_SE: np.full(count, 7.5),
        names.SCORE: 100 * np.exp(0.1 * drawn()),
    }


def untrained() -> list[Point]:
    """Return the probe of the untrained generator: far worse than all that follows."""
    values = {names.FLOOR: 20.0, names.SCORE_SE: 10.0, names.SCORE: 2000.0}
    return [Point(name, 0, 0, 0, 0.0, value) for name, value in values.items()]


def healthy(
    rng: np.random.Generator,
    noise: str,
    probe_updates: Sequence[int],
    detectors: Sequence[Detector],
) -> list[Point]:
    """Return the points of a healthy run that the detectors read, in the order of recording."""
    reads = BUDGET // READ_EVERY
    read, probed = signals(rng, noise, reads), probes(rng, noise, len(probe_updates))
    named = tuple(name for d in detectors for name in d.reads)
    if all(d.reads for d in detectors):
        read = {name: v for name, v in read.items() if name.startswith(named)}
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


def false_alarms(kinds: Sequence[str], noises: Sequence[str], runs: int, seed: int) -> None:
    """Print the table of one pace of probes after the other."""
    for label, updates in (("every 50 updates", often()), ("20 to a run", by_default())):
        print(f"\nprobes {label}; {runs} runs each; runs with a false event (95 % upper bound)")
        print(f"{'kind':28}{'noise':12}" + "".join(f"{n:>8,} updates" for n in LENGTHS))
        for noise in noises:
            watched = ["oscillation"] if noise == "walk" else kinds
            detectors = [DETECTORS.build(kind) for kind in watched]
            counts: Counter[tuple[str, int]] = Counter()
            for run in range(runs):
                points = healthy(np.random.default_rng([seed, run]), noise, updates, detectors)
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
        Point("fake_logits_mean", u, u, 0, 0.0, v)
        for u, v in zip(at, values.tolist(), strict=True)
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
    parser.add_argument("--noise", action="append", choices=NOISES)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=2000)
    parser.add_argument("--cycles", action="store_true", help="the power of oscillation instead")
    arguments = parser.parse_args()
    begun = time.process_time()
    if arguments.cycles:
        cycles(arguments.runs, arguments.seed)
    else:
        kinds, noises = arguments.kind or DETECTORS.names(), arguments.noise or NOISES
        false_alarms(kinds, noises, arguments.runs, arguments.seed)
    print(f"\n{time.process_time() - begun:.0f} s of processor time", file=sys.stderr)


if __name__ == "__main__":
    main()
