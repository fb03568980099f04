"""How a study ends early: signals, time limits, memory that runs out. Real processes."""

from __future__ import annotations

import array
import fcntl
import os
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ganstudy.cli import app
from ganstudy.records import load_results
from ganstudy.store import StudyFolder, reason_of
from ganstudy.sweep.ending import graceful, undisturbed
from tests.conftest import ROOT, TINY, ganstudy, write_yaml
from tests.processes import descendants, title, wait_for
from tests.sweep.test_executors import assert_same, check_tracking
from tests.sweep.watched import Notes

pytestmark = pytest.mark.timeout(400)


def begin(*arguments: object, log: Path, **environment: str) -> subprocess.Popen:
    """Start the command line in a process group of its own."""
    return start(ganstudy(*arguments), log, **environment)


def start(command: list[str], log: Path, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        command, cwd=ROOT, stdout=log.open("wb"), stderr=subprocess.STDOUT,
        start_new_session=True, env=os.environ | environment,
    )  # fmt: skip


class Watched:
    """A driver that notes its steps and waits at some of them; see tests/sweep/watched.py."""

    def __init__(self, folder: Path, pauses: str, *arguments: object) -> None:
        self._notes, self._log = folder / "notes", folder / "watched.log"
        command = [sys.executable, "-m", "tests.sweep.watched", self._notes, pauses, *arguments]
        self.process = start(list(map(str, command)), self._log)

    @property
    def printed(self) -> str:
        return self._log.read_text()

    def steps(self) -> dict[str, tuple[int, int]]:
        """Return step -> the kernel's handlers of SIGTERM and SIGINT at that step."""
        lines = self._notes.read_text().splitlines() if self._notes.exists() else []
        pairs = (line.split(": ") for line in lines)
        return {step: tuple(map(int, handlers.split())) for step, handlers in pairs}

    def wait_for(self, step: str) -> None:
        wait_for(lambda: step in self.steps() or self.process.poll() is not None, step)
        assert step in self.steps(), self.printed

    def signal_at(self, step: str, number: int = signal.SIGTERM) -> None:
        """Send a signal when the driver waits at `step`."""
        self.wait_for(step)
        self.process.send_signal(number)

    def go_on(self) -> None:
        """Let the driver wait no more."""
        self._notes.with_suffix(".go").touch()

    def end(self) -> int:
        return self.process.wait(timeout=200)


ENDS = ("compact", "report", "track", "outcome")
"""What a driver does after its trials; after all of them it also scores, in `reported`."""


@pytest.fixture
def longer(tiny):
    tiny["base"]["budget"] = {"discriminator_updates": 600}
    return tiny


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_ends_gracefully_and_resume_goes_on(longer, write_study, tmp_path, run, number):
    study, runs = write_study(longer), tmp_path / "runs"
    driver = Watched(tmp_path, "trial ended", "run", study, "--runs", runs)
    driver.signal_at("trial ended", number)
    assert driver.end() == 130, driver.printed
    assert "Traceback" not in driver.printed
    assert "resume" in driver.printed
    trials = load_results(runs / "tiny").trials  # compacted on the way out
    assert 1 <= (trials["status"] == "completed").sum() < 4
    # Whatever Ray did to them: our handlers, and never the default, which kills.
    steps = driver.steps()
    assert {"execute", "ray started", "ray ends", *ENDS} <= set(steps)
    assert len(set(steps.values())) == 1, steps
    assert 0 not in steps["execute"]
    assert run("run", study, "--runs", runs, "--name", "undisturbed").exit_code == 0
    done = subprocess.run(ganstudy("resume", runs / "tiny"), cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert_same(runs / "undisturbed", runs / "tiny")
    check_tracking(f"sqlite:///{runs / 'mlflow.db'}", runs / "tiny")


def check_ended_at_once(driver: Watched, study: Path, family: list[int]) -> None:
    assert driver.end() == 130, driver.printed
    assert "ended at once" in driver.printed
    assert "Traceback" not in driver.printed
    assert StudyFolder(study).driven() is False
    wait_for(lambda: not any(map(title, family)), "every process of the study has ended")


def test_a_second_signal_while_ray_ends_leaves_no_process(longer, write_study, tmp_path):
    runs = tmp_path / "runs"
    driver = Watched(tmp_path, "trial ended,ray ends", "run", write_study(longer), "--runs", runs)
    driver.signal_at("trial ended")
    family = descendants(driver.process.pid)
    driver.signal_at("ray ends")
    check_ended_at_once(driver, runs / "tiny", family)
    assert len(family) > 2, "neither Ray nor the recorder ran"


def test_a_signal_while_ray_starts_ends_gracefully(tiny, write_study, tmp_path):
    """`ray.init` takes seconds, in which its own handler of SIGTERM would exit."""
    runs = tmp_path / "runs"
    driver = Watched(tmp_path, "ray started", "run", write_study(tiny), "--runs", runs)
    driver.signal_at("ray started")
    assert driver.end() == 130, driver.printed
    assert "asked to end (SIGTERM): writing tables and report" in driver.printed
    assert set(load_results(runs / "tiny").trials["status"]) == {"pending"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tracking_store):
    """A finished study, which `resume` scores, reports and tracks anew, and its store."""
    folder = tmp_path_factory.mktemp("finished")
    study = write_yaml(folder / "study.yaml", TINY | {"design": {"configs": 1}})
    store = ["--tracking-uri", tracking_store, "--in-process"]
    done = CliRunner().invoke(app, ["run", str(study), "--runs", str(folder), *store])
    assert done.exit_code == 0, done.stderr
    return folder / "tiny", store


@pytest.mark.parametrize(
    "step",
    [pytest.param("compact 2", marks=pytest.mark.slow), "report", "track",
     pytest.param("outcome", marks=pytest.mark.slow)],
)  # fmt: skip
def test_a_second_signal_ends_at_once_at_every_step_of_the_end(step, finished, tmp_path):
    study, store = finished
    driver = Watched(tmp_path, f"reported,{step}", "resume", study, *store)
    driver.signal_at("reported")
    driver.wait_for(step)
    family = descendants(driver.process.pid)
    driver.signal_at(step, signal.SIGINT)
    check_ended_at_once(driver, study, family)


@pytest.mark.parametrize(
    ("step", "number"),
    [("compact", signal.SIGINT), ("reported", signal.SIGTERM), ("report", signal.SIGTERM),
     ("track", signal.SIGTERM), ("outcome", signal.SIGINT)],
)  # fmt: skip
def test_one_signal_after_the_last_trial_is_told(step, number, finished, monkeypatch):
    study, store = finished
    steps = []

    def at(reached: str) -> None:
        steps.append(reached)
        if reached == step:
            os.kill(os.getpid(), number)

    Notes(at).follow(monkeypatch.setattr)
    done = CliRunner().invoke(app, ["resume", str(study), *store])
    assert done.exit_code == 130, done.output
    why = {signal.SIGTERM: "asked to end (SIGTERM)", signal.SIGINT: "interrupted"}[number]
    assert f"{why}; `ganstudy resume {study}` goes on" in " ".join(done.stderr.split())
    assert set(ENDS) <= set(steps), "a step after the interrupted one was left out"
    assert ("MLflow was not brought up to date" in done.stderr) == (step == "track")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert set(load_results(study).trials["status"]) == {"completed"}


def test_a_library_that_shuts_down_is_not_interrupted():
    reached = []

    def shut_down() -> None:
        with undisturbed():
            os.kill(os.getpid(), signal.SIGTERM)
            reached.append(ending.why)

    with graceful() as ending:
        with pytest.raises(KeyboardInterrupt):
            shut_down()
        assert signal.getsignal(signal.SIGTERM) == ending.heard
    assert reached == ["asked to end (SIGTERM)"]


FULL = """
import os, signal, sys
from contextlib import suppress
from ganstudy.sweep.ending import graceful
with graceful(), suppress(KeyboardInterrupt):
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
with graceful() as ending:
    ending.why = "interrupted"
    print("x" * 1_000_000, file=sys.stderr)
"""


def test_a_second_signal_ends_a_process_whose_output_nobody_reads():
    """It interrupts a write to the stream that the handler would write to, and that is full."""
    with subprocess.Popen(
        [sys.executable, "-c", FULL], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        wait_for(lambda: unread(process.stderr) >= 2**16 or process.poll() is not None)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=100) == 130


def unread(pipe) -> int:
    """Return how many bytes wait in a pipe."""
    count = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]


def test_the_time_of_a_study_ends_it_and_resume_goes_on(longer, write_study, tmp_path, run):
    longer["resources"] = {"study_minutes": 0.05}
    longer["base"]["budget"] = {"discriminator_updates": 1_000_000}
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
    assert (trials["discriminator_updates"] < 50_000).all(), "it ends between two evaluations"
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
    drivers = {}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        drivers[name] = Watched(
            tmp_path / name, "trial ended", "run", study, "--runs", runs, "--name", name
        )
    drivers["one"].wait_for("trial ended")  # and it waits there, however long the second takes
    second = subprocess.run(
        ganstudy("resume", runs / "one"), cwd=ROOT, capture_output=True, text=True
    )
    assert second.returncode == 2
    assert "another process is running the study" in second.stderr
    for name, driver in drivers.items():
        driver.go_on()
        assert driver.end() == 0, driver.printed
        check_tracking(f"sqlite:///{runs / 'mlflow.db'}", runs / name)
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
