"""What samples are worth: scores that fall, never rise, or rise for a bad reason."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from ganstudy.measure.events import names
from ganstudy.measure.events.base import (
    DETECTORS,
    Count,
    Detector,
    ProbeWatcher,
    Share,
    Watcher,
)
from ganstudy.records import RECOVERY, Event
from ganstudy.registry import component

Factor = Annotated[float, Field(ge=1)]


@DETECTORS.register("quality_drop")
@component
class QualityDrop(Detector):
    """The score leaves its own best and stays away."""

    times: Factor = 1.5
    """Score over its best so far (or over that of real images, if that is more)."""
    standard_errors: Annotated[float, Field(ge=0)] = 3.0
    """Least distance from the best, in standard errors of the difference where they are known."""
    patience: Count = 3
    """Probes running."""

    reads = (names.PROBE, *names.SCORES)

    def start(self) -> Watcher:
        return QualityDropWatcher(self)


class QualityDropWatcher(ProbeWatcher[QualityDrop]):
    """Compares each score with the best before it."""

    def __init__(self, detector: QualityDrop) -> None:
        """Start with nothing seen."""
        super().__init__(detector, detector.patience)
        self._best, self._error, self._best_at = math.inf, 0.0, 0

    def judge(self, at: int, values: Mapping[str, float]) -> Event | None:
        score, error = values[names.SCORE], values.get(names.SCORE_SE, 0.0)
        if at == 0:
            return None  # what is not trained has nothing to lose
        best, noise = self._best, self.detector.standard_errors * math.hypot(error, self._error)
        limit = max(self.detector.times * max(best, self.floor), best + noise)
        evidence = {
            "signal": names.SCORE,
            "value": score,
            "limit": limit,
            "best": best,
            "best_at": self._best_at,
            "rule": f"{self.detector.times:g} times the best, and "
            f"{self.detector.standard_errors:g} standard errors away",
        }
        if score < best:
            self._best, self._error, self._best_at = score, error, at
        severity = 1 - best / score if score > best else 0.0
        return self.episode.update(at, score >= limit, severity, evidence)


@DETECTORS.register("no_learning")
@component
class NoLearning(Detector):
    """Well into the budget the score is hardly better than the untrained generator's."""

    probes: Count = 6
    """Probes after which it is judged: 30 % of the budget. On labelled runs to wait for half of it
    mended one false alarm, and every run that learned nothing cost two thirds more."""
    gain: Share = 0.1
    """Share of the untrained generator's score by which the best must be lower."""
    worse: Factor = 1.1
    """Score over the untrained generator's above which it is a divergence, not no learning."""

    reads = (names.PROBE,)

    def start(self) -> Watcher:
        return NoLearningWatcher(self)


class NoLearningWatcher(ProbeWatcher[NoLearning]):
    """Compares the best score with the untrained generator's, on the same latents."""

    def __init__(self, detector: NoLearning) -> None:
        """Start with nothing seen."""
        super().__init__(detector)
        self._best = math.inf

    def judge(self, at: int, values: Mapping[str, float]) -> Event | None:
        score = values[names.SCORE]
        if at == 0:
            return None
        self._best = min(self._best, score)
        limit = (1 - self.detector.gain) * self.untrained
        holds = (
            self.seen >= self.detector.probes
            and self._best > limit
            and score <= self.detector.worse * self.untrained
        )
        evidence = {
            "signal": names.SCORE,
            "value": self._best,
            "limit": limit,
            "untrained": self.untrained,
            "rule": f"the best of {self.seen} probes",
        }
        severity = self._best / self.untrained if holds else 0.0
        return self.episode.update(at, holds, severity, evidence)


@DETECTORS.register("checkerboard", paper="Odena et al. 2016, doi:10.23915/distill.00003")
@component
class Checkerboard(Detector):
    """A pattern of period 2 or 4 pixels stands out of the spectrum, more than in real images."""

    decibels: Annotated[float, Field(gt=0)] = 6.0
    """Power over that of neighbouring frequencies, and over real images': 6 dB is four times."""
    standard_errors: Annotated[float, Field(ge=0)] = 3.0
    """By which it must be exceeded."""
    patience: Count = 3
    """Probes running."""
    warmup: Annotated[int, Field(ge=0)] = 3
    """Probes that are not judged: images of a generator that has hardly begun are all pattern."""
    varied: Share = 0.4
    """Effective modes and diversity, generated over real, from which on it is judged: the
    spectrum of few different images has peaks of its own."""

    reads = (names.PROBE,)

    def start(self) -> Watcher:
        return CheckerboardWatcher(self)


class CheckerboardWatcher(ProbeWatcher[Checkerboard]):
    """Judges the spectrum's peaks."""

    needs = (names.CHECKERBOARD,)

    def __init__(self, detector: Checkerboard) -> None:
        """Start with nothing seen."""
        super().__init__(detector, detector.patience)

    def judge(self, at: int, values: Mapping[str, float]) -> Event | None:
        level, error = values[names.CHECKERBOARD], values.get(names.CHECKERBOARD_SE, 0.0)
        limit = self.detector.decibels + self.detector.standard_errors * error
        evidence = {
            "signal": names.CHECKERBOARD,
            "value": level,
            "limit": limit,
            "rule": "decibels over neighbouring frequencies and over real images",
        }
        varied = min(values.get(n, 1.0) for n in (names.EFFECTIVE_MODES, names.DIVERSITY))
        judged = self.seen > self.detector.warmup and varied >= self.detector.varied
        holds = judged and level > limit
        return self.episode.update(at, holds, level / 30, evidence)


@DETECTORS.register("memorization", paper="Meehan et al. 2020, arXiv:2004.05675")
@component
class Memorization(Detector):
    """Samples lie nearer to training images than held-out images do (three-sample test)."""

    z: Annotated[float, Field(lt=0)] = -3.0
    """Score C_T below which samples are copies; fresh draws stray by about 0.3."""
    patience: Count = 3
    """Probes running."""

    reads = (names.PROBE,)

    def start(self) -> Watcher:
        return MemorizationWatcher(self)


class MemorizationWatcher(ProbeWatcher[Memorization]):
    """Judges the z score."""

    needs = (names.MEMORIZATION,)

    def __init__(self, detector: Memorization) -> None:
        """Start with nothing seen."""
        super().__init__(detector, detector.patience)

    def judge(self, at: int, values: Mapping[str, float]) -> Event | None:
        z = values[names.MEMORIZATION]
        evidence = {
            "signal": names.MEMORIZATION,
            "value": z,
            "limit": self.detector.z,
            "rule": f"nearer to training than held-out images are, at {self.detector.patience} "
            f"probes running",
        }
        holds = at > 0 and z < self.detector.z
        return self.episode.update(at, holds, -z / 30, evidence)


@DETECTORS.register(RECOVERY)
@component
class Recovery(Detector):
    """All other events have ended, and the score is back near its best before them. No failure."""

    times: Factor = 1.2
    """Score over the best before the first onset up to which it has recovered."""
    learned: Share = 0.5
    """Best score before the onset over the untrained generator's, above which there was nothing
    to come back to."""
    lost: Factor = 1.5
    """Worst score since the detection over the best before it, below which nothing was lost."""

    reads = (names.PROBE, *names.SCORES)

    def start(self) -> Watcher:
        return RecoveryWatcher(self)


class RecoveryWatcher(ProbeWatcher[Recovery]):
    """Remembers how good the generator was, and waits for it to be so again."""

    PROBES = 12
    """Probes of which the best so far is remembered: an onset lies a few before its detection."""

    def __init__(self, detector: Recovery) -> None:
        """Start with nothing seen."""
        super().__init__(detector)
        self._bests: deque[tuple[int, float]] = deque([(0, math.inf)], maxlen=self.PROBES)
        self._lasting: set[str] = set()
        self._first: Event | None = None
        self._before = self._worst = math.inf
        self._ended = 0

    def hear(self, event: Event) -> None:
        """Take the news that an event has begun or ended."""
        if event.kind == RECOVERY:
            return
        if event.ended is not None:
            self._lasting.discard(event.kind)
            self._ended = event.ended
            return
        self._lasting.add(event.kind)
        if self._first is None:
            self._first, self._worst = event, 0.0
            earlier = [best for at, best in self._bests if at < event.onset]
            self._before = (earlier or [math.inf])[-1]

    def judge(self, at: int, values: Mapping[str, float]) -> Event | None:
        score = values[names.SCORE]
        if at == 0:
            return None
        self._bests.append((at, min(score, self._bests[-1][1])))
        first, before = self._first, self._before
        self._worst = max(self._worst, score)
        if first is None or self._lasting:
            return None
        had = before <= self.detector.learned * self.untrained and math.isfinite(before)
        if not had:
            self._first = None
        if not had or score > self.detector.times * before:
            return None
        self._first = None
        if self._worst < self.detector.lost * before:
            return None
        evidence = {
            "signal": names.SCORE,
            "value": score,
            "limit": self.detector.times * before,
            "of": first.kind,
            "onset": first.onset,
            "rule": f"{first.kind} is over and the score is back",
        }
        return Event(RECOVERY, self._ended, at, 0.0, evidence, at)
