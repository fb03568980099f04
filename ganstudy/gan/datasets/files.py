"""What the readers of files share: absolute paths, marks of files, one form of complaint."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema


def absolute(path: str, folder: Path | None = None) -> str:
    """Return the absolute form of `path`: trials run in other processes and folders.

    `~` stands for the home of whoever runs this; variables of the environment are not expanded.

    Args:
        path: A path of this machine.
        folder: What a relative path is relative to; the working directory unless given.

    Raises:
        ValueError: For a URI: data are read from the file system.
    """
    if "://" in path:
        raise ValueError("must be a path of this machine, not a URI: copy or mount the files")
    joined = Path(folder or "", Path(path).expanduser())
    plain, real = os.path.abspath(joined), os.path.realpath(joined)
    # Behind a link `..` is the folder above the link's target.
    return plain if os.path.realpath(plain) == real else real


AbsolutePath = Annotated[
    str, AfterValidator(absolute), WithJsonSchema({"type": "string", "format": "path"})
]
"""A relative path becomes an absolute one; the schema's format marks it as a path."""


def refused(path: Path | str, rule: str, remedy: str) -> ValueError:
    """Return the complaint about a file: its name, the rule it breaks, and the remedy."""
    return ValueError(f"{path}: {rule}; {remedy}")


def marks(paths: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Return path, size and time of change of every file: other files have other marks."""
    stats = [(str(path), path.stat()) for path in paths]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
