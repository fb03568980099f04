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
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pandas as pd

from ganstudy.records import Results, TrialStatus, load_results

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
BATCH = 1000


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


class Tracker:
    """Projects one study's tables to MLflow."""

    def __init__(self, folder: Path, uri: str) -> None:
        """Project the study in `folder` to the store at `uri`."""
        self.folder, self.uri = folder.resolve(), uri
        self._client: Any = None
        self._experiment = self._parent = ""
        self._runs: dict[str, Any] = {}

    def sync(self, running: bool) -> None:
        """Bring MLflow up to what the tables hold.

        Args:
            running: Whether the study goes on; if not, its parent run is ended.

        Raises:
            Exception: Whatever MLflow raises; the caller says so and goes on.
        """
        results = load_results(self.folder)
        study = str(results.trials["study"].iloc[0])
        if self._client is None:
            self._client = self._connect(study)
            self._client.update_run(self._parent, status="RUNNING")
        for _, row in results.trials.iterrows():
            status = TrialStatus(row["status"])
            if status is not TrialStatus.PENDING:
                self._sync_trial(row, status, results, running)
        if not running:
            self._attach_study()
            done = results.trials["status"].map(lambda s: TrialStatus(s).finished).all()
            self._client.set_terminated(self._parent, "FINISHED" if done else "KILLED")

    def experiment_url(self) -> str:
        """Return the part of the web address that opens this study's experiment.

        Raises:
            LookupError: If the study is not tracked yet.
        """
        load()
        from mlflow.tracking import MlflowClient

        study = str(load_results(self.folder).trials["study"].iloc[0])
        experiment = MlflowClient(tracking_uri=self.uri).get_experiment_by_name(study)
        if experiment is None:
            raise LookupError(f"nothing of {self.folder} is tracked yet")
        return f"/#/experiments/{experiment.experiment_id}/runs"

    def _connect(self, study: str) -> Any:
        """Return a client, having found or made experiment and parent run."""
        load()
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=self.uri)
        experiment = client.get_experiment_by_name(study)
        if experiment is None:
            artifacts = None
            if self.uri.startswith("sqlite:///"):
                artifacts = (self.folder.parent / "mlartifacts" / study).as_uri()
            self._experiment = client.create_experiment(
                study, artifact_location=artifacts, tags=EXPERIMENT_TAGS
            )
        else:
            self._experiment = experiment.experiment_id
        found = client.search_runs(
            [self._experiment], f"tags.`{STUDY_TAG}` = '{self.folder}'", max_results=50_000
        )
        self._runs = {run.data.tags[TRIAL_TAG]: run for run in found if TRIAL_TAG in run.data.tags}
        parents = [run for run in found if TRIAL_TAG not in run.data.tags]
        parent = parents[0] if parents else self._new_run(client, self.folder.name, {}, None)
        self._parent = parent.info.run_id
        return client

    def _new_run(
        self, client: Any, name: str, tags: Mapping[str, str], started: float | None
    ) -> Any:
        own = {
            STUDY_TAG: str(self.folder),
            "mlflow.user": os.environ.get("USER", "ganstudy"),
            "mlflow.source.name": "ganstudy",
            **tags,
        }
        milliseconds = None if started is None else int(started * 1000)
        return client.create_run(self._experiment, milliseconds, own, run_name=name)

    def _sync_trial(
        self, row: pd.Series[Any], status: TrialStatus, results: Results, running: bool
    ) -> None:
        trial_id = str(row["trial_id"])
        run: Any = self._runs.get(trial_id)
        ended = run is not None and run.info.end_time
        if ended and status.finished and run.data.tags.get("status") == status:
            return
        if run is None or BEGUN_TAG not in run.data.tags:
            run = self._runs[trial_id] = self._begin(row, run)
        run_id = run.info.run_id
        self._log_points(run_id, run, row, results.points)
        tags = {"status": str(status), "reason": str(row["reason"] or "")}
        events = results.events[results.events["trial_id"] == trial_id]
        for _, event in events.iterrows():
            tags[f"event.{event['kind']}"] = str(event["onset"])
        for key, value in tags.items():
            self._client.set_tag(run_id, key, value)
        if status.finished or not running:
            for column in ARTIFACTS:
                if isinstance(row.get(column), str):
                    self._client.log_artifact(run_id, self.folder / row[column], "samples")
            ended = int((row["started_at"] + row["seconds"]) * 1000) if row["seconds"] else None
            self._client.set_terminated(run_id, RUN_STATUS.get(status, "KILLED"), ended)
            self._runs[trial_id] = self._client.get_run(run_id)

    def _begin(self, row: pd.Series[Any], begun: Any) -> Any:
        """Create the child run with its parameters; swept numbers are metrics too.

        `begun` is a run of which an outage has cut the beginning short: it is written once more.
        """
        from mlflow.entities import Metric, Param

        tags = {
            "mlflow.parentRunId": self._parent,
            TRIAL_TAG: str(row["trial_id"]),
            "arm": str(row["arm"]),
            "config_id": str(row["config_id"]),
            "result_hash": str(row["result_hash"]),
            SYNCED_TAG: "-1",
        }
        started = None if math.isnan(row["started_at"]) else float(row["started_at"])
        run = begun or self._new_run(self._client, str(row["trial_id"]), tags, started)
        swept = {k: v for k, v in row.items() if str(k).startswith("param.") and not pd.isna(v)}
        params = {str(k).removeprefix("param."): v for k, v in swept.items()}
        params |= {"arm": row["arm"], "config_id": row["config_id"], "seed": row["seed"]}
        stamp = int((started or 0) * 1000)
        numbers = [
            Metric(str(k), float(v), stamp, 0)
            for k, v in swept.items()
            if isinstance(v, int | float)
        ]
        self._client.log_batch(
            run.info.run_id, numbers, [Param(k, str(v)) for k, v in params.items()]
        )
        if isinstance(row["config"], str):
            self._client.log_artifact(run.info.run_id, self.folder / row["config"])
        self._client.set_tag(run.info.run_id, BEGUN_TAG, "true")
        run.data.tags[BEGUN_TAG] = "true"
        return run

    def _log_points(
        self, run_id: str, run: Any, row: pd.Series[Any], points: pd.DataFrame
    ) -> None:
        """Send the points beyond the last one synced; infinities have no place in MLflow."""
        from mlflow.entities import Metric

        synced = int(run.data.tags.get(SYNCED_TAG, "-1"))
        own = points[points["trial_id"] == row["trial_id"]]
        new = own[own["discriminator_updates"] > synced]
        if new.empty:
            return
        stamps = ((row["started_at"] + new["wall_seconds"]) * 1000).astype("int64")
        columns = (new["name"], new["value"], stamps, new["discriminator_updates"])
        metrics = [
            Metric(name, float(value), int(stamp), int(step))
            for name, value, stamp, step in zip(*columns, strict=True)
            if not math.isinf(value)
        ]
        for start in range(0, len(metrics), BATCH):
            self._client.log_batch(run_id, metrics[start : start + BATCH])
        # After the batch: killed in between, the same points are sent again, and MLflow keeps
        # one of two equal ones.
        to = str(int(new["discriminator_updates"].max()))
        self._client.set_tag(run_id, SYNCED_TAG, to)
        run.data.tags[SYNCED_TAG] = to

    def _attach_study(self) -> None:
        """Put study, provenance, protocol and report on the parent run."""
        for name in ("study.yaml", "provenance.json", "protocol.json", "report.html"):
            path = self.folder / name
            if path.exists():
                self._client.log_artifact(self._parent, path)


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
