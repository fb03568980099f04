"""A study leaves nothing in the temporary folder; what a killed one left, the next one removes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ganstudy.sweep.temporary import OWNER, PREFIX, private_folder, remove_abandoned
from tests.conftest import ROOT, ganstudy, write_yaml
from tests.processes import wait_for
from tests.sweep.test_executors import assert_same

HOLD = """
import sys, time
from pathlib import Path
from ganstudy.sweep.temporary import private_folder
with private_folder(Path(sys.argv[1])) as folder:
    (folder / "r").mkdir()
    (folder / "r" / "log").write_text("x")
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def place(monkeypatch):
    """A temporary folder with a path short enough for Ray."""
    with tempfile.TemporaryDirectory(prefix="gs", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


@pytest.fixture
def holder(place):
    """A process that holds a private folder, and the folder."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, place], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def test_a_private_folder_is_removed_at_its_end(place):
    with private_folder(place) as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "r").mkdir()
        (folder / "r" / "log").write_text("x")
        (folder / "latest").symlink_to(folder / "r")
    assert list(place.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_what_a_live_one_uses_is_kept(holder):
    process, folder = holder
    remove_abandoned()
    assert (folder / "r" / "log").exists()
    process.kill()
    process.wait()
    assert (folder / "r" / "log").exists()
    remove_abandoned()
    assert not folder.exists()


def test_what_is_not_ours_is_kept(place):
    """No folder without our lock file, no link, no file, and nobody else's folder."""
    (place / f"{PREFIX}bare").mkdir()
    (place / f"{PREFIX}file").write_text("x")
    target = place / "precious"
    target.mkdir()
    (target / OWNER).write_text("")
    (place / f"{PREFIX}link").symlink_to(target)
    kept = {f"{PREFIX}bare", f"{PREFIX}file", f"{PREFIX}link", "precious"}
    if os.geteuid() == 0:
        shutil.copytree(target, place / f"{PREFIX}foreign")
        os.chown(place / f"{PREFIX}foreign", 65534, 65534)
        kept.add(f"{PREFIX}foreign")
    remove_abandoned()
    assert {path.name for path in place.iterdir()} == kept
    assert (target / OWNER).exists()


def test_after_a_kill_the_next_call_cleans_up_and_leaves_nothing(tiny, tmp_path, place):
    """Killed while Ray runs: all that it left is gone after `resume`, and the rows are whole."""
    tiny["base"]["dataset"] = "ring"
    tiny["measure"]["features"] = "pixels"
    tiny["arms"] = {"a": {"loss": "hinge"}}
    study = write_yaml(tmp_path / "study.yaml", tiny)
    command = ganstudy("run", study, "--runs", tmp_path / "killed")
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as driver:
        try:
            wait_for(
                lambda: any(place.glob(f"{PREFIX}*/r/session_*/sockets/raylet")), "Ray runs", 500
            )
        finally:
            driver.kill()
    assert any(place.iterdir())
    for arguments in (
        ("resume", tmp_path / "killed" / "tiny"),
        ("run", study, "--runs", tmp_path / "whole", "--in-process"),
    ):
        done = subprocess.run(ganstudy(*arguments), cwd=ROOT, capture_output=True, timeout=280)
        assert done.returncode == 0, done.stderr
    assert list(place.iterdir()) == []
    assert_same(tmp_path / "killed" / "tiny", tmp_path / "whole" / "tiny")
