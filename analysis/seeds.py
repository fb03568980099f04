"""What another seed would give: the best configurations, their seeds, and what they tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy import stats

from analysis import optimism, statistics, variability
from analysis.arms import failures_positive, honest, interval, signed
from analysis.distribution import MOST_DRAWN, thinned
from analysis.page import NONE, Figure, Part, Section, Table, number
from analysis.statistics import CONFIDENCE, Estimate
from analysis.style import failure_lane, layout, level, score_axis, style
from analysis.tables import Study
from analysis.trials import hover_texts, parameter_texts
from ganstudy.study.outcomes import rank_configs

TITLE = "What another seed would give"
ONE_SEED = (
    "No configuration was trained with a second seed, so what a seed changes is not known: "
    "neither how many seeds a difference asks for, nor what a choice by one seed is worth on "
    "another."
)
MOST_STRIPS = 48
"""Strips in the figure of several configurations; more cannot be told apart."""
FEWEST_BOXED = 5
"""Seeds from which on quartiles are worth a box."""


class BestConfig(NamedTuple):
    """The seeds of an arm's best configuration; numbers as the scores are told.

    Attributes:
        config: Its config_id, empty where every configuration failed.
        parameters: Its swept values, `key value, key value`.
        ok: Seeds with a score; mean and sd are over these alone, as AGCE's are.
        failed: The others, which median and quartiles count as infinitely bad.
        sd: Over seeds, n - 1 below; NaN for one seed.
        mean: With Student's interval; none for one seed.
        geometric: The geometric mean of the same seeds with Student's interval of the logarithms,
            NaN where not all scores are above 0.
        low_quartile: By rank, of all seeds.
        high_quartile: By rank, of all seeds.
    """

    arm: str
    config: str
    parameters: str
    ok: int
    failed: int
    sd: float
    mean: Estimate
    median: Estimate
    low_quartile: float
    high_quartile: float
    geometric: Estimate = Estimate(math.nan, None, None, 0)


def best_trials(study: Study, arm: str) -> pd.DataFrame:
    """Return the trials of the arm's best configuration, one a seed; empty if all failed.

    The first of the repeated ones where configurations were chosen beforehand, else the one with
    the lowest median over seeds.
    """
    trials = study.counted(arm)
    if study.unit == "seed" or trials.empty:
        return trials
    ranked = rank_configs(trials)
    return trials[trials["config_id"].isin(ranked.index[:1])]


def best_configs(study: Study) -> list[BestConfig]:
    """Return the best configuration of every arm that has an outcome."""
    return [_best_config(study, arm) for arm in study.arms if len(study.counted(arm))]


def _best_config(study: Study, arm: str) -> BestConfig:
    trials = best_trials(study, arm)
    if trials.empty:
        none = Estimate(math.inf, None, None, 0)
        failed = len(study.counted(arm))
        return BestConfig(arm, "", "", 0, failed, math.nan, none, none, math.inf, math.inf)
    scores = np.sort(trials["score"].to_numpy(dtype=float))
    finite = scores[np.isfinite(scores)]
    quartiles = study.sign * np.quantile(scores, [0.25, 0.75], method="inverted_cdf")
    low, high = quartiles[:: study.sign]
    first = trials.iloc[:1]
    mean, median = mean_interval(finite), statistics.median_best_of_k(scores, 1)
    if study.adaptive:  # else seeds are draws of their own, however configurations were drawn
        mean, median = honest(mean, study), honest(median, study)
    return BestConfig(
        arm=arm,
        config=str(first["config_id"].iloc[0]),
        parameters=parameter_texts(first, ", ")[0],
        ok=len(finite),
        failed=len(scores) - len(finite),
        sd=float(finite.std(ddof=1)) if len(finite) > 1 else math.nan,
        mean=signed(mean, study.sign),
        median=signed(median, study.sign),
        low_quartile=float(low),
        high_quartile=float(high),
        geometric=geometric_mean(study, finite),
    )


def geometric_mean(study: Study, scores: np.ndarray) -> Estimate:
    """Return the geometric mean of an arm's finite scores with Student's interval of their logs.

    NaN unless all are above 0 as they are told. Scores over seeds are skewed: at a log standard
    deviation of 0.7 Student's interval of the plain mean covers 0.88 to 0.93 at 2 to 50 seeds,
    and this one 0.95.
    """
    told = study.sign * scores
    if not len(told) or not (told > 0).all():
        return Estimate(math.nan, None, None, 0)
    logs = mean_interval(np.log(told))
    if study.adaptive:
        logs = honest(logs, study)
    low, high = (None if end is None else math.exp(end) for end in (logs.low, logs.high))
    return Estimate(math.exp(logs.value), low, high, logs.n)


def mean_interval(values: Sequence[float] | np.ndarray) -> Estimate:
    """Return the mean with Student's 95 % interval; without one below two values."""
    array = np.asarray(values, dtype=float)
    n = len(array)
    if n < 2:
        return Estimate(float(array.mean()) if n else math.nan, None, None, n)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * array.std(ddof=1) / math.sqrt(n)
    return Estimate(float(array.mean()), float(array.mean() - half), float(array.mean() + half), n)


def _best_table(study: Study, found: Sequence[BestConfig]) -> Table:
    logs = all(math.isfinite(b.geometric.value) for b in found if b.ok)
    centre = "geometric_mean" if logs else "mean"
    centres = [b.geometric if logs else b.mean for b in found]
    data = [
        {"arm": b.arm, "config": b.config, "parameters": b.parameters, "ok": b.ok,
         "failed": b.failed, "mean": b.mean.value, "sd": b.sd, centre: c.value,
         f"{centre}_low": c.low, f"{centre}_high": c.high,
         "median": b.median.value, "median_low": b.median.low,
         "median_high": b.median.high, "low_quartile": b.low_quartile,
         "high_quartile": b.high_quartile}
        for b, c in zip(found, centres, strict=True)
    ]  # fmt: skip
    shown = [
        {"arm": b.arm, "configuration": _called(b), "seeds": str(b.ok + b.failed),
         "failed": str(b.failed), "mean ± sd": _mean_sd(b),
         f"{centre.replace('_', ' ')} [95 %]": interval(c),
         "median [95 %]": interval(b.median),
         "quartiles": f"{number(b.low_quartile)} to {number(b.high_quartile)}"}
        for b, c in zip(found, centres, strict=True)
    ]  # fmt: skip
    return Table("best-configs", "Each arm's best configuration", _how_read(study, found),
                 failures_positive(pd.DataFrame(data)), pd.DataFrame(shown))  # fmt: skip


def _called(best: BestConfig) -> str:
    if not best.config:
        return "none: all failed"
    return f"{best.config}: {best.parameters}" if best.parameters else best.config


def _mean_sd(best: BestConfig) -> str:
    if not best.ok:
        return NONE
    return f"{number(best.mean.value)} ± {NONE if math.isnan(best.sd) else f'{best.sd:.2g}'}"


def _how_read(study: Study, found: Sequence[BestConfig]) -> str:
    chosen = (
        "The configurations were chosen in another study, so these seeds chose nothing. "
        if study.unit == "seed"
        else "The configuration was chosen by the very scores that are shown, which flatters it. "
    )
    failed = sum(best.failed for best in found)
    lost = f" ({failed} of them here)" if failed else ""
    return (
        f"{chosen}{study.primary} over training seeds. Mean ± standard deviation as Lucic et al. "
        f"2018 print them, over the seeds that did not fail; seeds that failed{lost} are left out "
        f"there, and count as infinitely bad in median and quartiles. Brackets: 95 % intervals, "
        f"Student's of the geometric mean (of the plain one where not all scores are above 0; it "
        f"holds if these are normal) and by rank of the median, [none] where so few give none, or "
        f"where the search was adaptive."
    )


class Strips(NamedTuple):
    """Seeds by configuration.

    Attributes:
        rows: arm, config, rank of the config within its arm from 0, trial_id, seed, score (lower
            is better, +inf a failure).
        left_out: Repeated configurations beyond those that are shown.
    """

    rows: pd.DataFrame
    left_out: int = 0


def best_strips(study: Study) -> Strips:
    """Return every seed of each arm's best configuration."""
    parts = [_strip(best_trials(study, arm), 0) for arm in study.arms]
    return Strips(pd.concat(parts, ignore_index=True))


def config_strips(study: Study) -> Strips:
    """Return the seeds of each arm's repeated configurations, best median first.

    At most `MOST_STRIPS` in all, as many of every arm.
    """
    most = max(2, MOST_STRIPS // max(1, len(study.arms)))
    parts, left_out = [_strip(study.outcomes.iloc[:0], 0)], 0
    for arm in study.arms:
        trials = variability.runs(study, arm)
        grouped = trials.groupby("config_id")["score"]
        medians = grouped.median()[grouped.size() > 1].sort_values(kind="stable")
        left_out += max(0, len(medians) - most)
        ranks = {config: rank for rank, config in enumerate(medians.index[:most])}
        mine = trials[trials["config_id"].isin(list(ranks))]
        parts.append(_strip(mine, mine["config_id"].map(ranks)))
    return Strips(pd.concat(parts, ignore_index=True), left_out)


def _strip(trials: pd.DataFrame, rank: int | pd.Series[int]) -> pd.DataFrame:
    shown = trials[["arm", "config_id", "trial_id", "seed", "score"]]
    return shown.rename(columns={"config_id": "config"}).assign(rank=rank)


def strips_figure(strips: Strips, study: Study, hovers: pd.Series[str] | None = None) -> go.Figure:
    """Draw one strip a configuration, with a box of those that have a score, arm beside arm."""
    rows, sign = strips.rows, study.sign
    finite = (sign * rows["score"][np.isfinite(rows["score"])]).tolist()
    log = bool(finite) and min(finite) > 0
    lane = failure_lane(finite, log, sign)
    figure, ticks, start = go.Figure(), {}, 0
    for index, arm in enumerate(study.arms):
        mine = rows[rows["arm"] == arm]
        width = max(1, mine["rank"].nunique())
        failed = int(np.isinf(mine["score"]).sum())
        ticks[start + (width - 1) / 2] = f"{arm}<br>n = {len(mine)}, {failed} failed"
        mine = mine.assign(x=start + mine["rank"])
        for x, strip in mine.groupby("x"):
            _draw_box(figure, index, x, sign * strip["score"][np.isfinite(strip["score"])])
        _draw_marks(figure, index, mine, sign, lane, hovers)
        start += width + (rows["rank"].max() > 0)
    figure.update_layout(
        **layout(showlegend=False),
        xaxis={"tickvals": list(ticks), "ticktext": list(ticks.values()), "automargin": True,
               "range": [-0.7, start - 0.3 - (rows["rank"].max() > 0)], "showgrid": False,
               "zeroline": False},
        yaxis=score_axis(study.primary, finite),
    )  # fmt: skip
    if finite and np.isinf(rows["score"]).any():
        level(figure, lane, log, "failed", {"width": 18, "color": "rgba(120,120,120,0.15)"})
    return figure


def _draw_box(figure: go.Figure, index: int, x: object, scores: pd.Series[float]) -> None:
    """Draw the quartiles of a configuration's seeds that have a score."""
    if len(scores) < FEWEST_BOXED:
        return
    low, middle, high = scores.quantile([0.25, 0.5, 0.75])
    figure.add_box(
        x=[x], q1=[low], median=[middle], q3=[high], lowerfence=[scores.min()],
        upperfence=[scores.max()], width=0.7, fillcolor="rgba(0,0,0,0)", hoverinfo="y",
        line={"color": style(index).color, "width": 1},
    )  # fmt: skip


def _draw_marks(
    figure: go.Figure,
    index: int,
    rows: pd.DataFrame,
    sign: int,
    lane: float,
    hovers: pd.Series[str] | None,
) -> None:
    """Draw an arm's seeds, side by side within their strip; failures as crosses in their lane."""
    shown = thinned(rows)
    place = shown.groupby("x").cumcount() + 0.5
    count = shown.groupby("x")["x"].transform("size")
    shown = shown.assign(x=shown["x"] + 0.4 * (place / count - 0.5))
    lost = np.isinf(shown["score"])
    for part, failed in ((shown[~lost], False), (shown[lost], True)):
        texts = part["trial_id"] if hovers is None else hovers.reindex(part["trial_id"])
        figure.add_scatter(
            x=part["x"].to_numpy(),
            y=np.full(len(part), lane) if failed else (sign * part["score"]).to_numpy(),
            mode="markers",
            marker={"size": 7, "opacity": 1 if len(shown) < 20 else 0.65,
                    "color": style(index).color,
                    "symbol": "x" if failed else style(index).symbol},
            hovertext=texts.tolist(),
            hoverinfo="text" if failed else "text+y",
        )  # fmt: skip


def _strip_figures(study: Study) -> list[Part]:
    """Return the seeds of the best configurations, and of all that are repeated."""
    hovers, parts = hover_texts(study), list[Part]()
    how = "the box holds the middle half of those that have a score, its whiskers all, so that "
    how += "no outlier is left out; crosses in the grey lane failed"
    best = best_strips(study)
    if study.outcomes.groupby("arm").size().max() > MOST_DRAWN:
        how += f"; of more than {MOST_DRAWN} marks an arm evenly many are drawn"
    if best.rows.groupby("arm").size().max() > 1:
        reading = f"One mark a seed of the arm's best configuration; {how}."
        parts.append(
            Figure("seeds-best", "Seeds of the best configurations", reading,
                   strips_figure(best, study, hovers), _told(best, study))
        )  # fmt: skip
    several = config_strips(study)
    if several.rows["rank"].max() > 0:
        few = f" {several.left_out} worse ones are not shown." if several.left_out else ""
        reading = (
            f"One strip a configuration, the best median of each arm on its left, and one mark a "
            f"seed: {how}. Strips that overlap are configurations that a seed could swap.{few}"
        )
        parts.append(
            Figure("seeds-configs", "Seeds by configuration", reading,
                   strips_figure(several, study, hovers), _told(several, study))
        )  # fmt: skip
    return parts


def _told(strips: Strips, study: Study) -> pd.DataFrame:
    """Return the rows with scores as they are told; a failure stays +inf."""
    scores = strips.rows["score"]
    told = np.where(np.isinf(scores), math.inf, study.sign * scores)
    return strips.rows.assign(score=told).rename(columns={"score": study.primary})


def section(study: Study) -> Section | None:
    """Return the best configurations, their seeds, where scores vary, and what choosing adds."""
    found = best_configs(study)
    if not found:
        return None
    parts: list[Part] = [_best_table(study, found)]
    again = variability.repeated(study)
    if again:
        parts += [*_strip_figures(study), variability.section(study)]
    else:
        parts.append(ONE_SEED)
    return Section("seeds", TITLE, [*parts, optimism.section(study, again)])
