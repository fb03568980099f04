"""The recorder: compacts and tracks a study in the background while its trials run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from ganstudy.provenance import redact
from ganstudy.store import StudyFolder
from ganstudy.tracking import Tracker

COMPACT_EVERY_SECONDS = 5.0
COMPACT_SHARE = 0.05
"""Largest share of the driver's time that goes into compacting and tracking."""


class Recorder:
    """Compacts and syncs in a thread of the driver while trials run elsewhere."""

    def __init__(self, folder: StudyFolder, uri: str, say: Callable[[str], None]) -> None:
        """Watch over the study in `folder`."""
        self.folder, self.uri, self.say = folder, uri, say
        self.notes: list[str] = []
        self._tracker = Tracker(folder.folder, uri)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End after the round that is under way."""
        self._stop.set()
        self._thread.join(timeout=60)

    def _loop(self) -> None:
        wait = COMPACT_EVERY_SECONDS
        while not self._stop.wait(wait):
            begun = time.monotonic()
            self._round()
            spent = time.monotonic() - begun
            wait = max(COMPACT_EVERY_SECONDS, spent / COMPACT_SHARE)

    def _round(self) -> None:
        try:
            self.folder.compact(running=True)
        except Exception as error:  # a thread that dies would take the tables with it
            self._note(f"the tables could not be written: {error}; trials record on their own")
            return
        try:
            self._tracker.sync(running=True)
        except Exception as error:  # whatever MLflow raises must not touch the trials
            self._tracker = Tracker(self.folder.folder, self.uri)
            self._note(tracking_failed(self.uri, error, self.folder.folder))

    def _note(self, message: str) -> None:
        # One outage is told once, however its words vary.
        if message[:40] not in {note[:40] for note in self.notes}:
            self.notes.append(message)
            self.say(message)


def tracking_failed(uri: str, error: Exception, folder: Path) -> str:
    """Return what to tell the user when MLflow is away."""
    first = (str(error).splitlines() or [""])[0][:200]
    return redact(
        f"MLflow at {uri} cannot be written ({type(error).__name__}: {first}). No trial is "
        f"affected and every row is in {folder}; `ganstudy resume {folder}` catches up."
    )
