"""What the readers of files share: absolute paths, marks of files, one form of complaint."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator


def absolute(path: str) -> str:
    """Return the absolute form of `path`: trials run in other processes and folders."""
    return str(Path(path).expanduser().absolute())


AbsolutePath = Annotated[str, AfterValidator(absolute)]
"""A relative path is kept as the absolute one it means."""


def refused(path: Path | str, rule: str, remedy: str) -> ValueError:
    """Return the complaint about a file: its name, the rule it breaks, and the remedy."""
    return ValueError(f"{path}: {rule}; {remedy}")


def marks(paths: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Return path, size and time of change of every file: other files have other marks."""
    stats = [(str(path), path.stat()) for path in paths]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
