"""How much scores vary with configuration, seed and evaluation, and the seeds that this needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy import stats

from analysis import statistics
from analysis.arms import interval
from analysis.page import NONE, Figure, Part, Section, Table
from analysis.statistics import CONFIDENCE, Estimate, VarianceComponents
from analysis.style import COLORS, layout, level, style
from analysis.tables import Study

STANDARD_ERROR = "_se"
"""Ending of a score's name that its standard error is recorded under."""
DIFFERENCES = np.geomspace(0.01, 1.0, 41)
"""Relative differences to be told."""
TOLD_DIFFERENCES = (0.01, 0.1, 1.0)
"""Those of them that are told in the table."""
PATTERNS = {"configuration": "", "seed": "/", "evaluation": "x"}


def runs(study: Study, arm: str) -> pd.DataFrame:
    """Return the arm's outcomes by configuration and seed, a run that was made twice once.

    At drawn configurations; where configurations are repeated, at all of those.
    """
    if study.unit == "seed":
        return study.trials(arm).drop_duplicates("result_hash")
    return study.counted(arm)


def repeated(study: Study) -> bool:
    """Return whether any arm has a configuration with 2 seeds or more, whatever came of them."""
    return any(runs(study, arm)["config_id"].duplicated().any() for arm in study.arms)


class Spread(NamedTuple):
    """Where the scores of one arm vary.

    Attributes:
        log: Whether of logarithms: then a standard deviation is a relative one.
        components: None where 2 configurations with 2 seeds that have a score are missing.
        failed: Trials left out for want of a score.
        measured: Trials whose standard error is known, by which the evaluation is judged.
        seed_sd: Within a configuration (an arm's best one where they are repeated), evaluation
            included; NaN where none has two.
        freedom: Degrees of freedom of `seed_sd`.
        mean: Of the scores that `seed_sd` is of, on the scale of scores.
    """

    arm: str
    log: bool
    components: VarianceComponents | None
    failed: int
    measured: int
    seed_sd: float
    freedom: int
    mean: float

    @property
    def seed_interval(self) -> Estimate:
        """`seed_sd` with its 95 % interval under normality."""
        if self.freedom < 1:
            return Estimate(math.nan, None, None, 0)
        tail = (1 - CONFIDENCE) / 2
        low, high = (
            self.seed_sd * math.sqrt(self.freedom / stats.chi2.ppf(level, self.freedom))
            for level in (1 - tail, tail)
        )
        return Estimate(self.seed_sd, low, high, self.freedom)


def spreads(study: Study) -> list[Spread]:
    """Return the spread of every arm that has an outcome; on one scale for all of them."""
    tables = {arm: runs(study, arm) for arm in study.arms}
    scores = pd.concat([table["score"] for table in tables.values()])
    finite = study.sign * scores[np.isfinite(scores)]
    log = bool(len(finite)) and bool((finite > 0).all())
    return [_spread(study, arm, table, log) for arm, table in tables.items() if len(table)]


def _spread(study: Study, arm: str, trials: pd.DataFrame, log: bool) -> Spread:
    scored = trials[np.isfinite(trials["score"])]
    told = study.sign * scored["score"].astype(float)
    values = pd.Series(np.log(told) if log else told, index=scored.index)
    groups = [group.to_numpy() for _, group in values.groupby(scored["config_id"])]
    errors = _squared_errors(study, scored, told if log else None)
    components = None
    if sum(len(group) > 1 for group in groups) > 1:
        evaluation = float(errors.mean()) if len(errors) else None
        components = statistics.variance_components(groups, evaluation)
    if study.unit == "seed" and len(scored):
        best = next(iter(study.counted(arm)["config_id"]), "")
        groups = [values[scored["config_id"] == best].to_numpy()]
    freedom = sum(len(group) - 1 for group in groups if len(group))
    squares = sum(float(((g - g.mean()) ** 2).sum()) for g in groups if len(g))
    return Spread(
        arm=arm,
        log=log,
        components=components,
        failed=len(trials) - len(scored),
        measured=len(errors),
        seed_sd=math.sqrt(squares / freedom) if freedom else math.nan,
        freedom=freedom,
        mean=float(told.mean()) if len(told) else math.nan,
    )


def _squared_errors(
    study: Study, trials: pd.DataFrame, told: pd.Series[float] | None
) -> pd.Series[float]:
    """Return the squared standard errors that are known, of logarithms where `told` is given."""
    column = f"{study.score_rule.checkpoint}.{study.primary}{STANDARD_ERROR}"
    if column not in trials:
        return pd.Series(dtype=float)
    # The delta method: a logarithm's error is the relative one.
    errors = trials[column].astype(float) / (1.0 if told is None else told)
    return (errors**2)[np.isfinite(errors)]


def seeds_curve(spread: Spread) -> pd.DataFrame:
    """Return, by relative difference of two arms that vary like this one, the seeds it asks for.

    Empty where the arm has no seed to vary by, or scores that average to 0.
    """
    scale = 1.0 if spread.log else abs(spread.mean)
    if math.isnan(spread.seed_sd) or not scale > 0:
        return pd.DataFrame({"arm": [], "difference": [], "seeds": []})
    gaps = np.log1p(DIFFERENCES) if spread.log else DIFFERENCES * scale
    needed = statistics.seeds_to_tell(spread.seed_sd, gaps)
    return pd.DataFrame({"arm": spread.arm, "difference": DIFFERENCES, "seeds": needed})


def seeds_figure(curves: pd.DataFrame, arms: Sequence[str], had: int | None) -> go.Figure:
    """Draw one curve an arm; a level at the seeds that every arm had, if it is one number."""
    figure = go.Figure()
    for arm, curve in curves.groupby("arm", sort=False):
        look = style(arms.index(str(arm)))
        figure.add_scatter(
            x=curve["difference"], y=curve["seeds"], mode="lines", name=str(arm),
            line={"color": look.color, "dash": look.dash, "width": 2},
            hovertemplate=f"{arm}<br>%{{x:.3p}}: %{{y:.0f}} seeds<extra></extra>",
        )  # fmt: skip
    most = max(float(curves["seeds"].max()), had or 0, 10)
    decades = range(math.ceil(math.log10(most)) + 1)
    ticks = [d * 10**power for power in decades for d in ((1, 2, 5) if len(decades) < 4 else (1,))]
    figure.update_layout(
        **layout(),
        xaxis={"title": "relative difference to be told", "type": "log", "tickformat": "~p",
               "tickvals": [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]},
        yaxis={"title": "seeds an arm", "type": "log", "tickvals": ticks,
               "range": [math.log10(1.5), math.log10(1.3 * most)]},
    )  # fmt: skip
    if had and had > 1:
        level(figure, had, True, f"this study: {had}", {"dash": "dot", "color": "#666"})
    return figure


def shares(found: Sequence[Spread]) -> pd.DataFrame:
    """Return one row an arm and source: its variance, and its share of a single run's.

    An arm whose scores do not vary has no shares.
    """
    rows = []
    for spread in found:
        if spread.components is None:
            continue
        sources = {
            "configuration": spread.components.config,
            "seed": spread.components.seed,
            "evaluation": spread.components.evaluation or 0.0,
        }
        total = sum(sources.values())
        rows += [
            (spread.arm, name, value, value / total)
            for name, value in sources.items()
            if total > 0
        ]
    return pd.DataFrame(rows, columns=["arm", "source", "variance", "share"])


def shares_figure(rows: pd.DataFrame) -> go.Figure:
    """Draw one bar an arm, stacked from where its variance comes."""
    figure = go.Figure()
    arms = list(dict.fromkeys(rows["arm"]))
    for color, (source, pattern) in zip(COLORS, PATTERNS.items(), strict=False):
        part = rows[rows["source"] == source]
        figure.add_bar(
            y=part["arm"], x=part["share"], name=source, orientation="h",
            marker={"color": color, "pattern": {"shape": pattern, "fgcolor": "#fff", "size": 6}},
            text=[f"{share:.0%}" if share >= 0.08 else "" for share in part["share"]],
            textposition="inside", insidetextanchor="middle", textangle=0,
            textfont={"color": "#fff", "size": 14, "weight": 700},
            hovertemplate=f"%{{y}}, {source}: %{{x:.1%}}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        **layout(height=150 + 44 * len(arms), barmode="stack", bargap=0.35,
                 margin={"l": 64, "r": 16, "t": 36, "b": 96},
                 legend={"orientation": "h", "y": -56 / (18 + 44 * len(arms)), "x": 0,
                         "traceorder": "normal"}),
        xaxis={"tickformat": ".0%", "range": [0, 1.001], "title": "share of the variance"},
        yaxis={"automargin": True, "autorange": "reversed", "type": "category"},
    )  # fmt: skip
    return figure


def _table(found: Sequence[Spread]) -> Table:
    data, shown = [], []
    for spread in found:
        parts = spread.components
        if parts is None:
            continue
        error = parts.evaluation
        data.append({"arm": spread.arm, "log": spread.log, "failed": spread.failed,
                     "measured": spread.measured} | parts._asdict())  # fmt: skip
        icc = Estimate(
            parts.intraclass, parts.intraclass_low, parts.intraclass_high, parts.configs
        )
        shown.append(
            {"arm": spread.arm, "configurations": str(parts.configs), "runs": str(parts.runs),
             "left out": str(spread.failed), "configuration": f"{math.sqrt(parts.config):.2g}",
             "seed": f"{math.sqrt(parts.seed):.2g}",
             "evaluation": NONE if error is None else f"{math.sqrt(error):.2g}",
             "intraclass correlation [95 %]": interval(icc)}
        )  # fmt: skip
    return Table("variance", "Standard deviations by source", _how_read(found[0].log, found),
                 pd.DataFrame(data), pd.DataFrame(shown))  # fmt: skip


def _how_read(log: bool, found: Sequence[Spread]) -> str:
    scale = (
        "Of the logarithm of the score, so 0.1 is about 10 %."
        if log
        else "In the score's unit, since not all scores are above 0."
    )
    unknown = [s.arm for s in found if s.components and s.components.evaluation is None]
    told = " Where no standard errors were recorded the seed's holds the evaluation's."
    return (
        f"{scale} Configuration: between configurations; seed: the same configuration trained "
        f"again; evaluation: the same generator measured again, by the recorded standard errors. "
        f"Intraclass correlation: the configuration's share in the variance of single runs. Runs "
        f"without a score are left out: what makes runs fail is not in these numbers."
        + (told if unknown else "")
    )


def section(study: Study) -> Section:
    """Return the variances and the curve of seeds, or in a sentence why there are none."""
    title = "Configuration, seed or evaluation?"
    if study.adaptive:
        return Section("variability", title, [
            "The trials of this study competed or were chosen by how others went, so how much "
            "they vary is the search's doing: variances are not separated."
        ])  # fmt: skip
    found = spreads(study)
    parts = [*_components(study, found), *_curves(study, found)]
    return Section("variability", title, parts)


def _components(study: Study, found: Sequence[Spread]) -> list[Part]:
    able = [spread for spread in found if spread.components is not None]
    if not able:
        return ["Configuration and seed can be told apart only where 2 configurations of an arm "
                "or more have 2 seeds or more with a score."]  # fmt: skip
    parts: list[Part] = [_table(able)]
    if lacking := [spread.arm for spread in found if spread.components is None]:
        parts.append(f"Without 2 configurations with 2 seeds, and so not here: "
                     f"{', '.join(lacking)}.")  # fmt: skip
    if study.unit == "seed":
        parts.append("These configurations were chosen as the best, so they differ less than "
                     "drawn ones would.")  # fmt: skip
    rows = shares(able)
    if rows.empty:
        return [*parts, "No score varies, so there is nothing to share out."]
    runs_ = ", ".join(f"{s.arm} {s.components.runs}" for s in able if s.components)
    reading = f"Variance of a single run, by where it comes from. Runs with a score: {runs_}."
    parts.append(Figure("variance-shares", "Where the variance comes from", reading,
                        shares_figure(rows), rows))  # fmt: skip
    return parts


def _curves(study: Study, found: Sequence[Spread]) -> list[Part]:
    curves = pd.concat([seeds_curve(spread) for spread in found], ignore_index=True)
    if curves.empty:
        return ["No configuration has 2 seeds with a score, so how many seeds a difference asks "
                "for is not known."]  # fmt: skip
    counts = {len(study.counted(arm)) for arm in study.arms}
    had = counts.pop() if study.unit == "seed" and len(counts) == 1 else None
    reading = (
        "Seeds an arm needs for its mean to be told from another's that is so much apart and "
        "varies as much: two-sided t test at 0.05 with power 0.8, normal "
        f"{'logarithms of ' if found[0].log else ''}scores, by each arm's own standard deviation "
        "over seeds. Seeds that fail come on top."
    )
    figure = seeds_figure(curves, study.arms, had)
    return [
        Figure("seeds-needed", "Seeds that a difference asks for", reading, figure, curves),
        _seeds_table([spread for spread in found if spread.freedom > 0], curves),
    ]


def _seeds_table(found: Sequence[Spread], curves: pd.DataFrame) -> Table:
    """Return each arm's standard deviation over seeds, and some points of its curve."""
    data, shown = [], []
    for spread in found:
        sd, curve = spread.seed_interval, curves[curves["arm"] == spread.arm]
        data.append({"arm": spread.arm, "seed_sd": sd.value, "low": sd.low, "high": sd.high,
                     "freedom": spread.freedom, "log": spread.log})  # fmt: skip
        told = np.searchsorted(DIFFERENCES, np.array(TOLD_DIFFERENCES) * (1 - 1e-9))
        cells = [f"{curve['seeds'].iloc[i]:.0f}" if len(curve) else NONE for i in told]
        heads = [f"seeds to tell {difference:.0%}" for difference in TOLD_DIFFERENCES]
        shown.append({"arm": spread.arm, "sd over seeds [95 %]": interval(sd),
                      "degrees of freedom": str(spread.freedom)}
                     | dict(zip(heads, cells, strict=True)))  # fmt: skip
    scale = "logarithms of scores, nearly relative" if found[0].log else "scores"
    reading = (
        f"Standard deviations of {scale}, with the interval that holds if they are normal; seeds "
        f"grow with its square."
    )
    return Table("seed-spread", "Standard deviation over seeds", reading, pd.DataFrame(data),
                 pd.DataFrame(shown))  # fmt: skip
