"""How much scores vary with the configuration, the seed and the evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from analysis.statistics.estimate import CONFIDENCE, Array


class VarianceComponents(NamedTuple):
    """Variances of a run's score, by where they come from."""

    config: float
    seed: float
    """Of training again with another seed; holds the evaluation's where that is not known."""
    evaluation: float | None
    """Of measuring the same generator again, as it was given."""
    intraclass: float
    """Share of the configuration in the variance of single runs; NaN where nothing varies."""
    intraclass_low: float
    intraclass_high: float
    configs: int
    runs: int


def variance_components(
    scores: Sequence[ArrayLike],
    evaluation_variance: float | None = None,
    confidence: float = CONFIDENCE,
) -> VarianceComponents:
    """Split the variance of scores into configuration, seed and evaluation.

    One-way random effects by the moments of the analysis of variance, for unequal numbers of
    seeds too; a component that comes out negative is 0. The interval of the intraclass
    correlation is Wald's (1940), exact under normality for any numbers of seeds, and equal to the
    usual one by F where they are all the same.

    Args:
        scores: One array of finite scores per configuration, an entry per seed. The scale is the
            caller's choice; Fréchet distances are nearer to normal on the log scale.
        evaluation_variance: Mean squared standard error of a score, on that scale.
        confidence: Coverage of the interval of the intraclass correlation.

    Raises:
        ValueError: A score is not finite, or fewer than 2 configurations have 2 seeds.
    """
    groups = [np.asarray(group, dtype=np.float64).ravel() for group in scores]
    groups = [group for group in groups if len(group)]
    _check_groups(groups, evaluation_variance)
    sizes = np.array([len(group) for group in groups], dtype=float)
    means = np.array([group.mean() for group in groups])
    runs, configs = int(sizes.sum()), len(groups)
    within = sum(float(((g - g.mean()) ** 2).sum()) for g in groups) / (runs - configs)
    between = float(sizes @ (means - sizes @ means / runs) ** 2) / (configs - 1)
    size = (runs - float(sizes @ sizes) / runs) / (configs - 1)
    config = max(0.0, (between - within) / size)
    low, high = _intraclass_interval(sizes, means, within, confidence)
    total = config + within
    return VarianceComponents(
        config=config,
        seed=max(0.0, within - (evaluation_variance or 0.0)),
        evaluation=evaluation_variance,
        intraclass=config / total if total > 0 else math.nan,
        intraclass_low=low,
        intraclass_high=high,
        configs=configs,
        runs=runs,
    )


def _check_groups(groups: list[Array], evaluation_variance: float | None) -> None:
    if not all(np.isfinite(group).all() for group in groups):
        raise ValueError("variance components need finite scores: tell failures by their rate")
    repeated = sum(len(group) >= 2 for group in groups)
    if repeated < 2:
        raise ValueError(
            "configuration and seed can be told apart only where 2 configurations or more "
            f"have 2 seeds or more, got {repeated}"
        )
    if evaluation_variance is not None and not 0 <= evaluation_variance < math.inf:
        raise ValueError(f"evaluation_variance must be 0 or more, got {evaluation_variance}")


def _intraclass_interval(
    sizes: Array, means: Array, within: float, confidence: float
) -> tuple[float, float]:
    """Return Wald's exact interval: the ratios of variances that the weighted F allows.

    At the true ratio r = config / within the means have variances proportional to r + 1 / n_i, so
    that their weighted spread over `within` follows F; it falls as r grows.
    """
    if within == 0:
        share = 1.0 if np.ptp(means) > 0 else math.nan
        return share, share
    freedom = len(sizes) - 1, int(sizes.sum()) - len(sizes)

    def spread(ratio: float) -> float:
        weights = 1 / (ratio + 1 / sizes)
        centre = weights @ means / weights.sum()
        return float(weights @ (means - centre) ** 2) / freedom[0] / within

    def ratio_at(level: float) -> float:
        wanted = float(stats.f.ppf(level, *freedom))
        if spread(0.0) <= wanted:
            return 0.0
        top = 1.0
        while spread(top) > wanted:
            top *= 2
        return float(optimize.brentq(lambda ratio: spread(ratio) - wanted, 0.0, top))

    ratios = ratio_at((1 + confidence) / 2), ratio_at((1 - confidence) / 2)
    return ratios[0] / (1 + ratios[0]), ratios[1] / (1 + ratios[1])


def seeds_for_difference(
    relative_sd: float, difference: float = 0.1, power: float = 0.8, confidence: float = CONFIDENCE
) -> int:
    """Return the seeds per arm at which a relative difference of two means shows.

    The normal approximation, for independent runs: 2 (z_a + z_b)^2 (sd / difference)^2, and never
    below 2, without which there is no spread to judge by.
    """
    z = stats.norm.ppf((1 + confidence) / 2) + stats.norm.ppf(power)
    return max(2, math.ceil(2 * (z * relative_sd / difference) ** 2))


def seeds_to_tell(
    seed_sd: float, differences: ArrayLike, power: float = 0.8, confidence: float = CONFIDENCE
) -> Array:
    """Return the seeds per arm that a two-sided t test needs to tell each of the differences.

    By the noncentral t distribution, so that it holds at a few seeds too, where the normal
    approximation of `seeds_for_difference` promises one or two too few.

    Args:
        seed_sd: Standard deviation over seeds, the same in both arms, in the differences' unit.
        differences: Differences of the two arms' means; the sign does not matter.
        power: Probability of telling them.
        confidence: One minus the test's level.

    Returns:
        Whole numbers from 2 up, as floats: +inf for a difference of 0.

    Raises:
        ValueError: `seed_sd` or a difference is not finite, or `seed_sd` is below 0.
    """
    gaps = np.abs(np.asarray(differences, dtype=np.float64))
    if not (0 <= seed_sd < math.inf and np.isfinite(gaps).all()):
        raise ValueError("seed_sd and differences must be finite, and seed_sd 0 or more")
    needed = [_seeds(seed_sd, float(gap), power, confidence) for gap in gaps.ravel()]
    return np.array(needed, dtype=np.float64).reshape(gaps.shape)


def _seeds(sd: float, difference: float, power: float, confidence: float) -> float:
    if difference == 0:
        return math.inf
    # The normal approximation is a lower bound, at most a few seeds away.
    n = seeds_for_difference(sd, difference, power, confidence)
    while sd > 0 and _power(n, difference / sd, confidence) < power:
        n += 1
    return float(n)


def _power(n: int, effect: float, confidence: float) -> float:
    freedom, shift = 2 * n - 2, effect * math.sqrt(n / 2)
    limit = stats.t.ppf((1 + confidence) / 2, freedom)
    return float(stats.nct.sf(limit, freedom, shift) + stats.nct.cdf(-limit, freedom, shift))
