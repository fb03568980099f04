"""What a study's evidence shows: every pair of arms compared, and one sentence in plain words."""

from __future__ import annotations

import itertools
import math

import pandas as pd

from analysis import statistics
from analysis.statistics import Comparison
from analysis.tables import Study

ALPHA = 0.05
HOW_TRIED = {
    "tpe": "searched adaptively",
    "sobol": "tried the points of a Sobol sequence",
    "grid": "tried the points of a grid",
}
"""Sampler -> what a study did that makes its trials no independent draws."""


def compared(study: Study, first: str, second: str) -> Comparison | None:
    """Compare two arms over configs, or over seeds where configs are repeated; p not adjusted.

    Only in random designs and repeated configs whose trials all could end: other samplers do not
    draw independently, nor do trials that compete. Paired draws are compared config by config
    (exact sign test), others by ranks (Mann-Whitney). Failures score +inf and so lose against any
    score. None where nothing can be compared.
    """
    if not study.independent:
        return None
    a, b = study.unit_scores(first), study.unit_scores(second)
    if study.paired:
        common = _shared(study, first, second)
        wins, losses, p = statistics.sign_test(a[common], b[common])
        smallest = statistics.smallest_sign_p(wins + losses)
        return Comparison(first, second, wins, losses, len(common), p, smallest)
    if not len(a) or not len(b):
        return None
    wins, losses, p = statistics.rank_test(a, b)
    smallest = statistics.smallest_rank_p(a, b)
    return Comparison(first, second, wins, losses, len(a) * len(b), p, smallest)


def comparisons(study: Study) -> list[Comparison]:
    """Compare every pair of arms, copies that controls added aside; p by Holm's method."""
    pairs = itertools.combinations(study.contenders, 2)
    found = [c for pair in pairs if (c := compared(study, *pair)) is not None]
    adjusted = statistics.holm([c.p for c in found])
    return [c._replace(p=p) for c, p in zip(found, adjusted, strict=True)]


def verdict(study: Study) -> str:
    """Return the sentence that opens the report."""
    arms = study.contenders
    configs = [len(study.unit_scores(arm)) for arm in arms]
    if not study.independent:
        how = HOW_TRIED.get(study.sampler, f"tried the points of a {study.sampler}")
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
    others = "pair" if silent == 1 else f"{silent} pairs"
    rest = f" Between the other {others} it cannot tell." if silent else ""
    how = (
        "exact tests over shared configurations"
        if study.paired
        else ("rank tests, every configuration of one arm against every one of the other")
    )
    if study.unit == "seed":
        how = "rank tests over seeds of each arm's best configuration, as chosen beforehand"
    return f"This study shows that {told} ({how}, Holm-adjusted).{rest}"


def _won(study: Study, c: Comparison) -> str:
    better, worse, wins = (
        (c.first, c.second, c.wins) if c.wins > c.losses else (c.second, c.first, c.losses)
    )
    return f"{better} scored better than {worse} in {wins} of {c.pairs} pairs (p = {c.p:.2g})"


def _cannot_tell(study: Study, fewest: int, most: int) -> str:
    arms = len(study.contenders)
    n = str(fewest) if fewest == most else f"{fewest} to {most}"
    pairs = math.comb(arms, 2)
    counted = f"{pairs} comparison{'s' if pairs > 1 else ''}"
    start = (
        f"This study cannot tell its {arms} arms apart: with {n} "
        f"{study.unit}{'s' if most > 1 else ''} an arm"
    )
    smallest = _smallest_adjusted(study)
    if smallest > ALPHA:
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


def _smallest_adjusted(study: Study) -> float:
    """Return the smallest Holm-adjusted p that any outcome of so many runs an arm could have."""
    n = {arm: len(study.unit_scores(arm)) for arm in study.contenders}
    pairs = list(itertools.combinations(n, 2))
    if study.paired:
        shared = [len(_shared(study, first, second)) for first, second in pairs]
        smallest = [statistics.smallest_sign_p(number) for number in shared]
    else:
        # Different scores: ties only make it larger.
        smallest = [statistics.smallest_permutation_p(range(n[a] + n[b]), n[a]) for a, b in pairs]
    return min(statistics.holm(smallest))


def _shared(study: Study, first: str, second: str) -> pd.Index[str]:
    """Return the configurations that two arms share."""
    return study.unit_scores(first).index.intersection(study.unit_scores(second).index)
