"""A trainer that never returns is ended when its time is up, wherever it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ganstudy.records import load_results
from ganstudy.store import StudyFolder
from tests.conftest import ROOT, ganstudy
from tests.processes import title
from tests.sweep.test_executors import assert_same

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def blocking(tiny, tmp_path):
    """A study whose first arm never returns from its first update; then a healthy one runs.

    Its trials have no time at all: the healthy one ends by itself at its first evaluation.
    """
    tiny["arms"] = {
        "sleeps": {"loss": {"name": "blocks", "how": "sleep", "armed": str(tmp_path / "armed")}},
        "healthy": {"loss": "non_saturating"},
    }
    tiny["design"] = {"configs": 1}
    tiny["resources"] = {"trial_minutes": 1e-6, "max_concurrent": 1}
    return tiny


def drive(tmp_path: Path, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "tests.faults.driver", tmp_path / "armed", *arguments]
    done = subprocess.run(
        list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=350
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done


def check_ended(folder: Path, blocked: list[str]) -> None:
    """Blocked and healthy trials are stopped by their time; only the latter have a score."""
    trials = load_results(folder).trials.set_index("arm")
    assert set(trials["status"]) == {"stopped"}
    assert set(trials["reason"]) == {"time_limit"}
    assert trials.loc[blocked, "discriminator_updates"].eq(0).all()
    assert trials.loc[blocked, "best_at"].isna().all()
    assert trials.loc["healthy", "discriminator_updates"] == 20
    assert trials.loc["healthy", "best_at"] == 20
    planned = [row["trial_id"] for row in StudyFolder(folder).read_plan()]
    assert StudyFolder(folder).unfinished(planned) == []


def test_a_blocked_trial_is_ended_and_the_next_one_runs(
    blocking, write_study, tmp_path, tracking_store
):
    """The same study in this process, where only what Python runs can be interrupted, and on Ray,
    where also a loop in C that keeps Python's lock is ended."""
    runs, store = tmp_path / "runs", ["--tracking-uri", tracking_store]
    study = write_study(blocking)
    drive(tmp_path, "run", study, "--runs", runs, "--name", "here", "--in-process", *store)
    check_ended(runs / "here", ["sleeps"])
    drive(tmp_path, "run", study, "--runs", runs, "--name", "ray", *store)
    assert_same(runs / "here", runs / "ray")

    blocking["arms"]["locks"] = {"loss": blocking["arms"]["sleeps"]["loss"] | {"how": "lock"}}
    more = ["--name", "ray", "--extend", *store]
    drive(tmp_path, "run", write_study(blocking), "--runs", runs, *more)
    check_ended(runs / "ray", ["sleeps", "locks"])
    for how in ("sleep", "lock"):
        pid = int((tmp_path / f"armed.{how}").read_text())
        assert not title(pid).startswith("ray::"), "the process of the blocked trial is there"
