"""Tests by hand, their levels by simulation, and how often and by how much one arm is better."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from analysis import statistics

INF = math.inf


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


def test_rank_test_counts_every_pair():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, 20) / 2, np.append(rng.integers(0, 5, 9), [INF, INF])
    pairs = list(itertools.product(a, b))
    wins, losses, _ = statistics.rank_test(a, b)
    assert (wins, losses) == (sum(x < y for x, y in pairs), sum(x > y for x, y in pairs))


def test_three_runs_an_arm_have_no_interval_of_how_often_one_wins():
    """One of two equal arms beats the other throughout in a tenth of studies of 3 against 3."""
    found = statistics.probability_of_improvement([1, 2, 3], [4, 5, 6])
    assert found == (1.0, None, None, 3)
    assert statistics.rank_test([1, 2, 3], [4, 5, 6])[2] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("first", "second"),
    [([1, 2, INF, INF], [1, INF, INF, INF]), ([1, 1, 2], [2, 3, 3, 3]), ([1], [2, 2, 3])],
)
def test_the_rank_test_counts_all_labellings_where_scores_tie(first, second):
    ranks = stats.rankdata([*first, *second])
    sums = [sum(ranks[list(mine)])
            for mine in itertools.combinations(range(len(ranks)), len(first))]  # fmt: skip
    sides = [np.mean([s <= sums[0] for s in sums]), np.mean([s >= sums[0] for s in sums])]
    assert statistics.rank_test(first, second)[2] == pytest.approx(min(1, 2 * min(sides)))
    shares = [np.mean(np.isclose(sums, end(sums))) for end in (max, min)]
    assert statistics.smallest_rank_p(first, second) == pytest.approx(min(1, 2 * min(shares)))


def test_what_cannot_be_significant_after_holm():
    assert statistics.can_be_significant([2 / 70] * 6) == [False] * 6
    assert statistics.can_be_significant([2 / 70]) == [True]
    assert statistics.can_be_significant([0.001, 0.03, 0.3]) == [True, False, False]
    assert statistics.can_be_significant([]) == []


def test_holm_by_hand():
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.5, 0.9]) == [1.0, 1.0]
    assert statistics.holm([]) == []


def test_holm_keeps_the_level_over_a_family_of_nulls():
    rng = np.random.default_rng(0)
    found = [min(statistics.holm(rng.random(28).tolist())) < 0.05 for _ in range(2000)]
    assert np.mean(found) <= 0.06


@pytest.mark.parametrize(
    ("a", "b"),
    [([1.0, 2.0, 5.0, 6.0], [2.0, 3.0, 4.0, INF]), ([INF, 1.0, 2.0, 2.0], [INF] * 4)],
)
def test_probability_of_improvement_equals_brute_force(a, b):
    pairs = [(x < y) + (x == y) / 2 for x in a for y in b]
    found = statistics.probability_of_improvement(a, b)
    turned = statistics.probability_of_improvement(b, a)
    assert found.value == pytest.approx(np.mean(pairs))
    assert found.low <= found.value <= found.high
    assert (turned.low, turned.high) == pytest.approx((1 - found.high, 1 - found.low))
    assert found.n == min(len(a), len(b))


def test_probability_of_improvement_where_one_arm_beats_the_other_throughout():
    found = statistics.probability_of_improvement(np.arange(12.0), np.arange(12.0) + 50)
    assert (found.value, found.high) == (1, 1)
    # Newcombe's equation at 1: 1 - p = z^2 p (1 + 11 ((1 - p) / (2 - p) + p / (1 + p))) / 144.
    p, z = found.low, stats.norm.ppf(0.975)
    assert 0.75 < p < 0.9
    variance = p * (1 + 11 * ((1 - p) / (2 - p) + p / (1 + p))) / 144
    assert 1 - p == pytest.approx(z**2 * variance)


def test_paired_probability_of_improvement():
    found = statistics.probability_of_improvement([1, 1, 1, INF], [2, 2, 1, INF], paired=True)
    assert found.value == (2 + 2 / 2) / 4
    wins = statistics.probability_of_improvement([1] * 9, [2] * 8 + [0], paired=True)
    share = statistics.rate(8, 9)
    assert wins == pytest.approx(share)
    with pytest.raises(ValueError, match="as many"):
        statistics.probability_of_improvement([1, 2], [1], paired=True)


def test_interquartile_mean_by_hand():
    rng = np.random.default_rng(0)
    found = statistics.interquartile_mean([1, 2, 3, 4, 5, 6, 7, INF], rng)
    assert found.value == np.mean([3, 4, 5, 6])
    assert found.low < found.value < found.high == INF
    failing = statistics.interquartile_mean([1, 2, 3, INF, INF, INF, INF, INF], rng)
    assert failing.value == INF
    assert failing.high == INF
    assert statistics.interquartile_mean([1.0, 2.0], rng) == (1.5, None, None, 2)
    same = statistics.interquartile_mean([2.0] * 9, rng)
    assert (same.value, same.low, same.high) == (2, 2, 2)


def test_interquartile_mean_depends_on_its_generator_alone():
    scores = np.random.default_rng(1).lognormal(size=20)
    found = []
    for seed in (1, 2):
        np.random.seed(seed)  # noqa: NPY002 - to show that it changes nothing
        found.append(statistics.interquartile_mean(scores, np.random.default_rng(5)))
    assert found[0] == found[1]
    assert found[0] != statistics.interquartile_mean(scores, np.random.default_rng(6))


def test_the_profile_is_the_share_at_or_below():
    found = statistics.performance_profile([1.0, 2.0, 2.0, INF], [0.5, 2.0, 100.0])
    assert found.share.tolist() == [0, 0.75, 0.75]
    half = math.sqrt(math.log(40) / 8)
    assert found.low == pytest.approx(np.clip(found.share - half, 0, 1))
    assert found.high == pytest.approx(np.clip(found.share + half, 0, 1))
    with pytest.raises(ValueError, match="finite"):
        statistics.performance_profile([1.0], [INF])
