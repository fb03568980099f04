"""Tables -> MLflow: an idempotent projection, and the only importer of mlflow.

The tables are the record; MLflow is a view of them. `sync` may be called at any time and any
number of times: runs are found again by tag, timestamps come from the tables, and only points
beyond the last one synced are sent, so after an outage or a kill it catches up, nothing doubled.

A study's runs carry its random id, so that moving or renaming the study changes nothing. A store
in a file is created whole or not at all; one that is damaged is moved aside and written anew.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ganstudy.checksums import DamagedFile
from ganstudy.provenance import read_study_id
from ganstudy.records import EVENTS, POINTS, TRIALS, TrialStatus, table_remedy
from ganstudy.storage import is_remote, local_copy, name_of, open_checked_table
from ganstudy.study_files import read_png, resolve_inside
from ganstudy.tracking_store import (
    FOLDER_TAG,
    OWN_STORE,
    SQLITE,
    artifacts_folder,
    copy_database,
    find_corruption,
    is_corruption,
    is_mlflows,
    lock_store,
    move_aside,
    publish,
    read_revision,
    relocate,
    remove_unfinished,
    store_path,
)

ENVIRONMENT = {
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # A server that is away must not hold up the study: the next sync tries again.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "GIT_PYTHON_REFRESH": "quiet",
}
ID_TAG, TRIAL_TAG, SYNCED_TAG = "ganstudy.study_id", "ganstudy.trial_id", "ganstudy.synced_to"
BEGUN_TAG = "ganstudy.begun"
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Without it MLflow opens an experiment on pages for language-model traces."""
RUN_STATUS = {
    TrialStatus.COMPLETED: "FINISHED",
    TrialStatus.DIVERGED: "FINISHED",
    TrialStatus.STOPPED: "FINISHED",
    TrialStatus.FAILED: "FAILED",
    TrialStatus.INTERRUPTED: "KILLED",
}
ARTIFACTS = ("samples", "samples_best")
BATCH = 800
"""Metrics a call; with parameters and tags it may hold 1,000 things."""
PAGE = 500
"""Runs a search."""
FIRST_REQUEST_SECONDS = "3"
RunKey = tuple[str, str]
"""A trial's id and its result_hash: copies of one study may have gone on differently."""
Tell = Callable[[str, str], None]
"""Takes a kind of message and its text: a "note" for a person, or the "store" that is "opening"
or "open"."""


def load() -> None:
    """Import mlflow quietly, which takes seconds; to be called in the main thread first.

    Imported in two threads at once (Ray looks for it too), it ends half initialised.
    """
    os.environ.update(ENVIRONMENT)
    import mlflow.tracking  # noqa: F401

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def default_uri(runs: Path) -> str:
    """Return the tracking URI of the store that all studies of a runs folder share."""
    return f"{SQLITE}{runs.resolve() / OWN_STORE}"


@dataclass
class Tracked:
    """What MLflow holds of one trial."""

    run_id: str
    artifacts: str
    """URI of the run's artifacts."""
    begun: bool = False
    """Whether parameters and config are there: an outage may have cut the beginning short."""
    synced: int = -1
    """Discriminator updates of the last row that was sent."""
    status: str = ""
    ended: bool = False

    @classmethod
    def of(cls, run: Any) -> Tracked:
        """Read what a run's tags and info say."""
        tags = run.data.tags
        return cls(
            run.info.run_id,
            run.info.artifact_uri,
            BEGUN_TAG in tags,
            int(tags.get(SYNCED_TAG, "-1")),
            tags.get("status", ""),
            run.info.status != "RUNNING",
        )


class StoreError(OSError):
    """A store in a file that is not ours to repair; the message holds file and remedy."""


@contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Raise what MLflow and its database raise as a StoreError of one line."""
    load()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error) as error:
        first = (str(error).splitlines() or [""])[0]
        raise StoreError(f"{uri}: {type(error).__name__}: {first}") from error


def open_store(path: Path, runs: Path | None, tell: Tell) -> None:
    """Make sure that the file at `path` is a whole store of this MLflow.

    A store that is missing is created under another name and renamed. One of an older MLflow is
    upgraded likewise. One that cannot be used is moved aside.

    Args:
        path: The file.
        runs: The runs folder. What lies in it is ganstudy's; a damaged file elsewhere is moved
            only if it is MLflow's.
        tell: Takes what a person should know.

    Raises:
        StoreError: If the file is another program's, or of a newer MLflow.
        OSError: If the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tell("store", "opening")
    try:
        with lock_store(path):
            _disconnect(path)
            unfinished = remove_unfinished(path)
            if path.exists() and path.stat().st_size > 0:
                _check_or_move(path, unfinished, runs, tell)
            if not path.exists() or path.stat().st_size == 0:
                _migrate(unfinished)
                publish(unfinished, path)
            relocate(path)
    finally:
        tell("store", "open")


def _check_or_move(path: Path, unfinished: Path, runs: Path | None, tell: Tell) -> None:
    """Leave a whole store at `path`, or nothing."""
    from mlflow.store.db.utils import _get_latest_schema_revision

    damage = find_corruption(path)
    if not damage and read_revision(path) == _get_latest_schema_revision():
        damage = _missing_tables(path)
        if not damage:
            return
    elif not damage and (path.parent == runs or is_mlflows(path)):
        copy_database(path, unfinished)
        damage = _upgrade(path, unfinished)
        if not damage:
            kept = move_aside(path)
            publish(unfinished, path)
            tell("note", f"{path} was upgraded to this MLflow; the old one is {kept}")
            return
        remove_unfinished(path)
    if path.parent != runs and not is_mlflows(path):
        raise StoreError(
            f"{path} is no store of MLflow's ({damage or 'another database'}) and stays as it is: "
            f"name another file by --tracking-uri, or move it away"
        )
    kept = move_aside(path)
    tell("note", f"{path} could not be used ({damage}) and was moved to {kept}; this study is "
                 f"written anew from its tables, another one by `ganstudy resume DIR` or "
                 f"`ganstudy ui DIR`")  # fmt: skip


def _missing_tables(path: Path) -> str:
    """Return why a store of the newest schema is not whole, empty if it is."""
    import sqlalchemy
    from mlflow.store.db.utils import _all_tables_exist

    engine = sqlalchemy.create_engine(f"{SQLITE}{path}", poolclass=sqlalchemy.NullPool)
    return "" if _all_tables_exist(engine) else "tables are missing"


def _upgrade(path: Path, copy: Path) -> str:
    """Bring the copy of a store to this MLflow's schema; return why that fails, empty if not.

    Raises:
        StoreError: If a newer MLflow wrote the store.
        sqlalchemy.exc.OperationalError: If the disk is full or cannot be written.
    """
    from alembic.util import CommandError
    from sqlalchemy.exc import OperationalError

    try:
        _migrate(copy)
    except CommandError as error:
        raise StoreError(
            f"{path} was written by another version of MLflow ({error}): install that one, or "
            f"move the file away and `ganstudy resume DIR`"
        ) from None
    except OperationalError as error:
        if not is_corruption(error.orig):  # type: ignore[arg-type]
            raise
        return f"its migration was cut short: {error.orig}"
    except OSError:
        raise
    except Exception as error:  # whatever a migration raises on tables that it left half made
        return f"its migration was cut short: {type(error).__name__}"
    return ""


def _migrate(path: Path) -> None:
    """Run all of MLflow's migrations on the file at `path` and close it."""
    import sqlalchemy
    from mlflow.store.db.utils import _initialize_tables
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    uri = f"{SQLITE}{path}"
    try:
        _initialize_tables(sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool))
        # Where a server would put artifacts of its own; studies have places of theirs.
        SqlAlchemyStore(uri, "mlflow-artifacts:/")
    finally:
        _disconnect(path)  # SQLite must not have the file open when it is renamed


def _disconnect(path: Path) -> None:
    """Close this process's connections to a file, which another one may replace."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for uri, engine in list(getattr(SqlAlchemyStore, "_engine_map", {}).items()):
        if store_path(uri) == path:
            engine.dispose()


class Tracker:
    """Projects one study's tables to MLflow.

    A trial of which nothing is new costs nothing; one that ended since the last sync costs three
    calls (create the run, log all its rows, end it) and its files.
    """

    def __init__(self, folder: Path, uri: str, tell: Tell = lambda kind, text: None) -> None:
        """Project the study in `folder` to the store at `uri`."""
        self.folder, self.uri, self.tell = folder, uri, tell
        self.study_id = read_study_id(folder)
        self._client: Any = None
        self._experiment = ""
        self._parent = Tracked("", "")
        self._runs: dict[RunKey, Tracked] = {}

    def sync(self, running: bool) -> None:
        """Bring MLflow up to what the tables hold.

        Args:
            running: Whether the study goes on; if not, its parent run is ended.

        Raises:
            Exception: Whatever MLflow raises; the caller says so and goes on.
        """
        trials = self._table(TRIALS)
        if trials.empty:  # an adaptive search that has not begun
            return
        if self._client is None:
            self._client = self._connect(str(trials["study"].iloc[0]))
            self._client.update_run(self._parent.run_id, status="RUNNING")
        rows: list[Any] = self._stale(trials, running).to_dict("records")
        ids = [row["trial_id"] for row in rows]
        points, events = self._rows(POINTS, ids), self._rows(EVENTS, ids)
        for row in rows:
            trial_id = row["trial_id"]
            self._sync_trial(row, points.get(trial_id), events.get(trial_id), running)
        if not running:
            done = trials["status"].map(lambda s: TrialStatus(s).finished).all()
            try:
                self._attach_study()
            finally:
                self._client.set_terminated(self._parent.run_id, "FINISHED" if done else "KILLED")

    def catch_up(self) -> str:
        """Bring MLflow up to the tables of a study that nobody drives, if it lacks anything.

        Returns:
            The part of the web address that opens the study's experiment.

        Raises:
            LookupError: If the study has no trials yet.
            StoreError: If the store cannot be used, in one line.
        """
        trials = self._table(TRIALS)
        if trials.empty:
            raise LookupError(f"nothing of {self.folder} is recorded yet")
        with store_errors(self.uri):
            self._client = self._connect(str(trials["study"].iloc[0]))
            if not self._parent.ended or not self._stale(trials, running=False).empty:
                self.sync(running=False)
        return self._page()

    def experiment_url(self) -> str:
        """Return the part of the web address that opens this study's experiment.

        Raises:
            LookupError: If the study is not tracked yet.
            StoreError: If the store cannot be used, in one line.
        """
        trials = self._table(TRIALS)
        with store_errors(self.uri):
            client = self._open()
            experiments = self._experiments(client, str(next(iter(trials["study"]), "")))
            run = next(self._found(client, experiments), None)
        if run is not None:
            self._experiment = run.info.experiment_id
            return self._page()
        raise LookupError(f"nothing of {self.folder} is tracked yet")

    def _page(self) -> str:
        return f"/#/experiments/{self._experiment}/runs"

    def _table(self, name: str, trial_ids: Sequence[str] | None = None) -> pd.DataFrame:
        """Read a table, or its rows of some trials only."""
        chosen = None if trial_ids is None else pc.field("trial_id").isin(trial_ids)
        path = self.folder / name
        with open_checked_table(path, table_remedy(path)) as file:
            return pq.read_table(file, filters=chosen).to_pandas()

    def _rows(self, name: str, trial_ids: Sequence[str]) -> dict[str, pd.DataFrame]:
        """Return the rows of each of some trials, grouped once for all of them."""
        if not trial_ids:
            return {}
        grouped = self._table(name, trial_ids).groupby("trial_id", sort=False)
        return {str(trial_id): own for trial_id, own in grouped}

    def _stale(self, trials: pd.DataFrame, running: bool) -> pd.DataFrame:
        """Return the trials of which the tables hold more than MLflow does."""
        keys = zip(trials["trial_id"], trials["result_hash"], strict=True)
        standing = zip(keys, trials["status"], trials["discriminator_updates"], strict=True)
        return trials[[self._is_stale(*trial, running) for trial in standing]]

    def _is_stale(self, key: RunKey, status: str, at: int, running: bool) -> bool:
        """Whether the tables hold more of a trial than MLflow does."""
        if status == TrialStatus.PENDING:
            return False
        run = self._runs.get(key)
        if run is None or not run.begun:
            return True
        over = TrialStatus(status).finished or not running
        return run.status != status or run.synced < at or run.ended != over

    def _open(self) -> Any:
        """Return a client of the store, which is created or repaired if it is a file."""
        load()
        from mlflow.tracking import MlflowClient

        if path := store_path(self.uri):
            open_store(path, self._runs_folder(), self.tell)
        return MlflowClient(tracking_uri=self.uri)

    def _runs_folder(self) -> Path | None:
        return None if is_remote(self.folder) else self.folder.resolve().parent

    def _connect(self, study: str) -> Any:
        """Return a client, having found or made experiment and parent run."""
        client = self._open()
        with first_request():
            experiments = self._experiments(client, study)
        runs: dict[RunKey | None, Any] = {}  # the study's own run has no trial
        for found in self._found(client, experiments):
            key = key_of(found)
            kept = runs.setdefault(key, found)
            if kept is not found:  # a server that hung may have made one twice
                spare, runs[key] = sorted((kept, found), key=progress)
                client.delete_run(spare.info.run_id)
        parent = runs.pop(None, None)
        known = parent or next(iter(runs.values()), None)
        self._experiment = (
            known.info.experiment_id if known else self._make_experiment(client, study)
        )
        self._mark(client, [*filter(None, [parent]), *runs.values()])
        self._parent = (
            Tracked.of(parent) if parent else self._new_run(client, self.folder.name, {}, None)
        )
        self._runs = {key: Tracked.of(run) for key, run in runs.items() if key is not None}
        return client

    def _experiments(self, client: Any, study: str) -> list[str]:
        """Return the ids of the experiments that may hold the study, the likeliest first.

        A study whose `study:` was changed, and an experiment that was renamed in MLflow, are
        found by the id of the study.
        """
        named = client.get_experiment_by_name(study)
        likely = [named.experiment_id] if named else []
        others, token = [], None
        while True:
            page = client.search_experiments(max_results=PAGE, page_token=token)
            others += [e.experiment_id for e in page if e.experiment_id not in likely]
            token = page.token
            if not token:
                return likely + others

    def _make_experiment(self, client: Any, study: str) -> str:
        """Return the id of the study's experiment, which is made if it is not there."""
        found = client.get_experiment_by_name(study)
        if found is not None:
            return str(found.experiment_id)
        path = store_path(self.uri)
        artifacts = (artifacts_folder(path) / study).as_uri() if path else None
        made = client.create_experiment(study, artifact_location=artifacts, tags=EXPERIMENT_TAGS)
        return str(made)

    def _found(self, client: Any, experiments: Sequence[str]) -> Iterator[Any]:
        """Yield the study's runs: by its id, and those without any by their folder."""
        if self.study_id:
            yield from _search(client, experiments, f"tags.`{ID_TAG}` = '{self.study_id}'")
        # MLflow knows no escape; a value may stand in either kind of quotes.
        folder = name_of(self.folder)
        quote = '"' if "'" in folder else "'"
        chosen = f"tags.`{FOLDER_TAG}` = {quote}{folder}{quote}"
        for run in _search(client, experiments, chosen):
            if ID_TAG not in run.data.tags:
                yield run

    def _mark(self, client: Any, runs: Sequence[Any]) -> None:
        """Let runs that were found say which study they belong to and where it lies now."""
        for run in runs:
            for tag, value in self._own_tags().items():
                if run.data.tags.get(tag) != value:
                    client.set_tag(run.info.run_id, tag, value)
            if TRIAL_TAG not in run.data.tags and run.info.run_name != self.folder.name:
                client.update_run(run.info.run_id, name=self.folder.name)

    def _own_tags(self) -> dict[str, str]:
        known = {ID_TAG: self.study_id} if self.study_id else {}
        return known | {FOLDER_TAG: name_of(self.folder)}

    def _new_run(
        self, client: Any, name: str, tags: Mapping[str, str], started: float | None
    ) -> Tracked:
        own = {
            **self._own_tags(),
            "mlflow.user": os.environ.get("USER", "ganstudy"),
            "mlflow.source.name": "ganstudy",
            **tags,
        }
        milliseconds = None if started is None else int(started * 1000)
        return Tracked.of(client.create_run(self._experiment, milliseconds, own, run_name=name))

    def _sync_trial(
        self,
        row: Mapping[str, Any],
        points: pd.DataFrame | None,
        events: pd.DataFrame | None,
        running: bool,
    ) -> None:
        """Send what is new of one trial, and end its run if the trial has ended.

        Killed in between, the same is sent again, and MLflow keeps one of two equal points.
        """
        run = self._runs.get((row["trial_id"], row["result_hash"])) or self._begin(row)
        status = TrialStatus(row["status"])
        tags = {"status": str(status), "reason": str(row["reason"] or "")}
        # An orphan may have been further than the attempt that goes on.
        synced = max(run.synced, row["discriminator_updates"])
        tags |= {SYNCED_TAG: str(synced), BEGUN_TAG: "true"}
        if events is not None:
            onsets = zip(events["kind"], events["onset"], strict=True)
            tags |= {f"event.{kind}": str(onset) for kind, onset in onsets}
        metrics = new_points(row, points, run.synced)
        params: dict[str, str] = {}
        if not run.begun:
            self._upload(run, row["config"])
            params, numbers = parameters(row)
            metrics = numbers + metrics
        self._log(run.run_id, metrics, params, tags)
        run.begun, run.synced, run.status = True, synced, str(status)
        if status.finished or not running:
            ended = int((row["started_at"] + row["seconds"]) * 1000) if row["seconds"] else None
            try:
                for column in ARTIFACTS:
                    self._upload(run, row[column], "samples")
            finally:  # a file that cannot be sent leaves no run open
                self._client.set_terminated(run.run_id, RUN_STATUS.get(status, "KILLED"), ended)
            run.ended = True
        elif run.ended:  # resumed
            self._client.update_run(run.run_id, status="RUNNING")
            run.ended = False

    def _begin(self, row: Mapping[str, Any]) -> Tracked:
        """Create a trial's run."""
        tags = {
            "mlflow.parentRunId": self._parent.run_id,
            TRIAL_TAG: row["trial_id"],
            "arm": row["arm"],
            "config_id": row["config_id"],
            "result_hash": row["result_hash"],
        }
        started = None if math.isnan(row["started_at"]) else row["started_at"]
        run = self._new_run(self._client, row["trial_id"], tags, started)
        self._runs[row["trial_id"], row["result_hash"]] = run
        return run

    def _log(
        self,
        run_id: str,
        metrics: list[Any],
        params: Mapping[str, str],
        tags: Mapping[str, str],
    ) -> None:
        """Log it all, in one call if it fits.

        The tags, which say how far it was synced, go with the last metrics: within one call
        MLflow writes them last.
        """
        from mlflow.entities import Param, RunTag

        while len(metrics) > BATCH:
            self._client.log_batch(run_id, metrics[:BATCH])
            metrics = metrics[BATCH:]
        named = [Param(*item) for item in params.items()], [RunTag(*item) for item in tags.items()]
        self._client.log_batch(run_id, metrics, *named)

    def _upload(self, run: Tracked, name: Any, below: str | None = None) -> None:
        """Put a file of the study, if `name` is one, among a run's artifacts.

        Raises:
            DamagedFile: If the name leads out of the study's folder, or the store names a place
                for artifacts that it must not.
        """
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        if not isinstance(name, str):
            return
        source = resolve_inside(self.folder, name, TRIALS)
        # A file that is missing is no reason to leave the study's runs open.
        if not source.exists():
            return
        if below == "samples" and read_png(source) is None:  # the report says so
            return
        self._check_artifacts(run.artifacts)
        with local_copy(source) as path:
            # Not by the client, which would ask for the run first.
            get_artifact_repository(run.artifacts, self.uri).log_artifact(str(path), below)

    def _check_artifacts(self, place: str) -> None:
        """Refuse a place for artifacts that a store of this runs folder names outside itself.

        The store may have come with the runs folder, and could name any server or folder. What
        a moved store names is corrected before (`relocate`).
        """
        store = store_path(self.uri)
        if store is None or is_remote(self.folder):
            return
        if not store.is_relative_to(os.path.realpath(self.folder.parent)):
            return  # the user named it
        path = unquote(place.removeprefix("file://"))
        if "://" in path or not Path(os.path.realpath(path)).is_relative_to(store.parent):
            problem = f"keeps artifacts in {place}, outside its own folder"
            raise DamagedFile(store, "name another store by --tracking-uri", problem)

    def _attach_study(self) -> None:
        """Put study, provenance, protocol and report on the parent run."""
        for name in ("study.yaml", "provenance.json", "protocol.json", "report.html"):
            if (self.folder / name).exists():
                self._upload(self._parent, name)


def key_of(run: Any) -> RunKey | None:
    """Return which trial a run belongs to, None if it is the study's own."""
    tags = run.data.tags
    return (tags[TRIAL_TAG], tags.get("result_hash", "")) if TRIAL_TAG in tags else None


def progress(run: Any) -> tuple[bool, int]:
    """Return how much of a trial a run holds, to compare two runs of one trial."""
    known = Tracked.of(run)
    return known.begun, known.synced


def _search(client: Any, experiments: Sequence[str], chosen: str) -> Iterator[Any]:
    """Yield runs page by page: a page has to come within the time limit."""
    token = None
    while experiments:
        page = client.search_runs(list(experiments), chosen, max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def parameters(row: Mapping[str, Any]) -> tuple[dict[str, str], list[Any]]:
    """Return a trial's parameters and, to filter and plot by, its swept numbers as metrics."""
    from mlflow.entities import Metric

    swept = {k: v for k, v in row.items() if k.startswith("param.") and not pd.isna(v)}
    params = {k.removeprefix("param."): str(v) for k, v in swept.items()}
    params |= {k: str(row[k]) for k in ("arm", "config_id", "seed")}
    stamp = 0 if math.isnan(row["started_at"]) else int(row["started_at"] * 1000)
    numbers = [
        Metric(k, float(v), stamp, 0) for k, v in swept.items() if isinstance(v, int | float)
    ]
    return params, numbers


def new_points(row: Mapping[str, Any], points: pd.DataFrame | None, synced: int) -> list[Any]:
    """Return a trial's points beyond update `synced`; infinities have no place in MLflow."""
    from mlflow.entities import Metric

    if points is None:
        return []
    new = points[points["discriminator_updates"] > synced]
    stamps = ((row["started_at"] + new["wall_seconds"]) * 1000).astype("int64")
    columns = (new["name"], new["value"], stamps, new["discriminator_updates"])
    return [
        Metric(name, value, stamp, step)
        for name, value, stamp, step in zip(*(c.tolist() for c in columns), strict=True)
        if not math.isinf(value)
    ]


@contextmanager
def first_request() -> Iterator[None]:
    """Wait less than for others: whether a server is away shows in its first, small answer."""
    name = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    os.environ[name] = FIRST_REQUEST_SECONDS
    try:
        yield
    finally:
        os.environ[name] = ENVIRONMENT[name]


def serve(uri: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve the store at `uri` on loopback until interrupted; `ready` gets the address.

    Raises:
        OSError: If the port is taken or the server does not start.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
    # One worker and no job runner: a quarter of the memory and of the start-up time.
    environment = os.environ | ENVIRONMENT | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    if path := store_path(uri):  # else a client's files would land in the working directory
        command += ["--artifacts-destination", str(artifacts_folder(path))]
    address = f"http://127.0.0.1:{port}"
    # Ended by SIGTERM it ends like by Ctrl-C, its server included.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A session of its own, since the server leaves its worker behind when it alone is ended.
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        ) as server,
    ):
        try:
            _wait_until_healthy(server, address, log)
            ready(address)
            server.wait()
        except KeyboardInterrupt:
            pass
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)


def _wait_until_healthy(server: subprocess.Popen[bytes], address: str, log: IO[str]) -> None:
    for _ in range(600):
        if server.poll() is not None:
            log.seek(0)
            raise OSError(f"MLflow's server did not start: {log.read()[-500:]}")
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise OSError(f"MLflow's server did not answer at {address}")
