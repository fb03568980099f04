"""How often each arm beats each other one, drawn."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from analysis.style import layout, style

MOST_DOTS = 6
"""Arms up to which every ordered pair is a dot of its own; more make a matrix."""
MOST_WORDS = 14
"""Arms up to which the matrix holds numbers."""


def improvement_figure(rows: pd.DataFrame, arms: Sequence[str]) -> go.Figure:
    """Draw how often each arm beats each other one: dots, or a matrix of many arms."""
    return _dots(rows, arms) if len(arms) <= MOST_DOTS else _matrix(rows, arms)


def _dots(rows: pd.DataFrame, arms: Sequence[str]) -> go.Figure:
    figure = go.Figure()
    for index, arm in enumerate(arms):
        mine, look = rows[rows["arm"] == arm], style(index)
        place = [arms.index(other) for other in mine["against"]]
        # Within a column the other arms stand side by side, in the order of the study.
        step = 0.6 / max(1, len(arms) - 1)
        shift = [(index - (index > at) - (len(arms) - 2) / 2) * step for at in place]
        figure.add_scatter(
            x=[at + by for at, by in zip(place, shift, strict=True)],
            y=mine["probability"],
            error_y={
                "array": mine["high"] - mine["probability"],
                "arrayminus": mine["probability"] - mine["low"],
                "thickness": 1.5,
                "width": 4,
            },
            mode="markers",
            name=arm,
            marker={"color": look.color, "symbol": look.symbol, "size": 10},
            customdata=mine[["against", "low", "high", "n"]].to_numpy(),
            hovertemplate=f"{arm} over %{{customdata[0]}}: %{{y:.0%}} [%{{customdata[1]:.0%}}, "
            "%{customdata[2]:.0%}], n = %{customdata[3]}<extra></extra>",
        )
    figure.add_hline(y=0.5, line={"dash": "dot", "color": "#444"}, layer="below")
    figure.update_layout(
        **layout(showlegend=True),
        xaxis={
            "title": "against",
            "tickvals": list(range(len(arms))),
            "ticktext": list(arms),
            "range": [-0.5, len(arms) - 0.5],
            "showgrid": False,
            "automargin": True,
        },
        yaxis={"title": "share of wins", "range": [-0.03, 1.03], "tickformat": ".0%"},
    )
    for edge in range(1, len(arms)):
        figure.add_vline(x=edge - 0.5, line={"color": "#ddd", "width": 1}, layer="below")
    return figure


def _matrix(rows: pd.DataFrame, arms: Sequence[str]) -> go.Figure:
    table = rows.pivot(index="arm", columns="against", values="probability")
    table = table.reindex(index=list(arms), columns=list(arms))
    figure = go.Figure(
        go.Heatmap(
            x=list(arms),
            y=list(arms),
            z=table.to_numpy(),
            text=_words(rows, arms),
            texttemplate="%{text}" if len(arms) <= MOST_WORDS else None,
            textfont={"size": 10},
            colorscale=[(0, "#E69F00"), (0.5, "#FFFFFF"), (1, "#56B4E9")],
            zmin=0,
            zmax=1,
            hoverongaps=False,
            hovertemplate="%{y} over %{x}: %{z:.2f}<extra></extra>",
            colorbar={"title": "wins", "tickformat": ".0%", "thickness": 12},
        )
    )
    figure.update_layout(
        **layout(height=160 + 30 * len(arms)),
        xaxis={"title": "against", "automargin": True},
        yaxis={"automargin": True, "autorange": "reversed"},
    )
    return figure


def _words(rows: pd.DataFrame, arms: Sequence[str]) -> list[list[str]]:
    """Return each cell's number, in brackets where its interval holds one half."""
    known = {}
    for arm, other, value, low, high in rows.iloc[:, :5].itertuples(index=False):
        open_ = not (low > 0.5 or high < 0.5)  # nor where there is no interval
        known[arm, other] = f"({value:.2f})" if open_ else f"{value:.2f}"
    return [[known.get((arm, other), "") for other in arms] for arm in arms]
