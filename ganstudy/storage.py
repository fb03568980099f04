"""Where studies lie: a folder of this machine or a network's, or a URI such as `s3://bucket/runs`.

Both are paths with pathlib's methods (a URI's come from universal_pathlib and fsspec). What
differs is here: writing all of a file or nothing, and making a file that must not be there yet.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from ganstudy.checksums import DamagedFile
from ganstudy.limits import UNSUSPICIOUS, available_memory

Writer = Callable[[Path], object]
"""Writes one file to the path it is given."""


def location(text: str | Path) -> Path:
    """Return the path that `text` names.

    Args:
        text: A path of this machine, or the URI of an object store: `s3://bucket/prefix`.

    Raises:
        ValueError: If what a URI needs is not installed, or nothing knows its scheme.
    """
    if not isinstance(text, str):
        return text
    if "://" not in text:
        return Path(text)
    try:
        from upath import UPath  # half a second, and only for URIs

        # Others write there too: a listing that is kept would hide their files.
        path = UPath(text, use_listings_cache=False)
        path.fs  # noqa: B018 - opens the file system, which imports what it needs
    except ImportError as error:
        scheme = text.partition("://")[0]
        needed = f"a package with fsspec's file system {scheme}"
        if scheme == "s3":
            needed = "the extra [s3]: pip install 'ganstudy[s3]'"
        raise ValueError(f"{scheme}:// needs {needed} ({error})") from None
    return cast(Path, path)


def store_errors() -> tuple[type[Exception], ...]:
    """Return what is raised when a store cannot be used: object stores have their own errors."""
    botocore: Any = sys.modules.get("botocore.exceptions")  # there once an s3:// URI was opened
    own = (botocore.BotoCoreError, botocore.ClientError) if botocore is not None else ()
    return (OSError, *own)


def reach(path: Path) -> None:
    """Look at `path` once, so that a store that cannot be used is told before anything starts.

    Raises:
        OSError: If it cannot be reached or may not be read, in one line.
    """
    if not is_remote(path):
        return
    remote = cast(Any, path)
    try:
        if not remote.fs.exists(remote.drive):
            raise FileNotFoundError(f"there is no bucket {remote.drive}")
    except Exception as error:  # every store has exceptions of its own
        told = (str(error).splitlines() or [""])[0]
        raise OSError(f"{path} cannot be reached: {type(error).__name__}: {told}") from None


def is_remote(path: Path) -> bool:
    """Whether `path` lies in an object store."""
    return not isinstance(path, Path)


def name_of(path: Path) -> str:
    """Return the absolute path or the URI, which any process of any node finds `path` by."""
    return str(path) if is_remote(path) else str(path.resolve())


def write_atomically(path: Path, write: Writer) -> None:
    """Let `write` fill a file aside and put it at `path`: all of it or nothing."""
    if is_remote(path):
        with tempfile.TemporaryDirectory() as folder:
            aside = Path(folder) / path.name
            write(aside)
            _put(aside, path)
        return
    # Not by tempfile: its files are readable by their owner only, and studies are shared.
    aside = path.with_name(f".{path.name}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        write(aside)
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def _put(source: Path, target: Path) -> None:
    """Upload a file: an object store shows an object when it is whole."""
    remote = cast(Any, target)
    remote.fs.put_file(str(source), remote.path)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, all of it or nothing."""
    write_atomically(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def create(path: Path, text: str) -> None:
    """Make the file `path`, which must not be there: of several processes only one succeeds.

    Raises:
        FileExistsError: If it is there.
    """
    if not is_remote(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(text.encode())


def read_bytes(path: Path) -> bytes:
    """Return all of a file.

    In one request: an object that is replaced between two would be refused at the second.

    Raises:
        FileNotFoundError: If it is not there.
        DamagedFile: If it is a device or a pipe, which never ends, or does not fit into memory.
    """
    if not is_remote(path):
        _check_regular(path)
        return path.read_bytes()
    remote = cast(Any, path)
    return bytes(remote.fs.cat_file(remote.path))


def _check_regular(path: Path) -> None:
    """Refuse what cannot be read to its end."""
    found = path.stat()
    kind = stat.S_IFMT(found.st_mode)
    if kind not in (stat.S_IFREG, stat.S_IFDIR):  # of a folder the reading itself complains
        raise DamagedFile(path, "remove it", "is a pipe or a device, not a file")
    if found.st_size > UNSUSPICIOUS and found.st_size > available_memory():
        problem = f"has {found.st_size} bytes, more than the memory that is available"
        raise DamagedFile(path, "use a machine with more memory", problem)


def read_text(path: Path) -> str:
    """Return all of a text file."""
    return read_bytes(path).decode("utf-8")


@contextmanager
def local_copy(path: Path) -> Iterator[Path]:
    """Give a file of this machine with the content of `path`, for libraries that need one."""
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        copy.write_bytes(read_bytes(path))
        yield copy


def names_in(folder: Path) -> list[str]:
    """Return the names of what lies in `folder`, none where it is not there."""
    try:
        return [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
