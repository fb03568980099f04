"""Numbers that run away, and gradients that are lost."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from statistics import median
from typing import Annotated

from pydantic import Field

from ganstudy.measure.events import names
from ganstudy.measure.events.base import (
    DETECTORS,
    Count,
    Detector,
    Episode,
    Positive,
    ProbeWatcher,
    Share,
    Watcher,
)
from ganstudy.measure.events.modes import Collapse, ModeCollapse
from ganstudy.records import Event, Point
from ganstudy.registry import component

RUNAWAY = (*names.LOSSES, *names.LOGITS, *names.WEIGHT_NORMS)


@DETECTORS.register("divergence")
@component
class Divergence(Detector):
    """Not finite; or losses, logits or weights run away; or worse than the untrained generator.

    A value that is not finite fires at once and for good, whatever its name; so does a magnitude
    that runs away, doubling at several reads running. A generator that is worse than it was
    untrained has diverged too, though every number is finite; that may end. While its samples are
    collapsed, by `mode_collapse`'s own limits, a bad score is the collapse's and no divergence.
    """

    doublings: Count = 6
    """Reads running at which a magnitude must double."""
    floor: Positive = 10.0
    """Magnitude that the value must have reached: below it no loss of ours is in trouble."""
    worse: Annotated[float, Field(ge=1)] = 1.1
    """Score over the untrained generator's (or over that of real images, if that is more) from
    which on a generator is worse."""
    patience: Count = 3
    """Probes running at which it must be worse."""
    warmup: Annotated[int, Field(ge=0)] = 3
    """Probes that are not judged: the first steps often lead away before they lead back."""

    def start(self) -> Watcher:
        return DivergenceWatcher(self)


class DivergenceWatcher:
    """Watches every point for finiteness, magnitudes for doubling, and the score."""

    def __init__(self, detector: Divergence) -> None:
        """Start with nothing seen."""
        self.detector, self._fired = detector, False
        self._last: dict[str, float] = {}
        self._streaks: dict[str, tuple[int, int]] = {}
        self._worse = WorseWatcher(detector)

    def meet(self, detectors: Mapping[str, Detector]) -> None:
        """Take the limits of a collapse from the trial's `mode_collapse`, if it has one."""
        collapse = detectors.get("mode_collapse")
        if isinstance(collapse, ModeCollapse):
            self._worse.collapse = Collapse(collapse)

    def update(self, point: Point) -> Event | None:
        if self._fired:
            return None
        event: Event | None
        if not math.isfinite(point.value):
            event = self._event(point, point.discriminator_updates, "not finite")
        elif point.name in RUNAWAY:
            event = self._doubling(point)
        else:  # a generator may come back from where it was worse than untrained
            return self._worse.update(point)
        self._fired = event is not None
        return event

    def _doubling(self, point: Point) -> Event | None:
        size, last = abs(point.value), self._last.get(point.name, math.inf)
        self._last[point.name] = size
        streak, onset = self._streaks.get(point.name, (0, 0))
        if size < 2 * last or size == 0:
            self._streaks[point.name] = (0, 0)
            return None
        onset = onset if streak else point.discriminator_updates
        self._streaks[point.name] = (streak + 1, onset)
        if streak + 1 < self.detector.doublings or size < self.detector.floor:
            return None
        return self._event(point, onset, f"doubled at {streak + 1} reads running")

    def _event(self, point: Point, onset: int, rule: str) -> Event:
        evidence = {"signal": point.name, "value": point.value, "rule": rule}
        return Event("divergence", onset, point.discriminator_updates, 1.0, evidence)


class WorseWatcher(ProbeWatcher[Divergence]):
    """Compares the score of samples that are not collapsed with the untrained generator's.

    Attributes:
        collapse: When samples are collapsed, as the trial's `mode_collapse` defines it; None where
            the trial does not watch for it, and a bad score is a divergence whatever the samples.
    """

    def __init__(self, detector: Divergence) -> None:
        """Start with nothing seen."""
        super().__init__(detector, detector.patience)
        self.collapse: Collapse | None = None
        self._untrained_error = 0.0

    def judge(self, at: int, values: Mapping[str, float]) -> Event | None:
        score, error = values[names.SCORE], values.get(names.SCORE_SE, 0.0)
        collapsed = self.collapse is not None and self.collapse.update(at, values)
        if at == 0:
            self._untrained_error = error
            return None
        noise = 3 * math.hypot(error, self._untrained_error)
        worse = self.detector.worse * max(self.untrained, self.floor)
        limit = max(worse, self.untrained + noise)
        holds = score > limit and not collapsed and self.seen > self.detector.warmup
        rule = f"above the untrained generator's {self.untrained:.4g}, not collapsed"
        evidence = {"signal": names.SCORE, "value": score, "limit": limit, "rule": rule}
        severity = 1 - self.untrained / score if holds else 0.0
        return self.episode.update(at, holds, severity, evidence)


@DETECTORS.register("vanishing_gradient", paper="Arjovsky & Bottou 2017, arXiv:1701.04862")
@component
class VanishingGradient(Detector):
    """The loss and the discriminator pass nothing on to the generator, while D separates.

    What passes is the loss's slope at the generated logits times the discriminator's gradient at
    the generated images. Gradient norms of weights do not show it: Adam divides them out.
    """

    share: Share = 1e-3
    """Of the largest running median so far, below which nothing passes."""
    slope: Share = 5e-3
    """Slope of the loss below which nothing passes, whatever passed before: D may have won before
    the first read. A loss that sees its logits has a slope of 0.5 to 1 at the start."""
    auc: Share = 0.95
    """AUC on the training batch above which the discriminator separates: where it does not, a
    small gradient is that of a game near its end."""
    patience: Count = 2
    """Reads running: a discriminator that is ahead for one read is caught up with."""
    history: Count = 20
    """Reads of the running median."""
    untrained: Share = 0.1
    """Share of the untrained generator's score up to which the game is near its end, where little
    passes because little is left to learn. Where there are no probes all of the game counts."""

    reads = (names.SLOPE, names.INPUT_GRADIENT, names.TRAIN_AUC, names.SCORE)

    def start(self) -> Watcher:
        return VanishingGradientWatcher(self)


class VanishingGradientWatcher:
    """Judges each read of the three signals."""

    def __init__(self, detector: VanishingGradient) -> None:
        """Start with nothing seen."""
        self.detector = detector
        self._episode = Episode(detector.name, detector.patience)
        self._passed: deque[float] = deque(maxlen=detector.history)
        self._usual = 0.0
        self._latest: dict[str, float] = {}
        self._untrained = 0.0

    def update(self, point: Point) -> Event | None:
        self._latest[point.name] = point.value
        if point.name == names.SCORE and point.discriminator_updates == 0:
            self._untrained = point.value
        if point.name != names.INPUT_GRADIENT or names.SLOPE not in self._latest:
            return None
        slope, auc = self._latest[names.SLOPE], self._latest.get(names.TRAIN_AUC, 0.0)
        passed = slope * point.value
        self._passed.append(passed)
        if len(self._passed) >= 3:
            self._usual = max(self._usual, median(self._passed))
        nothing = passed < self.detector.share * self._usual or slope < self.detector.slope
        evidence = {
            "signal": "what passes to the generator",
            "value": passed,
            "usual": self._usual,
            names.SLOPE: slope,
            names.INPUT_GRADIENT: point.value,
            names.TRAIN_AUC: auc,
            "rule": f"below {self.detector.share:g} of usual, or the slope below "
            f"{self.detector.slope:g}, at an AUC above {self.detector.auc:g}",
        }
        score = self._latest.get(names.SCORE, math.inf)
        learns = score > self.detector.untrained * self._untrained
        holds = nothing and learns and auc > self.detector.auc
        # A flat discriminator under a linear loss has a slope of 1; one that had won before the
        # first read, nothing usual that could be lost.
        left = min(slope, passed / self._usual) if self._usual > 0 else slope
        return self._episode.update(point.discriminator_updates, holds, 1 - left, evidence)


@DETECTORS.register("exploding_gradient")
@component
class ExplodingGradient(Detector):
    """The norm of a network's gradient, before any clipping, is far above its running median."""

    times: Annotated[float, Field(gt=1)] = 30.0
    """Times the running median. In good runs three reads running were at most 2.4 times it."""
    patience: Count = 3
    """Reads running: one bad batch is no explosion."""
    history: Annotated[int, Field(ge=3)] = 20
    """Reads of the running median, which stands still while the gradient explodes."""
    warmup: Annotated[int, Field(ge=3)] = 4
    """Reads before the median means something."""

    reads = names.GRADIENT_NORMS

    def start(self) -> Watcher:
        return ExplodingGradientWatcher(self)


class ExplodingGradientWatcher:
    """Follows the norms of both networks."""

    def __init__(self, detector: ExplodingGradient) -> None:
        """Start with nothing seen."""
        self.detector = detector
        self._norms = {
            name: deque[float](maxlen=detector.history) for name in names.GRADIENT_NORMS
        }
        self._told: str | None = None
        """The network whose explosion was told of and lasts."""
        self._episodes = {
            name: Episode("exploding_gradient", detector.patience) for name in names.GRADIENT_NORMS
        }

    def update(self, point: Point) -> Event | None:
        norms = self._norms[point.name]
        usual = median(norms) if len(norms) >= self.detector.warmup else math.inf
        limit = self.detector.times * usual
        holds = point.value > limit
        if not holds:
            norms.append(point.value)
        times = point.value / usual if usual > 0 else math.inf
        evidence = {
            "signal": point.name,
            "value": point.value,
            "limit": limit,
            "rule": f"more than {self.detector.times:g} times the running median {usual:.4g}",
        }
        severity = 1 - self.detector.times / times if times > 0 else 0.0
        episode = self._episodes[point.name]
        event = episode.update(point.discriminator_updates, holds, severity, evidence)
        return self._first_told(point.name, event)

    def _first_told(self, name: str, event: Event | None) -> Event | None:
        """Return the event unless the other network's gradient was exploding already."""
        if event is None or self._told not in (None, name):
            return None
        self._told = name if event.ended is None else None
        return event
