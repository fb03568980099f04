"""Which hyper-parameters matter: for the score and for failing, alone and in pairs."""

from __future__ import annotations

from collections.abc import Mapping

from analysis.arms import failures_positive
from analysis.page import Figure, Part, Section
from analysis.sensitivity import effects, importance
from analysis.sensitivity.space import Parameter, Sample, edges, samples
from analysis.tables import Study

__all__ = ["edges", "section"]


def section(study: Study) -> Section | None:
    """Return which hyper-parameters matter; None where nothing was swept."""
    swept = samples(study)
    if not swept:
        return None
    marginals = effects.marginal_data(swept, study)
    parts: list[Part] = [_introduction(study)]
    figures = effects.marginal_figures(marginals, swept, study)
    parts.append(Section("marginals", "One hyper-parameter at a time", figures, grid=True))
    parts.append(_importances(study, swept))
    parts.append(Section("stability", "Where training fails", _maps(study, swept), grid=True))
    if pairs := _pairs(study, swept):
        title = "Two hyper-parameters at a time"
        parts.append(Section("interactions", title, pairs, grid=True, folded=True))
    return Section("sensitivity", "Which hyper-parameters matter", parts)


def _introduction(study: Study) -> str:
    told = (
        "Every configuration counts once, by the median over its seeds; one of which half of the "
        "seeds failed has failed, and counts as the worst score. Each value stands on the scale "
        "it was drawn on."
    )
    if study.adaptive:
        told += (
            " This study's search was adaptive: where it looked, and for how long, depended on "
            "the scores, so that bins hold no random draws. What follows is descriptive."
        )
    return told


def _importances(study: Study, swept: Mapping[str, Sample]) -> Section:
    title = "What explains score and failure"
    if study.adaptive:
        why = (
            "No importances: they need configurations drawn at random, and those of an adaptive "
            "search crowd where it found good ones."
        )
        return Section("importance", title, [why])
    data = importance.importance_data(swept, study.sign)
    figures = [
        importance.importance_figure(data.rows, outcome, study.arms)
        for outcome in importance.NOUNS
    ]
    method = (
        "First, whether the hyper-parameters explain anything at all: the share of variance "
        "between the bins of all of them against the same with outcomes permuted "
        f"{importance.PERMUTATIONS} times. Only where they do, functional ANOVA says which; at "
        f"most {importance.MOST} configurations an arm enter it, evenly thinned. The score is "
        "that of configurations that did not fail, as its logarithm where all are positive."
    )
    parts: list[Part] = [method, *(f for f in figures if f is not None)]
    return Section("importance", title, [*parts, *importance.sentences(data)])


def _maps(study: Study, swept: Mapping[str, Sample]) -> list[Part]:
    parts: list[Part] = []
    for arm, of in swept.items():
        if not of.failed.any():
            n = len(of.scores)
            parts.append(f"{arm}: none of {n} configurations failed, so there is nothing to map.")
            continue
        axes = effects.stability_axes(of)
        if len(axes) < 2:
            parts.append(f"{arm}: no map, for only {axes[0].key} was swept.")
            continue
        parts.append(_grid(study, of, axes[0], axes[1], "failure_rate"))
    return parts


def _pairs(study: Study, swept: Mapping[str, Sample]) -> list[Part]:
    return [
        _grid(study, of, x, y, "median") for of in swept.values() for x, y in effects.pairs(of)
    ]


def _grid(study: Study, of: Sample, x: Parameter, y: Parameter, color: str) -> Figure:
    data = effects.cells(of, x, y, study)
    plot = effects.grid_figure(data, of, x, y, color, study.sign)
    counts = f"n = {len(of.scores)}, {int(of.failed.sum())} failed."
    if color == "median":
        reading = "In every cell the median score and how many of its configurations failed; "
        reading += f"the lighter the {'lower' if study.sign == 1 else 'higher'}"
        title, kind = f"{of.arm}: {x.key} and {y.key}", "pair"
    else:
        reading = "In every cell the share of its configurations that failed, and of how many; "
        reading += "the darker the more"
        title, kind = f"{of.arm}: share that failed", "stability"
    reading += f", blank where there was none. {counts}"
    key = "-".join((kind, of.arm, *((x.key, y.key) if kind == "pair" else ())))
    return Figure(key, title, reading, plot, failures_positive(data))
