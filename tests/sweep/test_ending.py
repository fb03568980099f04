"""How a study ends early: signals, time limits, memory that runs out. Real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from ganstudy.records import load_results
from ganstudy.store import StudyFolder, reason_of
from tests.conftest import ROOT, ganstudy
from tests.processes import descendants, trains, wait_for
from tests.sweep.test_executors import assert_same, check_tracking

pytestmark = pytest.mark.timeout(400)


def begin(*arguments: object, log: Path, **environment: str) -> subprocess.Popen:
    """Start the command line in a process group of its own."""
    return subprocess.Popen(
        ganstudy(*arguments), cwd=ROOT, stdout=log.open("wb"), stderr=subprocess.STDOUT,
        start_new_session=True, env=os.environ | environment,
    )  # fmt: skip


def ended(folder: Path) -> int:
    return sum(1 for _ in (folder / "trials").glob("*/finished_by"))


@pytest.fixture
def longer(tiny):
    tiny["base"]["budget"] = {"discriminator_updates": 600}
    return tiny


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_ends_gracefully_and_resume_goes_on(longer, write_study, tmp_path, run, number):
    study, runs, log = write_study(longer), tmp_path / "runs", tmp_path / "log"
    driver = begin("run", study, "--runs", runs, log=log)
    wait_for(lambda: ended(runs / "tiny") >= 1)
    driver.send_signal(number)
    assert driver.wait(timeout=60) == 130, log.read_text()
    printed = log.read_text()
    assert "Traceback" not in printed
    assert "resume" in printed
    trials = load_results(runs / "tiny").trials  # compacted on the way out
    assert 1 <= (trials["status"] == "completed").sum() < 4
    assert run("run", study, "--runs", runs, "--name", "undisturbed").exit_code == 0
    done = subprocess.run(ganstudy("resume", runs / "tiny"), cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert_same(runs / "undisturbed", runs / "tiny")
    check_tracking(f"sqlite:///{runs / 'mlflow.db'}", runs / "tiny")


def test_a_second_signal_ends_at_once_and_leaves_no_process(longer, write_study, tmp_path):
    runs, log = tmp_path / "runs", tmp_path / "log"
    driver = begin("run", write_study(longer), "--runs", runs, log=log)
    wait_for(lambda: ended(runs / "tiny") >= 1)
    family = descendants(driver.pid)
    driver.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    begun = time.monotonic()
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(timeout=20) == 130
    assert time.monotonic() - begun < 3
    assert "ended at once" in log.read_text()
    assert StudyFolder(runs / "tiny").driven() is False
    wait_for(lambda: not any(trains(pid) for pid in family), seconds=60)


def test_the_time_of_a_study_ends_it_and_resume_goes_on(longer, write_study, tmp_path, run):
    longer["resources"] = {"study_minutes": 0.05}
    longer["base"]["budget"] = {"discriminator_updates": 4000}
    study, runs = write_study(longer), tmp_path / "runs"
    done = run("run", study, "--runs", runs)
    assert done.exit_code == 130, done.stderr
    assert "its time is up" in done.stderr
    assert "resume" in done.stderr


def test_the_time_of_a_trial_stops_it_with_its_last_score(longer, write_study, tmp_path, run):
    longer["resources"] = {"trial_minutes": 0.02}
    longer["base"]["budget"] = {"discriminator_updates": 100_000}
    longer["measure"]["every"] = {"discriminator_updates": 50_000}
    longer["measure"]["probe"] = None
    runs = tmp_path / "runs"
    done = run("run", write_study(longer), "--runs", runs)
    assert done.exit_code == 0, done.stderr
    trials = load_results(runs / "tiny").trials
    assert set(trials["status"]) == {"stopped"}
    assert set(trials["reason"]) == {"time_limit"}
    assert (trials["seconds"] < 10).all()
    assert trials["last.kd_small_cnn_60"].notna().all()


@pytest.mark.slow
def test_memory_that_runs_out_is_the_reason_and_is_tried_again(tiny, write_study, tmp_path):
    """Ray's own monitor ends the process of a trial that takes too much of the machine."""
    tiny["design"], tiny["retries"] = {"configs": 1}, 1
    tiny["arms"] = {"non_saturating": {"loss": "non_saturating"}}
    tiny["base"]["batch_size"] = 1000
    tiny["base"]["architecture"] = {"name": "mlp", "width": 14000}
    tiny["max_failed_trials"] = 1
    used = 1 - memory("MemAvailable") / memory("MemTotal")
    threshold = used + 1.3 * 2**20 / memory("MemTotal")
    runs, log = tmp_path / "runs", tmp_path / "log"
    driver = begin(
        "run", write_study(tiny), "--runs", runs, log=log,
        RAY_memory_usage_threshold=f"{threshold:.4f}", RAY_memory_monitor_refresh_ms="50",
    )  # fmt: skip
    assert driver.wait(timeout=200) == 0, log.read_text()
    [trial] = load_results(runs / "tiny").trials.to_dict("records")
    assert trial["status"] == "failed"
    assert trial["reason"].startswith("out of memory (host)"), trial["reason"]
    assert "tried again after: out of memory (host)" in log.read_text()


def memory(name: str) -> int:
    """Return a figure of /proc/meminfo in KiB."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "GPU"),
        ("RuntimeError: [enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't "
         "allocate memory: you tried to allocate 80 bytes", "host"),
        ("MemoryError", "host"),
        ("numpy._core._exceptions._ArrayMemoryError: Unable to allocate 1. TiB", "host"),
    ],
)  # fmt: skip
def test_whose_memory_ran_out_is_told(text, where):
    assert reason_of(f"Traceback\n{text}\n") == f"out of memory ({where}): {text}"


def test_other_reasons_stay_as_they_are():
    assert reason_of("Traceback\nValueError: no such memory\n") == "ValueError: no such memory"


def test_a_study_has_one_driver_and_a_store_several_studies(longer, write_study, tmp_path):
    """Two studies at once share one tracking store; a second driver of one is refused."""
    runs = tmp_path / "runs"
    study = write_study(longer)
    logs = [tmp_path / "one.log", tmp_path / "two.log"]
    drivers = [begin("run", study, "--runs", runs, "--name", log.stem, log=log) for log in logs]
    wait_for(lambda: ended(runs / "one") >= 1)
    second = subprocess.run(
        ganstudy("resume", runs / "one"), cwd=ROOT, capture_output=True, text=True
    )
    assert second.returncode == 2
    assert "another process is running the study" in second.stderr
    for driver, log in zip(drivers, logs, strict=True):
        assert driver.wait(timeout=200) == 0, log.read_text()
        check_tracking(f"sqlite:///{runs / 'mlflow.db'}", runs / log.stem)
    assert_same(runs / "one", runs / "two")


@pytest.mark.slow
def test_a_stopping_rule_ends_trials_and_a_resume_leaves_them(tiny, write_study, tmp_path):
    tiny["space"]["generator_optimizer.lr"] = {"log_uniform": [1e-6, 1e-2]}
    tiny["design"] = {"configs": 6}
    tiny["stopping"] = {"asha": {"grace": 0.3, "reduction_factor": 2}}
    study, runs = write_study(tiny), tmp_path / "runs"
    done = subprocess.run(
        ganstudy("run", study, "--runs", runs), cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    trials = load_results(runs / "tiny").trials.set_index("trial_id")
    stopped = trials[trials["status"] == "stopped"]
    assert 2 <= len(stopped) <= 9
    assert set(stopped["reason"]) == {"asha"}
    assert (stopped["discriminator_updates"] < 60).all()
    assert set(trials["status"]) == {"stopped", "completed"}
    assert ": stopped, " in done.stderr
    again = subprocess.run(
        ganstudy("resume", runs / "tiny"), cwd=ROOT, capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr
    assert "no trial is left to run" in again.stderr
    after = load_results(runs / "tiny").trials.set_index("trial_id")
    assert after["attempts"].equals(trials["attempts"])
