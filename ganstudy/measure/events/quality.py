"""What samples are worth: scores that fall, never rise, or rise for a bad reason."""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from collections.abc import Mapping
from operator import itemgetter
from typing import Annotated, Any, NamedTuple

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


class Level(NamedTuple):
    """How good a generator was at its best, by each of two measures, with their standard errors.

    Attributes:
        score: The lowest score.
        near: The highest share of samples near a known mode once the score had been learned; 0
            where modes are not known. Before, a heap of samples may pass over a mode by chance.
    """

    score: float = math.inf
    score_error: float = 0.0
    near: float = 0.0
    near_error: float = 0.0

    def improved(self, values: Mapping[str, float], learned: float) -> Level:
        """Return the best of this level and of a probe's values.

        Args:
            values: Of the probe.
            learned: Score up to which the generator has learned.
        """
        score, error = values[names.SCORE], values.get(names.SCORE_SE, 0.0)
        near = values.get(names.HIGH_QUALITY, 0.0) if score <= learned else 0.0
        near_error = _near_error(values)
        score, error = min((self.score, self.score_error), (score, error), key=itemgetter(0))
        near, near_error = max((self.near, self.near_error), (near, near_error), key=itemgetter(0))
        return Level(score, error, near, near_error)

    def score_limit(
        self, values: Mapping[str, float], floor: float, times: float, standard_errors: float
    ) -> float:
        """Return the score from which on a probe is worse than this level.

        That is `times` the best score, or `times` the real samples' score where that is more,
        below which a ratio of scores is noise; and `standard_errors` of the difference away.
        """
        noise = standard_errors * math.hypot(values.get(names.SCORE_SE, 0.0), self.score_error)
        return max(times * max(self.score, floor), self.score + noise)

    def near_limit(
        self, values: Mapping[str, float], times: float, standard_errors: float
    ) -> float:
        """Return the share of samples near a mode below which a probe is worse than this level."""
        noise = standard_errors * math.hypot(_near_error(values), self.near_error)
        return min(self.near / times, self.near - noise)


def _near_error(values: Mapping[str, float]) -> float:
    return values.get(names.HIGH_QUALITY_SE, 0.0)


class Reading(NamedTuple):
    """A value with its standard error and the discriminator update at which it was read."""

    value: float
    error: float
    at: int


class Lowest:
    """Keeps the lowest of a growing number of noisy readings, and finds the level they reach.

    The best of hundreds of noisy probes lies far below the level of the run by chance, so that
    an ordinary probe would seem to have dropped from it. So a level counts as reached if one in
    20 probes reached it: in the 20 probes of a usual run that is the best of them.
    """

    ONE_IN = 20
    MOST = 64
    """Readings that are kept: memory stays constant, and 1,280 probes are served."""

    def __init__(self) -> None:
        """Start with none."""
        self._lowest: list[Reading] = []

    def add(self, reading: Reading) -> None:
        """Take a reading."""
        insort(self._lowest, reading)
        del self._lowest[self.MOST :]

    def reached(self, seen: int) -> Reading:
        """Return the level that one in 20 of `seen` probes reached; infinite before the first."""
        rank = max(0, seen - 2) // self.ONE_IN
        if not self._lowest:
            return Reading(math.inf, 0.0, 0)
        return self._lowest[min(rank, len(self._lowest) - 1)]


@DETECTORS.register("quality_drop")
@component
class QualityDrop(Detector):
    """The score, or the share of samples near a known mode, leaves its own best and stays away.

    The best is the level that one in 20 probes reached: in a usual run of 20, the best of them.

    The score is a Fréchet distance of two Gaussians, which does not see samples that scatter
    between the modes. Where the modes are known (ring, grid), the share of samples within 3
    standard deviations of one does.
    """

    times: Factor = 1.5
    """Score over its best so far (or over that of real images, if that is more); best share near
    a mode over the share."""
    standard_errors: Annotated[float, Field(ge=0)] = 3.0
    """Least distance from the best, in standard errors of the difference where they are known."""
    patience: Count = 3
    """Probes running."""
    learned: Share = 0.5
    """Score over the untrained generator's up to which a share near a mode may be a best: before,
    a heap of samples may pass over a mode by chance."""

    reads = (names.PROBE, *names.SCORES)

    def start(self) -> Watcher:
        return QualityDropWatcher(self)


class QualityDropWatcher(ProbeWatcher[QualityDrop]):
    """Compares each score, and each share near a mode, with the best before it."""

    def __init__(self, detector: QualityDrop) -> None:
        """Start with nothing seen."""
        super().__init__(detector, detector.patience)
        self._scores, self._nears = Lowest(), Lowest()

    def judge(self, at: int, values: Mapping[str, float]) -> Event | None:
        if at == 0:
            return None  # what is not trained has nothing to lose
        times, errors = self.detector.times, self.detector.standard_errors
        best_score, best_near = self._scores.reached(self.seen), self._nears.reached(self.seen)
        best = Level(best_score.value, best_score.error, -best_near.value, best_near.error)
        score, near = values[names.SCORE], values.get(names.HIGH_QUALITY, math.inf)
        limit = best.score_limit(values, self.floor, times, errors)
        near_limit = best.near_limit(values, times, errors)
        dropped, scattered = score >= limit, near < near_limit
        rule = f"{times:g} times the best, and {errors:g} standard errors away"
        evidence: dict[str, Any] = {"signal": names.SCORE, "value": score, "limit": limit}
        evidence |= {"best": best.score, "best_at": best_score.at, "rule": rule}
        if scattered and not dropped:
            rule = f"the best over {times:g}, and {errors:g} standard errors away"
            evidence = {"signal": names.HIGH_QUALITY, "value": near, "limit": near_limit}
            evidence |= {"best": best.near, "best_at": best_near.at, "rule": rule}
        severity = max(
            1 - best.score / score if score > best.score else 0.0,
            1 - near / best.near if near < best.near else 0.0,
        )
        self._scores.add(Reading(score, values.get(names.SCORE_SE, 0.0), at))
        if score <= self.detector.learned * self.untrained and math.isfinite(near):
            self._nears.add(Reading(-near, _near_error(values), at))
        return self.episode.update(at, dropped or scattered, severity, evidence)


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
    floors: Factor = 2.0
    """Score over that of real images up to which there was nothing to learn."""

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
            and self._best > max(limit, self.detector.floors * self.floor)
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
    """Score over the best before the first onset (or over that of real images, if that is more)
    up to which it has recovered; best share near a mode over the share likewise."""
    learned: Share = 0.5
    """Best score before the onset over the untrained generator's, above which there was nothing
    to come back to."""
    lost: Factor = 1.5
    """Worst score since the detection over the best before it (or over that of real images, if
    that is more), below which nothing was lost; best share near a mode over the share likewise."""
    standard_errors: Annotated[float, Field(ge=0)] = 2.0
    """Least distance of what was lost from the best, in standard errors of the difference: an
    event has shown already that it is no chance."""

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
        self._bests: deque[tuple[int, Level]] = deque([(0, Level())], maxlen=self.PROBES)
        self._lasting: set[str] = set()
        self._first: Event | None = None
        self._before = Level()
        self._lost = False
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
            self._first, self._lost = event, False
            earlier = [best for at, best in self._bests if at < event.onset]
            self._before = (earlier or [Level()])[-1]

    def judge(self, at: int, values: Mapping[str, float]) -> Event | None:
        if at == 0:
            return None
        learned = self.detector.learned * self.untrained
        self._bests.append((at, self._bests[-1][1].improved(values, learned)))
        self._lost = self._lost or self._is_lost(values)
        first, before = self._first, self._before
        if first is None or self._lasting:
            return None
        had = before.score <= learned
        if not had or math.isinf(before.score):
            self._first = None
            return None
        score, limit = values[names.SCORE], self.detector.times * max(before.score, self.floor)
        near = values.get(names.HIGH_QUALITY, math.inf)
        if score > limit or near < before.near / self.detector.times:
            return None
        self._first = None
        if not self._lost:
            return None
        evidence = {
            "signal": names.SCORE,
            "value": score,
            "limit": limit,
            "of": first.kind,
            "onset": first.onset,
            "rule": f"{first.kind} is over and the score is back",
        }
        return Event(RECOVERY, self._ended, at, 0.0, evidence, at)

    def _is_lost(self, values: Mapping[str, float]) -> bool:
        """Return whether a probe is worse than the best before the first event, beyond noise."""
        times, errors = self.detector.lost, self.detector.standard_errors
        near = values.get(names.HIGH_QUALITY, math.inf)
        return values[names.SCORE] >= self._before.score_limit(
            values, self.floor, times, errors
        ) or near < self._before.near_limit(values, times, errors)
