from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import linalg

from ganstudy.measure import metrics
from ganstudy.measure.metrics import METRICS

NAMES = [name for name in METRICS.names() if METRICS.get(name).reads == "features"]


def sample(n: int, d: int = 4, seed: int = 0, shift: float = 0.0, scale: float = 1.0):
    return np.random.default_rng(seed).normal(size=(n, d)) * scale + shift


def reference_frechet(generated, real):
    """The formula with scipy's matrix square root, as the reference implementations compute it."""
    c_g, c_r = np.cov(generated, rowvar=False), np.cov(real, rowvar=False)
    root = linalg.sqrtm(c_g @ c_r)
    shift = generated.mean(0) - real.mean(0)
    return shift @ shift + np.trace(c_g) + np.trace(c_r) - 2 * np.trace(root).real


@pytest.mark.parametrize(("n", "d"), [(50, 3), (200, 64), (1000, 20)])
def test_frechet_agrees_with_the_matrix_square_root(n, d):
    generated, real = sample(n, d, 0, 0.3, 1.4), sample(n, d, 1)
    traces = np.trace(np.cov(generated.T)) + np.trace(np.cov(real.T))
    expected = reference_frechet(generated, real)
    found = metrics.frechet_distance(generated, real)
    assert found == pytest.approx(expected, abs=1e-6 * traces)


@pytest.mark.parametrize("kind", ["fewer rows than features", "duplicated rows", "constant"])
def test_frechet_of_singular_covariances(kind):
    rng = np.random.default_rng(0)
    generated, real = sample(40, 60, 0), sample(45, 60, 1)
    if kind == "duplicated rows":
        generated = np.repeat(generated[:5], 8, axis=0)
    if kind == "constant":
        generated, real = generated * 1.0, real * 1.0
        generated[:, 7], real[:, 7] = 2.0, 2.0
    # The independent way: a root of each covariance from its factor, nuclear norm of the product.
    factors = [(x - x.mean(0)) / math.sqrt(len(x) - 1) for x in (generated, real)]
    nuclear = np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum()
    shift = generated.mean(0) - real.mean(0)
    traces = sum((f**2).sum() for f in factors)
    found = metrics.frechet_distance(generated, real)
    assert found == pytest.approx(shift @ shift + traces - 2 * nuclear, abs=1e-6 * traces)
    shuffled = rng.permutation(generated)
    assert metrics.frechet_distance(shuffled, real) == pytest.approx(found, abs=1e-8 * traces)


def test_frechet_of_a_shift_is_its_square():
    x = sample(500)
    assert metrics.frechet_distance(x + 3.0, x) == pytest.approx(4 * 9.0, rel=1e-9)


def test_frechet_of_a_scale_is_known():
    # N(0, C) against N(0, s^2 C): (s - 1)^2 tr C.
    x = sample(500)
    x -= x.mean(0)
    trace = np.trace(np.cov(x, rowvar=False))
    assert metrics.frechet_distance(2 * x, x) == pytest.approx(trace, rel=1e-9)


def test_frechet_standard_error_matches_the_spread_over_repeats():
    real = sample(2000, 4, 99)
    scores = [METRICS.build("frechet_distance")(sample(1000, 4, s, 1.0), real) for s in range(200)]
    spread = np.std([s.value for s in scores], ddof=1)
    told = np.sqrt(np.mean([s.standard_error**2 for s in scores]))
    # Blocks of a fifth have some more spread than a fifth's share: within a third.
    assert told == pytest.approx(spread, rel=1 / 3)


def test_kernel_distance_agrees_with_the_double_sum():
    x, y = sample(12, 3, 0, 0.2), sample(9, 3, 1)

    def k(a, b):
        return (a @ b / 3 + 1) ** 3

    xx = np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    yy = np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    xy = np.mean([k(a, b) for a in x for b in y])
    score = metrics.kernel_distance(x, y)
    assert score.value == pytest.approx(xx + yy - 2 * xy, rel=1e-12)
    without_x = [metrics.kernel_distance(np.delete(x, i, 0), y).value for i in range(12)]
    without_y = [metrics.kernel_distance(x, np.delete(y, i, 0)).value for i in range(9)]
    jackknife = 11 / 12 * np.sum((without_x - np.mean(without_x)) ** 2)
    jackknife += 8 / 9 * np.sum((without_y - np.mean(without_y)) ** 2)
    assert score.standard_error == pytest.approx(math.sqrt(jackknife), rel=1e-9)


def test_kernel_distance_is_unbiased_and_its_error_honest():
    scores = [
        metrics.kernel_distance(sample(60, 4, s, 0.5), sample(60, 4, s + 999)) for s in range(300)
    ]
    null = [metrics.kernel_distance(sample(60, 4, s), sample(60, 4, s + 999)) for s in range(300)]
    values = np.array([s.value for s in null])
    assert abs(values.mean()) < 4 * values.std() / math.sqrt(300)
    assert values.min() < 0
    spread = np.std([s.value for s in scores], ddof=1)
    assert np.mean([s.standard_error for s in scores]) == pytest.approx(spread, rel=0.25)


def test_precision_and_recall_by_hand():
    # Real balls have radius 1 around 0, 1, 2 (k = 1); generated balls have radius 10.
    real, generated = np.array([[0.0], [1.0], [2.0]]), np.array([[0.5], [10.5], [20.5]])
    precision, recall = metrics.precision_recall(generated, real, k=1)
    assert (precision, recall) == (1 / 3, 1.0)


def test_precision_falls_with_quality_and_recall_with_variety():
    real = sample(400)
    far = metrics.precision_recall(sample(400, seed=1, shift=5), real)
    narrow = metrics.precision_recall(sample(400, seed=1, scale=0.2), real)
    assert far[0] < 0.1
    assert narrow[0] > 0.9
    assert narrow[1] < 0.3


def test_coverage_of_two_samples_of_one_distribution():
    n, m, k = 300, 200, 5
    found = [
        metrics.density_coverage(sample(n, 4, s), sample(m, 4, s + 999), k)[1] for s in range(40)
    ]
    expected = 1 - math.prod((m - i) / (n + m - i) for i in range(1, k + 1))
    assert np.mean(found) == pytest.approx(expected, abs=0.01)


def test_diversity_is_scale_and_zero_for_a_constant():
    x = sample(100)
    assert metrics.diversity(3 * x, x) == pytest.approx(3)
    assert metrics.diversity(np.ones((50, 4)), x) == 0


@pytest.mark.parametrize("name", NAMES)
def test_contract(name):
    metric, x, y = METRICS.build(name), sample(200), sample(200, seed=1, shift=2.0)
    same, other = metric(x, x), metric(y, x)
    if metric.identity_value is not None:
        assert same.value == pytest.approx(metric.identity_value, abs=1e-9)
    if name != "diversity":  # a shift changes no spread
        assert (same.value < other.value) == (metric.direction == "minimize")
    order = np.random.default_rng(0).permutation(200)
    assert metric(y[order], x).value == pytest.approx(other.value, rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("bad", "rule"),
    [
        (np.full((20, 4), np.nan), "non-finite"),
        (np.full((20, 4), np.inf), "non-finite"),
        (np.ones((1, 4)), r"got shape \(1, 4\)"),
        (np.ones(20), r"got shape \(20,\)"),
        (np.ones((0, 4)), r"got shape \(0, 4\)"),
        (np.ones((20, 5)), "differ in d: 5 against 4"),
    ],
)
def test_bad_input_is_a_value_error(name, bad, rule):
    with pytest.raises(ValueError, match=rule):
        METRICS.build(name)(bad, sample(20))
