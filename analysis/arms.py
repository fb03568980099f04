"""The table of arms: n, failures, events, scores, with intervals where they exist."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis import statistics
from analysis.page import NONE, Section, Table, number
from analysis.ranking import best_of_arm, compared_k, quantity, table_order
from analysis.statistics import Estimate
from analysis.tables import Study
from analysis.verdict import verdict
from ganstudy.records import EVENTS, TrialStatus
from ganstudy.study.outcomes import describe_failure


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


def honest(estimate: Estimate, study: Study) -> Estimate:
    """Return the estimate; without its interval where the study's draws are not independent.

    An interval counts on random draws. Points of a grid or of a Sobol sequence are none, and of
    an adaptive search later ones follow from earlier ones.
    """
    return estimate if study.independent else estimate._replace(low=None, high=None)


def failure_rate(count: int, trials: pd.DataFrame, study: Study) -> Estimate:
    """Return the share of `trials` that `count` is, with its interval if they are independent.

    Seeds of one configuration fail together, so that a count over several has no interval: the
    runs would be taken for more draws than were made.
    """
    estimate = statistics.rate(count, len(trials))
    if independent_runs(trials, study):
        return estimate
    return estimate._replace(low=None, high=None)


def independent_runs(trials: pd.DataFrame, study: Study) -> bool:
    """Return whether each of an arm's counted trials is a draw of its own, and an independent one.

    Several seeds of one drawn configuration are not.
    """
    again = study.unit == "configuration" and bool(trials["config_id"].duplicated().any())
    return study.independent and not again


def what_fails(study: Study) -> str:
    """Return when a trial of this study counts as failed, as an ending of "a trial failed if"."""
    return describe_failure(study.judgement.failures)


def failures_positive(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows of scores for other programs, a failure +inf whichever way is better."""
    return rows.replace(-math.inf, math.inf)


def summarize(folder: Path) -> Summary:
    """Return the table of arms: n, failures, events, scores, with intervals where they exist."""
    return summarize_study(Study.load(folder))


def summarize_study(study: Study) -> Summary:
    """Return the table of arms of a loaded study."""
    rescored = study.results.reported
    others = sorted(set(rescored["name"]) - set(study.protocol))
    units = "seeds" if study.unit == "seed" else "configs"
    k = compared_k(study)
    best_of_k = [f"best of {k}"] if k > 1 else []
    columns = ["arm", units, "failed", "collapsed", *best_of_k, "median", "best", "on report"]
    columns += others
    rows = []
    for arm in table_order(study):
        trials, scores = study.counted(arm), study.unit_scores(arm)
        median = _median(study, scores)
        best = study.sign * scores.min() if len(scores) else math.nan
        told = {row["name"]: row for _, row in rescored[rescored["arm"] == arm].iterrows()}
        rows.append(
            [
                arm,
                str(len(scores)) + _ours(study, arm),
                _share(_failed(trials), trials, study),
                _collapsed(study, trials),
                *(interval(_best_of_k(study, arm)) for _ in best_of_k),
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


def _median(study: Study, scores: pd.Series[float]) -> Estimate:
    """Return the median of one score a unit as it is told, NaN of none."""
    if scores.empty:
        return Estimate(math.nan, None, None, 0)
    return signed(honest(statistics.median_best_of_k(scores, 1), study), study.sign)


def _best_of_k(study: Study, arm: str) -> Estimate:
    """Return the quantity that orders the arms, in the units of the score."""
    return signed(honest(best_of_arm(study, arm), study), study.sign)


def _failed(trials: pd.DataFrame) -> int:
    return int(np.isinf(trials["score"]).sum())


def _ours(study: Study, arm: str) -> str:
    """Return how many trials are missing through no doing of the arm."""
    trials = study.results.trials[study.results.trials["arm"] == arm]
    failed = int((trials["status"] == TrialStatus.FAILED).sum())
    pruned = int(study.pruned(trials).sum())
    open_ = len(trials) - failed - pruned - len(study.trials(arm))
    notes = [f"{failed} lost to errors"] * (failed > 0) + [f"{open_} not finished"] * (open_ > 0)
    notes += [f"{pruned} stopped by {study.rule or 'the time limit'}"] * (pruned > 0)
    return f" ({', '.join(notes)})" if notes else ""


def _collapsed(study: Study, trials: pd.DataFrame) -> str:
    """Return how many had a mode collapse, nothing where nobody looked."""
    if not study.results.has(EVENTS):
        return NONE
    return _share(_with_event(study, trials, "mode_collapse"), trials, study)


def _with_event(study: Study, trials: Any, kind: str) -> int:
    events = study.results.events
    hit = set(events.loc[events["kind"] == kind, "trial_id"])
    return len(hit & set(trials["trial_id"]))


def _share(count: int, trials: pd.DataFrame, study: Study) -> str:
    if trials.empty:
        return NONE
    estimate = failure_rate(count, trials, study)
    ends = "none" if not estimate.has_interval else f"{estimate.low:.0%}, {estimate.high:.0%}"
    return f"{count} of {len(trials)} [{ends}]"


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
    reading = _order(study) + (
        f" Median and best over {study.unit}s are of {study.primary} ({better} is better; real "
        f"images against real ones: {number(study.floor)}), each trial by its "
        f"{study.score_rule.checkpoint} checkpoint on the select split. On report: one "
        f"generator of the arm's best configuration (the seed at the median; of an even number "
        f"the better of the middle two), at its {study.score_rule.checkpoint} "
        f"checkpoint, again{also} against images that chose nothing. Brackets: 95 % intervals, "
        f"[none] where there is none: so few, draws that are not independent, or shares of trials "
        f"of which "
        f"several are seeds of one configuration. ±: one standard error over samples of that one "
        f"generator, not over training runs. A trial failed if {what_fails(study)}. Collapsed: "
        f"had a mode collapse event; a run that learned little without collapsing had none."
    )
    shown = pd.DataFrame(found.rows, columns=found.columns)
    table = Table("arms", "The arms", reading, arm_rows(study), shown)
    return Section("arms", "The arms", [table, *(f"Note. {note}." for note in study.notes)])


def _order(study: Study) -> str:
    """Describe the order of the rows."""
    if study.adaptive:
        return "Arms in the order of the study, since an adaptive search compares none."
    copies = " Copies that controls added stand last." if study.controls else ""
    return (
        f"Arms by {quantity(study)}, the best first, as the answer compares them; best, on report "
        f"and the others are of one configuration an arm and may order them otherwise.{copies}"
    )


def arm_rows(study: Study) -> pd.DataFrame:
    """Return the same as numbers; a score is told as measured, +inf for a failure.

    An end of an interval that does not exist is NaN.
    """
    rows = []
    for arm in table_order(study):
        trials, scores = study.counted(arm), study.unit_scores(arm)
        best_of_k = _best_of_k(study, arm)
        failed, median = failure_rate(_failed(trials), trials, study), _median(study, scores)
        best = study.sign * scores.min() if len(scores) else math.nan
        rows.append(
            {"arm": arm, "n": len(scores), "failed": failed.value, "failed_low": failed.low,
             "failed_high": failed.high, "k": compared_k(study), "best_of_k": best_of_k.value,
             "best_of_k_low": best_of_k.low, "best_of_k_high": best_of_k.high,
             "median": median.value, "median_low": median.low,
             "median_high": median.high, "best": best}
        )  # fmt: skip
    ends = ["failed_low", "failed_high", "median_low", "median_high", "best_of_k_low",
            "best_of_k_high"]  # fmt: skip
    table = pd.DataFrame(rows).astype(dict.fromkeys(ends, float))
    return failures_positive(table)
