"""Another user of the machine reads no secret of a study and reaches none of its processes."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.conftest import ROOT, ganstudy, write_yaml
from tests.processes import descendants, trains, wait_for

ASK_HEAD = """
import sys
from ray._raylet import GcsClient
print(len(GcsClient(address=sys.argv[1]).internal_kv_keys(b"", None)))
"""
LISTENING = "0A"


@pytest.fixture(scope="module")
def place():
    """A temporary folder that all users reach, like /tmp, with a path short enough for Ray."""
    with tempfile.TemporaryDirectory(prefix="gs", dir="/tmp") as folder:
        os.chmod(folder, 0o1777)
        yield Path(folder)


@pytest.fixture(scope="module")
def running(place, tmp_path_factory):
    """A study whose trial runs on a local Ray, started under umask 000 in an empty HOME."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "home").mkdir()
    environment = os.environ | {"HOME": str(folder / "home"), "TMPDIR": str(place)}
    for name in ("GANSTUDY_CACHE", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        environment.pop(name, None)
    study = {
        "study": "long",
        "question": "Who can read it?",
        "base": {"dataset": "ring", "architecture": {"name": "mlp", "width": 8, "latent_dim": 2},
                 "batch_size": 8, "budget": {"discriminator_updates": 10_000_000}},
        "arms": {"a": {"loss": "hinge"}},
        "design": {"configs": 1},
        "measure": {"features": "pixels", "metrics": ["kernel_distance"], "samples": 60},
    }  # fmt: skip
    command = ganstudy("run", write_yaml(folder / "study.yaml", study), "--runs", folder / "runs")
    with (folder / "printed").open("wb") as printed, subprocess.Popen(
        command, cwd=ROOT, env=environment, umask=0o000, stdout=printed, stderr=printed
    ) as driver:  # fmt: skip
        try:
            wait_for(
                lambda: driver.poll() is not None or any(map(trains, descendants(driver.pid))),
                "a trial trains", seconds=500,
            )  # fmt: skip
            assert driver.poll() is None, (folder / "printed").read_text()
            yield driver, folder
        finally:
            driver.kill()


def session(place: Path) -> Path:
    """Return the private folder of the running study."""
    [folder] = place.glob("ganstudy-*")
    return folder


def others(path: Path) -> int:
    """Return what users other than the owner may do with a file."""
    return path.lstat().st_mode & (stat.S_IRWXO | stat.S_IRWXG)


def test_temporary_files_are_private_whatever_the_umask(running, place):
    folder = session(place)
    assert list(place.iterdir()) == [folder]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "token").stat().st_mode) == 0o600
    assert len((folder / "token").read_text()) == 64


def test_home_holds_no_secret_and_nothing_that_others_may_change(running):
    home = running[1] / "home"
    assert not (home / ".ray").exists()
    assert others(home / ".cache") == 0
    assert others(home / ".cache" / "ganstudy") == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_reads_neither_token_nor_sockets(running, place):
    def as_nobody(*command: object) -> int:
        return subprocess.run(
            [*map(str, command)], user=65534, group=65534, extra_groups=[], cwd="/",
            capture_output=True,
        ).returncode  # fmt: skip

    sockets = session(place) / "r" / "session_latest" / "sockets"
    assert (sockets / "plasma_store").is_socket()
    assert as_nobody("ls", place) == 0  # it is the private folder that keeps others out
    assert as_nobody("cat", session(place) / "token") != 0
    assert as_nobody("ls", sockets) != 0


def listening(pids: list[int]) -> set[str]:
    """Return the addresses, in the kernel's hexadecimal, that processes listen on."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                inodes.add(os.readlink(link))
            except OSError:
                continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and f"socket:[{fields[9]}]" in inodes:
                found.add(fields[1].partition(":")[0])
    return found


def test_everything_listens_on_loopback_only(running):
    driver, _ = running
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    found = listening([driver.pid, *descendants(driver.pid)])
    assert found
    assert found <= loopback


def test_who_has_no_token_is_refused(running, place):
    [port] = (session(place) / "r" / "session_latest").glob("gcs_server_port_*")
    command = [sys.executable, "-c", ASK_HEAD, f"127.0.0.1:{port.read_text()}"]
    with_token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(session(place) / "token")}

    def ask(environment: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            command, env=os.environ | environment, capture_output=True, timeout=200
        )

    assert ask(with_token).returncode == 0
    refused = ask({"RAY_AUTH_MODE": "disabled"})
    assert refused.returncode != 0
    assert refused.stdout == b""


def test_a_graceful_end_leaves_nothing(running, place):  # the last test: it ends the study
    driver, folder = running
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(timeout=200) == 130, (folder / "printed").read_text()
    assert list(place.iterdir()) == []
