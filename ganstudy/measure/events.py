"""Failures as data: detectors read points one by one, live and in replay alike.

A detector is a frozen set of parameters; `start` gives a watcher for one trial, whose `update`
takes points in the order of their recording and answers with an Event when one is detected, and
with the same event again (same kind and onset) when it has ended. Plain Python, no arrays,
constant memory and time per point.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, Protocol

from pydantic import Field

from ganstudy.gan.config import at
from ganstudy.records import Event, Point
from ganstudy.registry import (
    Component,
    Registry,
    StudyError,
    component,
    only_text_keys,
    unknown,
)

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Primary(NamedTuple):
    """The study's primary score: its stored name, and whether lower is better."""

    name: str
    minimize: bool = True


class Watcher(Protocol):
    """Follows one trial."""

    def update(self, point: Point) -> Event | None:
        """Take the next point; return an event that was just detected or has just ended."""


class Detector(Component, ABC):
    """A kind of failure with its definition's parameters; `name` is the event's kind."""

    @abstractmethod
    def start(self, primary: Primary) -> Watcher:
        """Return a watcher for a new trial."""


DETECTORS: Registry[Detector] = Registry("detector")


class Episode:
    """A condition that must hold `patience` readings running to begin, and fail as many to end."""

    def __init__(self, kind: str, patience: int) -> None:
        """Follow one condition of one trial."""
        self.kind, self.patience = kind, patience
        self._streak = self._onset = 0
        self._event: Event | None = None

    def update(
        self, at: int, holds: bool, severity: float, evidence: Mapping[str, Any]
    ) -> Event | None:
        """Take one reading at discriminator update `at`."""
        if holds == (self._event is None):
            self._onset = at if self._streak == 0 else self._onset
            self._streak += 1
        else:
            self._streak = 0
        if self._streak < self.patience:
            return None
        self._streak = 0
        if self._event is None:
            self._event = Event(self.kind, self._onset, at, severity, dict(evidence))
            return self._event
        begun, self._event = self._event, None
        return Event(
            begun.kind, begun.onset, begun.detected, begun.severity, begun.evidence, self._onset
        )


RAW = "_raw"
"""Ending of the scores of the generator as trained, where an average of it is sampled."""


class Together:
    """Collects the newest values by name until all that are needed stand at one update.

    Scores of the generator as trained, beside those of its average, are not among them.
    """

    def __init__(self, *prefixes: str) -> None:
        """Wait for one point per prefix; a name begins with its prefix."""
        self.prefixes = prefixes
        self._at = -1
        self._values: dict[str, float] = {}

    def add(self, point: Point) -> dict[str, float] | None:
        """Return prefix -> value once the last of them has come, else None."""
        prefix = next((p for p in self.prefixes if point.name.startswith(p)), None)
        if prefix is None or point.name.endswith((RAW, RAW + STANDARD_ERROR)):
            return None
        if point.discriminator_updates != self._at:
            self._at, self._values = point.discriminator_updates, {}
        self._values[prefix] = point.value
        return dict(self._values) if len(self._values) == len(self.prefixes) else None


@DETECTORS.register("divergence")
@component
class Divergence(Detector):
    """A value that is not finite, or a loss or mean logit that doubles at 6 reads running.

    Non-finite values fire at once and for good. Doubling counts only beyond `floor`, below which
    no loss of ours is in trouble.
    """

    doublings: Count = 6
    """Reads running at which a magnitude must double."""
    floor: Annotated[float, Field(gt=0)] = 10.0
    """Magnitude that the value must have reached."""

    def start(self, primary: Primary) -> Watcher:
        return DivergenceWatcher(self)


RUNAWAY = ("discriminator_loss", "generator_loss", "real_logits_mean", "fake_logits_mean")


class DivergenceWatcher:
    """Watches every point for finiteness, losses and logits for doubling."""

    def __init__(self, detector: Divergence) -> None:
        """Start with nothing seen."""
        self.detector, self._fired = detector, False
        self._last: dict[str, float] = {}
        self._streaks: dict[str, tuple[int, int]] = {}

    def update(self, point: Point) -> Event | None:
        if self._fired:
            return None
        if not math.isfinite(point.value):
            return self._fire(point, point.discriminator_updates, "not finite")
        if point.name not in RUNAWAY:
            return None
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
        return self._fire(point, onset, f"doubled at {streak + 1} reads running")

    def _fire(self, point: Point, onset: int, rule: str) -> Event:
        self._fired = True
        evidence = {"signal": point.name, "value": point.value, "rule": rule}
        return Event("divergence", onset, point.discriminator_updates, 1.0, evidence)


@DETECTORS.register("mode_collapse")
@component
class ModeCollapse(Detector):
    """Generated features spread far less than real ones, or coverage falls to a part of its best.

    An untrained generator has no diversity yet. So low diversity counts only while it makes no
    `progress` over its own best: a slow learner is no collapsed one. Coverage says nothing of a
    generator that never covered much, so it counts only once it was `had`.
    """

    diversity_share: Share = 0.25
    """Mean pairwise feature distance, generated over real, below which samples are too alike."""
    coverage_share: Share = 0.25
    """Coverage over its own best so far below which the data is being lost."""
    had: Share = 0.25
    """Best coverage from which on a fall counts."""
    progress: Share = 0.1
    """Gain of diversity over its own best so far, relative to it, that counts as learning."""
    patience: Count = 3
    """Evaluations running."""
    warmup: Annotated[int, Field(ge=0)] = 1
    """Evaluations that are not judged: the untrained generator's."""

    def start(self, primary: Primary) -> Watcher:
        return ModeCollapseWatcher(self)


class ModeCollapseWatcher:
    """Judges diversity and coverage at each evaluation."""

    def __init__(self, detector: ModeCollapse) -> None:
        """Start with nothing seen."""
        self.detector = detector
        self._evaluation = Together("diversity_", "coverage_")
        self._episode = Episode("mode_collapse", detector.patience)
        self._seen, self._best_coverage, self._best_diversity = 0, 0.0, 0.0

    def update(self, point: Point) -> Event | None:
        values = self._evaluation.add(point)
        if values is None:
            return None
        diversity, coverage = values["diversity_"], values["coverage_"]
        self._seen += 1
        lost = (
            self._best_coverage >= self.detector.had
            and coverage < self.detector.coverage_share * self._best_coverage
        )
        learning = diversity > (1 + self.detector.progress) * self._best_diversity
        alike = diversity < self.detector.diversity_share and not learning
        evidence = {
            "diversity": diversity,
            "best_diversity": self._best_diversity,
            "coverage": coverage,
            "best_coverage": self._best_coverage,
        }
        # In this order a NaN never becomes the best.
        self._best_coverage = max(self._best_coverage, coverage)
        self._best_diversity = max(self._best_diversity, diversity)
        if self._seen <= self.detector.warmup:
            return None
        severity = min(1.0, max(0.0, 1 - diversity)) if alike else 1 - coverage
        return self._episode.update(point.discriminator_updates, alike or lost, severity, evidence)


@DETECTORS.register("discriminator_overpowering")
@component
class DiscriminatorOverpowering(Detector):
    """The discriminator tells held-out real from generated while the primary score gains nothing.

    Separation alone misleads: it is normal while a generator learns. So both are needed: AUC on
    held-out images, and no gain over the best score so far beyond its standard errors.
    """

    auc: Annotated[float, Field(gt=0.5, le=1)] = 0.99
    """Held-out AUC from which on the discriminator separates."""
    standard_errors: Annotated[float, Field(ge=0)] = 2.0
    """Gain over the best score so far, in standard errors of the difference, that counts."""
    patience: Count = 3
    """Evaluations running."""

    def start(self, primary: Primary) -> Watcher:
        return DiscriminatorOverpoweringWatcher(self, primary)


HELD_OUT_AUC = "heldout_discriminator_auc"
STANDARD_ERROR = "_se"
"""Suffix of the stored name of a score's standard error."""


class DiscriminatorOverpoweringWatcher:
    """Judges held-out AUC against the gain of the primary score at each evaluation."""

    def __init__(self, detector: DiscriminatorOverpowering, primary: Primary) -> None:
        """Start with nothing seen."""
        self.detector, self.primary = detector, primary
        self._error = primary.name + STANDARD_ERROR
        # The longer name first: a score's own name is a prefix of its standard error's.
        self._evaluation = Together(HELD_OUT_AUC, self._error, primary.name)
        self._episode = Episode("discriminator_overpowering", detector.patience)
        self._best: tuple[float, float] | None = None

    def update(self, point: Point) -> Event | None:
        values = self._evaluation.add(point)
        if values is None or point.discriminator_updates == 0:
            return None
        sign = 1.0 if self.primary.minimize else -1.0
        score, error = sign * values[self.primary.name], values[self._error]
        best, best_error = self._best or (math.inf, 0.0)
        needed = self.detector.standard_errors * math.hypot(error, best_error)
        gained = score < best - needed
        if score < best:
            self._best = (score, error)
        auc = values[HELD_OUT_AUC]
        evidence = {
            HELD_OUT_AUC: auc,
            self.primary.name: sign * score,
            "best_so_far": sign * best,
            "gain_needed": needed,
        }
        return self._episode.update(
            point.discriminator_updates, auc >= self.detector.auc and not gained, auc, evidence
        )


def _detector(kind: str, options: object) -> Detector:
    if not isinstance(options, Mapping):
        raise StudyError("", f"options are a mapping, null to remove, got {options!r}")
    return DETECTORS.build(kind, **only_text_keys(options))


@dataclass(frozen=True)
class EventsConfig:
    """Which detectors watch, and which kinds of event stop a trial."""

    detectors: tuple[Detector, ...]
    stop_on: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EventsConfig:
        """Build from what a YAML holds: every detector watches unless it is set to null."""
        known = {"stop_on", "detectors"}
        for key in data:
            if key not in known:
                raise StudyError(str(key), unknown("key", key, known))
        chosen = data.get("detectors", {})
        if not isinstance(chosen, Mapping):
            raise StudyError("detectors", f"a mapping kind -> options is needed, got {chosen!r}")
        for kind in chosen:
            at("detectors", DETECTORS.get, kind)
        detectors = tuple(
            at(
                f"detectors.{kind}",
                _detector,
                kind,
                chosen.get(kind, {}),
            )
            for kind in DETECTORS.names()
            if chosen.get(kind, {}) is not None
        )
        stop_on = data.get("stop_on", [])
        if not isinstance(stop_on, list):
            raise StudyError("stop_on", f"a list of event kinds is needed, got {stop_on!r}")
        watching = [d.name for d in detectors]
        for kind in stop_on:
            if kind not in watching:
                raise StudyError("stop_on", unknown("event that is watched for", kind, watching))
        return cls(detectors, tuple(stop_on))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data from which `from_dict` builds an equal config."""
        parts = [d.to_dict() for d in self.detectors]
        options: dict[str, Any] = {p.pop("name"): p for p in parts}
        removed = {kind: None for kind in DETECTORS.names() if kind not in options}
        return {"detectors": options | removed, "stop_on": list(self.stop_on)}


class EventLog:
    """The events of one trial, kept up to date while points come in."""

    def __init__(self, detectors: Iterable[Detector], primary: Primary) -> None:
        """Start every detector."""
        self._watchers = [detector.start(primary) for detector in detectors]
        self._events: dict[tuple[str, int], Event] = {}

    @property
    def events(self) -> list[Event]:
        """All events so far in the order of their detection."""
        return list(self._events.values())

    def update(self, points: Iterable[Point]) -> list[Event]:
        """Take points in order; return the events that they began (ends are kept silently)."""
        begun = []
        for point in points:
            for watcher in self._watchers:
                event = watcher.update(point)
                if event is None:
                    continue
                if event.ended is None:
                    begun.append(event)
                self._events[event.kind, event.onset] = event
        return begun


def replay(
    points: Sequence[Point], primary: Primary, detectors: Iterable[Detector] | None = None
) -> list[Event]:
    """Return the events of recorded points: the same as were detected live.

    Args:
        points: The points of one trial in the order of their recording.
        primary: The study's primary score.
        detectors: All kinds with their defaults unless given.
    """
    if detectors is None:
        detectors = [DETECTORS.build(kind) for kind in DETECTORS.names()]
    log = EventLog(detectors, primary)
    log.update(points)
    return log.events
