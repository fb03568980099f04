"""The contract between what makes rows and what reads them: no torch, no Ray, no MLflow.

A trial yields `Point`s (one number of one signal or score), `Event`s (a failure with onset,
detection and evidence) and one `TrialResult` (how it ended). The three parquet tables of a study
hold exactly these; `load_results` reads them.
"""

from __future__ import annotations

import enum
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ganstudy.checksums import RESTORE, DamagedFile, has_checksum, is_intact
from ganstudy.storage import location, read_bytes, write_checked
from ganstudy.study_files import is_plain_name
from ganstudy.table_checks import parse_table

TRIALS, POINTS, EVENTS, REPORTED, CURVES, SANITY = (
    "trials.parquet",
    "points.parquet",
    "events.parquet",
    "reported.parquet",
    "curves.parquet",
    "sanity.parquet",
)
FILE_COLUMNS = ("config", "samples", "samples_best", "generator_best", "generator_last")
"""Roles of a trial's files that trials.parquet names."""
CLOCK_COLUMNS = frozenset(
    {"started_at", "seconds", "train_seconds", "evaluate_seconds", "wall_seconds", "attempts"}
    | {"node", *FILE_COLUMNS}
)
"""Columns that may differ between two runs of the same trial; all others are bit-equal."""

TIME_LIMIT = "time_limit"
"""Reason of a trial that was stopped because its time was up."""


class TrialStatus(enum.StrEnum):
    """How a trial stands or ended."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    DIVERGED = "diverged"
    """Non-finite at the end, or stopped by a divergence event: an outcome, scored +inf."""
    STOPPED = "stopped"
    """Stopped by another event or by a pruner, which the reason names."""
    FAILED = "failed"
    """Our fault: an exception, out of memory; never counted as an outcome of the arm."""
    INTERRUPTED = "interrupted"

    @property
    def finished(self) -> bool:
        """Whether a resume leaves the trial alone."""
        return self in FINISHED


FINISHED = frozenset(
    {TrialStatus.COMPLETED, TrialStatus.DIVERGED, TrialStatus.STOPPED, TrialStatus.FAILED}
)


def gan_failed(status: TrialStatus, reason: str) -> bool:
    """Whether a trial ended because its GAN failed: not through us, a rule or the clock.

    Args:
        status: How its own process says that it ended.
        reason: Why.
    """
    stopped = status is TrialStatus.STOPPED and reason != TIME_LIMIT
    return stopped or status is TrialStatus.DIVERGED


class Point(NamedTuple):
    """One value of a signal or score; its key in a trial is (name, discriminator_updates)."""

    name: str
    generator_updates: int
    discriminator_updates: int
    images_seen: int
    wall_seconds: float
    value: float


@dataclass(frozen=True)
class Event:
    """One failure of one trial, counted in discriminator updates.

    Attributes:
        kind: `divergence`, `mode_collapse`, ...
        onset: Update at which the condition began to hold.
        detected: Update at which the detector was sure.
        ended: Update at which it was over, None while it lasts.
        severity: 0 (barely) to 1 (total).
        evidence: What a person can check: the signals' names and values.
    """

    kind: str
    onset: int
    detected: int
    severity: float
    evidence: Mapping[str, Any]
    ended: int | None = None


@dataclass(frozen=True)
class TrialResult:
    """How far a trial is and how it ended; counters at the last recorded point."""

    status: TrialStatus
    reason: str = ""
    generator_updates: int = 0
    discriminator_updates: int = 0
    images_seen: int = 0
    started_at: float = math.nan
    """Seconds since the epoch at which the first attempt began."""
    seconds: float = 0.0
    train_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    best_at: int | None = None
    """Discriminator updates of the best checkpoint by the primary score on the select split."""
    machine: Mapping[str, Any] = field(default_factory=dict)
    """torch version, CPU capability, threads, memory format, node."""


@dataclass(frozen=True)
class TrialRecord:
    """Everything one trial has recorded so far, with the names of the files it keeps."""

    result: TrialResult
    points: Sequence[Point] = ()
    events: Sequence[Event] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    """Role (config, state, generator_best, generator_last, samples, samples_best) -> file name."""

    def to_json(self) -> str:
        """Return the record as JSON; NaN and infinities stay what they are."""
        columns = list(zip(*self.points, strict=True)) or [()] * len(Point._fields)
        return json.dumps(
            {
                "result": asdict(self.result),
                "points": dict(zip(Point._fields, columns, strict=True)),
                "events": [asdict(event) for event in self.events],
                "files": dict(self.files),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> TrialRecord:
        """Read back what `to_json` wrote, bit for bit.

        Raises:
            ValueError: If a value has the wrong type, or a file's name leads to another folder.
        """
        return cls.from_dict(json.loads(text))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrialRecord:
        """Build from what the JSON of `to_json` holds; errors as of `from_json`."""
        result = data["result"] | {"status": TrialStatus(data["result"]["status"])}
        columns = (data["points"][name] for name in Point._fields)
        record = cls(
            result=TrialResult(**result),
            points=[Point(*row) for row in zip(*columns, strict=True)],
            events=[Event(**event) for event in data["events"]],
            files=data["files"],
        )
        record.check()
        return record

    def check(self) -> None:
        """Raise ValueError or TypeError for values of a wrong type, and for foreign file names."""
        check_fields(asdict(self.result) | {"status": str(self.result.status)}, RESULT_TYPES)
        for name, column in zip(Point._fields, zip(*self.points, strict=True), strict=False):
            try:  # in C: there are many
                nulls = pa.array(column, type=POINTS_SCHEMA.field(name).type).null_count
            except OverflowError:
                raise ValueError(f"{name} of a point does not fit into 64 bits") from None
            if nulls:
                raise ValueError(f"{name} of a point must not be null")
        if not set(self.result.machine) <= MACHINE_COLUMNS:
            raise ValueError(f"machine has other keys than {', '.join(sorted(MACHINE_COLUMNS))}")
        for event in self.events:
            check_fields(asdict(event), EVENT_TYPES)
        for role, name in self.files.items():
            if not is_plain_name(name):
                raise ValueError(f"the file of {role} must be a plain name, got {name!r:.100}")

    def values_at(self, discriminator_updates: int | None) -> dict[str, float]:
        """Return name -> value of every point taken at that update."""
        return {
            p.name: p.value
            for p in self.points
            if p.discriminator_updates == discriminator_updates
        }


MACHINE_COLUMNS = frozenset(
    {"torch", "cpu_capability", "threads", "memory_format", "device", "node"}
)
"""Columns of trials.parquet that a trial's `machine` fills: it must not overwrite others."""
NUMBER = (int, float)
RESULT_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "status": str,
    "reason": str,
    "generator_updates": int,
    "discriminator_updates": int,
    "images_seen": int,
    "started_at": NUMBER,
    "seconds": NUMBER,
    "train_seconds": NUMBER,
    "evaluate_seconds": NUMBER,
    "best_at": (int, type(None)),
    "machine": dict,
}
EVENT_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "kind": str,
    "onset": int,
    "detected": int,
    "severity": NUMBER,
    "evidence": dict,
    "ended": (int, type(None)),
}


def check_fields(values: Mapping[str, Any], types: Mapping[str, type | tuple[type, ...]]) -> None:
    """Raise ValueError for a value of another type, or a whole number beyond 64 bits."""
    for key, kind in types.items():
        value = values[key]
        wrong = isinstance(value, bool) or not isinstance(value, kind)
        if wrong or (isinstance(value, int) and abs(value) >= 2**63):
            raise ValueError(f"{key} must not be {str(value)[:50]!r}")


PROBE_SCORE = "probe/frechet_distance"
"""Name of the points that a probe's score is in; lower is better."""
RECOVERY = "recovery"
"""The one kind of event that is no failure."""

POINTS_SCHEMA = pa.schema(
    [
        ("trial_id", pa.string()),
        ("name", pa.string()),
        ("generator_updates", pa.int64()),
        ("discriminator_updates", pa.int64()),
        ("images_seen", pa.int64()),
        ("wall_seconds", pa.float64()),
        ("value", pa.float64()),
    ]
)
EVENTS_SCHEMA = pa.schema(
    [
        ("trial_id", pa.string()),
        ("kind", pa.string()),
        ("onset", pa.int64()),
        ("detected", pa.int64()),
        ("ended", pa.int64()),
        ("severity", pa.float64()),
        ("evidence", pa.string()),
    ]
)
REPORTED_SCHEMA = pa.schema(
    [
        ("arm", pa.string()),
        ("trial_id", pa.string()),
        ("discriminator_updates", pa.int64()),
        ("name", pa.string()),
        ("split", pa.string()),
        ("n_generated", pa.int64()),
        ("n_real", pa.int64()),
        ("value", pa.float64()),
        ("standard_error", pa.float64()),
        ("floor", pa.float64()),
    ]
)
"""Scores of each arm's best generator on the report split: chosen on select, told on report."""

CURVES_SCHEMA = pa.schema(
    [
        ("arm", pa.string()),
        ("trial_id", pa.string()),
        ("name", pa.string()),
        ("line", pa.string()),
        ("x_name", pa.string()),
        ("y_name", pa.string()),
        ("x", pa.float64()),
        ("y", pa.float64()),
    ]
)
"""Lines that belong to scores of those generators: at other thresholds or trade-offs."""

SANITY_SCHEMA = pa.schema(
    [
        ("experiment", pa.string()),
        ("name", pa.string()),
        ("direction", pa.string()),
        ("series", pa.string()),
        ("x", pa.float64()),
        ("repeat", pa.int64()),
        ("n_generated", pa.int64()),
        ("n_real", pa.int64()),
        ("value", pa.float64()),
        ("standard_error", pa.float64()),
    ]
)
"""Scores of real images, spoilt by degrees or few, and of generators by several networks."""

SCHEMAS = {
    POINTS: POINTS_SCHEMA, EVENTS: EVENTS_SCHEMA, REPORTED: REPORTED_SCHEMA,
    CURVES: CURVES_SCHEMA, SANITY: SANITY_SCHEMA,
}  # fmt: skip
"""File -> its columns; those of trials depend on what was swept (`trials_schema`)."""

TRIAL_COLUMNS = [
    ("study", pa.string()),
    ("arm", pa.string()),
    ("trial_id", pa.string()),
    ("config_id", pa.string()),
    ("seed", pa.int64()),
    ("result_hash", pa.string()),
    ("status", pa.string()),
    ("reason", pa.string()),
    ("generator_updates", pa.int64()),
    ("discriminator_updates", pa.int64()),
    ("images_seen", pa.int64()),
    ("best_at", pa.int64()),
    ("started_at", pa.float64()),
    ("seconds", pa.float64()),
    ("train_seconds", pa.float64()),
    ("evaluate_seconds", pa.float64()),
    ("attempts", pa.int64()),
    ("torch", pa.string()),
    ("cpu_capability", pa.string()),
    ("threads", pa.int64()),
    ("memory_format", pa.string()),
    ("device", pa.string()),
    ("node", pa.string()),
    ("config", pa.string()),
    ("samples", pa.string()),
    ("samples_best", pa.string()),
    ("generator_best", pa.string()),
    ("generator_last", pa.string()),
]


REQUIRED_OF_TRIALS = ("arm", "trial_id", "config_id", "status")
REQUIRED = {
    POINTS: ("trial_id", "name", "discriminator_updates"),
    EVENTS: ("trial_id", "kind", "onset", "detected", "severity", "evidence"),
    REPORTED: ("arm", "trial_id", "name"),
    CURVES: ("arm", "trial_id", "name"),
    SANITY: ("experiment", "name", "direction"),
}
"""File -> columns that have a value in every row."""


def trials_schema(rows: Iterable[Mapping[str, Any]]) -> pa.Schema:
    """Return one schema for all arms: the fixed columns, then the union of `param.*`, `last.*`...

    Arms have different parameters; a column is a number where every value is one, else a string.
    """
    fixed = dict(TRIAL_COLUMNS)
    kinds: dict[str, pa.DataType] = {}
    for row in rows:
        for name, value in row.items():
            if name in fixed or value is None:
                continue
            numeric = isinstance(value, int | float) and not isinstance(value, bool)
            if not numeric:
                kinds[name] = pa.string()
            else:
                kinds.setdefault(name, pa.float64())
    extra = sorted(kinds, key=lambda name: (not name.startswith("param."), name))
    return pa.schema([*TRIAL_COLUMNS, *((name, kinds[name]) for name in extra)])


def table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Return `rows` under `schema`; values of string columns that are not text become JSON."""
    arrays = []
    for column in schema:
        values = [row.get(column.name) for row in rows]
        if pa.types.is_string(column.type):
            values = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
        arrays.append(pa.array(values, type=column.type, from_pandas=False))
    return pa.Table.from_arrays(arrays, schema=schema)


def event_row(trial_id: str, event: Event) -> dict[str, Any]:
    """Return an event of a trial as a row of events.parquet."""
    return {"trial_id": trial_id, **asdict(event), "evidence": json.dumps(dict(event.evidence))}


def judgement_hash(rule: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hex, of the rule by which a study's arms are judged.

    Args:
        rule: `primary` (a stored score's name), `minimize`, `k`, `margin`, `checkpoint` and
            `failures`; the order of the keys changes nothing.
    """
    text = json.dumps(rule, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Results(NamedTuple):
    """The tables of one study."""

    trials: pd.DataFrame
    points: pd.DataFrame
    events: pd.DataFrame
    reported: pd.DataFrame
    curves: pd.DataFrame
    sanity: pd.DataFrame


def load_results(folder: str | Path) -> Results:
    """Read a study's folder into pandas frames.

    Args:
        folder: The study's folder (`runs/<name>`), or its URI.

    Returns:
        `Results`; a table that is not there yet is an empty frame.

    Raises:
        DamagedFile: If a table does not fit its checksum.
        FileNotFoundError: If the folder holds no `trials.parquet`.
    """
    folder = location(folder)
    if not (folder / TRIALS).exists():
        raise FileNotFoundError(f"{folder} is not a study's folder: it holds no {TRIALS}")
    frames = [read_table(folder / TRIALS).to_pandas()]
    for name, schema in SCHEMAS.items():
        path = folder / name
        found = read_table(path) if path.exists() else schema.empty_table()
        frames.append(found.to_pandas())
    return Results(*frames)


def read_events(folder: Path) -> pd.DataFrame:
    """Read the table of events of a study's folder; without one it is empty.

    Raises:
        DamagedFile: If the table does not fit its checksum.
    """
    path = folder / EVENTS
    return (read_table(path) if path.exists() else EVENTS_SCHEMA.empty_table()).to_pandas()


def write_table(path: Path, rows: pa.Table) -> None:
    """Write a parquet table with its checksum, all of it or nothing."""
    buffer = pa.BufferOutputStream()
    pq.write_table(rows, buffer)
    write_checked(path, buffer.getvalue().to_pybytes())


def read_table(path: Path) -> pa.Table:
    """Read a parquet table of a study.

    Raises:
        DamagedFile: If the table does not fit its checksum, has none, or is no table of a study.
        FileNotFoundError: If it is not there.
    """
    return parse_study_table(path, read_table_bytes(path))


def parse_study_table(path: Path, content: bytes) -> pa.Table:
    """Decode a table of a study, or a table of trials of any name; see `parse_table`."""
    columns = column_types(path.name)
    required = [name for name in REQUIRED.get(path.name, REQUIRED_OF_TRIALS) if name in columns]
    return parse_table(path, content, columns, required)


def column_types(name: str) -> dict[str, pa.DataType]:
    """Return the types of the columns that the table `name` always has."""
    schema = SCHEMAS.get(name)
    return (
        dict(TRIAL_COLUMNS)
        if schema is None
        else dict(zip(schema.names, schema.types, strict=True))
    )


def read_table_bytes(path: Path, *, required: bool = True) -> bytes:
    """Return all bytes of a parquet file.

    Args:
        path: The file.
        required: Whether a table without a checksum is refused; one that a user brings has none.

    Raises:
        DamagedFile: If the table does not fit its checksum.
        FileNotFoundError: If it is not there.
    """
    content = read_bytes(path)
    if (required or has_checksum(content)) and not is_intact(path.name, content):
        raise DamagedFile(path, table_remedy(path))
    return content


def table_remedy(path: Path) -> str:
    """Return what to do about a damaged table: `resume` writes it from the trials' folders."""
    return (
        f"`ganstudy resume {path.parent}` writes it anew"
        if path.name in (TRIALS, *SCHEMAS)
        else RESTORE
    )
