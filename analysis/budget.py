"""What a tuning budget buys: the best of k tried configurations, by k, updates and seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis import statistics
from analysis.arms import failures_positive, interval, signed
from analysis.page import NONE, Figure, Part, Section, Table, number
from analysis.ranking import judged_k
from analysis.statistics import Estimate
from analysis.style import Style, layout, score_axis, style
from analysis.tables import Study
from ganstudy.study.outcomes import ScoreRule

TOLD_K = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Budgets in the table."""
FEWEST_LOG = 20
"""Configurations from which on k has a logarithmic axis."""


class BudgetCurve(NamedTuple):
    """Best of k of one arm; an interval's ends are None where it does not exist.

    Attributes:
        median: As told: of scores where higher is better, the median of the highest.
        expected: Mean best of k where at least one of the k succeeds.
        all_fail: Probability that none does.
        largest_k: Up to which k an interval exists.
        kept: The median if stopped trials count by their checkpoint so far; None if none was.
        updates: Discriminator updates that one configuration costs, mean; NaN if not known.
        seconds: Seconds that one configuration costs, mean; NaN if not known.
    """

    arm: str
    n: int
    failed: int
    k: list[int]
    median: list[float]
    low: list[float | None]
    high: list[float | None]
    expected: list[float]
    all_fail: list[float]
    largest_k: int
    kept: list[float] | None
    updates: float
    seconds: float


def why_none(study: Study) -> str:
    """Return why there can be no best of k, empty if there can."""
    if study.adaptive:
        return (
            "The trials of this study competed or were chosen by how others went, so the best of "
            "k of them is no estimate of anything: there is no budget curve."
        )
    if study.unit == "seed":
        return "Configurations were chosen beforehand here, so none was tried by chance."
    if all(len(study.unit_scores(arm)) < 2 for arm in study.arms):
        return "No arm has two configurations, so there is no budget to choose within."
    return ""


def budget_curve_data(study: Study, rule: ScoreRule | None = None) -> list[BudgetCurve]:
    """Return the exact best of k for every arm, failures and stopped trials as +inf.

    Empty for adaptive designs, whose trials are not exchangeable or compete, for repeated
    configs, and where no arm has two.
    """
    if why_none(study):
        return []
    rule = rule or study.score_rule
    return [_curve(study, arm, rule) for arm in study.arms if len(study.unit_scores(arm, rule))]


def _curve(study: Study, arm: str, rule: ScoreRule) -> BudgetCurve:
    scores = study.unit_scores(arm, rule).to_numpy()
    n = len(scores)
    ks = statistics.budget_grid(n)
    estimates = [signed(statistics.median_best_of_k(scores, k), rule.sign) for k in ks]
    # Sobol points and grids are no independent draws: their curve is descriptive.
    largest = statistics.largest_k_with_interval(n) if study.independent else 0
    expected = [statistics.expected_best_of_k(scores, k) for k in ks]
    kept = study.unit_scores(arm, rule=study.kept()).to_numpy()
    stopped = rule == study.score_rule and not np.array_equal(kept, scores)
    trials = study.counted(arm)
    costs = trials.groupby("config_id")[["discriminator_updates", "seconds"]]
    # A configuration one of whose seeds has an unknown cost has an unknown one.
    known = costs.count().eq(costs.size(), axis=0)
    per_config = costs.sum().where(known).mean()
    return BudgetCurve(
        arm=arm,
        n=n,
        failed=int(np.isinf(scores).sum()),
        k=ks,
        median=[e.value for e in estimates],
        low=[e.low if k <= largest else None for k, e in zip(ks, estimates, strict=True)],
        high=[e.high if k <= largest else None for k, e in zip(ks, estimates, strict=True)],
        expected=[rule.sign * e.value for e in expected],
        all_fail=[e.all_fail for e in expected],
        largest_k=largest,
        kept=[rule.sign * statistics.median_best_of_k(kept, k).value for k in ks]
        if stopped
        else None,
        updates=float(per_config["discriminator_updates"]),
        seconds=float(per_config["seconds"]),
    )


class Axis(NamedTuple):
    """What a budget is counted in."""

    key: str
    title: str
    cost: str = ""
    """Field of `BudgetCurve` that one configuration costs; empty: it costs 1."""

    def at(self, curve: BudgetCurve) -> list[float]:
        """Return where the curve's budgets lie."""
        each = getattr(curve, self.cost) if self.cost else 1
        return [k * each for k in curve.k]


AXES = (
    Axis("budget", "k: configurations tried"),
    Axis("budget-updates", "discriminator updates spent", "updates"),
    Axis("budget-seconds", "seconds of training and evaluation spent", "seconds"),
)


def budget_curve_figure(
    curves: Sequence[BudgetCurve], arms: Sequence[str], score: str, axis: Axis = AXES[0]
) -> go.Figure:
    """Draw one line per arm, thin and pale where no two-sided interval exists."""
    figure = go.Figure()
    for curve in curves:
        look, x = style(arms.index(curve.arm)), axis.at(curve)
        known = sum(k <= curve.largest_k for k in curve.k)
        for start, end, opacity in ((0, known, 1.0), (max(0, known - 1), len(x), 0.45)):
            figure.add_scatter(
                x=x[start:end],
                y=[m if math.isfinite(m) else None for m in curve.median[start:end]],
                mode="lines+markers" if len(x) <= FEWEST_LOG else "lines",
                name=f"{curve.arm} (n = {curve.n}, {curve.failed} failed)",
                legendgroup=curve.arm,
                showlegend=opacity < 1,
                opacity=opacity,
                line={"color": look.color, "dash": look.dash, "width": 3 if opacity == 1 else 2},
                marker={"symbol": look.symbol, "size": 8},
                hovertemplate=f"{curve.arm}<br>%{{x}}: %{{y:.4g}}<extra></extra>",
            )
        if curve.kept is not None:
            figure.add_scatter(
                x=x,
                y=[m if math.isfinite(m) else None for m in curve.kept],
                mode="lines",
                legendgroup=curve.arm,
                showlegend=False,
                opacity=0.6,
                line={"color": look.color, "dash": "dot", "width": 1},
                hovertemplate=f"{curve.arm}, stopped trials by their checkpoint so far<br>"
                "%{x}: %{y:.4g}<extra></extra>",
            )
        bars = [i for i, low in enumerate(curve.low) if low is not None]
        if bars:
            _add_interval(figure, curve, x, bars, look)
    finite = [m for curve in curves for m in curve.median if math.isfinite(m)]
    figure.update_layout(
        **layout(), xaxis=_x_axis(curves, axis), yaxis=score_axis(f"median best {score}", finite)
    )
    return figure


def _x_axis(curves: Sequence[BudgetCurve], axis: Axis) -> dict[str, object]:
    if max((curve.n for curve in curves), default=1) > FEWEST_LOG:
        return {"title": axis.title, "type": "log"}
    return {"title": axis.title, "type": "linear", "dtick": None if axis.cost else 1}


def _add_interval(
    figure: go.Figure, curve: BudgetCurve, x: Sequence[float], bars: Sequence[int], look: Style
) -> None:
    """Shade the interval; an end at infinity (failures) is drawn beyond all finite values."""
    pairs = [(curve.low[i], curve.high[i], curve.median[i]) for i in bars]
    finite = [v for values in pairs for v in values if v is not None and math.isfinite(v)]
    least, most = min(finite, default=1.0), max(finite, default=1.0)
    span = most - least + 1
    edges = (least / 10 if least > 0 else least - span, most * 10 if most > 0 else most + span)
    at = [x[i] for i in bars]
    low = [max(lower, edges[0]) for lower, _, _ in pairs if lower is not None]
    high = [min(upper, edges[1]) for _, upper, _ in pairs if upper is not None]
    red, green, blue = (int(look.color[i : i + 2], 16) for i in (1, 3, 5))
    figure.add_scatter(
        x=[*at, *reversed(at)],
        y=[*high, *reversed(low)],
        fill="toself",
        mode="lines",
        line={"width": 0},
        fillcolor=f"rgba({red},{green},{blue},0.15)",
        legendgroup=curve.arm,
        showlegend=False,
        hoverinfo="skip",
    )


def all_fail_figure(curves: Sequence[BudgetCurve], arms: Sequence[str]) -> go.Figure:
    """Draw the probability that all k configurations fail."""
    figure = go.Figure()
    for curve in curves:
        look = style(arms.index(curve.arm))
        figure.add_scatter(
            x=curve.k, y=curve.all_fail, mode="lines", name=curve.arm,
            line={"color": look.color, "dash": look.dash, "width": 2},
        )  # fmt: skip
    figure.update_layout(
        **layout(height=320, legend={"orientation": "h", "y": -0.3, "x": 0}),
        xaxis=_x_axis(curves, AXES[0]),
        yaxis={"title": "all k fail", "range": [-0.02, 1.02], "tickformat": ".0%"},
    )
    return figure


def curve_rows(curves: Sequence[BudgetCurve]) -> pd.DataFrame:
    """Return one row an arm and k."""
    rows = pd.concat(
        [
            pd.DataFrame(
                {"arm": c.arm, "n": c.n, "failed": c.failed, "k": c.k, "median": c.median,
                 "low": c.low, "high": c.high, "expected": c.expected, "all_fail": c.all_fail,
                 "updates": AXES[1].at(c), "seconds": AXES[2].at(c)}
            )
            for c in curves
        ],
        ignore_index=True,
    )  # fmt: skip
    return failures_positive(rows)


def _cost_figure(
    curves: Sequence[BudgetCurve], study: Study, axis: Axis, title: str, reading: str
) -> Part:
    """Draw the curves by what they cost; a sentence where that is not known of every arm."""
    unknown = [c.arm for c in curves if math.isnan(getattr(c, axis.cost))]
    if unknown:
        return (
            f"{title}: not drawn, for the table of trials does not tell the {axis.cost} of "
            f"{', '.join(unknown)}."
        )
    plot = budget_curve_figure(curves, study.arms, study.primary, axis)
    return Figure(axis.key, title, reading, plot, curve_rows(curves))


def section(study: Study) -> Section | None:
    """Return the budget curves, or why there are none."""
    title = "What a tuning budget buys"
    if study.outcomes.empty:
        return None
    if reason := why_none(study):
        return Section("budget", title, [reason])
    curves = budget_curve_data(study)
    rows = curve_rows(curves)
    main = budget_curve_figure(curves, study.arms, study.primary)
    parts: list[Part] = [
        Figure("budget", "By configurations", _caption(curves), main, rows),
        _table(curves, study),
        Section(
            "budget-costs",
            "By what it costs",
            [
                "The same curves against what k configurations of the arm cost on average: a "
                "fair budget is not the same number of trials where one trial costs more.",
                _cost_figure(curves, study, AXES[1], "By discriminator updates",
                             "All updates count, those of failed trials too."),
                _cost_figure(curves, study, AXES[2], "By seconds",
                             "Seconds of one trial on the machine that it ran on; other machines, "
                             "and trials side by side, take other seconds."),
            ],
            grid=True,
        ),
    ]  # fmt: skip
    if any(curve.failed for curve in curves):
        parts.append(
            Figure("all-fail", "The risk that all fail",
                   "Probability that k configurations drawn from those tried all fail. The "
                   "expected best in the table is of the other draws.",
                   all_fail_figure(curves, study.arms), rows)
        )  # fmt: skip
    if others := _other_scores(study):
        parts.append(others)
    return Section("budget", title, parts)


def _caption(curves: Sequence[BudgetCurve]) -> str:
    caption = (
        "How good the best of k tried configurations is, by its exact median; failures count as "
        "infinitely bad, so a line is missing where half of all choices of k fail. "
    )
    if any(curve.kept is not None for curve in curves):
        caption += "Thin dots: trials that an event stopped count by their best checkpoint. "
    if any(curve.largest_k for curve in curves):
        return caption + "Shaded: exact 95 % intervals; pale: no two-sided interval exists."
    return caption + (
        "Pale throughout: with so few configurations, or draws that are not independent, no k has "
        "a two-sided 95 % interval."
    )


def _table(curves: Sequence[BudgetCurve], study: Study) -> Table:
    """Return the curves at some budgets, among them the one that the study is judged at."""
    most = max(curve.n for curve in curves)
    told = sorted({k for k in (*TOLD_K, judged_k(study)) if k <= most})
    data, shown = [], []
    for curve in curves:
        for k in told:
            if k not in curve.k:
                continue
            i = curve.k.index(k)
            estimate = Estimate(curve.median[i], curve.low[i], curve.high[i], curve.n)
            data.append((curve.arm, k, *estimate[:3], curve.expected[i], curve.all_fail[i]))
            fails = curve.all_fail[i]
            shown.append(
                (curve.arm, k, interval(estimate), number(curve.expected[i]),
                 f"{fails:.1%}" if fails else NONE)
            )  # fmt: skip
    columns = ["arm", "k", "median", "low", "high", "expected", "all_fail"]
    heads = ["arm", "k", "median best [95 %]", "expected best, if one succeeds", "all k fail"]
    reading = (
        "Median: infinite (failed) where half of all choices fail. Expected: exact "
        "over all subsets of size k that hold a success, with the share of the others beside it."
    )
    return Table(
        "budget-table", "Some budgets", reading,
        failures_positive(pd.DataFrame(data, columns=columns)),
        pd.DataFrame(shown, columns=heads),
    )  # fmt: skip


def _other_scores(study: Study) -> Section | None:
    """Return the budget curves of every other score that knows which way is better."""
    figures: list[Part] = []
    for name, how in study.protocol.items():
        known = how.get("chooses", True) and how.get("direction") in ("minimize", "maximize")
        if name == study.primary or not known:
            continue
        sign = 1 if how["direction"] == "minimize" else -1
        rule = replace(study.score_rule, score=name, sign=sign)
        curves = budget_curve_data(study, rule)
        if not any(math.isfinite(m) for curve in curves for m in curve.median):
            continue
        better = "lower" if rule.sign == 1 else "higher"
        plot = budget_curve_figure(curves, study.arms, name)
        figures.append(
            Figure(f"budget-{name}", name, f"{better} is better.", plot, curve_rows(curves))
        )
    if not figures:
        return None
    last = study.score_rule.checkpoint == "last"
    where = "at the last checkpoint" if last else "at the checkpoint that the primary score chose"
    how_read = f"The best of k by each score alone, read {where}: a budget spent on another goal."
    title = "By other scores"
    return Section("budget-others", title, [how_read, *figures], grid=True, folded=True)
