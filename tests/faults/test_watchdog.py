"""A trial that is silent is tried again, and a driver that lost its raylet says so and ends."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ganstudy.cli import app
from ganstudy.records import TrialRecord, TrialResult, TrialStatus, load_results
from ganstudy.store import StudyFolder
from ganstudy.study.checks import load_study
from ganstudy.study.plan import plan
from ganstudy.sweep import watch
from tests.processes import descendants, title, trains, wait_for
from tests.sweep.test_ending import start
from tests.sweep.test_executors import assert_same, check_tracking

pytestmark = pytest.mark.timeout(900)


def trials_of(driver: int) -> list[int]:
    return [pid for pid in descendants(driver) if trains(pid) or "ray::Actor" in title(pid)]


TRIAL = "non_saturating-c00-s0"


def midway(folder: Path, attempt: int) -> bool:
    """Whether the first trial's attempt has recorded something and has some updates to go."""
    latest = StudyFolder(folder).trial(TRIAL).latest()
    if latest is None or latest[0].folder.name != f"attempt-{attempt}":
        return False
    return 50 * attempt <= latest[1].result.discriminator_updates <= 400 * attempt


def stop_midway(driver: int, folder: Path, attempt: int) -> int:
    """Stop the process of the first trial midway, and return it."""

    def stopped() -> int:
        if not midway(folder, attempt) or len(actors := trials_of(driver)) != 1:
            return 0
        os.kill(actors[0], signal.SIGSTOP)
        if midway(folder, attempt):
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
    silent = stop_midway(driver.pid, folder, attempt=1)
    armed.touch()
    wait_for(lambda: "tried again after: no sign of progress" in log.read_text(), log.read_text())
    wait_for(lambda: not title(silent), "the silent process is gone")

    # The raylet dies while a trial is midway, and the head lives.
    trial = stop_midway(driver.pid, folder, attempt=2)
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
    attempts = load_results(folder).trials.set_index("trial_id")["attempts"]
    assert attempts[TRIAL] == 3, "killed for its silence, with its raylet, and then resumed"
    check_tracking(tracking_store, folder)


class Clock:
    """A driver's clock that a test turns."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(watch, "time", made)
    return made


@pytest.fixture
def trial(tiny, write_study):
    tiny["resources"] = {"trial_minutes": 60}
    return next(iter(plan(load_study(write_study(tiny)))))


def pass_by(watcher: watch.Watch, clock: Clock, seconds: float) -> list[watch.Overdue]:
    """Let time pass, with a look as often as a driver takes one."""
    overdue, until = [], clock.now + seconds
    while clock.now < until and not overdue:
        clock.now += watch.LOOK_SECONDS
        overdue = watcher.look()
    return overdue


def test_a_trial_is_silent_after_many_times_its_longest_gap(trial, tmp_path, clock):
    study = StudyFolder(tmp_path / "study")
    watcher = watch.Watch(study)
    watcher.start(trial)
    assert not pass_by(watcher, clock, 50 * 60), "how long its evaluations take is not known yet"
    watcher.note(trial.trial_id)
    attempt = study.trial(trial.trial_id).new_attempt()
    for update in (25, 50):  # what a slow trial writes between two evaluations counts
        attempt.note_progress(f"training at {update}")
        assert not pass_by(watcher, clock, 40 * 60)
    assert study.trial(trial.trial_id).progress() == "attempt-1 training at 50"
    trial = replace(trial, minutes=None)
    watcher = watch.Watch(study)
    watcher.start(trial)
    assert not pass_by(watcher, clock, 60)
    watcher.note(trial.trial_id)
    assert not pass_by(watcher, clock, 19 * 60)
    [(silent, reason)] = pass_by(watcher, clock, 2 * 60)
    assert silent == trial
    assert "no sign of progress for 20 min" in reason
    watcher.start(trial)
    assert not pass_by(watcher, clock, 35 * 60), "a second attempt may be silent for longer"
    assert pass_by(watcher, clock, 10 * 60)


def test_a_driver_that_was_suspended_takes_no_trial_for_silent(trial, tmp_path, clock):
    watcher = watch.Watch(StudyFolder(tmp_path / "study"))
    watcher.start(trial)
    watcher.note(trial.trial_id)
    for _ in range(3):
        clock.now += 24 * 3600
        assert watcher.look() == []


def test_a_trial_whose_time_is_up_is_ended_only_if_it_is_silent(trial, tmp_path, clock):
    folder = StudyFolder(tmp_path / "study").trial(trial.trial_id)
    result = TrialResult(TrialStatus.RUNNING, seconds=50 * 60.0)
    folder.new_attempt().save(TrialRecord(result), {})
    watcher = watch.Watch(StudyFolder(tmp_path / "study"))
    watcher.start(trial)  # an earlier attempt has used 50 of its 60 minutes
    for _ in range(20):
        assert not pass_by(watcher, clock, 60)
        watcher.note(trial.trial_id)
    assert not pass_by(watcher, clock, 4 * 60), "it may come to its last evaluation"
    assert pass_by(watcher, clock, 2 * 60) == [watch.Overdue(trial, "time_limit")]


def test_a_study_whose_trials_wait_for_room_says_so_once(trial, tmp_path, clock):
    watcher = watch.Watch(StudyFolder(tmp_path / "study"))
    pass_by(watcher, clock, 4 * 60)
    assert not watcher.idle()
    pass_by(watcher, clock, 2 * 60)
    assert watcher.idle()
    pass_by(watcher, clock, 20 * 60)
    assert not watcher.idle()
    watcher.start(trial)
    pass_by(watcher, clock, 2)
    watcher.end(trial.trial_id)
    pass_by(watcher, clock, 6 * 60)
    assert watcher.idle()
