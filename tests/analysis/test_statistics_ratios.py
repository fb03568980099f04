"""Ratios of arms by hand, and equivalence found and refused at its stated level."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from analysis import statistics
from analysis.statistics import Estimate

INF = math.inf


def test_paired_ratio_by_hand():
    a = [1.0, 2.0, 3.0, 4.0, 5.0, INF, INF]
    found = statistics.paired_ratio(a, [2.0, 2.0, 2.0, 2.0, 2.0, 2.0, INF])
    assert found.value == pytest.approx(math.sqrt(1.5 * 2))
    # Six pairs: 0.5^6 = 0.016 lie on one side, so that the ends are the outermost ratios.
    assert (found.low, found.high, found.n) == (0.5, INF, 6)
    turned = statistics.paired_ratio([2.0, 2.0, 2.0, 2.0, 2.0, 2.0, INF], a)
    assert turned == pytest.approx((1 / found.value, 0, 2, 6))


def test_paired_ratio_of_failures():
    assert math.isnan(statistics.paired_ratio([INF], [INF]).value)
    assert statistics.paired_ratio([INF], [INF]).n == 0
    assert math.isnan(statistics.paired_ratio([INF, 1.0], [1.0, INF]).value)
    assert statistics.paired_ratio([INF] * 3, [1.0] * 3) == (INF, None, None, 3)


def test_ratio_of_best_of_k_by_its_parts():
    rng = np.random.default_rng(0)
    a, b = 2 * rng.lognormal(size=50), rng.lognormal(size=60)
    for k in (1, 4):
        found = statistics.ratio_of_best_of_k(a, b, k, 0.9)
        parts = [statistics.median_best_of_k(x, k, 0.95) for x in (a, b)]
        assert found.value == parts[0].value / parts[1].value
        assert found.low == parts[0].low / parts[1].high
        assert found.high == parts[0].high / parts[1].low
        assert found.n == 50
    assert not statistics.ratio_of_best_of_k(a, b, 20).has_interval


def test_ratio_of_best_of_k_of_failures():
    fine, failed = np.arange(1.0, 21), np.full(20, INF)
    assert statistics.ratio_of_best_of_k(failed, fine, 1)[:3] == (INF, INF, INF)
    assert statistics.ratio_of_best_of_k(fine, failed, 1)[:3] == (0, 0, 0)
    both = statistics.ratio_of_best_of_k(failed, failed, 1)
    assert math.isnan(both.value)
    assert (both.low, both.high) == (0, INF)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.95, 1.05, "equivalent"),
        (1 / 1.1, 1.1, "equivalent"),
        (0.95, 1.11, "cannot tell"),
        (1.05, 1.3, "cannot tell"),
        (1.2, 1.3, "different"),
        (0.5, 0.9, "different"),
        (0.0, INF, "cannot tell"),
        (None, None, "cannot tell"),
    ],
)
def test_equivalence_by_margin(low, high, verdict):
    assert statistics.equivalent(Estimate(1.0, low, high, 50), 0.1).verdict == verdict


def test_equivalence_needs_a_margin():
    with pytest.raises(ValueError, match="margin"):
        statistics.equivalent(Estimate(1.0, 0.9, 1.1, 50), 0.0)


def test_equivalence_keeps_its_level_and_has_power():
    # At the margin itself arms are not equivalent, and called so in 5 % at most.
    rng = np.random.default_rng(0)
    verdicts = {1.0: [], 1.2: [], 3.0: []}
    for factor, found in verdicts.items():
        for _ in range(400):
            a, b = factor * rng.lognormal(0, 0.3, 400), rng.lognormal(0, 0.3, 400)
            found.append(statistics.equivalent_best_of_k(a, b, 1, 0.2).verdict)
    assert np.mean(np.array(verdicts[1.0]) == "equivalent") > 0.95
    assert np.mean(np.array(verdicts[1.2]) == "equivalent") <= 0.05
    assert set(verdicts[3.0]) == {"different"}


def test_equivalence_by_pairs_keeps_its_level():
    rng = np.random.default_rng(1)
    found = []
    for _ in range(1000):
        common = rng.lognormal(0, 1, 60)
        ratio = statistics.paired_ratio(1.1 * common * rng.lognormal(0, 0.1, 60), common, 0.9)
        found.append(statistics.equivalent(ratio, 0.1).verdict == "equivalent")
    assert np.mean(found) <= 0.055


def test_ratios_over_data_sets():
    logs = np.log([1.1, 1.2, 0.9, 1.3])
    found = statistics.across_datasets(logs)
    interval = stats.ttest_1samp(logs, 0).confidence_interval()
    expected = np.exp([logs.mean(), interval.low, interval.high])
    assert found.ratio[:3] == pytest.approx(expected)
    assert (found.ratio.n, found.warning) == (4, None)


def test_few_data_sets_carry_a_warning():
    two = statistics.across_datasets([0.1, 0.2])
    assert two.warning.startswith("2 data sets")
    one = statistics.across_datasets([0.1])
    assert one.warning.startswith("1 data set ")
    assert not one.ratio.has_interval
    assert statistics.across_datasets([0.1, INF, 0.2]).ratio[:3] == (INF, None, None)
    assert math.isnan(statistics.across_datasets([-INF, INF, 0.2]).ratio.value)


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda: statistics.paired_ratio([1.0, -1.0], [1.0, 1.0]), "above 0, got -1"),
        (lambda: statistics.paired_ratio([1.0], [1.0, 1.0]), "as many"),
        (lambda: statistics.ratio_of_best_of_k([1.0, 0.0], [1.0, 1.0], 1), "above 0"),
        (lambda: statistics.across_datasets([]), "one or more"),
        (lambda: statistics.across_datasets([math.nan]), "NaN"),
    ],
)
def test_bad_input(call, rule):
    with pytest.raises(ValueError, match=rule):
        call()
