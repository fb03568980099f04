"""A trial that is silent is tried again, and a driver that lost its raylet says so and ends."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ganstudy.cli import app
from ganstudy.records import load_results
from ganstudy.store import StudyFolder
from ganstudy.sweep import watch
from tests.processes import descendants, title, trains, wait_for
from tests.sweep.test_ending import start
from tests.sweep.test_executors import assert_same, check_tracking

pytestmark = pytest.mark.timeout(900)


def trials_of(driver: int) -> list[int]:
    return [pid for pid in descendants(driver) if trains(pid) or "ray::Actor" in title(pid)]


def midway(folder: Path) -> str | None:
    """Return the trial that has recorded two evaluations and has some to go, or None."""
    for path in (folder / "trials").glob("*"):
        latest = StudyFolder(folder).trial(path.name).latest()
        if latest is not None and 100 <= latest[1].result.discriminator_updates <= 650:
            return path.name
    return None


def stop_midway(driver: int, folder: Path) -> int:
    """Stop the process of the trial that runs, midway, and return it."""

    def stopped() -> int:
        if midway(folder) is None or len(actors := trials_of(driver)) != 1:
            return 0
        os.kill(actors[0], signal.SIGSTOP)
        if midway(folder) is not None:
            return actors[0]
        os.kill(actors[0], signal.SIGCONT)  # it was about to end
        return 0

    return wait_for(stopped, "a trial is midway", seconds=300)


@pytest.fixture
def one_by_one(tiny):
    """Trials long enough to be caught in the middle, one at a time."""
    tiny["base"]["architecture"] = {"name": "dcgan", "width": 8, "latent_dim": 8}
    tiny["base"]["budget"] = {"discriminator_updates": 900}
    tiny["measure"]["every"] = {"discriminator_updates": 50}
    tiny["design"] = {"configs": 1}
    tiny["resources"] = {"max_concurrent": 1}
    return tiny


def test_silent_trials_and_a_dead_raylet_are_told_and_change_no_row(
    one_by_one, write_study, tmp_path, tracking_store, monkeypatch
):
    study, runs, armed = write_study(one_by_one), tmp_path / "runs", tmp_path / "armed"
    log, folder = tmp_path / "log", runs / "tiny"
    store = ["--tracking-uri", tracking_store]
    command = [sys.executable, "-m", "tests.faults.driver", armed, "run", study, "--runs", runs]
    driver = start(list(map(str, [*command, *store])), log)

    # A process that is stopped says nothing: it is killed, and its trial is tried again.
    silent = stop_midway(driver.pid, folder)
    armed.touch()
    wait_for(lambda: "tried again after: no sign of progress" in log.read_text(), log.read_text())
    wait_for(lambda: not title(silent), "the silent process is gone")

    # The raylet dies while a trial is midway, and the head lives.
    trial = stop_midway(driver.pid, folder)
    told = CliRunner().invoke(app, ["status", str(folder)]).stdout
    assert "last progress of a trial" in told
    monkeypatch.setattr(watch, "SILENT_SECONDS", 0)
    told = CliRunner().invoke(app, ["status", str(folder)]).stdout
    assert "no trial has made progress" in told
    assert f"ganstudy resume {folder}" in " ".join(told.split())
    family = descendants(driver.pid)
    [raylet] = [pid for pid in family if "/raylet/raylet" in title(pid).partition(" ")[0]]
    os.kill(raylet, signal.SIGKILL)
    os.kill(trial, signal.SIGCONT)
    assert driver.wait(timeout=400) == 3, log.read_text()
    assert "the cluster is lost" in log.read_text()
    assert f"ganstudy resume {folder}" in " ".join(log.read_text().split())
    assert "Traceback" not in log.read_text()
    wait_for(lambda: not any(map(title, family)), "every process of the study has ended")
    assert StudyFolder(folder).driven() is False
    before = load_results(folder)  # tables were written on the way out
    assert "interrupted" in set(before.trials["status"])
    assert len(before.points) > 0

    store.append("--in-process")
    for arguments in (["resume", folder], ["run", study, "--runs", runs, "--name", "undisturbed"]):
        done = CliRunner().invoke(app, list(map(str, [*arguments, *store])))
        assert done.exit_code == 0, done.stderr
    assert_same(runs / "undisturbed", folder)
    assert load_results(folder).trials["attempts"].sum() >= 4
    check_tracking(tracking_store, folder)
