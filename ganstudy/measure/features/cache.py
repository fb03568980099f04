"""Weights and statistics that are kept between studies, under a hash of all they depend on."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganstudy.checksums import RESTORE, DamagedFile, append_checksum
from ganstudy.gan.datasets.cache import alone
from ganstudy.storage import (
    is_remote,
    read_checked,
    write_atomically,
)
from ganstudy.store import cache_folder

Content = dict[str, Any]
"""What torch.load reads with `weights_only`."""
UNREADABLE = (EOFError, RuntimeError, ValueError, pickle.UnpicklingError)
"""What torch.load raises for a whole file that is none of torch's, or holds more than tensors."""


def write_torch(path: Path, content: object) -> None:
    """Write `content` by torch.save, with a checksum.

    By way of memory: on a full disk torch.save's own message says nothing of the disk.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    append_checksum(buffer)
    path.write_bytes(buffer.getbuffer())


def read_torch(path: Path, remedy: str = RESTORE) -> Any:
    """Return what `write_torch` wrote, on the CPU.

    torch.load itself passes over the checksums of its archive: it would read a flipped bit, or a
    block of zeros, as weights.

    Args:
        path: The file.
        remedy: What the user can do if it is damaged.

    Raises:
        DamagedFile: If the file does not fit its checksum, has none, or holds more than tensors
            and plain data.
        FileNotFoundError: If it is not there.
    """
    content = io.BytesIO(read_checked(path, remedy))
    try:
        return torch.load(content, map_location="cpu", weights_only=True)
    except UNREADABLE:
        raise DamagedFile(path, remedy, "holds no tensors that can be loaded") from None


def content_hash(*parts: bytes | Tensor | str) -> str:
    """Return 16 hex digits that depend on every part."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(str((tuple(part.shape), part.dtype)).encode())
            part = part.contiguous().numpy().tobytes()
        digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def cached(name: str, folder: Path | None, make: Callable[[], Content]) -> Content:
    """Return what `make` makes, from `folder` or the user's cache where it was made before.

    A study keeps its own copy in `folder`, so that every node reads the same weights. Of
    processes that ask at once one makes the content and the others wait for it, all at once make
    it where no lock can be had. A file that was damaged is made anew.

    Raises:
        OSError: If `folder` cannot be written. A user's cache that cannot costs only time.
    """
    shared = _in_user_cache(name)
    in_cache = partial(_from, shared, make, must_keep=False)
    if folder is not None and is_remote(folder):
        return _fetched(folder / name, in_cache)
    if folder is None or (folder / name).absolute() == shared:
        return in_cache()
    return _from(folder / name, in_cache, must_keep=True)


def read_user_cache(name: str) -> Content | None:
    """Read a file of the user's cache; None where it is missing or damaged."""
    return _whole(_in_user_cache(name))


def _in_user_cache(name: str) -> Path:
    return cache_folder() / "features" / name


def _fetched(place: Path, make: Callable[[], Content]) -> Content:
    """Return the content of an object, fetched once per node; made and stored where it is not."""
    if not place.exists():
        write_atomically(place, partial(write_torch, content=make()))
    # By what the store says of this very object, since a study can be deleted and begun anew.
    here = cache_folder() / "fetched" / f"{content_hash(str(place), str(place.stat().st_mtime))}"

    def fetch() -> Content:
        return _content(place)

    return _from(here, fetch, must_keep=False)


def _from(place: Path, make: Callable[[], Content], must_keep: bool) -> Content:
    """Return the content of the file `place`, made and written first where it must be."""
    found = _whole(place)
    if found is not None:
        return found
    with alone(place.with_name(f".{place.name}.lock")):
        found = _whole(place)
        if found is None:
            found = make()
            _keep(place, found, must_keep)
    return found


def _keep(place: Path, content: Content, must_keep: bool) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place, partial(write_torch, content=content))
    except OSError:
        if must_keep:
            raise


def _whole(place: Path) -> Content | None:
    """Return the content of the file `place`; None where it is missing or damaged."""
    try:
        return _content(place)
    except (OSError, DamagedFile):
        return None


def _content(place: Path) -> Content:
    """Return the content of the file `place`.

    Raises:
        DamagedFile: If it is damaged.
        OSError: If it cannot be read.
    """
    remedy = "delete it: it is made anew"
    content = read_torch(place, remedy)
    if not isinstance(content, dict):
        raise DamagedFile(place, remedy, "is no cache file")
    return content
