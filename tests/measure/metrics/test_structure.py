from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure as their_ms_ssim,
)
from torchmetrics.functional.image import structural_similarity_index_measure as their_ssim

from ganstudy.gan.datasets import DATASETS, normalize
from ganstudy.measure.metrics import METRICS, ms_ssim
from ganstudy.measure.metrics.structure import (
    WEIGHTS,
    mean_pair_similarity,
    most_scales,
    similarity,
)


def smooth(n: int, side: int = 28, channels: int = 1, seed: int = 0):
    """Random blurred images in [-1, 1]: neighbouring pixels are alike, as in photographs."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.normal(size=(n, channels, 6, 6)))
    fine = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")
    return torch.tanh(fine).numpy()


def related(n: int, side: int = 28, channels: int = 1):
    a = smooth(n, side, channels)
    return a, np.clip(0.7 * a + 0.3 * smooth(n, side, channels, seed=1), -1, 1)


def unit(x):
    return torch.from_numpy((x + 1) / 2)


def their_whole_windows(a, b):
    """SSIM of torchmetrics at each pixel, less the edge of 5 whose windows it pads."""
    _, full = their_ssim(a, b, data_range=1.0, reduction="none", return_full_image=True)
    return full[..., 5:-5, 5:-5].mean(dim=(1, 2, 3))


def their_contrast(a, b):
    _, contrast = their_ssim(
        a, b, data_range=1.0, reduction="none", return_contrast_sensitivity=True
    )
    return contrast


@pytest.mark.parametrize(("side", "channels"), [(28, 1), (33, 3)])
def test_both_terms_of_one_scale_agree_with_torchmetrics(side, channels):
    a, b = related(6, side, channels)
    whole, contrast = (term.mean(axis=1) for term in similarity((a + 1) / 2, (b + 1) / 2))
    np.testing.assert_allclose(whole, their_whole_windows(unit(a), unit(b)), rtol=1e-9)
    np.testing.assert_allclose(contrast, their_contrast(unit(a), unit(b)), rtol=1e-9)
    np.testing.assert_allclose(ms_ssim(a, b, scales=1), whole)


@pytest.mark.parametrize(("side", "scales"), [(28, 2), (45, 3), (64, 3), (180, 5)])
def test_several_scales_agree_with_torchmetrics_term_by_term(side, scales):
    a, b = related(4, side)
    x, y, expected = unit(a), unit(b), torch.ones(4)
    for scale, weight in enumerate(np.array(WEIGHTS[:scales]) / sum(WEIGHTS[:scales])):
        last = scale == scales - 1
        term = their_whole_windows(x, y) if last else their_contrast(x, y)
        expected = expected * term.clamp(min=0) ** weight
        x, y = avg_pool2d(x, 2), avg_pool2d(y, 2)
    found = ms_ssim(a, b)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert found.min() > 0.05


def test_five_scales_differ_from_torchmetrics_by_the_padding_of_the_coarsest_only():
    a, b = related(4, 180)
    theirs = their_ms_ssim(unit(a), unit(b), data_range=1.0, reduction="none", betas=WEIGHTS)
    # The weights of all five scales add up to 1.0001; one scale of 0.1333 sees other borders.
    np.testing.assert_allclose(ms_ssim(a, b), theirs, atol=0.01)


def test_a_colour_image_has_the_mean_of_its_channels():
    """As in TensorFlow's ssim_multiscale, pytorch-msssim and compare_gan.

    torchmetrics gives the value of each channel; of a whole colour image it averages the channels'
    terms before it takes their powers, which is another number.
    """
    a, b = smooth(2, 180, 3), smooth(2, 180, 3, seed=1)
    b[:, 0] = 0.9 * a[:, 0] + 0.1 * b[:, 0]  # one channel is much alike, the others are not
    settings = {"data_range": 1.0, "reduction": "none", "betas": WEIGHTS, "normalize": "relu"}
    grey = [their_ms_ssim(unit(a[:, [c]]), unit(b[:, [c]]), **settings) for c in range(3)]
    expected = torch.stack(grey).mean(dim=0)
    assert (their_ms_ssim(unit(a), unit(b), **settings) - expected).abs().max() > 0.05
    # Wider than above, for images less alike: the coarsest scale sees other borders.
    np.testing.assert_allclose(ms_ssim(a, b), expected, atol=0.02)
    parts = np.mean([ms_ssim(a[:, [c]], b[:, [c]]) for c in range(3)], axis=0)
    np.testing.assert_allclose(ms_ssim(a, b), parts, rtol=1e-12)


def test_a_channel_that_has_no_likeness_counts_as_0():
    a, b = smooth(3, 28, 3), smooth(3, 28, 3)
    b[:, 1] *= -1
    np.testing.assert_allclose(ms_ssim(a, b), [2 / 3] * 3)


def test_constant_images_have_the_closed_form_of_the_luminance():
    a, b = (np.full((2, 1, 28, 28), x) for x in (-0.5, 0.5))
    luminance = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)
    # The contrast terms are C2 / C2; the coarsest scale's share of the weights is the exponent.
    exponent = 0.2856 / (0.0448 + 0.2856)
    assert ms_ssim(a, b) == pytest.approx([luminance**exponent] * 2, rel=1e-9)


def test_equal_images_are_1_and_a_negative_has_none():
    a, b = related(5)
    assert ms_ssim(a, a) == pytest.approx([1] * 5)
    np.testing.assert_allclose(ms_ssim(a, b), ms_ssim(b, a))
    assert ms_ssim(a, -a).max() == 0
    noisy = np.clip(a + np.random.default_rng(0).normal(size=a.shape), -1, 1)
    assert (ms_ssim(a, noisy) < ms_ssim(a, b)).all()


@pytest.mark.parametrize(
    ("side", "scales"),
    [(11, 1), (21, 1), (22, 2), (28, 2), (32, 2), (43, 2), (44, 3), (88, 4), (176, 5), (999, 5)],
)
def test_as_many_scales_as_the_window_fits(side, scales):
    assert most_scales(side, 2 * side) == scales
    assert side / 2 ** (scales - 1) >= 11
    assert scales == 5 or side / 2**scales < 11


def test_the_score_is_the_mean_over_disjoint_pairs():
    x = smooth(4)
    # The three ways to pair four images.
    ways = [ms_ssim(x[[0, a]], x[[i, b]]) for i, a, b in ((1, 2, 3), (2, 1, 3), (3, 1, 2))]
    score = mean_pair_similarity(x)
    expected = [(way.mean(), way.std(ddof=1) / math.sqrt(2)) for way in ways]
    assert sum(score == pytest.approx(pair) for pair in expected) == 1
    assert mean_pair_similarity(x, pairs=2) == score
    assert mean_pair_similarity(smooth(12), pairs=5) != mean_pair_similarity(smooth(12), pairs=6)


def test_the_score_is_unbiased_over_pairs_and_its_error_honest():
    scores = [mean_pair_similarity(smooth(40, 14, seed=s)) for s in range(150)]
    values = np.array([s.value for s in scores])
    a, b = smooth(3000, 14, seed=1000), smooth(3000, 14, seed=1001)
    fresh = ms_ssim(a, b)
    error = math.hypot(values.std() / math.sqrt(150), fresh.std() / math.sqrt(3000))
    # Sorted neighbours that were compared with one another would be too much alike.
    assert values.mean() == pytest.approx(fresh.mean(), abs=4 * error)
    told = np.sqrt(np.mean([s.standard_error**2 for s in scores]))
    assert told == pytest.approx(values.std(ddof=1), rel=0.25)


def test_likes_are_paired_as_often_as_by_chance():
    """A half of the images is one image: a fourth of the pairs are of its copies, not a half."""
    x = smooth(400, 14)
    x[:200] = x[0]
    score = mean_pair_similarity(x, pairs=200)
    variety = mean_pair_similarity(x[200:], pairs=100).value
    # 1 for a fourth of the pairs, the variety's own value for the rest; binomial, four errors.
    expected = 0.25 + 0.75 * variety
    assert score.value == pytest.approx(expected, abs=4 * math.sqrt(0.25 * 0.75 / 200))


def test_blocks_change_nothing():
    x = smooth(260, 14)
    large = mean_pair_similarity(x, pairs=130)  # three blocks
    rng = np.random.default_rng(0)
    assert mean_pair_similarity(rng.permutation(x), pairs=130) == pytest.approx(large)
    np.testing.assert_allclose(
        ms_ssim(x[:130], x[130:]),
        np.concatenate([ms_ssim(x[i : i + 1], x[i + 130 : i + 131]) for i in range(130)]),
    )


def test_contract():
    metric, x = METRICS.build("ms_ssim"), smooth(60)
    assert (metric.reads, metric.direction, metric.short) == ("images", "minimize", "ms_ssim")
    assert metric.identity_value is None
    varied = metric(x, x)
    collapsed = metric(np.repeat(x[:1], 60, axis=0), x)
    assert collapsed.value == pytest.approx(1)
    assert collapsed.standard_error == pytest.approx(0, abs=1e-12)
    fewer = metric(np.repeat(x[:6], 10, axis=0), x)
    assert varied.value < fewer.value < collapsed.value
    order = np.random.default_rng(0).permutation(60)
    assert metric(x[order], x) == pytest.approx(varied)
    assert metric(x, smooth(4, seed=5)) == varied  # the real images stand beside it as the floor
    np.random.seed(3)  # noqa: NPY002
    assert metric(x, x) == varied


@pytest.mark.parametrize(
    ("bad", "rule"),
    [
        (np.full((4, 1, 28, 28), np.nan), "non-finite"),
        (np.full((4, 1, 28, 28), np.inf), "non-finite"),
        (smooth(1), r"got shape \(1, 1, 28, 28\)"),
        (smooth(3), "at least 4 images, got 3"),
        (smooth(4)[:, 0], r"got shape \(4, 28, 28\)"),
        (smooth(4, 14), r"images differ: \(1, 14, 14\) against \(1, 28, 28\)"),
    ],
)
def test_bad_input_is_a_value_error(bad, rule):
    with pytest.raises(ValueError, match=rule):
        METRICS.build("ms_ssim")(bad, smooth(4))


@pytest.mark.parametrize(
    ("a", "b", "scales", "rule"),
    [
        (smooth(3), smooth(4), None, r"got \(3, 1, 28, 28\) and \(4, 1, 28, 28\)"),
        (smooth(3), np.full((3, 1, 28, 28), np.nan), None, "hold 2352 non-finite values"),
        (smooth(3), smooth(3), 3, r"scales must lie in \[1, 2\] at 28x28, got 3"),
        (smooth(3), smooth(3), 0, r"scales must lie in \[1, 2\] at 28x28, got 0"),
        (smooth(3, 10), smooth(3, 10), None, "at least 11, got 10x10"),
    ],
)
def test_pairs_that_cannot_be_compared_are_refused(a, b, scales, rule):
    with pytest.raises(ValueError, match=rule):
        ms_ssim(a, b, scales)


@pytest.mark.parametrize(
    ("dataset", "rule"),
    [("ring", "points have no structure"), ("digits", "sides of at least 11, got 8x8")],
)
def test_images_too_small_for_the_window_are_refused(dataset, rule):
    with pytest.raises(ValueError, match=rule):
        METRICS.build("ms_ssim").check(DATASETS.build(dataset))


def test_too_few_samples_are_refused():
    metric = METRICS.build("ms_ssim")
    with pytest.raises(ValueError, match="at least 4 samples, the splits offer 3"):
        metric.check_size(3, 784)
    metric.check_size(4, 784)


def test_one_digit_is_more_alike_than_all_digits():
    mnist = DATASETS.build("mnist5k")
    images, labels = normalize(mnist.images("train")).numpy(), mnist.labels("train").numpy()
    everything = mean_pair_similarity(images[:600])
    ones = mean_pair_similarity(images[labels == 1])
    apart = math.hypot(everything.standard_error, ones.standard_error)
    assert ones.value - everything.value > 5 * apart
