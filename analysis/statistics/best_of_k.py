"""The best of k configurations: expected, median with an exact interval, and by chance alone."""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from analysis.statistics.estimate import (
    CONFIDENCE,
    Array,
    Estimate,
    checked_ratio_scale,
    checked_scores,
)


def min_exceeds(n: int, k: int) -> Array:
    """Return P(the best of k drawn without replacement from n is worse than x_(i)), i = 0..n.

    C(n - i, k) / C(n, k) by its recurrence: every factor is right to the last bit, so that the
    relative error stays below n times 2e-16, and no binomial coefficient is ever made.

    Raises:
        ValueError: `k` is not between 1 and `n`.
    """
    if not 1 <= k <= n:
        raise ValueError(f"k must lie between 1 and n = {n}, got {k}")
    left = np.arange(n, 0, -1.0)
    factors = np.maximum(left - k, 0.0) / left
    return np.concatenate([[1.0], np.cumprod(factors)])


def min_weights(n: int, k: int) -> Array:
    """Return P(the best of k drawn without replacement from n is x_(i)), i = 1..n.

    Raises:
        ValueError: `k` is not between 1 and `n`.
    """
    # As a product, since the difference of neighbours would cancel to noise at large n.
    return min_exceeds(n, k)[:-1] * np.minimum(k / np.arange(n, 0, -1.0), 1.0)


class ExpectedBest(NamedTuple):
    """The expected best of k, given that not all of them fail."""

    value: float
    """NaN where every draw of k fails."""
    all_fail: float
    """Probability that all k fail."""
    n: int


def expected_best_of_k(values: ArrayLike, k: int) -> ExpectedBest:
    """Return the expected best of k configurations given at least one success, exactly.

    The mean of the minimum over all subsets of size k that hold a success (Tang et al. 2020,
    arXiv:2004.14355), and beside it the share of the subsets that hold none. Without failures it
    is a U-statistic and unbiased; with them it is a ratio of two of them.

    Args:
        values: n scores, lower is better, +inf for a failure.
        k: Budget in configurations, 1 to n.

    Raises:
        ValueError: There are no scores, one is NaN, or `k` is out of range.
    """
    scores = np.sort(checked_scores(values))
    n, successes = len(scores), int(np.isfinite(scores).sum())
    all_fail = float(min_exceeds(n, k)[successes])
    if not successes:
        return ExpectedBest(math.nan, 1.0, n)
    weights = min_weights(n, k)[:successes]
    return ExpectedBest(float(scores[:successes] @ weights / weights.sum()), all_fail, n)


def median_best_of_k(values: ArrayLike, k: int, confidence: float = CONFIDENCE) -> Estimate:
    """Return the median best of k configurations with an exact, distribution-free interval.

    The value is the median of the minimum over all subsets of size k (of an even number of them
    the middle of the two middle ones, so that k = 1 gives the usual median). The median best of k
    of the population is its quantile p = 1 - 2^(-1/k), and the interval is that quantile's by
    binomial order statistics; both its ends exist only up to k of about 0.19 n at 95 %.

    Args:
        values: n scores, lower is better, +inf for a failure.
        k: Budget in configurations, 1 to n.
        confidence: Coverage of the interval, at least.

    Raises:
        ValueError: There are no scores, one is NaN, or `k` is out of range.
    """
    scores = np.sort(checked_scores(values))
    n = len(scores)
    i, even = _median_rank(n, k)
    middle = (scores[i - 1] + scores[i]) / 2 if even else scores[i - 1]
    low, high = quantile_interval(scores, 1 - 2 ** (-1 / k), confidence)
    return Estimate(float(middle), low, high, n)


def _median_rank(n: int, k: int) -> tuple[int, bool]:
    """Return the rank of the median minimum, and whether it shares the middle with the next."""
    exceeds = min_exceeds(n, k)
    i = int(np.argmax(exceeds[1:] <= 0.5 + 1e-9)) + 1
    if exceeds[i] < 0.5 - 1e-9:
        return i, False
    # So near to one half that only whole numbers can tell; this happens for few n and k.
    above = 2 * math.comb(n - i, k) - math.comb(n, k)
    return (i + 1, False) if above > 0 else (i, above == 0)


def quantile_interval(
    scores: Array, p: float, confidence: float = CONFIDENCE
) -> tuple[float | None, float | None]:
    """Return the ends of the order-statistic interval of quantile `p`; None where none exists.

    B ~ Bin(n, p) of the sorted scores lie below the quantile; the l-th of them is a lower end if
    P(B < l) <= alpha / 2, the u-th an upper end if P(B >= u) <= alpha / 2.

    Args:
        scores: n sorted scores.
        p: The quantile's level, in (0, 1).
        confidence: Coverage of the interval, at least.
    """
    n, tail = len(scores), (1 - confidence) / 2
    ranks = range(1, n + 1)
    lower = bisect_left(ranks, True, key=lambda r: bool(special.bdtr(r - 1, n, p) > tail))
    upper = bisect_left(ranks, True, key=lambda r: bool(special.bdtrc(r - 1, n, p) <= tail))
    low = float(scores[lower - 1]) if lower else None
    high = float(scores[upper]) if upper < n else None
    return low, high


def largest_k_with_interval(n: int, confidence: float = CONFIDENCE) -> int:
    """Return the largest k at which `median_best_of_k` of n scores has both ends, 0 if none.

    The lower end is the first to go: it exists while all n scores lie above the quantile with a
    probability 2^(-n/k) of at most alpha / 2, and then the upper end exists too.
    """
    return int(n / math.log2(2 / (1 - confidence)))


def budget_grid(n: int, most: int = 60) -> list[int]:
    """Return the budgets k at which a curve of n scores is drawn, at most `most` of them.

    All of them where n is small; else every k of the first half, and the rest spread evenly over
    the logarithm of k. The largest k with an interval and n are always among them.
    """
    if n <= most:
        return list(range(1, n + 1))
    dense = most // 2
    spread = np.geomspace(dense, n, most - dense - 1).round().astype(int)
    always = {*range(1, dense + 1), largest_k_with_interval(n), n}
    return sorted(always.union(spread.tolist()))


class ChanceLead(NamedTuple):
    """By how much the best of identical arms leads, in many repeats of the study.

    NaN in the repeats in which every arm failed, +inf where only the arm behind did.
    """

    second: Array
    """The second best arm's best of k over the best arm's."""
    worst: Array
    """The worst arm's best of k over the best arm's."""


def lead_of_identical_arms(
    values: ArrayLike, arms: int, k: int, rng: np.random.Generator, draws: int = 10_000
) -> ChanceLead:
    """Return the leads that chance alone gives, where `arms` identical arms draw k configs each.

    Every arm draws from `values` with replacement, as from a population of which they are what is
    known; k well below their number keeps that honest.

    Args:
        values: Scores of one arm, lower is better, above 0, +inf for a failure.
        arms: Number of arms, 2 or more.
        k: Configurations per arm.
        rng: Where the draws come from.
        draws: Number of repeats.

    Raises:
        ValueError: A score is not above 0, or there are fewer than 2 arms or 1 configuration.
    """
    if arms < 2 or k < 1:
        raise ValueError(f"a lead needs 2 arms and k = 1 or more, got {arms} arms and k = {k}")
    scores = np.sort(checked_ratio_scale(values))
    # The smallest of k uniform numbers has the distribution of 1 - u^(1/k).
    smallest = 1 - rng.random((draws, arms)) ** (1 / k)
    ranks = np.minimum((smallest * len(scores)).astype(int), len(scores) - 1)
    best = np.sort(scores[ranks], axis=1)
    with np.errstate(invalid="ignore"):  # inf / inf: every arm failed
        return ChanceLead(best[:, 1] / best[:, 0], best[:, -1] / best[:, 0])
