"""How a call of a study ends before its trials do: by a signal, or because its time is up."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console

from ganstudy.exits import INTERRUPTED

SIGNALS = {signal.SIGINT: "interrupted", signal.SIGTERM: "asked to end (SIGTERM)"}
"""docker, Kubernetes and SLURM send SIGTERM, and kill what has not ended some seconds later."""


class Ending:
    """Why the call is to end; empty while it goes on."""

    def __init__(self) -> None:
        """Go on."""
        self.why = ""
        self._out_of_time = False

    def heard(self, number: int, frame: FrameType | None) -> None:
        """End gracefully at the first signal, at once at the second."""
        if self.why:
            Console(stderr=True).show_cursor()  # a live table hides it
            print("ended at once; rows written so far are readable", file=sys.stderr, flush=True)
            os._exit(INTERRUPTED)
        self.why = "its time is up" if self._out_of_time else SIGNALS[signal.Signals(number)]
        raise KeyboardInterrupt

    def time_is_up(self) -> None:
        """End gracefully, from a thread."""
        if not self.why:
            self._out_of_time = True
            os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def graceful(minutes: float | None) -> Iterator[Ending]:
    """Turn SIGINT, SIGTERM and the end of the time into one KeyboardInterrupt.

    Args:
        minutes: How long the block may take; without end if None.
    """
    ending = Ending()
    if threading.current_thread() is not threading.main_thread():
        yield ending
        return
    before = {number: signal.signal(number, ending.heard) for number in SIGNALS}
    timer = threading.Timer(60 * (minutes or 0), ending.time_is_up)
    timer.daemon = True
    if minutes is not None:
        timer.start()
    try:
        yield ending
    finally:
        timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
