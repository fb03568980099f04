"""Variance components recovered, and seeds enough to tell a difference."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from analysis import statistics


def test_a_balanced_design_by_the_textbook():
    scores = [[9.0, 12.0, 10.0], [14.0, 13.0, 17.0], [8.0, 5.0, 7.0]]
    found = statistics.variance_components(scores)
    table = stats.f_oneway(*scores)
    within = np.mean([np.var(group, ddof=1) for group in scores])
    between = table.statistic * within
    assert found.seed == pytest.approx(within)
    assert found.config == pytest.approx((between - within) / 3)
    assert found.intraclass == pytest.approx((between - within) / (between + 2 * within))
    # The usual exact interval by F (Shrout and Fleiss 1979).
    low = table.statistic / stats.f.ppf(0.975, 2, 6)
    high = table.statistic / stats.f.ppf(0.025, 2, 6)
    assert found.intraclass_low == pytest.approx(max(0, (low - 1) / (low + 2)), abs=1e-6)
    assert found.intraclass_high == pytest.approx((high - 1) / (high + 2), abs=1e-6)
    assert (found.configs, found.runs) == (3, 9)


@pytest.mark.parametrize("balanced", [True, False])
def test_components_are_recovered_without_bias(balanced):
    rng = np.random.default_rng(0)
    sizes = [3] * 20 if balanced else [1, 2, 3, 4, 5] * 4
    config, seed, evaluation = 0.5, 0.2, 0.05
    found = []
    for _ in range(800):
        scores = [
            rng.normal(rng.normal(0, config**0.5), (seed + evaluation) ** 0.5, n) for n in sizes
        ]
        one = statistics.variance_components(scores, evaluation)
        found.append((one.config, one.seed))
        assert one.evaluation == evaluation
    # Errors: 0.18 / sqrt(800) and 0.06 / sqrt(800).
    assert np.mean(found, axis=0) == pytest.approx([config, seed], abs=0.02)


def test_components_are_never_below_zero():
    found = statistics.variance_components([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0]], 9.0)
    assert (found.config, found.seed, found.intraclass, found.intraclass_low) == (0, 0, 0, 0)
    still = statistics.variance_components([[1.0, 1.0], [1.0, 1.0]])
    assert math.isnan(still.intraclass)
    told = statistics.variance_components([[1.0, 1.0], [2.0, 2.0]])
    assert (told.intraclass, told.intraclass_low, told.intraclass_high) == (1, 1, 1)


@pytest.mark.parametrize(
    ("scores", "evaluation", "rule"),
    [
        ([[1.0, 2.0], [1.0]], None, "2 configurations or more have 2 seeds or more, got 1"),
        ([], None, "got 0"),
        ([[1.0, math.inf], [1.0, 2.0]], None, "finite"),
        ([[1.0, 2.0], [1.0, 2.0]], -1.0, "evaluation_variance"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(scores, evaluation, rule):
    with pytest.raises(ValueError, match=rule):
        statistics.variance_components(scores, evaluation)


def test_seeds_to_tell_have_the_power_they_promise():
    rng = np.random.default_rng(3)
    for difference in (0.1, 0.2, 0.3):
        (n,) = statistics.seeds_to_tell(0.1, [difference]).astype(int)
        power = []
        for runs in (n - 1, n):
            a = rng.normal(0, 0.1, (4000, runs))
            b = rng.normal(difference, 0.1, (4000, runs))
            power.append(np.mean(stats.ttest_ind(a, b, axis=1).pvalue < 0.05))
        # 4,000 repeats have an error of 0.006.
        assert power[0] < 0.82
        assert power[1] >= 0.785


def test_the_curve_of_seeds_falls_and_ends():
    curve = statistics.seeds_to_tell(0.1, [0.0, 0.01, -0.1, 1.0, 1e6])
    assert curve.tolist() == [math.inf, curve[1], 17.0, curve[3], 2.0]
    assert (np.diff(curve[1:]) <= 0).all()
    # The textbook's 17 per arm for a difference of one standard deviation, 80 % and 5 %.
    assert statistics.seeds_for_difference(0.1, 0.1) == 16
    assert statistics.seeds_to_tell(0.0, [0.1]).tolist() == [2.0]
    with pytest.raises(ValueError, match="finite"):
        statistics.seeds_to_tell(math.nan, [0.1])


def test_seeds_for_a_difference_are_nearly_enough():
    # Planned by the normal approximation, judged by a t test: a little below 0.8.
    n = statistics.seeds_for_difference(0.1, difference=0.1)
    rng = np.random.default_rng(3)
    a, b = rng.normal(1, 0.1, (4000, n)), rng.normal(1.1, 0.1, (4000, n))
    found = stats.ttest_ind(a, b, axis=1).pvalue < 0.05
    assert np.mean(found) == pytest.approx(0.785, abs=0.02)
