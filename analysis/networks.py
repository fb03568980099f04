"""The primary score against the same runs' scores through other feature networks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.page import Figure, Part, Section, Table
from analysis.sanity import agreed, rank_agreement
from analysis.statistics import CONFIDENCE, Estimate
from analysis.style import common_extent, layout, score_axis
from analysis.tables import Study
from analysis.trade_offs import MOST_DRAWN, add_runs, scored, thinned
from ganstudy.study.outcomes import DEFAULT_CONFIG

DISTANCES = frozenset({"frechet_distance", "frechet_infinity", "kernel_distance"})
FEWEST, FEWEST_DRAWN = 4, 8
"""Runs below which no rho is told, and configurations below which no interval of it."""
DRAWS = 2000
MOST_WORK = 4_000_000
"""Runs times draws of one bootstrap: from 2,000 runs on, draws become fewer, yet never < 300."""


def weighted_spearman(
    x: NDArray[np.intp], y: NDArray[np.intp], weights: NDArray[np.float64]
) -> float:
    """Return Spearman's rho of points that count `weights` times; NaN where either is constant.

    Args:
        x: Dense ranks of one score, from 0 (`scipy.stats.rankdata` less 1).
        y: The same of the other.
        weights: How often each point is in the sample; whole numbers.
    """
    n, middles, squares = weights.sum(), [], []
    for codes in (x, y):
        count = np.bincount(codes, weights)
        # Mid-ranks of ties, less the mean of all ranks.
        middle = np.cumsum(count) - (count - 1) / 2 - (n + 1) / 2
        middles.append(middle)
        squares.append(float(count @ middle**2))
    if min(squares) <= 0:
        return math.nan
    products = weights * middles[0][x] @ middles[1][y]
    return float(products / math.sqrt(squares[0] * squares[1]))


def rank_correlation(x: ArrayLike, y: ArrayLike, clusters: ArrayLike) -> Estimate:
    """Return Spearman's rho of two scores of the same runs, bootstrapped over configurations.

    The percentile interval over draws, with a fixed seed, of whole clusters with replacement:
    runs of one configuration are no independent draws of what a score makes of a generator. None
    of fewer than 8 clusters, nor of a rho of 1 or -1, which every draw repeats.

    Args:
        x: One score; pairs in which either is not finite are left out.
        y: The other.
        clusters: What each run belongs to, such as its configuration.

    Returns:
        NaN where fewer than 4 runs have both scores or a score is constant. n counts the runs.
    """
    points = pd.DataFrame({"x": np.asarray(x, float), "y": np.asarray(y, float)})
    points["cluster"] = pd.factorize(np.asarray(clusters))[0]
    points = points[np.isfinite(points["x"]) & np.isfinite(points["y"])]
    n = len(points)
    if n < FEWEST:
        return Estimate(math.nan, None, None, n)
    codes = [stats.rankdata(points[name], "dense").astype(np.intp) - 1 for name in ("x", "y")]
    group, found = pd.factorize(points["cluster"])
    rho = weighted_spearman(codes[0], codes[1], np.ones(n))
    if math.isnan(rho) or len(found) < FEWEST_DRAWN or abs(rho) > 1 - 1e-12:
        return Estimate(rho, None, None, n)
    rng = np.random.default_rng(0)
    even = np.full(len(found), 1 / len(found))
    drawn = [
        weighted_spearman(
            codes[0], codes[1], rng.multinomial(len(found), even)[group].astype(float)
        )
        for _ in range(max(300, min(DRAWS, MOST_WORK // n)))
    ]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(drawn, (tail, 1 - tail))
    return Estimate(rho, float(low), float(high), n)


def other_networks(study: Study) -> list[str]:
    """Return scores like the primary one of another feature network, which measure distance too.

    The same metric on another network, or a distance beside a distance.
    """
    own = study.protocol.get(study.primary, {})
    return [
        name
        for name, how in study.protocol.items()
        if _network(how) not in ("", _network(own)) and _alike(_metric(how), _metric(own))
    ]


def _metric(how: Mapping[str, Any]) -> str:
    return str(how.get("metric", {}).get("name", ""))


def _network(how: Mapping[str, Any]) -> str:
    features = how.get("features") or {}
    return str(features.get("name", "")) and str(how.get("features_hash") or features)


def _alike(one: str, other: str) -> bool:
    return bool(one) and (one == other or {one, other} <= DISTANCES)


def network_rows(study: Study, others: Sequence[str]) -> pd.DataFrame:
    """Return the rank correlation of the primary with every other score, by kind of runs.

    Returns:
        One row a score and part of the runs (all, their better half by the primary score, each
        arm): rho with its interval, n.
    """
    rows = []
    for other in others:
        runs = scored(study, study.primary, other)
        if runs is None:
            continue
        clusters = _clusters(study, runs)
        oriented = study.sign * runs[study.primary]
        better = oriented <= oriented[runs[other].notna()].median()
        parts = {"all": pd.Series(True, index=runs.index), "better half": better}
        parts |= (
            {arm: runs["arm"] == arm for arm in study.contenders}
            if len(study.contenders) > 1
            else {}
        )
        turn = 1 if _direction(study, study.primary) == _direction(study, other) else -1
        for name, mask in parts.items():
            part = runs[mask]
            found = rank_correlation(part[study.primary], turn * part[other], clusters[mask])
            if not study.independent:
                found = found._replace(low=None, high=None)
            rows.append((other, name, *found))
    return pd.DataFrame(rows, columns=["score", "runs", "rho", "low", "high", "n"])


def _direction(study: Study, name: str) -> str:
    return str(study.protocol.get(name, {}).get("direction", ""))


def _clusters(study: Study, runs: pd.DataFrame) -> pd.Series[str]:
    """Return what is drawn as one: a configuration, over all arms where they share it."""
    if study.unit == "seed":
        return runs["trial_id"].astype(str)
    shared = study.paired & (runs["config_id"] != DEFAULT_CONFIG)
    return runs["config_id"].where(shared, runs["arm"] + " " + runs["config_id"])


def network_figure(rows: pd.DataFrame, arms: Sequence[str], titles: tuple[str, str]) -> go.Figure:
    """Draw one mark a run: the primary score across, another network's upwards."""
    figure = go.Figure()
    n = rows["arm"].value_counts()
    add_runs(figure, thinned(rows), arms, {a: f"{a} (n = {n.get(a, 0)})" for a in arms})
    axes = [_score_axis(title, rows[k]) for title, k in zip(titles, ("x", "y"), strict=True)]
    figure.update_layout(**layout(showlegend=True), xaxis=axes[0], yaxis=axes[1])
    return figure


def _score_axis(title: str, values: pd.Series[float]) -> dict[str, Any]:
    extent = common_extent(values.tolist())
    if extent is None or extent[1] <= extent[0]:
        return score_axis(title, values.tolist())
    axis = score_axis(title, extent)
    low, high = (math.log10(v) for v in extent) if axis["type"] == "log" else extent
    room = 0.04 * (high - low)
    return axis | {"range": [low - room, high + room]}


def section(study: Study) -> Section | None:
    """Return the primary score against other networks', None where one network was measured."""
    if study.outcomes.empty:
        return None
    others = other_networks(study)
    data = network_rows(study, others)
    parts: list[Part] = [_network_part(study, other) for other in others]
    if judge := _judge(study):
        parts.append(judge)
    if not parts:
        return None
    if len(data):
        shown = data[["score", "runs", "n"]].assign(
            rho=[
                agreed(Estimate(rho, *_ends(low, high), n))
                for rho, low, high, n in data.iloc[:, 2:].itertuples(index=False)
            ]
        )
        reading = (
            f"Spearman's rho with {study.primary}: 1 where both put the runs in the same order. "
            "Intervals: bootstrap over configurations, [none] where there are few. All runs agree "
            "easily where some are broken; the better half, by the primary score, shows whether "
            "good ones are told apart alike."
        )
        parts.append(Table("networks", "Do they agree?", reading, data, shown))
    return Section("networks", "The same runs through other feature networks", parts)


def _ends(low: float, high: float) -> tuple[float | None, float | None]:
    return (None, None) if pd.isna(low) or pd.isna(high) else (low, high)


def _network_part(study: Study, other: str) -> Part:
    runs = scored(study, study.primary, other)
    if runs is None:
        return f"The table of trials has no column of {study.primary} or of {other}."
    rows = runs.dropna().rename(columns={study.primary: "x", other: "y"})
    missing = len(runs) - len(rows)
    if rows.empty:
        return (
            f"No run has both {study.primary} and {other}: {missing} failed or lack one of them."
        )
    reading = (
        f"One mark a run, at the checkpoint that {study.primary} chose. A score that hangs on "
        f"its feature network scatters. n = {len(rows)}; {missing} more failed or lack one of the "
        f"two scores."
    )
    if len(rows) > MOST_DRAWN:
        reading += f" Drawn are {MOST_DRAWN}, evenly over the ranks."
    plot = network_figure(rows, study.arms, (study.primary, other))
    data = rows.rename(columns={"x": study.primary, "y": other})
    return Figure(f"network-{other}", f"{other} against {study.primary}", reading, plot, data)


def judge_rows(study: Study) -> dict[str, pd.DataFrame]:
    """Return, for each score that chose nothing, the best generators' scores on report.

    Only scores like the primary one, each row a generator: arm, trial_id, x (primary), y.
    """
    told = study.results.reported.drop_duplicates(["trial_id", "name"])
    told = told[told["arm"].isin(study.contenders)]
    by_run = told.pivot(index=["arm", "trial_id"], columns="name", values="value").reset_index()
    own = _metric(study.protocol.get(study.primary, {}))
    found = {}
    for name, how in study.reported_protocol.items():
        judges = name not in study.protocol and _alike(_metric(how), own)
        if not judges or name not in by_run or study.primary not in by_run:
            continue
        rows = by_run[["arm", "trial_id", study.primary, name]].dropna()
        found[name] = rows.rename(columns={study.primary: "x", name: "y"})
    return found


def _judge(study: Study) -> Part | None:
    """Return the judge's scores against the primary's of the arms' best generators."""
    for name, rows in judge_rows(study).items():
        if len(rows) < FEWEST:
            continue
        rho = rank_agreement(rows["x"], rows["y"])
        reading = (
            f"Each arm's best generator on the report split: {name}, by which nothing was chosen, "
            f"against {study.primary}, which chose them. Spearman's rho {agreed(rho)}, n = "
            f"{rho.n} generators; one that is low across and high upwards may owe its rank to the "
            "network that chose it."
        )
        titles = (f"{study.primary} on report", f"{name} on report")
        plot = network_figure(rows, study.arms, titles)
        data = rows.rename(columns={"x": study.primary, "y": name})
        return Figure("network-judge", "The judge's order of the best", reading, plot, data)
    return None
