"""Shares, and Firth's regression: closed forms, published numbers, an independent maximum."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize, stats

from analysis import statistics

# Heinze and Schemper (2002), 79 cases: neovasculisation, pulsatility index, endometrium height.
LOW_GRADE = """
0,13,1.64 0,16,2.26 0,8,3.14 0,34,2.68 0,20,1.28 0,5,2.31 0,17,1.8 0,10,1.68 0,26,1.56 0,17,2.31
0,8,2.01 0,7,1.89 0,20,3.15 0,10,1.23 0,18,1.27 0,16,1.76 0,18,2 0,28,1.5 0,11,1.33 0,19,2.37
0,10,1.82 0,10,3.13 0,18,1.31 0,14,1.92 0,21,1.64 0,11,2.01 0,17,1.88 0,25,1.93 0,16,2.11
0,19,1.29 0,15,1.72 0,33,0.75 0,24,1.92 0,29,2.02 0,15,2.29 0,12,2.33 0,3,2.9 0,20,1.7 0,23,1.41
0,12,2.25 0,22,1.54 0,42,1.97 0,15,1.75 0,13,2.16 0,14,2.57 0,19,1.37 0,12,3.61 0,13,2.04
0,10,2.17
"""
HIGH_GRADE = """
0,8,2.64 0,29,0.88 0,12,1.27 0,20,1.37 1,38,0.97 1,22,1.14 1,7,0.88 1,25,0.91 1,15,0.58 0,7,0.97
0,48,1.84 0,12,1.11 0,19,1.61 0,2,1.18 1,22,1.44 1,40,1.18 1,5,0.93 1,0,1.17 0,21,1.19 0,15,1.06
0,12,1.69 1,49,0.27 0,6,1.84 0,5,1.3 0,17,0.96 1,11,1.01 1,21,0.98 0,5,0.35 1,19,1.02 0,33,0.85
"""


def cases(text):
    return [[float(x) for x in case.split(",")] for case in text.split()]


def test_rates_use_exact_then_wilson():
    few = statistics.rate(0, 4)
    assert (few.low, few.high) == (0.0, pytest.approx(1 - 0.025 ** (1 / 4)))
    many = statistics.rate(20, 100)
    z = stats.norm.ppf(0.975)
    low = (2 * 20 + z**2 - 1 - z * math.sqrt(z**2 - 2 - 1 / 100 + 4 * 0.2 * (80 + 1))) / (
        2 * (100 + z**2)
    )
    high = (2 * 20 + z**2 + 1 + z * math.sqrt(z**2 + 2 - 1 / 100 + 4 * 0.2 * (80 - 1))) / (
        2 * (100 + z**2)
    )
    assert (many.low, many.high) == (pytest.approx(low), pytest.approx(high))
    # Newcombe (1998), table I.
    published = statistics.rate(81, 263)
    assert (published.low, published.high) == pytest.approx((0.2535, 0.3682), abs=5e-5)
    assert math.isnan(statistics.rate(0, 0).value)


@pytest.mark.parametrize("n", [12, 49, 50, 100, 200, 900])
def test_rates_cover_at_every_share(n):
    shares = np.arange(1, 1000) / 1000
    found = [statistics.rate(x, n) for x in range(n + 1)]
    ends = np.array([(one.low, one.high) for one in found])
    assert all(one.low <= one.value <= one.high for one in found)
    assert ends == pytest.approx(1 - ends[::-1, ::-1], abs=1e-12)
    inside = (ends[:, :1] <= shares) & (shares <= ends[:, 1:])
    covered = (stats.binom.pmf(np.arange(n + 1)[:, None], n, shares) * inside).sum(axis=0)
    assert covered.min() >= 0.95
    assert covered.mean() <= 0.985


def test_firth_equals_half_a_case_in_every_cell_of_a_saturated_table():
    # 2 of 10 against 7 of 9; and 0 of 10 against 5 of 5, which separates.
    for (a, m), (b, n) in (((2, 10), (7, 9)), ((0, 10), (5, 5))):
        x = np.repeat([0.0, 1.0], [m, n])[:, None]
        failed = np.concatenate([np.arange(m) < a, np.arange(n) < b])
        fit = statistics.firth_logistic(x, failed, ["arm"])
        base = math.log((a + 0.5) / (m - a + 0.5))
        slope = math.log((b + 0.5) / (n - b + 0.5)) - base
        assert fit.coefficients == pytest.approx([base, slope], rel=1e-5)
        assert (fit.n, fit.failures) == (m + n, a + b)


def test_firth_gives_the_published_numbers_where_a_column_separates():
    low, high = cases(LOW_GRADE), cases(HIGH_GRADE)
    x, failed = np.array(low + high), np.repeat([False, True], [len(low), len(high)])
    fit = statistics.firth_logistic(x, failed, ["NV", "PI", "EH"])
    assert fit.names == ("intercept", "NV", "PI", "EH")
    # As logistf, the package of the paper's authors, prints them.
    coefficients = [3.77455951, 2.92927330, -0.03475175, -2.60416387]
    ends = [
        [1.0825371, 7.20928050],
        [0.6097244, 7.85463171],
        [-0.1244587, 0.04045547],
        [-4.3651832, -1.23272106],
    ]
    assert fit.coefficients == pytest.approx(coefficients, rel=1e-5)
    assert np.column_stack([fit.low, fit.high]) == pytest.approx(np.array(ends), rel=1e-4)


def penalised(beta, x, y):
    """Return minus the penalised log likelihood, from its definition."""
    share = 1 / (1 + np.exp(-x @ beta))
    information = sum(s * (1 - s) * np.outer(row, row) for s, row in zip(share, x, strict=True))
    fit = np.log(np.where(y == 1, share, 1 - share)).sum()
    return -fit - 0.5 * math.log(np.linalg.det(information))


def test_firth_equals_an_independent_maximum():
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.uniform(-5, -2, 40), rng.integers(0, 2, 40)])
    y = (rng.random(40) < 1 / (1 + np.exp(-2 * (x[:, 0] + 3)))).astype(float)
    fit = statistics.firth_logistic(x, y, ["lr", "norm"])
    design = np.column_stack([np.ones(40), x])
    options = {"xatol": 1e-9, "fatol": 1e-12, "maxiter": 10_000, "maxfev": 10_000}

    def maximum(start, *held):
        def value(free):
            return penalised(
                np.insert(free, [i for i, _ in held], [v for _, v in held]), design, y
            )

        return optimize.minimize(value, start, method="Nelder-Mead", options=options)

    best = maximum(np.zeros(3))
    assert fit.coefficients == pytest.approx(best.x, rel=1e-5)
    without = maximum(np.zeros(2), (1, 0.0))
    p = stats.chi2.sf(2 * (without.fun - best.fun), 1)
    assert fit.p[1] == pytest.approx(p, rel=1e-4)
    for end in (fit.low[1], fit.high[1]):
        drop = 2 * (maximum(fit.coefficients[[0, 2]], (1, end)).fun - best.fun)
        assert drop == pytest.approx(stats.chi2.ppf(0.95, 1), rel=1e-4)


def test_firth_follows_units():
    rng = np.random.default_rng(1)
    x, failed = rng.normal(size=(30, 2)), rng.random(30) < 0.4
    plain = statistics.firth_logistic(x, failed, ["a", "b"])
    scaled = statistics.firth_logistic(x * [1e-4, 1], failed, ["a", "b"])
    assert scaled.coefficients[1] == pytest.approx(1e4 * plain.coefficients[1], rel=1e-4)
    assert scaled.high[1] == pytest.approx(1e4 * plain.high[1], rel=1e-4)
    assert scaled.p == pytest.approx(plain.p, rel=1e-4)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_firth_stays_finite_where_all_or_none_failed(share):
    x = np.random.default_rng(2).normal(size=(20, 2))
    fit = statistics.firth_logistic(x, np.full(20, share), ["a", "b"])
    assert np.isfinite([fit.coefficients, fit.low, fit.high, fit.p]).all()
    assert (fit.p[1:] > 0.05).all()


def test_a_null_is_found_at_the_stated_rate_and_an_effect_found():
    rng = np.random.default_rng(3)
    found = np.zeros(2)
    for _ in range(120):
        x = rng.normal(size=(60, 2))
        failed = rng.random(60) < 1 / (1 + np.exp(1 - 1.5 * x[:, 0]))
        found += statistics.firth_logistic(x, failed, ["real", "idle"]).p[1:] < 0.05
    # 120 repeats have an error of 0.02 about 0.05; benchmarks/coverage.py has more.
    assert found[0] / 120 > 0.9
    assert found[1] / 120 <= 0.1


@pytest.mark.parametrize(
    ("x", "failed", "rule"),
    [
        (np.column_stack([np.arange(6), np.ones(6)]), [0, 1] * 3, r"constant.*\['b'\]"),
        (np.column_stack([np.arange(6), 2 * np.arange(6) + 1]), [0, 1] * 3, "collinear"),
        (np.random.default_rng(0).normal(size=(2, 2)), [0, 1], "collinear"),
        (np.full((6, 2), math.nan), [0, 1] * 3, "finite"),
        (np.zeros((6, 3)), [0, 1] * 3, "shape"),
        (np.zeros((0, 2)), [], "constant"),
    ],
)
def test_designs_that_tell_nothing_are_refused(x, failed, rule):
    with pytest.raises(ValueError, match=rule):
        statistics.firth_logistic(x, failed, ["a", "b"])


def test_profiles_far_out_where_the_information_vanishes_do_not_break():
    """One of some thousand simulated studies: nearly separated, the search runs far out."""
    x = [[-0.51, 1, 0.866], [0.315, 1, 0.883], [-0.628, 1, 0.404], [0.537, 1, 0.662],
         [-1.97, 0, 0.744], [-2.02, 1, 0.995], [1.506, 0, 0.13], [1.466, 0, 0.855],
         [0.349, 0, 0.335], [0.928, 1, 0.6], [0.353, 0, 0.793], [0.974, 1, 0.382],
         [0.143, 0, 0.373], [0.971, 0, 0.841], [0.966, 0, 0.851], [-0.46, 0, 0.764]]  # fmt: skip
    failed = [0, 0, 0, 0, 0, 0, 1, 1, 0, 1, 0, 1, 0, 0, 0, 0]
    found = statistics.firth_logistic(x, failed, ["a", "b", "c"])
    assert np.isfinite(found.coefficients).all()
    assert (found.low < found.coefficients).all()
    assert (found.coefficients < found.high).all()
