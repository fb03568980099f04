"""A full disk stops a study at once; no attempt is used up. A real file system of 20 MB."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ganstudy.storage import has_no_space
from ganstudy.store import FAILURE
from tests.conftest import ROOT, ganstudy
from tests.faults.studies import assert_same_rows

SIZE, LEFT = 20_000_000, 60_000
"""Bytes of the file system, and those left: enough for a study's small files, not for a state."""


@pytest.fixture
def disk(tmp_path):
    """A small file system of its own, which only root may mount."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("this container may not mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(place: Path) -> Path:
    """Fill a file system up to `LEFT` bytes; return the file that does."""
    filler = place / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(place).free - LEFT))
    return filler


def attempts(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.glob("trials/*/attempt-*"))


def test_a_full_disk_stops_the_study_at_once(studies, disk, recorder_here):
    folder = studies.copy("midway", disk)
    before, filler = attempts(folder), fill(disk)
    stopped = studies.resume(folder)
    assert stopped.exit_code == 1, stopped.output
    last = stopped.stderr.strip().splitlines()[-1]
    assert str(folder) in last
    assert "ganstudy resume" in last
    assert "Traceback" not in stopped.output
    assert "tried again" not in stopped.output
    assert not studies.running()
    assert not list(folder.rglob(FAILURE))
    assert len(attempts(folder)) == len(before) + 1
    filler.unlink()
    resumed = studies.resume(folder)
    assert resumed.exit_code == 0, resumed.output
    assert_same_rows(folder, studies.finished)
    assert not studies.running()


@pytest.mark.slow
def test_a_full_disk_stops_trials_on_ray(studies, disk):
    folder = studies.copy("midway", disk)
    before, filler = attempts(folder), fill(disk)
    command = ganstudy("resume", folder, "--tracking-uri", studies.uri)
    stopped = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert stopped.returncode == 1, stopped.stderr
    last = stopped.stderr.strip().splitlines()[-1]
    assert str(folder) in last
    assert "ganstudy resume" in last
    assert "Traceback" not in stopped.stderr
    assert not studies.running()
    assert not list(folder.rglob(FAILURE))
    assert len(attempts(folder)) <= len(before) + 2, "Tune may have begun the next one"
    filler.unlink()
    resumed = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert resumed.returncode == 0, resumed.stderr
    assert_same_rows(folder, studies.finished)


def test_a_full_disk_is_told_from_other_errors():
    full, other = OSError(28, "No space left on device"), OSError(27, "File too large")
    assert has_no_space(full)
    assert has_no_space(OSError(122, "Disk quota exceeded"))
    assert not has_no_space(other)
    assert not has_no_space(ValueError("No space"))
    wrapped = RuntimeError("a library's own")
    wrapped.__cause__ = full
    assert has_no_space(wrapped)
