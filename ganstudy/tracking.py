"""Tables -> MLflow: an idempotent projection, and the only importer of mlflow.

The tables are the record; MLflow is a view of them. `sync` may be called at any time and any
number of times: runs are found again by tag, timestamps come from the tables, and only points
beyond the last one synced are sent, so after an outage or a kill it catches up, nothing doubled.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock

from ganstudy.checksums import DamagedFile
from ganstudy.records import EVENTS, POINTS, TRIALS, TrialStatus
from ganstudy.storage import local_copy, name_of
from ganstudy.study_files import read_png, resolve_inside

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
STUDY_TAG, TRIAL_TAG, SYNCED_TAG = "ganstudy.folder", "ganstudy.trial_id", "ganstudy.synced_to"
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
    return f"sqlite:///{runs.resolve() / 'mlflow.db'}"


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


@contextmanager
def first_alone(uri: str) -> Iterator[None]:
    """Open a store on disk one process at a time: two that make its tables at once break it."""
    if not uri.startswith("sqlite:///"):
        yield
        return
    with FileLock(f"{uri.removeprefix('sqlite:///')}.lock"):
        yield


class Tracker:
    """Projects one study's tables to MLflow.

    A trial of which nothing is new costs nothing; one that ended since the last sync costs three
    calls (create the run, log all its rows, end it) and its files.
    """

    def __init__(self, folder: Path, uri: str) -> None:
        """Project the study in `folder` to the store at `uri`."""
        self.folder, self.uri = folder, uri
        self._client: Any = None
        self._experiment = ""
        self._parent = Tracked("", "")
        self._runs: dict[str, Tracked] = {}

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
        standing = zip(
            trials["trial_id"], trials["status"], trials["discriminator_updates"], strict=True
        )
        stale = trials[[self._is_stale(*trial, running) for trial in standing]]
        rows: list[Any] = stale.to_dict("records")
        ids = [row["trial_id"] for row in rows]
        points, events = self._rows(POINTS, ids), self._rows(EVENTS, ids)
        for row in rows:
            trial_id = row["trial_id"]
            self._sync_trial(row, points.get(trial_id), events.get(trial_id), running)
        if not running:
            self._attach_study()
            done = trials["status"].map(lambda s: TrialStatus(s).finished).all()
            self._client.set_terminated(self._parent.run_id, "FINISHED" if done else "KILLED")

    def experiment_url(self) -> str:
        """Return the part of the web address that opens this study's experiment.

        Raises:
            LookupError: If the study is not tracked yet.
        """
        load()
        from mlflow.tracking import MlflowClient

        study = str(self._table(TRIALS)["study"].iloc[0])
        experiment = MlflowClient(tracking_uri=self.uri).get_experiment_by_name(study)
        if experiment is None:
            raise LookupError(f"nothing of {self.folder} is tracked yet")
        return f"/#/experiments/{experiment.experiment_id}/runs"

    def _table(self, name: str, trial_ids: Sequence[str] | None = None) -> pd.DataFrame:
        """Read a table, or its rows of some trials only."""
        chosen = None if trial_ids is None else pc.field("trial_id").isin(trial_ids)
        with (self.folder / name).open("rb") as file:
            return pq.read_table(file, filters=chosen).to_pandas()

    def _rows(self, name: str, trial_ids: Sequence[str]) -> dict[str, pd.DataFrame]:
        """Return the rows of each of some trials, grouped once for all of them."""
        if not trial_ids:
            return {}
        grouped = self._table(name, trial_ids).groupby("trial_id", sort=False)
        return {str(trial_id): own for trial_id, own in grouped}

    def _is_stale(self, trial_id: str, status: str, at: int, running: bool) -> bool:
        """Whether the tables hold more of a trial than MLflow does."""
        if status == TrialStatus.PENDING:
            return False
        run = self._runs.get(trial_id)
        if run is None or not run.begun:
            return True
        over = TrialStatus(status).finished or not running
        return run.status != status or run.synced < at or run.ended != over

    def _connect(self, study: str) -> Any:
        """Return a client, having found or made experiment and parent run."""
        load()
        from mlflow.tracking import MlflowClient

        with first_alone(self.uri), first_request():
            client = MlflowClient(tracking_uri=self.uri)
            experiment = client.get_experiment_by_name(study)
        if experiment is None:
            artifacts = None
            if beside := _beside(self.uri):
                artifacts = (beside / "mlartifacts" / study).as_uri()
            self._experiment = client.create_experiment(
                study, artifact_location=artifacts, tags=EXPERIMENT_TAGS
            )
        else:
            self._experiment = experiment.experiment_id
        # By trial; the study's own run has no trial. A server that hung may have made one twice.
        runs: dict[str | None, Tracked] = {}
        for found in self._found(client):
            trial_id, run = found.data.tags.get(TRIAL_TAG), Tracked.of(found)
            kept = runs.setdefault(trial_id, run)
            if kept is not run:
                spare, runs[trial_id] = sorted((kept, run), key=attrgetter("begun", "synced"))
                client.delete_run(spare.run_id)
        parent = runs.pop(None, None)
        self._parent = parent or self._new_run(client, self.folder.name, {}, None)
        self._runs = {str(trial_id): run for trial_id, run in runs.items()}
        return client

    def _found(self, client: Any) -> Iterator[Any]:
        """Yield the study's runs page by page: a page has to come within the time limit."""
        # MLflow knows no escape; a value may stand in either kind of quotes.
        folder = name_of(self.folder)
        quote = '"' if "'" in folder else "'"
        chosen, token = f"tags.`{STUDY_TAG}` = {quote}{folder}{quote}", None
        while True:
            page = client.search_runs(
                [self._experiment], chosen, max_results=PAGE, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return

    def _new_run(
        self, client: Any, name: str, tags: Mapping[str, str], started: float | None
    ) -> Tracked:
        own = {
            STUDY_TAG: name_of(self.folder),
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
        run = self._runs.get(row["trial_id"]) or self._begin(row)
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
            for column in ARTIFACTS:
                self._upload(run, row[column], "samples")
            ended = int((row["started_at"] + row["seconds"]) * 1000) if row["seconds"] else None
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
        self._runs[row["trial_id"]] = run
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
        if below == "samples" and read_png(source) is None:  # the report says so
            return
        self._check_artifacts(run.artifacts)
        with local_copy(source) as path:
            # Not by the client, which would ask for the run first.
            get_artifact_repository(run.artifacts, self.uri).log_artifact(str(path), below)

    def _check_artifacts(self, place: str) -> None:
        """Refuse a place for artifacts that a store of this runs folder names outside itself.

        The store may have come with the runs folder, and could name any server or folder.
        """
        if not self.uri.startswith("sqlite:///"):
            return
        store = Path(os.path.realpath(self.uri.removeprefix("sqlite:///")))
        if not store.is_relative_to(os.path.realpath(name_of(self.folder.parent))):
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


def _beside(uri: str) -> Path | None:
    """Return the folder that a store in a file lies in, None of any other store."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///")).resolve().parent


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
    if beside := _beside(uri):  # else a client's files would land in the working directory
        command += ["--artifacts-destination", str(beside / "mlartifacts")]
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
