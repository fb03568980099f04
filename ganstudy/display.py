"""What a person sees while a study runs: a live table, or plain lines without a terminal."""

from __future__ import annotations

import math
import time
from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ganstudy.records import TrialStatus

if TYPE_CHECKING:  # `status` needs no torch
    from ganstudy.trial import Heartbeat, TrialSpec


def duration(seconds: float) -> str:
    """Return `1 h 02 min`, `3 min 20 s` or `12 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


class Display:
    """Shows trials done, running and failed, each arm's best score so far, and the time left."""

    def __init__(
        self, console: Console, trials: int, score: str, minimize: bool = True, before: int = 0
    ) -> None:
        """Show `trials` trials to go after `before` finished ones; `score` is the primary one."""
        self.console, self.trials, self.score, self.before = console, trials, score, before
        self._better = min if minimize else max
        self._begun = time.monotonic()
        self._progress: dict[str, float] = {}
        self._arms: dict[str, str] = {}
        self._running: set[str] = set()
        self._ended: dict[str, TrialStatus] = {}
        self._best: dict[str, float] = {}
        self._messages: list[str] = []
        self._live: Live | None = None

    def __enter__(self) -> Self:
        """Begin to show."""
        if self.console.is_terminal:
            self._live = Live(
                get_renderable=self.render, console=self.console, refresh_per_second=2
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the last state on the screen."""
        if self._live is not None:
            self._live.stop()

    def started(self, trial: TrialSpec) -> None:
        """A trial begins, or begins again."""
        self._arms[trial.trial_id] = trial.arm
        self._running.add(trial.trial_id)

    def beat(self, beat: Heartbeat) -> None:
        """A trial was evaluated."""
        arm = self._arms[beat.trial_id]
        self._progress[beat.trial_id] = beat.discriminator_updates / beat.budget
        if math.isfinite(beat.best):
            self._best[arm] = self._better(beat.best, self._best.get(arm, beat.best))
        if beat.status.finished and beat.trial_id not in self._ended:
            told = f"{self.score} best {beat.best:.4g}, last {beat.score:.4g}"
            self._end(beat.trial_id, beat.status, told)

    def retried(self, trial: TrialSpec, reason: str) -> None:
        """A trial's process failed and the trial is tried again."""
        self.say(f"{trial.trial_id}: tried again after: {reason}")

    def failed(self, trial: TrialSpec, reason: str) -> None:
        """A trial has failed for good."""
        if trial.trial_id in self._ended:
            return
        self._end(trial.trial_id, TrialStatus.FAILED, reason)

    def say(self, message: str) -> None:
        """Show one line that the user should not miss."""
        if self._live is None:
            self.console.print(Text(message), soft_wrap=True)
        else:
            self._messages = [*self._messages[-4:], message]

    def _end(self, trial_id: str, status: TrialStatus, what: str) -> None:
        self._running.discard(trial_id)
        self._ended[trial_id] = status
        self._progress[trial_id] = 1.0
        if self._live is None:
            done = f"[{self.before + len(self._ended)}/{self.before + self.trials}]"
            line = Text(f"{done} {trial_id}: {status}, {what}{self._left()}")
            self.console.print(line, soft_wrap=True)

    @property
    def ended(self) -> int:
        """How many trials have ended, in whichever way."""
        return len(self._ended)

    def _left(self) -> str:
        share = sum(self._progress.values()) / max(1, self.trials)
        if share < 0.02 or len(self._ended) == self.trials:
            return ""
        passed = time.monotonic() - self._begun
        return f", about {duration(passed * (1 - share) / share)} left"

    def render(self) -> RenderableType:
        """Return the whole picture."""
        counts = Counter(self._ended.values())
        failed = counts[TrialStatus.FAILED]
        share = sum(self._progress.values()) / max(1, self.trials)
        head = Text.assemble(
            f"{self.before + len(self._ended)} of {self.before + self.trials} trials done, "
            f"{len(self._running)} running, ",
            f"{counts[TrialStatus.DIVERGED]} diverged, ",
            (f"{failed} lost to errors", "red" if failed else ""),
            f" · {duration(time.monotonic() - self._begun)}{self._left()}",
        )
        table = Table("arm", "done", "running", f"best {self.score} at any evaluation so far")
        for arm in dict.fromkeys(self._arms.values()):
            mine = [t for t, a in self._arms.items() if a == arm]
            best = self._best.get(arm)
            table.add_row(
                Text(arm),
                str(sum(t in self._ended for t in mine)),
                str(sum(t in self._running for t in mine)),
                "" if best is None else f"{best:.4g}",
            )
        messages = [Text(message, style="yellow") for message in self._messages]
        bar = Table.grid()  # a bar alone would not end its line
        bar.add_row(ProgressBar(1.0, share, width=60))
        return Group(head, bar, table, *messages)
