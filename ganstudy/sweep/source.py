"""Where an executor gets its trials from, and whom it tells what becomes of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from ganstudy.trial import Heartbeat, TrialSpec


class Source(Protocol):
    """Hands out trials one by one: a fixed plan, or an adaptive search."""

    def next(self) -> TrialSpec | None:
        """Return the next trial, None when there is none left."""

    def tell(self, trial: TrialSpec) -> None:
        """Hear that a trial has ended, in whichever way its folder says."""

    def __len__(self) -> int:
        """Return how many trials it will hand out in all."""


class ClusterError(RuntimeError):
    """The cluster is not there, too small, or was lost."""


class FixedPlan:
    """The trials of a plan, in its order."""

    def __init__(self, trials: Iterable[TrialSpec]) -> None:
        """Hand out `trials`."""
        self._trials = list(trials)
        self._given = 0

    def next(self) -> TrialSpec | None:
        if self._given == len(self._trials):
            return None
        self._given += 1
        return self._trials[self._given - 1]

    def tell(self, trial: TrialSpec) -> None:
        """A fixed plan does not listen."""

    def __len__(self) -> int:
        return len(self._trials)


class Observer(Protocol):
    """Hears what happens to trials while a study runs."""

    def started(self, trial: TrialSpec) -> None:
        """A trial begins, or begins again."""

    def beat(self, beat: Heartbeat) -> None:
        """A trial has been evaluated."""

    def retried(self, trial: TrialSpec, reason: str) -> None:
        """A trial's process failed and the trial is tried again."""

    def failed(self, trial: TrialSpec, reason: str) -> None:
        """A trial has failed for good."""

    def say(self, message: str) -> None:
        """Something that the user should not miss."""
