"""Kills of `resume` and of the recorder, and a clock that is set back, change no row.

Kills of trials and drivers: tests/sweep/test_executors.py. Lost nodes and heads:
tests/cluster/test_nodes.py. Two drivers: tests/sweep/test_ending.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ganstudy.cli import app
from ganstudy.display import Display
from ganstudy.records import load_results
from ganstudy.store import StudyFolder
from tests.conftest import ROOT, TINY, ganstudy, write_yaml
from tests.processes import descendants, title, wait_for
from tests.sweep.test_executors import assert_same, check_tracking

pytestmark = pytest.mark.timeout(900)
STUDY = TINY | {
    "base": TINY["base"] | {"budget": {"discriminator_updates": 400}},
    "design": {"configs": 1},
}
"""Two trials of 21 evaluations."""


def invoke(store: str, *arguments: object):
    options = ["--tracking-uri", store, "--in-process"]
    return CliRunner().invoke(app, [*map(str, arguments), *options])


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    return write_yaml(tmp_path_factory.mktemp("study") / "study.yaml", STUDY)


@pytest.fixture(scope="module")
def undisturbed(study, tmp_path_factory, tracking_store) -> Path:
    runs = tmp_path_factory.mktemp("undisturbed")
    done = invoke(tracking_store, "run", study, "--runs", runs)
    assert done.exit_code == 0, done.stderr
    return runs / "tiny"


def updates(folder: Path) -> int:
    """Return how many updates all trials of a study have recorded."""
    study = StudyFolder(folder)
    paths = (folder / "trials").glob("*")
    latest = [study.trial(path.name).latest() for path in paths]
    return sum(pair[1].result.discriminator_updates for pair in latest if pair is not None)


@pytest.mark.slow
def test_a_driver_and_three_resumes_that_are_killed(study, undisturbed, tmp_path, tracking_store):
    runs, folder = tmp_path / "runs", tmp_path / "runs" / "tiny"
    options = ["--in-process", "--tracking-uri", tracking_store]
    first = ganstudy("run", study, "--runs", runs, *options)
    for command in [first, *3 * [ganstudy("resume", folder, *options)]]:
        before = updates(folder)
        driver = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)  # fmt: skip
        wait_for(lambda before=before: updates(folder) >= before + 40, "the driver goes on")
        driver.kill()
        driver.wait()
    assert updates(folder) < 800, "too late for anything to be resumed"
    done = invoke(tracking_store, "resume", folder)
    assert done.exit_code == 0, done.stderr
    assert_same(undisturbed, folder)
    assert load_results(folder).trials["attempts"].sum() >= 5
    check_tracking(tracking_store, folder)


def kill_recorder(killed: list[int]) -> None:
    """Kill the recorder of this process's study once it is there."""

    def recorder() -> list[int]:
        family = descendants(os.getpid())
        return [pid for pid in family if "ganstudy.sweep.recorder" in title(pid)]

    killed += wait_for(recorder, "the recorder runs")
    os.kill(killed[0], signal.SIGKILL)


def test_a_recorder_that_is_killed(study, undisturbed, tmp_path, tracking_store):
    runs, folder = tmp_path / "runs", tmp_path / "runs" / "tiny"
    killed: list[int] = []
    killer = threading.Thread(target=kill_recorder, args=(killed,))
    killer.start()
    done = invoke(tracking_store, "run", study, "--runs", runs)
    killer.join()
    assert len(killed) == 1
    assert done.exit_code == 0, done.stderr
    assert "recorder died" in done.stderr
    assert_same(undisturbed, folder)
    assert invoke(tracking_store, "resume", folder).exit_code == 0
    check_tracking(tracking_store, folder)


def test_a_clock_that_is_set_back(study, undisturbed, tmp_path, tracking_store, monkeypatch):
    """A day, between an interrupted trial and its resume."""
    runs, folder = tmp_path / "runs", tmp_path / "runs" / "tiny"
    beat, real = Display.beat, time.time

    def interrupt(display: Display, heard) -> None:
        beat(display, heard)
        if heard.discriminator_updates == 100:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Display, "beat", interrupt)
        assert invoke(tracking_store, "run", study, "--runs", runs).exit_code == 130
    assert updates(folder) == 100
    monkeypatch.setattr(time, "time", lambda: real() - 24 * 3600)
    done = invoke(tracking_store, "resume", folder)
    assert done.exit_code == 0, done.stderr
    assert_same(undisturbed, folder)
    check_tracking(tracking_store, folder)
    status = CliRunner().invoke(app, ["status", str(folder)])
    assert "2 of 2 trials done" in status.stdout
