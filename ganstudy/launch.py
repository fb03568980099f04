"""One call of a study from its first trial to its report, with a person watching."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from analysis.report import write_report
from ganstudy.display import Display
from ganstudy.records import TrialStatus
from ganstudy.sweep.driver import Run, pending
from ganstudy.sweep.source import Source


class Outcome(NamedTuple):
    """How a call ended."""

    interrupted: bool
    failed: int
    reasons: str


def launch(
    run: Run,
    max_trials: int | None,
    console: Console,
    first: Callable[[], object],
) -> Outcome:
    """Run what is not finished, then write tables, report and MLflow.

    Args:
        run: The study; its folder exists.
        max_trials: How many trials to run at most.
        console: Where progress goes.
        first: What to write before the first trial, once nobody else can drive the study.

    Raises:
        BlockingIOError: If another process drives the study.
        OSError: If the study's folder cannot be written.
    """
    run.folder.lock()
    try:
        first()
        source = pending(run.spec, run.folder, max_trials)
        minimize = run.spec.measure.metrics[0].direction == "minimize"
        before = sum(row["status"].finished for row in run.folder.trial_rows())
        display = Display(console, len(source), run.spec.measure.primary, minimize, before)
        where = "in this process" if run.in_process else f"on Ray ({run.address or 'local'})"
        todo = f"{len(source)} trials {where}" if len(source) else "no trial is left to run"
        console.print(Text(f"{todo}, recorded in {run.folder.folder}"), soft_wrap=True)
        interrupted = _execute(run, display, source)
        if interrupted:
            console.print("interrupted: writing tables and report ...")
        else:
            console.print("scoring each arm's best generator, writing the report ...")
        trials = run.conclude(score=not interrupted)
        with run.phase("report"):
            write_report(run.folder.folder, run.folder.folder / "report.html")
        run.track()
        run.folder.write_json("phases.json", run.phases)
    finally:
        run.folder.unlock()
    failed = [trial for trial in trials if trial["status"] is TrialStatus.FAILED]
    reasons = sorted({str(trial["reason"]) for trial in failed})
    return Outcome(interrupted, len(failed), "; ".join(reasons))


def _execute(run: Run, display: Display, source: Source) -> bool:
    """Run the trials; return whether they were interrupted."""
    try:
        with display:
            run.execute(display, source)
    except KeyboardInterrupt:
        return True
    return display.ended < display.trials
