"""What every metric of features keeps to; a new one enrols by being registered."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ganstudy.measure import metrics
from ganstudy.measure.metrics import METRICS, Sample
from tests.measure.metrics.samples import MODES, modes_kept, sample

NAMES = [name for name in METRICS.names() if METRICS.get(name).reads == "features"]
OPTIONS: dict[str, dict[str, int]] = {
    "kernel_distance_subsets": {"subset_size": 50, "subsets": 5},
    "prd_f8": {"runs": 2},
    "prd_f1_8": {"runs": 2},
}
"""Of metrics whose defaults need more rows, or time, than these tests have."""
SYMMETRIC = {"frechet_distance", "frechet_infinity", "kernel_distance"}
"""Metrics that are the same for the samples in the other order; all others must not be.

`kernel_distance_subsets` is symmetric in the mean only: other subsets are drawn.
"""
BLIND_TO_SHIFTS = {"diversity": "a shift changes no spread"}
BLIND_TO_DROPPED_MODES = {
    "precision": "what is generated is as good as before",
    "density": "what is generated lies where real samples are as dense as before",
}
"""Metrics that score a generator alike that has lost modes, and why."""


def build(name: str):
    return METRICS.build(name, **OPTIONS.get(name, {}))


def score(name: str, generated, real) -> float:
    return build(name)(generated, real).value


def worse(name: str, first: float, second: float) -> bool:
    """Whether `second` is the worse score."""
    return second > first if build(name).direction == "minimize" else second < first


def test_the_tables_name_metrics_that_exist():
    # `density` is named where it exists; the rest must.
    listed = {*OPTIONS, *SYMMETRIC, *BLIND_TO_SHIFTS, *BLIND_TO_DROPPED_MODES} - {"density"}
    assert listed <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_against_itself_and_against_a_shifted_one(name):
    x, y = sample(200), sample(200, seed=1, shift=2.0)
    same, other = score(name, x, x), score(name, y, x)
    identity = build(name).identity_value
    if identity is not None:
        assert same == pytest.approx(identity, abs=1e-9)
    if name not in BLIND_TO_SHIFTS:
        assert worse(name, same, other)


@pytest.mark.parametrize("name", NAMES)
def test_symmetry_is_as_stated(name):
    # Another spread and another number of rows, or precision and recall could agree by chance.
    x, y = sample(200), sample(160, seed=1, shift=0.3, scale=1.5)
    there, back = score(name, x, y), score(name, y, x)
    assert (there == pytest.approx(back, rel=1e-6)) == (name in SYMMETRIC)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_rows_is_nothing(name):
    x, y = sample(200), sample(160, seed=1, shift=0.3)
    rng = np.random.default_rng(0)
    plain = build(name)(x, y)
    for generated, real in ((rng.permutation(x), y), (x, rng.permutation(y))):
        mixed = build(name)(generated, real)
        assert mixed == pytest.approx(plain, rel=1e-8, abs=1e-10, nan_ok=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_score_does_not_depend_on_what_was_computed_before(name):
    metric, x, y = build(name), sample(200), sample(160, seed=1, shift=0.3)
    plain = metric(x, y)
    real, generated = Sample(y), Sample(x)
    metric.prepare(real)
    kept = {name: dict(arrays) for name, arrays in real.statistics.items()}
    metric(sample(120, seed=2), real)
    assert metric(generated, real) == pytest.approx(plain, rel=1e-12, nan_ok=True)
    assert metric(generated, real) == pytest.approx(plain, rel=1e-12, nan_ok=True)
    # Another real sample is no reason to remember the first one.
    assert metric(generated, sample(160, seed=3)) == pytest.approx(
        metric(x, sample(160, seed=3)), rel=1e-12, nan_ok=True
    )
    restored = Sample(y)
    restored.statistics = kept
    assert metric(x, restored) == pytest.approx(plain, rel=1e-12, nan_ok=True)


@pytest.mark.parametrize("name", NAMES)
def test_the_input_is_left_as_it_was(name):
    x, y = sample(200), sample(160, seed=1, shift=0.3)
    build(name)(x, y)
    np.testing.assert_array_equal(x, sample(200))
    np.testing.assert_array_equal(y, sample(160, seed=1, shift=0.3))


@pytest.mark.parametrize("name", NAMES)
def test_losing_modes_never_improves_a_score(name):
    real = modes_kept(400, MODES)
    found = [score(name, modes_kept(400, kept, seed=1), real) for kept in (10, 8, 5, 2, 1)]
    if name in BLIND_TO_DROPPED_MODES:
        # Of the hundreds of samples that decide, 15 % are more than chance.
        assert found == pytest.approx([found[0]] * 5, rel=0.15)
    else:
        assert worse(name, found[0], found[-1]), found
        # Chance may improve a step that a metric hardly sees, by 1 % of the whole way.
        slack = 0.01 * (found[-1] - found[0])
        steps = [(a, b + slack) for a, b in zip(found, found[1:], strict=False)]
        assert not any(worse(name, b, a) for a, b in steps), found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("role", ["generated", "real"])
@pytest.mark.parametrize(
    ("bad", "rule"),
    [
        (np.full((60, 4), np.nan), "{role} features hold 240 non-finite"),
        (np.full((60, 4), np.inf), "{role} features hold 240 non-finite"),
        (np.ones((1, 4)), r"{role} features must be .*got shape \(1, 4\)"),
        (np.ones(60), r"{role} features must be .*got shape \(60,\)"),
        (np.ones((0, 4)), r"{role} features must be .*got shape \(0, 4\)"),
        (np.ones((60, 0)), r"{role} features must be .*got shape \(60, 0\)"),
        (np.ones((60, 4), dtype=int), "{role} features must be floats, got int"),
        (np.ones((60, 5)), "differ in d: (5 against 4|4 against 5)"),
    ],
)
def test_bad_input_is_a_value_error(name, role, bad, rule):
    samples = (bad, sample(60)) if role == "generated" else (sample(60), bad)
    with pytest.raises(ValueError, match=rule.format(role=role)):
        build(name)(*samples)


def test_lists_and_tensors_are_arrays_too():
    x, y = sample(30), sample(30, seed=1)
    expected = metrics.frechet_distance(x, y)
    assert metrics.frechet_distance(x.tolist(), torch.from_numpy(y)) == expected
    with pytest.raises(ValueError, match="must be floats, got <U1"):
        metrics.frechet_distance([["a", "b"], ["c", "d"]], y)
