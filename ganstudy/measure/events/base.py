"""Failures as data: detectors read points one by one, live and in replay alike.

A detector is a frozen set of parameters; `start` gives a watcher for one trial, whose `update`
takes points in the order of their recording and answers with an Event when one is detected, and
with the same event again (same kind and onset) when it has ended. The time per point is constant.
Memory is constant, or grows with the logarithm of the run's length (oscillation).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

from pydantic import Field

from ganstudy.measure.events import names
from ganstudy.records import Event, Point
from ganstudy.registry import Component, Registry

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


class Watcher(Protocol):
    """Follows one trial."""

    def update(self, point: Point) -> Event | None:
        """Take the next point; return an event that was just detected or has just ended."""


@runtime_checkable
class Listener(Protocol):
    """A watcher that is told of the events of all detectors as they begin and end."""

    def hear(self, event: Event) -> None:
        """Take the news of an event."""


@runtime_checkable
class Companion(Protocol):
    """A watcher whose condition depends on another kind's definition."""

    def meet(self, detectors: Mapping[str, Detector]) -> None:
        """Take the detectors of the trial by kind, before its first point."""


class Detector(Component, ABC):
    """A kind of failure with its definition's parameters; `name` is the event's kind.

    Attributes:
        reads: Beginnings of the names of the points that it reads; all points if empty.
    """

    reads: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def start(self) -> Watcher:
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
        """Take one reading at discriminator update `at`; severity is brought into [0, 1]."""
        if holds == (self._event is None):
            self._onset = at if self._streak == 0 else self._onset
            self._streak += 1
        else:
            self._streak = 0
        if self._streak < self.patience:
            return None
        self._streak = 0
        if self._event is None:
            severity = min(1.0, max(0.0, severity))
            self._event = Event(self.kind, self._onset, at, severity, dict(evidence))
            return self._event
        begun, self._event = self._event, None
        return Event(
            begun.kind, begun.onset, begun.detected, begun.severity, begun.evidence, self._onset
        )


D = TypeVar("D", bound=Detector)


class ProbeWatcher(ABC, Generic[D]):
    """Judges each probe as a whole: the values that it needs of one update, once the score came.

    Logs of other systems, whose score is called fid, are judged at each of their scores.

    Attributes:
        needs: Values without which a probe is not judged.
        detector: Whose parameters it goes by.
        episode: Of the condition that it judges.
        untrained: The untrained generator's score; infinite where a log begins later.
        floor: Real samples' score; 0 where it is not known.
        seen: Probes judged after the untrained generator's.
    """

    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, detector: D, patience: int = 1) -> None:
        """Start with nothing seen; an episode begins and ends after `patience` probes."""
        self.detector, self.episode = detector, Episode(detector.name, patience)
        self.untrained, self.floor, self.seen = math.inf, 0.0, 0
        self._at = -1
        self._values: dict[str, float] = {}

    def update(self, point: Point) -> Event | None:
        if point.discriminator_updates != self._at:
            self._at, self._values = point.discriminator_updates, {}
        if point.name not in names.SCORES:
            self._values[point.name] = point.value
            return None
        self._values[names.SCORE] = point.value
        if not math.isfinite(point.value) or any(n not in self._values for n in self.needs):
            return None
        if self._at == 0:
            self.untrained = point.value
        self.floor = self._values.get(names.FLOOR, self.floor)
        self.seen += self._at > 0
        return self.judge(self._at, self._values)

    @abstractmethod
    def judge(self, at: int, values: Mapping[str, float]) -> Event | None:
        """Take the values of one probe."""


class Best:
    """The best score so far, with its standard error."""

    def __init__(self) -> None:
        """Start with none."""
        self.value, self.error = math.inf, 0.0

    def gain(self, values: Mapping[str, float], standard_errors: float) -> bool:
        """Take a probe's score; return whether it is better by that many standard errors."""
        score, error = values[names.SCORE], values.get(names.SCORE_SE, 0.0)
        gained = score < self.value - standard_errors * math.hypot(error, self.error)
        if score < self.value:
            self.value, self.error = score, error
        return gained


class EventLog:
    """The events of one trial, kept up to date while points come in."""

    def __init__(self, detectors: Iterable[Detector]) -> None:
        """Start every detector."""
        self._watchers = [(detector, detector.start()) for detector in detectors]
        self._listeners = [w for _, w in self._watchers if isinstance(w, Listener)]
        by_kind = {detector.name: detector for detector, _ in self._watchers}
        for _, watcher in self._watchers:
            if isinstance(watcher, Companion):
                watcher.meet(by_kind)
        self._readers: dict[str, list[Watcher]] = {}
        self._events: dict[tuple[str, int], Event] = {}

    @property
    def events(self) -> list[Event]:
        """All events so far in the order of their detection."""
        return list(self._events.values())

    def update(self, points: Iterable[Point]) -> list[Event]:
        """Take points in order; return the events that they began (ends are kept silently)."""
        begun = []
        for point in points:
            for watcher in self._readers_of(point.name):
                event = watcher.update(point)
                if event is None:
                    continue
                if (event.kind, event.onset) not in self._events:  # a recovery comes with its end
                    begun.append(event)
                self._events[event.kind, event.onset] = event
                for listener in self._listeners:
                    listener.hear(event)
        return begun

    def _readers_of(self, name: str) -> list[Watcher]:
        readers = self._readers.get(name)
        if readers is None:
            readers = self._readers[name] = [
                watcher
                for detector, watcher in self._watchers
                if not detector.reads or name.startswith(detector.reads)
            ]
        return readers


def replay(points: Sequence[Point], detectors: Iterable[Detector] | None = None) -> list[Event]:
    """Return the events of recorded points: the same as were detected live.

    Args:
        points: The points of one trial in the order of their recording.
        detectors: All kinds with their defaults unless given.
    """
    if detectors is None:
        detectors = [DETECTORS.build(kind) for kind in DETECTORS.names()]
    log = EventLog(detectors)
    log.update(points)
    return log.events
