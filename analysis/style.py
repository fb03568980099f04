"""How figures look: colours, symbols and axes; arms differ in colour, symbol and dash."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

# Okabe & Ito's colours, told apart by colour-blind readers; arms differ in symbol and dash too.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "pentagon", "hourglass")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
EVENT_SYMBOLS = {
    "divergence": "x",
    "mode_collapse": "triangle-down",
    "mode_dropping": "triangle-up",
    "vanishing_gradient": "triangle-left",
    "exploding_gradient": "triangle-right",
    "discriminator_overpowering": "hourglass",
    "generator_overpowering": "bowtie",
    "oscillation": "diamond-tall",
    "quality_drop": "diamond-wide",
    "no_learning": "square",
    "checkerboard": "square-cross",
    "memorization": "hexagon",
    "recovery": "circle",
}
HEIGHT = 420


class Style(NamedTuple):
    """How one arm is drawn in every figure."""

    color: str
    symbol: str
    dash: str


def style(index: int) -> Style:
    """Return the style of the arm at `index`.

    The three lists differ in length, so that the eighth arm has the first one's colour alone.
    """
    return Style(
        COLORS[index % len(COLORS)], SYMBOLS[index % len(SYMBOLS)], DASHES[index % len(DASHES)]
    )


def layout(**more: Any) -> dict[str, Any]:
    """Return the layout that all figures share."""
    shared: dict[str, Any] = {
        "template": "plotly_white",
        "height": HEIGHT,
        "margin": {"l": 64, "r": 16, "t": 16, "b": 56},
        "legend": {"orientation": "h", "y": -0.2, "x": 0},
        "font": {"size": 13},
        "hoverlabel": {"namelength": -1},
    }
    return shared | more


TICKS = 5
"""About how many labels an axis gets."""


def evenly(n: int, most: int) -> NDArray[np.int64]:
    """Return at most so many of the indices 0 to n - 1, evenly spread, both ends among them."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))


def score_axis(title: str, scores: Sequence[float]) -> dict[str, Any]:
    """Return an axis for `scores`: logarithmic, with whole numbers as labels, if all are positive.

    Plotly's own labels are powers of ten and single digits between them: within one decade, where
    most studies lie, few or none.
    """
    if not scores or min(scores) <= 0:
        return {"title": title, "type": "linear"}
    ticks = log_ticks(min(scores), max(scores))
    labels = [f"{tick:.10g}" if 1e-4 <= tick < 1e6 else f"{tick:.0e}" for tick in ticks]
    return {"title": title, "type": "log", "tickvals": ticks, "ticktext": labels}


def log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers about and between `low` and `high`: even steps, 1-2-5s, or powers."""
    least, most = sys.float_info.min, sys.float_info.max
    low, high = max(low, least), max(high, least)
    if high <= low * 1.001:
        low, high = max(0.9 * low, least), min(1.1 * high, most)
    decades = math.log10(high) - math.log10(low)  # their ratio may be no number any more
    first, last = math.floor(math.log10(low)), min(math.ceil(math.log10(high)), 308)
    if decades > 3:
        every = math.ceil(decades / TICKS)
        return [10.0**power for power in range(first, last + 1, every)]
    if decades > 1:
        ticks = [digit * 10.0**power for power in range(first, last + 1) for digit in (1, 2, 5)]
        return [tick for tick in ticks if tick <= most]
    rough = max(high - low, 1e-9 * high) / TICKS
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= rough)
    begin, count = math.floor(low / step), math.ceil(high / step) - math.floor(low / step)
    ticks = [k * step for k in range(begin, begin + count + 1)]
    return [tick for tick in ticks if 0 < tick <= most]


def common_extent(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the lowest and highest of the scores that share a scale, None if there are none.

    On its way out a diverging trial would stretch the scale until all others are flat: what lies
    a thousand times beyond nine tenths of all positive scores leaves the picture.
    """
    if not len(values):
        return None
    highest, most = max(values), float(np.quantile(values, 0.9))
    return min(values), min(highest, 1000 * most) if most > 0 else highest


def level(figure: go.Figure, y: float, log: bool, text: str, line: dict[str, Any]) -> None:
    """Draw a level across the figure with its name at the left end."""
    figure.add_hline(y=y, line=line, layer="below")
    # On a log axis plotly places a line by its value but a text by its logarithm.
    figure.add_annotation(
        text=text,
        y=math.log10(y) if log else y,
        x=0,
        xref="paper",
        xanchor="left",
        yanchor="bottom",
        showarrow=False,
        font={"size": 11, "color": "#444"},
    )


def failure_lane(finite: Sequence[float], log: bool, sign: int) -> float:
    """Return the height of the lane of failures: beyond the worst score as it is told.

    Args:
        finite: The scores, as they are told.
        log: Whether their axis is logarithmic.
        sign: 1 where lower scores are better, so that it lies above; -1 for below.
    """
    if not len(finite):
        return 1.0
    low, high = min(finite), max(finite)
    if log:
        step = (high / low) ** 0.15 * 1.3
        return high * step if sign == 1 else low / step
    step = 0.15 * (high - low) + 0.05 * max(abs(low), abs(high), 1e-9)
    return high + step if sign == 1 else low - step
