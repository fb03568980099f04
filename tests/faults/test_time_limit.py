"""A trainer that never returns is ended when its time is up, wherever it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ganstudy.records import load_results
from ganstudy.store import StudyFolder
from ganstudy.study.outcomes import select_outcomes
from tests.conftest import ROOT
from tests.processes import title

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def blocking(tiny, tmp_path):
    """A study whose first arms never return from their first update; then a healthy one runs.

    Its trials have no time at all: the healthy one ends by itself at its first evaluation.
    """
    blocks = {"name": "blocks", "armed": str(tmp_path / "armed")}
    tiny["arms"] = {
        "sleeps": {"loss": blocks | {"how": "sleep"}},
        "locks": {"loss": blocks | {"how": "lock"}},
        "healthy": {"loss": "non_saturating"},
    }
    tiny["base"]["dataset"], tiny["measure"]["features"] = "ring", "pixels"
    tiny["measure"]["metrics"] = ["kernel_distance"]
    tiny["design"] = {"configs": 1}
    tiny["resources"] = {"trial_minutes": 1e-6, "max_concurrent": 1}
    return tiny


def drive(tmp_path: Path, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "tests.faults.driver", tmp_path / "armed", *arguments]
    done = subprocess.run(
        list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=800
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done


def check_ended(folder: Path, blocked: list[str]) -> None:
    """Blocked and healthy trials are stopped by their time; only the latter have a score."""
    trials = load_results(folder).trials.set_index("arm")
    assert sorted(trials.index) == sorted([*blocked, "healthy"])
    assert set(trials["status"]) == {"stopped"}
    assert set(trials["reason"]) == {"time_limit"}
    assert trials.loc[blocked, "discriminator_updates"].eq(0).all()
    assert trials.loc[blocked, "best_at"].isna().all()
    assert trials.loc["healthy", "discriminator_updates"] == 20
    assert trials.loc["healthy", "best_at"] == 20
    study = StudyFolder(folder)
    assert study.unfinished([row["trial_id"] for row in study.read_plan()]) == []
    assert select_outcomes(trials, None).empty, "a trial that was cut short is no outcome"


def test_on_ray_a_trial_that_never_returns_is_ended_wherever_it_is(
    blocking, write_study, tmp_path, tracking_store
):
    study, runs = write_study(blocking), tmp_path / "runs"
    drive(tmp_path, "run", study, "--runs", runs, "--tracking-uri", tracking_store)
    check_ended(runs / "tiny", ["sleeps", "locks"])
    for how in ("sleep", "lock"):
        pid = int((tmp_path / f"armed.{how}").read_text())
        assert not title(pid).startswith("ray::"), "the process of the blocked trial is there"


def test_in_this_process_a_trial_is_interrupted_where_python_can_be(
    blocking, write_study, tmp_path, tracking_store
):
    del blocking["arms"]["locks"]
    study, runs = write_study(blocking), tmp_path / "runs"
    options = ["--in-process", "--tracking-uri", tracking_store]
    drive(tmp_path, "run", study, "--runs", runs, *options)
    check_ended(runs / "tiny", ["sleeps"])
