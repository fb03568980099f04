"""A study's folder: trial folders with attempts, and their compaction into the parquet tables.

One writer per folder. A trial writes only into `trials/<trial_id>/attempt-<n>/`, which its process
began itself (only one process can make its file `begun`), so an orphan of a killed driver harms
nothing. In it `record.json` holds all rows so far and names the files that belong to them; it is
replaced at once, so that rows and state always fit together. The driver alone writes the tables.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import platformdirs
import pyarrow as pa
from filelock import FileLock, Timeout

from ganstudy.checksums import add_checksum
from ganstudy.lease import Lease
from ganstudy.provenance import redact
from ganstudy.records import (
    CURVES,
    CURVES_SCHEMA,
    EVENTS,
    EVENTS_SCHEMA,
    FILE_COLUMNS,
    POINTS,
    POINTS_SCHEMA,
    REPORTED,
    REPORTED_SCHEMA,
    SANITY,
    SANITY_SCHEMA,
    TRIALS,
    Point,
    TrialRecord,
    TrialResult,
    TrialStatus,
    event_row,
    table,
    trials_schema,
    write_table,
)
from ganstudy.storage import (
    DamagedFile,
    Writer,
    create,
    free_name,
    is_remote,
    make_folder,
    modified,
    names_in,
    read_bytes,
    read_checked_text,
    read_json,
    read_lines,
    read_text,
    rename,
    store_errors,
    write_checked,
    write_json,
    write_lines,
    write_text,
    write_together,
)
from ganstudy.study_files import check_plan_row, resolve_inside

BEGUN, RECORD, TRACEBACK = "begun", "record.json", "traceback.txt"
PROGRESS = "progress"
"""In a running attempt: how far it is between two evaluations; nothing reads it for a result."""
FAILURE, STOP = "failed.json", "stopped.json"
"""In a trial's folder: what the driver says of its end."""
FINISHED_BY = "finished_by"
"""In a trial's folder: the name of the attempt that finished first."""
COMPONENTS = "components.json"
UNBEGUN = {
    "trials", "driver.lock", "provenance.json", "tracking.json", "plan.jsonl", COMPONENTS
}  # fmt: skip
"""What a study's folder holds before `study.yaml`."""
ATTEMPT = re.compile(r"attempt-(\d+)")
DAMAGED = "damaged"
"""Suffix of the name of a damaged file or attempt, which is kept and read no more."""
DAMAGED_ATTEMPT = re.compile(rf"attempt-(\d+)\.{DAMAGED}(-\d+)?")
DAMAGE = "damage.txt"
"""In the folder of a damaged attempt: what is wrong with it."""
MALFORMED = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""Errors of reading a file whose content is not what was written."""
NO_MEMORY = re.compile(r"out of memory|MemoryError|allocate memory|Unable to allocate", re.I)
"""What torch, numpy, Python and the kernel say when memory has run out."""
READERS = 16
"""Threads that read from an object store, whose answers take their time."""
Item = TypeVar("Item")
Read = TypeVar("Read")


def cache_folder() -> Path:
    """Return where decoded data and trained weights are kept: $GANSTUDY_CACHE or the user's."""
    chosen = os.environ.get("GANSTUDY_CACHE") or platformdirs.user_cache_dir("ganstudy")
    return Path(chosen).absolute()


def last_line(text: str) -> str:
    """Return the last line of a traceback: the exception with its message."""
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


def reason_of(traceback: str) -> str:
    """Return in one line why something failed; of memory that ran out, whose it was."""
    line = last_line(traceback)
    if not NO_MEMORY.search(line):
        return line
    where = "GPU" if "CUDA" in line or "HIP" in line else "host"
    return f"out of memory ({where}): {line}"


def resume_remedy(study: Path) -> str:
    """Return the remedy for a damaged file of a study that can be made again."""
    return f"`ganstudy resume {study}` repairs it"


class Attempt:
    """One process's try at a trial: the only folder that the process writes."""

    def __init__(self, folder: Path) -> None:
        """Wrap the folder `attempt-<n>`."""
        self.folder = folder

    def save(self, record: TrialRecord, files: Mapping[str, Writer]) -> None:
        """Write `files` (name -> writer), then replace the record that names them, then tidy up.

        Killed at any moment, the attempt holds either the old record with its files or the new.
        """
        write_together(self.folder, files)
        write_checked(self.folder / RECORD, record.to_json().encode())
        kept = {BEGUN, RECORD, TRACEBACK, *record.files.values()}
        if not record.result.status.finished:
            kept.add(PROGRESS)
        for name in set(names_in(self.folder)) - kept:
            (self.folder / name).unlink(missing_ok=True)

    def claim(self) -> bool:
        """Claim, once finished, to be the attempt that counts; whether none had done so before."""
        try:
            name = add_checksum(FINISHED_BY, self.folder.name.encode()).decode()
            create(self.folder.parent / FINISHED_BY, name)
        except FileExistsError:
            return False
        return True

    def drop_earlier(self) -> None:
        """Delete the files of earlier attempts, which this finished one replaces; keep records."""
        number = int(self.folder.name.removeprefix("attempt-"))
        for earlier in TrialFolder(self.folder.parent).attempts():
            if int(earlier.folder.name.removeprefix("attempt-")) < number:
                for name in names_in(earlier.folder):
                    if name.endswith((".pt", ".png")):
                        (earlier.folder / name).unlink(missing_ok=True)

    def note_error(self, traceback: str) -> None:
        """Keep a traceback beside the record."""
        write_text(self.folder / TRACEBACK, redact(traceback))

    def note_progress(self, progress: str) -> None:
        """Show that the attempt goes on; a store that is full or away is no reason to end it."""
        with suppress(*store_errors()):
            write_text(self.folder / PROGRESS, progress)

    def error(self) -> str:
        """Return the traceback of this attempt, empty if it noted none."""
        try:
            # For people: no number comes of it, and a damaged one still says most.
            return read_bytes(self.folder / TRACEBACK).decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def read(self) -> TrialRecord | None:
        """Return the record, or None where nothing was recorded yet.

        Raises:
            DamagedFile: If it does not fit its checksum, or is no record.
        """
        path, remedy = self.folder / RECORD, self.remedy
        try:
            return TrialRecord.from_dict(read_json(path, remedy))
        except FileNotFoundError:
            return None
        except DamagedFile:
            raise
        except MALFORMED as error:
            raise DamagedFile(path, remedy, f"is no record ({error!r:.200})") from None

    def file(self, name: str) -> Path:
        """Return the path of a file that the record names.

        Raises:
            DamagedFile: If a link leads out of the study's folder.
        """
        study = TrialFolder(self.folder.parent).study
        return resolve_inside(study, f"trials/{self.folder.parent.name}/{self.folder.name}/{name}")

    def read_file(self, path: Path, read: Callable[[Path, str], Read]) -> Read:
        """Return what `read` reads from a file that the record names.

        Raises:
            DamagedFile: If the file is missing, or damaged.
        """
        try:
            return read(path, self.remedy)
        except FileNotFoundError:
            raise DamagedFile(path, self.remedy, "is missing") from None

    @property
    def remedy(self) -> str:
        """What to do about a damaged file of this attempt."""
        return f"`ganstudy resume {TrialFolder(self.folder.parent).study}` runs the trial again"

    def set_aside(self, problem: str) -> Path:
        """Keep the attempt under a name that nobody reads, with the reason; return its folder."""
        target = free_name(self.folder, DAMAGED)
        write_text(self.folder / DAMAGE, f"{problem}\n")
        rename(self.folder, target)
        return target


class TrialFolder:
    """All attempts at one trial."""

    def __init__(self, folder: Path) -> None:
        """Wrap `trials/<trial_id>`, which need not exist yet."""
        self.folder = folder

    @property
    def study(self) -> Path:
        """The study's folder."""
        return self.folder.parent.parent

    def attempts(self) -> list[Attempt]:
        """Return the attempts so far, oldest first."""
        numbers = [int(m[1]) for name in names_in(self.folder) if (m := ATTEMPT.fullmatch(name))]
        return [Attempt(self.folder / f"attempt-{n}") for n in sorted(numbers)]

    def latest(self) -> tuple[Attempt, TrialRecord] | None:
        """Return the attempt that counts: the first that finished, else the newest with rows.

        The first that finished, so that an orphan's late end never replaces what was told.
        """
        recorded = [(a, record) for a in self.attempts() if (record := a.read()) is not None]
        finished = [pair for pair in recorded if pair[1].result.status.finished]
        claimed = [pair for pair in finished if pair[0].folder.name == self._finished_by()]
        # A kill between the last record and the claim leaves a finished attempt unclaimed.
        return next(iter(claimed or finished or recorded[-1:]), None)

    def _finished_by(self) -> str:
        try:
            return read_checked_text(self.folder / FINISHED_BY)
        except (FileNotFoundError, DamagedFile):  # it only breaks a tie
            return ""

    def new_attempt(self) -> Attempt:
        """Begin the next attempt; two processes never get the same one."""
        # The number of a damaged attempt stays taken: an orphan may still write there.
        names = names_in(self.folder)
        number = sum(bool(ATTEMPT.fullmatch(n) or DAMAGED_ATTEMPT.fullmatch(n)) for n in names)
        while True:
            number += 1
            folder = self.folder / f"attempt-{number}"
            if any(name.startswith(f"{folder.name}.{DAMAGED}") for name in names):
                continue
            try:
                create(folder / BEGUN, "")
            except FileExistsError:
                continue
            return Attempt(folder)

    def latest_whole(self) -> tuple[Attempt, TrialRecord] | None:
        """Return `latest` after setting aside the attempts whose records are damaged."""
        while True:
            try:
                return self.latest()
            except DamagedFile as damage:
                if self.set_aside(damage) is None:
                    raise

    def damages(self) -> dict[str, str]:
        """Return the damaged attempts: name of the folder that keeps it -> what is damaged."""
        names = [name for name in names_in(self.folder) if DAMAGED_ATTEMPT.fullmatch(name)]
        return {name: self._damage(name) for name in sorted(names)}

    def _damage(self, name: str) -> str:
        try:
            return read_text(self.folder / name / DAMAGE).strip()
        except (FileNotFoundError, ValueError):
            return "damaged"

    def set_aside(self, damage: DamagedFile) -> Path | None:
        """Set aside the attempt that holds a damaged file, so that the trial is tried again.

        Returns:
            The folder that keeps the attempt, None if the file is in none of the attempts.
        """
        for attempt in self.attempts():
            if str(damage.path).startswith(f"{attempt.folder}/"):
                return attempt.set_aside(str(damage))
        return None

    def fail(self, otherwise: str) -> str:
        """Note, as the driver, that the trial failed for good; its rows so far stay.

        Returns:
            The reason: what the newest attempt's traceback says, else `otherwise`.
        """
        details = self.error()
        reason = reason_of(details) or redact(otherwise)
        self._note(FAILURE, {"reason": reason, "details": details})
        return reason

    def stop(self, rule: str) -> None:
        """Note, as the driver, that a scheduler stopped the trial at its last evaluation."""
        self._note(STOP, {"reason": rule})

    def _note(self, name: str, content: Mapping[str, str]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / name, content)

    def error(self) -> str:
        """Return the traceback of the newest attempt, empty if its process noted none."""
        attempts = self.attempts()
        return attempts[-1].error() if attempts else ""

    def set_note_aside(self, name: str) -> Path:
        """Keep a damaged note of the driver under a name that nobody reads; return the path."""
        target = free_name(self.folder / name, DAMAGED)
        rename(self.folder / name, target)
        return target

    def progress(self) -> str:
        """Return what changes while the trial goes on: its newest attempt and how far that is."""
        attempts = self.attempts()
        if not attempts:
            return ""
        newest = attempts[-1].folder
        try:
            return f"{newest.name} {read_text(newest / PROGRESS)}"
        except FileNotFoundError:
            return newest.name

    def last_written(self) -> float | None:
        """Return when the newest attempt last wrote, in seconds since the epoch; None if never."""
        times = []
        for attempt in self.attempts()[-1:]:
            for name in (BEGUN, PROGRESS, RECORD):
                with suppress(*store_errors()):
                    times.append(modified(attempt.folder / name))
        return max(times, default=None)

    def forgive(self) -> None:
        """Forget that the trial failed, so that it is tried again."""
        (self.folder / FAILURE).unlink(missing_ok=True)

    def read_reason(self, name: str) -> str | None:
        """Return the reason that the driver gave for the trial's end, or None."""
        try:
            return str(read_json(self.folder / name)["reason"])
        except FileNotFoundError:
            return None
        except (KeyError, DamagedFile):
            raise DamagedFile(self.folder / name, resume_remedy(self.study)) from None

    def standing(self, result: TrialResult, running: bool) -> tuple[TrialStatus, str]:
        """Return how the trial stands, and why.

        Args:
            result: What its latest attempt recorded.
            running: Whether a trial that has begun is running (else it was interrupted).
        """
        if result.status.finished:
            return result.status, result.reason
        if (failure := self.read_reason(FAILURE)) is not None:
            return TrialStatus.FAILED, failure
        if (rule := self.read_reason(STOP)) is not None:
            return TrialStatus.STOPPED, rule
        if result.status is TrialStatus.RUNNING and not running:
            return TrialStatus.INTERRUPTED, result.reason
        return result.status, result.reason

    def finished(self) -> bool:
        """Whether a resume leaves this trial alone."""
        latest = self.latest()
        result = latest[1].result if latest is not None else TrialResult(TrialStatus.PENDING)
        return self.standing(result, running=True)[0].finished


class Collected(NamedTuple):
    """What the trial folders hold, as rows of trials and events and columns of points."""

    trials: list[dict[str, Any]]
    points: dict[str, list[Any]]
    events: list[dict[str, Any]]


class StudyFolder:
    """The folder of one study, seen by its driver and by its readers."""

    def __init__(self, folder: Path) -> None:
        """Wrap `runs/<name>`, which need not exist yet."""
        self.folder = folder
        self._locked = False
        self._lock: FileLock | Lease
        if is_remote(folder):
            self._lock = Lease(folder / "driver.lock")
        else:
            # A second, since `status` takes the lock for a moment to see whether it is free.
            self._lock = FileLock(folder / "driver.lock", timeout=1)

    def create(self) -> None:
        """Make the folder and prove that it can be written.

        What a kill left of a study that had not begun, `study.yaml` being written last, is taken
        over.

        Raises:
            FileExistsError: If it is there already and holds anything else.
            OSError: If it cannot be made or written.
        """
        found = {name for name in names_in(self.folder) if not name.startswith(".")}
        if found - UNBEGUN or (not found and self.folder.is_dir()):
            raise FileExistsError(self.folder)
        if found:
            self.lock()  # it may be about to begin
        for name in found - {"trials", "driver.lock"}:
            (self.folder / name).unlink()
        make_folder(self.folder / "trials")

    def lock(self) -> None:
        """Become the study's only driver until the process ends; once is enough.

        Raises:
            BlockingIOError: If another process drives the study.
        """
        if self._locked:
            return
        try:
            self._lock.acquire()
            self._locked = True
        except Timeout:
            raise BlockingIOError(f"another process is running the study {self.folder}") from None

    @property
    def locked(self) -> bool:
        """Whether this object keeps other drivers out."""
        return self._locked

    def unlock(self) -> None:
        """Let others drive."""
        if self._locked:
            self._lock.release()
            self._locked = False

    def driven(self) -> bool:
        """Whether some process drives the study now."""
        if isinstance(self._lock, Lease):
            return self._lock.held()
        if not (self.folder / "driver.lock").exists():
            return False
        probe = FileLock(self.folder / "driver.lock", timeout=0)
        try:
            with probe:
                return False
        except Timeout:
            return True
        except OSError:  # a read-only folder has no driver
            return False

    def trial(self, trial_id: str) -> TrialFolder:
        """Return the folder of one trial."""
        return TrialFolder(self.folder / "trials" / trial_id)

    def unfinished(self, trial_ids: Sequence[str]) -> list[str]:
        """Return those of the trials that a resume has to run, in their order."""
        begun = set(names_in(self.folder / "trials"))
        done = self._each(lambda t: t in begun and self.trial(t).finished(), trial_ids)
        return [t for t, finished in zip(trial_ids, done, strict=True) if not finished]

    def _each(self, read: Callable[[Item], Read], items: Iterable[Item]) -> list[Read]:
        """Return what is read of each item; from an object store many at a time."""
        if not is_remote(self.folder):
            return [read(item) for item in items]
        with ThreadPoolExecutor(READERS) as readers:
            return list(readers.map(read, items))

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write one JSON file of the study with its checksum, all of it or nothing."""
        write_json(self.folder / name, content)

    def read_json(self, name: str) -> dict[str, Any]:
        """Read one JSON file of the study.

        Raises:
            DamagedFile: If it does not fit its checksum, or has none.
            FileNotFoundError: If it is not there.
        """
        return read_json(self.folder / name, resume_remedy(self.folder))

    def write_plan(self, plan: Iterable[Mapping[str, Any]]) -> None:
        """Write who the trials are, one JSON line each, in the order of the plan."""
        write_lines(self.folder / "plan.jsonl", plan)

    def append_plan(self, identities: Iterable[Mapping[str, Any]]) -> None:
        """Add trials to the plan: an adaptive search does not know its trials beforehand."""
        # Written anew as a whole: an object store cannot append, and a kill leaves no half line.
        path = self.folder / "plan.jsonl"
        added = "".join(json.dumps(row, sort_keys=True) + "\n" for row in identities)
        write_checked(path, (read_checked_text(path) + added).encode())

    def read_plan(self) -> list[dict[str, Any]]:
        """Return who the trials are, in the order of the plan.

        Raises:
            DamagedFile: If the plan is missing, does not fit its checksum, or has none, or if a
                line is no trial of a plan.
        """
        path, remedy = self.folder / "plan.jsonl", resume_remedy(self.folder)
        try:
            return [check_plan_row(row) for row in read_lines(path, remedy)]
        except FileNotFoundError:
            raise DamagedFile(path, remedy, "is missing") from None
        except DamagedFile:
            raise
        except MALFORMED as error:
            raise DamagedFile(path, remedy, f"holds no trial ({error!r:.200})") from None

    def damages(self) -> dict[Path, str]:
        """Return the damaged attempts of all trials: folder that keeps it -> what is damaged."""
        trials = names_in(self.folder / "trials")
        found = self._each(lambda trial: self.trial(trial).damages(), trials)
        return {
            self.trial(trial).folder / name: damage
            for trial, damages in zip(trials, found, strict=True)
            for name, damage in damages.items()
        }

    def set_attempt_aside(self, damage: DamagedFile) -> Path | None:
        """Set aside the attempt that holds a damaged file; None if no attempt holds it."""
        prefix = f"{self.folder / 'trials'}/"
        if not str(damage.path).startswith(prefix):
            return None
        trial_id = str(damage.path).removeprefix(prefix).partition("/")[0]
        return self.trial(trial_id).set_aside(damage)

    def set_aside(self, name: str) -> Path:
        """Keep a damaged file under a name that nobody reads; return where it lies now."""
        target = free_name(self.folder / name, DAMAGED)
        rename(self.folder / name, target)
        return target

    def write_table(self, name: str, rows: pa.Table) -> None:
        """Write one parquet table with its checksum, all of it or nothing."""
        write_table(self.folder / name, rows)

    def write_reported(self, scores: list[dict[str, Any]], curves: list[dict[str, Any]]) -> None:
        """Write scores and curves of the arms' best generators on the report split."""
        self.write_table(REPORTED, table(scores, REPORTED_SCHEMA))
        self.write_table(CURVES, table(curves, CURVES_SCHEMA))

    def write_sanity(self, rows: list[dict[str, Any]]) -> None:
        """Write what the study's scores say of spoilt images and of its generators."""
        self.write_table(SANITY, table(rows, SANITY_SCHEMA))

    def trial_rows(self, running: bool = False) -> list[dict[str, Any]]:
        """Return the rows of trials.parquet as the trial folders stand.

        Args:
            running: Whether trials that have begun are running (else they were interrupted).
        """
        return self._collect(running).trials

    def compact(self, running: bool = False) -> list[dict[str, Any]]:
        """Write the three tables from the trial folders; return the rows of trials.parquet."""
        found = self._collect(running)
        self.write_table(POINTS, pa.table(found.points, schema=POINTS_SCHEMA))
        self.write_table(EVENTS, table(found.events, EVENTS_SCHEMA))
        self.write_table(TRIALS, table(found.trials, trials_schema(found.trials)))
        return found.trials

    def _collect(self, running: bool) -> Collected:
        """Read every trial folder."""
        found = Collected([], {name: [] for name in POINTS_SCHEMA.names}, [])
        begun = set(names_in(self.folder / "trials"))

        def read(identity: Mapping[str, Any]) -> tuple[dict[str, Any], TrialRecord]:
            folder = self.trial(identity["trial_id"])
            latest = folder.latest() if identity["trial_id"] in begun else None
            record = latest[1] if latest else TrialRecord(TrialResult(TrialStatus.PENDING))
            return self._trial_row(identity, folder, latest, running), record

        for row, record in self._each(read, self.read_plan()):
            trial_id = row["trial_id"]
            found.trials.append(row)
            found.points["trial_id"] += [trial_id] * len(record.points)
            columns = zip(*record.points, strict=True)
            for name, column in zip(Point._fields, columns, strict=False):
                found.points[name].extend(column)
            found.events.extend(event_row(trial_id, event) for event in record.events)
        return found

    def _trial_row(
        self,
        identity: Mapping[str, Any],
        folder: TrialFolder,
        latest: tuple[Attempt, TrialRecord] | None,
        running: bool,
    ) -> dict[str, Any]:
        """Return one row of trials.parquet."""
        attempt, record = latest or (None, TrialRecord(TrialResult(TrialStatus.PENDING)))
        result = record.result
        row = {k: v for k, v in identity.items() if k != "params"}
        row |= {f"param.{key}": value for key, value in identity["params"].items()}
        row |= {k: v for k, v in asdict(result).items() if k != "machine"} | dict(result.machine)
        row["attempts"] = len(folder.attempts())
        row["status"], row["reason"] = folder.standing(result, running)
        if record.points:
            last = record.values_at(result.discriminator_updates)
            row |= {f"last.{name}": value for name, value in last.items()}
            best = record.values_at(result.best_at)
            row |= {f"best.{name}": value for name, value in best.items()}
        if attempt is not None:
            for role, name in record.files.items():
                if role in FILE_COLUMNS:
                    row[role] = str((attempt.folder / name).relative_to(self.folder))
        return row
