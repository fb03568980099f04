"""MLflow's file is created whole or not at all; one that is damaged is moved aside and rebuilt."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from ganstudy.sweep.recorder import Recorder
from ganstudy.tracking import StoreError, load, open_store
from ganstudy.tracking_store import find_corruption
from tests.conftest import ROOT
from tests.faults.study_folder import assert_whole, copy_store, make_study, read_store, sync
from tests.processes import wait_for

CREATOR = """
import os, sys
from pathlib import Path
from ganstudy.tracking import load, open_store
load()
import mlflow.store.tracking.sqlalchemy_store
for line in sys.stdin:  # in a fork each, which the test kills
    pid = os.fork()
    if pid == 0:
        open_store(Path(line.strip()), None, lambda kind, text: None)
        os._exit(0)
    print(pid, flush=True)
    os.waitpid(pid, 0)
    print("ended", flush=True)
"""
MOMENTS = (0, 1, 150_000, 450_000)
"""Sizes of the store that is being created at which its process is killed, in bytes."""
MORE_MOMENTS = tuple(range(50_000, 1_000_000, 50_000))


def note(kind: str, text: str) -> None:
    """Ignore what a person is told."""


@pytest.fixture(scope="module")
def creator():
    """A process that creates stores in forks: MLflow's import takes seconds."""
    process = subprocess.Popen(
        [sys.executable, "-c", CREATOR], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with process:
        yield process
        process.stdin.close()


def kill_while_creating(creator: subprocess.Popen, path: Path, size: int) -> None:
    """Begin to create a store and kill the process when its file has reached a size."""
    creator.stdin.write(f"{path}\n")
    creator.stdin.flush()
    pid = int(creator.stdout.readline())
    files = path, path.with_name("mlflow.db.new")

    def has_grown() -> bool:
        return any(file.exists() and file.stat().st_size >= size for file in files)

    wait_for(has_grown, f"{size} bytes are written")
    os.kill(pid, signal.SIGKILL)
    assert creator.stdout.readline() == "ended\n"


@pytest.fixture(scope="module")
def half_made(creator, tmp_path_factory) -> Path:
    """What a kill leaves of a store: some of its migrations."""
    path = tmp_path_factory.mktemp("killed") / "mlflow.db"
    for size in MOMENTS:
        kill_while_creating(creator, path, size)
        # Either no store or a whole one.
        assert not path.exists() or find_corruption(path) == ""
    return path.with_name("mlflow.db.new")


def test_kills_while_the_store_is_created_leave_none_or_a_whole_one(half_made, tmp_path):
    study = make_study(tmp_path / "runs" / "tiny")
    shutil.copy(half_made, tmp_path / "runs" / "mlflow.db.new")  # what the kill left
    assert sync(study.folder) == []
    assert_whole(tmp_path / "runs" / "mlflow.db")
    assert not list((tmp_path / "runs").glob("*.new*"))


@pytest.mark.slow
def test_kills_at_many_moments_of_the_creation(creator, tmp_path):
    path = tmp_path / "mlflow.db"
    for size in MORE_MOMENTS:
        kill_while_creating(creator, path, size)
        if path.exists():
            open_store(
                path, tmp_path, lambda kind, text: pytest.fail(text) if kind == "note" else 0
            )
            path.unlink()


@pytest.mark.parametrize("damage", ["half made", "garbage", "truncated"])
def test_a_store_that_cannot_be_used_is_moved_aside_and_rebuilt(
    damage, half_made, tracking_store, tmp_path
):
    study = make_study(tmp_path / "runs" / "tiny")
    store = copy_store(tracking_store, tmp_path / "runs")
    whole = store.read_bytes()
    content = {
        "half made": half_made.read_bytes(),
        "garbage": b"no database" * 1000,
        "truncated": whole[: len(whole) // 2],
    }[damage]
    store.write_bytes(content)
    (told,) = sync(study.folder)
    kept = store.with_name("mlflow.db.unusable-1")
    assert str(store) in told
    assert str(kept) in told
    # Killed between two migrations, the rest of them may still succeed.
    assert "ganstudy resume" in told or (damage == "half made" and "upgraded" in told)
    assert kept.read_bytes() == content
    assert_whole(store)
    assert sync(study.folder) == []


def test_an_empty_file_is_no_store_and_none_is_lost(tracking_store, tmp_path):
    """SQLite leaves an empty file where it was killed before its first table."""
    store = copy_store(tracking_store, tmp_path / "runs")
    store.rename(store.with_name("mlflow.db.new"))  # a leftover; it is not taken for a store
    store.touch()
    study = make_study(tmp_path / "runs" / "tiny")
    assert sync(study.folder) == []
    assert_whole(store)


@pytest.mark.parametrize("content", ["another database", "a text"])
def test_a_file_that_is_not_mlflows_stays_as_it_is(content, tmp_path):
    load()
    path = tmp_path / "elsewhere" / "precious.db"
    path.parent.mkdir()
    if content == "a text":
        path.write_text("a thesis" * 1000)
    else:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("CREATE TABLE letters (text)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match=str(path)) as refused:
        open_store(path, tmp_path / "runs", note)
    assert "--tracking-uri" in str(refused.value)
    assert path.read_bytes() == before
    assert {entry.name for entry in path.parent.iterdir()} <= {"precious.db", "precious.db.lock"}


def test_a_store_of_a_newer_mlflow_stays_as_it_is(tracking_store, tmp_path):
    study = make_study(tmp_path / "runs" / "tiny")
    store = copy_store(tracking_store, tmp_path / "runs")
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    before = store.read_bytes()
    with pytest.raises(StoreError, match=str(store)):
        sync(study.folder)
    assert store.read_bytes() == before


def test_a_locked_store_is_not_taken_for_a_damaged_one(tracking_store, tmp_path, monkeypatch):
    load()
    monkeypatch.setattr("ganstudy.tracking_store.BUSY_SECONDS", 0.1)
    store = copy_store(tracking_store, tmp_path / "runs")
    with closing(sqlite3.connect(store)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            open_store(store, store.parent, note)
    assert [path.name for path in store.parent.glob("*unusable*")] == []


def test_a_journal_of_a_deleted_store_is_not_applied_to_the_next(tracking_store, tmp_path):
    from ganstudy.tracking_store import publish

    store = copy_store(tracking_store, tmp_path)
    fresh = store.rename(store.with_name("mlflow.db.new"))
    store.with_name("mlflow.db-journal").write_bytes(b"old pages")
    publish(fresh, store)
    assert not store.with_name("mlflow.db-journal").exists()
    assert store.with_name("mlflow.db.unusable-1-journal").read_bytes() == b"old pages"
    assert find_corruption(store) == ""


def test_the_recorder_is_not_killed_while_it_creates_the_store(tmp_path, monkeypatch):
    monkeypatch.setattr("ganstudy.sweep.recorder.COMPACT_EVERY_SECONDS", 0.1)
    monkeypatch.setattr("ganstudy.sweep.recorder.REST_SECONDS", 0.2)
    study = make_study(tmp_path / "runs" / "tiny")
    store = tmp_path / "runs" / "mlflow.db"
    recorder = Recorder(study, f"sqlite:///{store}")
    with recorder:
        wait_for(lambda: recorder._opening.is_set(), "the store is being created")
        assert not store.exists()
    assert store.exists()
    recorder.finish()
    assert recorder.notes == []
    assert_whole(store)


def test_a_dead_recorder_is_told_once_with_its_reason_and_replaced(tracking_store, tmp_path):
    study = make_study(tmp_path / "runs" / "tiny")
    store = copy_store(tracking_store, tmp_path / "runs")
    said: list[str] = []
    recorder = Recorder(study, f"sqlite:///{store}", said.append)
    with recorder:
        os.kill(recorder._process.pid, signal.SIGKILL)
        wait_for(lambda: said, "the death is told")
    recorder.finish()
    (told,) = said
    assert "SIGKILL" in told
    assert recorder.notes == []
    assert_whole(store)


def test_a_recorder_that_cannot_live_is_told_once_with_its_reason(tmp_path, monkeypatch):
    """Its interpreter ends at once, every time."""
    study = make_study(tmp_path / "runs" / "tiny")
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit('no memory today')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    said: list[str] = []
    recorder = Recorder(study, f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}", said.append)
    recorder.finish()
    (told,) = said
    assert "no memory today" in told
    assert f"ganstudy resume {study.folder}" in told


def test_a_store_of_an_older_schema_is_upgraded_with_its_runs(tracking_store, tmp_path):
    load()
    from alembic import command
    from mlflow.store.db.utils import _get_alembic_config

    study = make_study(tmp_path / "runs" / "tiny")
    store = copy_store(tracking_store, tmp_path / "runs")
    sync(study.folder)
    before = read_store(store)
    older(store, lambda uri: command.downgrade(_get_alembic_config(uri), "-1"))
    (told,) = sync(study.folder)
    assert "mlflow.db.unusable-1" in told
    after = assert_whole(store)
    assert {t: run["id"] for t, run in after.items()} == {
        t: run["id"] for t, (run,) in before.items()
    }


def older(store: Path, downgrade) -> None:
    """Bring a store to the schema before the newest."""
    with closing(sqlite3.connect(store)) as connection:
        (newest,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    downgrade(f"sqlite:///{store}")
    with closing(sqlite3.connect(store)) as connection:
        (now,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    assert now != newest
