"""Progress of running trials: which trial is silent, and which one does not stop in its time.

A trial shows progress by every evaluation, and between evaluations by its file `progress`
(`ganstudy.trial`). The driver compares contents, never clocks of two machines, and adds up the
time that it has itself been awake. A clock that is set back, or a driver that was suspended, makes
no trial silent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ganstudy.display import duration
from ganstudy.records import TIME_LIMIT
from ganstudy.storage import store_errors
from ganstudy.store import StudyFolder, TrialFolder

if TYPE_CHECKING:  # `status` needs no torch
    from ganstudy.trial import TrialSpec

LOOK_SECONDS = 2.0
"""Least time between two looks at the running trials."""
READ_SECONDS = 10.0
"""Silence after which a trial's file is read."""
SILENT_SECONDS = 15 * 60.0
"""Least silence after which a trial is given up. Healthy trials show progress within seconds."""
UNMEASURED_SECONDS = 60 * 60.0
"""The same while no trial has been evaluated: how long an evaluation takes is not known yet."""
SILENT_GAPS = 20.0
"""A trial is silent after this many times the longest gap between two signs of progress so far."""
GRACE_SECONDS = 5 * 60.0
"""Least silence after which a trial whose time is up is ended from outside.

Until then, it may still come to its last evaluation and end by itself, with its score.
"""
GRACE_GAPS = 5.0
"""The same as a multiple of the longest gap so far."""
IDLE_SECONDS = 5 * 60.0
"""How long no trial runs before the user is told: for want of room, they wait for ever."""


class Overdue(NamedTuple):
    """A trial to be ended from outside."""

    trial: TrialSpec
    reason: str
    """TIME_LIMIT, or how long the trial has been silent."""


@dataclass
class _Running:
    """What is known of the process that runs a trial."""

    trial: TrialSpec
    folder: TrialFolder
    progress: str = ""
    silent: float = 0.0
    """Seconds since the last sign of progress."""


class Watch:
    """Tells silent trials from slow ones, by the gaps between signs of progress so far."""

    def __init__(self, folder: StudyFolder) -> None:
        """Watch trials that record in `folder`; none runs yet."""
        self._folder = folder
        self._running: dict[str, _Running] = {}
        self._used: dict[str, float] = {}
        """Seconds by trial, over all its attempts."""
        self._times: dict[str, int] = {}
        """How often a trial was found silent: its next attempt may be silent for longer."""
        self._longest = 0.0
        self._measured = False
        self._idle = 0.0
        self._looked = time.monotonic()

    def start(self, trial: TrialSpec) -> None:
        """Watch a trial that begins, or begins again."""
        folder = self._folder.trial(trial.trial_id)
        self._running[trial.trial_id] = _Running(trial, folder, _progress(folder) or "")
        if trial.minutes is not None and trial.trial_id not in self._used:
            self._used[trial.trial_id] = _recorded_seconds(folder)

    def note(self, trial_id: str) -> None:
        """Note that a trial was evaluated."""
        self._measured = True
        if (running := self._running.get(trial_id)) is not None:
            self._note_progress(running)

    def end(self, trial_id: str) -> None:
        """Stop watching a trial, whose process has ended or waits."""
        self._running.pop(trial_id, None)

    def look(self) -> list[Overdue]:
        """Return the trials to be ended from outside; they are no longer watched."""
        passed = time.monotonic() - self._looked
        if passed < LOOK_SECONDS:
            return []
        self._looked += passed
        passed = min(passed, 2 * LOOK_SECONDS)  # a driver that was stopped has not watched
        self._idle = 0.0 if self._running else self._idle + passed
        overdue = list(self._overdue(passed))
        for trial, _ in overdue:
            self.end(trial.trial_id)
        return overdue

    def idle(self) -> bool:
        """Whether no trial has been running for long; true once per such time."""
        if self._idle < IDLE_SECONDS:
            return False
        self._idle = -float("inf")
        return True

    def _overdue(self, passed: float) -> Iterator[Overdue]:
        for trial_id, running in self._running.items():
            running.silent += passed
            self._used[trial_id] = self._used.get(trial_id, 0.0) + passed
            if running.silent > READ_SECONDS:
                self._read(running)
            if self._out_of_time(running):
                yield Overdue(running.trial, TIME_LIMIT)
            elif running.silent > self._patience(trial_id):
                self._times[trial_id] = self._times.get(trial_id, 0) + 1
                yield Overdue(running.trial, self._reason(running))

    def _read(self, running: _Running) -> None:
        """Note progress if the trial's file has changed."""
        progress = _progress(running.folder)
        if progress is not None and progress != running.progress:
            running.progress = progress
            self._note_progress(running)

    def _note_progress(self, running: _Running) -> None:
        self._longest = max(self._longest, running.silent)
        running.silent = 0.0

    def _patience(self, trial_id: str) -> float:
        """Return after how many silent seconds a trial is given up."""
        least = SILENT_SECONDS if self._measured else UNMEASURED_SECONDS
        return float(2 ** self._times.get(trial_id, 0) * max(least, SILENT_GAPS * self._longest))

    def _out_of_time(self, running: _Running) -> bool:
        """Whether a trial's time is up and it does not end by itself."""
        minutes = running.trial.minutes
        if minutes is None or self._used[running.trial.trial_id] < 60 * minutes:
            return False
        grace = max(GRACE_SECONDS, GRACE_GAPS * self._longest)
        return running.silent > grace if self._measured else running.silent > grace + 60 * minutes

    def _reason(self, running: _Running) -> str:
        return (
            f"no sign of progress for {duration(running.silent)}; the longest gap of any trial "
            f"before was {duration(self._longest)}"
        )


def _progress(folder: TrialFolder) -> str | None:
    """Return how far a trial is, None if its file is damaged or cannot be read just now."""
    unreadable: tuple[type[Exception], ...] = (UnicodeDecodeError, *store_errors())
    try:
        return folder.progress()
    except unreadable:
        return None


def _recorded_seconds(folder: TrialFolder) -> float:
    """Return how long earlier attempts took, as far as they recorded it."""
    damaged: tuple[type[Exception], ...] = (ValueError, KeyError, TypeError, *store_errors())
    try:
        latest = folder.latest()
    except damaged:  # the trial itself deals with it
        return 0.0
    return 0.0 if latest is None else latest[1].result.seconds
