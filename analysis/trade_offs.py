"""Fidelity against variety over all runs, with the front of those that none beats in both."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

from analysis.page import Figure, Part, Section
from analysis.style import evenly, layout, style
from analysis.tables import Study

COUPLES = (
    ("precision", "recall"),
    ("density", "coverage"),
    ("polygon_precision", "polygon_recall"),
    ("precision", "coverage"),
    ("density", "recall"),
)
"""Metrics of fidelity and of variety; what an earlier row has drawn is not drawn again."""
MOST_DRAWN = 2000
"""Marks of one picture; of more, evenly many of every rank, and the whole front."""


class TradeOff(NamedTuple):
    """Two scores of every run, of which both are to be high.

    Attributes:
        rows: arm, trial_id, y (fidelity), x (variety), front: whether no run is as good in both
            and better in one. Only runs that have both.
        missing: Arm -> runs that failed or lack a score.
    """

    y: str
    x: str
    rows: pd.DataFrame
    missing: dict[str, int]


def couples(protocol: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return stored names of fidelity and variety that were measured alike: same network and n."""
    found: dict[tuple[str, str], str] = {}
    for name, how in protocol.items():
        metric = str(how.get("metric", {}).get("name", ""))
        if name.startswith(metric):
            found[metric, name.removeprefix(metric)] = name
    taken: set[str] = set()
    pairs = []
    for fidelity, variety in COUPLES:
        for (metric, rest), name in found.items():
            other = found.get((variety, rest))
            if metric != fidelity or other is None or {name, other} & taken:
                continue
            taken |= {name, other}
            pairs.append((name, other))
    return pairs


def pareto_front(x: ArrayLike, y: ArrayLike) -> NDArray[np.bool_]:
    """Return which points no other is at least as high as in both, and higher in one.

    Points that coincide are members together. Takes n log n steps.
    """
    points = pd.DataFrame({"x": np.asarray(x, float), "y": np.asarray(y, float)})
    highest = points.groupby("x")["y"].max().sort_index(ascending=False)
    beyond = highest.cummax().shift(fill_value=-math.inf)  # of all x that are larger
    at = points["x"]
    member = (points["y"] == at.map(highest)) & (points["y"] > at.map(beyond))
    return member.to_numpy(dtype=bool)


def scored(study: Study, *names: str) -> pd.DataFrame | None:
    """Return the contenders' scores as told, NaN where one failed; None without a column."""
    runs = study.outcomes[study.outcomes["arm"].isin(study.contenders)]
    rows = pd.DataFrame(
        {"arm": runs["arm"].astype(str), "trial_id": runs["trial_id"],
         "config_id": runs["config_id"].astype(str)}
    )  # fmt: skip
    for name in names:
        if f"{study.score_rule.checkpoint}.{name}" not in runs:
            return None
        values = study.scores(runs, replace(study.score_rule, score=name, sign=1))
        rows[name] = values.where(np.isfinite(values))
    return rows


def trade_off_data(study: Study, y: str, x: str) -> TradeOff | None:
    """Return two scores of every run, None where the table of trials has not got them."""
    runs = scored(study, y, x)
    if runs is None:
        return None
    known = runs[[y, x]].notna().all(axis=1)
    rows = runs[known].rename(columns={y: "y", x: "x"})
    rows = rows[["arm", "trial_id", "y", "x"]].assign(front=pareto_front(rows["x"], rows["y"]))
    missing = {arm: int((~known & (runs["arm"] == arm)).sum()) for arm in study.contenders}
    return TradeOff(y, x, rows, missing)


def thinned(rows: pd.DataFrame, most: int = MOST_DRAWN) -> pd.DataFrame:
    """Return at most so many rows, evenly over the ranks of x, and all of the front besides."""
    if len(rows) <= most:
        return rows
    ranked = rows["x"].sort_values(kind="stable").index
    picked = ranked[evenly(len(rows), most)]
    return rows[rows.index.isin(picked) | rows.get("front", False)]


def trade_off_figure(data: TradeOff, arms: Sequence[str]) -> go.Figure:
    """Draw one mark a run, and the front as a staircase."""
    figure = go.Figure()
    front = data.rows[data.rows["front"]].sort_values(["x", "y"], ascending=[True, False])
    figure.add_scatter(
        x=front["x"],
        y=front["y"],
        mode="lines",
        name=f"Pareto front ({len(front)} runs)",
        line={"color": "#444", "width": 1.5, "shape": "vh"},
        hoverinfo="skip",
    )
    n = data.rows["arm"].value_counts()
    names = {
        arm: f"{arm} (n = {n.get(arm, 0)}, {data.missing.get(arm, 0)} failed or unscored)"
        for arm in arms
    }
    add_runs(figure, thinned(data.rows), arms, names)
    figure.update_layout(
        **layout(height=480), xaxis=_high_axis(data.x, data.rows["x"]),
        yaxis=_high_axis(data.y, data.rows["y"]),
    )  # fmt: skip
    return figure


def add_runs(
    figure: go.Figure, rows: pd.DataFrame, arms: Sequence[str], names: Mapping[str, str]
) -> None:
    """Add the marks of every arm; those of a front have a ring."""
    for index, arm in enumerate(arms):
        mine, look = rows[rows["arm"] == arm], style(index)
        ring = mine["front"] if "front" in mine else pd.Series(False, index=mine.index)
        figure.add_scatter(
            x=mine["x"],
            y=mine["y"],
            mode="markers",
            name=names[arm],
            marker={
                "color": look.color,
                "symbol": look.symbol,
                "size": 9 if len(rows) < 500 else 6,
                "opacity": 0.75,
                "line": {"width": np.where(ring, 2, 0).tolist(), "color": "#000"},
            },
            hovertext=mine["trial_id"].astype(str),
            hovertemplate="%{hovertext}<br>%{x:.4g}, %{y:.4g}<extra></extra>",
        )


def _high_axis(title: str, values: pd.Series[float]) -> dict[str, Any]:
    """Return an axis from 0: to 1 for shares, as far as it goes for density."""
    top = float(values.max()) if len(values) else 1.0
    low = min(0.0, float(values.min()) if len(values) else 0.0)
    top = max(1.0, top) if top > 0.5 else 1.1 * top or 1.0
    room = 0.02 * (top - low)
    return {"title": f"{title} (higher is better)", "range": [low - room, top + room]}


def _trade_off(study: Study, y: str, x: str) -> Part:
    """Return the picture of two scores, or why there is none."""
    data = trade_off_data(study, y, x)
    if data is None:
        return f"The table of trials has no column of {y} or of {x}."
    missing = sum(data.missing.values())
    if data.rows.empty:
        return f"No run has both {y} and {x}: {missing} failed or lack one of them."
    reading = (
        "One mark a run, at the checkpoint that the primary score chose: up is more faithful, "
        "right is more varied. Ringed and joined: the Pareto front, the runs that no other run "
        "of any arm equals in both and beats in one; the best of so many draws, it flatters. "
        f"n = {len(data.rows)} runs; {missing} more failed or lack one of the two scores."
    )
    shown = len(thinned(data.rows))
    if shown < len(data.rows):
        reading += f" Drawn are {shown}, evenly over the ranks, with the whole front."
    rows = data.rows.rename(columns={"y": y, "x": x})
    plot = trade_off_figure(data, study.arms)
    return Figure(f"trade-off-{y}", f"{y} against {x}", reading, plot, rows)


def section(study: Study) -> Section | None:
    """Return fidelity by variety, where both were measured."""
    if study.outcomes.empty:
        return None
    parts = [_trade_off(study, y, x) for y, x in couples(study.protocol)]
    return Section("trade-offs", "Fidelity against variety", parts) if parts else None
