"""The order of a study's arms by the one quantity that its answer and its table share."""

from __future__ import annotations

import math
from typing import NamedTuple

from scipy import stats

from analysis import statistics
from analysis.statistics import Estimate
from analysis.tables import Study


class RankedArm(NamedTuple):
    """One arm in the order of the study's comparison.

    Attributes:
        best: Median best of k of its scores, lower is better and +inf a failure; NaN without
            scores.
        rank: 1 for the best; equal arms share a rank. NaN without scores.
    """

    arm: str
    best: Estimate
    rank: float


def judged_k(study: Study) -> int:
    """Return the budget at which arms are compared: as fixed beforehand, else as n allows.

    By default the largest k at which every arm's median has a two-sided interval, at least 1. No
    more than the arm with the fewest configurations has, which while a study runs may be fewer.
    """
    fewest = min((len(study.unit_scores(arm)) for arm in study.contenders), default=0)
    known = max(1, statistics.largest_k_with_interval(fewest) if fewest else 1)
    return max(1, min(study.judgement.k or known, fewest))


def compared_k(study: Study) -> int:
    """Return the k of the quantity that orders the arms: 1 where no configurations are drawn."""
    return 1 if study.unit == "seed" or study.adaptive else judged_k(study)


def quantity(study: Study) -> str:
    """Return the name of the quantity that orders the arms."""
    k = compared_k(study)
    if k == 1:
        return f"median {study.primary} over {study.unit}s"
    return f"median best {study.primary} of k = {k} configurations"


def best_of_arm(study: Study, arm: str) -> Estimate:
    """Return an arm's median best of k by the comparison rule; NaN where it has fewer than k."""
    scores, k = study.unit_scores(arm).to_numpy(), compared_k(study)
    if len(scores) < k:
        return Estimate(math.nan, None, None, len(scores))
    return statistics.median_best_of_k(scores, k)


def rank_arms(study: Study) -> list[RankedArm]:
    """Return the contenders, the best first; equal ones in the study's order.

    Failures count as +inf, so that an arm that fails in half of all choices of k is behind every
    arm that does not. Arms without scores come last.
    """
    best = {arm: best_of_arm(study, arm) for arm in study.contenders}
    known = [arm for arm in best if not math.isnan(best[arm].value)]
    ranks = stats.rankdata([best[arm].value for arm in known], "min")
    rank = dict(zip(known, map(float, ranks), strict=True))
    found = [RankedArm(arm, best[arm], rank.get(arm, math.nan)) for arm in best]
    return sorted(found, key=lambda one: math.inf if math.isnan(one.rank) else one.rank)


def table_order(study: Study) -> list[str]:
    """Return the arms in the order of the table: ranked, then the copies that controls added.

    In the study's own order where the search was adaptive, since then no arm is said to be best.
    """
    if study.adaptive:
        return study.arms
    ranked = [one.arm for one in rank_arms(study)]
    return [*ranked, *(arm for arm in study.arms if arm not in ranked)]
