"""Which hyper-parameters make failure likelier: odds ratios by Firth's logistic regression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis import statistics
from analysis.page import Figure, Part, Section
from analysis.sensitivity.space import Floats, Sample
from analysis.style import layout, style

LEAST = 5
"""Failures, and as many others, below which no odds are told: intervals then span a factor of
thousands."""
WIDEST = 1e4
"""Odds ratio, and its inverse, at which the axis ends."""
SIGNIFICANT = 0.05
ODDS_COLUMNS = [
    "arm", "term", "odds_ratio", "low", "high", "p", "p_holm", "n", "failures",
]  # fmt: skip


def design(of: Sample) -> tuple[Floats, list[str]]:
    """Return the columns of a logistic regression on an arm's hyper-parameters, and their names.

    A range is one column from 0 at its low end to 1 at its high end on the scale it was drawn
    on, so that its coefficient is the log odds ratio between the ends. A choice is one indicator
    for each but its first value. Columns without variation are left out, and so are parameters
    that only some configurations have.
    """
    columns, names = [], []
    for p in of.common:
        positions = of.positions[p.key]
        if p.choices:
            columns += [positions == index for index in range(1, len(p.choices))]
            names += [f"{p.key}: {choice} vs {p.choices[0]}" for choice in p.choices[1:]]
        else:
            cells = p.span if p.whole else 0  # a whole number lies in the middle of its cell
            columns.append((positions * cells - 0.5) / (cells - 1) if cells else positions)
            names.append(f"{p.key}: high vs low end{' (log)' if p.log else ''}")
    matrix = np.column_stack(columns).astype(float) if columns else np.empty((len(of.scores), 0))
    varied = np.ptp(matrix, axis=0) > 0 if len(matrix) else np.zeros(len(names), dtype=bool)
    return matrix[:, varied], [name for name, keep in zip(names, varied, strict=True) if keep]


def refusal(of: Sample, columns: int) -> str:
    """Return why an arm's failures cannot be modelled, empty if they can."""
    n, failures = len(of.scores), int(of.failed.sum())
    if failures == 0:
        return "no configuration failed"
    if failures == n:
        return "every configuration failed"
    if min(failures, n - failures) < LEAST:
        return f"{failures} of {n} failed, and {LEAST} failures and as many others are needed"
    if columns == 0:
        return "no hyper-parameter is common to all configurations"
    if n < 3 * columns:
        return f"{n} configurations are too few for {columns} coefficients"
    return ""


def odds_data(samples: Mapping[str, Sample]) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return odds ratios of failure by arm and term, and arm -> why it has none.

    Args:
        samples: Arm -> its configurations.

    Returns:
        One row a term: the odds ratio with its 95 % profile interval, p of the penalised
        likelihood ratio test, and Holm's p over all rows.
    """
    rows, refused = [], {}
    for arm, of in samples.items():
        x, names = design(of)
        why = refusal(of, len(names))
        if not why and np.linalg.matrix_rank(x - x.mean(axis=0)) < len(names):
            why = "some hyper-parameters follow from others"
        if why:
            refused[arm] = why
            continue
        fit = statistics.firth_logistic(x, of.failed, names)
        ratios, low, high = (np.exp(v[1:]) for v in (fit.coefficients, fit.low, fit.high))
        for row in zip(names, ratios, low, high, fit.p[1:], strict=True):
            rows.append((arm, *row, float("nan"), fit.n, fit.failures))
    data = pd.DataFrame(rows, columns=ODDS_COLUMNS)
    if len(data):
        data["p_holm"] = statistics.holm(data["p"].tolist())
    return data, refused


def part(samples: Mapping[str, Sample], arms: Sequence[str]) -> Part:
    """Return the odds of failure as a section: a figure, and a sentence an arm without."""
    data, refused = odds_data(samples)
    parts: list[Part] = [f"{arm}: no odds of failure, {why}." for arm, why in refused.items()]
    if not samples:
        parts = ["No hyper-parameter was swept: there are no odds of failure to tell."]
    if len(data):
        parts.insert(0, odds_figure(data, arms))
    return Section("failure-odds", "Which hyper-parameters make failure likelier", parts)


def odds_figure(data: pd.DataFrame, arms: Sequence[str]) -> Figure:
    """Draw the odds ratios with their intervals, a row a term, arms beside another."""
    terms = data["term"].drop_duplicates().tolist()[::-1]
    shown = [arm for arm in arms if (data["arm"] == arm).any()]
    figure = go.Figure()
    for at, arm in enumerate(shown):
        mine, look = data[data["arm"] == arm], style(list(arms).index(arm))
        offset = 0.7 * ((len(shown) - 1) / 2 - at) / len(shown)
        sure = mine["p_holm"] <= SIGNIFICANT
        figure.add_scatter(
            x=mine["odds_ratio"], y=mine["term"].map(terms.index) + offset, name=arm,
            mode="markers",
            marker={"color": look.color, "size": 8,
                    "symbol": [look.symbol + ("" if known else "-open") for known in sure]},
            error_x={"type": "data", "symmetric": False,
                     "array": mine["high"] - mine["odds_ratio"],
                     "arrayminus": mine["odds_ratio"] - mine["low"],
                     "thickness": 1.2, "width": 3},
            hovertext=[f"{arm}: p = {p:.2g} by Holm" for p in mine["p_holm"]],
            hoverinfo="text+x",
        )  # fmt: skip
    figure.add_vline(x=1, line={"color": "#666", "dash": "dot"})
    low = max(1 / WIDEST, min(0.5, data["low"].min()))
    high = min(WIDEST, max(2.0, data["high"].max()))
    figure.update_layout(
        **layout(
            height=130 + len(terms) * (24 + 10 * len(shown)),
            legend={"orientation": "h", "y": 1, "yanchor": "bottom", "x": 0},
        ),
        xaxis={
            "title": "odds ratio of failure", "type": "log", "dtick": 1,
            "range": [float(np.log10(low)) - 0.1, float(np.log10(high)) + 0.1],
        },
        yaxis={"tickvals": list(range(len(terms))), "ticktext": terms, "automargin": True},
    )  # fmt: skip
    counts = ", ".join(
        f"{arm} {int(mine['failures'].iloc[0])} of {int(mine['n'].iloc[0])}"
        for arm, mine in ((arm, data[data["arm"] == arm]) for arm in shown)
    )
    reading = (
        "How many times higher the odds of failure are, all else equal, at the high end of a "
        "range than at its low end (on the scale it was drawn on), or at one choice than at "
        "another: a logistic regression with Firth's penalty, and its 95 % profile intervals. "
        f"Open marks: not to be told from 1 (Holm over all marks). Failed: {counts}."
    )
    return Figure("failure-odds", "Odds of failure", reading, figure, data)
