"""How a call of a study ends before its trials do: by a signal, or because its time is up."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ganstudy.exits import INTERRUPTED

SIGNALS = {signal.SIGINT: "interrupted", signal.SIGTERM: "asked to end (SIGTERM)"}
"""docker, Kubernetes and SLURM send SIGTERM, and kill what has not ended some seconds later."""
AT_ONCE = "ended at once; rows written so far are readable\n"
SHOW_CURSOR = "\x1b[?25h"
"""A live table hides the cursor."""


class Ending:
    """Why the call is to end; empty while it goes on."""

    def __init__(self) -> None:
        """Go on."""
        self.why = ""
        self._out_of_time = False

    def heard(self, number: int, frame: FrameType | None) -> None:
        """End gracefully at the first signal, at once at the second."""
        if self.why:
            end_at_once()
        self.why = "its time is up" if self._out_of_time else SIGNALS[signal.Signals(number)]
        raise KeyboardInterrupt

    def time_is_up(self) -> None:
        """End gracefully, from a thread."""
        if not self.why:
            self._out_of_time = True
            os.kill(os.getpid(), signal.SIGTERM)

    @contextmanager
    def limit(self, minutes: float | None) -> Iterator[None]:
        """End the block gracefully after some minutes; never if None."""
        timer = threading.Timer(60 * (minutes or 0), self.time_is_up)
        timer.daemon = True
        if minutes is not None:
            timer.start()
        try:
            yield
        finally:
            timer.cancel()


def end_at_once() -> None:
    """End the process from a signal handler, whatever the interrupted code was doing.

    `print` would raise RuntimeError if the signal interrupted a write to the same stream, and
    would wait for ever for a pipe that nobody reads.
    """
    try:
        message = SHOW_CURSOR + AT_ONCE if sys.stderr.isatty() else AT_ONCE
        if select.select([], [2], [], 0)[1]:
            os.write(2, message.encode())
    finally:
        os._exit(INTERRUPTED)


@contextmanager
def graceful() -> Iterator[Ending]:
    """Turn the first SIGINT or SIGTERM into a KeyboardInterrupt; end at once at the second."""
    ending = Ending()
    with _handling(dict.fromkeys(SIGNALS, ending.heard)):
        yield ending


@contextmanager
def undisturbed() -> Iterator[None]:
    """Raise the KeyboardInterrupt of a first signal only after the block; a second still ends.

    What a library shuts down must not be left half shut down.
    """
    interrupts: list[KeyboardInterrupt] = []

    def postpone(handler: Callable[[int, FrameType | None], object]) -> Handler:
        def hear(number: int, frame: FrameType | None) -> None:
            try:
                handler(number, frame)
            except KeyboardInterrupt as interrupt:
                interrupts.append(interrupt)

        return hear

    current = {number: signal.getsignal(number) for number in SIGNALS}
    with _handling({n: postpone(handler) for n, handler in current.items() if callable(handler)}):
        yield
    if interrupts:
        raise interrupts[0]


Handler = Callable[[int, FrameType | None], None]


@contextmanager
def _handling(handlers: dict[signal.Signals, Handler]) -> Iterator[None]:
    """Install signal handlers for the block; only the main thread may."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, signal.SIG_DFL if previous is None else previous)
