"""Nodes, trials, drivers and heads that are killed change no row. Real nodes, real SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from ganstudy.records import load_results
from ganstudy.storage import location
from ganstudy.store import StudyFolder
from tests.cluster.nodes import Cluster, Host, network, s3_server
from tests.conftest import ROOT, TINY, ganstudy, write_yaml
from tests.processes import wait_for
from tests.sweep.test_executors import assert_same, check_tracking

pytestmark = pytest.mark.timeout(600)
STUDY = {
    **TINY,
    "base": {**TINY["base"], "budget": {"discriminator_updates": 400}},
    "measure": {**TINY["measure"], "every": {"discriminator_updates": 50}},
    "design": {"configs": 6, "seeds": [0, 1]},
}
"""24 trials of a second or two."""


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    with network(tmp_path_factory.mktemp("network")) as made:
        yield made


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    return write_yaml(tmp_path_factory.mktemp("study") / "study.yaml", STUDY)


@pytest.fixture(scope="module")
def undisturbed(study, tmp_path_factory, tracking_store) -> Path:
    """Run the study in one process; return its folder."""
    runs = tmp_path_factory.mktemp("undisturbed")
    done = subprocess.run(
        ganstudy("run", study, "--runs", runs, "--in-process", "--tracking-uri", tracking_store),
        cwd=ROOT, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return runs / "tiny"


def finished(folder: Path) -> int:
    """Return how many trials have ended."""
    study = StudyFolder(folder)
    if not (folder / "study.yaml").exists():
        return 0
    planned = [identity["trial_id"] for identity in study.read_plan()]
    return len(planned) - len(study.unfinished(planned))


class Driven:
    """A study on a cluster, and what its drivers print."""

    def __init__(self, cluster: Cluster, folder: Path, tmp_path: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.log = tmp_path / "driver.log"
        self.uri = f"sqlite:///{tmp_path / 'mlflow.db'}"

    def run(self, host: Host, study: Path) -> subprocess.Popen:
        where = ["--runs", self.folder.parent, "--name", self.folder.name]
        return self._drive(host, "run", study, *where)

    def resume(self, host: Host) -> subprocess.Popen:
        return self._drive(host, "resume", self.folder)

    def _drive(self, host: Host, *arguments: object) -> subprocess.Popen:
        arguments = (*arguments, "--tracking-uri", self.uri)
        return self.cluster.drive(host, *arguments, log=self.log)

    @property
    def printed(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def goes_on(self, trials: int, at_most: int) -> None:
        """Wait until some more trials have ended, but not all."""
        enough = min(finished(self.folder) + trials, at_most)
        wait_for(lambda: finished(self.folder) >= enough, f"{enough} trials: {self.printed}")


def kill_worker_trial_and_driver(driven: Driven, study: Path) -> None:
    """One after the other, in the midst of the study; then resume it, at once."""
    cluster = driven.cluster
    worker = cluster.worker()
    driver = driven.run(cluster.head, study)
    wait_for(lambda: finished(driven.folder) >= 2 and worker.trials(), "the worker trains")
    worker.kill()
    wait_for(lambda: "its node left the cluster" in driven.printed, "the loss is told")
    cluster.worker()
    driven.goes_on(4, at_most=14)
    os.kill(wait_for(cluster.head.trials, "the head trains")[0], signal.SIGKILL)
    driven.goes_on(2, at_most=18)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    assert finished(driven.folder) < 24, "too late for anything to be resumed"
    assert driven.resume(cluster.head).wait(timeout=300) == 0, driven.printed


def assert_undisturbed(driven: Driven, undisturbed: Path) -> None:
    assert_same(undisturbed, driven.folder)
    trials = load_results(driven.folder).trials
    assert len(trials) == 24
    assert trials["attempts"].max() >= 2
    check_tracking(driven.uri, driven.folder)


def test_a_study_survives_its_worker_a_trial_and_its_driver(study, undisturbed, hosts, tmp_path):
    driven = Driven(Cluster(hosts), tmp_path / "runs" / "killed", tmp_path)
    kill_worker_trial_and_driver(driven, study)
    assert_undisturbed(driven, undisturbed)


@pytest.mark.slow
def test_the_same_in_an_object_store(study, undisturbed, hosts, tmp_path, monkeypatch):
    """On a real S3 server: every node and the driver reach the study by its URI alone."""
    with s3_server(hosts.outside) as environment:
        for key, value in environment.items():
            monkeypatch.setenv(key, value)
        folder = location("s3://studies/runs/killed")
        driven = Driven(Cluster(hosts, **environment), folder, tmp_path)
        kill_worker_trial_and_driver(driven, study)
        assert_undisturbed(driven, undisturbed)


@pytest.mark.slow
def test_a_node_that_does_not_see_the_folder_is_told_before_anything_starts(
    study, hosts, tmp_path
):
    if not hosts.separate:
        pytest.skip("hiding a folder from a node needs namespaces")
    cluster, runs = Cluster(hosts), tmp_path / "runs"
    runs.mkdir()
    cluster.worker(hidden=runs)
    driven = Driven(cluster, runs / "unseen", tmp_path)
    assert driven.run(cluster.head, study).wait(timeout=250) == 2, driven.printed
    assert "does not see what is written in" in driven.printed
    assert list(runs.iterdir()) == []


@pytest.mark.slow
def test_a_cluster_without_room_is_waited_for(study, undisturbed, hosts, tmp_path):
    cluster = Cluster(hosts, cpus=0)
    driven = Driven(cluster, tmp_path / "runs" / "waits", tmp_path)
    driver = driven.run(cluster.head, study)
    wait_for(lambda: "waiting 5 minutes for nodes to join" in driven.printed, "it is told")
    cluster.worker(cpus=2)
    wait_for(lambda: finished(driven.folder) >= 1, f"trials end: {driven.printed}")
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(timeout=250) == 130


def test_a_lost_head_is_told_and_another_cluster_goes_on(study, undisturbed, hosts, tmp_path):
    first = Cluster(hosts, cpus=0)
    worker = first.worker(cpus=2)
    driven = Driven(first, tmp_path / "runs" / "headless", tmp_path)
    driver = driven.run(worker, study)
    wait_for(lambda: finished(driven.folder) >= 2, f"trials end: {driven.printed}")
    first.head.kill()
    # Had Ray ended it, as it does after a minute, the exit code would be another.
    assert driver.wait(timeout=250) == 3, driven.printed
    assert "the cluster is lost" in driven.printed
    assert f"ganstudy resume {driven.folder}" in " ".join(driven.printed.split())
    assert len(load_results(driven.folder).trials) == 24  # tables were written on the way out
    worker.kill()
    driven.cluster = Cluster(hosts, cpus=2)
    assert driven.resume(driven.cluster.head).wait(timeout=300) == 0, driven.printed
    assert_same(undisturbed, driven.folder)
    check_tracking(driven.uri, driven.folder)
