"""Arms against each other in ratios: over pairs, at the best of k, by margin, over data sets."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from analysis.statistics.best_of_k import median_best_of_k, quantile_interval
from analysis.statistics.estimate import CONFIDENCE, Estimate, checked_pairs, checked_ratio_scale

Verdict = Literal["equivalent", "different", "cannot tell"]


def paired_ratio(first: ArrayLike, second: ArrayLike, confidence: float = CONFIDENCE) -> Estimate:
    """Return the median of a / b over the pairs of a shared design, with its exact interval.

    The interval is the sign test's: order statistics of the ratios, so that one failure of a pair
    is a ratio of 0 or infinity and nothing is made up for it. Of an even number of pairs the
    median is the geometric mean of the middle two, so that b / a gives the inverse.

    Args:
        first: Scores a, lower is better, above 0, +inf for a failure.
        second: Scores b of the same configurations.
        confidence: Coverage of the interval, at least.

    Returns:
        Below 1 where the first arm is better. n counts the pairs used: those in which both failed
        tell nothing and are left out. NaN where none is left, or where the middle two are 0 and
        infinity.

    Raises:
        ValueError: A score is NaN or not above 0, there are none, or the lengths differ.
    """
    a, b = checked_pairs(checked_ratio_scale(first), checked_ratio_scale(second))
    used = np.isfinite(a) | np.isfinite(b)
    n = int(used.sum())
    if not n:
        return Estimate(math.nan, None, None, 0)
    ratios = np.sort(a[used] / b[used])
    low, high = quantile_interval(ratios, 0.5, confidence)
    return Estimate(_middle(ratios[(n - 1) // 2], ratios[n // 2]), low, high, n)


def _middle(low: float, high: float) -> float:
    if low == high:
        return float(low)
    with np.errstate(invalid="ignore"):  # 0 times infinity: there is no middle
        return float(np.sqrt(low) * np.sqrt(high))


def ratio_of_best_of_k(
    first: ArrayLike, second: ArrayLike, k: int, confidence: float = CONFIDENCE
) -> Estimate:
    """Return the ratio of two arms' median best of k, with a conservative interval.

    Each median has its exact interval at half the error (Bonferroni), and the ratio lies between
    the quotients of their ends: coverage is at least `confidence`, whatever the distributions and
    whether or not the arms are paired.

    Args:
        first: Scores a, lower is better, above 0, +inf for a failure.
        second: Scores b.
        k: Budget in configurations, 1 to the smaller arm's number.
        confidence: Coverage of the interval, at least.

    Returns:
        Below 1 where the first arm is better; NaN where both medians are failures. No interval
        where one of the medians has none at (1 + confidence) / 2. n is the smaller arm's.

    Raises:
        ValueError: A score is NaN or not above 0, there are none, or `k` is out of range.
    """
    a = median_best_of_k(checked_ratio_scale(first), k, (1 + confidence) / 2)
    b = median_best_of_k(checked_ratio_scale(second), k, (1 + confidence) / 2)
    value, n = _quotient(a.value, b.value), min(a.n, b.n)
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return Estimate(value, None, None, n)
    # A lower end at infinity says "no better than failure"; over another failure it says nothing.
    low, high = _quotient(a.low, b.high), _quotient(a.high, b.low)
    return Estimate(
        value, 0.0 if math.isnan(low) else low, math.inf if math.isnan(high) else high, n
    )


def _quotient(a: float, b: float) -> float:
    return math.nan if math.isinf(a) and math.isinf(b) else a / b


class Equivalence(NamedTuple):
    """Whether two arms differ by less than a margin, as far as their runs tell."""

    verdict: Verdict
    ratio: Estimate
    """With its interval at one minus twice the level: 90 % for tests at 5 %."""
    margin: float


def equivalent(ratio: Estimate, margin: float) -> Equivalence:
    """Tell by two one-sided tests whether a ratio lies within [1 / (1 + margin), 1 + margin].

    The estimand is the ratio's own: hand in `paired_ratio` or `ratio_of_best_of_k` with
    `confidence=0.9` for two tests at 5 % each (Schuirmann 1987). "Equivalent" where its interval
    lies inside the margins, "different" where it lies outside of them altogether; else, and where
    there is no interval, "cannot tell", which is no proof of equality.

    Raises:
        ValueError: `margin` is not above 0.
    """
    if not 0 < margin < math.inf:
        raise ValueError(f"margin must be above 0, such as 0.1 for 10 %, got {margin}")
    verdict: Verdict = "cannot tell"
    if ratio.low is not None and ratio.high is not None:
        if ratio.low >= 1 / (1 + margin) and ratio.high <= 1 + margin:
            verdict = "equivalent"
        elif ratio.low > 1 + margin or ratio.high < 1 / (1 + margin):
            verdict = "different"
    return Equivalence(verdict, ratio, margin)


def equivalent_best_of_k(
    first: ArrayLike, second: ArrayLike, k: int, margin: float, level: float = 0.05
) -> Equivalence:
    """Tell whether two arms' median best of k configurations differ by less than a margin.

    The estimand is the ratio of the medians, over the population of configurations that the
    search space holds, of the best of k of them: what a tuning budget of k buys. See `equivalent`
    for the rule and `ratio_of_best_of_k` for the arguments and errors.
    """
    return equivalent(ratio_of_best_of_k(first, second, k, 1 - 2 * level), margin)


class AcrossDatasets(NamedTuple):
    """One ratio over several data sets."""

    ratio: Estimate
    """Geometric mean of the data sets' ratios; n counts the data sets."""
    warning: str | None


def across_datasets(log_ratios: ArrayLike, confidence: float = CONFIDENCE) -> AcrossDatasets:
    """Return the mean ratio over data sets, which count as a sample of those there are.

    Scores of different data sets are on different scales and never averaged; the logarithms of
    ratios to a common reference are. The interval is Student's over data sets.

    Args:
        log_ratios: One natural logarithm of a ratio per data set.
        confidence: Coverage of the interval, nominally.

    Returns:
        The geometric mean of the ratios: 0 or +inf where an arm failed throughout on a data set.

    Raises:
        ValueError: There are none, or one is NaN.
    """
    logs = np.asarray(log_ratios, dtype=np.float64).ravel()
    if not len(logs) or np.isnan(logs).any():
        raise ValueError("log ratios over data sets must be one or more, none of them NaN")
    n, finite = len(logs), bool(np.isfinite(logs).all())
    with np.errstate(invalid="ignore", over="ignore"):  # one arm fails here, the other there
        value = float(np.exp(logs.mean()))
    warning = None
    if n < 3:
        warning = f"{n} data set{'s' if n > 1 else ''} tell next to nothing about others"
    if n < 2 or not finite:
        return AcrossDatasets(Estimate(value, None, None, n), warning)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1) * logs.std(ddof=1) / math.sqrt(n))
    centre = float(logs.mean())
    ends = math.exp(centre - half), math.exp(centre + half)
    return AcrossDatasets(Estimate(value, *ends, n), warning)
