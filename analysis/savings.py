"""What stopping early would have saved: recorded runs cut short as each stopping rule would have.

As everywhere, `*_data` gives a NamedTuple of numbers and `*_figure` draws it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray
from scipy import stats

from analysis.arms import interval
from analysis.page import NONE, Figure, Section, Table, number
from analysis.statistics import CONFIDENCE, Estimate
from analysis.stopping import (
    LITTLE,
    RECOMMENDED,
    RECOMMENDED_RULE,
    Floats,
    Rule,
    Run,
    recorded_runs,
    reported_score,
    stopping_rules,
)
from analysis.style import COLORS, layout
from analysis.tables import Study

DRAWS, FEWEST_DRAWN, FEWEST_STOPPED = 2000, 20, 10
"""Bootstrap draws of an interval, the fewest configurations that it is drawn from, and the fewest
of them in which something is saved: of 8 of which a rule stops a tenth it covers 63 %."""


class Saving(NamedTuple):
    """What one rule would have saved, and what it would have cost.

    Attributes:
        stopped: Trials that it stops before their end.
        lost: Those of them that never recovered.
        wrongly: Those of them that ended well and 10 % better than their best up to the stop.
        seconds: Saved, the last evaluation of stopped trials paid for.
        share: Of all seconds.
        share_of_savable: Share of the savable seconds, by what it saves of these alone.
        best: Arm -> its best score, stopped trials counting by their best checkpoint so far.
        worse: Arms whose best is worse for it.
        discarded: Arms whose best is worse if a stopped trial counts as failed.
        tau: Kendall's tau of the arms' bests with those of the whole runs, NaN of a single arm.
        same_ranking: Whether the arms stand in the same order.
    """

    rule: str
    stopped: int
    lost: int
    wrongly: int
    seconds: float
    share: Estimate
    share_of_savable: Estimate
    best: dict[str, float]
    worse: list[str]
    discarded: list[str]
    tau: float
    same_ranking: bool


class Savings(NamedTuple):
    """What every rule would have saved of one study.

    Attributes:
        n: Trials that ran to the end of their budget; all is told of these.
        left_out: Trials that did not, whose cost without a rule nobody knows.
        lost: Trials that never recover.
        seconds: What all took.
        savable: What those that never recover took from there on.
        best: Arm -> its best score.
        reported: Name of the score that schedulers are told.
        adaptive: Whether what was tried depended on how earlier trials ended.
    """

    n: int
    left_out: int
    lost: int
    seconds: float
    savable: float
    best: dict[str, float]
    reported: str
    adaptive: bool
    rules: list[Saving]


def savings_data(study: Study) -> Savings | None:
    """Try every rule on the study, None where there is nothing to try."""
    runs = recorded_runs(study)
    rules = stopping_rules(runs)
    if not rules:
        return None
    outcomes = sum(len(study.trials(arm)) for arm in study.contenders)
    whole = _Whole.of(runs, LITTLE)
    savable = whole.ends - whole.begun
    return Savings(
        n=len(runs),
        left_out=outcomes - len(runs),
        lost=int(whole.lost.sum()),
        seconds=float(whole.ends.sum()),
        savable=float(savable.sum()),
        best={arm: study.sign * value for arm, value in whole.best.items()},
        reported=reported_score(study),
        adaptive=study.adaptive,
        rules=_savings(rules, runs, whole, study.sign),
    )


class _Whole(NamedTuple):
    """What runs come to if nothing stops them.

    Attributes:
        lost: Which never recover.
        ends: Seconds of each.
        begun: Seconds from which each is lost, its end if it never is.
        units: Place of each in `arms`, -1 if it does not count there.
        arms: The arm of every unit.
        best: Arm -> its best score.
    """

    lost: NDArray[np.bool_]
    ends: Floats
    begun: Floats
    units: NDArray[np.intp]
    arms: list[str]
    best: dict[str, float]

    @classmethod
    def of(cls, runs: Sequence[Run], little: float) -> _Whole:
        """Look at every run once, whatever the number of rules."""
        ends = np.array([run.seconds for run in runs])
        found = [run.lost_from(little) for run in runs]
        lost = np.array([at is not None for at in found])
        begun = np.array([end if at is None else at for end, at in zip(ends, found, strict=True)])
        places: dict[tuple[str, str], int] = {}
        units = np.array(
            [places.setdefault((r.arm, r.unit), len(places)) if r.counted else -1 for r in runs]
        )
        arms = [arm for arm, _ in places]
        best = _bests([run.best() for run in runs], units, arms)
        return cls(lost, ends, begun, units, arms, best)


def _stops(runs: Sequence[Run], rule: Rule) -> list[int | None]:
    """Return the stops of all runs; to stop a run at its last update is to let it end."""
    stops: list[int | None] = []
    for _, mine in itertools.groupby(runs, key=lambda run: run.arm):
        arm = list(mine)
        stops += [
            None if stop is None or stop >= run.updates[-1] else stop
            for run, stop in zip(arm, rule(arm), strict=True)
        ]
    return stops


def saving(
    name: str, rule: Rule, runs: Sequence[Run], sign: int, little: float = LITTLE
) -> Saving:
    """Try one rule on recorded runs.

    Args:
        name: The rule's.
        rule: Stops trials.
        runs: All of a study, arm by arm.
        sign: Turns their scores back into the study's own.
        little: See `Run.lost_from`.
    """
    return _savings({name: rule}, runs, _Whole.of(runs, little), sign)[0]


def _savings(
    rules: Mapping[str, Rule], runs: Sequence[Run], whole: _Whole, sign: int
) -> list[Saving]:
    """Try all rules; their shares are drawn together."""
    all_stops = [_stops(runs, rule) for rule in rules.values()]
    spent = [
        np.array([run.spent(stop) for run, stop in zip(runs, stops, strict=True)])
        for stops in all_stops
    ]
    saved = [whole.ends - seconds for seconds in spent]
    # Of the seconds after a run is lost, those after it is stopped.
    of_savable = [
        whole.lost * (whole.ends - np.maximum(seconds, whole.begun)) for seconds in spent
    ]
    clusters = [run.cluster for run in runs]
    shares = _shares(saved, whole.ends, clusters)
    shares_of_savable = _shares(of_savable, whole.ends - whole.begun, clusters)
    tried = zip(rules, all_stops, saved, shares, shares_of_savable, strict=True)
    return [_saving(*one, runs, whole, sign) for one in tried]


def _saving(
    name: str,
    stops: Sequence[int | None],
    saved: Floats,
    share: Estimate,
    share_of_savable: Estimate,
    runs: Sequence[Run],
    whole: _Whole,
    sign: int,
) -> Saving:
    both = list(zip(runs, stops, strict=True))
    stopped = np.array([stop is not None for stop in stops])
    better = np.array([stop is not None and run.gains_after(stop) for run, stop in both])
    kept = _bests([run.best(stop) for run, stop in both], whole.units, whole.arms)
    failing = [run.best() if stop is None else math.inf for run, stop in both]
    failed = _bests(failing, whole.units, whole.arms)
    before, after = (stats.rankdata(list(best.values())) for best in (whole.best, kept))
    return Saving(
        rule=name,
        stopped=int(stopped.sum()),
        lost=int((stopped & whole.lost).sum()),
        wrongly=int((better & ~whole.lost).sum()),
        seconds=float(saved.sum()),
        share=share,
        share_of_savable=share_of_savable,
        best={arm: sign * best for arm, best in kept.items()},
        worse=[arm for arm, best in whole.best.items() if kept[arm] > best],
        discarded=[arm for arm, best in whole.best.items() if failed[arm] > best],
        tau=float(stats.kendalltau(before, after).statistic) if len(kept) > 1 else math.nan,
        same_ranking=bool(np.array_equal(before, after)),
    )


def _bests(
    scores: Sequence[float], units: NDArray[np.intp], arms: Sequence[str]
) -> dict[str, float]:
    """Return arm -> its best score as the table of arms has it: of medians over seeds."""
    counted = units >= 0
    medians = pd.Series(scores)[counted].groupby(units[counted]).median()
    best: dict[str, float] = {}
    for arm, median in zip(arms, medians.tolist(), strict=True):
        best[arm] = min(median, best.get(arm, math.inf))
    return best


def _shares(parts: Sequence[Floats], wholes: Floats, clusters: Sequence[str]) -> list[Estimate]:
    """Return the ratios of sums with their percentile bootstrap intervals over clusters.

    No interval of fewer than 20 clusters, nor where fewer than 10 have a part above 0. Percentiles
    are widened as those of `interquartile_mean`. What a rule decides of a trial is held fixed,
    also where it depends on other trials.
    """
    codes, names = pd.factorize(np.asarray(clusters, dtype=object))
    columns = [np.bincount(codes, column, len(names)) for column in (*parts, wholes)]
    sums = np.stack(columns, axis=1)
    *values, whole = sums.sum(axis=0)
    n = len(wholes)
    if not whole:
        return [Estimate(math.nan, None, None, n) for _ in parts]
    if len(sums) < FEWEST_DRAWN:
        return [Estimate(value / whole, None, None, n) for value in values]
    rng, drawn = np.random.default_rng(0), np.empty((DRAWS, sums.shape[1]))
    for draw in drawn:  # one by one: all draws at once are too many to hold
        picked = rng.integers(len(sums), size=len(sums))
        draw[:] = np.bincount(picked, minlength=len(sums)) @ sums
    drawn = drawn[drawn[:, -1] > 0]
    degrees = len(sums) - 1
    reach = math.sqrt(1 + 1 / degrees) * stats.t.ppf((1 + CONFIDENCE) / 2, degrees)
    tail = float(stats.norm.cdf(-reach))
    low, high = np.quantile(drawn[:, :-1] / drawn[:, -1:], (tail, 1 - tail), axis=0)
    stopped = (sums[:, :-1] > 0).sum(axis=0)
    return [
        Estimate(value / whole, float(least), float(most), n)
        if some >= FEWEST_STOPPED
        else Estimate(value / whole, None, None, n)
        for value, least, most, some in zip(values, low, high, stopped, strict=True)
    ]


def told(data: Savings) -> str:
    """Return in words what could have been saved, and what the recommended rule would have."""
    parts = [
        f"Of n = {data.n} trials that ran to the end of their budget ({duration(data.seconds)} in "
        f"all), {data.lost} never recovered: {duration(data.savable)} "
        f"({_percent(data.savable, data.seconds)}) came after their last gain and could have been "
        f"saved."
    ]
    first = data.rules[0]
    if first.rule == RECOMMENDED_RULE:
        parts.append(
            f"Stopping at the first of {', '.join(RECOMMENDED)} would have saved "
            f"{first.share.value:.0%} of all seconds, {_of_savable(first)}, and "
            f"{_harm(data, first)}; {first.wrongly} of the {first.stopped} trials that it stops "
            f"would have ended well, and better than when they were stopped."
        )
    if data.left_out:
        parts.append(
            f"Another {data.left_out} trials ended before and are left out: what they would have "
            f"cost is not known, and the shares are of what remains."
        )
    if data.adaptive:
        parts.append("The search was adaptive: had trials been stopped, it would have gone on "
                     "elsewhere, which no replay can tell.")  # fmt: skip
    parts.append(
        f"Hatched: rules that make an arm's best worse, stopped trials counting by their best "
        f"checkpoint so far. ASHA and median stopping decide within an arm on {data.reported}. "
        f"Lines: 95 % intervals over configurations, where a rule saves something in "
        f"{FEWEST_STOPPED} of {FEWEST_DRAWN} or more."
    )
    return " ".join(parts)


def _of_savable(saving: Saving) -> str:
    share = saving.share_of_savable.value
    return "nothing being savable" if math.isnan(share) else f"{share:.0%} of the savable"


def _harm(data: Savings, saving: Saving) -> str:
    if not saving.worse:
        return "no arm's best would have been worse"
    n, arms = len(saving.worse), len(data.best)
    return f"the best of {n} of {arms} arms would have been worse"


def _percent(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else "0%"


def duration(seconds: float) -> str:
    """Return seconds below two minutes, minutes below two hours, else hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def savings_figure(data: Savings) -> go.Figure:
    """Draw two bars a rule: the share of all seconds, and of those that could be saved.

    Rules that make an arm's best worse are hatched, and say in how many arms.
    """
    figure = go.Figure()
    names = [saving.rule for saving in data.rules]
    hatched = ["/" if saving.worse else "" for saving in data.rules]
    bars = {
        "of all seconds": [saving.share for saving in data.rules],
        "of the savable": [saving.share_of_savable for saving in data.rules],
    }
    for color, (label, shares) in zip(COLORS, bars.items(), strict=False):
        below, above = zip(*map(_reach, shares), strict=True)
        figure.add_bar(
            orientation="h",
            name=label,
            y=names,
            x=[None if math.isnan(share.value) else share.value for share in shares],
            error_x={"array": above, "arrayminus": below, "thickness": 1, "color": "#444"},
            marker={"color": color, "pattern": {"shape": hatched}},
            hovertemplate=f"%{{y}}: %{{x:.1%}} {label}<extra></extra>",
        )
    above_all = {"orientation": "h", "y": 1, "yanchor": "bottom", "x": 0}
    figure.update_layout(
        **layout(height=120 + 44 * len(names), legend=above_all),
        barmode="group",
        xaxis={"title": "share saved", "tickformat": ".0%"},
        yaxis={
            "autorange": "reversed",
            "automargin": True,
            "tickvals": names,
            "ticktext": [
                name + (f"<br>best worse in {len(saving.worse)} of {len(data.best)} arms"
                        if saving.worse else "")
                for name, saving in zip(names, data.rules, strict=True)
            ],
        },
    )  # fmt: skip
    return figure


def _reach(share: Estimate) -> tuple[float | None, float | None]:
    """Return how far the interval reaches below and above the value, None where there is none."""
    if share.low is None or share.high is None:
        return None, None
    return share.value - share.low, share.high - share.value


def section(study: Study) -> Section | None:
    """Return what stopping early would have saved, None where there is nothing to try."""
    data = savings_data(study)
    if data is None:
        return None
    how = (
        "Every rule is tried on the recorded runs, cut short where it would have stopped "
        "them; a stopped trial pays for one more evaluation. Lost: at its end not finite, or "
        "1.5 times as bad as its own best, or more than half as bad as the untrained "
        "generator without a gain of 10 % in the second half of its budget, by the scores "
        "alone. Wrongly: ended well, and better by 10 % than when it was stopped. Best worse: "
        "arms, by the best checkpoints up to the stop. Best discarded: arms whose best would "
        "be worse if a stopped trial counted as failed. Tau: Kendall's, of the arms' bests "
        "with and without the rule."
    )
    title = "What stopping early would have saved"
    rows = saving_rows(data)
    figure = Figure("savings", title, told(data), savings_figure(data), rows)
    return Section("savings", title, [figure, Table("savings", title, how, rows, _shown(data))])


def saving_rows(data: Savings) -> pd.DataFrame:
    """Return one row a rule, as numbers."""
    return pd.DataFrame(
        {
            "rule": [s.rule for s in data.rules],
            "stopped": [s.stopped for s in data.rules],
            "n": data.n,
            "lost": [s.lost for s in data.rules],
            "wrongly": [s.wrongly for s in data.rules],
            "seconds": [s.seconds for s in data.rules],
            "share": [s.share.value for s in data.rules],
            "share_low": [s.share.low for s in data.rules],
            "share_high": [s.share.high for s in data.rules],
            "share_of_savable": [s.share_of_savable.value for s in data.rules],
            "tau": [s.tau for s in data.rules],
        }
    )


def _shown(data: Savings) -> pd.DataFrame:
    columns = ["rule", "stopped", "of them lost", "of them wrongly", "saved", "of all seconds",
               "of the savable", "best worse", "best discarded", "tau of the ranking"]  # fmt: skip
    rows = [
        [
            saving.rule,
            f"{saving.stopped} of {data.n}",
            str(saving.lost),
            str(saving.wrongly),
            duration(saving.seconds),
            interval(saving.share, share=True),
            interval(saving.share_of_savable, share=True),
            ", ".join(_worse(data, saving, arm) for arm in saving.worse) or "none",
            ", ".join(saving.discarded) or "none",
            _tau(saving),
        ]
        for saving in data.rules
    ]
    return pd.DataFrame(rows, columns=columns)


def _worse(data: Savings, saving: Saving, arm: str) -> str:
    return f"{arm} ({number(data.best[arm])} to {number(saving.best[arm])})"


def _tau(saving: Saving) -> str:
    if math.isnan(saving.tau):
        return NONE
    return f"{saving.tau:.2f}" + ("" if saving.same_ranking else " (changed)")
