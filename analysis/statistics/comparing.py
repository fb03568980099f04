"""Arms against each other: tests, and how often and by how much one is better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special, stats

from analysis.statistics.estimate import (
    CONFIDENCE,
    Array,
    Estimate,
    checked_pairs,
    checked_scores,
)
from analysis.statistics.permutation import permutation_p, smallest_permutation_p

FEWEST_RUNS = 4
"""Runs of either arm below which the probability of improvement has no interval."""
FEWEST_AVERAGED = 6
"""Scores below which the interquartile mean has no interval."""
EXACT_PAIRS = 20_000
"""Pairs up to which Mann-Whitney's exact distribution takes less than a tenth of a second."""
ASYMPTOTIC_RANKS = 50
"""Scores of either arm from which on the normal approximation of Mann-Whitney's test is used."""


class Comparison(NamedTuple):
    """Two arms compared; `p` is two-sided and not adjusted."""

    first: str
    second: str
    wins: int
    """Pairs in which the first arm scored lower."""
    losses: int
    pairs: int
    p: float
    smallest: float = 0.0
    """The smallest p that any outcome with as many runs, and as many ties, could have."""


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
    """Return wins and losses over all pairs of two independent samples, and Mann-Whitney's p.

    The p is exact without ties up to `EXACT_PAIRS` pairs, and with ties where there are at most
    20,000 ways to label the scores. Else it is that of labels drawn at random (`permutation_p`),
    or, from `ASYMPTOTIC_RANKS` scores an arm on, the normal approximation, which is valid there.

    Args:
        first: Scores of the first arm, lower is better, +inf for a failure; failures tie.
        second: Scores of the second.
    """
    a, b = np.asarray(first, dtype=float), np.sort(np.asarray(second, dtype=float))
    wins = int((len(b) - np.searchsorted(b, a, side="right")).sum())
    losses = int(np.searchsorted(b, a, side="left").sum())
    return wins, losses, _rank_p(*_ranks(a, b))


def _ranks(first: Array, second: Array) -> tuple[Array, Array]:
    """Return the scores' ranks, which are finite: failures tie at the end."""
    ranks = stats.rankdata(np.concatenate([first, second]))
    return ranks[: len(first)], ranks[len(first) :]


def _rank_p(first: Array, second: Array) -> float:
    """Return the two-sided p of Mann-Whitney's test of two samples of ranks."""
    tied = len(np.unique(np.concatenate([first, second]))) < len(first) + len(second)
    if not tied and len(first) * len(second) <= EXACT_PAIRS:
        return float(stats.mannwhitneyu(first, second, method="exact").pvalue)
    if min(len(first), len(second)) >= ASYMPTOTIC_RANKS:
        return float(stats.mannwhitneyu(first, second, method="asymptotic").pvalue)
    return permutation_p(first, second)


def smallest_rank_p(first: ArrayLike, second: ArrayLike) -> float:
    """Return the smallest p of `rank_test` over all ways to deal these scores to the two arms."""
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    return smallest_permutation_p(np.concatenate(_ranks(a, b)), len(a))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number, by Holm's step-down method."""
    order = np.argsort(p_values)
    adjusted, running = np.empty(len(order)), 0.0
    for rank, index in enumerate(order):
        running = max(running, (len(order) - rank) * p_values[index])
        adjusted[index] = min(1.0, running)
    return [float(p) for p in adjusted]


def can_be_significant(smallest: Sequence[float], level: float = 0.05) -> list[bool]:
    """Return for each test whether any outcome could be significant after Holm's adjustment.

    Args:
        smallest: The smallest p that each test can have.
        level: Of the tests together.
    """
    return [p < level for p in holm(smallest)]


def probability_of_improvement(
    first: ArrayLike, second: ArrayLike, paired: bool = False, confidence: float = CONFIDENCE
) -> Estimate:
    """Return P(a < b) + P(a = b) / 2: how often a run of the first arm beats one of the second.

    Over all pairs of two independent samples. Either end of the interval is the outer one of
    Newcombe's score interval (2006, method 5), which holds where one sample beats the other
    throughout but takes their spreads for alike, and of Brunner and Munzel's on the logit scale
    (2000), which is the other way round. `paired` looks at the pairs of a shared design alone,
    with Clopper and Pearson's interval, a tie being half a success; ties make it wider than it
    need be. Two failures tie.

    Args:
        first: Scores of the first arm, lower is better, +inf for a failure.
        second: Scores of the second.
        paired: Whether the i-th scores belong together.
        confidence: Coverage of the interval, nominally.

    Returns:
        The probability; n is the number of pairs, or of runs in the smaller arm. No interval
        where an arm of independent samples has fewer than 4 runs: of 3 against 3, where one beats
        the other throughout once in ten times by chance, it held one half in 88 % of studies.

    Raises:
        ValueError: An arm has no scores or NaN, or pairs differ in number.
    """
    if paired:
        a, b = checked_pairs(first, second)
        return _share(float((a < b).sum() + (a == b).sum() / 2), len(a), confidence)
    a, b = checked_scores(first), checked_scores(second)
    wins, losses, _ = rank_test(a, b)
    value = (1 + (wins - losses) / (len(a) * len(b))) / 2
    score = _newcombe(value, len(a), len(b), confidence)
    logit = _brunner_munzel(value, a, b, confidence)
    n = min(len(a), len(b))
    if n < FEWEST_RUNS:
        return Estimate(value, None, None, n)
    return Estimate(value, min(score[0], logit[0]), max(score[1], logit[1]), n)


def _share(successes: float, n: int, confidence: float) -> Estimate:
    """Return a share with Clopper-Pearson's interval, for halves of successes too."""
    tail = (1 - confidence) / 2
    low = stats.beta.ppf(tail, successes, n - successes + 1) if successes > 0 else 0.0
    high = stats.beta.isf(tail, successes + 1, n - successes) if successes < n else 1.0
    return Estimate(successes / n, float(low), float(high), n)


def _newcombe(value: float, m: int, n: int, confidence: float) -> tuple[float, float]:
    """Return the score interval of the probability of improvement of m over n runs."""
    z = float(stats.norm.ppf((1 + confidence) / 2))
    size = (m + n) / 2 - 1

    def excess(theta: float) -> float:
        odds = (1 - theta) / (2 - theta) + theta / (1 + theta)
        variance = theta * (1 - theta) * (1 + size * odds) / (m * n)
        return (value - theta) ** 2 - z * z * variance

    low = optimize.brentq(excess, 0.0, value * (1 - 1e-12)) if value > 0 else 0.0
    high = optimize.brentq(excess, value + (1 - value) * 1e-12, 1.0) if value < 1 else 1.0
    return float(low), float(high)


def _brunner_munzel(value: float, a: Array, b: Array, confidence: float) -> tuple[float, float]:
    """Return the logit interval by the spread of every run's own share of wins."""
    ranks = stats.rankdata(np.concatenate([a, b]))
    first = (ranks[: len(a)] - stats.rankdata(a)) / len(b)
    second = (ranks[len(a) :] - stats.rankdata(b)) / len(a)
    if min(len(a), len(b)) < 2 or not 0 < value < 1:
        return value, value  # no spread is known: Newcombe's alone counts
    parts = first.var(ddof=1) / len(a), second.var(ddof=1) / len(b)
    if sum(parts) == 0:
        return value, value
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (len(a) - 1) + parts[1] ** 2 / (len(b) - 1))
    half = stats.t.ppf((1 + confidence) / 2, freedom) * math.sqrt(sum(parts))
    reach = half / (value * (1 - value))
    low, high = special.expit(special.logit(value) + np.array([-reach, reach]))
    return float(low), float(high)


def interquartile_mean(
    values: ArrayLike,
    rng: np.random.Generator,
    confidence: float = CONFIDENCE,
    draws: int = 4000,
) -> Estimate:
    """Return the mean of the middle half of the scores, with a bootstrap interval.

    As rliable does (Agarwal et al. 2021, arXiv:2108.13264): a quarter of the runs is cut off at
    either end. Failures count as the worst, so that it is infinite where more than a quarter
    failed. The percentiles are widened for small n after Hesterberg (2015, arXiv:1411.5279), since
    the plain ones cover too little. Fewer than 6 scores have no interval: of 4 it covers 88 %.

    Args:
        values: n scores, lower is better, +inf for a failure.
        rng: Where the bootstrap's draws come from.
        confidence: Coverage of the interval, nominally.
        draws: Number of resamples.

    Raises:
        ValueError: There are no scores, or one is NaN.
    """
    scores = np.sort(checked_scores(values))
    n = len(scores)
    value = float(stats.trim_mean(scores, 0.25))
    if n < FEWEST_AVERAGED:
        return Estimate(value, None, None, n)
    means = [_middle_mean(scores, rng) for _ in range(draws)]
    tail = stats.norm.cdf(-math.sqrt(n / (n - 1)) * stats.t.ppf((1 + confidence) / 2, n - 1))
    low = float(np.quantile(means, tail, method="lower"))
    high = float(np.quantile(means, 1 - tail, method="higher"))
    return Estimate(value, low, high, n)


def _middle_mean(scores: Array, rng: np.random.Generator) -> float:
    """Return the interquartile mean of a resample of sorted scores."""
    n = len(scores)
    counts = np.bincount(rng.integers(0, n, n), minlength=n)
    again, cut = np.repeat(scores, counts), n // 4
    return float(again[cut : n - cut].mean())


class Profile(NamedTuple):
    """Share of runs at or below each threshold, with a band."""

    thresholds: Array
    share: Array
    low: Array
    high: Array
    n: int


def performance_profile(
    values: ArrayLike, thresholds: ArrayLike, confidence: float = CONFIDENCE
) -> Profile:
    """Return the share of runs that score at or below each threshold.

    The band holds at all thresholds at once, for any distribution and any n (Dvoretzky, Kiefer
    and Wolfowitz with Massart's constant 1990); at one threshold chosen beforehand `rate` is
    narrower.

    Args:
        values: n scores, lower is better, +inf for a failure, which is below no threshold.
        thresholds: Finite scores.
        confidence: Coverage of the whole band, at least.

    Raises:
        ValueError: There are no scores, or one is NaN, or a threshold is not finite.
    """
    scores, at = np.sort(checked_scores(values)), np.asarray(thresholds, dtype=np.float64)
    if not np.isfinite(at).all():
        raise ValueError("thresholds must be finite")
    share = np.searchsorted(scores, at, side="right") / len(scores)
    half = math.sqrt(math.log(2 / (1 - confidence)) / (2 * len(scores)))
    return Profile(
        at, share, np.maximum(share - half, 0.0), np.minimum(share + half, 1.0), len(scores)
    )
