"""How long trainings last until they collapse; those that ended before are right-censored."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.statistics.estimate import CONFIDENCE, Array
from analysis.statistics.permutation import permutation_p, smallest_permutation_p

ASYMPTOTIC_TRAININGS, ASYMPTOTIC_COLLAPSES = 100, 50
"""Trainings of either arm, and collapses in both together, from which on chi-square is valid."""


class Survival(NamedTuple):
    """A survival curve: one entry per time at which something ended, censored or not."""

    times: Array
    survival: Array
    """Probability of lasting beyond the time."""
    low: Array
    high: Array
    at_risk: NDArray[np.int64]
    """Trainings that had lasted up to the time."""
    events: NDArray[np.int64]
    """Trainings that collapsed at the time."""
    n: int


def kaplan_meier(
    times: ArrayLike, observed: ArrayLike, confidence: float = CONFIDENCE
) -> Survival:
    """Return the Kaplan-Meier curve with its pointwise beta product interval.

    The interval of Fay, Brittain and Proschan (2013, Biostatistics 14:723), by their method of
    moments: Clopper-Pearson's where nothing is censored before the time, and defined also before
    the first collapse and after the last, where Greenwood's variance is 0 and the log-log
    interval, which covers too little in tens of trainings, does not exist.

    Args:
        times: (n,) when each training collapsed, or ended without.
        observed: (n,) true where it collapsed, false where it was censored.
        confidence: Coverage of the interval at any one time, nominally.

    Raises:
        ValueError: Lengths differ, there are no times, or one is not finite.
    """
    curve = stats.ecdf(_censored(times, observed)).sf
    ended, at = np.sort(np.asarray(times, dtype=float)), curve.quantiles
    collapsed = np.sort(np.asarray(times, dtype=float)[np.asarray(observed, dtype=bool)])
    at_risk = len(ended) - np.searchsorted(ended, at, side="left")
    after = len(ended) - np.searchsorted(ended, at, side="right")
    events = np.searchsorted(collapsed, at, "right") - np.searchsorted(collapsed, at, "left")
    low, high = _beta_product(at_risk, events, after, confidence)
    return Survival(at, curve.probabilities, low, high, at_risk, events, len(ended))


def _beta_product(
    at_risk: NDArray[np.int64],
    events: NDArray[np.int64],
    after: NDArray[np.int64],
    confidence: float,
) -> tuple[Array, Array]:
    """Return the ends: quantiles of products of betas, each product taken as a beta itself."""
    total = at_risk.astype(np.float64) + 1
    lasting = total - events
    first = np.asarray(np.cumprod(lasting / total), dtype=np.float64)
    second = first * np.cumprod((lasting + 1) / (total + 1))
    tail = (1 - confidence) / 2
    high = _beta_quantile(first, second, 1 - tail)
    # The lower end may lose one more training before the time is over.
    left = after.astype(np.float64)
    low = _beta_quantile(first * left / (left + 1), second * left / (left + 2), tail)
    return low, high


def _beta_quantile(first: Array, second: Array, level: float) -> Array:
    """Return the quantile of the betas with these first and second moments."""
    with np.errstate(invalid="ignore", divide="ignore"):  # moments 0 or 1: no spread
        size = (first - second) / (second - first**2)
        quantile = stats.beta.ppf(level, first * size, (1 - first) * size)
    return np.asarray(np.where((first <= 0) | (first >= 1), first, quantile), dtype=np.float64)


def _censored(times: ArrayLike, observed: ArrayLike) -> stats.CensoredData:
    ended, events = np.asarray(times, dtype=float), np.asarray(observed, dtype=bool)
    if ended.shape != events.shape or ended.ndim != 1:
        raise ValueError(f"times and observed differ: {ended.shape} and {events.shape}")
    if not len(ended) or not np.isfinite(ended).all():
        raise ValueError("survival needs finite times, one or more")
    return stats.CensoredData.right_censored(ended, ~events)


def log_rank(
    first: tuple[ArrayLike, ArrayLike],
    second: tuple[ArrayLike, ArrayLike],
    method: Literal["auto", "permutation", "asymptotic"] = "auto",
) -> float:
    """Return the two-sided p of the log-rank test that two arms survive alike.

    By permutation of the arms' labels: every training has a log-rank score (1 if it collapsed,
    less the cumulated hazard of both arms up to its end), and the statistic is the sum of the
    first arm's. The p is exact for any n where both arms are censored alike. Beyond
    `ASYMPTOTIC_TRAININGS` an arm and `ASYMPTOTIC_COLLAPSES` in all the chi-square approximation
    is used, which is valid there and fast; with 4 against 4 it gives 0.0067 in place of 2 / 70.

    Args:
        first: Times and whether they were observed, as for `kaplan_meier`.
        second: The same of the other arm.
        method: "auto" chooses by the sizes.

    Returns:
        p; 1 where no labelling differs from another, as where nothing collapsed.

    Raises:
        ValueError: As for `kaplan_meier`.
    """
    samples = _censored(*first), _censored(*second)
    a, b = log_rank_scores(first, second)
    if np.ptp(np.concatenate([a, b])) == 0:
        return 1.0
    if method == "auto":
        many = min(len(a), len(b)) >= ASYMPTOTIC_TRAININGS
        collapsed = int(np.sum(first[1]) + np.sum(second[1]))
        large = many and collapsed >= ASYMPTOTIC_COLLAPSES
        method = "asymptotic" if large else "permutation"
    if method == "asymptotic":
        return float(stats.logrank(*samples).pvalue)
    return permutation_p(a, b)


def log_rank_scores(
    first: tuple[ArrayLike, ArrayLike], second: tuple[ArrayLike, ArrayLike]
) -> tuple[Array, Array]:
    """Return every training's log-rank score: observed less expected collapses up to its end.

    The expected ones are the Nelson-Aalen estimate of both arms together. The scores of both arms
    sum to 0, and the first arm's to the numerator of the log-rank test.

    Args:
        first: Times and whether they were observed, as for `kaplan_meier`.
        second: The same of the other arm.
    """
    times = np.concatenate([np.asarray(one[0], dtype=np.float64) for one in (first, second)])
    observed = np.concatenate([np.asarray(one[1], dtype=bool) for one in (first, second)])
    at, events = np.unique(times[observed], return_counts=True)
    at_risk = len(times) - np.searchsorted(np.sort(times), at, side="left")
    hazard = np.concatenate([[0.0], np.cumsum(events / at_risk)])
    scores = observed - hazard[np.searchsorted(at, times, side="right")]
    m = len(np.asarray(first[0]))
    return scores[:m], scores[m:]


def smallest_log_rank_p(
    first: tuple[ArrayLike, ArrayLike], second: tuple[ArrayLike, ArrayLike]
) -> float:
    """Return the smallest p of `log_rank` over all ways to deal the trainings to the arms."""
    a, b = log_rank_scores(first, second)
    return smallest_permutation_p(np.concatenate([a, b]), len(a))
