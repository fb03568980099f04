"""The primary score over training, with the events where they began."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.page import Figure, Section
from analysis.samples import best_and_median
from analysis.style import EVENT_SYMBOLS, common_extent, evenly, layout, score_axis, style
from analysis.tables import Study
from analysis.trials import hover_texts
from ganstudy.records import TrialStatus

MOST_DRAWN = 40
"""Curves an arm; of more, evenly many of every rank are drawn, best, median and worst always."""


class Curve(NamedTuple):
    """The primary score of one trial over its training, with its events."""

    trial_id: str
    status: str
    updates: list[int]
    scores: list[float]
    events: list[tuple[str, int, float]]
    """(kind, onset, height at which it is drawn)."""
    role: str
    """"best", "median", "failed" or empty."""
    chosen: int | None = None
    """Which of its evaluations its trial is ranked by; None if none has a score."""


def nearest(curve: Sequence[tuple[int, float]], at: int) -> float:
    """Return the score of the evaluation nearest to update `at`."""
    return min(curve, key=lambda point: abs(point[0] - at))[1]


def chosen_trials(study: Study, arm: str, most: int = MOST_DRAWN) -> pd.DataFrame:
    """Return the trials of an arm that are drawn, best first, with their `role`.

    Best and median are those of all the trials that count, however many are drawn: neither the
    arm at its defaults, nor a trial that a rule stopped.
    """
    trials = study.results.trials
    begun = trials[(trials["arm"] == arm) & (trials["status"] != TrialStatus.PENDING)]
    scores = study.outcomes["score"].reindex(begun.index)
    begun = begun.assign(score=scores).sort_values("score", kind="stable")
    roles = pd.Series("", index=begun.index).mask(np.isinf(begun["score"]), "failed")
    told = best_and_median(study.counted(arm))
    for role, index in zip(("best", "median"), told, strict=True):
        if index is not None:
            roles.loc[index] = role
    begun = begun.assign(role=roles)
    if len(begun) <= most:
        return begun
    drawn = begun["role"].isin(["best", "median"]).to_numpy(copy=True)
    drawn[evenly(len(begun), most)] = True
    return begun[drawn]


def training_curves_data(study: Study, arm: str, most: int = MOST_DRAWN) -> list[Curve]:
    """Return curves of one arm's trials; an event is drawn at the score nearest its onset."""
    trials = chosen_trials(study, arm, most)
    points = study.primary_points
    points = points[points["trial_id"].isin(trials["trial_id"])]
    by_trial = dict(tuple(points.groupby("trial_id")))
    events = study.results.events
    events_of = dict(
        tuple(events[events["trial_id"].isin(trials["trial_id"])].groupby("trial_id"))
    )
    curves = []
    for trial_id, status, role in zip(
        trials["trial_id"], trials["status"], trials["role"], strict=True
    ):
        mine, found = by_trial.get(trial_id), events_of.get(trial_id)
        if mine is None:
            continue
        updates, scores = mine["discriminator_updates"].tolist(), mine["value"].tolist()
        finite = [(u, s) for u, s in zip(updates, scores, strict=True) if math.isfinite(s)]
        found = None if found is None else found[found["onset"].notna()]
        marks = [] if found is None else list(zip(found["kind"], found["onset"], strict=True))
        placed = [(str(k), int(o), nearest(finite, o)) for k, o in marks if finite]
        chosen = _ranked_by(study, scores)
        curves.append(
            Curve(str(trial_id), str(status), updates, scores, placed, str(role), chosen)
        )
    return curves


def _ranked_by(study: Study, scores: Sequence[float]) -> int | None:
    """Return which evaluation the study's rule ranks a trial by: its best, or its last."""
    oriented = study.sign * np.asarray(scores, dtype=float)
    finite = np.isfinite(oriented)
    if not finite.any():
        return None
    if study.score_rule.checkpoint == "last":
        return len(oriented) - 1 if finite[-1] else None
    return int(np.where(finite, oriented, math.inf).argmin())


def training_curves_figure(
    curves: Sequence[Curve],
    index: int,
    score: str,
    extent: tuple[float, float] | None,
    hovers: pd.Series[str] | None = None,
) -> go.Figure:
    """Draw one arm's trials; events are marked where they began."""
    figure = go.Figure()
    look = style(index)
    log = extent is not None and extent[0] > 0
    for curve in sorted(curves, key=lambda c: c.role in ("best", "median")):
        told = curve.role in ("best", "median")
        hover = curve.trial_id if hovers is None else hovers.get(curve.trial_id, curve.trial_id)
        figure.add_scatter(
            x=curve.updates,
            y=[s if math.isfinite(s) else None for s in curve.scores],
            mode="lines",
            name=curve.role if told else curve.trial_id,
            showlegend=told,
            line={
                "color": "#000" if told else look.color,
                "width": 3 if told else 1.5,
                "dash": "dash" if curve.role == "median" else "solid",
            },
            opacity=1 if told else 0.5,
            hovertemplate=f"{hover}<br>%{{x}} updates: %{{y:.4g}}<extra></extra>",
        )
        at = curve.chosen
        if at is not None and curve.role == "best":
            figure.add_scatter(
                x=[curve.updates[at]], y=[curve.scores[at]], mode="markers", showlegend=False,
                marker={"symbol": "circle-open", "size": 14, "color": "#000"}, hoverinfo="skip",
            )  # fmt: skip
    _add_events(figure, curves)
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


def _add_events(figure: go.Figure, curves: Sequence[Curve]) -> None:
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


def section(study: Study) -> Section | None:
    """Return one small figure per arm, all on one scale."""
    per_arm = {arm: training_curves_data(study, arm) for arm in study.arms}
    values = [
        score
        for curves in per_arm.values()
        for curve in curves
        for score in curve.scores
        if math.isfinite(score)
    ]
    extent, hovers = common_extent(values), hover_texts(study)
    trials = study.results.trials
    counts = trials.loc[trials["status"] != TrialStatus.PENDING, "arm"].value_counts()
    figures: list[Figure] = []
    for index, (arm, curves) in enumerate(per_arm.items()):
        if curves:
            plot = training_curves_figure(curves, index, study.primary, extent, hovers)
            n, failed = int(counts[arm]), int(np.isinf(study.trials(arm)["score"]).sum())
            drawn = "all drawn" if n <= MOST_DRAWN else f"{len(curves)} drawn, evenly by rank"
            reading = (
                f"n = {n} trials begun, those at the arm's defaults included, of which {failed} "
                f"failed; {drawn}."
            )
            figures.append(Figure(f"training-{arm}", arm, reading, plot, curve_rows(curves)))
    if not figures and not study.outcomes.empty:
        why = f"No evaluation of {study.primary} is recorded, so there are no curves to draw."
        return Section("training", "Training curves", [why])
    if not figures:
        return None
    how = (
        "The primary score at every evaluation, one line a trial, one scale for all arms, which "
        f"a diverging trial may leave. Black: the best trial, its {study.score_rule.checkpoint} "
        "checkpoint ringed, and, dashed, the lower median of all, failures last, both of the "
        "trials that the table of arms counts. Other marks show where an event began. A line that "
        "stops has no finite score from there on."
    )
    return Section("training", "Training curves", [how, *figures], grid=True)


def curve_rows(curves: Sequence[Curve]) -> pd.DataFrame:
    """Return one row a point of the curves."""
    rows = [
        (c.trial_id, c.status, c.role, update, score)
        for c in curves
        for update, score in zip(c.updates, c.scores, strict=True)
    ]
    columns = ["trial_id", "status", "role", "discriminator_updates", "score"]
    return pd.DataFrame(rows, columns=columns)
