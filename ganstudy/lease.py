"""Who drives a study that lies in an object store, where no file can be locked."""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from ganstudy.storage import create, read_text, store_errors, write_text

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
        """Let others drive; a store that is away lets them when the lease has expired."""
        self._released.set()
        with suppress(*store_errors()):
            if self._mine():
                self.path.unlink(missing_ok=True)

    def held(self) -> bool:
        """Whether anybody drives now."""
        found = self._read()
        return found is not None and not _expired(found)

    def _claim(self) -> str:
        who = {"node": platform.node(), "pid": os.getpid(), "owner": self._owner}
        process = {"machine": machine(), "started": started(os.getpid())}
        return json.dumps(who | process | {"renewed": time.time()})

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
                mine = self._mine()
                if mine and not self._released.is_set():
                    write_text(self.path, self._claim())
            except store_errors():
                continue  # away for a moment: the next renewal may do
            if not mine and not self._released.is_set():
                print(f"another process has taken the study {self.path.parent}", file=sys.stderr)
                os.kill(os.getpid(), signal.SIGTERM)
                return


def _expired(held: dict[str, Any]) -> bool:
    """Whether the holder is dead: it has long been silent, or was a process of this machine."""
    if time.time() - held["renewed"] > EXPIRE_SECONDS:
        return True
    return bool(held["machine"] == machine() and held["started"] != started(held["pid"]))


def machine() -> str:
    """Return what no other machine or container has: names and process ids repeat."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux: then nobody is known to be dead before the lease expires
        return uuid.uuid4().hex


def started(pid: int) -> str:
    """Return when a process began, in ticks since boot; empty if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]
