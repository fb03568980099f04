"""Functional ANOVA importances, each against what it is worth by chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.page import Figure
from analysis.sensitivity.effects import MOST_CELLS, bins_for
from analysis.sensitivity.space import Floats, Ints, Parameter, Sample
from analysis.statistics import holm
from analysis.style import evenly, layout, style

if TYPE_CHECKING:
    import optuna

LEAST = 40
"""Configurations below which nothing is told: of 40 with six ranges a parameter that explains
half of the score's variance is found in 94 of 100 studies, of 30 in 78, of 20 in 55."""
LEAST_FAILURES = 10
"""Failures, and others, below which nothing is told of failing."""
MOST = 200
"""Configurations that enter the forests, for their time."""
PERMUTATIONS = 999
SHUFFLES = 19
"""Shuffled copies of each parameter: the largest of 19 is exceeded by chance once in 20."""
TREES, DEPTH = 4, 4
"""Of each of the 19 forests, over which an importance is the mean."""
SEED = 20_181_129
SIGNIFICANT = 0.05
IMPORTANCE_COLUMNS = ["arm", "outcome", "parameter", "importance", "chance", "told", "n"]


class Explained(NamedTuple):
    """Whether the hyper-parameters explain an outcome at all.

    Attributes:
        outcome: `score` or `failure`.
        n: Configurations.
        failed: How many of the arm's failed.
        share: Share of the outcome's variance between the bins of all parameters, adjusted for
            their number; it is about 0, and may lie below, where nothing matters.
        p: Share of permuted outcomes of which as much is explained; NaN where refused.
        refused: Why nothing can be told, empty where it can.
    """

    arm: str
    outcome: str
    n: int
    failed: int
    share: float
    p: float
    refused: str = ""


class Outcome(NamedTuple):
    """What is to be explained in one arm: the score of what completed, or failing."""

    of: Sample
    name: str
    rows: Ints
    values: Floats

    @property
    def parameters(self) -> list[Parameter]:
        """Those that all configurations have."""
        return self.of.common


def outcomes(of: Sample, sign: int) -> list[Outcome]:
    """Return score and failure of an arm; the score as its logarithm where all are positive."""
    completed = np.flatnonzero(~of.failed)
    scores = sign * of.scores[completed]
    positive = len(scores) > 0 and scores.min() > 0
    told = np.log(scores) if positive else scores
    everything = np.arange(len(of.scores))
    return [
        Outcome(of, "score", completed, told),
        Outcome(of, "failure", everything, of.failed.astype(float)),
    ]


def refusal(outcome: Outcome) -> str:
    """Return why nothing can be told of an outcome, empty if something can."""
    n, failed = len(outcome.values), int(outcome.of.failed.sum())
    what = "completed configurations" if outcome.name == "score" else "configurations"
    if not outcome.parameters:
        return "no hyper-parameter is common to all configurations"
    if n < LEAST:
        return f"{n} {what}, and below {LEAST} too little is found"
    if outcome.name == "failure" and min(failed, n - failed) < LEAST_FAILURES:
        return (
            f"{failed} of {n} failed, and at least {LEAST_FAILURES} failures and as many "
            "others are needed"
        )
    if np.ptp(outcome.values) == 0:
        return "all scores are equal"
    return ""


def explained(outcome: Outcome, permutations: int = PERMUTATIONS) -> Explained:
    """Test whether an outcome depends on the hyper-parameters, by permuting it.

    The statistic is the share of variance that an additive model on the parameters' bins
    explains. The test is exact: under no effect p <= 0.05 has probability 0.05 at most.
    """
    of = outcome.of
    about = (of.arm, outcome.name, len(outcome.values), int(of.failed.sum()))
    refused = refusal(outcome)
    if refused:
        return Explained(*about, math.nan, math.nan, refused)
    basis = _additive_basis(outcome)
    n, columns = basis.shape
    rng = np.random.default_rng(SEED)
    shares = np.empty(permutations + 1)
    values = outcome.values - outcome.values.mean()
    values = values / np.linalg.norm(values)
    for i in range(len(shares)):
        shares[i] = ((basis.T @ (rng.permutation(values) if i else values)) ** 2).sum()
    free = n - 1 - columns
    adjusted = 1 - (1 - shares[0]) * (n - 1) / free if free > 0 else math.nan
    p = float((shares >= shares[0] - 1e-12).mean())
    return Explained(*about, float(adjusted), p)


def _additive_basis(outcome: Outcome) -> Floats:
    """Return an orthonormal basis of the indicators of all bins, centred: n rows."""
    bins = min(MOST_CELLS, bins_for(len(outcome.values)))
    blocks = []
    for p in outcome.parameters:
        levels = p.level(outcome.of.positions[p.key][outcome.rows], bins)
        blocks.append(levels[:, None] == np.unique(levels)[None, 1:])
    indicators = np.hstack(blocks).astype(float)
    indicators -= indicators.mean(axis=0)
    left, singular, _ = np.linalg.svd(indicators, full_matrices=False)
    return left[:, singular > 1e-9 * max(singular.max(initial=0.0), 1.0)]


def importances(outcome: Outcome) -> pd.DataFrame:
    """Return each parameter's share of the forest's variance, and what chance gives it.

    Functional ANOVA (Hutter et al. 2014) by optuna, of main effects, on positions in the drawn
    range. Into every forest goes, beside each parameter, a copy with its values shuffled (as in
    Kursa & Rudnicki 2010, doi:10.18637/jss.v036.i11), whose true share is 0. Shuffling the
    outcome in place of the parameters would tear down the strong effects too, and a weaker one
    then hardly ever exceeded the shares of pure noise, which also sum to 1: of a second effect
    it found 8 % of 60 simulated studies of 100 configurations, this way 95 %. Beside a strong
    effect this way told each of five parameters without any in 0 to 3 of 100 such studies.

    Returns:
        A row a parameter: `importance`, the mean over 19 forests; `chance`, the 95 % quantile of
        its 19 shuffled copies, which is their largest; `told`, whether it is exceeded.
    """
    parameters = outcome.parameters
    kept = evenly(len(outcome.values), MOST)
    x = {p.key: outcome.of.positions[p.key][outcome.rows[kept]] for p in parameters}
    rng = np.random.default_rng(SEED)
    evaluator = Fanova([*parameters, *parameters], outcome.values[kept])
    real, shuffled = [], []
    for i in range(SHUFFLES):
        copies = [rng.permutation(values) for values in x.values()]
        shares = evaluator.shares([*x.values(), *copies], seed=i).reshape(2, -1)
        real.append(shares[0])
        shuffled.append(shares[1])
    mean, chance = np.mean(real, axis=0), np.max(shuffled, axis=0)
    rows = [
        (outcome.of.arm, outcome.name, p.key, m, c, m > c, len(kept))
        for p, m, c in zip(parameters, mean.tolist(), chance.tolist(), strict=True)
    ]
    return pd.DataFrame(rows, columns=IMPORTANCE_COLUMNS)


class Fanova:
    """Optuna's functional ANOVA of one outcome, at positions that may change."""

    def __init__(self, parameters: Sequence[Parameter], values: Floats) -> None:
        """Make a trial a value once: that takes longer than a forest.

        Args:
            parameters: One a column; one may stand there twice.
            values: n values of the outcome.
        """
        import optuna  # slow to import, and few commands need it

        self.parameters = parameters
        self.distributions = {
            f"{i:03d}": _distribution(optuna, p) for i, p in enumerate(parameters)
        }
        blank = {
            key: d.choices[0] if p.choices else 0.0
            for (key, d), p in zip(self.distributions.items(), parameters, strict=True)
        }
        self.trials = [
            optuna.trial.create_trial(
                params=blank, distributions=self.distributions, value=float(value)
            )
            for value in values
        ]

    def shares(self, columns: Sequence[Floats], seed: int) -> Floats:
        """Return each column's share of the variance of a forest with this seed.

        Args:
            columns: n positions of every parameter.
            seed: Of the forest.
        """
        from optuna.importance import FanovaImportanceEvaluator

        plain = [
            (column.astype(int) if p.choices else column.clip(0, 1)).tolist()
            for p, column in zip(self.parameters, columns, strict=True)
        ]
        for trial, row in zip(self.trials, zip(*plain, strict=True), strict=True):
            trial.params = dict(zip(self.distributions, row, strict=True))
        evaluator = FanovaImportanceEvaluator(n_trees=TREES, max_depth=DEPTH, seed=seed)
        study = cast("optuna.Study", _Recorded(self.trials))
        shares = evaluator.evaluate(study, target=lambda trial: float(trial.values[0]))
        return np.array([float(shares[name]) for name in self.distributions])


def _distribution(optuna: Any, parameter: Parameter) -> Any:
    if parameter.choices:
        return optuna.distributions.CategoricalDistribution(range(len(parameter.choices)))
    return optuna.distributions.FloatDistribution(0.0, 1.0)


@dataclass(frozen=True)
class _Recorded:
    """What the evaluator asks of a study; making a real one takes longer than the forest."""

    trials: list[Any]

    def get_trials(self, deepcopy: bool = True, states: object = None) -> list[Any]:
        """Return the trials, all of which completed."""
        return self.trials


class Importances(NamedTuple):
    """What explains score and failure in every arm.

    Attributes:
        tests: By arm and outcome, whether anything does.
        adjusted: Holm's p of each of them, NaN where refused.
        rows: Importances of those outcomes that something explains.
    """

    tests: list[Explained]
    adjusted: list[float]
    rows: pd.DataFrame


def importance_data(samples: Mapping[str, Sample], sign: int) -> Importances:
    """Return importances where the permutation test, by Holm over arms and outcomes, finds any."""
    every = [outcome for of in samples.values() for outcome in outcomes(of, sign)]
    tests = [explained(outcome) for outcome in every]
    made = [test.p for test in tests if not test.refused]
    holms = iter(holm(made))
    adjusted = [math.nan if test.refused else next(holms) for test in tests]
    found = [
        importances(outcome)
        for outcome, p in zip(every, adjusted, strict=True)
        if p <= SIGNIFICANT
    ]
    rows = pd.concat(found, ignore_index=True) if found else None
    empty = pd.DataFrame(columns=IMPORTANCE_COLUMNS)
    return Importances(tests, adjusted, empty if rows is None else rows)


NOUNS = {"score": "the score", "failure": "failing"}


def sentences(data: Importances) -> list[str]:
    """Return one sentence an arm and outcome: what matters, that nothing does, or why not told."""
    told = []
    for test, p in zip(data.tests, data.adjusted, strict=True):
        what = f"{test.arm}, {NOUNS[test.outcome]}"
        if test.refused:
            told.append(f"{what}: no importances ({test.refused}).")
            continue
        tail = f"(n = {test.n}, permutation p = {p:.2g} by Holm over all tests of this kind)"
        if p > SIGNIFICANT:
            told.append(f"{what}: nothing here explains it beyond chance {tail}.")
            continue
        rows = data.rows[
            (data.rows["arm"] == test.arm) & (data.rows["outcome"] == test.outcome)
        ].sort_values("importance", ascending=False)
        above = rows[rows["told"]]
        matter = [
            f"{key} ({100 * share:.2g} %)"
            for key, share in zip(above["parameter"], above["importance"], strict=True)
        ]
        rest = rows.loc[~rows["told"], "parameter"].tolist()
        text = f"{what}: the hyper-parameters explain {test.share:.0%} of its variance {tail}; "
        text += f"above chance {', '.join(matter)}" if matter else "no one alone is above chance"
        told.append(text + (f"; not to be told from chance {', '.join(rest)}." if rest else "."))
    return told


def importance_figure(rows: pd.DataFrame, outcome: str, arms: Sequence[str]) -> Figure | None:
    """Draw importances and, as a tick, what chance gives each; None where there are none."""
    mine = rows[rows["outcome"] == outcome]
    if mine.empty:
        return None
    keys = mine.groupby("parameter")["importance"].max().sort_values().index.tolist()
    shown = [arm for arm in arms if (mine["arm"] == arm).any()]
    figure = go.Figure()
    for at, arm in enumerate(shown):
        of, look = mine[mine["arm"] == arm], style(list(arms).index(arm))
        offset = 0.7 * ((len(shown) - 1) / 2 - at) / len(shown)
        y = [keys.index(key) + offset for key in of["parameter"]]
        figure.add_scatter(
            x=of["chance"], y=y, mode="markers", showlegend=False, legendgroup=arm,
            marker={"symbol": "line-ns-open", "size": 12, "color": look.color,
                    "line": {"width": 2}},
            hovertext=[f"{arm}<br>by chance" for _ in y], hoverinfo="text+x",
        )  # fmt: skip
        figure.add_scatter(
            x=of["importance"], y=y, mode="markers", name=arm, legendgroup=arm,
            marker={"size": 10, "color": look.color,
                    "symbol": [look.symbol + ("" if t else "-open") for t in of["told"]]},
            hovertext=[arm] * len(y), hoverinfo="text+x",
        )  # fmt: skip
    figure.update_layout(
        **layout(height=max(260, 130 + len(keys) * (30 + 14 * len(shown)))),
        xaxis={"title": "share of variance", "tickformat": ".0%", "rangemode": "tozero"},
        yaxis={"tickvals": list(range(len(keys))), "ticktext": keys, "automargin": True},
    )
    n = ", ".join(f"{arm} {mine.loc[mine['arm'] == arm, 'n'].iloc[0]}" for arm in shown)
    reading = (
        "Share of the explained variance that is due to each hyper-parameter alone (functional "
        "ANOVA). The tick is what a shuffled copy of it reaches by chance once in 20 times: open "
        f"marks lie below it and are not to be told from chance. Configurations: {n}."
    )
    return Figure(
        f"importance-{outcome}", f"What explains {NOUNS[outcome]}", reading, figure, mine
    )
