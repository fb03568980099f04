"""A trial's story: what happened to it, on what evidence, and what a neighbour did otherwise.

Reads the trial folders of a study, which may be running, and changes nothing.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ganstudy.checksums import DamagedFile
from ganstudy.records import (
    PROBE_SCORE,
    RECOVERY,
    TIME_LIMIT,
    Event,
    TrialRecord,
    TrialResult,
    TrialStatus,
)
from ganstudy.registry import StudyError
from ganstudy.storage import read_json
from ganstudy.store import MALFORMED, Attempt, StudyFolder, last_line
from ganstudy.study.outcomes import OUTCOMES, OutcomeRule, score_record
from ganstudy.study.reading import read_yaml
from ganstudy.study.space import (
    Distribution,
    IntUniform,
    LogUniform,
    Uniform,
    parse_distribution,
)

LISTED = 5
"""Trials that are named where a prefix is not unique."""


class Score(NamedTuple):
    """Which points are a score's."""

    name: str
    minimize: bool


PROBE = Score(PROBE_SCORE, minimize=True)
"""The probes' score, which detectors read: it comes more often than the primary one."""


class Curve(NamedTuple):
    """A score over a trial's time."""

    name: str
    minimize: bool
    updates: list[int]
    values: list[float]

    @property
    def best(self) -> int | None:
        """Index of the best finite value after training began, None if there is none."""
        sign = 1 if self.minimize else -1
        finite = [i for i, v in enumerate(self.values) if self.updates[i] and math.isfinite(v)]
        return min(finite, key=lambda i: sign * self.values[i], default=None)


class Picture(NamedTuple):
    """A sample grid that the trial kept."""

    what: str
    path: Path


class Difference(NamedTuple):
    """One swept parameter in which two trials differ.

    Attributes:
        here: The told trial's value, None where it is not swept.
        there: The other's.
        size: How far apart they are: the share of the range, on its scale; 1 between choices.
    """

    key: str
    here: Any
    there: Any
    size: float


class Neighbour(NamedTuple):
    """The trial nearest in its parameters that ended otherwise.

    Attributes:
        identity: Its row of the plan.
        differences: What is swept and differs, the largest difference first.
        settings: In what the arms themselves differ, where it is of another arm.
    """

    identity: Mapping[str, Any]
    record: TrialRecord
    pictures: list[Picture]
    differences: list[Difference]
    settings: list[Difference]


@dataclass(frozen=True)
class Story:
    """All that is told of one trial.

    Attributes:
        identity: Its row of the plan.
        status: How it stands or ended.
        reason: Why, where a reason was recorded.
        error: The last line of its traceback, empty if there is none.
        budget: Discriminator updates that it is to train, None before it began.
        primary: Stored name of the study's primary score, empty before anything was measured.
        curves: Its primary score, then its probes', where there are values.
        events: In the order of their onsets.
        failed: Whether it failed by the study's comparison rule; None where it is no outcome.
        neighbour: Healthy, or failed where the trial is healthy; None where there is none.
        checkpoint: Which evaluation the comparison rule scores a trial by: "best" or "last".
    """

    identity: Mapping[str, Any]
    status: TrialStatus
    reason: str
    error: str
    budget: int | None
    result: TrialResult
    primary: str
    curves: list[Curve]
    events: Sequence[Event]
    pictures: list[Picture]
    failed: bool | None
    neighbour: Neighbour | None
    checkpoint: str = "best"

    @property
    def healthy(self) -> bool:
        """Whether it did not fail and no event was recorded but recoveries."""
        return self.failed is False and not troubles(self.events)

    @property
    def params(self) -> Mapping[str, Any]:
        """The swept values."""
        return self.identity["params"]


def troubles(events: Iterable[Event]) -> list[Event]:
    """Return the events but recoveries: none of them alone makes a trial a failure."""
    return [event for event in events if event.kind != RECOVERY]


@dataclass(frozen=True)
class Fate:
    """How a trial ended by the study's comparison rule.

    Attributes:
        failed: Whether it failed; None where its end is no outcome: it has not ended, was lost to
            an error, or a pruner or the clock stopped it.
        learned: Whether its score is better than its untrained generator's.
    """

    failed: bool | None
    learned: bool

    @classmethod
    def judge(
        cls, record: TrialRecord, status: TrialStatus, reason: str, rule: OutcomeRule
    ) -> Fate:
        """Judge a record.

        Args:
            record: What the trial recorded.
            status: How it stands, as the driver says.
            reason: Why.
            rule: The study's.
        """
        pruned = status is TrialStatus.STOPPED and reason in (rule.pruner, TIME_LIMIT)
        if status not in OUTCOMES or pruned:
            return cls(None, learned=False)
        score = score_record(record, status, rule.score)
        untrained = rule.score.sign * record.values_at(0).get(rule.score.score, math.inf)
        # Without a finite first score there is nothing to compare with.
        learned = not math.isfinite(untrained) or score < untrained
        return cls(math.isinf(score), learned)

    @property
    def healthy(self) -> bool:
        """Whether the trial did not fail and learned anything at all."""
        return self.failed is False and self.learned


def resolve(name: str, trial_ids: Sequence[str]) -> str:
    """Return the trial that is named by its id or by a beginning that it alone has.

    Raises:
        StudyError: With the nearest right name, or the trials that begin so.
    """
    if name in trial_ids:
        return name
    begin = [trial_id for trial_id in trial_ids if trial_id.startswith(name)]
    if len(begin) == 1:
        return begin[0]
    if begin:
        more = f" and {len(begin) - LISTED} more" if len(begin) > LISTED else ""
        listed = ", ".join(begin[:LISTED]) + more
        raise StudyError("", f"{name!r} is the beginning of {len(begin)} trials: {listed}")
    nearest = difflib.get_close_matches(name, trial_ids, n=1, cutoff=0.0)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ": the study has none yet"
    raise StudyError("", f"unknown trial {name!r}{hint}")


def story(folder: StudyFolder, name: str) -> Story:
    """Return the story of one trial.

    Args:
        folder: The study.
        name: The trial's id, or a beginning that no other trial has.

    Raises:
        StudyError: If there is no such trial, or `study.yaml` cannot be read.
    """
    plan = {identity["trial_id"]: identity for identity in folder.read_plan()}
    identity = plan[resolve(name, list(plan))]
    trial = folder.trial(identity["trial_id"])
    attempt, record = trial.latest() or (None, TrialRecord(TrialResult(TrialStatus.PENDING)))
    status, reason = trial.standing(record.result, running=folder.driven())
    settings, primary = read_yaml(folder.folder / "study.yaml"), _primary(folder)
    rule = OutcomeRule.from_settings(settings, primary.name, minimize=primary.minimize)
    fate = Fate.judge(record, status, reason, rule)
    healthy = fate.failed is False and not troubles(record.events)
    kinds = {event.kind for event in troubles(record.events) if event.ended is None}
    wanted = Wanted(rule, healthy=not healthy, without=kinds)
    return Story(
        identity=identity,
        status=status,
        reason=reason,
        error=last_line(trial.error()),
        budget=_budget(attempt, record),
        result=record.result,
        primary=primary.name,
        curves=[c for c in (_curve(record, primary), _curve(record, PROBE)) if c.values],
        events=sorted(record.events, key=lambda event: (event.onset, event.detected)),
        pictures=[] if attempt is None else pictures(attempt, record),
        failed=fate.failed,
        neighbour=nearest(folder, identity, plan.values(), settings["arms"], wanted),
        checkpoint=rule.score.checkpoint,
    )


def _budget(attempt: Attempt | None, record: TrialRecord) -> int | None:
    if attempt is None or "config" not in record.files:
        return None
    path = attempt.file(record.files["config"])
    config = read_json(path, attempt.remedy)
    try:
        return int(config["train"]["discriminator_updates"])
    except MALFORMED:
        raise DamagedFile(path, attempt.remedy, "is no trial") from None


def _primary(folder: StudyFolder) -> Score:
    try:
        protocol = folder.read_json("protocol.json")
    except FileNotFoundError:  # nothing was measured yet
        return Score("", minimize=True)
    return Score(protocol["primary"], protocol["minimize"])


def _curve(record: TrialRecord, score: Score) -> Curve:
    mine = [p for p in record.points if p.name == score.name]
    return Curve(*score, [p.discriminator_updates for p in mine], [p.value for p in mine])


def pictures(attempt: Attempt, record: TrialRecord) -> list[Picture]:
    """Return the sample grids before and at each kind of event, then the best and the last."""
    roles = {}
    for kind in dict.fromkeys(event.kind for event in record.events):
        roles[f"samples_before_{kind}"] = f"before {kind}"
        roles[f"samples_at_{kind}"] = f"at {kind}"
    roles |= {"samples_best": "best checkpoint", "samples": "last"}
    found = ((what, record.files.get(role)) for role, what in roles.items())
    return [Picture(what, attempt.file(name)) for what, name in found if name is not None]


class Wanted(NamedTuple):
    """Which trial is looked for beside another.

    Attributes:
        rule: By which trials have failed.
        healthy: Whether it is a healthy one, else one that failed.
        without: Kinds of event that the other trial ended with: a trial that did not is preferred.
    """

    rule: OutcomeRule
    healthy: bool
    without: Collection[str]

    def fits(self, folder: StudyFolder, trial_id: str, record: TrialRecord) -> bool:
        """Return whether a trial with this record is such a one."""
        status, reason = folder.trial(trial_id).standing(record.result, running=True)
        fate = Fate.judge(record, status, reason, self.rule)
        return fate.healthy if self.healthy else fate.failed is True

    def shares(self, record: TrialRecord) -> bool:
        """Return whether it ended with such an event, too."""
        return any(e.kind in self.without and e.ended is None for e in record.events)


def nearest(
    folder: StudyFolder,
    mine: Mapping[str, Any],
    plan: Iterable[Mapping[str, Any]],
    arms: Mapping[str, Any],
    wanted: Wanted,
) -> Neighbour | None:
    """Return the trial nearest to `mine` among those that are wanted.

    One of the same arm comes before all of other arms; within an arm, a healthy one that did not
    end with the events of `mine` comes before one that did. Records are read from the nearest
    trial on until one will do: few of them in most studies.

    Args:
        folder: The study.
        mine: Row of the plan.
        plan: All rows of the plan.
        arms: The study's arms, resolved.
        wanted: Which trial is looked for.
    """
    space = {k: parse_distribution(d) for k, d in arms[mine["arm"]].get("space", {}).items()}
    others = [
        (other["arm"] != mine["arm"], differences(mine["params"], other["params"], space), other)
        for other in plan
        if other["trial_id"] != mine["trial_id"]
    ]
    others.sort(key=lambda found: (found[0], distance(found[1])))
    second: Neighbour | None = None
    for elsewhere, differing, other in others:
        if elsewhere and second is not None and second.identity["arm"] == mine["arm"]:
            break
        latest = folder.trial(other["trial_id"]).latest()
        if latest is None or not wanted.fits(folder, other["trial_id"], latest[1]):
            continue
        settings = unlike(arms[mine["arm"]], arms[other["arm"]]) if elsewhere else []
        found = Neighbour(other, latest[1], pictures(*latest), differing, settings)
        if not wanted.healthy or not wanted.shares(latest[1]):
            return found
        second = second or found
    return second


def distance(differing: Iterable[Difference]) -> float:
    """Return the Euclidean distance over all swept parameters."""
    return math.hypot(*(difference.size for difference in differing))


def differences(
    here: Mapping[str, Any], there: Mapping[str, Any], space: Mapping[str, Distribution]
) -> list[Difference]:
    """Return in which swept parameters two trials differ, the largest difference first.

    Args:
        here: Key path -> value.
        there: The other trial's. A parameter that only one of them sweeps, of another arm or of
            an arm's defaults say, differs wholly.
        space: What the first trial's arm draws from.
    """
    both = ((key, here.get(key), there.get(key)) for key in sorted({*here, *there}))
    sized = [Difference(key, a, b, _apart(space.get(key), a, b)) for key, a, b in both]
    return sorted((d for d in sized if d.size > 0), key=lambda d: -d.size)


def _apart(distribution: Distribution | None, here: Any, there: Any) -> float:
    """Return how far apart two values are, as a share of their range."""
    if here == there:
        return 0.0
    if here is None or there is None:
        return 1.0
    match distribution:
        case LogUniform(low, high):
            return abs(math.log(here / there)) / math.log(high / low)
        case Uniform(low, high) | IntUniform(low, high):
            return abs(here - there) / (high - low)
    return 1.0


def unlike(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[Difference]:
    """Return in which settings two arms differ, spaces aside, by key path."""
    mine, other = (
        dict(flat({k: v for k, v in arm.items() if k not in ("space", "narrow")}))
        for arm in (here, there)
    )
    keys = sorted({*mine, *other})
    return [
        Difference(k, mine.get(k), other.get(k), 1.0) for k in keys if mine.get(k) != other.get(k)
    ]


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield key path and value of nested settings; a mapping that is empty is a value."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
