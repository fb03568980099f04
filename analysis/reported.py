"""What is told of each arm's best generator, chosen on select, on the report split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
import plotly.graph_objects as go

from analysis.arms import with_error
from analysis.page import NONE, Figure, Part, Section, Table, number
from analysis.style import DASHES, layout, score_axis, style
from analysis.tables import Study


class ScoreRow(NamedTuple):
    """One score of every arm's best generator.

    Attributes:
        values: Arm -> value and standard error, NaN where there is none.
        floor: Of real images against real ones at the same n.
        better: "lower", "higher", or "near the floor".
    """

    name: str
    better: str
    n: str
    values: dict[str, tuple[float, float]]
    floor: float


def score_rows(study: Study) -> list[ScoreRow]:
    """Return one row per score, the study's own first, in the order of its measures."""
    reported = study.results.reported
    rows = []
    for name in _ordered(study):
        mine = reported[reported["name"] == name]
        first = mine.iloc[0]
        values = {
            row["arm"]: (float(row["value"]), float(row["standard_error"]))
            for _, row in mine.iterrows()
        }
        how = study.reported_protocol.get(name) or study.protocol.get(name, {})
        better = what_is_better(how)
        n = f"{first['n_generated']} against {first['n_real']}"
        rows.append(ScoreRow(name, better, n, values, float(first["floor"])))
    return rows


def what_is_better(how: Mapping[str, Any]) -> str:
    """Return which values of a score are of better generators, empty where it is not known."""
    if not how.get("chooses", True):
        return "near the floor"
    return {"minimize": "lower", "maximize": "higher"}.get(how.get("direction", ""), "")


def _ordered(study: Study) -> list[str]:
    names = list(dict.fromkeys(study.results.reported["name"]))
    own = [name for name in names if name in study.protocol]
    return own + [name for name in names if name not in own]


class Line(NamedTuple):
    """One curve of one arm's best generator."""

    arm: str
    line: str
    x: list[float]
    y: list[float]


class CurveGroup(NamedTuple):
    """The curves that share a metric and its axes."""

    x_name: str
    y_name: str
    names: list[str]
    lines: list[Line]


def curves_data(study: Study) -> list[CurveGroup]:
    """Return all curves of the arms' best generators, one group per pair of axes.

    Several scores that are read off one curve bring it several times; it is drawn once.
    """
    groups = []
    for (x_name, y_name), rows in study.results.curves.groupby(["x_name", "y_name"], sort=False):
        once = rows.drop_duplicates(["arm", "line", "x", "y"])
        lines = [_line(str(arm), str(line), part) for (arm, line), part in
                 once.groupby(["arm", "line"], sort=False)]  # fmt: skip
        names = list(dict.fromkeys(rows["name"]))
        groups.append(CurveGroup(str(x_name), str(y_name), names, lines))
    return groups


def _line(arm: str, line: str, rows: pd.DataFrame) -> Line:
    return Line(arm, line, rows["x"].tolist(), rows["y"].tolist())


def curves_figure(group: CurveGroup, arms: list[str]) -> go.Figure:
    """Draw one colour an arm and one dash a line, gaps where a value is not finite."""
    figure = go.Figure()
    dashes = {line: DASHES[i % len(DASHES)] for i, line in enumerate(_lines(group))}
    for line in group.lines:
        label = f"{line.arm}: {line.line}"
        figure.add_scatter(
            x=line.x,
            y=[y if math.isfinite(y) else None for y in line.y],
            mode="lines",
            name=label,
            line={"color": style(arms.index(line.arm)).color, "dash": dashes[line.line]},
            hovertemplate=f"{label}<br>%{{x:.4g}}: %{{y:.4g}}<extra></extra>",
        )
    figure.update_layout(**layout(), xaxis=_axis(group), yaxis=_share_axis(group))
    return figure


def _share_axis(group: CurveGroup) -> dict[str, Any]:
    """Return the y axis: all of [0, 1] where the values are shares."""
    ys = [y for line in group.lines for y in line.y if math.isfinite(y)]
    shares = bool(ys) and min(ys) >= 0 and max(ys) <= 1
    return {"title": group.y_name} | ({"range": [-0.02, 1.02]} if shares else {})


def _lines(group: CurveGroup) -> list[str]:
    return list(dict.fromkeys(line.line for line in group.lines))


def _axis(group: CurveGroup) -> dict[str, Any]:
    """Return the x axis: logarithmic where it spans more than a decade, shares aside."""
    xs = [x for line in group.lines for x in line.x if math.isfinite(x)]
    if xs and min(xs) > 0 and max(xs) > max(1, 10 * min(xs)):
        return score_axis(group.x_name, xs)
    return {"title": group.x_name} | ({"range": [-0.02, 1.02]} if xs and max(xs) <= 1 else {})


def section(study: Study) -> Section | None:
    """Return every score of the arms' best generators beside its floor, and their curves."""
    rows = score_rows(study)
    if not rows:
        return None
    how = {"best": "its best checkpoint on select", "last": "its last checkpoint"}
    reading = (
        f"One trial of each arm's best configuration again (the seed at the median), by "
        f"{how[study.score_rule.checkpoint]}, against images of the report split that chose "
        "nothing. ±: one standard error over samples of that one "
        "generator (docs/measures.md says of which), not over training runs. Floor: real images "
        "against real ones."
    )
    table = Table("scores-told", "Every score of the best generators", reading,
                  study.results.reported, _shown(rows, study.arms))  # fmt: skip
    return Section("reported", table.title, [table, *_curve_figures(study)])


def _shown(rows: Sequence[ScoreRow], arms: Sequence[str]) -> pd.DataFrame:
    """Return one row per score: which values are better, the arms' values, floor and n."""
    nothing = (math.nan, math.nan)
    return pd.DataFrame(
        [
            {"score": row.name, "better": row.better or NONE}
            | {arm: with_error(*row.values.get(arm, nothing)) for arm in arms}
            | {"floor": number(row.floor), "generated against real": row.n}
            for row in rows
        ]
    )


def _curve_figures(study: Study) -> list[Part]:
    """Return one figure per pair of axes that the scores' curves have."""
    return [
        Figure(
            f"curve-{index}",
            f"{group.y_name} by {group.x_name}",
            f"Each arm's best generator on the report split; goes with {', '.join(group.names)}.",
            curves_figure(group, study.arms),
            curve_rows(group),
        )
        for index, group in enumerate(curves_data(study))
    ]


def curve_rows(group: CurveGroup) -> pd.DataFrame:
    """Return one row a point of the group's lines."""
    rows = [
        (line.arm, line.line, x, y)
        for line in group.lines
        for x, y in zip(line.x, line.y, strict=True)
    ]
    return pd.DataFrame(rows, columns=["arm", "line", group.x_name, group.y_name])
