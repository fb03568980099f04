from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ganstudy.gan.datasets import DATASETS
from ganstudy.gan.seeding import stream
from ganstudy.measure.features import FEATURES
from ganstudy.measure.metrics import METRICS
from ganstudy.measure.protocol import MeasureConfig
from ganstudy.measure.sanity import (
    LADDERS,
    Bench,
    Unavailable,
    bare_name,
    blurred,
    classes_kept,
    floor_by_n,
    kept_levels,
    ladders,
    noisy,
    partly_inverted,
)


def measure(*metrics: str, samples: int, features: str = "pixels") -> MeasureConfig:
    built = tuple(METRICS.build(name) for name in metrics)
    return MeasureConfig(FEATURES.build(features), built, samples, every=1)


def bench(dataset: str, *metrics: str, samples: int = 200, repeats: int = 2, **options) -> Bench:
    return Bench(measure(*metrics, samples=samples), DATASETS.build(dataset, **options),
                 None, repeats)  # fmt: skip


def values(bench: Bench, name: str, steps) -> dict:
    """Return (score, series, x) -> values of the repeats."""
    found: dict = {}
    for step in steps:
        for reading in bench.readings(name, step):
            key = (reading.name, reading.series, reading.x)
            found.setdefault(key, []).append(reading.value)
    return found


def test_a_blur_spreads_a_dot_by_its_variance_and_keeps_its_light():
    dot = torch.zeros(1, 1, 41, 41)
    dot[0, 0, 20, 20] = 1.0
    spread = blurred(dot, 2.0, stream(0, "x"))[0, 0].double().numpy()
    assert spread.sum() == pytest.approx(1, abs=1e-5)
    offsets = np.arange(41) - 20
    # A Gaussian sampled at whole pixels and cut off at 4 sd has a variance within 1 % of sd^2.
    assert (spread.sum(axis=0) * offsets**2).sum() == pytest.approx(4.0, rel=0.01)
    assert (spread.sum(axis=1) * offsets**2).sum() == pytest.approx(4.0, rel=0.01)


def test_a_blur_does_not_mix_images_nor_channels():
    images = torch.zeros(2, 2, 9, 9)
    images[1, 0] = 1.0
    torch.testing.assert_close(blurred(images, 1.5, stream(0, "x")), images)


def test_noise_has_its_spread_and_leaves_images_within_their_range():
    points = noisy(torch.zeros(20_000, 2, 1, 1), 0.5, stream(0, "x"))
    # The sd of 40,000 draws has a standard error of 0.0018.
    assert points.std().item() == pytest.approx(0.5, abs=0.008)
    assert points.abs().max() > 1
    images = noisy(torch.zeros(50, 1, 8, 8), 0.5, stream(0, "x"))
    assert images.abs().max() == 1


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_that_share_of_images_is_inverted(share):
    images = torch.rand(40, 1, 4, 4) + 0.1
    spoilt = partly_inverted(images, share, stream(0, "x"))
    negative = (spoilt == -images).flatten(1).all(dim=1)
    assert negative.sum() == 40 * share
    assert torch.equal(spoilt[~negative], images[~negative])


def test_the_numbers_of_classes_reach_from_one_to_all():
    assert kept_levels(10) == list(range(1, 11))
    levels = kept_levels(1000)
    assert (levels[0], levels[-1], len(levels)) == (1, 1000, 10)


def test_samples_of_k_classes_hold_just_these_and_are_nested():
    ring = bench("ring", "kernel_distance", repeats=2)
    labels = {tuple(p.tolist()): int(k) for p, k in zip(
        ring.train.images.flatten(1), ring.train.labels, strict=True)}  # fmt: skip
    seen: dict[int, list[set[int]]] = {0: [], 1: []}
    for step in classes_kept(ring):
        drawn, real = step.samples()
        points = [tuple(p.tolist()) for p in drawn.images.flatten(1)]
        assert real is None
        assert len(points) == len(set(points)) == 200
        kept = {labels[point] for point in points}
        assert len(kept) == step.x
        seen[step.repeat].append(kept)
    for nested in seen.values():
        assert len(nested) == 8
        assert all(small < large for small, large in zip(nested, nested[1:], strict=False))
    assert seen[0][0] != seen[1][0] or seen[0][1] != seen[1][1]


def test_where_classes_are_small_all_samples_shrink_alike():
    ring = bench("ring", "kernel_distance", samples=600, train=2000)
    sizes = {len(step.samples()[0].images) for step in classes_kept(ring)}
    (n,) = sizes
    smallest = int(ring.train.labels.bincount().min())
    assert smallest <= n < 600


def test_missing_modes_lower_recall_and_raise_distances_but_leave_precision():
    ring = bench("ring", "frechet_distance", "recall", "precision", "modes_covered", repeats=1)
    found = values(ring, "classes_kept", classes_kept(ring))
    by_score = {
        name: [v for (score, _, _), (v,) in found.items() if score == name]
        for name in ("fd_pixels", "recall_pixels", "precision_pixels", "modes_covered")
    }
    assert by_score["modes_covered"] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert by_score["recall_pixels"] == sorted(by_score["recall_pixels"])
    assert by_score["fd_pixels"][0] > 10 * by_score["fd_pixels"][-1]
    assert min(by_score["precision_pixels"]) > 0.75


def test_the_floor_of_coverage_is_its_expected_value_and_that_of_the_kernel_distance_is_nought():
    ring = bench("ring", "kernel_distance", "coverage", samples=500, repeats=5)
    steps = floor_by_n(ring)
    assert {step.x for step in steps} == {50, 100, 200, 500, 1000, 2000}
    found = values(ring, "floor_by_n", [step for step in steps if step.x <= 500])
    for (name, series, n), repeats in found.items():
        if name == "coverage_pixels":
            expected = 1 - math.prod((n - i) / (2 * n - i) for i in range(1, 6))
            # One draw of n = 50 has a standard deviation of about 0.03; 5 are averaged.
            assert np.mean(repeats) == pytest.approx(expected, abs=0.05), (series, n)
        else:
            spread = np.std(repeats, ddof=1) / math.sqrt(len(repeats))
            assert abs(np.mean(repeats)) < 6 * spread, (series, n)


def test_the_floor_of_a_frechet_distance_falls_with_n():
    digits = bench("digits", "frechet_distance", samples=300)
    found = values(digits, "floor_by_n", floor_by_n(digits))
    train = [np.mean(v) for (_, series, _), v in found.items() if series == "train"]
    assert len(train) == 4  # 50, 100, 200 and all 300 of select
    assert train == sorted(train, reverse=True)


def test_every_ladder_of_images_is_climbed_by_a_kernel_distance():
    digits = bench("digits", "kernel_distance", samples=300, repeats=1)
    found = values(digits, "ladders", ladders(digits))
    for name, ladder in LADDERS.items():
        scores = [v for (_, series, _), (v,) in found.items() if series == name]
        assert len(scores) == 1 + len(ladder.images)
        assert scores == sorted(scores), name
        assert scores[-1] > 10 * abs(scores[0])


def test_points_have_no_blur_and_no_negatives():
    assert {step.series for step in ladders(bench("ring", "kernel_distance"))} == {"noise"}


def test_a_repeat_spoils_the_same_images_at_every_degree():
    digits = bench("digits", "kernel_distance", samples=50)
    steps = [s for s in ladders(digits) if s.series == "invert" and s.repeat == 1]
    untouched, inverted = steps[0].samples()[0].images, steps[-1].samples()[0].images
    assert torch.equal(inverted, -untouched)
    other = next(s for s in ladders(digits) if s.repeat == 0).samples()[0].images
    assert not torch.equal(other, untouched)


@pytest.mark.parametrize(
    ("dataset", "message"), [("photo_patches", "has no labels"), ("dirac", "has one class")]
)
def test_data_without_classes_have_no_experiment_of_classes(dataset, message):
    with pytest.raises(Unavailable, match=message):
        classes_kept(bench(dataset, "diversity", samples=60))


def test_classes_too_small_to_leave_one_out_have_no_experiment_of_classes():
    """One level has no order: every score would be said not to see missing classes."""
    with pytest.raises(Unavailable, match="train has fewer than 200 images"):
        classes_kept(bench("ring", "kernel_distance", samples=200, train=210))


def test_metrics_that_ask_for_training_images_take_no_part():
    config = measure("memorization", "kernel_distance", samples=60)
    kept = Bench(config, DATASETS.build("ring"), None, repeats=1).judge.config.metrics
    assert [metric.name for metric in kept] == ["kernel_distance"]


def test_a_score_that_is_refused_leaves_the_others_and_its_reason():
    metrics = (METRICS.build("kernel_distance"), METRICS.build("precision", k=20))
    config = MeasureConfig(FEATURES.build("pixels"), metrics, 20, every=1)
    few = Bench(config, DATASETS.build("ring"), None, repeats=1)
    (step,) = [s for s in ladders(few) if s.x == 0]
    assert [r.name for r in few.readings("ladders", step)] == ["kd_pixels"]
    assert "precision_pixels" in few.refused


def test_the_global_seed_changes_nothing():
    def readings(seed: int) -> list:
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        digits = bench("digits", "kernel_distance", samples=60, repeats=1)
        steps = [*classes_kept(digits), *floor_by_n(digits), *ladders(digits)]
        return [reading.value for step in steps[::5] for reading in digits.readings("x", step)]

    assert readings(1) == readings(2)


def test_the_name_of_a_score_tells_no_n():
    pixels = FEATURES.build("pixels")
    assert bare_name(METRICS.build("frechet_distance"), pixels) == "fd_pixels"
    assert bare_name(METRICS.build("modes_covered"), pixels) == "modes_covered"
