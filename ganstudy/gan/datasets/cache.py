"""Arrays in a folder, decoded once and then mapped: one copy for all processes of a node."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from ganstudy.storage import write_atomically, write_text

INDEX = "index.json"
"""Written last: the names of the arrays that make the folder whole."""
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
        for name, array in arrays.items():
            write_atomically(folder / f"{name}.npy", partial(_save, array=array))
        write_text(folder / INDEX, json.dumps(sorted(arrays)))
    except OSError:
        return arrays
    found = _mapped(folder)
    return arrays if found is None else found


def _mapped(folder: Path) -> Arrays | None:
    """Return the arrays of a whole folder, or None."""
    try:
        names = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        return {name: np.load(folder / f"{name}.npy", mmap_mode="c") for name in names}
    except (OSError, EOFError, ValueError, TypeError):
        return None


def _save(path: Path, array: NDArray[Any]) -> None:
    # Given a path, numpy would add a suffix to it.
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)
