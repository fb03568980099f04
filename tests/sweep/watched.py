"""The command line, as a driver that notes its steps in a file and can wait at some of them.

    python -m tests.sweep.watched NOTES PAUSES ARGUMENTS ...

A test waits for a step instead of some seconds, so that it passes on machines of any speed. Each
line of NOTES is a step and the handlers that the kernel holds for SIGTERM and SIGINT then. At the
steps that PAUSES names, with commas between them, the driver waits for a signal, or until the file
NOTES.go exists.
"""

from __future__ import annotations

import ctypes
import importlib
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ganstudy import cli
from ganstudy.display import Display
from ganstudy.sweep.driver import Run


class Notes:
    """Notes steps, and calls `at` after each."""

    def __init__(self, at: Callable[[str], object]) -> None:
        self._at, self._times = at, Counter[str]()

    def __call__(self, step: str) -> None:
        self._times[step] += 1
        times = self._times[step]
        self._at(step if times == 1 else f"{step} {times}")

    def follow(self, patch: Callable[[Any, str, Any], object]) -> None:
        """Note the driver's steps; `patch` replaces an attribute, as `setattr` does."""
        import analysis.report

        phase, end, summarize = Run.phase, Display._end, analysis.report.summarize

        @contextmanager
        def noted_phase(run: Run, name: str):
            with phase(run, name):
                self(name)
                yield

        def noted_end(display: Display, *what: Any) -> None:
            end(display, *what)
            self("trial ended")

        def noted_summary(folder: Path) -> Any:
            self("outcome")
            return summarize(folder)

        patch(Run, "phase", noted_phase)
        patch(Display, "_end", noted_end)
        patch(analysis.report, "summarize", noted_summary)

    def follow_ray(self) -> None:
        """Note that Ray has started, before `ray.init` returns, and that its core has ended.

        Between the two notes Ray's core has set and reset all signal handlers that it ever does.
        """
        importlib.import_module("ganstudy.sweep.ray_tune")  # it sets what Ray reads when imported
        from ray._private import node, worker

        ends = node.Node.kill_all_processes

        def noted_end(*arguments: Any, **options: Any) -> None:
            self("ray ends")
            ends(*arguments, **options)

        worker._post_init_hooks.append(lambda: self("ray started"))
        node.Node.kill_all_processes = noted_end


def disposition(number: int) -> int:
    """Return the address of a signal's handler in this process; 0 is the default."""

    class Action(ctypes.Structure):
        _fields_ = (("handler", ctypes.c_void_p), ("rest", ctypes.c_char * 1024))

    action = Action()
    assert ctypes.CDLL(None).sigaction(int(number), None, ctypes.byref(action)) == 0
    return action.handler or 0


def main() -> None:
    notes, pauses = Path(sys.argv[1]), sys.argv[2].split(",")
    sys.argv[1:] = sys.argv[3:]

    def note(step: str) -> None:
        with notes.open("a") as file:
            file.write(f"{step}: {disposition(signal.SIGTERM)} {disposition(signal.SIGINT)}\n")
        while step in pauses and not notes.with_suffix(".go").exists():
            time.sleep(0.05)

    follower = Notes(note)
    follower.follow(setattr)
    if "--in-process" not in sys.argv:
        follower.follow_ray()
    cli.main()


if __name__ == "__main__":
    main()
