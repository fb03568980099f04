from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ganstudy.gan.datasets import DATASETS, normalize
from ganstudy.measure.metrics import METRICS, Drawn, Sample
from ganstudy.measure.metrics.modes import (
    Modes,
    high_quality_fraction,
    mode_reader,
    modes_covered,
    reverse_kl,
)
from ganstudy.registry import StudyError

NAMES = [name for name in METRICS.names() if METRICS.get(name).reads == "modes"]


def drawn(images: torch.Tensor) -> Drawn:
    return Drawn(images, Sample(np.zeros((len(images), 1))))


def modes(nearest, known: int, inside=None) -> Modes:
    nearest = np.asarray(nearest, dtype=np.int64)
    return Modes(nearest, np.ones(len(nearest), bool) if inside is None else inside, known)


def draw(n: int, known: int, seed: int = 0) -> Modes:
    return modes(np.random.default_rng(seed).integers(known, size=n), known)


def test_modes_covered_counts_modes_with_a_sample_inside():
    assert modes_covered(modes([4, 4, 0, 7], 9)) == 3
    assert modes_covered(modes([4, 4, 0, 7], 9, np.array([True, False, False, True]))) == 2
    assert modes_covered(modes([1, 1], 3, np.zeros(2, bool))) == 0


def test_the_expected_number_of_modes_met_by_equally_likely_draws():
    n, known = 300, 200
    found = [modes_covered(draw(n, known, seed)) for seed in range(100)]
    expected = known * (1 - (1 - 1 / known) ** n)
    # The count's standard deviation is about 5.1 here: four standard errors of the mean.
    assert np.mean(found) == pytest.approx(expected, abs=4 * 5.1 / math.sqrt(100))


def test_high_quality_is_a_share_with_the_binomial_error():
    inside = np.arange(100) < 80
    score = high_quality_fraction(modes(np.zeros(100), 2, inside))
    assert score.value == 0.8
    assert score.standard_error == pytest.approx(math.sqrt(0.8 * 0.2 / 100))
    assert high_quality_fraction(modes(np.zeros(100), 2, inside | True)) == (1, 1 / 101)


def test_reverse_kl_of_equal_frequencies_is_zero_and_of_one_mode_log_k():
    assert reverse_kl(modes(np.repeat(np.arange(8), 5), 8)) == pytest.approx(0, abs=1e-12)
    assert reverse_kl(modes([3] * 40, 8)) == pytest.approx(math.log(8))
    assert reverse_kl(modes([0, 1] * 20, 8)) == pytest.approx(math.log(4))
    shares = np.array([0.5, 0.25, 0.25])
    expected = (shares * np.log(shares / 0.25)).sum()
    assert reverse_kl(modes([0, 0, 1, 2], 4)) == pytest.approx(expected)


def test_reverse_kl_needs_no_sample_of_high_quality():
    assert reverse_kl(modes([0, 1], 2, np.zeros(2, bool))) == pytest.approx(0, abs=1e-12)


def test_the_bias_of_reverse_kl():
    found = np.mean([reverse_kl(draw(4000, 100, seed)) for seed in range(40)])
    # The next term of the expansion, (K^2 - 1) / 12 n^2, is below 1 % of (K - 1) / 2n.
    assert found == pytest.approx(99 / 8000, rel=0.1)
    told = [reverse_kl(draw(1000, 1000, seed)) for seed in range(40)]
    assert np.mean(told) == pytest.approx(0.57, abs=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_contract(name):
    metric, full, one = METRICS.build(name), draw(400, 20), modes([3] * 400, 20)
    one = one._replace(inside=np.arange(400) < 100)
    assert metric.identity_value is None
    better, worse = metric(full, full).value, metric(one, full).value
    assert (better < worse) == (metric.direction == "minimize")
    order = np.random.default_rng(0).permutation(400)
    shuffled = Modes(full.nearest[order], full.inside[order], 20)
    assert metric(shuffled, full) == pytest.approx(metric(full, full), nan_ok=True)
    assert metric(full, one).value == better  # the data's modes are known, whatever its sample


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("bad", "rule"),
    [
        (modes([], 4), r"n >= 1, got \(0,\)"),
        (modes([0, 4], 4), r"lie in \[0, 4\), got 0 to 4"),
        (modes([-1, 0], 4), r"lie in \[0, 4\), got -1 to 0"),
        (modes([0, 1], 4, np.ones(3, bool)), r"got \(2,\), \(3,\)"),
    ],
)
def test_bad_input_is_a_value_error(name, bad, rule):
    with pytest.raises(ValueError, match=rule):
        METRICS.build(name)(bad, draw(10, 4))


@pytest.mark.parametrize("name", ["ring", "grid"])
def test_points_belong_to_the_component_they_are_drawn_from(name):
    data = DATASETS.build(name)
    found = mode_reader(data).read(drawn(data.images("select")))
    np.testing.assert_array_equal(found.nearest, data.labels("select").numpy())
    assert found.known == data.modes
    # 1 - exp(-9 / 2) of 2,000 draws: four standard errors.
    expected = 1 - math.exp(-4.5)
    error = math.sqrt(expected * (1 - expected) / 2000)
    assert found.inside.mean() == pytest.approx(expected, abs=4 * error)


def test_a_point_is_inside_up_to_three_standard_deviations_of_euclidean_distance():
    ring = DATASETS.build("ring")
    away = torch.tensor([[2.99, 0.0], [3.01, 0.0], [2.2, 2.2], [2.0, 2.0]]) * ring.std
    points = (ring.centers()[2] + away).view(4, 2, 1, 1)
    found = mode_reader(ring).read(drawn(points))
    assert found.inside.tolist() == [True, False, False, True]
    assert found.nearest.tolist() == [2, 2, 2, 2]


def test_the_modes_of_stacked_digits_are_read_digit_by_digit(tmp_path):
    stacked = DATASETS.build("stacked_mnist", train=10, test=600)
    reader = mode_reader(stacked, tmp_path)
    accuracy = reader.told["features_facts"]["accuracy_report"]
    assert accuracy > 0.9
    found = reader.read(drawn(normalize(stacked.images("report"))))
    assert found.inside.all()
    right = (found.nearest == stacked.labels("report").numpy()).mean()
    # Three digits are right where each is; 600 stacks of 1,000 digits stray by some per cent.
    assert right == pytest.approx(accuracy**3, abs=0.06)
    assert mode_reader(stacked, tmp_path).told == reader.told
    assert len(list(tmp_path.glob("*.pt"))) == 1


@pytest.mark.parametrize(
    ("dataset", "rule"),
    [
        ("mnist5k", "the modes of mnist5k are not known; use recall or coverage"),
        ("dirac", "the modes of dirac have no rule that assigns samples; use recall or coverage"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_data_without_known_modes_is_refused(name, dataset, rule):
    with pytest.raises(ValueError, match=rule):
        METRICS.build(name).check(DATASETS.build(dataset))


def test_high_quality_of_stacked_digits_is_refused():
    with pytest.raises(ValueError, match="is 1 for every generator of stacked_mnist"):
        METRICS.build("high_quality_fraction").check(DATASETS.build("stacked_mnist"))


def test_an_unknown_option_is_a_study_error():
    with pytest.raises(StudyError):
        METRICS.build("modes_covered", k=3)
