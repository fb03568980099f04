"""How detectors do on the labelled runs: one decision for each run and kind."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from scipy.stats import binomtest

from ganstudy.measure.events import Detector, names, replay
from ganstudy.records import Event, Point
from tests.labelled.fates import JUDGED, KINDS

Row = Mapping[str, Any]
"""What is known of one run: a row of the table of fates."""
CONFIDENCE = 0.95
"""Of each bound, which is one-sided (Clopper and Pearson 1934)."""


class Decision(enum.StrEnum):
    """What a detector's answer for a run is worth."""

    HIT = "hit"
    MISSED = "missed"
    FALSE = "false alarm"
    EARLY = "before the onset"
    """It fired before the failure was planted: a false alarm, and the failure is missed."""
    SILENT = "rightly silent"
    UNKNOWN = "nobody knows"


class Call(NamedTuple):
    """The first event of a kind in a run, judged."""

    decision: Decision
    delay: int | None = None
    """Discriminator updates from the planted onset to the detection, where it was hit."""
    probes: int | None = None
    """Probes after the onset up to the detection."""


def decided(row: Row, kind: str, points: Sequence[Point], events: Sequence[Event]) -> Call:
    """Judge the first event of `kind` in a run, or that there is none."""
    fate, onset = row[f"fate.{kind}"], onset_of(row, kind)
    first = next((event for event in events if event.kind == kind), None)
    if fate is None:
        return Call(Decision.UNKNOWN)
    if first is None:
        return Call(Decision.MISSED if fate else Decision.SILENT)
    if not fate:
        return Call(Decision.FALSE)
    if onset is None:
        return Call(Decision.HIT)
    if first.detected < onset:
        return Call(Decision.EARLY)
    seen = [p.discriminator_updates for p in points if p.name == names.SCORE]
    between = sum(onset < update <= first.detected for update in seen)
    return Call(Decision.HIT, first.detected - onset, between)


def onset_of(row: Row, kind: str) -> int | None:
    """Return when the failure was planted, None where it was not; a recovery begins at its end."""
    if row[f"onset.{kind}"] is None:
        return None
    return row["fault_until"] if kind == "recovery" else row[f"onset.{kind}"]


def is_healthy(row: Row) -> bool:
    """Whether nothing is known against a run, and its samples were good to the end."""
    fates = [row[f"fate.{kind}"] for kind in KINDS if kind != "recovery"]
    return not any(fates) and all(row[f"fate.{kind}"] is False for kind in JUDGED)


class Share(NamedTuple):
    """A share with its one-sided bounds."""

    count: int
    of: int

    @property
    def value(self) -> float:
        """The share, NaN of nothing."""
        return self.count / self.of if self.of else math.nan

    @property
    def lower(self) -> float:
        """Bound that the share is above with 95 % confidence; 0 of nothing."""
        return self._bound("greater") if self.of else 0.0

    @property
    def upper(self) -> float:
        """Bound that the share is below with 95 % confidence; 1 of nothing."""
        return self._bound("less") if self.of else 1.0

    def _bound(self, alternative: str) -> float:
        interval = binomtest(self.count, self.of, alternative=alternative).proportion_ci(
            CONFIDENCE, method="exact"
        )
        return float(interval.low if alternative == "greater" else interval.high)


@dataclass
class Tally:
    """What came of all runs in which a kind's fate is known."""

    calls: list[tuple[Row, Call]] = field(default_factory=list)

    def count(self, *decisions: Decision) -> int:
        """Return how many calls were one of these."""
        return sum(call.decision in decisions for _, call in self.calls)

    @property
    def positives(self) -> int:
        """Runs that the failure befell."""
        return self.count(Decision.HIT, Decision.MISSED, Decision.EARLY)

    @property
    def precision(self) -> Share:
        """Share of the detections that are right."""
        made = self.count(Decision.HIT, Decision.FALSE, Decision.EARLY)
        return Share(self.count(Decision.HIT), made)

    @property
    def recall(self) -> Share:
        """Share of the failures that were detected."""
        return Share(self.count(Decision.HIT), self.positives)

    @property
    def delays(self) -> list[tuple[int, int]]:
        """Updates and probes from each planted onset to its detection."""
        found = [(call.delay, call.probes) for _, call in self.calls]
        return [(d, p) for d, p in found if d is not None and p is not None]


class Replayed(NamedTuple):
    """One run with what detectors made of it."""

    row: Row
    points: list[Point]
    events: list[Event]


def replayed(
    rows: Iterable[Row],
    traces: Iterable[tuple[str, list[Point]]],
    detectors: Sequence[Detector] | None = None,
) -> Iterator[Replayed]:
    """Yield every run with the events that `detectors`, or all with their defaults, find in it."""
    of = {row["run"]: row for row in rows}
    for run, points in traces:
        yield Replayed(of[run], points, replay(points, detectors))


def tallies(runs: Iterable[Replayed]) -> dict[str, Tally]:
    """Return kind -> what came of it."""
    found = {kind: Tally() for kind in KINDS}
    for row, points, events in runs:
        for kind, tally in found.items():
            tally.calls.append((row, decided(row, kind, points, events)))
    return found


def false_alarms(
    runs: Iterable[Replayed], counts: Callable[[bool | None], bool] = lambda fate: fate is False
) -> list[tuple[Row, list[str]]]:
    """Return the healthy runs, each with the kinds of failure that were told of it.

    Args:
        runs: Any runs.
        counts: By a kind's fate, whether an event of it is an alarm.
    """
    found = []
    for row, _, events in runs:
        if is_healthy(row):
            kinds = dict.fromkeys(e.kind for e in events if e.kind != "recovery")
            found.append((row, [kind for kind in kinds if counts(row[f"fate.{kind}"])]))
    return found
