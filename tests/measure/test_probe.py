from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ganstudy.gan.datasets import DATASETS, normalize
from ganstudy.measure.metrics.gaussian import frechet_distance
from ganstudy.measure.protocol import Evaluator, MeasureConfig
from ganstudy.registry import StudyError

TINY_CNN = {"name": "small_cnn", "epochs": 1}


def judge(dataset: str, features: object = "pixels", **measure: object) -> Evaluator:
    data = {"features": features, "metrics": ["kernel_distance"], "samples": 1000, **measure}
    return Evaluator(MeasureConfig.from_dict(data, budget=600), DATASETS.build(dataset))


def real(dataset: str, split: str = "report", n: int = 500) -> torch.Tensor:
    return normalize(DATASETS.build(dataset).images(split)[:n])


def shares(values: dict[str, float]) -> dict[str, float]:
    return {name: v for name, v in values.items() if name.startswith("probe/share/")}


def test_a_probe_comes_with_every_twentieth_of_the_budget_and_can_be_switched_off():
    config = MeasureConfig.from_dict({}, budget=700)
    assert (config.probe.samples, config.probe.every) == (500, 35)
    assert MeasureConfig.from_dict(config.to_dict(), budget=700) == config
    off = MeasureConfig.from_dict({"probe": None}, budget=700)
    assert off.probe is None
    assert MeasureConfig.from_dict(off.to_dict(), budget=700) == off


@pytest.mark.parametrize(
    ("probe", "rule"),
    [
        ({"sample": 100}, "did you mean 'samples'"),
        ({"samples": 49}, "at least 50"),
        ({"every": 10}, "discriminator_updates"),
        (True, "null"),
    ],
)
def test_a_wrong_probe_is_refused_with_its_key(probe, rule):
    with pytest.raises(StudyError, match=rule) as error:
        MeasureConfig.from_dict({"probe": probe}, budget=700)
    assert str(error.value).startswith("probe")


def test_real_points_cover_their_modes_at_the_floor():
    evaluator = judge("ring")
    values = evaluator.probed(real("ring"))
    assert len(shares(values)) == 8
    assert all(0.6 < share < 1.5 for share in shares(values).values())
    assert values["probe/effective_modes"] == pytest.approx(1, abs=0.02)
    assert values["probe/diversity"] == pytest.approx(1, abs=0.03)
    assert values["probe/frechet_distance"] == evaluator.probe.floor
    assert list(values)[-1] == "probe/frechet_distance"
    # Points show no pattern, and the nearest training point is near to every good generator.
    assert not {"probe/checkerboard", "probe/memorization"} & set(values)


@pytest.mark.parametrize("dataset", ["ring", "grid"])
def test_the_share_near_a_known_mode_falls_with_scatter_that_the_score_does_not_see(dataset):
    evaluator, points = judge(dataset), real(dataset)
    values = evaluator.probed(points)
    share, error = (values[f"probe/high_quality_fraction{end}"] for end in ("", "_se"))
    assert share > 0.97  # 1 - exp(-9 / 2) is expected of real points
    assert error == pytest.approx(math.sqrt(share * (1 - share) / 500))
    # A single Gaussian with the mean and covariance of the data has nearly no point in a mode.
    flat = points.flatten(1).numpy()
    rng = np.random.default_rng(0)
    one = rng.multivariate_normal(flat.mean(0), np.cov(flat.T), 500).astype(np.float32)
    scattered = evaluator.probed(torch.from_numpy(one)[:, :, None, None])
    assert scattered["probe/high_quality_fraction"] < 0.2
    assert scattered["probe/frechet_distance"] < 5 * evaluator.probe.floor


def test_without_known_modes_no_share_lies_near_them():
    for dataset in ("dirac", "digits"):
        values = judge(dataset, samples=300).probed(real(dataset)[:300])
        assert not any("high_quality" in name for name in values)


def test_two_of_eight_modes():
    ring = DATASETS.build("ring")
    images, labels = ring.images("report"), ring.labels("report")
    two = images[(labels == 0) | (labels == 4)][:400]
    values = judge("ring").probed(two)
    assert values["probe/effective_modes"] == pytest.approx(2 / 8, abs=0.01)
    assert sum(share == 0 for share in shares(values).values()) == 6
    # Opposite modes are as far apart as the data is wide: distances alone do not see it.
    assert values["probe/diversity"] > 0.5


def test_classes_by_the_networks_classifier_and_cells_without_one():
    digits = DATASETS.build("digits")
    images, labels = digits.images("report"), digits.labels("report")
    without = normalize(images[labels != 3])
    lost = shares(judge("digits", "small_cnn", samples=300).probed(without))
    assert min(lost, key=lost.get) == "probe/share/3"
    assert lost["probe/share/3"] < 0.2  # the classifier takes some other digits for a 3
    cells = shares(judge("digits", "pixels", samples=300).probed(normalize(images)))
    assert 5 <= len(cells) <= 10
    assert np.mean(list(cells.values())) == pytest.approx(1, abs=0.15)


def test_modes_of_which_a_probe_expects_few_samples_are_not_judged():
    assert len(shares(judge("grid").probed(real("grid")))) == 25
    few = judge("grid", probe={"samples": 100})
    assert shares(few.probed(real("grid", n=100))) == {}


def test_the_score_is_the_frechet_distance_with_its_error():
    evaluator, images = judge("digits", samples=300), real("digits")[:200]
    values = evaluator.probed(images)
    features = images.flatten(1).numpy()
    expected = frechet_distance(features, evaluator.real.features)
    assert values["probe/frechet_distance"] == pytest.approx(expected, rel=1e-9)
    assert 0 < values["probe/frechet_distance_se"] < values["probe/frechet_distance"]


def test_copies_of_training_images_are_told_and_held_out_ones_are_not():
    evaluator = judge("mnist5k", "random_conv")
    copies = real("mnist5k", "train")
    noisy = copies + 0.02 * torch.randn(copies.shape, generator=torch.Generator().manual_seed(0))
    assert evaluator.probed(noisy)["probe/memorization"] < -6
    assert evaluator.probed(real("mnist5k"))["probe/memorization"] > -1.5


def test_images_that_are_not_finite_have_a_score_of_nan_and_nothing_else():
    images = real("ring").clone()
    images[3, 0] = math.nan
    values = judge("ring").probed(images)
    assert list(values) == ["probe/frechet_distance"]
    assert math.isnan(values["probe/frechet_distance"])


def test_a_constant_output_is_measured():
    constant = torch.zeros_like(real("digits"))
    values = judge("digits", samples=300).probed(constant)
    assert values["probe/effective_modes"] < 0.2
    assert values["probe/diversity"] == 0
    assert all(map(math.isfinite, values.values()))
    assert "probe/checkerboard" not in values or values["probe/checkerboard"] < 0


def test_data_of_one_point():
    values = judge("dirac").probed(torch.zeros(500, 1, 1, 1))
    assert values["probe/effective_modes"] == 1
    assert values["probe/frechet_distance"] == 0
    assert np.isfinite(list(values.values())).all()
