"""The best of k: exact against brute force and whole numbers, fast at any n."""

from __future__ import annotations

import itertools
import math
import time
from fractions import Fraction
from statistics import median

import numpy as np
import pytest

from analysis import statistics
from analysis.statistics.best_of_k import min_exceeds, min_weights

INF = math.inf


@pytest.mark.parametrize(
    "values",
    [[3.0, 1.0, 2.0, 5.0, 4.0], [1.0, 1.0, 2.0, INF, INF, INF], [2.0, INF, INF, INF], [7.0]],
)
def test_best_of_k_equals_brute_force(values):
    for k in range(1, len(values) + 1):
        minima = sorted(min(subset) for subset in itertools.combinations(values, k))
        assert statistics.median_best_of_k(values, k).value == median(minima)
        finite = [x for x in minima if x < INF]
        found = statistics.expected_best_of_k(values, k)
        assert found.value == pytest.approx(np.mean(finite), rel=1e-12)
        assert found.all_fail == pytest.approx(1 - len(finite) / len(minima), abs=1e-12)
        assert found.n == len(values)


@pytest.mark.parametrize(("n", "k"), [(10_000, 1), (10_000, 137), (10_000, 9_999), (61, 30)])
def test_weights_equal_whole_numbers(n, k):
    exceeds, weights, total = min_exceeds(n, k), min_weights(n, k), math.comb(n, k)
    for i in {1, 2, 7, 20, n // 3}:
        share = Fraction(math.comb(n - i, k), total)
        if share > Fraction(1, 10**200):
            assert exceeds[i] == pytest.approx(float(share), rel=1e-12)
        share = Fraction(math.comb(n - i, k - 1), total)
        if share > Fraction(1, 10**200):
            assert weights[i - 1] == pytest.approx(float(share), rel=1e-12)
    assert weights.sum() == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("n", [2, 3, 7, 8, 29, 64])
def test_the_median_minimum_has_the_rank_that_whole_numbers_give(n):
    for k in range(1, n + 1):
        total, ranks = math.comb(n, k), np.arange(1.0, n + 1)
        i = next(i for i in range(1, n + 1) if 2 * math.comb(n - i, k) <= total)
        expected = i + 0.5 if 2 * math.comb(n - i, k) == total else float(i)
        assert statistics.median_best_of_k(ranks, k).value == expected


def test_largest_k_with_a_two_sided_interval():
    found = {n: statistics.largest_k_with_interval(n) for n in (4, 12, 16, 50, 100)}
    assert found == {4: 0, 12: 2, 16: 3, 50: 9, 100: 18}


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.975])
def test_the_largest_k_is_where_the_interval_ends(confidence):
    for n in range(1, 80):
        k = statistics.largest_k_with_interval(n, confidence)
        ranks = np.arange(1.0, n + 1)
        if k:
            assert statistics.median_best_of_k(ranks, k, confidence).has_interval
        if k < n:
            assert not statistics.median_best_of_k(ranks, k + 1, confidence).has_interval


def test_expected_best_of_k_is_unbiased():
    rng = np.random.default_rng(1)
    found = [statistics.expected_best_of_k(rng.random(20), 5).value for _ in range(4000)]
    # The minimum of 5 uniforms has mean 1/6; 4,000 repeats have an error of about 0.001.
    assert np.mean(found) == pytest.approx(1 / 6, abs=0.004)


def test_all_failed_is_no_number_made_up():
    assert statistics.median_best_of_k([INF] * 4, 2).value == INF
    found = statistics.expected_best_of_k([INF] * 4, 2)
    assert math.isnan(found.value)
    assert found.all_fail == 1


@pytest.mark.parametrize("function", [statistics.median_best_of_k, statistics.expected_best_of_k])
@pytest.mark.parametrize(
    ("values", "k", "rule"),
    [([], 1, "no scores"), ([math.nan], 1, "NaN"), ([1.0], 2, "between"), ([1.0], 0, "between")],
)
def test_bad_input(function, values, k, rule):
    with pytest.raises(ValueError, match=rule):
        function(values, k)


def test_ten_thousand_scores_take_milliseconds():
    values = np.random.default_rng(0).lognormal(size=10_000)
    started = time.process_time()  # of this process alone, whatever else runs
    for k in statistics.budget_grid(10_000):
        statistics.median_best_of_k(values, k)
        statistics.expected_best_of_k(values, k)
    # 60 budgets, about 40 ms on an idle machine; by whole numbers it took minutes.
    assert time.process_time() - started < 3


@pytest.mark.parametrize("n", [1, 5, 60, 61, 100, 10_000])
def test_the_grid_of_budgets(n):
    grid = statistics.budget_grid(n)
    assert grid == sorted(set(grid))
    assert len(grid) <= 60
    assert grid[: min(n, 30)] == list(range(1, min(n, 30) + 1))
    assert grid[-1] == n
    assert statistics.largest_k_with_interval(n) in {0, *grid}


def test_the_lead_of_identical_arms_by_hand():
    # Two values, two arms, k = 2: an arm's best is 1 with 3/4, and 2 with 1/4.
    rng = np.random.default_rng(0)
    lead = statistics.lead_of_identical_arms([1.0, 2.0], 2, 2, rng, draws=40_000)
    assert set(np.unique(lead.second)) == {1.0, 2.0}
    assert (lead.second == lead.worst).all()
    # Its error is 0.0025.
    assert np.mean(lead.second == 2) == pytest.approx(2 * 3 / 4 * 1 / 4, abs=0.01)


def test_the_lead_of_identical_arms_equals_drawing_them():
    rng = np.random.default_rng(0)
    values = np.append(rng.lognormal(0, 0.7, 40), [INF] * 10)
    lead = statistics.lead_of_identical_arms(values, 4, 3, rng, draws=40_000)
    best = np.sort(rng.choice(values, (40_000, 4, 3)).min(axis=2), axis=1)
    for found, drawn in ((lead.second, best[:, 1]), (lead.worst, best[:, 3])):
        levels = np.quantile(drawn / best[:, 0], [0.25, 0.5, 0.75, 0.95])
        assert np.quantile(found, [0.25, 0.5, 0.75, 0.95]) == pytest.approx(levels, rel=0.04)


def test_the_lead_where_all_fail_is_no_number():
    lead = statistics.lead_of_identical_arms([INF], 3, 2, np.random.default_rng(0), draws=5)
    assert np.isnan(lead.second).all()


def test_leads_need_ratios_and_arms():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="above 0"):
        statistics.lead_of_identical_arms([-1.0, 2.0], 2, 1, rng)
    with pytest.raises(ValueError, match="2 arms"):
        statistics.lead_of_identical_arms([1.0, 2.0], 1, 1, rng)
