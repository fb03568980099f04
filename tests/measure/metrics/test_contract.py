from __future__ import annotations

import numpy as np
import pytest

from ganstudy.measure.metrics import METRICS
from tests.measure.metrics.samples import sample

NAMES = [name for name in METRICS.names() if METRICS.get(name).reads == "features"]


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
