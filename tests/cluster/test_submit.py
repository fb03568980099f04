"""`ganstudy submit` on a real head on loopback that asks for a token."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from ganstudy.cli import app
from ganstudy.records import load_results
from tests.conftest import ROOT, ganstudy
from tests.processes import wait_for

SCRIPTS = Path(sys.executable).parent
pytestmark = pytest.mark.timeout(600)  # seconds are minutes on a machine that others use, too
JOBS = "http://127.0.0.1:8265"


def free_ports(count):
    """Ports free at this moment, outside of those that the kernel gives to connections."""
    found = []
    for port in range(20_000 + os.getpid() % 8_000, 32_000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                found.append(port)
        if len(found) == count:
            return found
    raise OSError("no free ports")


class Head:
    """The head of a cluster of one node, with its dashboard."""

    def __init__(self, folder):
        self.token = folder / "token"
        self.token.write_text(secrets.token_hex(24))
        gcs, dashboard, client, agent = free_ports(4)
        self.address, self.url = f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}"
        self.environment = {
            **os.environ,
            "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self.environment.pop("RAY_ADDRESS", None)
        command = ["ray", "start", "--head", "--block", "--num-cpus=2", f"--port={gcs}"]
        command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
        command += [f"--ray-client-server-port={client}", "--object-store-memory=80000000"]
        command += [f"--dashboard-agent-listen-port={agent}"]  # it takes the jobs
        # A short path: those of Ray's sockets must not pass 107 bytes.
        self.sessions = Path(f"/tmp/ray-{gcs}")
        command += [f"--temp-dir={self.sessions}"]
        self.log = (folder / "head.log").open("w")
        self.process = subprocess.Popen(
            command, env=self.environment, stdout=self.log, stderr=self.log
        )
        self._wait()

    def _wait(self):
        for _ in range(1000):
            assert self.process.poll() is None, Path(self.log.name).read_text()
            try:
                urllib.request.urlopen(f"{self.url}/api/version", timeout=2)
            except urllib.error.HTTPError:  # it asks for the token
                return
            except OSError:
                time.sleep(0.25)
        raise TimeoutError(Path(self.log.name).read_text())

    def end(self):
        self.process.terminate()  # `ray start --block` ends what it has started
        self.process.wait(250)
        self.log.close()


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    import shutil

    head = Head(tmp_path_factory.mktemp("head"))
    yield head
    head.end()
    shutil.rmtree(head.sessions, ignore_errors=True)


@pytest.fixture
def project(tmp_path, tiny):
    """A working directory with a study of two short trials."""
    tiny["design"]["configs"] = 1
    tiny["base"]["dataset"] = "ring"  # where no network has to be trained or loaded
    tiny["measure"]["features"] = "pixels"
    tiny["base"]["budget"]["discriminator_updates"] = 20
    folder = tmp_path / "project"
    folder.mkdir()
    with (folder / "study.yaml").open("w") as file:
        YAML().dump(tiny, file)
    return folder


def submit(head, project, *arguments, environment=None):
    command = ganstudy("submit", "study.yaml", "--address", head.url, *arguments)
    return subprocess.Popen(
        command, cwd=project, env=environment or head.environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(process):
    out, err = process.communicate(timeout=400)
    return process.returncode, out, err


def test_without_the_token_nothing_is_sent(head, project, tmp_path):
    environment = head.environment | {"RAY_AUTH_MODE": "disabled"}
    process = submit(head, project, "--runs", tmp_path / "runs", environment=environment)
    code, out, err = ended(process)
    assert (code, out) == (2, "")
    assert "Missing authentication token" in err
    assert "RAY_AUTH_TOKEN_PATH" in err
    assert err.count("\n") == 1


def test_a_driver_without_the_token_is_refused(head, project, tmp_path):
    command = ganstudy("run", "study.yaml", "--address", head.address, "--runs", tmp_path / "runs")
    environment = head.environment | {"RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, timeout=200)
    assert done.returncode == 2
    assert b"does it ask for a token?" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "runs" / "tiny").exists()


@pytest.mark.slow
def test_a_job_is_followed_to_its_end_and_its_exit_code_is_ours(head, project, tmp_path):
    runs = tmp_path / "runs"
    code, out, err = ended(submit(head, project, "--runs", runs, "--set", "design.seeds=[3]"))
    assert code == 0, out + err
    assert f"recorded in {runs}/tiny" in err
    assert "[2/2] " in out
    assert "wgan_gp-c00-s3: completed" in out
    assert str(runs / "tiny" / "report.html") in out
    assert set(load_results(runs / "tiny").trials["status"]) == {"completed"}


@pytest.mark.slow
def test_wrong_input_that_only_the_head_can_know_exits_2(head, project, tmp_path):
    folder = tmp_path / "runs" / "tiny"
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text("study: tiny\n")
    code, out, err = ended(submit(head, project, "--runs", tmp_path / "runs"))
    assert code == 2, out + err
    assert "exists already" in out
    assert [path.name for path in folder.iterdir()] == ["study.yaml"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_go_of_the_job_and_stopping_it_keeps_its_rows(
    head, project, tmp_path, number
):
    runs = tmp_path / "runs"
    many = "base.budget.discriminator_updates=100000", "design.configs=4"
    process = submit(head, project, "--runs", runs, "--set", many[0], "--set", many[1])
    said = process.stderr.readline()
    assert "sent as the job" in said
    job = said.split("job ")[1].split(",")[0]
    trials = runs / "tiny" / "trials"
    wait_for(lambda: any(trials.glob("*/attempt-*/record.json")), "a trial records", seconds=300)
    process.send_signal(number)
    code, out, err = ended(process)
    assert code == 130, out + err
    assert "the job goes on" in err
    assert f"ray job stop --address {head.url} {job}" in err
    stop = [SCRIPTS / "ray", "job", "stop", "--address", head.url, job]
    done = subprocess.run(stop, env=head.environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "interrupted" in set(load_results(runs / "tiny").trials["status"])
    assert (runs / "tiny" / "report.html").exists()


@pytest.mark.slow
def test_a_lost_head_is_told_and_exits_3(head, project, tmp_path):
    """The last test of this head: it is killed."""
    impatient = (
        "from ganstudy.sweep.ray_tune import jobs; from ganstudy.cli import main;"
        "jobs.PROBE_SECONDS, jobs.LOST_SECONDS = 0.2, 1.0; main()"
    )
    command = [sys.executable, "-c", impatient, "submit", "study.yaml", "--address", head.url]
    command += ["--runs", tmp_path / "runs"]
    process = subprocess.Popen(
        command, cwd=project, env=head.environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert "sent as the job" in process.stderr.readline()
    head.process.kill()
    head.end()
    code, _, err = ended(process)
    assert code == 3
    assert "was lost" in err
    assert "ganstudy.cli resume" in err


def asked(tmp_path, *arguments, study="study.yaml"):
    result = CliRunner().invoke(app, ["submit", str(study), "--address", JOBS, *arguments])
    assert result.exit_code == 2
    assert result.stdout == ""
    return " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--runs", "runs"], "--runs runs: the job runs in a copy of this directory"),
        (["--runs", "/r", "--tracking-uri", "http://me:pa55@h:5000"], "http://***@h:5000"),
        (["--runs", "/r", "--tracking-uri", "sqlite:///mlflow.db"], "that Ray deletes"),
        (["--runs", "s3://b/p?secret_key=pa55"], "MLFLOW_TRACKING_PASSWORD, or AWS_"),
        (["--runs", "/r", "--name", "a/b"], "--name: letters"),
        (["--runs", "/r", "--set", "design.confgs=2"], "did you mean 'configs'"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_sent(
    arguments, told, project, monkeypatch, tmp_path
):
    monkeypatch.chdir(project)
    message = asked(tmp_path, *arguments)
    assert told in message
    assert "pa55" not in message


def test_what_the_job_would_not_get_is_refused(project, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert "no Ray dashboard" in asked(tmp_path, "--runs", "/r", study="project/study.yaml")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    message = asked(tmp_path, "--runs", "/r", study="../project/study.yaml")
    assert "not in the working directory" in message


def test_the_missing_extra_is_named(project):
    without = "import sys; sys.modules['aiohttp'] = None; from ganstudy.cli import main; main()"
    command = [sys.executable, "-c", without, "submit", "study.yaml", "--address", JOBS]
    done = subprocess.run(
        [*command, "--runs", "/r"], cwd=project, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert done.returncode == 2
    assert "pip install 'ganstudy[cluster]'" in done.stderr
