"""The table of arms: n, failures, events, scores, with intervals where they exist."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis import statistics
from analysis.page import NONE, Section, Table, number
from analysis.statistics import Estimate
from analysis.tables import FAILURES, Study
from analysis.verdict import verdict
from ganstudy.records import TrialStatus


class Summary(NamedTuple):
    """The table of arms as text, and the sentence that opens the report."""

    columns: list[str]
    rows: list[list[str]]
    verdict: str
    score: str
    """Stored name of the score that median and best are of."""


def interval(estimate: Estimate, share: bool = False) -> str:
    """Return `value [low, high]`, or `value [none]` where no 95 % interval exists."""
    show = (lambda v: f"{v:.0%}") if share else number
    if math.isnan(estimate.value):
        return NONE
    if estimate.low is None or estimate.high is None:
        return f"{show(estimate.value)} [none]"
    return f"{show(estimate.value)} [{show(estimate.low)}, {show(estimate.high)}]"


def summarize(folder: Path) -> Summary:
    """Return the table of arms: n, failures, events, scores, with intervals where they exist."""
    return summarize_study(Study.load(folder))


def summarize_study(study: Study) -> Summary:
    """Return the table of arms of a loaded study."""
    rescored = study.results.reported
    others = sorted(set(rescored["name"]) - set(study.protocol))
    units = "seeds" if study.unit == "seed" else "configs"
    columns = ["arm", units, "failed", "collapsed", "median", "best", "on report", *others]
    rows = []
    for arm in study.arms:
        trials, scores = study.counted(arm), study.unit_scores(arm)
        median = Estimate(math.nan, None, None, 0)
        if len(scores):
            median = signed(statistics.median_best_of_k(scores, 1), study.sign)
        best = study.sign * scores.min() if len(scores) else math.nan
        told = {row["name"]: row for _, row in rescored[rescored["arm"] == arm].iterrows()}
        rows.append(
            [
                arm,
                str(len(scores)) + _ours(study, arm),
                _share(int(trials["status"].isin(list(FAILURES)).sum()), len(trials)),
                _share(_with_event(study, trials, "mode_collapse"), len(trials)),
                interval(median),
                number(best),
                *(_with_error(told.get(name)) for name in (study.primary, *others)),
            ]
        )
    return Summary(columns, rows, verdict(study), study.primary)


def signed(estimate: Estimate, sign: int) -> Estimate:
    """Return an estimate of oriented scores as one of the scores as they are told."""
    if sign == 1:
        return estimate
    low, high = estimate.low, estimate.high
    return Estimate(
        -estimate.value, None if high is None else -high, None if low is None else -low, estimate.n
    )


def _ours(study: Study, arm: str) -> str:
    """Return how many trials are missing through no doing of the arm."""
    trials = study.results.trials[study.results.trials["arm"] == arm]
    failed = int((trials["status"] == TrialStatus.FAILED).sum())
    pruned = int(study.pruned(trials).sum())
    open_ = len(trials) - failed - pruned - len(study.trials(arm))
    notes = [f"{failed} lost to errors"] * (failed > 0) + [f"{open_} not finished"] * (open_ > 0)
    notes += [f"{pruned} stopped by {study.rule or 'the time limit'}"] * (pruned > 0)
    return f" ({', '.join(notes)})" if notes else ""


def _with_event(study: Study, trials: Any, kind: str) -> int:
    events = study.results.events
    hit = set(events.loc[events["kind"] == kind, "trial_id"])
    return len(hit & set(trials["trial_id"]))


def _share(count: int, n: int) -> str:
    if n == 0:
        return NONE
    estimate = statistics.rate(count, n)
    return f"{count} of {n} [{estimate.low:.0%}, {estimate.high:.0%}]"


def _with_error(row: Any) -> str:
    return NONE if row is None else with_error(row["value"], row["standard_error"])


def with_error(value: float, standard_error: float) -> str:
    """Return `value ± one standard error`, or the value alone where it has none."""
    if math.isnan(standard_error):
        return number(value)
    return f"{number(value)} ± {standard_error:.2g}"


def section(study: Study) -> Section | None:
    """Return the table of arms with the study's notes."""
    found = summarize_study(study)
    judged = set(study.results.reported["name"]) - set(study.protocol)
    also = ", and the kernel distance on ImageNet features, both" if judged else ""
    better = "lower" if study.sign == 1 else "higher"
    reading = (
        f"Median and best over {study.unit}s are of {study.primary} ({better} is better; real "
        f"images against real ones: {number(study.floor)}), each trial by its "
        f"{study.score_rule.checkpoint} checkpoint on the select split. On report: the best trial "
        f"again{also} against images that chose nothing. Brackets: 95 % intervals, [none] where "
        f"so few give none. ±: one standard error over samples of that one generator, not over "
        f"training runs. Failed: diverged, or stopped by an event. Collapsed: had a mode collapse "
        f"event; a run that learned little without collapsing had none."
    )
    shown = pd.DataFrame(found.rows, columns=found.columns)
    table = Table("arms", "The arms", reading, arm_rows(study), shown)
    return Section("arms", "The arms", [table, *(f"Note. {note}." for note in study.notes)])


def arm_rows(study: Study) -> pd.DataFrame:
    """Return the same as numbers; a score is told as measured, +inf for a failure."""
    rows = []
    for arm in study.arms:
        trials, scores = study.counted(arm), study.unit_scores(arm)
        failed = statistics.rate(int(np.isinf(trials["score"]).sum()), len(trials))
        median = Estimate(math.nan, None, None, 0)
        if len(scores):
            median = signed(statistics.median_best_of_k(scores, 1), study.sign)
        best = study.sign * scores.min() if len(scores) else math.nan
        rows.append(
            {"arm": arm, "n": len(scores), "failed": failed.value, "failed_low": failed.low,
             "failed_high": failed.high, "median": median.value, "median_low": median.low,
             "median_high": median.high, "best": best}
        )  # fmt: skip
    return pd.DataFrame(rows)
