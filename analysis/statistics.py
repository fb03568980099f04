"""Statistics of tuning studies: arrays in, numbers out.

Scores are such that lower is better, and a trial that failed scores +inf: it takes part in every
order statistic and no number is made up for it. A median of infinities is infinite, honestly.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A number with its interval; `low` and `high` are None where no two-sided one exists."""

    value: float
    low: float | None
    high: float | None
    n: int

    @property
    def has_interval(self) -> bool:
        """Whether both ends exist."""
        return self.low is not None and self.high is not None


def _sorted_scores(values: ArrayLike) -> NDArray[np.float64]:
    scores = np.sort(np.asarray(values, dtype=np.float64))
    if np.isnan(scores).any():
        raise ValueError("scores hold NaN; a failed trial scores +inf")
    if not len(scores):
        raise ValueError("no scores")
    return scores


def _min_exceeds(n: int, k: int) -> NDArray[np.float64]:
    """Return P(the best of k drawn without replacement from n is worse than x_(i)), i = 0..n."""
    if not 1 <= k <= n:
        raise ValueError(f"k must lie between 1 and n = {n}, got {k}")
    total = math.comb(n, k)
    return np.array([math.comb(n - i, k) / total for i in range(n + 1)])


def expected_best_of_k(values: ArrayLike, k: int) -> float:
    """Return the expected best of k configurations, exactly and without bias.

    The U-statistic: the mean over all subsets of size k of their minimum (Tang et al. 2020,
    arXiv:2004.14355). Infinite as soon as a subset may hold failures alone.

    Args:
        values: n scores, lower is better, +inf for a failure.
        k: Budget in configurations, 1 to n.
    """
    scores = _sorted_scores(values)
    exceeds = _min_exceeds(len(scores), k)
    weights = exceeds[:-1] - exceeds[1:]
    used = weights > 0
    return float((scores[used] * weights[used]).sum())


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
    """
    scores = _sorted_scores(values)
    n = len(scores)
    i = int(np.argmax(_min_exceeds(n, k)[1:] <= 0.5)) + 1
    even = 2 * math.comb(n - i, k) == math.comb(n, k)
    middle = (scores[i - 1] + scores[i]) / 2 if even else scores[i - 1]
    low, high = quantile_interval(scores, 1 - 2 ** (-1 / k), confidence)
    return Estimate(float(middle), low, high, n)


def quantile_interval(
    scores: NDArray[np.float64], p: float, confidence: float = CONFIDENCE
) -> tuple[float | None, float | None]:
    """Return the ends of the order-statistic interval of quantile `p`; None where none exists.

    B ~ Bin(n, p) of the sorted scores lie below the quantile; the l-th of them is a lower end if
    P(B < l) <= alpha / 2, the u-th an upper end if P(B >= u) <= alpha / 2.
    """
    n, tail = len(scores), (1 - confidence) / 2
    ranks = np.arange(1, n + 1)
    lower = ranks[stats.binom.cdf(ranks - 1, n, p) <= tail]
    upper = ranks[stats.binom.sf(ranks - 1, n, p) <= tail]
    low = float(scores[lower.max() - 1]) if len(lower) else None
    high = float(scores[upper.min() - 1]) if len(upper) else None
    return low, high


def largest_k_with_interval(n: int, confidence: float = CONFIDENCE) -> int:
    """Return the largest k at which `median_best_of_k` of n scores has both ends, 0 if none."""
    ranks = np.arange(1.0, n + 1)

    def lacks_an_end(k: int) -> bool:
        return None in quantile_interval(ranks, 1 - 2 ** (-1 / k), confidence)

    # The quantile falls with k, and its lower end with it: once missing, it stays so.
    return bisect_left(range(1, n + 1), True, key=lacks_an_end)


def rate(successes: int, n: int, confidence: float = CONFIDENCE) -> Estimate:
    """Return a share with its interval: Clopper-Pearson below n = 50, Wilson from there on."""
    if n == 0:
        return Estimate(math.nan, None, None, 0)
    method: Literal["exact", "wilson"] = "exact" if n < 50 else "wilson"
    interval = stats.binomtest(successes, n).proportion_ci(confidence, method)
    return Estimate(successes / n, float(interval.low), float(interval.high), n)


class Comparison(NamedTuple):
    """Two arms compared; `p` is two-sided and not adjusted."""

    first: str
    second: str
    wins: int
    """Pairs in which the first arm scored lower."""
    losses: int
    pairs: int
    p: float


def sign_test(first: ArrayLike, second: ArrayLike) -> tuple[int, int, float]:
    """Return wins and losses of `first` over paired scores, and the exact two-sided p.

    A pair of equal scores (two failures, say) tells nothing and is left out, as usual.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    wins, losses = int((a < b).sum()), int((a > b).sum())
    if wins + losses == 0:
        return wins, losses, 1.0
    return wins, losses, float(stats.binomtest(wins, wins + losses).pvalue)


def rank_test(first: ArrayLike, second: ArrayLike) -> tuple[int, int, float]:
    """Return wins and losses over all pairs of two independent samples, and Mann-Whitney's p."""
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    wins = int((a[:, None] < b).sum())
    losses = int((a[:, None] > b).sum())
    ranks = stats.rankdata(np.concatenate([a, b]))  # finite stand-ins: failures tie at the end
    p = stats.mannwhitneyu(ranks[: len(a)], ranks[len(a) :], alternative="two-sided").pvalue
    return wins, losses, float(p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number, by Holm's step-down method."""
    order = np.argsort(p_values)
    adjusted, running = np.empty(len(order)), 0.0
    for rank, index in enumerate(order):
        running = max(running, (len(order) - rank) * p_values[index])
        adjusted[index] = min(1.0, running)
    return [float(p) for p in adjusted]


def seeds_for_difference(
    relative_sd: float, difference: float = 0.1, power: float = 0.8, confidence: float = CONFIDENCE
) -> int:
    """Return the seeds per arm at which a relative difference of two means shows.

    The normal approximation, for independent runs: 2 (z_a + z_b)^2 (sd / difference)^2, and never
    below 2, without which there is no spread to judge by.
    """
    z = stats.norm.ppf((1 + confidence) / 2) + stats.norm.ppf(power)
    return max(2, math.ceil(2 * (z * relative_sd / difference) ** 2))
