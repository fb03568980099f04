"""Where studies lie: a folder of this machine or a network's, or a URI such as `s3://bucket/runs`.

Both are paths with pathlib's methods (a URI's come from universal_pathlib and fsspec). What
differs is here: writing all of a file or nothing, and making a file that must not be there yet.

Files that results depend on carry a checksum (`ganstudy.checksums`): `write_checked`,
`write_json` and `write_lines` add it, and their readers raise `DamagedFile` where it does not fit.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from ganstudy.checksums import (
    RESTORE,
    add_checksum,
    is_intact,
    is_intact_table,
    strip_checksum,
)
from ganstudy.checksums import (
    DamagedFile as DamagedFile,
)
from ganstudy.limits import UNSUSPICIOUS, available_memory

EDITED = "# edited by hand"
"""Last line of a `study.yaml` that somebody edited, in place of its checksum."""
Writer = Callable[[Path], object]
"""Writes one file to the path it is given."""
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a disk, or of a user's share of it, that is full."""


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
    """Let `write` fill a file aside and put it at `path`: all of it or nothing.

    Once this returns the file outlives a power failure.
    """
    write_together(path.parent, {path.name: write})


def write_together(folder: Path, files: Mapping[str, Writer]) -> None:
    """Write files of one folder, each all of it or nothing.

    Each file is synchronised before its rename, and the folder once after the last: a file that
    is written after this returns never outlives one of these in a power failure.

    Args:
        folder: Where they go.
        files: Name -> what writes the file.
    """
    if is_remote(folder):
        with tempfile.TemporaryDirectory() as place:
            for name, write in files.items():
                aside = Path(place) / name
                write(aside)
                _put(aside, folder / name)
        return
    for name, write in files.items():
        # Not by tempfile: its files are readable by their owner only, and studies are shared.
        aside = folder / f".{name}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        try:
            write(aside)
            sync(aside)
            os.replace(aside, folder / name)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
    sync(folder)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk.

    Raises:
        OSError: If the disk fails. That a folder cannot be synchronised is no failure.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder that may be written and not listed
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


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
        make_folder(path.parent)
    with path.open("xb") as file:
        file.write(text.encode())
    if not is_remote(path):
        sync(path)
        sync(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder with those above it; on a disk they outlive a power failure."""
    remote = is_remote(folder)
    new = [] if remote else [f for f in (folder, *folder.parents) if not f.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in new:
        sync(made.parent)


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


def write_checked(path: Path, content: bytes) -> None:
    """Write a file with its checksum, all of it or nothing."""
    checked = add_checksum(path.name, content)
    write_atomically(path, lambda aside: aside.write_bytes(checked))


def read_checked(path: Path, remedy: str = RESTORE) -> bytes:
    """Return all bytes of a file, its checksum among them.

    Args:
        path: The file; its name's suffix tells the format.
        remedy: What the user can do if it is damaged.

    Raises:
        DamagedFile: If the file does not fit its checksum, or has none.
        FileNotFoundError: If it is not there.
    """
    content = read_bytes(path)
    if not is_intact(path.name, content):
        raise DamagedFile(path, remedy)
    return content


def read_checked_text(path: Path, remedy: str = RESTORE) -> str:
    """Return a text file without its checksum; see `read_checked`."""
    return strip_checksum(path.name, read_checked(path, remedy)).decode()


def write_json(path: Path, content: Mapping[str, Any], *, indent: int | None = 1) -> None:
    """Write a JSON object with its checksum, all of it or nothing."""
    kept = {key: value for key, value in content.items() if key != "sha256"}
    text = json.dumps(kept, indent=indent, sort_keys=indent is not None)
    write_checked(path, text.encode())


def read_json(path: Path, remedy: str = RESTORE) -> dict[str, Any]:
    """Return a JSON object without its checksum; see `read_checked`."""
    return parse_json(path, read_checked(path, remedy), remedy)


def parse_json(path: Path, content: bytes, remedy: str = RESTORE) -> dict[str, Any]:
    """Return the object in the verified bytes of the JSON file `path`."""
    try:
        found = dict(json.loads(content))
    except (ValueError, TypeError, RecursionError):
        raise DamagedFile(path, remedy, "is no JSON object") from None
    found.pop("sha256", None)
    return found


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON objects, one a line, with a checksum, all of it or nothing."""
    text = "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)
    write_checked(path, text.encode())


def read_lines(path: Path, remedy: str = RESTORE) -> list[dict[str, Any]]:
    """Return JSON objects, one a line; see `read_checked`."""
    text = read_checked_text(path, remedy)
    try:
        return [dict(json.loads(line)) for line in text.splitlines()]
    except (ValueError, TypeError, RecursionError):
        raise DamagedFile(path, remedy, "holds a line that is no JSON object") from None


def write_settings(path: Path, text: str) -> None:
    """Write a study's resolved settings, `study.yaml`, with their checksum."""
    write_checked(path, text.encode())


def read_settings(path: Path) -> str:
    """Return the text of the `study.yaml` in a study's folder.

    People may edit it. They say so in its last line, where the checksum was: a file whose end is
    missing cannot say so.

    Raises:
        DamagedFile: If it was changed and does not say that it was edited.
        FileNotFoundError: If it is not there.
    """
    content = read_bytes(path)
    if content.rstrip().endswith(b"\n" + EDITED.encode()):
        return content.decode()
    if not is_intact(path.name, content):
        remedy = f"replace its last line by `{EDITED}` if you edited it, else {RESTORE}"
        raise DamagedFile(path, remedy, "was edited or damaged")
    return content.decode()


@contextmanager
def open_checked_table(path: Path, remedy: str = RESTORE) -> Iterator[IO[bytes]]:
    """Open a verified parquet table, to read it in parts.

    What is verified is what is read: the file stays open in between, so that one that replaces it
    meanwhile is not seen. An object is fetched first, in one request.

    Raises:
        DamagedFile: If the table does not fit its checksum, or has none.
    """
    with local_copy(path) as copy, copy.open("rb") as file:
        if not is_intact_table(file):
            raise DamagedFile(path, remedy)
        yield file


def modified(path: Path) -> float:
    """Return when a file was last written, in seconds since the epoch by its store's clock.

    Raises:
        FileNotFoundError: If it is not there.
    """
    if not is_remote(path):
        return path.stat().st_mtime
    remote = cast(Any, path)
    return float(remote.fs.modified(remote.path).timestamp())


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


def free_name(path: Path, suffix: str) -> Path:
    """Return `path` with a suffix that no file beside it has: `.damaged`, `.damaged-2`, ..."""
    used = set(names_in(path.parent))
    number, name = 1, f"{path.name}.{suffix}"
    while name in used:
        number += 1
        name = f"{path.name}.{suffix}-{number}"
    return path.with_name(name)


def rename(source: Path, target: Path) -> None:
    """Rename a file or a folder."""
    if is_remote(source):
        remote = cast(Any, source)
        remote.fs.mv(remote.path, cast(Any, target).path, recursive=True)
    else:
        source.rename(target)


def has_no_space(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that a disk is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            return True
        error = getattr(error, "cause", None) or error.__cause__ or error.__context__
    return False


def full_disk(folder: Path, error: BaseException) -> OSError:
    """Return the error that ends a study whose disk is full, in one line.

    Args:
        folder: The study's folder.
        error: What was raised where a file could not be written. From Ray it comes with a
            traceback before its message.
    """
    free = ""
    if not is_remote(folder):
        usage = shutil.disk_usage(folder)
        free = f" ({usage.free / 1e6:.1f} of {usage.total / 1e6:.1f} MB are free)"
    message = (str(error).strip().splitlines() or [""])[-1]
    return OSError(f"the disk is full{free}: {message}")
