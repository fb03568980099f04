"""A machine whose HOME or temporary folder cannot be used: told first, and by the right name."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from ganstudy.sweep import temporary
from ganstudy.sweep.temporary import LONGEST_BYTES, MIB, can_be_written, find_base, settle
from tests.conftest import ROOT, ganstudy, write_yaml
from tests.sweep.test_executors import assert_same

UNSHARE = (
    ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
)
TINY_DISK = "mount -t tmpfs -o size=100k,mode=1777 none"
READ_ONLY = "mount -t tmpfs -o ro none"


@pytest.fixture(scope="module")
def mounts():
    """Skip where this process may not mount a file system for itself."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare here")
    tried = subprocess.run([*UNSHARE, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True)
    if tried.returncode:
        pytest.skip(f"no file system may be mounted here: {tried.stderr.decode().strip()}")


@pytest.fixture
def study(tiny, tmp_path):
    tiny["base"]["dataset"] = "ring"
    tiny["measure"]["features"] = "pixels"
    tiny["arms"] = {"a": {"loss": "hinge"}}
    return write_yaml(tmp_path / "study.yaml", tiny)


def run(*arguments, mount: str = "true", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command line, with file systems of its own that the shell command `mount` adds."""
    inside = ["sh", "-c", f'{mount} && exec "$@"', "sh", *ganstudy(*arguments)]
    environment = os.environ | variables
    return subprocess.run(
        [*UNSHARE, *inside], cwd=ROOT, env=environment, text=True, capture_output=True, timeout=280
    )


def tracked(runs: Path) -> list[str]:
    """Return the status of every run in the MLflow store of a runs folder."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    [experiment] = (e for e in client.search_experiments() if e.name == "tiny")
    return [run.info.status for run in client.search_runs([experiment.experiment_id])]


def test_a_study_needs_no_home(mounts, study, tmp_path):
    """Ray and MLflow write nothing that a study needs to HOME; a cache is only faster."""
    home = tmp_path / "home"
    home.mkdir()
    done = run(
        "run", study, "--runs", tmp_path / "runs",
        mount=f"{READ_ONLY} {home}", HOME=str(home), GANSTUDY_CACHE="",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "GANSTUDY_CACHE" in done.stderr
    assert run("run", study, "--runs", tmp_path / "whole", "--in-process").returncode == 0
    assert_same(tmp_path / "runs" / "tiny", tmp_path / "whole" / "tiny")


def test_temporary_files_go_elsewhere_where_tmpdir_is_full(mounts, study, tmp_path):
    place = tmp_path / "tmp"
    place.mkdir()
    done = run(
        "run", study, "--runs", tmp_path / "runs", "--in-process",
        mount=f"{TINY_DISK} {place}", TMPDIR=str(place),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"TMPDIR={place}" in done.stderr
    assert tracked(tmp_path / "runs") == ["FINISHED"] * 3
    assert run("run", study, "--runs", tmp_path / "whole", "--in-process").returncode == 0
    assert_same(tmp_path / "runs" / "tiny", tmp_path / "whole" / "tiny")


@pytest.mark.parametrize("more", [[], ["--in-process"]])
def test_a_machine_without_a_temporary_folder_is_refused_first(mounts, study, tmp_path, more):
    place = tmp_path / "tmp"
    place.mkdir()
    hidden = "mount --bind /tmp /tmp && mount -o remount,ro,bind /tmp"  # the study lies in it
    done = run(
        "run", study, "--runs", tmp_path / "runs", *more,
        mount=f"{hidden} && {READ_ONLY} /var/tmp && {TINY_DISK} {place}", TMPDIR=str(place),
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "TMPDIR" in done.stderr
    assert str(place) in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Two temporary folders, the second of which is the system's, and no other variable."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    monkeypatch.setenv("TMPDIR", str(first))
    monkeypatch.setenv("TEMP", str(second))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return first, second


def test_a_usable_folder_is_left_as_it_is(places):
    assert settle() == ""
    assert find_base() == places[0]
    assert os.environ["TMPDIR"] == str(places[0])
    assert tempfile.gettempdir() == str(places[0])


@pytest.mark.parametrize("damage", ["missing", "file", "everybody's"])
def test_an_unusable_folder_is_passed_over_and_named(places, damage):
    first, second = places
    if damage == "everybody's":  # without the sticky bit others could replace what is in it
        first.chmod(0o777)
    else:
        first.rmdir()
    if damage == "file":
        first.write_text("x")
    assert str(first) in settle()
    assert os.environ["TMPDIR"] == str(second)
    assert tempfile.gettempdir() == str(second)
    assert list(second.iterdir()) == []


def test_a_path_too_long_for_sockets_is_passed_over_by_ray_alone(tmp_path, monkeypatch):
    long = tmp_path / ("x" * LONGEST_BYTES)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.delenv("TEMP", raising=False)
    monkeypatch.delenv("TMP", raising=False)
    assert find_base() == long
    assert find_base(longest=LONGEST_BYTES) == Path("/tmp")


def test_without_any_folder_the_reason_and_the_variable_are_named(places):
    with pytest.raises(OSError, match="TMPDIR") as refused:
        find_base(needed=10**9 * MIB)
    assert all(str(place) in str(refused.value) for place in (*places, "/tmp", "/var/tmp"))


def test_a_folder_is_made_for_its_user_only(tmp_path):
    assert can_be_written(tmp_path / "a" / "b")
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/b")] == [0o700, 0o700]
    assert not can_be_written(Path("/proc/ganstudy"))
    (tmp_path / "shared").mkdir(mode=0o775)
    assert can_be_written(tmp_path / "shared")  # and left as it is
    assert (tmp_path / "shared").stat().st_mode & 0o077 != 0


def test_the_socket_name_that_is_reckoned_with_is_as_long_as_rays():
    """Ray's own names: session, 26 characters of time, the process; then its longest socket."""
    from ray._private.utils import validate_socket_filepath

    longest = "/" + "x" * (LONGEST_BYTES - 1) + temporary.SOCKET_NAME
    validate_socket_filepath(longest)
    with pytest.raises(OSError, match="AF_UNIX"):
        validate_socket_filepath(longest + "x")


def test_doctor_names_a_token_that_others_can_read(tmp_path, monkeypatch):
    from ganstudy.doctor import examine

    token = tmp_path / "token"
    token.write_text("0123")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    for mode, fine in ((0o644, False), (0o640, False), (0o600, True)):
        token.chmod(mode)
        [found] = [finding for finding in examine() if finding.what == "token of Ray clusters"]
        assert found.fine is fine
        assert str(token) in found.found
