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

    effective_modes: Share = 0.3
    """Effective number of modes (exp of the shares' entropy), generated over real, up to which
    most of the data is lost: two of eight modes, with room for the noise of the shares."""
    diversity: Share = 0.25
    """Mean pairwise feature distance, generated over real, up to which samples that were once
    further apart are too alike."""
    standard_errors: Factor = 2.0
    """Gain over the best score so far, in standard errors of the difference, that is learning."""
    patience: Count = 3
    """Probes running: 15 % of the budget."""
    warmup: Annotated[int, Field(ge=0)] = 6
    """Probes before few modes count that were never more: a generator may learn late."""

    reads = (names.PROBE,)

    def start(self) -> Watcher:
        return ModeCollapseWatcher(self)


class Collapse:
    """Whether a probe's samples are collapsed: of few modes, or nearly all alike.

    `mode_collapse` fires on it; `divergence` takes no bad score for a divergence while it holds.

    Attributes:
        few: Whether the last probe's samples were of few modes.
        alike: Whether they were nearly all alike.
    """

    def __init__(self, detector: ModeCollapse) -> None:
        """Start with nothing seen."""
        self.detector = detector
        self.few = self.alike = False
        self._apart = False

    def update(self, at: int, values: Mapping[str, float]) -> bool:
        """Take the values of one probe; return whether its samples are collapsed."""
        if names.EFFECTIVE_MODES not in values:
            self.few = self.alike = False
            return False
        spread = values.get(names.DIVERSITY, 1.0)
        self.few = values[names.EFFECTIVE_MODES] <= self.detector.effective_modes
        # Samples that were never apart are those of a generator that has not learned.
        self.alike = spread <= self.detector.diversity and self._apart
        self._apart = self._apart or (at > 0 and spread > self.detector.diversity)
        return self.few or self.alike


class ModeCollapseWatcher(ProbeWatcher[ModeCollapse]):
    """Judges the spread of samples."""

    needs = (names.EFFECTIVE_MODES,)

    def __init__(self, detector: ModeCollapse) -> None:
        """Start with nothing seen."""
        super().__init__(detector, detector.patience)
        self._best = Best()
        self._collapse = Collapse(detector)
        self._had = False

    def judge(self, at: int, values: Mapping[str, float]) -> Event | None:
        learning = self._best.gain(values, self.detector.standard_errors)
        modes, spread = values[names.EFFECTIVE_MODES], values.get(names.DIVERSITY, 1.0)
        collapsed = self._collapse.update(at, values)
        few, alike = self._collapse.few, self._collapse.alike
        self._had = self._had or (at > 0 and not collapsed)
        evidence = {
            "signal": names.EFFECTIVE_MODES if few or not alike else names.DIVERSITY,
            "value": modes if few or not alike else spread,
            "limit": self.detector.effective_modes if few else self.detector.diversity,
            names.EFFECTIVE_MODES: modes,
            names.DIVERSITY: spread,
            "rule": f"at {self.detector.patience} probes running, without a gain in score",
        }
        judged = self.seen > (0 if self._had else self.detector.warmup)
        holds = judged and collapsed and not learning
        return self.episode.update(at, holds, 1 - min(modes, spread), evidence)


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
    effective_modes: Share = 0.3
    """Effective modes up to which it is a collapse, which has a name of its own."""
    standard_errors: Factor = 2.0
    """Gain over the best score so far that is learning: what is not learnt yet is not dropped."""
    learned: Share = 0.5
    """Best score so far over the untrained generator's from which on a loss counts: who has not
    learned has nothing to lose."""
    patience: Count = 4
    """Probes running: a generator that learns loses and finds a mode within three."""
    had: Share = 0.5
    """Share from which on a mode has been learnt."""
    warmup: Annotated[int, Field(ge=0)] = 10
    """Probes before the loss of a mode counts that never was learnt."""

    reads = (names.PROBE,)

    def start(self) -> Watcher:
        return ModeDroppingWatcher(self)


class ModeDroppingWatcher(ProbeWatcher[ModeDropping]):
    """Follows which modes are lost."""

    needs = (names.EFFECTIVE_MODES,)

    def __init__(self, detector: ModeDropping) -> None:
        """Start with nothing seen."""
        super().__init__(detector, detector.patience)
        self._best = Best()
        self._lost: frozenset[str] = frozenset()
        self._had: set[str] = set()

    def judge(self, at: int, values: Mapping[str, float]) -> Event | None:
        learning = self._best.gain(values, self.detector.standard_errors)
        shares = {n: v for n, v in values.items() if n.startswith(names.SHARE)}
        lost = frozenset(n for n, share in shares.items() if share < self.detector.share)
        if self.seen <= self.detector.warmup:
            lost &= self._had
        self._had |= {n for n, share in shares.items() if at > 0 and share >= self.detector.had}
        collapsed = values[names.EFFECTIVE_MODES] <= self.detector.effective_modes
        learned = self._best.value <= self.detector.learned * self.untrained
        if not learned or collapsed or learning:
            lost = frozenset()
        still = self._lost & lost
        if lost and not still:  # others are lost now, which begins anew
            self.episode.update(at, False, 0.0, {})
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
        return self.episode.update(at, bool(self._lost), severity, evidence)


@DETECTORS.register("oscillation", paper="Mescheder et al. 2018, arXiv:1801.04406")
@component
class Oscillation(Detector):
    """A limit cycle: logits, or the shares of modes, swing regularly and do not settle.

    The autocorrelation of the last readings has a peak at the period, with a trough before it,
    over three periods, and the last swing is about as wide as the first. A decaying spiral,
    which converges, is none. The shares of all modes are one series of vectors. Cycles of fewer
    than three probes (or four reads of logits), or longer than a third of the window, are not
    seen.
    """

    correlation: Share = 0.5
    """Autocorrelation at the period."""
    standard_errors: Factor = 3.0
    """By which the autocorrelation must differ from 0: 1 / root n for noise of n readings."""
    trough: Share = 0.1
    """How far below zero it must have been at a shorter lag: a trend has not. Of k modes taken
    in turn it is 1 / (k - 1)."""
    amplitude: Share = 0.8
    """Width of the last swing over that of the first."""
    swing: Factor = 0.5
    """Least width of a swing in shares of modes, in units of the mode's share of the data: the
    noise of 500 samples is narrower."""
    window: Annotated[int, Field(ge=12)] = 60
    """Reads of logits that are looked at."""
    probes: Annotated[int, Field(ge=9)] = 20
    """Probes whose shares are looked at."""

    reads = (*names.LOGITS, names.PROBE)

    def start(self) -> Watcher:
        return OscillationWatcher(self)


class OscillationWatcher(ProbeWatcher[Oscillation]):
    """Keeps the last readings of logits and of shares."""

    EVERY = 4
    """Reads of logits between two looks, which cost time quadratic in the window."""

    def __init__(self, detector: Oscillation) -> None:
        """Start with nothing seen."""
        super().__init__(detector)
        self._logits = {n: deque[list[float]](maxlen=detector.window) for n in names.LOGITS}
        self._reads = dict.fromkeys(names.LOGITS, 0)
        self._shares: deque[list[float]] = deque(maxlen=detector.probes)
        self._swinging: dict[str, Cycle] = {}

    def update(self, point: Point) -> Event | None:
        series = self._logits.get(point.name)
        if series is None:
            return super().update(point)
        series.append([point.value])
        self._reads[point.name] += 1
        if self._reads[point.name] % self.EVERY:
            return None
        cycle = find_cycle(series, self.detector, shortest=4)
        return self._tell(point.name, point.discriminator_updates, cycle)

    def judge(self, at: int, values: Mapping[str, float]) -> Event | None:
        shares = [value for name, value in values.items() if name.startswith(names.SHARE)]
        if at == 0 or len(shares) < 2:
            return None
        self._shares.append(shares)
        cycle = find_cycle(self._shares, self.detector, shortest=3, least=self.detector.swing)
        return self._tell(names.SHARE + "*", at, cycle)

    def _tell(self, name: str, at: int, cycle: Cycle | None) -> Event | None:
        self._swinging.pop(name, None)
        evidence = {}
        if cycle is not None:
            self._swinging[name] = cycle
            evidence = {
                "signal": name,
                "value": cycle.correlation,
                "limit": self.detector.correlation,
                "period_readings": cycle.period,
                "swing": cycle.last,
                "swing_before": cycle.first,
                "rule": f"autocorrelation at the period, over {cycle.readings} readings",
            }
        severity = 0.0 if cycle is None else cycle.correlation
        return self.episode.update(at, bool(self._swinging), severity, evidence)


class Cycle(NamedTuple):
    """A swing that repeats."""

    period: int
    correlation: float
    first: float
    """Width (largest less smallest) over the first of the last three periods."""
    last: float
    readings: int


Vectors = Sequence[Sequence[float]]


def find_cycle(
    series: Vectors, detector: Oscillation, shortest: int, least: float = 0.0
) -> Cycle | None:
    """Return the cycle of `series` that lasts over three periods of it, None where there is none.

    Args:
        series: Readings at equal distances, oldest first, each a vector.
        detector: The limits.
        shortest: Readings of the shortest period.
        least: Width of a swing below which it is noise.
    """
    n = len(series)
    if n < 3 * shortest:
        return None
    x = list(zip(*map(_centred, zip(*series, strict=True)), strict=True))
    correlations = [_autocorrelation(x, lag) for lag in range(n // 3 + 1)]
    noise = detector.standard_errors / math.sqrt(len(x[0]))
    peaks = [
        lag
        for lag in range(shortest, len(correlations))
        if correlations[lag] >= max(detector.correlation, noise / math.sqrt(n - lag))
        and min(correlations[1:lag]) <= -detector.trough
    ]
    if not peaks:
        return None
    period = max(peaks, key=lambda lag: correlations[lag])
    first, last = (_width(part) for part in (x[-3 * period :][:period], x[-period:]))
    if first < least or last < detector.amplitude * first:
        return None
    return Cycle(period, correlations[period], first, last, n)


def _centred(values: Sequence[float]) -> list[float]:
    mean = sum(values) / len(values)
    return [value - mean for value in values]


def _width(vectors: Vectors) -> float:
    """Return the largest less the smallest value of the component that swings most."""
    return max(max(values) - min(values) for values in zip(*vectors, strict=True))


def _autocorrelation(x: Vectors, lag: int) -> float:
    """Return the correlation of vectors about their mean with those `lag` readings later."""
    early, late = x[: len(x) - lag], x[lag:]
    power = _inner(early, early) * _inner(late, late)
    return _inner(early, late) / math.sqrt(power) if power > 0 else 0.0


def _inner(a: Vectors, b: Vectors) -> float:
    return sum(x * y for u, v in zip(a, b, strict=True) for x, y in zip(u, v, strict=True))
