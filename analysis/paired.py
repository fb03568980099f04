"""Arm against arm over the same configurations, as pictures."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.page import Figure, Part, Section
from analysis.style import common_extent, evenly, layout, score_axis, style
from analysis.tables import Study

MOST_PAIRS = 6
MOST_DRAWN = 2000
"""Marks of one picture; of more, evenly many of every rank of the first arm."""
HEIGHT = 380
TIE = "#666"


class PairedScores(NamedTuple):
    """Two arms' scores of the configurations that both tried.

    Attributes:
        rows: config, the two scores as told (+inf a failure), and which arm is better: 1, 2,
            or 0 for a tie.
    """

    first: str
    second: str
    rows: pd.DataFrame

    @property
    def scored(self) -> pd.DataFrame:
        """The configurations at which neither failed."""
        return self.rows.loc[np.isfinite(self.rows["x"]) & np.isfinite(self.rows["y"])]

    @property
    def failed(self) -> tuple[int, int, int]:
        """At how many configurations the first alone, the second alone, and both failed."""
        x, y = np.isinf(self.rows["x"]), np.isinf(self.rows["y"])
        return int((x & ~y).sum()), int((y & ~x).sum()), int((x & y).sum())


def paired_data(study: Study, first: str, second: str) -> PairedScores:
    """Return the scores of two arms by configuration."""
    a, b = study.unit_scores(first), study.unit_scores(second)
    common = a.index.intersection(b.index)
    a, b = a[common], b[common]
    rows = pd.DataFrame(
        {
            "config": common.to_numpy(),
            "x": np.where(np.isinf(a), math.inf, study.sign * a),
            "y": np.where(np.isinf(b), math.inf, study.sign * b),
            "better": np.select([a < b, b < a], [1, 2], 0),
        }
    )
    return PairedScores(first, second, rows)


class Span(NamedTuple):
    """The square that both axes show, and the middle of its lane of failures."""

    low: float
    high: float
    lane: float
    log: bool

    def at(self, value: float) -> float:
        """Return a value in the units of plotly's ranges and annotations."""
        return math.log10(value) if self.log else value


def span_of(data: PairedScores, sign: int) -> Span:
    """Return the extent of the scores; failures stand on the side where worse scores do."""
    values = [v for v in data.rows[["x", "y"]].to_numpy().ravel().tolist() if math.isfinite(v)]
    low, high = common_extent(values) or (1.0, 1.0)
    log = low > 0
    if high <= low:
        low, high = (0.9 * low, 1.1 * high) if log else (low - 1, high + 1)
    room = 0.14 if any(data.failed) else 0.0
    if log:
        by = (high / low) ** room
        return Span(low, high, high * by if sign == 1 else low / by, log)
    width = room * (high - low)
    return Span(low, high, high + width if sign == 1 else low - width, log)


def paired_figure(data: PairedScores, arms: Sequence[str], sign: int) -> go.Figure:
    """Draw one mark a configuration in the colour and symbol of the better arm."""
    span, figure = span_of(data, sign), go.Figure()
    drawn = _thinned(data.rows)
    looks = {1: style(arms.index(data.first)), 2: style(arms.index(data.second))}
    for better in (0, 1, 2):
        rows, look = drawn[drawn["better"] == better], looks.get(better)
        x, y = (rows[name].where(np.isfinite(rows[name]), span.lane) for name in ("x", "y"))
        figure.add_scatter(
            x=x,
            y=y,
            mode="markers",
            showlegend=False,
            marker={
                "color": look.color if look else TIE,
                "symbol": look.symbol if look else "circle-open",
                "size": 8 if len(rows) < 200 else 5,
                "opacity": 0.75,
            },
            customdata=_words(rows),
            hovertemplate="%{customdata[0]}<br>%{customdata[1]}, %{customdata[2]}<extra></extra>",
        )
    _add_frame(figure, data, span)
    ends = [span.low, span.high]
    figure.update_layout(
        **layout(height=HEIGHT, margin={"l": 64, "r": 16, "t": 24, "b": 56}),
        xaxis=_axis(data.first, ends, span),
        yaxis=_axis(data.second, ends, span),
    )
    return figure


def _words(rows: pd.DataFrame) -> list[list[str]]:
    def told(value: float) -> str:
        return f"{value:.4g}" if math.isfinite(value) else "failed"

    names, x, y = (rows[name].tolist() for name in ("config", "x", "y"))
    return [[str(c), told(a), told(b)] for c, a, b in zip(names, x, y, strict=True)]


def _axis(arm: str, ends: Sequence[float], span: Span) -> dict[str, object]:
    """Return an axis that holds the scores and the lane of failures."""
    reach = [span.at(v) for v in (*ends, span.lane)]
    room = 0.04 * (max(reach) - min(reach))
    axis = score_axis(arm, ends)
    return axis | {"range": [min(reach) - room, max(reach) + room], "constrain": "domain"}


def _add_frame(figure: go.Figure, data: PairedScores, span: Span) -> None:
    """Draw the diagonal, and the lanes of failures with their counts."""
    figure.add_shape(
        type="line", x0=span.low, y0=span.low, x1=span.high, y1=span.high, layer="below",
        line={"color": "#888", "dash": "dot", "width": 1},
    )  # fmt: skip
    first, second, both = data.failed
    if not first + second + both:
        return
    lane = {"width": 18, "color": "rgba(120,120,120,0.15)"}
    figure.add_vline(x=span.lane, line=lane, layer="below")
    figure.add_hline(y=span.lane, line=lane, layer="below")
    # At the good end of their lane, where few marks lie, on a ground of their own.
    end, across = span.at(span.low), span.at(span.lane)
    for count, x, y, turn, anchor in (
        (first, across, end, -90, {"yanchor": "bottom"}),
        (second, end, across, 0, {"xanchor": "left"}),
        (both, across, across, 0, {}),
    ):
        text = f"{count} failed" if anchor else str(count)
        if count:
            figure.add_annotation(
                x=x, y=y, text=text, textangle=turn, showarrow=False, **anchor,
                font={"size": 11, "color": "#222"}, bgcolor="rgba(255,255,255,0.85)",
            )  # fmt: skip


def _thinned(rows: pd.DataFrame) -> pd.DataFrame:
    """Return at most so many rows, evenly over the ranks of the first arm's scores."""
    if len(rows) <= MOST_DRAWN:
        return rows
    ranked = rows.sort_values(["x", "y"], kind="stable")
    return ranked.iloc[evenly(len(rows), MOST_DRAWN)]


def chosen_pairs(leading: Sequence[str], most: int = MOST_PAIRS) -> list[tuple[str, str]]:
    """Return pairs of arms to draw, the leading arm's first."""
    return list(itertools.islice(itertools.combinations(leading, 2), most))


def parts(study: Study, leading: Sequence[str]) -> list[Part]:
    """Return the pictures of the leading arms' pairs.

    Args:
        study: The study; it has pictures if arms share their configurations, and its trials do
            not compete.
        leading: Its arms that have scores, the best first.
    """
    if not study.paired or study.adaptive or len(leading) < 2:
        return []
    pairs = [paired_data(study, a, b) for a, b in chosen_pairs(leading)]
    figures: list[Part] = [_figure(study, data) for data in pairs if len(data.rows)]
    if not figures:
        return []
    above = "above" if study.sign == 1 else "below"
    text = (
        f"One mark a configuration that both arms tried, at their scores of {study.primary}. "
        f"{above.capitalize()} the dotted diagonal the arm across is better; colour and "
        "symbol are the better arm's. Failures stand in the grey lanes with their number, those "
        "of both in the corner."
    )
    total = math.comb(len(leading), 2)
    if total > len(pairs):
        text += (
            f" Drawn are {len(pairs)} of {total} pairs, those of the arms with the best mean "
            f"rank first ({', '.join(leading[:3])}, ...); the table holds all."
        )
    return [Section("paired", "The same configurations", [text, *figures], grid=True, folded=True)]


def _figure(study: Study, data: PairedScores) -> Figure:
    first, second, both = data.failed
    reading = (
        f"n = {len(data.rows)}; failed: {first} of {data.first} alone, {second} of {data.second} "
        f"alone, {both} of both."
    )
    if len(data.rows) > MOST_DRAWN:
        reading += f" Drawn are {MOST_DRAWN}, evenly over the ranks."
    outside = int((data.scored[["x", "y"]] > span_of(data, study.sign).high).any(axis=1).sum())
    if outside:
        reading += f" {outside} lie beyond the picture, a thousand times worse than most."
    rows = data.rows.assign(
        better=data.rows["better"].map({0: "", 1: data.first, 2: data.second})
    ).rename(columns={"x": data.first, "y": data.second})
    name = f"{data.first} and {data.second}"
    plot = paired_figure(data, study.arms, study.sign)
    return Figure(f"paired-{data.first}-{data.second}", name, reading, plot, rows)
