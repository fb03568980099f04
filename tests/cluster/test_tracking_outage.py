"""MLflow's server hangs for a while in mid-study: trials go on, and MLflow is caught up with."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from ganstudy.records import load_results
from ganstudy.tracking import load
from tests.conftest import ROOT, ganstudy
from tests.test_tracking import assert_tracked, kill, runs_of, server

OUTAGE_SECONDS = 25
"""Long enough for a request to be given up: ten seconds, tried twice."""


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def study(tiny, write_study):
    """A study whose trials take seconds, and enough of them to outlast an outage."""
    tiny["base"]["architecture"] = {"name": "dcgan", "width": 8, "latent_dim": 8}
    tiny["base"]["budget"] = {"discriminator_updates": 150}
    tiny["design"] = {"configs": 16}
    tiny["measure"]["every"] = {"discriminator_updates": 50}
    return write_study(tiny)


def start(study: Path, runs: Path, uri: str) -> subprocess.Popen:
    command = ganstudy("run", study, "--runs", runs, "--in-process", "--tracking-uri", uri)
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def ended(folder: Path) -> set[str]:
    """Return the trials that have ended, as their folders say."""
    return {path.parent.name for path in (folder / "trials").glob("*/finished_by")}


def wait_for(condition, process: subprocess.Popen, seconds: float = 300):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.2)
    raise AssertionError("waited in vain")


def tracked(uri: str) -> set[str]:
    """Return the trials that MLflow shows as finished."""
    from mlflow.tracking import MlflowClient

    if MlflowClient(uri).get_experiment_by_name("tiny") is None:
        return set()
    _, _, children = runs_of(uri, "tiny")
    return {
        run.data.tags["ganstudy.trial_id"] for run in children if run.info.status == "FINISHED"
    }


@dataclass
class Hanging:
    """A study in its midst, whose server of MLflow takes requests and answers none."""

    driver: subprocess.Popen
    server: subprocess.Popen
    uri: str
    folder: Path

    def go_on(self) -> None:
        """Let the server answer again."""
        os.killpg(self.server.pid, signal.SIGCONT)


@pytest.fixture
def hanging(study, tmp_path, port):
    load()
    uri, runs = f"http://127.0.0.1:{port}", tmp_path / "runs"
    mlflow = server(port, tmp_path)
    try:
        with start(study, runs, uri) as driver:
            wait_for(lambda: tracked(uri), driver)
            os.killpg(mlflow.pid, signal.SIGSTOP)
            yield Hanging(driver, mlflow, uri, runs / "tiny")
    finally:
        os.killpg(mlflow.pid, signal.SIGCONT)
        kill(mlflow)


@pytest.mark.slow
def test_a_server_that_hangs_is_caught_up_with_while_the_study_runs(hanging):
    driver, uri, folder = hanging.driver, hanging.uri, hanging.folder
    stopped, before = time.monotonic(), ended(folder)
    wait_for(lambda: len(ended(folder) - before) >= 3, driver)
    time.sleep(max(0, stopped + OUTAGE_SECONDS - time.monotonic()))
    during = ended(folder) - before
    hanging.go_on()
    # Not at the end only: the study still runs (`wait_for` sees to that).
    wait_for(lambda: during <= tracked(uri), driver)
    output, _ = driver.communicate(timeout=600)
    assert driver.returncode == 0, output
    assert "cannot be written" in output
    assert "up to date again" in output
    seconds = load_results(folder).trials.set_index("trial_id")["seconds"]
    slower = seconds[sorted(during)].median() / seconds.drop(during).median()
    assert slower < 3, "trials waited for MLflow"
    assert_tracked(uri, folder)


@pytest.mark.slow
def test_a_study_ends_soon_though_the_server_hangs(hanging):
    hanging.driver.send_signal(signal.SIGINT)
    # The server hangs until the fixture ends: a driver that waited for it would never return.
    output, _ = hanging.driver.communicate(timeout=200)
    assert "cannot be written" in output
    assert f"ganstudy resume {hanging.folder}" in output.replace("\n", " ")
