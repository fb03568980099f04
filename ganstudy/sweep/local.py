"""The in-process executor: one trial after another, for debugging and for tests."""

from __future__ import annotations

from ganstudy.storage import full_disk, has_no_space
from ganstudy.store import StudyFolder, reason_of
from ganstudy.sweep.source import Observer, Source
from ganstudy.trial import TrialSpec, run_trial


def execute(source: Source, folder: StudyFolder, observer: Observer, retries: int) -> None:
    """Run every trial of `source` in this process; a failing one is tried `retries` times more."""
    while (trial := source.next()) is not None:
        _run(trial, folder, observer, retries)
        source.tell(trial)


def _run(trial: TrialSpec, folder: StudyFolder, observer: Observer, retries: int) -> None:
    trial_folder = folder.trial(trial.trial_id)
    for attempt in range(retries + 1):
        observer.started(trial)
        try:
            run_trial(trial, trial_folder, observer.beat)
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
