"""Tests of two samples by exchanging their labels: exact with few labellings, else drawn."""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from analysis.statistics.estimate import Array

EXACT = 20_000
"""Labellings up to which all of them are counted: two arms of 8 have 12,870."""
DRAWS = 9_999
"""Labellings that are drawn where there are more."""
SEED = 20_181_129
ROUNDED = 10
"""Decimals of a sum of scores: the order of summation must not break ties."""


def permutation_p(first: ArrayLike, second: ArrayLike) -> float:
    """Return the two-sided p of the sum of the first sample's scores, labels exchanged at random.

    All labellings are counted where there are at most 20,000, and the p is exact. Else 9,999 are
    drawn with a fixed seed and p = 2 (b + 1) / (B + 1) for the b of B on the nearer side, which is
    valid for any number of draws (Phipson and Smyth 2010, doi:10.2202/1544-6115.1585).

    Args:
        first: (m,) scores of the first sample, finite.
        second: (n,) scores of the second, on one scale with the first's.

    Returns:
        Twice the smaller one-sided p, at most 1.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if min(len(a), len(b)) == 1:  # which scipy refuses
        return _single_p(a, b)
    return _permutation_p(a.tobytes(), b.tobytes())


@functools.lru_cache(maxsize=1024)  # a report asks several times for the same test
def _permutation_p(first: bytes, second: bytes) -> float:
    a, b = (np.frombuffer(one, dtype=np.float64) for one in (first, second))
    labellings = math.comb(len(a) + len(b), len(a))
    found = stats.permutation_test(
        (a, b),
        _sum_of_first,
        vectorized=True,
        n_resamples=EXACT if labellings <= EXACT else DRAWS,
        batch=max(1, 1_000_000 // (len(a) + len(b))),
        rng=np.random.default_rng(SEED),
    )
    return float(found.pvalue)


def _single_p(first: Array, second: Array) -> float:
    """Return the exact p where one sample is a single score, which any of them could have been."""
    pooled = np.round(np.concatenate([first, second]), ROUNDED)
    single = pooled[0] if len(first) == 1 else pooled[-1]
    return float(min(1.0, 2 * min((pooled >= single).mean(), (pooled <= single).mean())))


def _sum_of_first(first: Array, second: Array, axis: int = -1) -> Array:
    del second  # the sum of all scores is the same for every labelling
    return np.round(first.sum(axis=axis), ROUNDED)


def smallest_permutation_p(scores: ArrayLike, m: int) -> float:
    """Return the smallest two-sided p of `permutation_p` that any labelling of `scores` has.

    With different scores 2 / C(n, m); more with ties, since several labellings then have the
    most extreme sum. No draws: what is drawn has a smallest p of its own, 2 / 10,000.

    Args:
        scores: (n,) scores of both samples.
        m: Size of the first sample, 0 to n.
    """
    ordered = np.sort(np.round(np.asarray(scores, dtype=np.float64), ROUNDED))
    if not 0 < m < len(ordered):
        return 1.0
    labellings = math.comb(len(ordered), m)
    # The m-th score may be one of several that are equal, of which any will do.
    ways = []
    for ranked in (ordered, ordered[::-1]):
        last = ranked[m - 1]
        equal, taken = int((ranked == last).sum()), int((ranked[:m] == last).sum())
        ways.append(math.comb(equal, taken))
    return min(1.0, 2 * min(ways) / labellings)


def smallest_sign_p(decided: int) -> float:
    """Return the smallest two-sided p that the sign test of so many unequal pairs can have."""
    return min(1.0, 2 * 0.5**decided)
