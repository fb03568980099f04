"""The same arms in several studies: medians and ranks, and ratios where scores do not compare."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy import stats

from analysis import statistics
from analysis.arms import failures_positive, interval, signed
from analysis.budget import why_none
from analysis.comparisons import scaled_scores
from analysis.page import NONE, Figure, Part, Section, Table, number
from analysis.ranking import judged_k
from analysis.several.shared import common_arms, dataset, no_sample
from analysis.statistics import Estimate
from analysis.style import layout, style
from analysis.tables import Study
from analysis.verdict import compared

RATIO_COLUMNS = ["study", "data_set", "arm", "reference", "k", "ratio", "low", "high", "n",
                 "paired_ratio", "p_holm"]  # fmt: skip


def arms_in_common(studies: Mapping[str, Study]) -> Section | None:
    """Return the common arms, study by study and over studies."""
    title = "The same arms in every study"
    arms = common_arms(studies)
    if not arms:
        return Section("across", title, ["The studies have no arm in common that has results."])
    parts: list[Part] = [_medians(studies, arms)]
    ratios = ratio_rows(studies)
    if len(ratios):
        why = no_sample({name: studies[name] for name in ratios["study"].unique()})
        aggregate = aggregate_rows(ratios, why)
        reference = ratios["reference"].iloc[0]
        warning = "; ".join(dict.fromkeys(filter(None, aggregate["warning"])))
        reading = (
            f"Median best of k = {ratios['k'].iloc[0]} of each arm as a multiple of {reference}'s "
            f"in the same study (below 1: better), with its conservative interval. Diamonds: "
            f"geometric mean over studies, {over_studies(why)}: raw scores of data sets are never "
            f"averaged.{f' Careful: {warning}.' if warning else ''}"
        )
        parts.append(
            Figure("ratios", f"Against {reference}", reading,
                   ratio_figure(ratios, aggregate), ratios)
        )  # fmt: skip
        parts.append(_ratio_table(ratios))
    else:
        parts.append(f"There are no ratios: {why_no_ratios(studies)}.")
    return Section("across", title, parts)


def why_no_ratios(studies: Mapping[str, Study]) -> str:
    """Return why `ratio_rows` has no row."""
    if len(common_arms(studies)) < 2:
        return "they need a second common arm with results"
    if any(study.adaptive for study in studies.values()):
        return "trials of a study competed with one another"
    return "no study has scores that are all above 0"


def over_studies(why: str) -> str:
    """Return in words which interval an aggregate has, and why none."""
    return f"without an interval ({why})" if why else "with Student's interval over them"


def ratio_rows(studies: Mapping[str, Study]) -> pd.DataFrame:
    """Return, by study and common arm, the ratio of its median best of k to the reference arm's.

    The reference is the first common arm. K is the smallest of those that the studies are judged
    at: a multiple at one budget is another quantity than at another. P-values compare the arm with
    the reference within the study, adjusted by Holm over its arms. Studies whose scores are no
    ratios are left out; empty where trials of a study competed.
    """
    arms = common_arms(studies)
    if len(arms) < 2 or any(study.adaptive for study in studies.values()):
        return pd.DataFrame(columns=RATIO_COLUMNS)
    reference, *others = arms
    found = {name: scaled_scores(study, arms) for name, study in studies.items()}
    scores = {name: scaled for name, scaled in found.items() if scaled is not None}
    entered = {name: studies[name] for name in scores}
    k = min((_most(study, scores[name]) for name, study in entered.items()), default=1)
    rows = []
    for name, study in entered.items():
        tests = [compared(study, arm, reference) for arm in others]
        adjusted = statistics.holm([test.p if test else 1.0 for test in tests])
        smallest = [test.smallest if test else 1.0 for test in tests]
        tested = statistics.can_be_significant(smallest)
        for arm, p, known_p in zip(others, adjusted, tested, strict=True):
            ratio = statistics.ratio_of_best_of_k(scores[name][arm], scores[name][reference], k)
            known = study.independent
            rows.append(
                (name, dataset(study), arm, reference, k, ratio.value,
                 _end(ratio.low, known), _end(ratio.high, known), ratio.n,
                 _paired_ratio(study, scores[name][arm], scores[name][reference]),
                 p if known_p else math.nan)
            )  # fmt: skip
    return pd.DataFrame(rows, columns=RATIO_COLUMNS)


def _most(study: Study, scores: Mapping[str, pd.Series[float]]) -> int:
    """Return the budget that a study is judged at, as far as its arms have configurations."""
    judged = 1 if why_none(study) else judged_k(study)
    return min(judged, *map(len, scores.values()))


def aggregate_rows(ratios: pd.DataFrame, why: str = "") -> pd.DataFrame:
    """Return, by arm, the geometric mean of its ratios over studies, with its interval.

    Args:
        ratios: As `ratio_rows` gives them.
        why: Why the studies are no sample of data sets, so that there is no interval.
    """
    rows = []
    for arm, mine in ratios.groupby("arm", sort=False):
        known = mine["ratio"].dropna()
        if len(known):
            with np.errstate(divide="ignore"):
                over = statistics.across_datasets(np.log(known))
            ends = (_end(over.ratio.low, not why), _end(over.ratio.high, not why))
            rows.append((arm, over.ratio.value, *ends, over.ratio.n, over.warning or ""))
    return pd.DataFrame(rows, columns=["arm", "ratio", "low", "high", "studies", "warning"])


def ratio_text(value: float, low: float, high: float) -> str:
    """Return a ratio with its interval; an end that is NaN does not exist."""
    known = not math.isnan(low) and not math.isnan(high)
    return interval(Estimate(value, low if known else None, high if known else None, 0))


def _end(value: float | None, known: bool) -> float:
    return math.nan if value is None or not known else value


def _paired_ratio(study: Study, first: pd.Series[float], second: pd.Series[float]) -> float:
    common = first.index.intersection(second.index)
    if not study.paired or not len(common):
        return math.nan
    return statistics.paired_ratio(first[common], second[common]).value


def _medians(studies: Mapping[str, Study], arms: Sequence[str]) -> Table:
    data, shown = [], []
    for name, study in studies.items():
        medians = [statistics.median_best_of_k(study.unit_scores(arm), 1) for arm in arms]
        ranks = stats.rankdata([m.value for m in medians], "min").astype(int)
        for arm, median, rank in zip(arms, medians, ranks, strict=True):
            told = signed(median, study.sign)
            if not study.independent:
                told = told._replace(low=None, high=None)
            failed = int(np.isinf(study.unit_scores(arm)).sum())
            data.append((name, dataset(study), study.primary, arm, *told, failed, rank))
            shown.append((name, study.primary, arm, interval(told), told.n, failed, rank))
    columns = ["study", "data_set", "score", "arm", "median", "low", "high", "n", "failed", "rank"]
    heads = ["study", "score", "arm", "median", "n", "failed", "rank"]
    reading = (
        "Median over configurations (or seeds) with its exact interval, and the rank among these "
        "arms within the study. Scores of different data sets, networks or n are different "
        "quantities: only ranks and ratios compare."
    )
    return Table("medians", "Medians", reading,
                 failures_positive(pd.DataFrame(data, columns=columns)),
                 pd.DataFrame(shown, columns=heads))  # fmt: skip


def _ratio_table(ratios: pd.DataFrame) -> Table:
    shown = pd.DataFrame(
        {
            "study": ratios["study"],
            "arm": ratios["arm"],
            "k": ratios["k"],
            "best of k": [
                ratio_text(*span)
                for span in zip(ratios["ratio"], ratios["low"], ratios["high"], strict=True)
            ],
            "paired, median": ratios["paired_ratio"].map(number),
            "p (Holm over arms)": ratios["p_holm"].map(lambda p: NONE if p != p else f"{p:.2g}"),
        }
    )
    reading = (
        f"Each study's own test of the arm against {ratios['reference'].iloc[0]}, adjusted over "
        f"the arms of that study; {NONE} where so few runs could not reach 0.05 whatever came."
    )
    return Table("ratios", "Study by study", reading, ratios, shown)


def ratio_figure(ratios: pd.DataFrame, aggregate: pd.DataFrame) -> go.Figure:
    """Draw one row an arm: a mark a study with its interval, and the aggregate."""
    arms = list(dict.fromkeys(ratios["arm"]))
    figure = go.Figure()
    studies = list(dict.fromkeys(ratios["study"]))
    for index, name in enumerate(studies):
        mine = ratios[ratios["study"] == name]
        offset = 0.3 * ((index + 0.5) / len(studies) - 0.5) * -2
        _add_ratios(figure, mine, arms, offset, name, style(index))
    _add_ratios(figure, aggregate, arms, -0.4, "over studies", None)
    figure.add_vline(x=1, line={"color": "#666", "dash": "dot"})
    figure.update_layout(
        **layout(height=140 + 90 * len(arms)),
        xaxis={"title": "ratio to the reference", "type": "log"},
        yaxis={"tickvals": list(range(len(arms))), "ticktext": arms, "automargin": True,
               "range": [-0.6, len(arms) - 0.4]},
    )  # fmt: skip
    return figure


def _add_ratios(
    figure: go.Figure, rows: pd.DataFrame, arms: Sequence[str], offset: float, name: str, look: Any
) -> None:
    rows = rows[np.isfinite(rows["ratio"]) & (rows["ratio"] > 0)]
    x = rows["ratio"].to_numpy()
    ends = rows[["low", "high"]].to_numpy()
    # An end at 0 or infinity leaves the picture on that side.
    low = np.where(np.isnan(ends[:, 0]), x, np.maximum(ends[:, 0], x / 1000))
    high = np.where(np.isnan(ends[:, 1]), x, np.minimum(ends[:, 1], x * 1000))
    color = look.color if look else "#000"
    figure.add_scatter(
        x=x, y=[arms.index(arm) + offset for arm in rows["arm"]], mode="markers", name=name,
        marker={"color": color, "symbol": look.symbol if look else "diamond", "size": 10},
        error_x={"type": "data", "symmetric": False, "array": high - x, "arrayminus": x - low,
                 "color": color},
        hovertemplate="%{fullData.name}: %{x:.3g}<extra></extra>",
    )  # fmt: skip
