from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import mannwhitneyu, norm

from ganstudy.gan.datasets import DATASETS, normalize
from ganstudy.measure.features import FEATURES, write_torch
from ganstudy.measure.metrics import METRICS, Drawn, Sample, data_copying
from ganstudy.measure.metrics.memorization import (
    Nearest,
    mann_whitney_z,
    nearest_training,
    training_cells,
    training_reader,
)
from ganstudy.measure.protocol import Evaluator, MeasureConfig
from tests.measure.metrics.samples import sample

TRAINING = sample(1000, 4, seed=10_000)
CENTRES = training_cells(TRAINING)


def near(x) -> Nearest:
    return nearest_training(x, TRAINING, CENTRES)


def one_cell(distances) -> Nearest:
    return Nearest(np.asarray(distances, dtype=float), np.zeros(len(distances), dtype=int))


def gamma(n: int, seed: int, scale: float = 1.0):
    return np.random.default_rng(seed).gamma(2.0, scale, size=n)


def test_one_cell_is_the_mann_whitney_test():
    x, y = gamma(60, 0, 0.7), gamma(45, 1)
    theirs = mannwhitneyu(x, y, method="asymptotic", use_continuity=False)
    z = data_copying(one_cell(x), one_cell(y)).value
    assert 2 * norm.cdf(-abs(z)) == pytest.approx(theirs.pvalue, rel=1e-9)
    assert z == pytest.approx((theirs.statistic - 60 * 45 / 2) / math.sqrt(60 * 45 * 106 / 12))
    assert z < 0  # the generated distances are the smaller ones
    assert mann_whitney_z(y, x).value == pytest.approx(-z)


def test_the_score_is_the_mean_over_cells_weighted_by_the_held_out_shares():
    generated = Nearest(gamma(200, 0), np.repeat([0, 1, 2, 3], [100, 60, 19, 21]))
    held_out = Nearest(gamma(100, 1), np.repeat([0, 1, 2, 3, 4], [30, 50, 9, 1, 10]))
    first = mann_whitney_z(generated.distances[:100], held_out.distances[:30])
    second = mann_whitney_z(generated.distances[100:160], held_out.distances[30:80])
    # Cell 2 holds 19 generated ones, cell 3 one held-out one, cell 4 none generated.
    score = data_copying(generated, held_out)
    assert score.value == pytest.approx((30 * first.value + 50 * second.value) / 80)
    error = math.hypot(30 * first.standard_error, 50 * second.standard_error) / 80
    assert score.standard_error == pytest.approx(error)


def test_where_no_cell_holds_enough_all_are_one():
    x, y = gamma(30, 0), gamma(40, 1)
    generated, held_out = Nearest(x, np.arange(30) % 2), Nearest(y, np.full(40, 2))
    assert data_copying(generated, held_out) == mann_whitney_z(x, y)


def test_ties_count_half():
    x, y = np.repeat([0.0, 1.0], 10), np.repeat([0.0, 1.0], 15)
    assert mann_whitney_z(x, y).value == 0
    assert data_copying(one_cell(np.zeros(20)), one_cell(np.zeros(30))).value == 0


def test_the_error_of_samples_that_do_not_overlap_is_not_0():
    low, high = np.arange(20.0), 100 + np.arange(30.0)
    apart = mann_whitney_z(low, high)
    scale = math.sqrt(12 * 20 * 30 / 51)
    assert apart.value == pytest.approx(-scale / 2)
    # With a lowest and a highest value in either sample, the shares of y below x are 1 / 64,
    # 20 times 2 / 64 and 63 / 64; those of x below y are 1 / 44, 30 times 42 / 44 and 43 / 44.
    below = np.array([1, *[2] * 20, 63]) / 64
    above = np.array([1, *[42] * 30, 43]) / 44
    error = math.sqrt(below.var(ddof=1) / 22 + above.var(ddof=1) / 32)
    assert apart.standard_error == pytest.approx(scale * error)
    assert mann_whitney_z(high, low).standard_error == pytest.approx(apart.standard_error)
    # One pair out of order out of 600 is hardly more certain than none.
    high[0] = 18.5
    assert mann_whitney_z(low, high).standard_error == pytest.approx(apart.standard_error, 0.1)
    tied = data_copying(one_cell(np.zeros(20)), one_cell(np.zeros(30)))
    assert tied.standard_error > 0
    copies = one_cell(np.zeros(25))
    assert data_copying(copies, one_cell(high)).standard_error > 0


def draw_pairs(kind: str, share: float, m: int, n: int, seed: int):
    """Draw x and y of which P(y < x) is `share`, by Lehmann's or by an outlier's alternative."""
    rng = np.random.default_rng(seed)
    if kind == "lehmann":
        return rng.exponential(share / (1 - share), m), rng.exponential(1, n)
    if kind == "outliers of x":
        return np.where(rng.random(m) < share, 5, 0) + 0.1 * rng.random(m), 1 + rng.random(n)
    return rng.random(m) + 1, np.where(rng.random(n) < share, 0, 5) + 0.1 * rng.random(n)


@pytest.mark.parametrize("kind", ["lehmann", "outliers of x", "outliers of y"])
@pytest.mark.parametrize("sizes", [(20, 20), (20, 5), (60, 30)])
@pytest.mark.parametrize("share", [0.5, 0.05, 0.002])
def test_two_errors_cover_the_truth_wherever_it_lies(kind, sizes, share):
    m, n = sizes
    truth = math.sqrt(12 * m * n / (m + n + 1)) * (share - 0.5)
    scores = [mann_whitney_z(*draw_pairs(kind, share, m, n, seed)) for seed in range(100)]
    covered = np.mean([abs(s.value - truth) <= 1.96 * s.standard_error for s in scores])
    # 0.88 to 1 over 2,000 repeats; 100 of them know 0.88 to 0.033. Without the added values it
    # is 0.02 to 0.4 where the share is 0.002.
    assert covered >= 0.78


@pytest.mark.parametrize("scale", [1.0, 0.6])
def test_the_standard_error_matches_the_spread_over_repeats(scale):
    scores = [mann_whitney_z(gamma(80, s, scale), gamma(50, s + 999)) for s in range(400)]
    spread = np.std([s.value for s in scores], ddof=1)
    told = np.sqrt(np.mean([s.standard_error**2 for s in scores]))
    # 400 repeats know the spread to 3.5 %.
    assert told == pytest.approx(spread, rel=0.12)
    if scale == 1.0:
        assert spread == pytest.approx(1, abs=0.12)


def counted_shares(generated: Nearest, held_out: Nearest):
    cells = [c for c in range(10) if (generated.cells == c).sum() >= 20]
    shares = np.array([(held_out.cells == c).sum() for c in cells])
    return shares / shares.sum()


def test_fresh_draws_are_around_0_and_vary_as_the_cells_say():
    values, shares, alone = [], [], []
    for seed in range(150):
        generated, held_out = near(sample(200, seed=seed)), near(sample(200, seed=seed + 500))
        values.append(data_copying(generated, held_out))
        shares.append(counted_shares(generated, held_out))
        alone.append(data_copying(*(one_cell(x.distances) for x in (generated, held_out))))
    found = np.array([score.value for score in values])
    spread = found.std(ddof=1)
    assert abs(found.mean()) < 4 * spread / math.sqrt(150)
    assert abs(found).max() < 3
    # Independent z scores of variance 1 with these weights; 150 repeats know it to 6 %.
    expected = math.sqrt(np.mean([(share**2).sum() for share in shares]))
    assert spread == pytest.approx(expected, rel=0.2)
    assert np.mean([s.standard_error for s in values]) == pytest.approx(expected, rel=0.05)
    assert np.std([score.value for score in alone]) == pytest.approx(1, rel=0.2)


def test_copies_are_far_below_0_and_images_unlike_the_training_images_far_above():
    held_out = near(sample(300, seed=1))
    noise = 0.01 * sample(300, seed=2)
    assert data_copying(near(TRAINING[:300] + noise), held_out).value < -5
    # Half of them copies.
    half = np.concatenate([TRAINING[:150] + noise[:150], sample(150, seed=3)])
    assert -5 < data_copying(near(half), held_out).value < -2
    assert data_copying(near(sample(300, seed=4, scale=1.6)), held_out).value > 3
    shifted = near(sample(300, seed=5, shift=8.0))
    assert data_copying(shifted, held_out).value > 3


def test_more_noise_on_copies_raises_the_score():
    held_out = near(sample(300, seed=1))
    found = [
        data_copying(near(TRAINING[:300] + s * sample(300, seed=2)), held_out).value
        for s in (0.0, 0.1, 0.3, 0.5, 1.0)
    ]
    assert found == sorted(found)
    assert found[0] < -5
    assert found[-1] > 2


def test_distances_are_those_of_all_pairs_also_where_tiny():
    features = np.concatenate([sample(50, 20, seed=0), sample(50, 20, seed=1)]).astype(np.float32)
    training = 100 + np.concatenate([features[:50], sample(500, 20, seed=3).astype(np.float32)])
    features = features + np.float32(100)
    centres = training_cells(training)
    found = nearest_training(features, training, centres)
    every = cdist(features.astype(np.float64), training.astype(np.float64))
    np.testing.assert_allclose(found.distances, every.min(axis=1), rtol=1e-9, atol=0)
    assert (found.distances[:50] == 0).all()  # differences of squares would make it 0.01
    np.testing.assert_array_equal(found.cells, cdist(features, centres).argmin(axis=1))


def test_cells_are_those_of_separate_clusters_and_no_more_than_rows():
    corners = 100.0 * np.eye(10)
    centres = training_cells(np.repeat(corners, 20, axis=0) + 0.1 * sample(200, 10))
    assert set(cdist(corners, centres).argmin(axis=1)) == set(range(10))
    assert cdist(corners, centres).min(axis=1).max() < 0.5
    assert len(training_cells(sample(4))) == 4


def test_the_reader_keeps_the_training_features(tmp_path):
    digits = DATASETS.build("digits")
    network = FEATURES.build("pixels").extractor(digits)
    reader = training_reader(digits, network, {"dimension": 64}, tmp_path)
    train = digits.images("train")
    assert reader.told == {"dimension": 64, "n_training": len(train), "cells": 10}
    (kept,) = tmp_path.glob("train-*.pt")
    images = normalize(digits.images("select"))
    drawn = Drawn(images, Sample(network(images)))
    found = reader.read(drawn)
    every = cdist(network(images), network(train))
    np.testing.assert_allclose(found.distances, every.min(axis=1), rtol=1e-5)
    # What lies there is used: features moved by 1 in each of 64 dimensions.
    moved = torch.load(kept, weights_only=True)
    moved["features"] = torch.from_numpy(network(images) + 1)
    write_torch(kept, moved)
    again = training_reader(digits, network, {}, tmp_path).read(drawn)
    assert again.distances.max() <= 8 + 1e-6


def test_real_digits(tmp_path):
    mnist = DATASETS.build("mnist5k")
    network = FEATURES.build("pixels").extractor(mnist)
    reader = training_reader(mnist, network, {}, tmp_path)
    held_out = mnist.images("select")[:500]

    def score(images) -> float:
        read = [reader.read(Drawn(x, Sample(network(x)))) for x in (images, held_out)]
        return data_copying(*read).value

    train = normalize(mnist.images("train")[:500])
    # Held-out digits of the other split are as near to the training digits as these.
    assert abs(score(mnist.images("report")[:500])) < 1.5
    assert score(train) < -6
    rng = torch.Generator().manual_seed(0)
    noisy = train + 0.1 * torch.randn(500, 1, 28, 28, generator=rng)
    assert score(noisy.clamp(-1, 1)) < -3
    assert score(torch.rand(500, 1, 28, 28, generator=rng) * 2 - 1) > 3


def test_contract():
    metric, held_out = METRICS.build("memorization"), near(sample(200, seed=1))
    assert (metric.reads, metric.direction) == ("training", "maximize")
    assert metric(held_out, held_out).value == pytest.approx(metric.identity_value, abs=1e-9)
    copies = metric(near(TRAINING[:200]), held_out)
    assert copies.value < metric(near(sample(200, seed=2)), held_out).value
    order = np.random.default_rng(0).permutation(200)
    assert metric(near(TRAINING[:200][order]), held_out) == pytest.approx(copies)
    np.random.seed(3)  # noqa: NPY002
    # Sums over threads are rounded in the order in which these end.
    np.testing.assert_allclose(training_cells(TRAINING), CENTRES, rtol=0, atol=1e-12)


def bad(n: int, value: float = 1.0, cells: int | None = None) -> Nearest:
    return Nearest(np.full(n, value), np.zeros(n if cells is None else cells, dtype=int))


@pytest.mark.parametrize(
    ("generated", "rule"),
    [
        (bad(30, math.nan), "generated distances hold 30 non-finite values"),
        (bad(30, math.inf), "generated distances hold 30 non-finite values"),
        (bad(30, -1.0), "generated distances must not be negative, got -1"),
        (bad(19), r"n >= 20, got \(19,\), \(19,\)"),
        (bad(0), r"n >= 20, got \(0,\), \(0,\)"),
        (bad(30, cells=29), r"got \(30,\), \(29,\)"),
        (Nearest(np.ones((30, 1)), np.zeros((30, 1), int)), r"got \(30, 1\), \(30, 1\)"),
    ],
)
def test_bad_input_is_a_value_error(generated, rule):
    with pytest.raises(ValueError, match=rule):
        METRICS.build("memorization")(generated, bad(30))


@pytest.mark.parametrize(
    ("held_out", "rule"),
    [
        (bad(30, math.nan), "held-out distances hold 30 non-finite values"),
        (bad(1), r"held-out distances and cells must be two arrays of one length n >= 2"),
    ],
)
def test_bad_held_out_images_are_a_value_error(held_out, rule):
    with pytest.raises(ValueError, match=rule):
        METRICS.build("memorization")(bad(30), held_out)


def test_what_cannot_be_told_is_refused():
    metric = METRICS.build("memorization")
    with pytest.raises(ValueError, match="training images of dirac are one and the same"):
        metric.check(DATASETS.build("dirac"))
    metric.check(DATASETS.build("ring"))
    with pytest.raises(ValueError, match="at least 20 samples, the splits offer 19"):
        metric.check_size(19, 4)


def test_all_kinds_of_readers_under_one_evaluator(tmp_path):
    mnist = DATASETS.build("mnist5k")
    quick = {"name": "prd_f8", "runs": 2}
    names = ["kernel_distance", "inception_score", "ms_ssim", quick, "memorization"]
    config = MeasureConfig.from_dict(
        {"features": {"name": "small_cnn", "epochs": 1}, "metrics": names, "samples": 200},
        budget=6,
    )
    config.check(mnist)
    judge = Evaluator(config, mnist, cache=tmp_path)
    held_out = judge.scores(normalize(mnist.images("report")[:200]))
    always = {"diversity_small_cnn_200", "coverage_small_cnn_200"}
    network = {f"{short}_small_cnn_200" for short in ("kd", "is", "prd_f8", "memorization")}
    assert set(held_out) == {*network, "ms_ssim_200", *always}
    one = judge.scores(normalize(mnist.images("train")[:1]).expand(200, -1, -1, -1))
    assert one["ms_ssim_200"].value == pytest.approx(1)
    assert one["is_small_cnn_200"].value == pytest.approx(1)
    assert one["memorization_small_cnn_200"].value < -3
    assert one["prd_f8_small_cnn_200"].value < 0.3 < held_out["prd_f8_small_cnn_200"].value
    assert 4 < held_out["is_small_cnn_200"].value < 10
    assert abs(held_out["memorization_small_cnn_200"].value) < 2
    broken = judge.scores(torch.full((200, 1, 28, 28), math.nan))
    assert set(broken) == set(held_out)
    assert all(math.isnan(score.value) for score in broken.values())
    table = judge.protocol()
    assert {name: row["floor"] for name, row in table.items()} == {
        name: score.value for name, score in held_out.items()
    }
    row = table["memorization_small_cnn_200"]
    assert (row["reads"], row["n_training"], row["cells"]) == ("training", 3000, 10)
