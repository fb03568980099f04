"""Can the scores be trusted? What `ganstudy sanity` has measured, as numbers and as figures.

As everywhere, `*_data` gives a NamedTuple of numbers and `*_figure` draws it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.page import NONE, Figure, Part, Section, Table
from analysis.statistics import CONFIDENCE, Estimate
from analysis.style import layout, score_axis, style
from analysis.tables import Study
from ganstudy.study.score_validity import CLEAR

DRAWS = 2000
"""Bootstrap draws of generators for an interval of rho."""
FEWEST, FEWEST_DRAWN = 4, 8
"""Generators below which no order of them is told, and below which no interval of it."""
HEIGHT = 300


def spearman(x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
    """Return Spearman's rank correlation along the last axis; NaN where either is constant."""
    ranks = [stats.rankdata(np.asarray(values, float), axis=-1) for values in (x, y)]
    a, b = (rank - rank.mean(axis=-1, keepdims=True) for rank in ranks)
    spread = np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))
    return np.divide(
        (a * b).sum(axis=-1), spread, out=np.full_like(spread, np.nan), where=spread > 0
    )


def rank_agreement(x: ArrayLike, y: ArrayLike) -> Estimate:
    """Return Spearman's rho of two scores of the same generators, with a bootstrap interval.

    The percentile interval over draws of generators with replacement; none of fewer than 8
    generators, nor of a rho of 1 or -1, which every draw repeats. Pairs in which either is not
    finite are left out; fewer than 4 pairs, or a constant score, have no rho.
    """
    pairs = np.column_stack((np.asarray(x, float), np.asarray(y, float)))
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    n = len(pairs)
    if n < FEWEST or math.isnan(rho := float(spearman(*pairs.T))):
        return Estimate(math.nan, None, None, n)
    if n < FEWEST_DRAWN or abs(rho) > 1 - 1e-12:
        return Estimate(rho, None, None, n)
    rng = np.random.default_rng(0)
    rows = rng.integers(n, size=(DRAWS, n))
    drawn = spearman(pairs[rows, 0], pairs[rows, 1])
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(drawn, (tail, 1 - tail))
    return Estimate(rho, float(low), float(high), n)


class Line(NamedTuple):
    """One way of varying the sample, for one score: by level the mean and span of the repeats.

    Attributes:
        rho: Each repeat's Spearman correlation of how far the sample is spoilt with how bad its
            score is: 1 where the score worsens at every step, NaN where it never moves.
    """

    label: str
    x: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]
    rho: list[float]


class Panel(NamedTuple):
    """One score in one experiment."""

    name: str
    direction: str
    lines: list[Line]
    n: list[int]
    """Sizes of the samples that stand in for a generator's, ascending."""
    n_real: int


def panels(found: pd.DataFrame, experiment: str) -> list[Panel]:
    """Return one panel a score from the rows of sanity.parquet, in their order."""
    mine = found[found["experiment"] == experiment]
    placed = []
    for name, rows in mine.groupby("name", sort=False):
        direction = str(rows["direction"].iloc[0])
        # Fewer classes are worse, higher degrees of blur, noise and inversion are.
        worse = -1 if experiment == "classes_kept" else 1
        sign = worse if direction == "minimize" else -worse
        lines = [
            _line(str(series), part, sign) for series, part in rows.groupby("series", sort=False)
        ]
        n = sorted(set(rows["n_generated"].tolist()))
        placed.append(Panel(str(name), direction, lines, n, int(rows["n_real"].max())))
    return placed


def _line(label: str, rows: pd.DataFrame, sign: int) -> Line:
    by_level = rows.groupby("x")["value"].agg(["mean", "min", "max"]).sort_index()
    rho = [sign * float(spearman(part["x"], part["value"])) for _, part in rows.groupby("repeat")]
    mean, low, high = (by_level[column].tolist() for column in ("mean", "min", "max"))
    return Line(label, by_level.index.tolist(), mean, low, high, rho)


class Axis(NamedTuple):
    """How the levels of an experiment are drawn.

    Attributes:
        by_rank: Whether the steps of a line are numbered, since lines differ in unit.
        log: Whether the axis is logarithmic.
    """

    title: str
    by_rank: bool = False
    log: bool = False


AXES: Mapping[str, Axis] = {
    "classes_kept": Axis("classes kept"),
    "floor_by_n": Axis("n of either sample", log=True),
    "ladders": Axis("step", by_rank=True),
}


def panel_figure(panel: Panel, axis: Axis, index: int = 0, mark: int | None = None) -> go.Figure:
    """Draw the lines of one score; bars span the repeats; `mark` is the study's own n."""
    figure = go.Figure()
    for at, line in enumerate(panel.lines, start=index):
        look = style(at)
        x = list(range(len(line.x))) if axis.by_rank else line.x
        up = [high - mean for high, mean in zip(line.high, line.mean, strict=True)]
        down = [mean - low for low, mean in zip(line.low, line.mean, strict=True)]
        figure.add_scatter(
            x=x,
            y=line.mean,
            error_y={"array": up, "arrayminus": down, "thickness": 1, "width": 3},
            mode="lines+markers",
            name=line.label,
            showlegend=len(panel.lines) > 1,
            line={"color": look.color, "dash": look.dash, "width": 2},
            marker={"symbol": look.symbol, "size": 7},
            customdata=line.x,
            hovertemplate=f"{line.label} %{{customdata}}: %{{y:.4g}}<extra></extra>",
        )
    if mark is not None:
        figure.add_vline(x=mark, line={"dash": "dot", "color": "#666"}, layer="below")
    levels = sorted({x for line in panel.lines for x in line.x})
    figure.update_layout(
        **layout(
            height=HEIGHT,
            legend={"orientation": "h", "y": -0.3, "x": 0},
            margin={"l": 64, "r": 12, "t": 24, "b": 56},
        ),
        xaxis=_x_axis(axis, levels),
        yaxis=_y_axis(panel),
    )
    return figure


def _x_axis(axis: Axis, levels: Sequence[float]) -> dict[str, Any]:
    if not axis.log:
        return {"title": axis.title, "nticks": 8}
    return {
        "title": axis.title,
        "type": "log",
        "tickvals": levels,
        "ticktext": [f"{level:g}" for level in levels],
    }


def _y_axis(panel: Panel) -> dict[str, Any]:
    """Return an axis that is logarithmic where distances differ by more than a factor of 10."""
    values = [v for line in panel.lines for v in (*line.low, *line.high) if math.isfinite(v)]
    better = "lower is better" if panel.direction == "minimize" else "higher is better"
    distance = panel.direction == "minimize"  # what is to be large is mostly a share
    if distance and values and min(values) > 0 and max(values) > 10 * min(values):
        return score_axis(better, values)
    return {"title": better, "type": "linear"}


class Pair(NamedTuple):
    """How alike two scores rank the same generators: all of them, and the better half."""

    first: str
    second: str
    all: Estimate
    better_half: Estimate


def agreement_data(found: pd.DataFrame) -> list[Pair]:
    """Return the agreement of every pair of scores; empty if generators were not scored.

    The better half is that of the study's own ranking: broken generators, which any score tells
    from good ones, are not among it.
    """
    rows = found[found["experiment"] == "agreement"].copy()
    if rows.empty:
        return []
    rows["badness"] = rows["value"].where(rows["direction"] == "minimize", -rows["value"])
    scores = rows.pivot(index="x", columns="name", values="badness").sort_index()
    half = scores.iloc[: math.ceil(len(scores) / 2)]
    names = list(dict.fromkeys(rows["name"]))
    return [
        Pair(a, b, rank_agreement(scores[a], scores[b]), rank_agreement(half[a], half[b]))
        for a, b in itertools.combinations(names, 2)
    ]


def agreement_figure(pairs: Sequence[Pair]) -> go.Figure:
    """Draw rho of every pair as a coloured matrix."""
    names = list(dict.fromkeys(name for pair in pairs for name in (pair.first, pair.second)))
    rho = np.full((len(names), len(names)), np.nan)
    text = np.full(rho.shape, "", dtype=object)
    for pair in pairs:
        at = names.index(pair.second), names.index(pair.first)
        rho[at], text[at] = pair.all.value, f"{pair.all.value:.2f}"
    figure = go.Figure(
        go.Heatmap(
            z=rho[1:, :-1], x=names[:-1], y=names[1:], text=text[1:, :-1], texttemplate="%{text}",
            zmin=-1, zmax=1, colorscale="RdBu", showscale=False, xgap=2, ygap=2,
            hovertemplate="%{y} and %{x}: rho %{z:.2f}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_layout(
        **layout(height=140 + 44 * len(names), margin={"l": 16, "r": 16, "t": 24, "b": 110}),
        # Room below is fixed: what plotly leaves for turned labels is too little on a phone.
        xaxis={"showgrid": False, "tickangle": -45},
        yaxis={"showgrid": False, "automargin": True, "autorange": "reversed"},
    )
    return figure


def section(study: Study) -> Section | None:
    """Return whether the scores can be trusted, None where `ganstudy sanity` has not run."""
    found = study.results.sanity
    if found.empty:
        return None
    kept, floors, spoilt = (panels(found, name) for name in AXES)
    title = "Can these scores be trusted?"
    parts: list[Part] = []
    if rows := sight_table(kept, spoilt):
        reading = (
            "Spearman's rho of how far real images are spoilt with how much worse they score, "
            "mean over repeats: 1 where a score worsens at every step, about 0 where it does not "
            "see the damage, below 0 where it takes damage for better images. Not every score "
            "should see everything: precision asks only whether images look real, recall only "
            "whether all real ones are covered."
        )
        parts.append(Table("sanity", title, reading, pd.DataFrame(rows)))
    makers: list[tuple[Any, Callable[[], Section]]] = [
        (kept, lambda: _kept_group(kept)),
        (spoilt, lambda: _ladder_group(spoilt)),
        (floors, lambda: _floor_group(floors, study)),
        (pairs := agreement_data(found), lambda: _agreement_group(pairs, found)),
    ]
    parts += [make() for data, make in makers if data]
    return Section("trust", title, parts)


def sight_table(kept: Sequence[Panel], spoilt: Sequence[Panel]) -> list[dict[str, str]]:
    """Return, by score, Spearman's rho with each way of spoiling: its mean, and the least."""
    by_score: dict[str, dict[str, Line]] = {}
    for panel in (*kept, *spoilt):
        known = by_score.setdefault(panel.name, {})
        known |= {line.label: line for line in panel.lines}
    ways = list(dict.fromkeys(label for known in by_score.values() for label in known))
    titles = {"classes": "classes missing"}
    return [
        {"score": name}
        | {titles.get(w, w): rho_text(known[w].rho) if w in known else NONE for w in ways}
        for name, known in by_score.items()
    ]


def rho_text(rho: Sequence[float]) -> str:
    """Return the mean of the repeats' rho with the least, `0.97 (least 0.94)`."""
    if any(math.isnan(value) for value in rho):
        return "does not move"
    mean = f"{np.mean(rho):.2f}"
    least = f"{min(rho):.2f}"
    return mean if least == mean else f"{mean} (least {least})"


def sees(line: Line) -> bool:
    """Whether the score worsens clearly, on average over repeats, with what is done."""
    return bool(np.mean(line.rho) >= CLEAR)  # False of NaN


def listed(names: Sequence[str]) -> str:
    """Return `a, b and c`, or `none`."""
    if len(names) < 2:
        return "".join(names) or "none"
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _places(panels: Sequence[Panel], experiment: str, **more: Any) -> list[Part]:
    return [
        Figure(
            f"{experiment}-{p.name}", p.name, f"n = {p.n[0]} against {p.n_real}.",
            panel_figure(p, AXES[experiment], **more), panel_rows(p),
        )
        for p in panels
    ]  # fmt: skip


def panel_rows(panel: Panel) -> pd.DataFrame:
    """Return one row a mark of a panel: the mean over repeats and what they span."""
    return pd.concat(
        pd.DataFrame({"series": line.label, "x": line.x, "mean": line.mean, "low": line.low,
                      "high": line.high})
        for line in panel.lines
    )  # fmt: skip


def _group(key: str, title: str, caption: str, parts: Sequence[Part]) -> Section:
    return Section(f"trust-{key}", title, [caption, *parts], grid=True)


def _repeats(panel: Panel) -> int:
    return len(panel.lines[0].rho)


def _told(seeing: Sequence[str], blind: Sequence[str], what: str) -> str:
    """Return one sentence on which scores worsen."""
    if not blind:
        return f"Every score worsens {what}"
    if not seeing:
        return f"No score clearly worsens {what}"
    verb = "does" if len(blind) == 1 else "do"
    s = "s" if len(seeing) == 1 else ""
    return f"{listed(seeing)} worsen{s} {what}, {listed(blind)} {verb} not"


def _kept_group(kept: Sequence[Panel]) -> Section:
    seeing = [p.name for p in kept if sees(p.lines[0])]
    blind = [p.name for p in kept if not sees(p.lines[0])]
    one, most = kept[0], int(kept[0].lines[0].x[-1])
    caption = (
        f"{_told(seeing, blind, 'as classes go missing')} (rho >= {CLEAR:g}): "
        f"n = {one.n[0]} real images of the train split, of some of its {most} classes only, "
        f"against {one.n_real} of select; {_repeats(one)} repeats, which the bars span."
    )
    return _group(
        "classes", "Real images of fewer classes", caption, _places(kept, "classes_kept")
    )


LADDER_UNITS = {
    "blur": "blur by a Gaussian of sd {} px",
    "noise": "white noise of sd {}, images being in [-1, 1]",
    "invert": "a share of {} turned into negatives",
}


def _ladder_group(spoilt: Sequence[Panel]) -> Section:
    seeing = [p.name for p in spoilt if all(map(sees, p.lines))]
    missed = [
        f"{p.name} misses {listed([line.label for line in p.lines if not sees(line)])}"
        for p in spoilt
        if not all(map(sees, p.lines))
    ]
    one = spoilt[0]
    steps = "; ".join(
        LADDER_UNITS.get(line.label, line.label + " {}").format(
            listed([f"{x:g}" for x in line.x[1:]])
        )
        for line in one.lines
    )
    verb = "sees" if len(seeing) == 1 else "see"
    told = f"{listed(seeing)} {verb} all damage" if seeing else "No score sees all damage"
    caption = (
        f"{'; '.join((told, *missed))} (rho < {CLEAR:g}). Steps from 0, untouched: {steps}. "
        f"n = {one.n[0]} real images of train against {one.n_real} of select; "
        f"{_repeats(one)} repeats, which the bars span."
    )
    return _group("ladders", "Real images spoilt by degrees", caption, _places(spoilt, "ladders"))


def _floor_group(floors: Sequence[Panel], study: Study) -> Section:
    n = study.protocol.get(study.primary, {}).get("n_generated")
    one = floors[0]
    line = one.lines[0]
    values = dict(zip(line.x, line.mean, strict=True))
    mark = n if n in values else None
    ends = "" if mark is None else "; dotted: the study's n"
    most, least = max(values) if mark is None else mark, min(values)
    caption = (
        f"{one.name} of real images is {values[most]:.3g} at n = {most:g} and "
        f"{values[least]:.3g} at n = {least:g}: no generator can be told from real images where "
        f"its score is better, and scores at different n do not compare. Images of train, or of "
        f"report, against as many of select; the two lines part where the feature network knows "
        f"the images of train. {_repeats(one)} draws, which the bars span and which at the size "
        f"of a whole split are one and the same{ends}."
    )
    parts = _places(floors, "floor_by_n", mark=mark)
    return _group("floor", "Real images against real ones, by n", caption, parts)


def _agreement_group(pairs: Sequence[Pair], found: pd.DataFrame) -> Section:
    rows = found[found["experiment"] == "agreement"]
    names = rows.groupby("n_generated", sort=False)["name"].unique()
    sizes = "; ".join(f"{n} images for {listed(list(of))}" for n, of in names.items())
    told = [p for p in pairs if not math.isnan(p.all.value)]
    span = "no pair has a rank correlation"
    if told:
        low, high = (pick(told, key=lambda p: p.all.value) for pick in (min, max))
        span = (
            f"two scores rank {low.all.n} generators alike with rho from {low.all.value:.2f} "
            f"({low.first}, {low.second}) to {high.all.value:.2f} ({high.first}, {high.second})"
        )
    caption = (
        f"{span[0].upper()}{span[1:]}. Best checkpoints of trials that span the study's ranking, "
        f"{sizes}. Brackets: {CONFIDENCE:.0%} bootstrap intervals over "
        f"generators; the better half, by the study's own ranking, is the harder question."
    )
    shown = pd.DataFrame(
        {
            "scores": [f"{p.first}, {p.second}" for p in pairs],
            "rho, all": [agreed(p.all) for p in pairs],
            "n": [p.all.n for p in pairs],
            "rho, better half": [agreed(p.better_half) for p in pairs],
            "n of the better half": [p.better_half.n for p in pairs],
        }
    )
    title = "Do feature networks agree on generators?"
    parts: list[Part] = [
        Figure("agreement", title, "", agreement_figure(pairs), shown),
        Table("agreement", title, "", shown),
    ]
    return _group("agreement", title, caption, parts)


def agreed(estimate: Estimate) -> str:
    """Return rho with its interval, `0.93 [0.80, 0.98]`, a dash where there is none."""
    if math.isnan(estimate.value):
        return NONE
    if not estimate.has_interval:
        return f"{estimate.value:.2f} [none]"
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"
