"""Figures: `*_data` gives a NamedTuple of numbers, `*_figure` draws it. Tests read the data."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from analysis import statistics
from analysis.style import EVENT_SYMBOLS, Style, layout, level, score_axis, style
from analysis.tables import Study
from ganstudy.records import TrialStatus


def parameters(row: Mapping[Any, Any]) -> str:
    """Return a trial's swept values as lines of a hover text."""
    lines = []
    for name, value in row.items():
        missing = value is None or (isinstance(value, float) and math.isnan(value))
        if str(name).startswith("param.") and not missing:
            text = f"{value:.3g}" if isinstance(value, float) else str(value)
            lines.append(html.escape(f"{str(name).removeprefix('param.')} {text}"))
    return "<br>".join(lines)


class Dot(NamedTuple):
    """One trial of the score distribution; `score` is +inf for a failure."""

    arm: str
    trial_id: str
    score: float
    events: tuple[str, ...]
    hover: str


class ScoreDistribution(NamedTuple):
    """Scores of all trials, failures among them."""

    arms: list[str]
    dots: list[Dot]
    score: str
    floor: float
    sign: int


def score_distribution_data(study: Study) -> ScoreDistribution:
    """Collect every trial's score under AGCE's rule (best checkpoint)."""
    events = study.results.events
    dots = []
    for arm in study.arms:
        for _, row in study.trials(arm).iterrows():
            kinds = events.loc[events["trial_id"] == row["trial_id"], "kind"]
            hover = f"{row['trial_id']}<br>{row['status']}<br>{parameters(row.to_dict())}"
            dots.append(Dot(arm, row["trial_id"], row["score"], tuple(sorted(set(kinds))), hover))
    return ScoreDistribution(study.arms, dots, study.primary, study.floor, study.sign)


def score_distribution_figure(data: ScoreDistribution) -> go.Figure:
    """Draw one strip per arm, and failures in a lane of their own above the axis of scores."""
    finite = [data.sign * dot.score for dot in data.dots if math.isfinite(dot.score)]
    log = bool(finite) and min(finite) > 0
    lane = _failure_lane(finite, log)
    figure = go.Figure()
    for index, arm in enumerate(data.arms):
        mine = [dot for dot in data.dots if dot.arm == arm]
        offsets = [0.3 * ((i + 0.5) / len(mine) - 0.5) for i in range(len(mine))]
        for failed in (False, True):
            chosen = [
                (d, o) for d, o in zip(mine, offsets, strict=True) if math.isinf(d.score) == failed
            ]
            figure.add_scatter(
                x=[index + offset for _, offset in chosen],
                y=[lane if failed else data.sign * dot.score for dot, _ in chosen],
                mode="markers",
                name=arm,
                legendgroup=arm,
                showlegend=False,
                marker={
                    "size": 11,
                    "color": style(index).color,
                    "symbol": "x" if failed else style(index).symbol,
                    "line": {"width": [2 if dot.events else 0 for dot, _ in chosen]},
                },
                hovertext=[_with_events(dot) for dot, _ in chosen],
                hoverinfo="text+y" if not failed else "text",
            )
    counts = {
        arm: sum(d.arm == arm and math.isinf(d.score) for d in data.dots) for arm in data.arms
    }
    totals = {arm: sum(d.arm == arm for d in data.dots) for arm in data.arms}
    ticks = [f"{arm}<br>n = {totals[arm]}, {counts[arm]} failed" for arm in data.arms]
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
    if any(counts.values()) and finite:
        level(figure, lane, log, "failed", {"width": 18, "color": "rgba(120,120,120,0.15)"})
    if math.isfinite(data.floor) and (data.floor > 0 or not log):
        line = {"dash": "dot", "color": "#666"}
        level(figure, data.floor, log, "real against real", line)
    return figure


def _with_events(dot: Dot) -> str:
    return dot.hover + (f"<br>events: {', '.join(dot.events)}" if dot.events else "")


def _failure_lane(finite: Sequence[float], log: bool) -> float:
    """Return the height of the lane of failures, above every score."""
    if not finite:
        return 1.0
    top, bottom = max(finite), min(finite)
    return top * (top / bottom) ** 0.15 * 1.3 if log else top + 0.15 * (top - bottom) + 0.05


class BudgetCurve(NamedTuple):
    """Median best of k of one arm; an interval's ends are None where it does not exist."""

    arm: str
    n: int
    k: list[int]
    median: list[float]
    low: list[float | None]
    high: list[float | None]
    largest_k: int
    keep_stopped: list[float] | None
    """The median if stopped trials count by their best checkpoint so far; None if none was."""


def budget_curve_data(study: Study) -> list[BudgetCurve]:
    """Return the exact median best of k for every arm, failures and stopped trials as +inf.

    Empty for adaptive designs, whose trials are not exchangeable or compete, for repeated
    configs, and where no arm has two.
    """
    sampler = study.settings["design"]["sampler"]
    few = all(len(study.unit_scores(arm)) < 2 for arm in study.arms)
    if study.adaptive or sampler == "replicate" or few:
        return []
    curves = []
    for arm in study.arms:
        scores = study.unit_scores(arm).to_numpy()
        n = len(scores)
        if n == 0:
            continue
        ks = list(range(1, n + 1))
        estimates = [statistics.median_best_of_k(scores, k) for k in ks]
        kept = study.unit_scores(arm, keep_stopped=True).to_numpy()
        stopped = not np.array_equal(kept, scores)
        # Sobol points and grids are no independent draws: their curve is descriptive.
        largest = statistics.largest_k_with_interval(n) if sampler == "random" else 0
        shown = [k <= largest for k in ks]
        ends = [
            (e.low, e.high) if s else (None, None) for e, s in zip(estimates, shown, strict=True)
        ]
        curves.append(
            BudgetCurve(
                arm,
                n,
                ks,
                [study.sign * e.value for e in estimates],
                [low if study.sign == 1 else _negative(high) for low, high in ends],
                [high if study.sign == 1 else _negative(low) for low, high in ends],
                largest,
                [study.sign * statistics.median_best_of_k(kept, k).value for k in ks]
                if stopped
                else None,
            )
        )
    return curves


def _negative(value: float | None) -> float | None:
    return None if value is None else -value


def budget_curve_figure(curves: Sequence[BudgetCurve], score: str) -> go.Figure:
    """Draw one step line per arm, thin and pale where no two-sided interval exists."""
    figure = go.Figure()
    for index, curve in enumerate(curves):
        look = style(index)
        known = curve.largest_k
        for start, end, opacity in ((0, known, 1.0), (max(0, known - 1), curve.n, 0.45)):
            figure.add_scatter(
                x=curve.k[start:end],
                y=[None if math.isinf(m) else m for m in curve.median[start:end]],
                mode="lines+markers",
                name=f"{curve.arm} (n = {curve.n})",
                legendgroup=curve.arm,
                showlegend=opacity < 1,
                opacity=opacity,
                line={"color": look.color, "dash": look.dash, "width": 3 if opacity == 1 else 2},
                marker={"symbol": look.symbol, "size": 8},
                hovertemplate=f"{curve.arm}<br>best of %{{x}}: %{{y:.4g}}<extra></extra>",
            )
        if curve.keep_stopped is not None:
            figure.add_scatter(
                x=curve.k,
                y=[None if math.isinf(m) else m for m in curve.keep_stopped],
                mode="lines",
                legendgroup=curve.arm,
                showlegend=False,
                opacity=0.6,
                line={"color": look.color, "dash": "dot", "width": 1},
                hovertemplate=f"{curve.arm}, stopped trials by their best checkpoint<br>"
                "best of %{x}: %{y:.4g}<extra></extra>",
            )
        bars = [i for i, low in enumerate(curve.low) if low is not None]
        if bars:
            _add_interval(figure, curve, bars, look)
    finite = [m for curve in curves for m in curve.median if math.isfinite(m)]
    longest = max((curve.n for curve in curves), default=1)
    figure.update_layout(
        **layout(),
        xaxis={
            "title": "k: configurations tried",
            "type": "log" if longest > 20 else "linear",
            "dtick": None if longest > 20 else 1,
        },
        yaxis=score_axis(f"median best {score}", finite),
    )
    return figure


def _add_interval(figure: go.Figure, curve: BudgetCurve, bars: Sequence[int], look: Style) -> None:
    """Shade the interval; an end at infinity (failures) is drawn beyond all finite values."""
    pairs = [(curve.low[i], curve.high[i], curve.median[i]) for i in bars]
    finite = [v for values in pairs for v in values if v is not None and math.isfinite(v)]
    least, most = min(finite, default=1.0), max(finite, default=1.0)
    span = most - least + 1
    edges = (least / 10 if least > 0 else least - span, most * 10 if most > 0 else most + span)
    x = [curve.k[i] for i in bars]
    low = [max(lower, edges[0]) for lower, _, _ in pairs if lower is not None]
    high = [min(upper, edges[1]) for _, upper, _ in pairs if upper is not None]
    red, green, blue = (int(look.color[i : i + 2], 16) for i in (1, 3, 5))
    figure.add_scatter(
        x=[*x, *reversed(x)],
        y=[*high, *reversed(low)],
        fill="toself",
        mode="lines",
        line={"width": 0},
        fillcolor=f"rgba({red},{green},{blue},0.15)",
        legendgroup=curve.arm,
        showlegend=False,
        hoverinfo="skip",
    )


class Curve(NamedTuple):
    """The primary score of one trial over its training, with its events."""

    trial_id: str
    status: str
    updates: list[int]
    scores: list[float]
    events: list[tuple[str, int, float]]
    """(kind, onset, height at which it is drawn)."""
    hover: str


def nearest(curve: Sequence[tuple[int, float]], at: int) -> float:
    """Return the score of the evaluation nearest to update `at`."""
    return min(curve, key=lambda point: abs(point[0] - at))[1]


def training_curves_data(study: Study, arm: str) -> list[Curve]:
    """Return the curves of one arm's trials; an event is drawn at the score nearest its onset."""
    points = study.results.points
    points = points[points["name"] == study.primary].sort_values("discriminator_updates")
    trials = study.results.trials
    begun = trials[(trials["arm"] == arm) & (trials["status"] != TrialStatus.PENDING)]
    by_trial = dict(tuple(points.groupby("trial_id")))
    curves = []
    for _, row in begun.iterrows():
        mine = by_trial.get(row["trial_id"])
        if mine is None:
            continue
        updates, scores = mine["discriminator_updates"].tolist(), mine["value"].tolist()
        found = study.results.events
        found = found[found["trial_id"] == row["trial_id"]]
        finite = [(u, s) for u, s in zip(updates, scores, strict=True) if math.isfinite(s)]
        events = [
            (kind, onset, nearest(finite, onset))
            for kind, onset in zip(found["kind"], found["onset"], strict=True)
            if finite
        ]
        hover = f"{row['trial_id']}<br>{row['status']}<br>{parameters(row.to_dict())}"
        curves.append(Curve(row["trial_id"], row["status"], updates, scores, events, hover))
    return curves


def training_curves_figure(
    curves: Sequence[Curve], index: int, score: str, extent: tuple[float, float] | None
) -> go.Figure:
    """Draw one arm's trials; events are marked where they began."""
    figure = go.Figure()
    look = style(index)
    log = extent is not None and extent[0] > 0
    for curve in curves:
        figure.add_scatter(
            x=curve.updates,
            y=[s if math.isfinite(s) else None for s in curve.scores],
            mode="lines",
            name=curve.trial_id,
            showlegend=False,
            line={"color": look.color, "width": 2},
            opacity=0.8,
            hovertemplate=curve.hover + "<br>%{x} updates: %{y:.4g}<extra></extra>",
        )
    for kind in sorted({kind for curve in curves for kind, _, _ in curve.events}):
        marks = [
            (onset, height, curve.trial_id)
            for curve in curves
            for event, onset, height in curve.events
            if event == kind
        ]
        figure.add_scatter(
            x=[onset for onset, _, _ in marks],
            y=[height for _, height, _ in marks],
            mode="markers",
            name=kind,
            marker={
                "symbol": EVENT_SYMBOLS.get(kind, "star"),
                "size": 12,
                "color": "rgba(255,255,255,0.6)",
                "line": {"width": 2, "color": "#222"},
            },
            hovertext=[f"{trial}: {kind} began at {onset}" for onset, _, trial in marks],
            hoverinfo="text",
        )
    y = score_axis(score, extent or ())
    if extent is not None:
        ends = [math.log10(v) if log else v for v in extent]
        margin = 0.05 * (ends[1] - ends[0]) + 1e-3
        y["range"] = [ends[0] - margin, ends[1] + margin]
    figure.update_layout(
        **layout(height=320, legend={"orientation": "h", "y": -0.3, "x": 0}),
        xaxis={"title": "discriminator updates"},
        yaxis=y,
    )
    return figure


class Pick(NamedTuple):
    """One trial whose samples are shown, and why."""

    why: str
    trial_id: str
    caption: str
    image: str
    """Path of the PNG within the study's folder."""


def sample_picks(study: Study, arm: str) -> list[Pick]:
    """Choose the best, the median and one failed trial of an arm."""
    trials = study.counted(arm)
    ranked = trials[np.isfinite(trials["score"])].sort_values("score")
    picks = []
    if len(ranked):
        picks.append(_pick("best", ranked.iloc[0], study, "samples_best"))
    middle = (len(trials) - 1) // 2  # of all trials, failures last
    if 0 < middle < len(ranked):
        picks.append(_pick("lower median", ranked.iloc[middle], study, "samples_best"))
    failed = trials[np.isinf(trials["score"])]
    if len(failed):
        picks.append(_pick("failed", failed.iloc[0], study, "samples"))
    else:
        events = study.results.events
        hurt = ranked[ranked["trial_id"].isin(events["trial_id"])]
        if len(hurt):
            picks.append(_pick("worst with an event", hurt.iloc[-1], study, "samples"))
    return [pick for pick in picks if pick is not None]


def _pick(why: str, row: Any, study: Study, column: str) -> Pick | None:
    if not isinstance(row[column], str):
        return None
    at = row["best_at"] if column == "samples_best" else row["discriminator_updates"]
    score = row[f"best.{study.primary}"] if column == "samples_best" else math.nan
    told = f", {study.primary} {score:.4g}" if math.isfinite(score) else ""
    state = "" if row["status"] == TrialStatus.COMPLETED else f", {row['status']}"
    events = study.results.events
    kinds = sorted(set(events.loc[events["trial_id"] == row["trial_id"], "kind"]))
    seen = f", {', '.join(kinds)}" if kinds and column == "samples" else ""
    caption = f"{row['trial_id']} at {int(at)} updates{told}{state}{seen}"
    return Pick(why, row["trial_id"], caption, row[column])
