"""MLflow is an idempotent projection of the tables, on a real store and a real server."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ganstudy.cli import app
from ganstudy.records import Event, Point, TrialRecord, TrialResult, TrialStatus, load_results
from ganstudy.store import StudyFolder
from ganstudy.tracking import ENVIRONMENT, Tracker
from tests.processes import wait_for
from tests.sweep.watched import Notes


def record(updates: int, status: TrialStatus) -> TrialRecord:
    values = [2.0, math.nan, math.inf, 1.0]
    points = [Point("fd", u, u, u, u / 8, values[u % 4]) for u in range(updates + 1)]
    events = [Event("mode_collapse", 1, 2, 0.5, {"diversity": 0.1})]
    result = TrialResult(
        status, "", updates, updates, updates, 1.7e9, 5.0, 4.0, 1.0, None, {"threads": 1}
    )
    return TrialRecord(result, points, events, {})


@pytest.fixture
def study(tmp_path):
    folder = StudyFolder(tmp_path / "study")
    folder.create()
    identity = {"study": tmp_path.name, "arm": "a", "trial_id": "a-c00-s0", "config_id": "c00"}
    identity |= {"seed": 0, "result_hash": "x", "params": {"lr": 0.1, "loss": "hinge"}}
    folder.write_plan([identity])
    return folder


def runs_of(store: str, study: str):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(store)
    experiment = client.get_experiment_by_name(study)
    found = client.search_runs([experiment.experiment_id])
    children = [r for r in found if "ganstudy.trial_id" in r.data.tags]
    return client, [r for r in found if r not in children], children


def test_syncing_often_and_by_other_processes_doubles_nothing(study, tmp_path, tracking_store):
    attempt = study.trial("a-c00-s0").new_attempt()
    attempt.save(record(2, TrialStatus.RUNNING), {})
    study.compact(running=True)
    Tracker(study.folder, tracking_store).sync(running=True)
    attempt.save(record(9, TrialStatus.COMPLETED), {})
    study.compact()
    for _ in range(2):  # each a tracker that knows nothing of the others, as after a kill
        Tracker(study.folder, tracking_store).sync(running=False)
    client, parents, children = runs_of(tracking_store, tmp_path.name)
    assert len(parents) == len(children) == 1
    (child,) = children
    history = client.get_metric_history(child.info.run_id, "fd")
    # Infinities have no place in MLflow; NaN stays NaN.
    assert [m.step for m in history] == [0, 1, 3, 4, 5, 7, 8, 9]
    assert sum(math.isnan(m.value) for m in history) == 3
    assert [m.timestamp for m in history][:2] == [1_700_000_000_000, 1_700_000_000_125]
    tags = child.data.tags
    assert (tags["arm"], tags["status"], tags["event.mode_collapse"]) == ("a", "completed", "1")
    assert child.data.params["loss"] == "hinge"
    assert child.data.metrics["param.lr"] == 0.1
    assert child.info.status == parents[0].info.status == "FINISHED"
    assert child.info.end_time == 1_700_000_005_000


def test_a_trial_of_which_nothing_is_new_asks_nothing_of_mlflow(study, tracking_store):
    attempt = study.trial("a-c00-s0").new_attempt()
    attempt.save(record(2, TrialStatus.RUNNING), {})
    study.compact(running=True)
    tracker = Tracker(study.folder, tracking_store)
    tracker.sync(running=True)
    tracker._client = object()  # any call would raise
    tracker.sync(running=True)
    attempt.save(record(3, TrialStatus.RUNNING), {})
    study.compact(running=True)
    with pytest.raises(AttributeError):
        tracker.sync(running=True)


def test_a_run_that_was_only_created_gets_its_beginning(study, tmp_path, tracking_store):
    study.trial("a-c00-s0").new_attempt().save(record(2, TrialStatus.RUNNING), {})
    study.compact(running=True)
    cut_short = Tracker(study.folder, tracking_store)
    cut_short._client = cut_short._connect(tmp_path.name)
    cut_short._begin(cut_short._table("trials.parquet").to_dict("records")[0])
    Tracker(study.folder, tracking_store).sync(running=True)
    _, _, (child,) = runs_of(tracking_store, tmp_path.name)
    assert child.data.params["lr"] == "0.1"
    assert child.data.metrics["param.lr"] == 0.1
    assert child.data.tags["ganstudy.synced_to"] == "2"


def test_an_interrupted_trial_runs_again_and_ends(study, tmp_path, tracking_store):
    attempt = study.trial("a-c00-s0").new_attempt()
    seen = []
    for updates, status, running in (
        (2, TrialStatus.RUNNING, True),
        (2, TrialStatus.RUNNING, False),  # the study was interrupted
        (2, TrialStatus.RUNNING, True),
        (4, TrialStatus.COMPLETED, True),
    ):
        attempt.save(record(updates, status), {})
        study.compact(running=running)
        Tracker(study.folder, tracking_store).sync(running=running)
        _, (parent,), (child,) = runs_of(tracking_store, tmp_path.name)
        seen.append((child.data.tags["status"], child.info.status, parent.info.status))
    assert seen == [
        ("running", "RUNNING", "RUNNING"),
        ("interrupted", "KILLED", "KILLED"),
        ("running", "RUNNING", "RUNNING"),
        ("completed", "FINISHED", "RUNNING"),
    ]


def test_more_points_than_fit_one_call(study, tmp_path, tracking_store):
    study.trial("a-c00-s0").new_attempt().save(record(2500, TrialStatus.COMPLETED), {})
    study.compact()
    Tracker(study.folder, tracking_store).sync(running=False)
    client, _, (child,) = runs_of(tracking_store, tmp_path.name)
    history = client.get_metric_history(child.info.run_id, "fd")
    assert [m.step for m in history] == [u for u in range(2501) if u % 4 != 2]


def server(port: int, store: Path) -> subprocess.Popen:
    environment = os.environ | ENVIRONMENT | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
    command += ["--port", str(port), "--backend-store-uri", f"sqlite:///{store}/mlflow.db"]
    command += ["--artifacts-destination", str(store / "artifacts")]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        wait_for(lambda: answers(port), "the server answers", seconds=200)
    except AssertionError:
        kill(process)
        raise
    return process


def answers(port: int) -> bool:
    """Whether the server takes requests, which it does some time after it listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return True
    except OSError:
        return False


def kill(process: subprocess.Popen) -> None:
    """Kill the server with its workers."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def kill_in_the_middle(process: subprocess.Popen, uri: str, killed: threading.Event) -> None:
    """Wait until the first trials are tracked, then kill the server."""
    from mlflow.tracking import MlflowClient

    for _ in range(1200):
        time.sleep(0.05)
        experiment = MlflowClient(uri).get_experiment_by_name("tiny")
        if experiment and len(MlflowClient(uri).search_runs([experiment.experiment_id])) > 1:
            kill(process)
            killed.set()
            return


@pytest.mark.slow
def test_a_server_that_dies_in_mid_study_loses_nothing(tiny, write_study, tmp_path, monkeypatch):
    from ganstudy.tracking import load

    load()
    monkeypatch.setattr("ganstudy.sweep.recorder.COMPACT_EVERY_SECONDS", 0.5)
    tiny["base"]["architecture"] = {"name": "dcgan", "width": 8}
    tiny["base"]["budget"] = {"discriminator_updates": 600}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    uri, folder, killed = f"http://127.0.0.1:{port}", tmp_path / "runs" / "tiny", threading.Event()
    first = server(port, tmp_path)
    thread = threading.Thread(target=kill_in_the_middle, args=(first, uri, killed))
    thread.start()
    # The study is concluded only after the kill, however fast its trials are.
    Notes(lambda step: step != "compact" or killed.wait(300)).follow(monkeypatch.setattr)
    options = ["--in-process", "--tracking-uri", uri]
    study = ["run", str(write_study(tiny)), "--runs", str(folder.parent)]
    done = CliRunner().invoke(app, [*study, *options])
    thread.join()
    assert killed.is_set()
    assert done.exit_code == 0, done.output
    assert "cannot be written" in done.stderr
    assert set(load_results(folder).trials["status"]) == {"completed"}
    second = server(port, tmp_path)
    try:
        again = CliRunner().invoke(app, ["resume", str(folder), *options])
        assert again.exit_code == 0, again.output
        assert "cannot be written" not in again.stderr
        assert_tracked(uri, folder)
    finally:
        kill(second)


def assert_tracked(uri: str, folder: Path) -> None:
    """One parent, every trial once, every point once."""
    client, parents, children = runs_of(uri, "tiny")
    results = load_results(folder)
    assert len(parents) == 1
    assert len(children) == len(results.trials)
    assert {r.info.status for r in [*parents, *children]} == {"FINISHED"}
    for child in children:
        mine = results.points["trial_id"] == child.data.tags["ganstudy.trial_id"]
        expected = results.points[mine & (results.points["name"] == "discriminator_loss")]
        history = client.get_metric_history(child.info.run_id, "discriminator_loss")
        assert [m.step for m in history] == expected["discriminator_updates"].tolist()
        assert [m.value for m in history] == expected["value"].tolist()
