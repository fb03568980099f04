"""One call of a study from its first trial to its report, with a person watching."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from rich.console import Console
from rich.text import Text

from analysis.report import write_report
from ganstudy.display import Display
from ganstudy.records import TrialStatus
from ganstudy.storage import DamagedFile
from ganstudy.sweep.driver import Run, pending
from ganstudy.sweep.ending import Ending
from ganstudy.sweep.source import ClusterError, Source


class Outcome(NamedTuple):
    """How a call ended.

    Attributes:
        ended_early: Why trials are left, empty if none is.
        failed: How many trials failed.
        reasons: Why they did.
    """

    ended_early: str
    failed: int
    reasons: str


def launch(
    run: Run,
    max_trials: int | None,
    console: Console,
    first: Callable[[], object],
    ending: Ending,
) -> Outcome:
    """Run what is not finished, then write tables, report and MLflow.

    Args:
        run: The study; its folder exists.
        max_trials: How many trials to run at most.
        console: Where progress goes.
        first: What to write before the first trial, once nobody else can drive the study.
        ending: Knows whether a signal has asked the call to end.

    Raises:
        BlockingIOError: If another process drives the study.
        ClusterError: If the cluster was lost; what was recorded has been kept.
        KeyboardInterrupt: If it was interrupted before the first trial.
        OSError: If the study's folder cannot be written.
    """
    run.folder.lock()
    try:
        with ending.limit(run.spec.resources.study_minutes):
            return _launched(run, max_trials, console, first, ending)
    except (Exception, KeyboardInterrupt):
        run.close()
        raise
    finally:
        run.folder.unlock()


def _launched(
    run: Run,
    max_trials: int | None,
    console: Console,
    first: Callable[[], object],
    ending: Ending,
) -> Outcome:
    first()
    damages = _damages(run)
    source = pending(run.spec, run.folder, max_trials)
    while True:
        try:
            outcome = _run_trials(run, source, console, ending)
            break
        except DamagedFile as damage:
            # Only the generators are read after the trials, and each comes out again.
            if run.folder.set_attempt_aside(damage) is None:
                raise
            console.print(Text(f"{damage.path} {damage.problem}"), soft_wrap=True)
            run.recorder.finish()
            source = pending(run.spec, run.folder, None if max_trials is None else 1)
    run.notes += [note for note in _damages(run) if note not in damages]
    return outcome


def _damages(run: Run) -> list[str]:
    """Return one line for each attempt that was set aside because it is damaged."""
    return [
        f"{damage}: kept in {folder}, and the trial was run again"
        for folder, damage in run.folder.damages().items()
    ]


def _run_trials(run: Run, source: Source, console: Console, ending: Ending) -> Outcome:
    """Run the trials of `source`, then write tables, report and MLflow."""
    primary = run.spec.measure.primary_score
    before = sum(row["status"].finished for row in run.folder.trial_rows())
    display = Display(console, len(source), primary.name, primary.minimize, before)
    where = "in this process" if run.in_process else f"on Ray ({run.address or 'local'})"
    todo = f"{len(source)} trials {where}" if len(source) else "no trial is left to run"
    console.print(Text(f"{todo}, recorded in {run.folder.folder}"), soft_wrap=True)
    lost = _execute(run, display, source)
    early = ending.why or ("interrupted" if display.ended < display.trials else "")
    trials = _conclude(run, console, str(lost or early))
    if lost is not None:
        raise lost
    failed = [trial for trial in trials if trial["status"] is TrialStatus.FAILED]
    reasons = sorted({str(trial["reason"]) for trial in failed})
    return Outcome(ending.why or early, len(failed), "; ".join(reasons))


def _conclude(run: Run, console: Console, early: str) -> list[dict[str, Any]]:
    """Write tables, report and MLflow, and return the rows of trials.parquet.

    A first signal ends the step that it interrupts, and the steps after it still run. A second
    signal ends the process.

    Args:
        run: The study, whose trials have ended or were interrupted.
        console: Where progress goes.
        early: Why trials are left, empty if none is.
    """
    try:
        if early:
            console.print(Text(f"{early}: writing tables and report ..."), soft_wrap=True)
        else:
            console.print("scoring each arm's best generator, writing the report ...")
        trials = run.conclude(score=not early)
    except KeyboardInterrupt:
        trials = run.conclude(score=False)
    try:
        with run.phase("report"):
            write_report(run.folder.folder, run.folder.folder / "report.html")
    except KeyboardInterrupt:
        folder = run.folder.folder
        run.notes.append(f"the report is not up to date: `ganstudy report {folder}` writes it")
    try:
        run.track()
    except KeyboardInterrupt:
        run.notes.append("MLflow was not brought up to date: interrupted")
    run.folder.write_json("phases.json", run.phases)
    return trials


def _execute(run: Run, display: Display, source: Source) -> ClusterError | None:
    """Run the trials until they end or the call does; return the loss of the cluster."""
    try:
        with display:
            run.execute(display, source)
    except KeyboardInterrupt:
        return None
    except ClusterError as error:
        return error
    return None
