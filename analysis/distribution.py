"""Scores of all trials: what an arm gives over its whole range, failures and all."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.page import Figure, Section
from analysis.style import evenly, failure_lane, layout, level, score_axis, style
from analysis.tables import Study
from analysis.trials import event_kinds, hover_texts
from ganstudy.study.outcomes import DEFAULT_CONFIG

MOST_DRAWN = 400
"""Marks an arm; of more, evenly many of every rank are drawn, the best and all defaults always."""
JITTER = 0.3
TOP_SHARE = 0.05


class ScoreDistribution(NamedTuple):
    """Scores of all trials, failures among them.

    Attributes:
        rows: arm, trial_id, score (lower is better, +inf a failure), default (whether it is
            the arm at its defaults, which no n counts), events.
    """

    arms: list[str]
    rows: pd.DataFrame
    score: str
    floor: float
    sign: int


def score_distribution_data(study: Study) -> ScoreDistribution:
    """Collect every trial's score under the study's rule."""
    trials = study.outcomes
    rows = pd.DataFrame(
        {
            "arm": trials["arm"].astype(str),
            "trial_id": trials["trial_id"],
            "status": trials["status"],
            "score": trials["score"],
            # A repeated configuration may be the defaults: then they are what is shown.
            "default": (trials["config_id"] == DEFAULT_CONFIG) & (study.unit != "seed"),
            "events": event_kinds(study, trials),
        }
    )
    return ScoreDistribution(study.arms, rows, study.primary, study.floor, study.sign)


def thinned(rows: pd.DataFrame, most: int = MOST_DRAWN) -> pd.DataFrame:
    """Return at most so many rows, evenly over the ranks of their score; its order is kept."""
    if len(rows) <= most:
        return rows
    ranked = rows["score"].sort_values(kind="stable").index
    picked = ranked[evenly(len(rows), most)]
    return rows[rows.index.isin(picked) | rows.get("default", False)]


def score_distribution_figure(
    data: ScoreDistribution, hovers: pd.Series[str] | None = None
) -> go.Figure:
    """Draw one strip and box per arm, and failures in a lane of their own beyond the scores."""
    finite = (data.sign * data.rows["score"][np.isfinite(data.rows["score"])]).tolist()
    log = bool(finite) and min(finite) > 0
    lane = failure_lane(finite, log, data.sign)
    figure = go.Figure()
    ticks = []
    for index, arm in enumerate(data.arms):
        mine = data.rows[data.rows["arm"] == arm]
        failed, drawn = np.isinf(mine["score"]), ~mine["default"]
        ticks.append(f"{arm}<br>n = {drawn.sum()}, {(failed & drawn).sum()} failed")
        scored = data.sign * mine["score"][~failed & drawn]
        if len(scored) > 4:
            _add_box(figure, index, scored)
        for shown, at in ((mine[~failed], None), (mine[failed], lane)):
            _add_marks(figure, index, thinned(shown), data.sign, at, hovers)
    figure.update_layout(
        **layout(),
        xaxis={
            "tickvals": list(range(len(data.arms))),
            "ticktext": ticks,
            "range": [-0.5, len(data.arms) - 0.5],
            "automargin": True,
        },
        yaxis=score_axis(data.score, finite),
    )
    if finite and np.isinf(data.rows["score"]).any():
        level(figure, lane, log, "failed", {"width": 18, "color": "rgba(120,120,120,0.15)"})
    if math.isfinite(data.floor) and (data.floor > 0 or not log):
        line = {"dash": "dot", "color": "#666"}
        level(figure, data.floor, log, "real against real", line)
    return figure


def _add_box(figure: go.Figure, index: int, scores: pd.Series[float]) -> None:
    """Draw the quartiles of the trials that have a score, all of them."""
    low, middle, high = scores.quantile([0.25, 0.5, 0.75])
    figure.add_box(
        x=[index],
        q1=[low],
        median=[middle],
        q3=[high],
        lowerfence=[scores.min()],
        upperfence=[scores.max()],
        width=0.62,
        fillcolor="rgba(0,0,0,0)",
        line={"color": style(index).color, "width": 1},
        showlegend=False,
        hoverinfo="y",
    )


def _add_marks(
    figure: go.Figure,
    index: int,
    rows: pd.DataFrame,
    sign: int,
    lane: float | None,
    hovers: pd.Series[str] | None,
) -> None:
    # A star is a default's; failures are crosses in their lane.
    for default, part in rows.groupby("default"):
        n = len(part)
        ordinary = "x" if lane is not None else style(index).symbol
        texts = part["trial_id"] if hovers is None else hovers.reindex(part["trial_id"])
        figure.add_scatter(
            x=index + JITTER * ((np.arange(n) + 0.5) / n - 0.5),
            y=np.full(n, lane) if lane is not None else (sign * part["score"]).to_numpy(),
            mode="markers",
            showlegend=False,
            marker={
                "size": 15 if default else 9,
                "opacity": 1 if default or n < 60 else 0.6,
                "color": "#000" if default else style(index).color,
                "symbol": "star" if default else ordinary,
                "line": {"width": np.where(part["events"] != "", 2, 0).tolist()},
            },
            hovertext=texts.tolist(),
            hoverinfo="text" if lane is not None else "text+y",
        )


def top_share(study: Study, share: float = TOP_SHARE) -> ScoreDistribution:
    """Keep each arm's best configurations only, as many as the share of all that it tried."""
    data = score_distribution_data(study)
    rows = data.rows[~data.rows["default"]].sort_values("score", kind="stable")
    n = rows.groupby("arm")["arm"].transform("size")
    rank = rows.groupby("arm").cumcount()
    return data._replace(rows=rows[rank < np.maximum(1, np.ceil(share * n))])


def section(study: Study) -> Section | None:
    """Return the figures of all scores, and of the top 5 % where there are enough."""
    data = score_distribution_data(study)
    if data.rows.empty:
        return None
    better = "lower" if study.sign == 1 else "higher"
    hovers = hover_texts(study)
    parts = [
        Figure(
            "scores",
            "Scores of all trials",
            f"One mark a trial: the {study.score_rule.checkpoint} checkpoint's score on the "
            f"select split ({better} is better); the box holds the middle half of those that "
            f"have one, its whiskers all. Crosses in the grey lane failed and have no score. A "
            f"ringed mark had an event; a star is the arm at its defaults, in neither box nor n. "
            f"Hover for parameters." + _thinning(data.rows),
            score_distribution_figure(data, hovers),
            oriented(data),
        )
    ]
    top = top_share(study)
    if len(top.rows) >= 3 * len(study.arms):
        parts.append(
            Figure(
                "scores-top",
                f"The top {TOP_SHARE:.0%} of configurations",
                f"Each arm's best {TOP_SHARE:.0%} of what it tried (Kurach et al. 2019): what "
                "careful tuning finds. The more an arm tried, the better its best are, so only "
                "arms with the same n compare." + _thinning(top.rows),
                score_distribution_figure(top, hovers),
                oriented(top),
            )
        )
    return Section("distribution", "What each arm gives", parts)


def _thinning(rows: pd.DataFrame) -> str:
    if rows.groupby("arm").size().max() <= MOST_DRAWN:
        return ""
    return f" Of more than {MOST_DRAWN} marks an arm evenly many are drawn."


def oriented(data: ScoreDistribution) -> pd.DataFrame:
    """Return the rows with scores as they are told; a failure stays +inf."""
    rows = data.rows
    told = np.where(np.isinf(rows["score"]), math.inf, data.sign * rows["score"])
    return rows.assign(score=told).rename(columns={"score": data.score})
