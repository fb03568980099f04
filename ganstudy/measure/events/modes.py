"""What becomes of the data's modes: collapse, modes dropped, modes taken in turn."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple

from pydantic import Field

from ganstudy.measure.events import names
from ganstudy.measure.events.base import (
    DETECTORS,
    Best,
    Count,
    Detector,
    Episode,
    Learning,
    ProbeWatcher,
    Share,
    Watcher,
)
from ganstudy.records import Event, Point
from ganstudy.registry import component

Factor = Annotated[float, Field(ge=0)]


@DETECTORS.register("mode_collapse", paper="Goodfellow 2016, arXiv:1701.00160")
@component
class ModeCollapse(Detector):
    """Samples are of few modes, or nearly all alike, and the generator is not learning.

    An untrained generator has no diversity yet. So a probe counts only where the score makes no
    gain over its best so far: a slow learner is no collapsed one.
    """

    effective_modes: Share = 0.25
    """Effective number of modes (exp of the shares' entropy), generated over real, up to which
    most of the data is lost."""
    diversity: Share = 0.25
    """Mean pairwise feature distance, generated over real, up to which samples are too alike."""
    standard_errors: Factor = 2.0
    """Gain over the best score so far, in standard errors of the difference, that is learning."""
    patience: Count = 3
    """Probes running: 15 % of the budget."""
    warmup: Annotated[int, Field(ge=0)] = 4
    """Probes before few modes count that were never more: a generator may learn late."""

    reads = (names.PROBE,)

    def start(self) -> Watcher:
        return ModeCollapseWatcher(self)


class ModeCollapseWatcher(ProbeWatcher):
    """Judges the spread of samples."""

    needs = (names.EFFECTIVE_MODES,)

    def __init__(self, detector: ModeCollapse) -> None:
        """Start with nothing seen."""
        super().__init__()
        self.detector, self._best = detector, Best()
        self._episode = Episode("mode_collapse", detector.patience)
        self._seen, self._had = 0, False

    def judge(self, at: int, values: Mapping[str, float]) -> Event | None:
        learning = self._best.gain(values, self.detector.standard_errors)
        modes, spread = values[names.EFFECTIVE_MODES], values.get(names.DIVERSITY, 1.0)
        few, alike = modes <= self.detector.effective_modes, spread <= self.detector.diversity
        self._seen += at > 0
        self._had = self._had or (at > 0 and not few and not alike)
        evidence = {
            "signal": names.EFFECTIVE_MODES if few or not alike else names.DIVERSITY,
            "value": modes if few or not alike else spread,
            "limit": self.detector.effective_modes if few else self.detector.diversity,
            names.EFFECTIVE_MODES: modes,
            names.DIVERSITY: spread,
            "rule": f"at {self.detector.patience} probes running, without a gain in score",
        }
        judged = self._seen > (0 if self._had else self.detector.warmup)
        holds = judged and (few or alike) and not learning
        return self._episode.update(at, holds, 1 - min(modes, spread), evidence)


@DETECTORS.register("mode_dropping")
@component
class ModeDropping(Detector):
    """The same mode is lost at several probes running, though most of the data is not.

    Modes are the data's known ones, else the classes as the feature network's classifier sees
    them, else cells of the real features. Only modes are judged of which a probe expects so many
    samples that a tenth of them is no chance.
    """

    share: Share = 0.1
    """Share of the samples over the mode's share of the data, below which the mode is lost."""
    effective_modes: Share = 0.25
    """Effective modes up to which it is a collapse, which has a name of its own."""
    standard_errors: Factor = 2.0
    """Gain over the best score so far that is learning: what is not learnt yet is not dropped."""
    learned: Share = 0.5
    """Best score so far over the untrained generator's from which on a loss counts: who has not
    learned has nothing to lose."""
    patience: Count = 3
    """Probes running."""

    reads = (names.PROBE,)

    def start(self) -> Watcher:
        return ModeDroppingWatcher(self)


class ModeDroppingWatcher(ProbeWatcher):
    """Follows which modes are lost."""

    needs = (names.EFFECTIVE_MODES,)

    def __init__(self, detector: ModeDropping) -> None:
        """Start with nothing seen."""
        super().__init__()
        self.detector, self._best = detector, Best()
        self._learning = Learning(detector.learned)
        self._episode = Episode("mode_dropping", detector.patience)
        self._lost: frozenset[str] = frozenset()

    def judge(self, at: int, values: Mapping[str, float]) -> Event | None:
        learning = self._best.gain(values, self.detector.standard_errors)
        shares = {n: v for n, v in values.items() if n.startswith(names.SHARE)}
        lost = frozenset(n for n, share in shares.items() if share < self.detector.share)
        collapsed = values[names.EFFECTIVE_MODES] <= self.detector.effective_modes
        learned = self._learning.update(at, values)
        if not learned or collapsed or learning:
            lost = frozenset()
        still = self._lost & lost
        if lost and not still:  # others are lost now, which begins anew
            self._episode.update(at, False, 0.0, {})
        self._lost = still or lost
        evidence = {
            "signal": names.SHARE + "<mode>",
            "value": max((shares[name] for name in self._lost), default=1.0),
            "limit": self.detector.share,
            "modes": sorted(name.removeprefix(names.SHARE) for name in self._lost),
            "of": len(shares),
            names.EFFECTIVE_MODES: values[names.EFFECTIVE_MODES],
            "rule": f"lost at {self.detector.patience} probes running",
        }
        severity = len(self._lost) / max(1, len(shares))
        return self._episode.update(at, bool(self._lost), severity, evidence)


@DETECTORS.register("oscillation", paper="Mescheder et al. 2018, arXiv:1801.04406")
@component
class Oscillation(Detector):
    """A limit cycle: logits, or the shares of modes, swing regularly and do not settle.

    The autocorrelation of the last readings has a peak at the period, with a trough at half of
    it, over three periods, and the last swing is about as wide as the first. A decaying spiral,
    which converges, is none. Cycles of fewer than four readings a period, or longer than a third
    of the window, are not seen.
    """

    correlation: Share = 0.5
    """Autocorrelation at the period."""
    standard_errors: Factor = 3.0
    """By which the autocorrelation must differ from 0: 1 / root n for noise of n readings."""
    trough: Share = 0.3
    """Least autocorrelation below zero at half the period: a trend has none."""
    amplitude: Share = 0.8
    """Width of the last swing over that of the first."""
    swing: Factor = 0.5
    """Least width of a swing in shares of modes, in units of the mode's share of the data: the
    noise of 500 samples is narrower."""
    window: Annotated[int, Field(ge=12)] = 60
    """Readings of logits that are looked at."""
    probes: Annotated[int, Field(ge=12)] = 20
    """Readings of shares that are looked at."""

    reads = (*names.LOGITS, names.SHARE)

    def start(self) -> Watcher:
        return OscillationWatcher(self)


class OscillationWatcher:
    """Keeps the last readings of every series."""

    EVERY = 4
    """Readings of logits between two looks, which cost time quadratic in the window."""

    def __init__(self, detector: Oscillation) -> None:
        """Start with nothing seen."""
        self.detector = detector
        self._series: dict[str, deque[float]] = {}
        self._episode = Episode("oscillation", 1)
        self._count: dict[str, int] = {}
        self._swinging: dict[str, Cycle] = {}

    def update(self, point: Point) -> Event | None:
        of_modes = point.name.startswith(names.SHARE)
        window = self.detector.probes if of_modes else self.detector.window
        series = self._series.setdefault(point.name, deque(maxlen=window))
        series.append(point.value)
        self._count[point.name] = count = self._count.get(point.name, 0) + 1
        if not of_modes and count % self.EVERY:
            return None
        least = self.detector.swing if of_modes else 0.0
        cycle = find_cycle(list(series), self.detector, least)
        if cycle is None:
            self._swinging.pop(point.name, None)
        else:
            self._swinging[point.name] = cycle
        return self._tell(point, cycle, len(series))

    def _tell(self, point: Point, cycle: Cycle | None, length: int) -> Event | None:
        evidence = {}
        if cycle is not None:
            evidence = {
                "signal": point.name,
                "value": cycle.correlation,
                "limit": self.detector.correlation,
                "period_readings": cycle.period,
                "swing": cycle.last,
                "swing_before": cycle.first,
                "rule": f"autocorrelation at the period, over {length} readings",
            }
        severity = 0.0 if cycle is None else cycle.correlation
        return self._episode.update(
            point.discriminator_updates, bool(self._swinging), severity, evidence
        )


class Cycle(NamedTuple):
    """A swing that repeats."""

    period: int
    correlation: float
    first: float
    """Width (largest less smallest) over the first period."""
    last: float


def find_cycle(series: Sequence[float], detector: Oscillation, least: float) -> Cycle | None:
    """Return the cycle of `series` that lasts over three periods of it, None where there is none.

    Args:
        series: Readings at equal distances, oldest first.
        detector: The limits.
        least: Width of a swing below which it is noise.
    """
    n = len(series)
    if n < 12 or max(series) - min(series) < least:
        return None
    mean = sum(series) / n
    x = [value - mean for value in series]
    noise = detector.standard_errors
    correlations = [_autocorrelation(x, lag) for lag in range(n // 3 + 1)]
    peaks = [
        lag
        for lag in range(4, len(correlations))
        if correlations[lag] >= max(detector.correlation, noise / math.sqrt(n - lag))
        and correlations[lag // 2] <= -detector.trough
    ]
    if not peaks:
        return None
    period = max(peaks, key=lambda lag: correlations[lag])
    first, last = (max(part) - min(part) for part in (x[-3 * period :][:period], x[-period:]))
    if first < least or last < detector.amplitude * first:
        return None
    return Cycle(period, correlations[period], first, last)


def _autocorrelation(x: Sequence[float], lag: int) -> float:
    """Return the correlation of `x`, of mean 0, with itself `lag` readings later."""
    early, late = x[: len(x) - lag], x[lag:]
    power = sum(a * a for a in early) * sum(b * b for b in late)
    if power <= 0:
        return 0.0
    product: float = sum(a * b for a, b in zip(early, late, strict=True)) / power**0.5
    return product
