"""Exact estimators against brute force, intervals against simulation, with known truth."""

from __future__ import annotations

import itertools
import math
from statistics import median

import numpy as np
import pytest
from scipy import stats

from analysis import statistics

INF = math.inf


@pytest.mark.parametrize("values", [[3.0, 1.0, 2.0, 5.0, 4.0], [1.0, 1.0, 2.0, INF, INF, INF]])
def test_best_of_k_equals_brute_force(values):
    for k in range(1, len(values) + 1):
        minima = sorted(min(subset) for subset in itertools.combinations(values, k))
        assert statistics.median_best_of_k(values, k).value == median(minima)
        finite = [x for x in minima if x < INF]
        found = statistics.expected_best_of_k(values, k)
        assert found.value == pytest.approx(np.mean(finite))
        assert found.all_fail == pytest.approx(1 - len(finite) / len(minima))


def test_largest_k_with_a_two_sided_interval():
    found = {n: statistics.largest_k_with_interval(n) for n in (4, 12, 16, 50, 100)}
    assert found == {4: 0, 12: 2, 16: 3, 50: 9, 100: 18}


@pytest.mark.parametrize(("n", "failures"), [(12, 0.0), (50, 0.2)])
def test_intervals_of_the_median_best_of_k_cover(n, failures):
    rng = np.random.default_rng(0)
    repeats = 2000
    for k in {1, statistics.largest_k_with_interval(n)}:
        p = 1 - 2 ** (-1 / k)
        truth = stats.lognorm(0.7).ppf(p / (1 - failures))
        covered = 0
        for _ in range(repeats):
            scores = rng.lognormal(0, 0.7, n)
            scores[rng.random(n) < failures] = INF
            estimate = statistics.median_best_of_k(scores, k)
            assert estimate.has_interval
            covered += estimate.low <= truth <= estimate.high
        # Nominal 0.95, exact: conservative, up to 0.98; 2,000 repeats have an error of 0.005.
        assert covered / repeats >= 0.94


def test_expected_best_of_k_is_unbiased():
    rng = np.random.default_rng(1)
    found = [statistics.expected_best_of_k(rng.random(20), 5).value for _ in range(4000)]
    # The minimum of 5 uniforms has mean 1/6; 4,000 repeats have an error of about 0.001.
    assert np.mean(found) == pytest.approx(1 / 6, abs=0.004)


def test_all_failed_is_infinite_not_a_number_made_up():
    assert statistics.median_best_of_k([INF] * 4, 2).value == INF
    found = statistics.expected_best_of_k([INF] * 4, 2)
    assert math.isnan(found.value)
    assert found.all_fail == 1


@pytest.mark.parametrize(
    ("values", "k", "rule"), [([], 1, "no scores"), ([math.nan], 1, "NaN"), ([1.0], 2, "between")]
)
def test_bad_input(values, k, rule):
    with pytest.raises(ValueError, match=rule):
        statistics.median_best_of_k(values, k)


def test_rates_use_exact_then_wilson():
    few = statistics.rate(0, 4)
    assert (few.low, few.high) == (0.0, pytest.approx(1 - 0.025 ** (1 / 4)))
    many = statistics.rate(20, 100)
    z = stats.norm.ppf(0.975)
    centre = (0.2 + z**2 / 200) / (1 + z**2 / 100)
    half = z * math.sqrt(0.2 * 0.8 / 100 + z**2 / 40000) / (1 + z**2 / 100)
    assert many.low == pytest.approx(centre - half)
    assert many.high == pytest.approx(centre + half)
    assert math.isnan(statistics.rate(0, 0).value)


def test_sign_test_by_hand():
    wins, losses, p = statistics.sign_test([1, 1, 1, 1, INF], [2, 2, 2, INF, INF])
    assert (wins, losses) == (4, 0)
    assert p == pytest.approx(2 * 0.5**4)
    assert statistics.sign_test([INF], [INF])[2] == 1


def test_false_positives_stay_below_five_percent():
    rng = np.random.default_rng(2)
    hits = {"sign": 0, "rank": 0}
    for _ in range(2000):
        a, b = rng.normal(size=12), rng.normal(size=12)
        hits["sign"] += statistics.sign_test(a, b)[2] < 0.05
        hits["rank"] += statistics.rank_test(a, b)[2] < 0.05
    # The sign test is discrete and so conservative; 2,000 repeats have an error of 0.005.
    assert hits["sign"] / 2000 <= 0.05
    assert hits["rank"] / 2000 == pytest.approx(0.045, abs=0.015)


def test_rank_test_takes_failures_as_worst():
    wins, losses, p = statistics.rank_test([1, 2, 3, 4, 5], [INF] * 5)
    assert (wins, losses) == (25, 0)
    assert p < 0.05


def test_holm_by_hand():
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.5, 0.9]) == [1.0, 1.0]
    assert statistics.holm([]) == []


def test_seeds_for_a_difference_have_the_power_they_promise():
    rng = np.random.default_rng(3)
    n = statistics.seeds_for_difference(0.1, difference=0.1)
    found = [
        stats.ttest_ind(rng.normal(1, 0.1, n), rng.normal(1.1, 0.1, n)).pvalue < 0.05
        for _ in range(1500)
    ]
    # Planned by the normal approximation, judged by a t test: a little below 0.8.
    assert np.mean(found) == pytest.approx(0.79, abs=0.04)
