from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import linalg

from ganstudy.measure import metrics
from ganstudy.measure.metrics import METRICS
from tests.measure.metrics.samples import sample


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
