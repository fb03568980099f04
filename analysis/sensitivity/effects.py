"""How score and failure change with one hyper-parameter, and with two at once."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy import stats

from analysis import statistics
from analysis.arms import failures_positive, honest
from analysis.page import Figure, number
from analysis.sensitivity.space import Floats, Ints, Parameter, Sample
from analysis.style import failure_lane, layout, log_ticks, style
from analysis.tables import Study

MOST_BINS = 8
PER_BIN = 12
"""Configurations that a bin holds on average: the exact interval of a median needs 6."""
MOST_CELLS = 5
"""Bins a side of a grid: of 25 cells, 100 configurations fill one with 4."""
MARGINAL_COLUMNS = [
    "arm", "parameter", "level", "label", "center", "n", "median", "low", "high",
    "failed", "failure_rate", "failure_low", "failure_high",
]  # fmt: skip


def bins_for(n: int) -> int:
    """Return into how many bins the ranges of n configurations are cut: 2 to 8."""
    return min(MOST_BINS, max(2, n // PER_BIN))


def marginal_data(samples: Mapping[str, Sample], study: Study) -> pd.DataFrame:
    """Return score and failure by arm, parameter and bin, each bin with n.

    Args:
        samples: Arm -> its configurations.
        study: Where they are from: which way is better, and whether draws are independent.

    Returns:
        One row a bin that holds a configuration: the median score (failures as the worst) with
        its exact interval, and the share of failures with its interval; ends are NaN where no
        interval exists, as where draws are not independent.
    """
    rows = []
    for arm, of in samples.items():
        bins = bins_for(len(of.scores))
        for p in of.parameters:
            levels = p.level(of.positions[p.key], bins)
            for level in range(p.levels(bins)):
                scores = of.scores[levels == level]
                if len(scores):
                    place = (arm, p.key, level, p.label(level, bins), p.center(level, bins))
                    rows.append((*place, *_outcomes(scores, study)))
    return pd.DataFrame(rows, columns=MARGINAL_COLUMNS)


_rate = lru_cache(maxsize=None)(statistics.rate)  # exact intervals are slow, and many cells alike


def _outcomes(scores: Floats, study: Study) -> tuple[float, ...]:
    sign, median = study.sign, honest(statistics.median_best_of_k(scores, 1), study)
    failed = int(np.isinf(scores).sum())
    rate = honest(_rate(failed, len(scores)), study)
    ends = [math.nan if end is None else sign * end for end in (median.low, median.high)]
    low, high = ends if sign == 1 else ends[::-1]
    shares = [math.nan if v is None else v for v in (rate.value, rate.low, rate.high)]
    return (len(scores), sign * median.value, low, high, failed, *shares)


def explained(of: Sample, *, failure: bool) -> pd.Series[float]:
    """Return parameter -> share of the variance of the score's ranks that its bins explain.

    Failures tie at the last rank, so that they count. With `failure` it is the variance of
    failing. Largest first; parameters that only some configurations have count among those.
    """
    bins, shares = min(MOST_CELLS, bins_for(len(of.scores))), {}
    for p in of.parameters:
        known = np.isfinite(of.positions[p.key])
        levels = p.level(of.positions[p.key][known], bins)
        scores = of.scores[known]
        shares[p.key] = _between(np.isinf(scores) if failure else stats.rankdata(scores), levels)
    return pd.Series(shares, dtype=float).sort_values(ascending=False, kind="stable")


def _between(values: np.ndarray, levels: Ints) -> float:
    """Return the share of variance between levels, less what as many of them get by chance."""
    table = pd.DataFrame({"value": values.astype(float), "level": levels})
    total = float(((table["value"] - table["value"].mean()) ** 2).sum())
    n, groups = len(table), table["level"].nunique()
    if total == 0 or n <= groups:
        return 0.0
    means = table.groupby("level")["value"].transform("mean")
    within = float(((table["value"] - means) ** 2).sum())
    return max(0.0, 1 - (within / (n - groups)) / (total / (n - 1)))


def marginal_figures(
    data: pd.DataFrame, samples: Mapping[str, Sample], study: Study
) -> list[Figure]:
    """Return a figure a parameter: median score above, share of failures below, arms as lines."""
    figures = []
    for key in sorted(data["parameter"].unique()):
        rows = data[data["parameter"] == key]
        counts = rows.groupby("arm", sort=False)[["n", "failed"]].sum()
        told = "; ".join(
            f"{arm}: n = {c.n}, {c.failed} failed"
            for arm, c in zip(counts.index, counts.itertuples(), strict=True)
        )
        reading = f"{_how_read(study)} {told}."
        parameters = {
            arm: next(p for p in samples[arm].parameters if p.key == key) for arm in counts.index
        }
        plot = _marginal_plot(rows, parameters, study)
        figures.append(Figure(f"marginal-{key}", key, reading, plot, failures_positive(rows)))
    return figures


def _how_read(study: Study) -> str:
    if not study.independent:
        return (
            "Above, the median score of the configurations of a bin, failures counted as the "
            "worst; below, the share that failed. Draws are not independent here: no intervals."
        )
    return (
        "Above, the median score of the configurations of a bin with its exact 95 % interval "
        "(none where too few), failures counted as the worst; below, the share that failed with "
        "its 95 % interval."
    )


def _marginal_plot(
    rows: pd.DataFrame, parameters: Mapping[str, Parameter], study: Study
) -> go.Figure:
    figure = go.Figure()
    shown = list(parameters.values())
    log = all(p.log for p in shown)
    ends = rows[["median", "low", "high"]].to_numpy()
    finite = ends[np.isfinite(ends)]
    log_y = bool(len(finite)) and finite.min() > 0
    lane = failure_lane(finite.tolist(), log_y, study.sign)
    centers = np.log10(rows["center"]) if log else rows["center"]
    widest = float(centers.max() - centers.min()) or 1.0
    for at, (arm, parameter) in enumerate(parameters.items()):
        mine = rows[rows["arm"] == arm]
        look = style(study.arms.index(arm))
        offset = (at - (len(parameters) - 1) / 2) * 0.012 * widest
        x = mine["center"] * 10**offset if log else mine["center"] + offset
        hover = [f"{arm}<br>{t.label}<br>n = {t.n}, {t.failed} failed" for t in mine.itertuples()]
        shared = {
            "x": x, "name": arm, "legendgroup": arm, "hovertext": hover, "hoverinfo": "text+y",
            "mode": "markers" if parameter.choices else "lines+markers",
            "line": {"color": look.color, "dash": look.dash, "width": 1.5},
        }  # fmt: skip
        _add_line(figure, mine, shared, look.symbol, ("median", "low", "high"), lane, "y2")
        _add_line(
            figure, mine, shared, look.symbol, ("failure_rate", "failure_low", "failure_high")
        )
    figure.update_layout(
        **layout(height=460),
        xaxis=_drawn_axis(rows, shown) | {"anchor": "y"},
        yaxis={
            "domain": [0, 0.36],
            "range": [-0.03, 1.03],
            "tickformat": ".0%",
            "title": "failed",
        },
        yaxis2=_score_axis(finite, log_y, lane) | {"domain": [0.42, 1], "title": "score"},
    )
    return figure


def _drawn_axis(rows: pd.DataFrame, shown: Sequence[Parameter]) -> dict[str, object]:
    """Return the axis of one hyper-parameter: its range as drawn, or its choices."""
    if all(p.choices for p in shown):
        names = rows.drop_duplicates("center").sort_values("center")
        return {"tickvals": names["center"], "ticktext": names["label"]}
    if any(p.choices for p in shown):  # a range in one arm, a choice in another
        return {"type": "linear"}
    low, high = min(p.low for p in shown), max(p.high for p in shown)
    if not all(p.log for p in shown):
        margin = 0.04 * (high - low)
        return {"type": "linear", "range": [low - margin, high + margin]}
    decades = math.log10(high / low)
    ticks = [10.0**e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    ends = [math.log10(low) - 0.04 * decades, math.log10(high) + 0.04 * decades]
    ticks = ticks if decades >= 2 else log_ticks(low, high)
    return {
        "type": "log", "range": ends, "tickvals": ticks,
        "ticktext": [_tick(tick) for tick in ticks],
    }  # fmt: skip


def _tick(value: float) -> str:
    return f"{value:.10g}" if 1e-3 <= value < 1e6 else f"{value:.0e}"


def _add_line(
    figure: go.Figure,
    rows: pd.DataFrame,
    shared: Mapping[str, object],
    symbol: str,
    columns: tuple[str, str, str],
    lane: float = math.nan,
    axis: str = "y",
) -> None:
    """Draw values with their intervals; what is infinite lies in the lane of failures."""
    values, low, high = (
        rows[c].where(np.isfinite(rows[c]) | rows[c].isna(), lane) for c in columns
    )
    figure.add_scatter(
        **shared,
        y=values,
        yaxis=axis,
        showlegend=axis == "y",
        marker={
            "size": 8,
            "symbol": ["x" if np.isinf(v) else symbol for v in rows[columns[0]]],
            "color": shared["line"]["color"],  # type: ignore[index]
        },
        error_y={
            "type": "data",
            "symmetric": False,
            "array": (high - values).fillna(0),
            "arrayminus": (values - low).fillna(0),
            "thickness": 1,
            "width": 3,
        },
    )


def _score_axis(finite: np.ndarray, log: bool, lane: float) -> dict[str, object]:
    """Return the axis of scores with a tick of its own at the lane of failures."""
    if not len(finite):
        return {"tickvals": [lane], "ticktext": ["failed"]}
    low, high = float(finite.min()), float(finite.max())
    ticks = log_ticks(low, high) if log else [float(v) for v in np.linspace(low, high, 4)]
    kept = [t for t in ticks if abs(t - lane) > 0.05 * (high - low) and low * 0.8 <= t or not log]
    labels = [_tick(float(f"{t:.3g}")) for t in kept]
    axis = {"type": "log" if log else "linear"}
    return axis | {"tickvals": [*kept, lane], "ticktext": [*labels, "failed"]}


CELL_COLUMNS = [
    "arm", "x", "y", "x_level", "y_level", "x_label", "y_label", "n", "median", "failed",
    "failure_rate", "failure_low", "failure_high",
]  # fmt: skip


def cells(of: Sample, x: Parameter, y: Parameter, study: Study) -> pd.DataFrame:
    """Return n, median score and share of failures in every cell of two parameters that has any.

    Args:
        of: The configurations of an arm.
        x: The parameter along the grid.
        y: The parameter up the grid.
        study: Where they are from.
    """
    bins = min(MOST_CELLS, bins_for(len(of.scores)))
    across, up = (p.level(of.positions[p.key], bins) for p in (x, y))
    rows = []
    for i, j in itertools.product(range(x.levels(bins)), range(y.levels(bins))):
        scores = of.scores[(across == i) & (up == j)]
        if not len(scores):
            continue
        n, median, _, _, failed, *shares = _outcomes(scores, study)
        labels = (x.label(i, bins), y.label(j, bins))
        rows.append((of.arm, x.key, y.key, i, j, *labels, n, median, failed, *shares))
    return pd.DataFrame(rows, columns=CELL_COLUMNS)


def grid_figure(
    data: pd.DataFrame, of: Sample, x: Parameter, y: Parameter, color: str, sign: int
) -> go.Figure:
    """Draw the cells of two parameters, coloured by `median` or `failure_rate`; blank if empty.

    Every cell says both: the median score (`failed` where half of it did), and failures of n.
    Of scores the lightest is the best: the lowest with a `sign` of 1, the highest with -1.
    """
    bins = min(MOST_CELLS, bins_for(len(of.scores)))
    shape = (y.levels(bins), x.levels(bins))
    z, text = np.full(shape, math.nan), np.full(shape, "", dtype=object)
    share = color == "failure_rate"
    values = data[color].to_numpy(dtype=float)
    finite = values[np.isfinite(values)]
    log = not share and bool(len(finite)) and finite.min() > 0
    counts = [f"<br>{k}/{n}" for k, n in zip(data["failed"], data["n"], strict=True)]
    for index, value in enumerate(values):
        at = int(data["y_level"].iloc[index]), int(data["x_level"].iloc[index])
        worst = (finite.max() if value > 0 else finite.min()) if len(finite) else 0.0
        kept = value if math.isfinite(value) else worst
        z[at] = math.log10(kept) if log else kept
        told = f"{value:.0%}" if share else number(value)
        text[at] = told + counts[index]
    scores = "Cividis_r" if sign == 1 else "Cividis"
    figure = go.Figure(
        go.Heatmap(
            z=z, text=text, texttemplate="%{text}", hoverinfo="text", xgap=2, ygap=2,
            colorscale="Blues" if share else scores, showscale=False,
            zmin=0 if share else None, zmax=1 if share else None, hoverongaps=False,
        )
    )  # fmt: skip
    figure.update_layout(
        **layout(height=380), xaxis=_level_axis(x, bins), yaxis=_level_axis(y, bins)
    )
    return figure


def _level_axis(parameter: Parameter, bins: int) -> dict[str, object]:
    levels = range(parameter.levels(bins))
    labels = [parameter.label(level, bins).replace(" to ", "<br>to ") for level in levels]
    title = parameter.key + (" (log scale)" if parameter.log else "")
    return {
        "title": title, "tickvals": list(levels), "ticktext": labels, "automargin": True,
        "showgrid": False, "zeroline": False,
    }  # fmt: skip


def pairs(of: Sample) -> list[tuple[Parameter, Parameter]]:
    """Return the pairs of the three parameters with the largest effect on the score."""
    by_key = {p.key: p for p in of.parameters}
    order = [by_key[str(key)] for key in explained(of, failure=False).index]
    return list(itertools.combinations(order[:3], 2))


def stability_axes(of: Sample) -> Sequence[Parameter]:
    """Return learning rate and TTUR ratio where both are swept, else what fails most differs by.

    Of several learning rates the shared one or the generator's is meant, with the TTUR ratio the
    discriminator's follows from it.
    """
    by_key = {p.key: p for p in of.parameters}
    rates = [key for key in ("optimizer.lr", "generator_optimizer.lr") if key in by_key]
    if rates and "ttur_ratio" in by_key:
        return by_key[rates[0]], by_key["ttur_ratio"]
    return [by_key[str(key)] for key in explained(of, failure=True).index[:2]]
