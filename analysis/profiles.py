"""Performance profiles: the share of configurations that score at least so well."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from analysis import statistics
from analysis.page import Figure
from analysis.statistics.estimate import Array
from analysis.style import common_extent, evenly, layout, score_axis, style
from analysis.tables import Study

MOST_STEPS = 400
"""Thresholds of one arm; of more scores, evenly many of every rank."""
MOST_BANDS = 4
"""Arms up to which bands are drawn; more of them lie on top of each other."""


class ArmProfile(NamedTuple):
    """One arm's profile; `low` and `high` are None where draws are not independent."""

    arm: str
    score: Array
    """Thresholds as told, from the best to the worst of all arms."""
    share: Array
    low: Array | None
    high: Array | None
    n: int
    failed: int


def profiles_data(study: Study) -> list[ArmProfile]:
    """Return the profile of every arm that has scores; empty where every trial failed."""
    scores = {arm: study.unit_scores(arm).to_numpy(dtype=np.float64) for arm in study.arms}
    finite = np.concatenate([mine[np.isfinite(mine)] for mine in scores.values()])
    if not len(finite):
        return []
    ends = [float(finite.min()), float(finite.max())]
    return [_profile(study, arm, mine, ends) for arm, mine in scores.items() if len(mine)]


def _profile(
    study: Study, arm: str, scores: NDArray[np.floating[Any]], ends: list[float]
) -> ArmProfile:
    steps = np.unique(scores[np.isfinite(scores)])
    if len(steps) > MOST_STEPS:
        steps = steps[evenly(len(steps), MOST_STEPS)]
    found = statistics.performance_profile(scores, np.union1d(ends, steps))
    low, high = (found.low, found.high) if study.independent else (None, None)
    failed = int(np.isinf(scores).sum())
    return ArmProfile(
        arm, study.sign * found.thresholds, found.share, low, high, found.n, failed
    )  # fmt: skip


def profile_rows(data: list[ArmProfile]) -> pd.DataFrame:
    """Return one row an arm and threshold."""
    frames = [
        pd.DataFrame(
            {"arm": p.arm, "score": p.score, "share": p.share,
             "low": math.nan if p.low is None else p.low,
             "high": math.nan if p.high is None else p.high, "n": p.n, "failed": p.failed}
        )
        for p in data
    ]  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def profile_figure(data: list[ArmProfile], study: Study) -> go.Figure:
    """Draw one staircase an arm; the best scores are on the left."""
    figure = go.Figure()
    for profile in data:
        look = style(study.arms.index(profile.arm))
        if profile.low is not None and profile.high is not None and len(data) <= MOST_BANDS:
            _add_band(figure, profile, (profile.low, profile.high), look.color)
        figure.add_scatter(
            x=profile.score,
            y=profile.share,
            mode="lines",
            name=f"{profile.arm} (n = {profile.n}, {profile.failed} failed)",
            legendgroup=profile.arm,
            line={"color": look.color, "dash": look.dash, "width": 2, "shape": "hv"},
            hovertemplate=f"{profile.arm}<br>%{{x:.4g}}: %{{y:.0%}}<extra></extra>",
        )
    figure.update_layout(
        **layout(showlegend=True),
        xaxis=_x_axis(data, study),
        yaxis={
            "title": f"share of {study.unit}s",
            "range": [-0.02, 1.02],
            "tickformat": ".0%",
        },
    )
    return figure


def _x_axis(data: list[ArmProfile], study: Study) -> dict[str, object]:
    told = np.concatenate([profile.score for profile in data])
    low, high = common_extent(told.tolist()) or (0.0, 1.0)
    axis = score_axis(study.primary, [low, high])
    if high <= low:
        return axis
    ends = [math.log10(low), math.log10(high)] if axis["type"] == "log" else [low, high]
    room = 0.02 * (ends[1] - ends[0])
    ends = [ends[0] - room, ends[1] + room]
    return axis | {"range": ends if study.sign == 1 else ends[::-1]}


def _add_band(
    figure: go.Figure, profile: ArmProfile, edges: tuple[Array, Array], color: str
) -> None:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    for edge, fill in zip(edges, (None, "tonexty"), strict=True):
        figure.add_scatter(
            x=profile.score,
            y=edge,
            mode="lines",
            line={"width": 0, "shape": "hv"},
            fill=fill,
            fillcolor=f"rgba({red},{green},{blue},0.12)",
            legendgroup=profile.arm,
            showlegend=False,
            hoverinfo="skip",
        )


def figure(study: Study) -> Figure | str:
    """Return the profiles, or why there are none."""
    data = profiles_data(study)
    if not data:
        return "Every trial failed, so there is no score to draw a profile of."
    at = "at or below" if study.sign == 1 else "at or above"
    reading = (
        f"The share of an arm's {study.unit}s that score {at} a value: the higher a line, the "
        "better, and one that stays above another is better whatever score is asked for. A "
        "failure never gets there, so a line ends at the share that did not fail."
    )
    if data[0].low is not None:
        drawn = "" if len(data) <= MOST_BANDS else ", in the data only: there are many arms"
        reading += (
            f" Bands: 95 %, for the whole line at once (Dvoretzky, Kiefer, Wolfowitz){drawn}."
        )
    return Figure(
        "profiles",
        "Performance profiles",
        reading,
        profile_figure(data, study),
        profile_rows(data),
    )
