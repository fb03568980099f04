"""Survival against a textbook's worked example and closed forms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from analysis import statistics

# Freireich et al. (1963), weeks of remission, as worked in Kleinbaum and Klein, Survival Analysis.
TREATED = [6, 6, 6, 7, 10, 13, 16, 22, 23, 6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
RELAPSED = [True] * 9 + [False] * 12
PLACEBO = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]


def test_the_textbook_curve():
    found = statistics.kaplan_meier(TREATED, RELAPSED)
    at = np.isin(found.times, [6, 7, 10, 13, 16, 22, 23])
    expected = [0.8571, 0.8067, 0.7529, 0.6902, 0.6275, 0.5378, 0.4482]
    assert found.survival[at] == pytest.approx(expected, abs=5e-5)
    assert found.at_risk[at].tolist() == [21, 17, 15, 12, 11, 7, 6]
    assert found.events[at].tolist() == [3, 1, 1, 1, 1, 1, 1]
    assert found.events.sum() == 9
    assert found.n == 21


def test_the_textbook_log_rank_test():
    arms = (TREATED, RELAPSED), (PLACEBO, [True] * 21)
    p = statistics.log_rank(*arms, method="asymptotic")
    # The textbook's chi-square is 16.793.
    assert p == pytest.approx(stats.chi2.sf(16.793, 1), rel=2e-3)
    # Of 9,999 drawn labellings none is as extreme.
    assert statistics.log_rank(*arms) == pytest.approx(2 / 10_000)


def test_without_censoring_the_interval_is_clopper_and_pearsons():
    times = np.arange(1.0, 13)
    found = statistics.kaplan_meier(times, [True] * 12)
    for i, lasting in enumerate(range(11, -1, -1)):
        share = statistics.rate(lasting, 12)
        assert found.survival[i] == pytest.approx(share.value)
        assert (found.low[i], found.high[i]) == pytest.approx((share.low, share.high), abs=1e-9)


def test_no_collapse_at_all():
    found = statistics.kaplan_meier([5.0, 5.0, 5.0], [False] * 3)
    assert found.survival.tolist() == [1.0]
    assert found.high.tolist() == [1.0]
    assert found.low.tolist() == [0.0]  # nothing lasted beyond: nothing is known
    lasting = statistics.kaplan_meier([1.0, 5.0, 5.0], [False] * 3)
    assert 0 < lasting.low[0] < 1
    assert statistics.log_rank(([5.0], [False]), ([4.0], [False])) == 1


def test_four_against_four_have_no_smaller_p_than_two_in_seventy():
    """The report that issue 17 names gave 0.0067, chi-square's."""
    early, late = ([1.0, 2.0, 3.0, 4.0], [True] * 4), ([9.0] * 4, [False] * 4)
    assert statistics.log_rank(early, late) == pytest.approx(2 / 70)
    assert statistics.smallest_log_rank_p(early, late) == pytest.approx(2 / 70)


def test_the_permutation_p_is_that_of_all_labellings_written_out():
    rng = np.random.default_rng(0)
    for m, n in ((3, 5), (4, 4), (1, 6), (2, 7)):
        # Ties, and censoring on both sides.
        ends, observed = np.ceil(rng.exponential(4, m + n)), rng.random(m + n) < 0.6
        statistic = [_observed_less_expected(ends, observed, set(first))
                     for first in itertools.combinations(range(m + n), m)]  # fmt: skip
        larger, smaller = (np.mean([sign * (s - statistic[0]) > -1e-9 for s in statistic])
                           for sign in (1, -1))  # fmt: skip
        arms = (ends[:m], observed[:m]), (ends[m:], observed[m:])
        assert statistics.log_rank(*arms) == pytest.approx(min(1, 2 * min(larger, smaller)))
        shares = [np.mean(np.isclose(statistic, end(statistic))) for end in (max, min)]
        assert statistics.smallest_log_rank_p(*arms) == pytest.approx(min(1, 2 * min(shares)))


def _observed_less_expected(ends, observed, first):
    """Return the log-rank numerator as a textbook has it: over the times of collapse."""
    mine = np.isin(np.arange(len(ends)), list(first))
    total = 0.0
    for time in np.unique(ends[observed]):
        died, at_risk = observed & (ends == time), ends >= time
        total += (died & mine).sum() - died.sum() * (at_risk & mine).sum() / at_risk.sum()
    return total


@pytest.mark.parametrize("n", [3, 4, 6])
def test_the_log_rank_test_keeps_its_level_in_few_trainings(n):
    """Also in the tail that Holm's adjustment over six pairs looks at.

    There chi-square's does not: p <= 0.05 / 6 in 1.6 % of pairs of arms of 6, in 2.3 % of 4.
    """
    rng = np.random.default_rng(0)

    def arm():
        ends = rng.exponential(1, n)
        return np.minimum(ends, 1), ends <= 1

    p = np.array([statistics.log_rank(arm(), arm()) for _ in range(300)])
    for level in (0.05, 0.05 / 6):
        assert (p <= level).mean() <= level + 3 * (level * (1 - level) / 300) ** 0.5


def test_the_log_rank_test_keeps_its_level_and_finds_an_effect():
    rng = np.random.default_rng(0)

    def arm(scale):
        ends = rng.exponential(scale, 100)
        return np.minimum(ends, 1), ends <= 1

    null = [statistics.log_rank(arm(1), arm(1)) < 0.05 for _ in range(400)]
    effect = [statistics.log_rank(arm(1), arm(3)) < 0.05 for _ in range(50)]
    assert np.mean(null) == pytest.approx(0.05, abs=3 * (0.05 * 0.95 / 400) ** 0.5)
    assert np.mean(effect) > 0.9


@pytest.mark.parametrize(
    ("times", "observed", "rule"),
    [([1.0], [True, False], "differ"), ([], [], "one or more"), ([np.nan], [True], "finite")],
)
def test_bad_input(times, observed, rule):
    with pytest.raises(ValueError, match=rule):
        statistics.kaplan_meier(times, observed)
