"""Shares with their intervals, and what makes trials fail: Firth's logistic regression."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special, stats

from analysis.statistics.estimate import CONFIDENCE, Array, Estimate

MOST_STEPS = 200


def rate(successes: int, n: int, confidence: float = CONFIDENCE) -> Estimate:
    """Return a share with its interval: Clopper-Pearson below n = 50, Wilson from there on.

    Wilson's is the one with continuity correction (Newcombe 1998, method 4): the plain one covers
    as little as 0.84 of shares near 0 and 1. NaN without an interval where n is 0.
    """
    if n == 0:
        return Estimate(math.nan, None, None, 0)
    method: Literal["exact", "wilsoncc"] = "exact" if n < 50 else "wilsoncc"
    interval = stats.binomtest(successes, n).proportion_ci(confidence, method)
    return Estimate(successes / n, float(interval.low), float(interval.high), n)


class FirthFit(NamedTuple):
    """A logistic regression with Firth's penalty; one entry per name, the intercept first."""

    names: tuple[str, ...]
    coefficients: Array
    """Change of the log odds of failure per unit of the column."""
    low: Array
    high: Array
    p: Array
    """Of the penalised likelihood ratio test that the coefficient is 0; two-sided, unadjusted."""
    n: int
    failures: int


def firth_logistic(
    x: ArrayLike, failed: ArrayLike, names: Sequence[str], confidence: float = CONFIDENCE
) -> FirthFit:
    """Fit failure on the columns of `x` by logistic regression with Firth's penalty.

    The penalty, half the log determinant of the information matrix (Jeffreys' prior; Firth 1993),
    keeps the coefficients finite where a column separates failures from successes, which it
    often does in tens of trials, and takes off the first-order bias. Intervals and p come from
    the profile penalised likelihood (Heinze and Schemper 2002), since at separation Wald's are
    useless. An intercept is added; columns enter as they are given, in their own units.

    Args:
        x: (n, columns), finite.
        failed: (n,), true where the trial failed.
        names: One per column.
        confidence: Coverage of the intervals, nominally.

    Raises:
        ValueError: Shapes differ, a number is not finite, or columns are constant or collinear.
    """
    columns, y = np.asarray(x, dtype=np.float64), np.asarray(failed, dtype=np.float64)
    _check_design(columns, y, names)
    likelihood = _PenalisedLikelihood(np.column_stack([np.ones(len(y)), columns]), y)
    fits = [likelihood.root(j, confidence) for j in range(columns.shape[1] + 1)]
    low, high, p = np.array(fits).T
    return FirthFit(("intercept", *names), likelihood.best, low, high, p, len(y), int(y.sum()))


def _check_design(columns: Array, y: Array, names: Sequence[str]) -> None:
    if columns.ndim != 2 or columns.shape != (len(y), len(names)):
        raise ValueError(
            f"x must be {len(y)} trials by {len(names)} names, got shape {columns.shape}"
        )
    if not (np.isfinite(columns).all() and np.isin(y, (0, 1)).all()):
        raise ValueError("x must be finite, and failed true or false")
    spread = np.ptp(columns, axis=0) if len(y) else np.zeros(len(names))
    constant = [name for name, width in zip(names, spread, strict=True) if width == 0]
    if constant:
        raise ValueError(f"constant columns explain nothing, leave them out: {constant}")
    scaled = (columns - columns.mean(axis=0)) / spread
    rank = int(np.linalg.matrix_rank(scaled)) if len(names) else 0
    if rank < len(names) or len(y) <= len(names):
        raise ValueError(
            f"{len(names)} columns of rank {rank} over {len(y)} trials are collinear: "
            "leave out those that follow from others"
        )


class _PenalisedLikelihood:
    """The penalised log likelihood of a design, its maximum and its profiles."""

    def __init__(self, design: Array, y: Array) -> None:
        self.design, self.y = design, y
        self.best, self.top = self._maximise(np.zeros(design.shape[1]), None, 1e-13)
        self.spread = np.linalg.inv(self._parts(self.best)[2])

    def _parts(self, beta: Array) -> tuple[float, Array, Array]:
        """Return the penalised log likelihood, its gradient and the information matrix."""
        linear = self.design @ beta
        share = special.expit(linear)
        weights = share * (1 - share)
        information = (self.design.T * weights) @ self.design
        sign, log_det = np.linalg.slogdet(information)
        if sign <= 0 or not np.isfinite(log_det):  # so far out that every share is 0 or 1
            return -math.inf, np.zeros_like(beta), information
        value = float(self.y @ linear - np.logaddexp(0, linear).sum() + log_det / 2)
        inverse = np.linalg.pinv(information, hermitian=True)
        leverage = ((self.design @ inverse) * self.design).sum(axis=1) * weights
        return value, (self.y - share + leverage * (0.5 - share)) @ self.design, information

    def _maximise(self, start: Array, held: int | None, least_gain: float) -> tuple[Array, float]:
        """Return the maximum and its value, by Fisher scoring with halved steps.

        The penalty always is that of the whole design, also where a coefficient is held.
        """
        free = np.flatnonzero(np.arange(len(start)) != held)
        beta, parts = start, self._parts(start)
        for _ in range(MOST_STEPS):
            value, gradient, information = parts
            if not len(free) or value == -math.inf:
                break
            step = np.zeros_like(beta)
            # Far out the information vanishes along some directions: no step is made along them.
            step[free] = np.linalg.lstsq(information[np.ix_(free, free)], gradient[free])[0]
            if step @ gradient < least_gain:
                break
            found = self._climb(beta, step, value)
            if found is None:
                break
            beta, parts = found
        return beta, parts[0]

    def _climb(
        self, beta: Array, step: Array, value: float
    ) -> tuple[Array, tuple[float, Array, Array]] | None:
        """Return the end of the step, halved until it climbs; None where rounding forbids it."""
        for halvings in range(30):
            tried = beta + step / 2**halvings
            parts = self._parts(tried)
            if parts[0] >= value:
                return tried, parts
        return None

    def drop(self, j: int, at: float, near: Array) -> tuple[float, Array]:
        """Return twice how far the profile at `at` of coefficient `j` lies below the maximum.

        A profile may have several maxima where data are nearly separated: the search starts from
        a solution `near` by and from the quadratic around the maximum, and the higher end counts.
        """
        straight = self.best + self.spread[:, j] / self.spread[j, j] * (at - self.best[j])
        found = []
        for start in (straight, near.copy()):
            start[j] = at
            found.append(self._maximise(start, j, 1e-8))
        beta, value = max(found, key=lambda one: one[1])
        return max(0.0, 2 * (self.top - value)), beta

    def root(self, j: int, confidence: float) -> tuple[float, float, float]:
        """Return both ends of the interval of coefficient `j` and the p that it is 0."""
        limit, unit = float(stats.norm.ppf((1 + confidence) / 2)), math.sqrt(self.spread[j, j])

        def end(direction: float) -> float:
            def beyond(reach: float, near: Array) -> tuple[float, Array]:
                drop, beta = self.drop(j, self.best[j] + direction * reach, near)
                # The square root of the drop is nearly straight, which the search likes.
                return min(math.sqrt(drop), 1e3) - limit, beta

            inner, reach, near = 0.0, limit * unit, self.best
            while (step := beyond(reach, near))[0] < 0:
                inner, reach, near = reach, 2 * reach, step[1]
            root = optimize.brentq(lambda r: beyond(r, near)[0], inner, reach, xtol=1e-6 * unit)
            return float(self.best[j] + direction * root)

        p = float(stats.chi2.sf(self.drop(j, 0.0, self.best)[0], 1))
        return end(-1.0), end(1.0), p
