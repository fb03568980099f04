"""What a study's evidence shows: every pair of arms compared, and one sentence in plain words."""

from __future__ import annotations

import itertools
import math

from analysis import statistics
from analysis.statistics import Comparison
from analysis.tables import Study

ALPHA = 0.05
INDEPENDENT = frozenset({"random", "replicate"})
"""Samplers whose trials are independent draws."""


def comparisons(study: Study) -> list[Comparison]:
    """Compare every pair of arms over configs, or over seeds where configs are repeated.

    Only of random designs and repeated configs whose trials all could end: other samplers do
    not draw independently, nor do trials that compete.
    Paired draws are compared config by config (exact sign test), others by ranks (Mann-Whitney).
    Failures score +inf and so lose against any score. P-values are adjusted by Holm's method.
    """
    if study.adaptive or study.settings["design"]["sampler"] not in INDEPENDENT:
        return []
    found = []
    for first, second in itertools.combinations(study.arms, 2):
        a, b = study.unit_scores(first), study.unit_scores(second)
        if _paired(study):
            common = a.index.intersection(b.index)
            wins, losses, p = statistics.sign_test(a[common], b[common])
            found.append(Comparison(first, second, wins, losses, len(common), p))
        elif len(a) and len(b):
            wins, losses, p = statistics.rank_test(a, b)
            found.append(Comparison(first, second, wins, losses, len(a) * len(b), p))
    adjusted = statistics.holm([c.p for c in found])
    return [c._replace(p=p) for c, p in zip(found, adjusted, strict=True)]


def _paired(study: Study) -> bool:
    """Whether unit i means the same draw in every arm; a seed does not, at different configs."""
    return study.unit == "configuration" and bool(study.settings["design"]["paired"])


def verdict(study: Study) -> str:
    """Return the sentence that opens the report."""
    arms, configs = study.arms, [len(study.unit_scores(arm)) for arm in study.arms]
    sampler = study.settings["design"]["sampler"]
    if study.adaptive or sampler not in INDEPENDENT:
        how = "searched adaptively" if sampler == "tpe" else f"tried the points of a {sampler}"
        if study.rule is not None:
            how = f"stopped trials by {study.rule} while others did better"
        return (
            f"This study {how}, so its trials are no independent draws and no arm can be said to "
            f"beat another by it; the scores below describe what was tried."
        )
    if not any(configs):
        return "No trial of this study has ended yet, so there is no evidence."
    if len(arms) == 1:
        return f"This study has one arm, {arms[0]}, so it compares nothing; it shows its spread."
    proven = [c for c in comparisons(study) if c.p < ALPHA and c.wins != c.losses]
    if not proven:
        return _cannot_tell(study, min(configs), max(configs))
    told = "; ".join(_won(study, c) for c in proven)
    silent = math.comb(len(arms), 2) - len(proven)
    rest = f" Between the other {silent} pairs it cannot tell." if silent else ""
    how = "exact tests over configurations"
    if study.unit == "seed":
        how = "rank tests over seeds of each arm's best configuration, as chosen beforehand"
    return f"This study shows that {told} ({how}, Holm-adjusted).{rest}"


def _won(study: Study, c: Comparison) -> str:
    better, worse, wins = (
        (c.first, c.second, c.wins) if c.wins > c.losses else (c.second, c.first, c.losses)
    )
    return f"{better} scored better than {worse} in {wins} of {c.pairs} pairs (p = {c.p:.2g})"


def _cannot_tell(study: Study, fewest: int, most: int) -> str:
    arms = len(study.arms)
    n = str(fewest) if fewest == most else f"{fewest} to {most}"
    pairs = math.comb(arms, 2)
    counted = f"{pairs} comparison{'s' if pairs > 1 else ''}"
    smallest = min(1.0, 2 * 0.5**most * pairs)
    start = (
        f"This study cannot tell its {arms} arms apart: with {n} "
        f"{study.unit}{'s' if most > 1 else ''} an arm"
    )
    if _paired(study) and smallest > ALPHA:
        possible = (
            "no outcome could have been significant"
            if smallest >= 1
            else f"even an arm that won every pair would have reached only p = {smallest:.2g}"
        )
        return f"{start}, {possible} over {counted}."
    least = min((c.p for c in comparisons(study)), default=1.0)
    return (
        f"{start}, no difference is larger than chance would make it (smallest adjusted "
        f"p = {least:.2g} over {counted}); that is no proof that they are equal."
    )
