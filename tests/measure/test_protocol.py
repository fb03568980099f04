from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ganstudy.gan.datasets import DATASETS, normalize
from ganstudy.measure.metrics import METRICS
from ganstudy.measure.protocol import Evaluator, MeasureConfig
from ganstudy.registry import StudyError

TINY_CNN = {"name": "small_cnn", "epochs": 1}


def measure(*metrics: object, features: object = "pixels", samples: int = 1000) -> MeasureConfig:
    data = {"features": features, "metrics": list(metrics), "samples": samples}
    return MeasureConfig.from_dict(data, budget=600)


def names(config: MeasureConfig, dataset: str) -> set[str]:
    return set(Evaluator(config, DATASETS.build(dataset)).floor())


def test_a_stored_name_carries_the_network_only_of_metrics_that_read_features():
    features = {"kernel_distance": "kd_pixels_1k", "recall": "recall_pixels_1k"}
    modes = {name: f"{name}_1k" for name in METRICS.names() if METRICS.get(name).reads == "modes"}
    always = {"coverage_pixels_1k", "diversity_pixels_1k"}
    found = names(measure(*features, *modes), "ring")
    assert found == {*features.values(), *modes.values(), *always}
    assert measure("modes_covered", samples=500).primary == "modes_covered_500"


def test_real_points_cover_all_modes():
    ring = DATASETS.build("ring")
    judge = Evaluator(measure("modes_covered", "high_quality_fraction", "reverse_kl"), ring)
    scores = judge.scores(ring.images("train")[:1000])
    assert scores["modes_covered_1k"].value == 8
    assert scores["high_quality_fraction_1k"].value == pytest.approx(0.989, abs=0.013)
    assert scores["reverse_kl_1k"].value < 0.02
    one = judge.scores(ring.images("train")[:1].expand(1000, -1, -1, -1))
    assert one["modes_covered_1k"].value == 1
    assert one["reverse_kl_1k"].value == pytest.approx(math.log(8))
    floor = judge.floor()
    assert floor["modes_covered_1k"] == 8


def test_images_that_are_not_finite_have_no_score_of_any_kind():
    for dataset, names in (
        ("ring", ["modes_covered", "reverse_kl"]),
        ("digits", ["checkerboard"]),
    ):
        data = DATASETS.build(dataset)
        images = normalize(data.images("train")[:50]).clone()
        images[7] = math.nan
        scores = Evaluator(measure(*names, samples=50), data).scores(images)
        assert len(scores) == len(names) + 2
        assert all(math.isnan(score.value) for score in scores.values())


def test_images_that_carry_a_gradient_are_scored():
    digits = DATASETS.build("digits")
    images = normalize(digits.images("report")[:50]).requires_grad_()
    scores = Evaluator(measure("checkerboard", samples=50), digits).scores(images)
    assert scores["checkerboard_50"].value > 0


def test_the_protocol_tells_what_each_score_has_read():
    digits = DATASETS.build("digits")
    config = measure("kernel_distance", "checkerboard", features=TINY_CNN, samples=100)
    judge = Evaluator(config, digits)
    table = judge.protocol()
    kernel, pattern = table["kd_small_cnn_100"], table["checkerboard_100"]
    assert (kernel["reads"], kernel["features"]["name"]) == ("features", "small_cnn")
    assert kernel["dimension"] == 64
    assert "accuracy_report" in kernel["features_facts"]
    assert (pattern["reads"], pattern["features"]) == ("images", {"name": "images"})
    assert (pattern["dimension"], pattern["features_facts"]) == (64, {})
    assert pattern["features_hash"] != kernel["features_hash"]
    assert pattern["metric"] == {"name": "checkerboard", "period": 2}
    assert pattern["floor"] == judge.floor()["checkerboard_100"]


def test_the_protocol_of_stacked_digits_tells_of_the_classifier(tmp_path):
    stacked = DATASETS.build("stacked_mnist", train=10, test=20)
    judge = Evaluator(measure("modes_covered", samples=20), stacked, cache=tmp_path)
    row = judge.protocol()["modes_covered_20"]
    assert row["features"]["name"] == "small_cnn on mnist5k"
    assert row["features_facts"]["accuracy_report"] > 0.9
    assert row["dimension"] == 1000
    assert list(tmp_path.glob("small_cnn-*.pt"))  # shipped with the study's feature network


def test_the_readers_of_what_no_metric_asks_for_are_not_made():
    ring = DATASETS.build("ring")
    assert set(Evaluator(measure("kernel_distance"), ring).readers) == {"features"}
    assert set(Evaluator(measure("reverse_kl"), ring).readers) == {"features", "modes"}


@pytest.mark.parametrize(
    ("metric", "dataset", "message"),
    [
        ("modes_covered", "digits", "metrics.modes_covered: the modes of digits are not known"),
        ("checkerboard", "ring", "metrics.checkerboard: points hold no pattern"),
        (
            {"name": "checkerboard", "period": 3},
            "digits",
            "metrics.checkerboard: a pattern of period 3 needs sides that are multiples of 3",
        ),
        ("high_quality_fraction", "stacked_mnist", "metrics.high_quality_fraction: is 1 for"),
    ],
)
def test_a_metric_that_cannot_be_had_is_refused_with_its_path(metric, dataset, message):
    with pytest.raises(StudyError, match=message):
        measure(metric).check(DATASETS.build(dataset))


def test_real_images_are_the_same_for_all_metrics():
    digits = DATASETS.build("digits")
    judge = Evaluator(measure("checkerboard", samples=80), digits)
    assert len(judge.real.features) == len(judge.real.images) == 80
    scores = judge.scores(judge.real.images)
    assert scores["checkerboard_80"].value == 1
    assert torch.equal(judge.real.images, normalize(digits.images("select")[:80]))


def test_an_undefined_score_is_left_out(tmp_path):
    greys = np.random.default_rng(0).integers(0, 256, (200, 1, 1), dtype=np.uint8)
    np.savez(tmp_path / "flat.npz", images=np.broadcast_to(greys, (200, 8, 8)))
    flat = DATASETS.build("npz", path=str(tmp_path / "flat.npz"))
    judge = Evaluator(measure("kernel_distance", "checkerboard", samples=40), flat)
    noise = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    scores = judge.scores(noise)
    assert "checkerboard_40" not in scores
    assert all(math.isfinite(score.value) for score in scores.values())
    # What is wrong with the generated images is told: no score of theirs is a number.
    broken = judge.scores(noise * math.nan)
    assert math.isnan(broken["checkerboard_40"].value)


def test_images_whose_features_overflow_have_no_score():
    digits = DATASETS.build("digits")
    judge = Evaluator(measure("kernel_distance", features=TINY_CNN, samples=50), digits)
    images = 3e38 * torch.randn(50, 1, 8, 8, generator=torch.Generator().manual_seed(0)).sign()
    assert images.isfinite().all()
    scores = judge.scores(images)
    assert all(math.isnan(score.value) for score in scores.values())


@pytest.mark.parametrize("scale", [1e20, 1e30, 1e36])
def test_features_that_are_finite_and_too_large_to_be_scored_have_no_score(scale):
    digits = DATASETS.build("digits")
    metrics = ("kernel_distance", "inception_score", "precision", "prd_f8")
    judge = Evaluator(measure(*metrics, features=TINY_CNN, samples=50), digits)
    images = judge.real.images * scale
    assert np.isfinite(judge.extractor(images)).all()
    assert all(math.isnan(score.value) for score in judge.scores(images).values())


def test_a_frechet_distance_of_few_samples_is_refused_unless_the_study_insists():
    digits = DATASETS.build("digits")
    with pytest.raises(StudyError, match="metrics.frechet_distance: is blind.*kernel_distance"):
        measure("frechet_distance", features="pixels", samples=100).check(digits)
    insisted = measure({"name": "frechet_distance", "insist": True}, samples=100)
    insisted.check(digits)
    assert "believe kernel_distance" in insisted.remarks(digits)[0]
    assert not measure("kernel_distance", samples=100).remarks(digits)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"raw": 1}, "raw: must be true or false, got 1"),
        ({"final": ["recal"]}, "final.0: unknown metric 'recal'; did you mean 'recall'"),
        ({"finals": []}, "unknown key 'finals'; did you mean 'final'"),
    ],
)
def test_wrong_settings_name_their_place(data, message):
    with pytest.raises(StudyError, match=message):
        MeasureConfig.from_dict(data, budget=600)


def test_measures_survive_their_own_dict():
    config = MeasureConfig.from_dict({"final": ["prd_f8"], "raw": True, "samples": 50}, 600)
    assert MeasureConfig.from_dict(config.to_dict(), 600) == config
    assert [m.name for m in config.all_metrics][-1] == "prd_f8"


def test_a_score_of_every_evaluation_is_not_scored_again_at_the_end():
    config = MeasureConfig.from_dict({"metrics": ["recall"], "final": ["recall", "coverage"]}, 600)
    assert [m.name for m in config.metrics] == ["recall", "diversity", "coverage"]
    assert config.final == ()
    other = {"metrics": ["recall"], "final": [{"name": "coverage", "k": 3}]}
    assert METRICS.build("coverage", k=3) in MeasureConfig.from_dict(other, 600).metrics


def test_two_scores_of_one_name_are_refused():
    twice = {"features": "pixels", "metrics": ["recall"], "final": [{"name": "recall", "k": 5}]}
    with pytest.raises(StudyError, match="two of them would be stored as recall_pixels_1k"):
        MeasureConfig.from_dict(twice, 600).check(DATASETS.build("ring"))


@pytest.mark.parametrize("name", ["memorization", "ms_ssim"])
def test_a_score_whose_best_is_no_best_generator_must_not_choose(name):
    with pytest.raises(StudyError, match=f"metrics.0: {name} must not come first"):
        measure(name, "kernel_distance").check(DATASETS.build("mnist5k"))
    measure("kernel_distance", name).check(DATASETS.build("mnist5k"))


def test_the_convergence_of_the_search_stands_beside_what_it_finds():
    data = {"features": "pixels", "metrics": ["kernel_distance"], "samples": 300}
    data["final"] = [{"name": "polygon_f1", "steps": 20}, {"name": "polygon_recall", "steps": 20}]
    final = MeasureConfig.from_dict(data, 600).final
    assert [m.name for m in final] == ["polygon_f1", "polygon_recall", "polygon_convergence"]
    assert final[2].steps == 20


def test_more_samples_than_a_split_holds_are_told():
    digits, config = DATASETS.build("digits"), measure("kernel_distance", samples=5000)
    n = len(digits.images("select"))
    assert f"5000 generated images are scored against {n} real ones" in config.remarks(digits)[0]
    assert Evaluator(config, digits).protocol()["kd_pixels_5k"]["n_floor"] == n
    # The bias of a Fréchet distance is told only where one is measured.
    assert not any("Fréchet" in remark for remark in config.remarks(digits))
    both = measure("kernel_distance", "frechet_distance", samples=5000)
    assert "a Fréchet distance is biased less at 5000" in both.remarks(digits)[-1]


def test_reference_statistics_are_those_computed_anew(tmp_path):
    digits = DATASETS.build("digits")
    config = measure("kernel_distance", "precision", "recall", samples=80)
    images = normalize(digits.images("report")[:80])
    fresh = Evaluator(config, digits, cache=tmp_path).scores(images)
    again = Evaluator(config, digits, cache=tmp_path)
    assert list(tmp_path.glob("real-*.pt"))
    assert list(tmp_path.glob("statistics-*.pt"))
    assert again.scores(images) == fresh


@pytest.mark.parametrize(
    ("metric", "features", "message"),
    [
        ("inception_score", "pixels", "probabilities of classes, which pixels does not give"),
        ("class_accuracy", "lite0", "of the data's own classes, which lite0 .*small_cnn"),
    ],
)
def test_what_reads_classes_asks_for_a_network_that_tells_them(metric, features, message):
    config = measure("kernel_distance", metric, features=features, samples=100)
    with pytest.raises(StudyError, match=f"metrics.{metric}: reads.*{message}"):
        config.check(DATASETS.build("mnist5k"))


def test_the_labels_that_conditional_images_were_asked_for_are_judged():
    digits = DATASETS.build("digits")
    config = measure("kernel_distance", "class_accuracy", features="small_cnn", samples=100)
    judge = Evaluator(config, digits)
    images, labels = normalize(digits.images("train")[:100]), digits.labels("train")[:100]
    right = judge.evaluate(images, labels=labels).scores["class_accuracy_small_cnn_100"]
    wrong = judge.evaluate(images, labels=(labels + 1) % 10).scores["class_accuracy_small_cnn_100"]
    assert right.value > 0.6
    assert wrong.value < 0.2
    assert right.standard_error == pytest.approx(
        math.sqrt(right.value * (1 - right.value) / 100), rel=1e-9
    )
    assert "class_accuracy_small_cnn_100" not in judge.evaluate(images).scores
    assert judge.floor()["class_accuracy_small_cnn_100"] > 0.6
