"""What becomes of the data's modes: collapse, modes dropped, modes taken in turn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

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
from ganstudy.measure.events.cycles import Cycle, Pyramid, Resolution, find_cycle
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

    A sine with its harmonics explains most of the variation about a smooth trend, over three
    periods or more; its power exceeds that of the noise around it by far more than chance
    explains; and its amplitude does not decay. A spiral that converges is no oscillation. The
    shares of all modes are one series of vectors. Periods from three readings up to a third of
    the run so far are found: beside the last readings the detector keeps the same number of means
    of two, four, eight readings and so on.
    """

    correlation: Share = 0.5
    """Share of the variation about the trend that repeats with the period: for a sine in noise
    this is the autocorrelation at the period."""
    chance: Annotated[float, Field(gt=0, lt=1)] = 2e-4
    """Probability of such a peak in autoregressive noise, corrected for the number of
    frequencies, of series and of readings so far."""
    amplitude: Share = 0.8
    """Amplitude in the last third of the window over that in the first."""
    swing: Factor = 0.5
    """Least width of a swing in shares of modes, in units of the mode's share of the data: the
    noise of 500 samples is narrower."""
    window: Annotated[int, Field(ge=12)] = 60
    """Readings at each resolution."""

    reads = (*names.LOGITS, names.PROBE)

    def start(self) -> Watcher:
        return OscillationWatcher(self)


class OscillationWatcher(ProbeWatcher[Oscillation]):
    """Looks for a cycle in each logit and in the shares, at every resolution."""

    LOGIT, SHARES = 1 / 12, 5 / 6
    """Parts of the allowed chance: shares of modes have few readings and a least swing, and need
    most of it; a limit cycle of logits exceeds noise by far."""
    LASTS = 0.05
    """Probability up to which a detected cycle lasts, so that a little noise does not end it."""

    def __init__(self, detector: Oscillation) -> None:
        """Start with nothing seen."""
        super().__init__(detector)
        self._series = {
            name: Pyramid(detector.window) for name in (*names.LOGITS, names.SHARE + "*")
        }
        self._swinging: dict[tuple[str, int], dict[str, Any]] = {}

    def update(self, point: Point) -> Event | None:
        if point.name not in names.LOGITS:
            return super().update(point)
        return self._read(point.name, point.discriminator_updates, [point.value])

    def judge(self, at: int, values: Mapping[str, float]) -> Event | None:
        shares = [value for name, value in values.items() if name.startswith(names.SHARE)]
        if at == 0 or len(shares) < 2:
            return None
        return self._read(names.SHARE + "*", at, shares)

    def _read(self, name: str, at: int, values: Sequence[float]) -> Event | None:
        """Take a reading of one series and look at the levels that are due."""
        if not all(map(math.isfinite, values)):
            return None
        looked = False
        for number, level in self._series[name].add(at, values):
            looked = True
            evidence = self._find(name, number, level)
            if evidence is None:
                self._swinging.pop((name, number), None)
            else:
                self._swinging[name, number] = evidence
        if not looked:
            return None
        evidence = max(self._swinging.values(), key=lambda e: e["value"], default={})
        return self.episode.update(at, bool(self._swinging), evidence.get("value", 0.0), evidence)

    def _find(self, name: str, number: int, level: Resolution) -> dict[str, Any] | None:
        """Return the evidence of a cycle in one window, None where there is none."""
        cycle = find_cycle(level.times, level.vectors)
        if cycle is None or not self._is_cycle(name, number, level, cycle):
            return None
        return {
            "signal": name,
            "value": cycle.correlation,
            "limit": self.detector.correlation,
            "period_updates": cycle.period,
            "swing": cycle.last,
            "swing_before": cycle.first,
            "rule": f"share of the variation that repeats, over {cycle.readings} readings",
        }

    def _is_cycle(self, name: str, number: int, level: Resolution, cycle: Cycle) -> bool:
        """Whether the strongest cycle of a window is regular, no chance, wide and no spiral."""
        detector = self.detector
        tests = cycle.frequencies * level.seen
        logit = name in names.LOGITS
        part, least = (self.LOGIT, 0.0) if logit else (self.SHARES, detector.swing)
        # A spiral decays little in a short window: it must not decay in a full one, going on so.
        most = cycle.ratio + 2 * cycle.ratio_error
        begun = (name, number) in self._swinging
        at_full = math.inf if begun else most ** (detector.window / cycle.readings)
        chance = self.LASTS if begun else detector.chance
        return (
            cycle.correlation >= detector.correlation
            and cycle.log_p + math.log(tests) <= math.log(part * chance)
            and min(cycle.ratio, at_full) >= detector.amplitude
            and cycle.first >= least
        )
