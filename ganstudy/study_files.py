"""Files that a study's tables and records name: only those inside the study's folder are opened.

Tables, records and plans may come from somebody else. A name in them that leads out of the folder
would put any file of this machine into a report or on a tracking server.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from ganstudy.checksums import DamagedFile
from ganstudy.limits import PNG_BYTES
from ganstudy.storage import is_remote, read_bytes

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
REMEDY = "ganstudy did not write it so: get the study again from a source that you trust"
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=+-]{0,199}")
"""Names of trials, configurations and files in a trial's folder."""


def is_plain_name(name: object) -> bool:
    """Return whether `name` names a file or a folder without leading anywhere else."""
    return isinstance(name, str) and PLAIN_NAME.fullmatch(name) is not None


def is_inside(name: object) -> bool:
    """Return whether `name`, as written, stays below the folder that it is relative to."""
    if not isinstance(name, str) or not name or "\0" in name or "\\" in name:
        return False
    return not name.startswith(("/", "~")) and "://" not in name and ".." not in name.split("/")


def resolve_name(folder: Path, name: object, source: str) -> Path:
    """Return the path that `name` means as it is written; see `resolve_inside`."""
    if not is_inside(name):
        problem = f"names the file {str(name)[:200]!r}, which lies outside the study's folder"
        raise DamagedFile(folder / source, REMEDY, problem)
    return folder / str(name)


def resolve_inside(folder: Path, name: object, source: str = "a table") -> Path:
    """Return the path of a file that a table or a record names.

    Args:
        folder: The study's folder.
        name: The file's name relative to `folder`.
        source: The file that holds the name, for the message.

    Raises:
        DamagedFile: If the name or a link leads out of `folder`.
    """
    path = resolve_name(folder, name, source)
    if is_remote(folder):
        return path
    root, real = os.path.realpath(folder), os.path.realpath(path)
    if not Path(real).is_relative_to(root):
        raise DamagedFile(path, REMEDY, "is a link that leads out of the study's folder")
    return path


def check_plan_row(row: Any) -> dict[str, Any]:
    """Return a row of the plan if it is one, else raise ValueError.

    The trial's id names its folder.
    """
    if not isinstance(row, dict):
        raise ValueError(f"it must be a mapping, got {str(row)[:50]!r}")
    for key in ("trial_id", "config_id", "arm"):
        if not is_plain_name(row.get(key)):
            raise ValueError(f"{key} must be a name, got {str(row.get(key))[:50]!r}")
    if not isinstance(row.get("seed"), int) or not isinstance(row.get("params"), dict):
        raise ValueError("seed must be a whole number, and params a mapping")
    for key, value in row["params"].items():
        if isinstance(value, int) and abs(value) >= 2**63:
            raise ValueError(f"params.{key} must fit into 64 bits")
    for key in ("study", "result_hash"):
        if not isinstance(row.get(key), str):
            raise ValueError(f"{key} must be a text, got {str(row.get(key))[:50]!r}")
    return row


def check_links(folder: Path) -> None:
    """Refuse a study's folder in which a link to another folder would be written to.

    Raises:
        DamagedFile: If a subfolder that trials write to is a link out of `folder`.
    """
    if is_remote(folder):
        return
    for place in (folder, folder / "trials"):
        if not place.is_dir():
            continue
        with os.scandir(place) as entries:
            links = [entry.name for entry in entries if entry.is_symlink()]
        for name in links:
            resolve_inside(folder, str((place / name).relative_to(folder)))


def read_png(path: Path) -> bytes | None:
    """Return the content of a picture; None where there is no PNG file.

    Args:
        path: A path from `resolve_inside`.
    """
    if not path.exists() or (not is_remote(path) and not path.is_file()):
        return None
    if path.stat().st_size > PNG_BYTES:
        return None
    content = read_bytes(path)
    return content if content.startswith(PNG_SIGNATURE) else None
