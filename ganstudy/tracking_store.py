"""The SQLite file of MLflow's store: lock, check, move aside, correct after a move.

MLflow itself stays in `ganstudy.tracking`; this module reads the file by sqlite3.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from filelock import FileLock

SQLITE = "sqlite:///"
"""How the URI of MLflow's file begins; the path follows."""
OWN_STORE = "mlflow.db"
"""The file that all studies of a runs folder share unless another store is named."""
ARTIFACTS_FOLDER = "mlartifacts"
"""Beside the file: the artifacts of its runs."""
FOLDER_TAG = "ganstudy.folder"
"""Tag of each run: where its study lies. It finds the runs of studies that have no id yet."""
COMPANIONS = ("-journal", "-wal", "-shm")
"""Suffixes of the files that SQLite keeps beside a database."""
UNFINISHED = ".new"
"""Suffix of a store that is being created."""
LOCK_SECONDS = 300.0
"""How long to wait for another process that creates, checks or repairs the same store."""
BUSY_SECONDS = 60.0
"""How long to wait for another process that writes to the database."""
MLFLOW_MARK = b"experiments_lifecycle_stage"
"""A constraint of MLflow's first table: no other application's database holds this name."""


def store_path(uri: str) -> Path | None:
    """Return the path of the file that a tracking URI names, None for any other store."""
    path = uri.removeprefix(SQLITE).partition("?")[0]
    if not uri.startswith(SQLITE) or path in ("", ":memory:"):
        return None
    return Path(path).resolve()


def artifacts_folder(path: Path) -> Path:
    """Return the folder of the artifacts that belong to the store at `path`."""
    return path.parent / ARTIFACTS_FOLDER


@contextmanager
def lock_store(path: Path) -> Iterator[None]:
    """Let one process at a time create, check or repair the store at `path`.

    Raises:
        OSError: If another process holds the lock for minutes, or the folder is read-only.
    """
    with FileLock(f"{path}.lock", timeout=LOCK_SECONDS):
        yield


def connect(path: Path) -> sqlite3.Connection:
    """Open an existing database; a journal that a killed process left is rolled back."""
    uri = f"file:{quote(str(path))}?mode=rw"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)


def find_corruption(path: Path) -> str:
    """Return why the file is no sound SQLite database, empty if it is one.

    Raises:
        sqlite3.OperationalError: If the file cannot be read now: locked, no permission.
    """
    try:
        with closing(connect(path)) as connection:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and not is_corruption(error):
            raise
        return str(error)
    return "" if found == "ok" else str(found)


def is_corruption(error: sqlite3.Error) -> bool:
    """Whether SQLite blames the content of a file, not a lock, a permission or the disk."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    kinds = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB,
             sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_CONSTRAINT)  # fmt: skip
    return code in kinds


def read_revision(path: Path) -> str | None:
    """Return the revision of the schema of a store, None if no migration has ended."""
    with closing(connect(path)) as connection:
        try:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.OperationalError as error:  # no such table
            if not is_corruption(error):
                raise
            return None
    return None if row is None else str(row[0])


def copy_database(source: Path, target: Path) -> None:
    """Copy a database while others may write to it."""
    with closing(connect(source)) as original, closing(sqlite3.connect(target)) as copy:
        original.backup(copy)


def is_mlflows(path: Path) -> bool:
    """Whether a file, sound or not, holds tables of MLflow."""
    # In pieces that overlap: the file may be large.
    with path.open("rb") as file:
        tail = b""
        while piece := file.read(1 << 20):
            if MLFLOW_MARK in tail + piece:
                return True
            tail = piece[-len(MLFLOW_MARK) :]
    return False


def move_aside(path: Path) -> Path:
    """Rename a store and what SQLite keeps beside it; return the new path.

    The companions go first: a journal that stayed would be applied to the next store.
    """
    number = 1
    while (target := path.with_name(f"{path.name}.unusable-{number}")).exists():
        number += 1
    for suffix in (*COMPANIONS, ""):
        source = Path(f"{path}{suffix}")
        if source.exists():
            os.rename(source, f"{target}{suffix}")
    return target


def remove_unfinished(path: Path) -> Path:
    """Delete what a killed process left of a store that it was creating; return its path."""
    unfinished = path.with_name(path.name + UNFINISHED)
    for suffix in ("", *COMPANIONS):
        Path(f"{unfinished}{suffix}").unlink(missing_ok=True)
    return unfinished


def publish(unfinished: Path, path: Path) -> None:
    """Put a whole store at `path`; after a power cut it is there whole or not at all."""
    for suffix in COMPANIONS:  # left by a store that somebody deleted
        if Path(f"{path}{suffix}").exists():
            move_aside(path)
            break
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(unfinished, path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def relocate(path: Path) -> None:
    """Correct the addresses in a store that was moved or copied: of artifacts and of studies.

    MLflow records them as absolute `file:` URIs. Those of ganstudy have the form
    `<folder of the store>/mlartifacts/<study>`; MLflow's own end in the experiment's number and
    stay. One transaction changes all of them.
    """
    root = artifacts_folder(path).as_uri()
    with closing(connect(path)) as connection, connection:
        rows = connection.execute("SELECT experiment_id, artifact_location FROM experiments")
        for experiment, old in rows.fetchall():
            folder, _, name = (old or "").rpartition("/")
            own = folder.startswith("file:") and folder.endswith(f"/{ARTIFACTS_FOLDER}")
            if not own or folder == root or name == str(experiment):
                continue
            connection.execute(
                "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
                (f"{root}/{name}", experiment),
            )
            connection.execute(
                "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
                "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
                (f"{root}/{name}", len(old) + 1, experiment, len(old) + 1, f"{old}/"),
            )
            runs = str(Path(unquote(urlsplit(folder).path)).parent)
            connection.execute(
                "UPDATE tags SET value = ? || substr(value, ?) "
                "WHERE key = ? AND substr(value, 1, ?) = ? "
                "AND run_uuid IN (SELECT run_uuid FROM runs WHERE experiment_id = ?)",
                (
                    str(path.parent),
                    len(runs) + 1,
                    FOLDER_TAG,
                    len(runs) + 1,
                    f"{runs}/",
                    experiment,
                ),
            )
