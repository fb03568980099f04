"""Logs of other systems as points: long CSV with the columns run, step, signal, value."""

from __future__ import annotations

import csv
import gzip
import io
import math
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple, cast

from ganstudy.measure.events import DETECTORS, EventsConfig, names, replay
from ganstudy.measure.events.gradients import RUNAWAY
from ganstudy.records import Event, Point
from ganstudy.registry import StudyError

COLUMNS = ("run", "step", "signal", "value")
GZIP = b"\x1f\x8b"
"""How a file compressed by gzip begins."""
STANDARD_INPUT = Path("-")


@dataclass
class Traces:
    """What a file of traces holds.

    Attributes:
        runs: Run -> (step, signal) -> value. Of values given twice, by a run that was resumed say,
            the later one; but one that is not finite stays.
        empty: Rows without a value: nothing was logged there.
        repeated: Values that were given again.
    """

    runs: dict[str, dict[tuple[int, str], float]] = field(default_factory=dict)
    empty: int = 0
    repeated: int = 0

    @property
    def values(self) -> int:
        """How many values there are."""
        return sum(len(values) for values in self.runs.values())

    @property
    def unread(self) -> list[str]:
        """Signals of which no detector reads more than whether they are finite, sorted."""
        found = {signal for values in self.runs.values() for _, signal in values}
        return sorted(name for name in found if not is_read(name))

    def notes(self) -> list[str]:
        """Return what a user should know of what was read."""
        told = [f"{len(self.runs)} runs, {self.values} values"]
        if self.unread:
            listed = ", ".join(self.unread)
            told.append(f"no detector reads {listed} (but whether their values are finite)")
        if self.empty:
            told.append(f"{self.empty} rows have no value: nothing was logged there")
        if self.repeated:
            told.append(f"{self.repeated} values stand again at their step: the last one counts")
        return told


class RunEvent(NamedTuple):
    """One event of one run: what `ganstudy events --traces` prints."""

    run: str
    kind: str
    onset: int
    detected: int
    ended: int | None
    severity: float


def is_read(signal: str) -> bool:
    """Whether a detector reads this signal for more than being finite."""
    reading = (DETECTORS.get(kind).reads for kind in DETECTORS.names())
    return signal in (*RUNAWAY, *names.SCORES) or any(signal.startswith(r) for r in reading if r)


def read_traces(path: Path) -> Traces:
    """Read a CSV file, compressed by gzip or not; `-` is standard input.

    Raises:
        StudyError: With file, line and rule, for what is no such file.
    """
    try:
        # Standard input stays open.
        opened = nullcontext(sys.stdin.buffer) if path == STANDARD_INPUT else path.open("rb")
        with opened as file:
            return _read(unpacked(file))
    except StudyError as error:
        raise StudyError(f"{path}, {error.path}", error.rule) from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise StudyError(str(path), f"cannot be read: {reason}") from None


def unpacked(file: IO[bytes]) -> IO[bytes]:
    """Return what reads `file`, which gzip may have compressed."""
    buffered = cast(io.BufferedReader, file)
    packed = buffered.peek(len(GZIP)).startswith(GZIP)
    return cast(IO[bytes], gzip.open(buffered)) if packed else buffered


def _read(file: IO[bytes]) -> Traces:
    traces = Traces()
    # Line by line, so that an error's line is known. Spreadsheets begin a file with a mark.
    lines = (line.decode("utf-8").removeprefix("\ufeff") for line in file)
    reader = csv.DictReader(lines, strict=True)
    try:
        _check_header(reader.fieldnames or ())
        for row in reader:
            _add(traces, row)
    except StudyError as error:
        raise error.under(f"line {max(1, reader.line_num)}") from None
    except UnicodeDecodeError:
        raise StudyError(f"line {reader.line_num + 1}", "must be UTF-8 text") from None
    except csv.Error as error:
        raise StudyError(f"after line {reader.line_num}", f"must be CSV: {error}") from None
    return traces


def _check_header(columns: Sequence[str]) -> None:
    for name in COLUMNS:
        if name not in columns:
            got = ",".join(columns) or "an empty file"
            raise StudyError("", f"needs the columns {','.join(COLUMNS)}, got {got}")


def _add(traces: Traces, row: Mapping[str | None, str | None]) -> None:
    """Take one row, checked."""
    if None in row or None in row.values():
        raise StudyError("", "must have as many cells as the header has columns")
    run, step, signal, value = (str(row[name]).strip() for name in COLUMNS)
    number = as_number(step)
    if number is None or not number.is_integer() or number < 0:
        raise StudyError("", f"step must be a whole number from 0 on, got {step!r}")
    if not value:
        traces.empty += 1
        return
    reading = as_number(value)
    if reading is None:
        rule = "value must be a number, nan or inf included, or empty where nothing was logged"
        raise StudyError("", f"{rule}, got {value!r}")
    values, key = traces.runs.setdefault(run, {}), (int(number), signal)
    traces.repeated += key in values
    if math.isfinite(values.get(key, 0.0)):
        values[key] = reading


def as_number(text: str) -> float | None:
    """Return the number that `text` is, None if it is none."""
    try:
        return float(text)
    except ValueError:
        return None


def points(values: Mapping[tuple[int, str], float]) -> list[Point]:
    """Return a run's values as points: by step, and the score last, which closes an evaluation.

    By name within a step, so that the order of the file's rows says nothing.
    """

    def order(key: tuple[int, str]) -> tuple[int, bool, str]:
        step, signal = key
        return step, signal in names.SCORES, signal

    return [
        Point(signal, step, step, 0, math.nan, values[step, signal])
        for step, signal in sorted(values, key=order)
    ]


def run_events(traces: Traces, config: EventsConfig) -> Iterator[RunEvent]:
    """Yield the events of every run, in the order of the file's runs and of detection."""
    for run, values in traces.runs.items():
        for event in replay(points(values), config.detectors):
            yield _row(run, event)


def _row(run: str, event: Event) -> RunEvent:
    return RunEvent(run, event.kind, event.onset, event.detected, event.ended, event.severity)
