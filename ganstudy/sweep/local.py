"""The in-process executor: one trial after another, for debugging and for tests."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ganstudy.records import TIME_LIMIT
from ganstudy.storage import full_disk, has_no_space
from ganstudy.store import StudyFolder, reason_of
from ganstudy.sweep.source import Observer, Source
from ganstudy.sweep.watch import LOOK_SECONDS, Watch
from ganstudy.trial import TrialSpec, trial_steps


class TimeLimitError(BaseException):
    """The time of a trial that does not stop by itself is up; no trainer should catch it."""


def execute(source: Source, folder: StudyFolder, observer: Observer, retries: int) -> None:
    """Run every trial of `source` in this process; a failing one is tried `retries` times more.

    A trial that does not stop in its time is interrupted where Python can be: a call into a
    library that never returns cannot, short of ending the process.
    """
    while (trial := source.next()) is not None:
        _run(trial, folder, observer, retries)
        source.tell(trial)


def _run(trial: TrialSpec, folder: StudyFolder, observer: Observer, retries: int) -> None:
    trial_folder = folder.trial(trial.trial_id)
    watch = Watch(folder)

    def run() -> None:
        for beat in trial_steps(trial, trial_folder):
            watch.note(trial.trial_id)
            observer.beat(beat)

    for attempt in range(retries + 1):
        observer.started(trial)
        watch.start(trial)
        try:
            with _interrupted(watch, observer):
                run()
        except TimeLimitError:
            trial_folder.stop(TIME_LIMIT)
            run()  # it finds itself stopped
            return
        except Exception as error:
            if has_no_space(error):  # every other attempt would end like this one
                raise full_disk(folder.folder, error) from error
            reason = f"{type(error).__name__}: {error}"
            if attempt < retries:
                observer.retried(trial, reason_of(reason))
            else:
                observer.failed(trial, trial_folder.fail(reason))
        else:
            return


@contextmanager
def _interrupted(watch: Watch, observer: Observer) -> Iterator[None]:
    """Raise TimeLimitError in the block once `watch` says so; silence is only told.

    By a signal, which also ends a `time.sleep`. Only the main thread hears any.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ended, this_thread = threading.Event(), threading.get_ident()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not ended.is_set():
            raise TimeLimitError

    def look() -> None:
        while not ended.wait(LOOK_SECONDS):
            for trial, reason in watch.look():
                if reason == TIME_LIMIT:
                    signal.pthread_kill(this_thread, signal.SIGUSR1)
                else:
                    observer.say(f"{trial.trial_id}: {reason}; Ctrl-C ends the study")

    before = signal.signal(signal.SIGUSR1, interrupt)
    looker = threading.Thread(target=look, name="watch", daemon=True)
    looker.start()
    try:
        yield
    finally:
        ended.set()
        looker.join()
        signal.signal(signal.SIGUSR1, before)
