"""Detectors over a study's recorded points, with other parameters; the record stays as it is."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from ganstudy.measure.events import EventLog, EventsConfig
from ganstudy.records import (
    EVENTS,
    EVENTS_SCHEMA,
    POINTS,
    POINTS_SCHEMA,
    Point,
    event_row,
    read_table,
    table,
    table_remedy,
    write_table,
)
from ganstudy.registry import StudyError
from ganstudy.storage import open_checked_table
from ganstudy.store import StudyFolder
from ganstudy.study.reading import read_yaml, set_keys

REPLAYED = "events-replayed.parquet"
SETTINGS = b"ganstudy.events"
"""Key of the schema's metadata that tells the detectors, as JSON: what marks a replay's table."""
ROWS_AT_ONCE = 65536
LISTED = 3
"""Trials that are named of those that changed alike."""
TIMES = ("onset", "detected", "ended")


class Replay(NamedTuple):
    """What the detectors found.

    Attributes:
        rows: Rows of an event table, in the order of the record's.
        points: How many points they read.
    """

    rows: list[dict[str, Any]]
    points: int


class Change(NamedTuple):
    """What a replay changes in one kind of event of one arm, by trials.

    Attributes:
        recorded: Trials with such an event in the record.
        replayed: Trials with one in the replay.
        new: Those with one in the replay alone.
        gone: Those with one in the record alone.
        moved: Those with one in both that differ.
        columns: In what those differ: their `number`, times, or nothing but their `evidence`.
    """

    arm: str
    kind: str
    recorded: int
    replayed: int
    new: list[str]
    gone: list[str]
    moved: list[str]
    columns: list[str]

    @property
    def nothing(self) -> bool:
        """Whether record and replay tell the same."""
        return not (self.new or self.gone or self.moved)

    def told(self) -> str:
        """Return what changed in words, with the trials: their configs and seeds."""
        parts = [("new", self.new), ("gone", self.gone)]
        parts.append((f"other {', '.join(self.columns)}", self.moved))
        return "; ".join(f"{what}: {self._listed(trials)}" for what, trials in parts if trials)

    def _listed(self, trials: Sequence[str]) -> str:
        more = f" and {len(trials) - LISTED} more" if len(trials) > LISTED else ""
        return ", ".join(t.removeprefix(f"{self.arm}-") for t in trials[:LISTED]) + more


def configured(detectors: Mapping[str, Any], overrides: Iterable[str] = ()) -> EventsConfig:
    """Return detectors with settings laid on theirs; none of them stops anything.

    Args:
        detectors: Kind -> options, None to remove it.
        overrides: `KIND.OPTION=VALUE`, `KIND=null`.

    Raises:
        StudyError: For a wrong kind, option or value.
    """
    try:
        return EventsConfig.from_dict({"detectors": set_keys(detectors, overrides)})
    except StudyError as error:
        path = error.path.removeprefix("detectors").removeprefix(".")
        raise StudyError(path, error.rule) from None


def own_detectors(folder: StudyFolder) -> dict[str, Any]:
    """Return the study's own detectors: kind -> options, None where it removes one.

    Raises:
        StudyError: If its `study.yaml` cannot be read.
    """
    events = read_yaml(folder.folder / "study.yaml").get("events") or {}
    return dict(events.get("detectors") or {})


def replayed(points: Path, config: EventsConfig) -> Replay:
    """Replay the points of all trials, some thousands at a time.

    A watcher's memory is constant, so every trial has its own and the table is read once.
    """
    logs: dict[str, EventLog] = {}
    count = 0
    for trial_id, some in _by_trial(points):
        count += len(some)
        logs.setdefault(trial_id, EventLog(config.detectors)).update(some)
    rows = [event_row(trial_id, event) for trial_id, log in logs.items() for event in log.events]
    return Replay(rows, count)


def _by_trial(path: Path) -> Iterator[tuple[str, list[Point]]]:
    """Yield trial_id and points of it that stand together, in the order of the table."""
    with open_checked_table(path, table_remedy(path)) as opened, pq.ParquetFile(opened) as file:
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=POINTS_SCHEMA.names):
            columns = (batch.column(name).to_pylist() for name in POINTS_SCHEMA.names)
            for trial_id, rows in groupby(zip(*columns, strict=True), key=itemgetter(0)):
                yield trial_id, [Point(*row[1:]) for row in rows]


def replay_study(
    folder: StudyFolder, config: EventsConfig, output: Path
) -> tuple[Replay, list[Change]]:
    """Write the table of what `config` finds in a study's points; return that and what changed.

    Args:
        folder: The study, which may be running.
        config: The detectors.
        output: The table; one that is there must be a replay's.

    Raises:
        FileExistsError: If `output` is there and is not a replay's table.
        StudyError: If the study has no tables yet.
        DamagedFile: If one of its tables is damaged.
        OSError: If `output` cannot be written.
    """
    for name in (POINTS, EVENTS):
        if not (folder.folder / name).exists():
            raise StudyError("", f"holds no {name} yet: nothing was recorded")
    if output.exists() and not is_replay(output):
        raise FileExistsError(output)
    # The record first: while a study runs, its tables are replaced one after another.
    recorded = read_table(folder.folder / EVENTS).to_pylist()
    replay = replayed(folder.folder / POINTS, config)
    schema = EVENTS_SCHEMA.with_metadata({SETTINGS: json.dumps(config.to_dict()["detectors"])})
    found = table(replay.rows, schema)
    write_table(output, found)
    arms = {row["trial_id"]: row["arm"] for row in folder.read_plan()}
    return replay, compared(recorded, replay.rows, arms)


def is_replay(path: Path) -> bool:
    """Whether a file is a table that a replay wrote."""
    try:
        with path.open("rb") as file:
            return SETTINGS in (pq.read_schema(file).metadata or {})
    except (OSError, ValueError):  # a folder; no parquet
        return False


def compared(
    recorded: Sequence[Mapping[str, Any]],
    found: Sequence[Mapping[str, Any]],
    arms: Mapping[str, str],
) -> list[Change]:
    """Return what changed, by arm in the order of the plan and by kind.

    Args:
        recorded: Rows of the record's table.
        found: Rows of the replay's.
        arms: Trial -> arm, in the order of the plan.
    """
    before, after = _by_kind(recorded, arms), _by_kind(found, arms)
    order = list(dict.fromkeys(arms.values()))
    keys = sorted({*before, *after}, key=lambda key: (order.index(key[0]), key[1]))
    return [_change(arm, kind, before[arm, kind], after[arm, kind]) for arm, kind in keys]


Episodes = dict[str, list[Mapping[str, Any]]]
"""Trial -> its events of one kind."""


def _by_kind(
    rows: Iterable[Mapping[str, Any]], arms: Mapping[str, str]
) -> dict[tuple[str, str], Episodes]:
    found: dict[tuple[str, str], Episodes] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        found[arms[row["trial_id"]], row["kind"]][row["trial_id"]].append(row)
    return found


def _change(arm: str, kind: str, before: Episodes, after: Episodes) -> Change:
    differences = {t: _differences(before[t], after[t]) for t in before if t in after}
    return Change(
        arm,
        kind,
        recorded=len(before),
        replayed=len(after),
        new=[t for t in after if t not in before],
        gone=[t for t in before if t not in after],
        moved=[t for t, columns in differences.items() if columns],
        columns=list(dict.fromkeys(c for d in differences.values() for c in d)),
    )


def _differences(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Return in what one trial's events of one kind differ."""
    if len(before) != len(after):
        return ["number"]
    pairs = list(zip(before, after, strict=True))
    times = [c for c in TIMES if any(old[c] != new[c] for old, new in pairs)]
    # By its text, so that NaN equals NaN.
    same = all(repr((o["severity"], o["evidence"])) == repr((n["severity"], n["evidence"]))
               for o, n in pairs)  # fmt: skip
    return times or ([] if same else ["evidence"])
