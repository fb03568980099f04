from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from ganstudy.measure import metrics
from ganstudy.measure.metrics import METRICS, Sample, kernel
from tests.measure.metrics.samples import sample


def cubic(a, b):
    return (a @ b / len(a) + 1) ** 3


def test_kernel_distance_agrees_with_the_double_sum():
    x, y = sample(12, 3, 0, 0.2), sample(9, 3, 1)
    xx = np.mean([cubic(a, b) for a, b in itertools.permutations(x, 2)])
    yy = np.mean([cubic(a, b) for a, b in itertools.permutations(y, 2)])
    xy = np.mean([cubic(a, b) for a, b in itertools.product(x, y)])
    score = metrics.kernel_distance(x, y)
    assert score.value == pytest.approx(xx + yy - 2 * xy, rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(40, 40), (300, 300)])
def test_kernel_distance_agrees_with_torchmetrics(n, m):
    x, y = sample(n, 16, 0, 0.2), sample(m, 16, 1)
    expected = float(poly_mmd(torch.from_numpy(x), torch.from_numpy(y)))
    assert metrics.kernel_distance(x, y).value == pytest.approx(expected, rel=1e-9)


def additive(k, pairs):
    """The additive least-squares fit of a kernel over `pairs` of (row, column), by brute force."""
    n, m = k.shape
    design = np.zeros((len(pairs), 1 + n + m))
    for at, (i, j) in enumerate(pairs):
        design[at, [0, 1 + i, 1 + n + j]] = 1
    wanted = np.array([k[i, j] for i, j in pairs])
    left = wanted - design @ np.linalg.lstsq(design, wanted)[0]
    return left @ left


def test_what_is_left_of_a_kernel_is_the_residual_of_the_additive_fit():
    x, y = sample(9, 3, 0, 0.2), sample(7, 3, 1)
    k = kernel.cubic_kernel(x, y)
    parts = kernel._parts_between(kernel._between(x, y))
    left = additive(k, list(itertools.product(range(9), range(7))))
    assert parts.rest == pytest.approx(left / (8 * 6), rel=1e-9)
    np.testing.assert_allclose(parts.rows, k.mean(axis=1) - k.mean(), atol=1e-12)
    np.testing.assert_allclose(parts.columns, k.mean(axis=0) - k.mean(), atol=1e-12)
    # A symmetric table has the same fit by rows as by columns; every pair counts twice.
    k, pairs = kernel.cubic_kernel(x, x), list(itertools.permutations(range(9), 2))
    parts = kernel._parts_within(kernel._within(x))
    assert parts.rest == pytest.approx(additive(k, pairs) / 2 / (9 * 6 / 2), rel=1e-9)


def test_blocks_change_nothing(monkeypatch):
    x, y = sample(50, 3, 0, 0.2), sample(37, 3, 1)
    whole = metrics.kernel_distance(x, y)
    monkeypatch.setattr(kernel, "ROWS", 8)
    assert metrics.kernel_distance(x, y) == pytest.approx(whole, rel=1e-10)


def test_the_variance_is_that_of_known_moments():
    # Single standard normal numbers, k = x^3 y^3 + 3 x^2 y^2 + 3 x y + 1. Doubly centred, with
    # x^3 = H_3 + 3 H_1 and x^2 = H_2 + 1: H_3 H_3' + 3 H_3 H_1' + 3 H_1 H_3' + 12 H_1 H_1' +
    # 3 H_2 H_2', of mean square 36 + 54 + 54 + 144 + 36. Equal distributions: no first order.
    n, m, rest = 30, 20, 324
    expected = rest * (2 / (n * (n - 1)) + 2 / (m * (m - 1)) + 4 / (n * m))
    first, second, values = [], [], []
    for s in range(1000):
        x, y = sample(n, 1, s), sample(m, 1, s + 9999)
        within = [kernel._parts_within(kernel._within(a)) for a in (x, y)]
        parts = (*within, kernel._parts_between(kernel._between(x, y)))
        first.append(kernel._first_order(*parts))
        second.append(kernel._second_order(*parts))
        values.append(metrics.kernel_distance(x, y).value)
    # Of sixth powers of normal numbers: known to some 10 % after 1,000 draws.
    assert np.mean(second) == pytest.approx(expected, rel=0.2)
    assert np.var(values, ddof=1) == pytest.approx(expected, rel=0.3)
    assert abs(np.mean(first)) < 4 * np.std(first) / math.sqrt(1000)


@pytest.mark.parametrize(
    ("n", "m", "d", "shift", "low", "high"),
    [
        # Two-sided: a spread of 300 draws is known to 4 %, of heavy tails to less.
        (60, 60, 4, 0.5, 0.8, 1.15),
        (100, 250, 16, 0.5, 0.85, 1.15),
        (200, 200, 64, 0.1, 0.85, 1.15),
        # Equal distributions: what is negative counts as 0, which tells too much.
        (100, 250, 16, 0.0, 0.9, 1.35),
        (200, 200, 64, 0.0, 0.9, 1.3),
    ],
)
def test_kernel_distance_is_unbiased_and_its_error_honest(n, m, d, shift, low, high):
    scores = [
        metrics.kernel_distance(sample(n, d, s, shift), sample(m, d, s + 999)) for s in range(300)
    ]
    values = np.array([s.value for s in scores])
    spread = values.std(ddof=1)
    if shift == 0:
        assert abs(values.mean()) < 4 * spread / math.sqrt(300)
        assert values.min() < 0
    told = math.sqrt(np.mean([s.standard_error**2 for s in scores]))
    assert low < told / spread < high


def test_constant_features_have_no_spread():
    score = metrics.kernel_distance(np.ones((20, 3)), np.full((30, 3), 2.0))
    assert score.value == pytest.approx(2**3 + 5**3 - 2 * 3**3)
    assert score.standard_error == pytest.approx(0, abs=1e-6)


def test_kernel_distance_needs_four_rows():
    with pytest.raises(ValueError, match=r"n >= 4, d\), got shape \(3, 2\)"):
        metrics.kernel_distance(sample(3, 2), sample(20, 2))
    with pytest.raises(ValueError, match="at least 4 samples"):
        METRICS.build("kernel_distance").check_size(3, 2)


def test_subsets_of_everything_are_the_unbiased_distance():
    x, y = sample(80, 5, 0, 0.3), sample(80, 5, 1)
    score = metrics.kernel_distance_subsets(x, y, subsets=7, subset_size=80)
    assert score.value == pytest.approx(metrics.kernel_distance(x, y).value, rel=1e-9)
    assert math.isnan(score.standard_error)


def test_a_subset_is_scored_as_by_torchmetrics(monkeypatch):
    x, y = sample(120, 5, 0, 0.3), sample(90, 5, 1)
    pairs, unbiased = [], kernel._unbiased

    def seen(a, b):
        pairs.append((a, b, unbiased(a, b)))
        return pairs[-1][2]

    monkeypatch.setattr(kernel, "_unbiased", seen)
    score = metrics.kernel_distance_subsets(x, y, subsets=6, subset_size=40)
    expected = [float(poly_mmd(torch.from_numpy(a), torch.from_numpy(b))) for a, b, _ in pairs]
    assert [value for *_, value in pairs] == pytest.approx(expected, rel=1e-9)
    assert score.value == pytest.approx(np.mean(expected), rel=1e-9)
    assert score.standard_error == pytest.approx(np.std(expected) / math.sqrt(6), rel=1e-9)
    for a, b, _ in pairs:
        assert len(np.unique(a, axis=0)) == len(np.unique(b, axis=0)) == 40


def test_subsets_are_as_right_as_the_whole_but_told_too_exact():
    scores, full = [], []
    for s in range(40):
        x, y = Sample(sample(300, 4, s, 0.3)), Sample(sample(300, 4, s + 999))
        scores.append(metrics.kernel_distance_subsets(x, y, subsets=60, subset_size=100))
        full.append(metrics.kernel_distance(x, y).value)
    values = np.array([score.value for score in scores])
    spread = values.std(ddof=1)
    assert values.mean() == pytest.approx(np.mean(full), abs=spread)
    told = math.sqrt(np.mean([score.standard_error**2 for score in scores]))
    # The whole's variance is a third of a subset's. Told is a 60th of that among subsets of one
    # sample, which lacks what they share: two thirds of a subset's.
    assert spread / told == pytest.approx(math.sqrt(60 * 100 / (300 - 100)), rel=0.25)


def test_fewer_samples_than_a_subset_are_refused():
    with pytest.raises(ValueError, match="subsets of 100 need as many real, got 60"):
        metrics.kernel_distance_subsets(sample(200), sample(60), subset_size=100)
    with pytest.raises(ValueError, match="needs the 1000 samples of a subset.*subset_size: 450"):
        METRICS.build("kernel_distance_subsets").check_size(900, 64)
    METRICS.build("kernel_distance_subsets").check_size(1000, 64)


@pytest.mark.parametrize("scale", [1e24, 1e27, 1e38])
def test_features_beyond_the_kernels_range_have_no_score(scale):
    x, y = (sample(20, seed=seed).astype(np.float32) * np.float32(scale) for seed in (0, 1))
    found = metrics.kernel_distance(x, y)
    assert math.isfinite(found.value) == math.isfinite(found.standard_error) == (scale < 1e25)
