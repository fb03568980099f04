"""Nodes, trials and drivers that are killed change no row. Real nodes, real SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from ganstudy.records import load_results
from ganstudy.store import StudyFolder
from tests.cluster.nodes import Cluster, network, wait_for
from tests.conftest import ROOT, ganstudy
from tests.sweep.test_executors import assert_same, check_tracking

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    with network(tmp_path_factory.mktemp("network")) as made:
        yield made


def finished(folder: Path) -> int:
    """Return how many trials have ended."""
    study = StudyFolder(folder)
    if not (folder / "study.yaml").exists():
        return 0
    planned = [identity["trial_id"] for identity in study.read_plan()]
    return len(planned) - len(study.unfinished(planned))


def study_of(tiny, trials: int):
    tiny["base"]["budget"] = {"discriminator_updates": 400}
    tiny["measure"]["every"] = {"discriminator_updates": 50}
    tiny["design"] = {"configs": trials // 4, "seeds": [0, 1]}
    return tiny


def undisturbed(study: Path, runs: Path, store: str) -> Path:
    """Run the study in one process; return its folder."""
    done = subprocess.run(
        ganstudy("run", study, "--runs", runs, "--name", "undisturbed", "--in-process",
                 "--tracking-uri", store),
        cwd=ROOT, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return runs / "undisturbed"


def test_a_study_survives_its_nodes_trials_and_driver(
    tiny, write_study, tmp_path, hosts, tracking_store
):
    study, runs = write_study(study_of(tiny, 24)), tmp_path / "runs"
    cluster, log = Cluster(hosts), tmp_path / "driver.log"
    worker = cluster.worker()
    folder = runs / "killed"
    driver = cluster.drive(cluster.head, "run", study, "--runs", runs, "--name", "killed", log=log)
    try:
        wait_for(lambda: finished(folder) >= 2 and worker.trials(), "the worker trains")
        worker.kill()
        wait_for(lambda: "its node left the cluster" in log.read_text(), "the loss is told")
        cluster.worker()
        before = finished(folder)
        wait_for(lambda: finished(folder) >= min(before + 4, 16), "the study goes on")
        victim = wait_for(cluster.head.trials, "the head trains")[0]
        os.kill(victim, signal.SIGKILL)
        before = finished(folder)
        wait_for(lambda: finished(folder) >= min(before + 2, 20), "the study goes on again")
        assert finished(folder) < 24
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        resumed = cluster.drive(cluster.head, "resume", folder, log=log)
        assert resumed.wait(timeout=300) == 0, log.read_text()
    except BaseException:
        print(log.read_text())
        raise
    assert_same(undisturbed(study, runs, tracking_store), folder)
    assert "tried again after" in log.read_text()
    assert load_results(folder).trials["attempts"].max() >= 2
    assert len(load_results(folder).trials) == 24
    check_tracking(runs, "killed")
