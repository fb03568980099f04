"""Arrays in a folder, decoded once and then mapped: one copy for all processes of a node."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from ganstudy.checksums import DamagedFile
from ganstudy.storage import read_json, write_atomically, write_json

INDEX = "index.json"
"""Written last: the arrays that make the folder whole, with the SHA-256 of each file."""
LOCK = ".lock"
Arrays = dict[str, NDArray[Any]]


def shared(folder: Path, make: Callable[[], Arrays]) -> Arrays:
    """Return what `make` makes, mapped from `folder` where any process made it before.

    The mapping is copy-on-write: pages are shared through the page cache until a process writes
    to one, which then is its own. Of processes that start at once one makes the arrays and the
    others wait for it. A folder that cannot be written, or was damaged, costs the time to make
    the arrays anew.
    """
    found = _mapped(folder)
    if found is not None:
        return found
    with alone(folder / LOCK):
        found = _mapped(folder)
        return _kept(folder, make()) if found is None else found


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Run a block in one process at a time; in all at once where no lock can be had.

    Args:
        lock: A file of its own, made with its folder and left there.
    """
    held = FileLock(lock)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held.acquire()
    except (OSError, NotImplementedError):
        yield
        return
    try:
        yield
    finally:
        held.release()


def _kept(folder: Path, arrays: Arrays) -> Arrays:
    """Write `arrays` and return them mapped, or as they are where that cannot be."""
    try:
        digests = {}
        for name, array in arrays.items():
            write_atomically(folder / f"{name}.npy", partial(_save, array=array))
            digests[name] = _sha256(folder / f"{name}.npy")
        write_json(folder / INDEX, {"arrays": digests})
    except OSError:
        return arrays
    found = _mapped(folder)
    return arrays if found is None else found


def _mapped(folder: Path) -> Arrays | None:
    """Return the arrays of a whole folder; None where one is missing or damaged."""
    arrays = {}
    try:
        for name, digest in read_json(folder / INDEX)["arrays"].items():
            path = folder / f"{name}.npy"
            # Mapped first: what replaces the file meanwhile has another digest at worst.
            arrays[name] = np.load(path, mmap_mode="c")
            if _sha256(path) != digest:
                return None
    except (OSError, EOFError, DamagedFile, ValueError, KeyError, AttributeError):
        return None
    return arrays


def _sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex: 0.7 s a GB."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _save(path: Path, array: NDArray[Any]) -> None:
    # Given a path, numpy would add a suffix to it.
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)
