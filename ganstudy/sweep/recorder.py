"""The recorder: compacts and tracks a study in the background while its trials run.

It is a process of its own, since its work would hold up Tune's loop and fill the driver's memory,
and since MLflow may hang. It may be killed at any moment: tables are replaced whole, and the next
sync sends what MLflow lacks. It ends with its driver, whatever ends that.

The two talk in lines of JSON: the driver says what to record, then "rest" and "end"; the recorder
tells what a person should know, and answers.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from ganstudy.provenance import redact
from ganstudy.storage import location, name_of
from ganstudy.store import StudyFolder, last_line
from ganstudy.sweep.ending import undisturbed
from ganstudy.tracking import Tracker

COMPACT_EVERY_SECONDS = 5.0
COMPACT_SHARE = 0.05
"""Largest share of its time that the recorder compacts; what it syncs is new each time."""
REST_SECONDS = 5.0
"""How long a round that is under way may take when the trials are done; then it is killed.

The time that MLflow's store takes to be created or repaired is not counted.
"""
NICE = 5
"""Trials go first."""


class Recorder:
    """The driver's side: starts the process, passes on what it tells, ends it."""

    def __init__(
        self, folder: StudyFolder, uri: str, say: Callable[[str], None] = lambda message: None
    ) -> None:
        """Record the study in `folder`, also in MLflow at `uri`; `say` tells a person."""
        self.folder, self.uri, self.say = folder, uri, say
        self.notes: list[str] = []
        """What went wrong and was not mended since."""
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._opening = threading.Event()
        """Set while the process creates or repairs MLflow's store."""
        self._finishing = False
        self._death = ""

    def __enter__(self) -> Self:
        """Begin."""
        self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Rest."""
        with undisturbed():  # an answer that nobody waited for would be taken for the next one
            self.rest()

    def rest(self) -> None:
        """Write no more, so that the driver alone writes the tables."""
        if self._ask("rest", REST_SECONDS) != "rests":
            self._end()

    def catch_up(self) -> None:
        """Begin to bring MLflow up to date with the tables as they are; wait for nothing."""
        if self._process is not None:
            self._send("catch up")

    def finish(self) -> None:
        """Bring MLflow up to date with the tables as they are, for good.

        What still goes wrong is noted again, whatever was said before.
        """
        self._finishing, self.notes = True, []
        for _ in range(2):  # a process that died since the trials ended gets a successor
            if self._process is None:
                self._start()
            answer = self._ask("end", None)
            self._end()
            if answer == "ended":
                return
        self._note(
            f"MLflow was not brought up to date: the recorder died ({self._death}); "
            f"`ganstudy resume {self.folder.folder}` catches up"
        )

    def _start(self) -> None:
        self._answers = queue.SimpleQueue()
        self._opening.clear()
        log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - the thread that listens closes it
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,  # Ctrl-C is the driver's to hear
        )
        # Not as arguments, which everybody on the machine can see: an URI may hold a password.
        task = {"folder": name_of(self.folder.folder), "uri": self.uri}
        self._send(task | {"every": COMPACT_EVERY_SECONDS})
        heard = (self._process, log, self._answers)
        self._listener = threading.Thread(target=self._listen, args=heard, daemon=True)
        self._listener.start()

    def _send(self, message: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError):  # it has died, which its listener tells, and closes the pipe
            return

    def _ask(self, command: str, seconds: float | None) -> str:
        """Send a command and wait for the answer, empty if none comes in time.

        A store that is being created is waited for: killed, the process would begin it again.
        """
        if self._process is None:
            return ""
        self._send(command)
        while True:
            try:
                return self._answers.get(timeout=seconds)
            except queue.Empty:
                if not self._opening.is_set():
                    return ""

    def _end(self) -> None:
        """End the process; wherever it is, nothing is lost."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            self._listener.join()

    def _listen(
        self, process: subprocess.Popen[str], log: IO[str], answers: queue.SimpleQueue[str]
    ) -> None:
        """Pass on what the process tells until it ends."""
        assert process.stdout is not None
        with process, log:
            for line in process.stdout:
                self._hear(json.loads(line), answers)
            code = process.wait()
            if code and process is self._process:
                log.seek(0)
                self._death = death_of(code, log.read())
                if not self._finishing:
                    self._note(f"the recorder died ({self._death}): tables and MLflow are brought "
                               f"up to date at the end")  # fmt: skip
            answers.put("died")

    def _hear(self, message: dict[str, str], answers: queue.SimpleQueue[str]) -> None:
        for kind, text in message.items():
            if kind == "answer":
                answers.put(text)
            elif kind == "note":
                self._note(text)
            elif kind == "store":
                (self._opening.set if text == "opening" else self._opening.clear)()
            else:
                self.notes = []
                self.say(text)

    def _note(self, message: str) -> None:
        # One outage is told once, however its words vary.
        if message[:40] not in {note[:40] for note in self.notes}:
            self.notes.append(message)
            self.say(message)


def death_of(code: int, log: str) -> str:
    """Return why a process ended: the signal, or the last line of its log.

    Args:
        code: What `Popen.wait` returned, not 0.
        log: What the process wrote to stderr.
    """
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return redact(last_line(log)) or f"exit code {code}"


class Rounds:
    """The recorder's own side: round after round, compact and sync."""

    def __init__(self, folder: StudyFolder, uri: str, tell: Callable[[str, str], None]) -> None:
        """Record the study in `folder`; `tell` takes a kind of message and its text."""
        self.folder, self.uri, self.tell = folder, uri, tell
        self._tracker = Tracker(folder.folder, uri, tell)
        self._failing = False

    def run(self, every: float, commands: queue.SimpleQueue[str]) -> None:
        """Record until told to end."""
        wait: float | None = every
        while True:
            try:
                command = commands.get(timeout=wait)
            except queue.Empty:
                wait = max(every, self._round() / COMPACT_SHARE)
                continue
            if command == "catch up":
                self._sync(running=True)
                continue
            if command == "end":
                self._sync(running=False)
                self.tell("answer", "ended")
                return
            self.tell("answer", "rests")
            wait = None

    def _round(self) -> float:
        """Compact and sync; return the seconds that compacting took."""
        begun = time.monotonic()
        try:
            self.folder.compact(running=True)
        except Exception as error:  # a recorder that dies would take the tables with it
            self.tell("note", f"the tables could not be written: {error}; trials record on "
                              f"their own")  # fmt: skip
            self._failing = True
            return time.monotonic() - begun
        compacted = time.monotonic()
        self._sync(running=True)
        return compacted - begun

    def _sync(self, running: bool) -> None:
        try:
            self._tracker.sync(running)
        except Exception as error:  # whatever MLflow raises must not touch the trials
            self._tracker = Tracker(self.folder.folder, self.uri, self.tell)
            self.tell("note", tracking_failed(self.uri, error, self.folder.folder))
            self._failing = True
            return
        if self._failing:
            self.tell("mended", "tables and MLflow are up to date again")
            self._failing = False


def tracking_failed(uri: str, error: Exception, folder: Path) -> str:
    """Return what to tell the user when MLflow is away."""
    first = (str(error).splitlines() or [""])[0][:200]
    return redact(
        f"MLflow at {uri} cannot be written ({type(error).__name__}: {first}). No trial is "
        f"affected and every row is in {folder}; `ganstudy resume {folder}` catches up."
    )


def listen(commands: queue.SimpleQueue[str]) -> None:
    """Pass on the driver's commands; end at once when the driver has."""
    for line in sys.stdin:
        commands.put(json.loads(line))
    os._exit(1)


def main() -> None:
    """Record the study that the first line of stdin names."""
    # Ray's jobs and SLURM send it to the driver's children, too; whoever ends us closes stdin.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # What a library prints must not mingle with the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def tell(kind: str, text: str) -> None:
        answers.write(json.dumps({kind: text}) + "\n")
        answers.flush()

    os.nice(NICE)
    task: dict[str, Any] = json.loads(sys.stdin.readline())
    commands: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=listen, args=(commands,), daemon=True).start()
    rounds = Rounds(StudyFolder(location(task["folder"])), task["uri"], tell)
    rounds.run(task["every"], commands)


if __name__ == "__main__":
    main()
