"""Selection optimism: what the best of k is worth where it was not chosen."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.statistics.best_of_k import min_weights
from analysis.statistics.estimate import Array, checked_pairs, checked_scores


class Optimism(NamedTuple):
    """Expected scores of the best of k, by what it was chosen on and by what it is told on."""

    ks: NDArray[np.int64]
    chosen_on: Array
    """Expected score that decided the choice, given that one of the k did not fail."""
    told_on: Array
    """Expected score of the chosen one elsewhere: +inf as soon as it may have failed there."""
    difference: Array
    """`told_on` less `chosen_on`: above 0 where choosing flatters."""
    n: int


def optimism_of_choosing(chosen_on: ArrayLike, told_on: ArrayLike, ks: ArrayLike) -> Optimism:
    """Return how much worse the best of k is on scores that had no part in choosing it.

    Exact: the mean over all subsets of size k that hold a success, equal scores being chosen
    among with equal chances.

    Args:
        chosen_on: (n,) scores by one split or seed, lower is better, +inf for a failure.
        told_on: (n,) scores of the same configurations by another.
        ks: Budgets in configurations, each 1 to n; one number will do.

    Raises:
        ValueError: Lengths differ, a score is NaN, or a budget is out of range.
    """
    chosen, told = checked_pairs(chosen_on, told_on)
    order = np.argsort(chosen, kind="stable")
    budgets = np.atleast_1d(np.asarray(ks, dtype=np.int64))
    found = [_best_of_k(chosen[order], told[order], int(k)) for k in budgets]
    by, there = np.array(found, dtype=np.float64).reshape(-1, 2).T
    return Optimism(budgets, by, there, there - by, len(chosen))


def _best_of_k(chosen: Array, told: Array, k: int) -> tuple[float, float]:
    """Return the expected scores of the best of k of configurations sorted by `chosen`."""
    weights = min_weights(len(chosen), k)
    group = stats.rankdata(chosen, method="dense") - 1
    shared = (np.bincount(group, weights) / np.bincount(group))[group]
    used = np.isfinite(chosen) & (shared > 0)
    if not used.any():
        return np.nan, np.nan
    share = shared[used] / shared[used].sum()
    return float(share @ chosen[used]), float(share @ told[used])


def seed_optimism(scores: ArrayLike, ks: ArrayLike) -> Optimism:
    """Return how much a configuration chosen by one seed loses over the other seeds.

    The best of k is chosen by one seed and told by the mean of the others; exact, and the mean
    over every seed taking the part of the first.

    Args:
        scores: (configs, seeds), lower is better, +inf for a failure; 2 seeds or more.
        ks: Budgets in configurations; one number will do.

    Raises:
        ValueError: There are fewer than 2 seeds, a score is NaN, or a budget is out of range.
    """
    table = checked_scores(scores)
    if table.ndim != 2 or table.shape[1] < 2:
        raise ValueError(f"scores must be configs by 2 seeds or more, got shape {table.shape}")
    found = [
        optimism_of_choosing(table[:, seed], np.delete(table, seed, axis=1).mean(axis=1), ks)
        for seed in range(table.shape[1])
    ]
    by = np.mean([one.chosen_on for one in found], axis=0)
    there = np.mean([one.told_on for one in found], axis=0)
    return Optimism(found[0].ks, by, there, there - by, len(table))
