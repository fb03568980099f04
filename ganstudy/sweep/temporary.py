"""Temporary files: a folder that only its user can read, and the removal of what was left.

A call of a study that was killed leaves its folder behind. The next call of the same user removes
it: every folder holds a file that its process keeps locked, and the kernel frees the lock when the
process ends, whatever ends it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX, UNLOCKED = "ganstudy-", "ganstudy.new-"
OWNER = "owner.lock"
TOKEN = "token"  # noqa: S105 - a file's name
MIB = 1024**2
SPACE_BYTES = 48 * MIB
"""Temporary files of a call, by measurement: 3 MiB and 0.1 MiB a trial, logs of long studies."""
SOCKET_BYTES = 107 if sys.platform == "linux" else 103
"""Longest path of a unix socket."""
SOCKET_NAME = (
    "/ganstudy-12345678/r/session_2026-01-01_12-00-00_123456_1234567/sockets/plasma_store"
)
LONGEST_BYTES = SOCKET_BYTES - len(SOCKET_NAME)
"""Longest path of a folder that Ray's sockets may lie in."""
LAST_WRITES_SECONDS = 5.0
"""How long processes that were told to end may still write."""


def find_base(needed: int = SPACE_BYTES, longest: int | None = None) -> Path:
    """Return the first folder that temporary files can be written to: $TMPDIR or the system's.

    Args:
        needed: Bytes that must be free there.
        longest: Bytes that its path may have at most.

    Raises:
        OSError: If there is none, with the reason for each and the variable to set.
    """
    problems = []
    for folder in _candidates():
        problem = _problem(folder, needed, longest)
        if not problem:
            return folder
        problems.append(f"{folder}: {problem}")
    short = "" if longest is None else f", whose path has at most {longest} bytes"
    raise OSError(
        f"no temporary file can be written ({'; '.join(problems)}): set TMPDIR to a folder of "
        f"this machine with {needed / MIB:.0f} MB free{short}"
    )


def _candidates() -> list[Path]:
    """Return where temporary files may go, by preference."""
    chosen = (os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    places = [*filter(None, chosen), "/tmp", "/var/tmp"]  # noqa: S108 - in private folders
    return list(dict.fromkeys(Path(place).absolute() for place in places))


def _problem(folder: Path, needed: int, longest: int | None) -> str:
    """Return why no private folder can be made in `folder`, empty if it can."""
    path_bytes = len(os.fsencode(folder))
    if longest is not None and path_bytes > longest:
        return f"its path has {path_bytes} bytes, too many for Ray's sockets"
    try:
        mode = folder.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            return "every user may replace files there (chmod +t)"
        os.rmdir(tempfile.mkdtemp(prefix=UNLOCKED, dir=folder))
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return error.strerror or str(error)
    return f"{free / MIB:.1f} MB free, {needed / MIB:.0f} MB needed" if free < needed else ""


def can_be_written(folder: Path) -> bool:
    """Whether files can be made in a folder; a missing one is made, for this user only."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        for place in reversed(missing):
            place.mkdir(mode=0o700, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def settle(needed: int = SPACE_BYTES) -> str:
    """Direct this process's temporary files, and its children's, to where there is room.

    Returns:
        What to tell the user, empty if all stays as it is.

    Raises:
        OSError: If there is no such folder.
    """
    base = find_base(needed)
    preferred = _candidates()[0]
    if base == preferred:
        return ""
    os.environ["TMPDIR"] = str(base)
    tempfile.tempdir = None  # Python keeps its first choice
    return f"TMPDIR={preferred}: {_problem(preferred, needed, None)}; temporary files go to {base}"


@contextmanager
def private_folder(base: Path) -> Iterator[Path]:
    """Give a folder in `base` that only this user can read, and remove it after the block.

    First, what killed calls of this user left is removed.
    """
    remove_abandoned()
    made = Path(tempfile.mkdtemp(prefix=UNLOCKED, dir=base))  # mode 0700, whatever the umask is
    lock = FileLock(made / OWNER, mode=0o600)
    lock.acquire()
    # Renamed once it is locked: others take a folder of this name without lock for abandoned.
    folder = made.rename(made.with_name(made.name.replace(UNLOCKED, PREFIX)))
    try:
        yield folder
    finally:
        _remove(folder)
        lock.release(force=True)


def remove_abandoned() -> None:
    """Remove the private folders of this user whose process has ended."""
    for base in _candidates():
        try:
            folders = list(base.glob(f"{PREFIX}*"))
        except OSError:
            continue
        for folder in folders:
            with suppress(OSError):
                if _is_abandoned(folder):
                    shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    """Whether the folder is one of ours and no process holds its lock."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        return False
    if not (folder / OWNER).is_file():  # not made by us, or about to be removed by its owner
        return False
    try:
        with FileLock(folder / OWNER, timeout=0, mode=0o600):
            return True
    except Timeout:
        return False


def _remove(folder: Path) -> None:
    """Delete a folder that processes may write to which were told to end a moment ago."""
    deadline = time.monotonic() + LAST_WRITES_SECONDS
    while folder.exists() and time.monotonic() < deadline:
        # The lock goes last: what remains of a folder without it would stay for ever.
        for path in list(folder.iterdir()):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != OWNER:
                path.unlink(missing_ok=True)
        if [path.name for path in folder.iterdir()] == [OWNER]:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            time.sleep(0.2)


def write_token(folder: Path) -> Path:
    """Write a new random token that only this user can read, and return its path."""
    path = folder / TOKEN
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    return path
