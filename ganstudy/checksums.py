"""The error for a file that is not as ganstudy wrote it."""

from __future__ import annotations

from typing import Any

RESTORE = "restore it from a copy"


class DamagedFile(ValueError):
    """A file is not as it was written: a bit flipped, or something is missing.

    Attributes:
        path: The file.
        remedy: What the user can do, with the command if there is one.
    """

    def __init__(self, path: object, remedy: str = RESTORE, problem: str = "is damaged") -> None:
        """Name the file, the remedy, and how the file differs from what was written."""
        super().__init__(f"{path} {problem}; {remedy}")
        self.path, self.remedy, self.problem = path, remedy, problem

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what pickle rebuilds the exception from: Ray sends it between processes."""
        return type(self), (self.path, self.remedy, self.problem)
