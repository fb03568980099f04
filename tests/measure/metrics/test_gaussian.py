from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import linalg
from torchmetrics.image.fid import _compute_fid

from ganstudy.measure import metrics
from ganstudy.measure.metrics import METRICS, Sample
from ganstudy.measure.metrics import gaussian as ours
from tests.measure.metrics.samples import sample


def traces(generated, real) -> float:
    return sum(((x - x.mean(0)) ** 2).sum() / (len(x) - 1) for x in (generated, real))


def by_scipy(generated, real):
    """The formula with scipy's matrix square root, as pytorch-fid computes it."""
    c_g, c_r = np.cov(generated, rowvar=False), np.cov(real, rowvar=False)
    root = linalg.sqrtm(c_g @ c_r)
    if not np.isfinite(root).all():
        offset = 1e-6 * np.eye(len(c_g))
        root = linalg.sqrtm((c_g + offset) @ (c_r + offset))
    shift = generated.mean(0) - real.mean(0)
    return shift @ shift + np.trace(c_g) + np.trace(c_r) - 2 * np.trace(root).real


def by_torchmetrics(generated, real):
    moments = [
        torch.from_numpy(m)
        for x in (generated, real)
        for m in (x.mean(0), np.cov(x, rowvar=False))
    ]
    return float(_compute_fid(*moments))


def by_singular_values(generated, real):
    """The root's trace as the nuclear norm of X_g X_r': no covariance is ever formed."""
    rows = [(x - x.mean(0)) / math.sqrt(len(x) - 1) for x in (generated, real)]
    nuclear = np.linalg.svd(rows[0] @ rows[1].T, compute_uv=False).sum()
    shift = generated.mean(0) - real.mean(0)
    return shift @ shift + traces(generated, real) - 2 * nuclear


@pytest.mark.parametrize("reference", [by_scipy, by_torchmetrics, by_singular_values])
@pytest.mark.parametrize(("n", "d"), [(50, 3), (200, 64), (1000, 20), (700, 300)])
def test_frechet_agrees_with_the_references(reference, n, d):
    generated, real = sample(n, d, 0, 0.3, 1.4), sample(n, d, 1)
    expected = reference(generated, real)
    found = metrics.frechet_distance(generated, real)
    assert found == pytest.approx(expected, abs=1e-6 * traces(generated, real))


KINDS = ["fewer rows", "duplicated", "constant", "near-singular", "collapsed", "rank 1", "mixed"]


def singular(kind: str, d: int = 60):
    """Generated and real features of covariances without full rank, or nearly so."""
    rng = np.random.default_rng(0)
    n, m = (40, 45) if kind == "fewer rows" else (150, 140)
    generated, real = sample(n, d, 0, 0.2), sample(m, d, 1)
    if kind == "duplicated":
        generated, real = np.repeat(generated[:5], 30, 0), np.repeat(real[:35], 4, 0)
    if kind == "constant":
        generated[:, 7], real[:, 7:20] = 2.0, 3.0
    if kind == "near-singular":
        scales = 10.0 ** -np.linspace(0, 8, d)
        generated, real = generated * scales, real * rng.permutation(scales)
    if kind == "collapsed":
        generated = rng.normal(size=(n, 2)) @ rng.normal(size=(2, d))
    if kind == "rank 1":
        generated = np.outer(rng.normal(size=n), rng.normal(size=d))
    if kind == "mixed":
        real = np.outer(rng.normal(size=m), rng.normal(size=d)) + 1e-7 * real
    return generated, real


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("kind", KINDS)
def test_frechet_of_covariances_without_full_rank(kind, scale, swapped):
    generated, real = (scale * x for x in singular(kind))
    if swapped:
        generated, real = real, generated
    found = metrics.frechet_distance(generated, real)
    size = traces(generated, real)
    expected = by_singular_values(generated, real)
    assert found == pytest.approx(expected, rel=0, abs=2 * ours.CERTAIN * size)
    assert found == pytest.approx(by_torchmetrics(generated, real), rel=0, abs=1e-6 * size)


@pytest.mark.parametrize("kind", KINDS)
def test_the_slower_way_is_right_to_rounding(kind, monkeypatch):
    generated, real = singular(kind)
    monkeypatch.setattr(ours, "CERTAIN", 0.0)
    size, expected = traces(generated, real), by_singular_values(generated, real)
    # What is dropped of a factor, 1e-10, twice.
    assert abs(metrics.frechet_distance(generated, real) - expected) < 3e-10 * size


def test_eigenvalues_alone_are_wrong_by_the_root_of_rounding(monkeypatch):
    generated, real = singular("rank 1", 300)
    size, expected = traces(generated, real), by_singular_values(generated, real)
    monkeypatch.setattr(ours, "CERTAIN", math.inf)
    assert abs(metrics.frechet_distance(generated, real) - expected) > 1e-9 * size


@pytest.mark.parametrize("n", [20, 60, 500])
@pytest.mark.parametrize("kind", ["full", "rank 1", "constant", "near-singular"])
def test_frechet_of_equal_samples_is_0(n, kind):
    x = sample(n, 50) if kind != "rank 1" else np.outer(sample(n, 1), sample(1, 50))
    if kind == "constant":
        x[:] = 3.0
    if kind == "near-singular":
        x *= 10.0 ** -np.linspace(0, 9, 50)
    found, size = metrics.frechet_distance(x, x.copy()), traces(x, x)
    assert abs(found) <= 1e-9 * size


def test_features_far_from_0_keep_their_covariance():
    x, y = sample(500, 8), sample(400, 8, 1, 0.3)
    # Of 1e4 squared in double precision, 8 digits are left behind the point.
    near, far = metrics.frechet_distance(x, y), metrics.frechet_distance(x + 1e4, y + 1e4)
    assert far == pytest.approx(near, rel=1e-9)


def test_single_precision_features_are_computed_in_double_precision():
    x, y = (s.astype(np.float32) for s in (sample(300, 8, 0, 5.0), sample(400, 8, 1, 5.0)))
    expected = metrics.frechet_distance(x.astype(np.float64), y.astype(np.float64))
    assert metrics.frechet_distance(x, y) == pytest.approx(expected, rel=1e-12)


def test_blocks_of_rows_and_columns_change_nothing(monkeypatch):
    x, y = sample(90, 23), sample(80, 23, 1)
    whole = metrics.frechet_distance(x, y)
    monkeypatch.setattr(ours, "ROWS", 17)
    monkeypatch.setattr(ours, "COLUMNS", 5)
    mean = x.mean(0)
    np.testing.assert_allclose(ours.covariance(x, mean), np.cov(x.T), rtol=0, atol=1e-14)
    assert metrics.frechet_distance(x, y) == pytest.approx(whole, rel=1e-12)


def test_the_factor_is_one_of_the_covariance():
    x = sample(50, 8) @ sample(8, 20)  # rank 8 of 20
    found = ours.gaussian(x)
    assert found["factor"].shape == (20, 8)
    np.testing.assert_allclose(found["factor"] @ found["factor"].T, np.cov(x.T), atol=1e-12)
    np.testing.assert_array_equal(np.triu(found["factor"], 1), 0)


def test_frechet_of_a_shift_is_its_square():
    x = sample(500)
    assert metrics.frechet_distance(x + 3.0, x) == pytest.approx(4 * 9.0, rel=1e-9)


def test_frechet_of_a_scale_is_known():
    # N(0, C) against N(0, s^2 C): (s - 1)^2 tr C.
    x = sample(500)
    x -= x.mean(0)
    trace = np.trace(np.cov(x, rowvar=False))
    assert metrics.frechet_distance(2 * x, x) == pytest.approx(trace, rel=1e-9)


@pytest.mark.parametrize(
    ("d", "shift", "tolerance"), [(4, 1.0, 0.2), (64, 0.5, 0.2), (64, 0, 0.35)]
)
def test_frechet_standard_error_matches_the_spread_over_draws(d, shift, tolerance):
    real = Sample(sample(1000, d, 9999))
    metric = METRICS.build("frechet_distance")
    scores = [metric(sample(1000, d, s, shift), real) for s in range(150)]
    spread = np.std([s.value for s in scores], ddof=1)
    told = np.sqrt(np.mean([s.standard_error**2 for s in scores]))
    # A spread of 150 draws is known to 6 %; equal distributions are told some 18 % too large.
    assert told == pytest.approx(spread, rel=tolerance)


def test_the_influence_is_the_derivative_by_a_samples_weight():
    x, y, i, step = sample(200, 5, 0, 0.4), sample(150, 5, 1), 17, 1e-5
    crossed = ours._cross(x, ours.gaussian(y))
    influence = ours._influence(crossed)
    centred = influence - influence.mean()

    def moved(by: float) -> float:
        """The distance where sample i has weight (1 - by) / n + by."""
        weights = np.full(200, (1 - by) / 200)
        weights[i] += by
        mean = weights @ x
        c_g = (x - mean).T @ ((x - mean) * weights[:, None])
        root = linalg.sqrtm(c_g @ np.cov(y.T)).trace().real
        shift = mean - y.mean(0)
        return shift @ shift + np.trace(c_g) + np.trace(np.cov(y.T)) - 2 * root

    derivative = (moved(step) - moved(-step)) / (2 * step)
    # The covariance here is over n, in the metric over n - 1: half a per cent apart.
    assert centred[i] == pytest.approx(derivative, rel=0.02)


def test_fewer_rows_than_features_have_the_same_influence_by_rows_as_by_features():
    x, y = sample(30, 40, 0, 0.4), sample(200, 40, 1)
    by_rows = ours._cross(x, ours.gaussian(y))
    assert by_rows.by_rows
    f = by_rows.real["factor"]
    by_features = by_rows._replace(product=f.T @ np.cov(x.T) @ f)
    # The 11 directions without variance divide rounding by the root of rounding.
    vectors = ours._centred(x, x.mean(0))
    values, turned = np.linalg.eigh(by_features.product)
    rows = np.concatenate(list(vectors)) @ f @ turned[:, 11:]
    expected = (rows**2 / np.sqrt(values[11:])).sum(axis=1)
    np.testing.assert_allclose(ours._pulls(by_rows), expected, rtol=1e-6)


@pytest.mark.parametrize(("d", "scale"), [(8, 1.0), (32, 1.2)])
def test_extrapolation_takes_the_bias_off(d, scale):
    n, draws = 10 * d, 60
    true = d * (scale - 1) ** 2
    pairs = [(sample(n, d, s, 0, scale), sample(n, d, s + 999)) for s in range(draws)]
    plain = np.array([metrics.frechet_distance(*p) for p in pairs])
    found = np.array([metrics.frechet_infinity(*p).value for p in pairs])
    bias, error = found.mean() - true, found.std(ddof=1) / math.sqrt(draws)
    assert plain.mean() - true > 10 * error
    assert abs(bias) < 0.15 * (plain.mean() - true) + 3 * error
    assert found.std(ddof=1) < 2 * plain.std(ddof=1)


def test_the_extrapolation_is_a_straight_line_in_one_over_n():
    blocks = np.array(list(ours.BLOCKS))
    for y in (np.array([3.0, 3.0, 3.0]), blocks * 2.5 + 1.0, np.array([0.3, 1.7, -2.0])):
        intercept = np.polynomial.Polynomial.fit(blocks, y, 1)(0.0)
        assert np.dot(list(ours.BLOCKS.values()), y) == pytest.approx(intercept, abs=1e-12)


def test_the_extrapolations_standard_error():
    real = Sample(sample(400, 6, 9999))
    scores = [metrics.frechet_infinity(sample(400, 6, s, 0.5), real) for s in range(150)]
    spread = np.std([s.value for s in scores], ddof=1)
    told = np.sqrt(np.mean([s.standard_error**2 for s in scores]))
    assert told == pytest.approx(spread, rel=0.25)


def test_extrapolation_needs_8_rows():
    with pytest.raises(ValueError, match=r"n >= 8, d\), got shape \(7, 2\)"):
        metrics.frechet_infinity(sample(7, 2), sample(20, 2))


@pytest.mark.parametrize(
    ("name", "n", "rule"),
    [
        ("frechet_distance", 319, "needs n >= 320.*use kernel_distance"),
        ("frechet_infinity", 639, "needs n >= 640.*use kernel_distance"),
    ],
)
def test_too_few_samples_are_refused_unless_the_study_insists(name, n, rule):
    with pytest.raises(ValueError, match=rule):
        METRICS.build(name).check_size(n, 64)
    METRICS.build(name).check_size(n + 1, 64)
    assert METRICS.build(name).remark(n + 1, 64) is None
    METRICS.build(name, insist=True).check_size(n, 64)
    assert "believe kernel_distance" in METRICS.build(name, insist=True).remark(n, 64)


def test_shrunken_features_fool_the_frechet_distance_but_not_the_kernel_distance():
    # 200 samples of 400 features, variances as uneven as a network's.
    scales = np.arange(1, 401) ** -0.25
    real, other = (sample(200, 400, s) * scales for s in (0, 1))
    shrunken = 0.97 * other
    assert metrics.frechet_distance(shrunken, real) < metrics.frechet_distance(other, real)
    gaps = [
        metrics.kernel_distance(0.97 * x, y).value - metrics.kernel_distance(x, y).value
        for x, y in ((sample(200, 400, s) * scales, real) for s in range(1, 30))
    ]
    assert np.mean(gaps) > -2 * np.std(gaps, ddof=1) / math.sqrt(len(gaps))
