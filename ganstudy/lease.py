"""Who drives a study that lies in an object store, where no file can be locked."""

from __future__ import annotations

import json
import os
import platform
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from ganstudy.storage import create, read_text, write_text

RENEW_SECONDS = 15.0
EXPIRE_SECONDS = 60.0
"""A lease that was not renewed for so long is free: its driver is dead or cut off."""
SETTLE_SECONDS = 1.0
"""Two drivers that take over an expired lease at once see by then whose word came last."""


class Lease:
    """A small object that says who drives; renewed by a thread while it is held.

    Clocks of drivers must agree within half a minute, which any that is set by network does.
    """

    def __init__(self, path: Path) -> None:
        """Watch over the object at `path`."""
        self.path = path
        self._owner = uuid.uuid4().hex
        self._released = threading.Event()

    def acquire(self) -> None:
        """Become the holder.

        Raises:
            BlockingIOError: If somebody else holds it.
        """
        try:
            create(self.path, self._claim())
        except FileExistsError:
            self._take_over()
        self._released.clear()
        threading.Thread(target=self._renew, name="lease", daemon=True).start()

    def _take_over(self) -> None:
        held = self._read()
        if held is not None and not _expired(held):
            ago = time.time() - held["renewed"]
            raise BlockingIOError(
                f"{held['node']} (process {held['pid']}) drives the study {self.path.parent}, as "
                f"it said {ago:.0f} s ago; if it is dead, the study is free "
                f"{EXPIRE_SECONDS:.0f} s after its last word"
            )
        write_text(self.path, self._claim())
        time.sleep(SETTLE_SECONDS)
        if not self._mine():
            raise BlockingIOError(f"another process has just taken the study {self.path.parent}")

    def release(self) -> None:
        """Let others drive."""
        self._released.set()
        if self._mine():
            self.path.unlink(missing_ok=True)

    def held(self) -> bool:
        """Whether anybody drives now."""
        found = self._read()
        return found is not None and not _expired(found)

    def _claim(self) -> str:
        who = {"node": platform.node(), "pid": os.getpid(), "owner": self._owner}
        return json.dumps(who | {"renewed": time.time()})

    def _read(self) -> dict[str, Any] | None:
        try:
            found = json.loads(read_text(self.path))
        except (FileNotFoundError, ValueError):
            return None
        return dict(found)

    def _mine(self) -> bool:
        found = self._read()
        return found is not None and found["owner"] == self._owner

    def _renew(self) -> None:
        while not self._released.wait(RENEW_SECONDS):
            try:
                if self._mine() and not self._released.is_set():
                    write_text(self.path, self._claim())
            except OSError:
                continue  # a store that is away for a moment: the next renewal may do


def _expired(held: dict[str, Any]) -> bool:
    """Whether the holder is dead: it has long been silent, or was a process of this machine."""
    if time.time() - held["renewed"] > EXPIRE_SECONDS:
        return True
    if held["node"] != platform.node():
        return False
    try:
        os.kill(held["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it lives, and is another user's
        return False
    return False
