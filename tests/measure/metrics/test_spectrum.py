from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d, conv_transpose2d, interpolate

from ganstudy.gan.datasets import DATASETS, normalize
from ganstudy.measure.metrics import METRICS
from ganstudy.measure.metrics.spectrum import Lattice, _power, checkerboard, pattern_share


def noise(n: int, side: int = 16, channels: int = 2, seed: int = 0):
    return np.random.default_rng(seed).normal(size=(n, channels, side, side))


def board(side: int, period: int = 2):
    """A pattern of mean 0 and mean square 1 that repeats every `period` pixels."""
    rows = np.cos(2 * np.pi * np.arange(side) / period)
    pattern = np.outer(rows, rows)
    return pattern / np.sqrt((pattern**2).mean())


@pytest.mark.parametrize("period", [2, 4])
def test_the_share_is_that_of_the_fourier_power_at_the_patterns_frequencies(period):
    x = noise(5)
    power = np.abs(np.fft.fft2(x)) ** 2
    power[..., 0, 0] = 0
    at = power[..., :: 16 // period, :: 16 // period].sum()
    assert pattern_share(x, period).value == pytest.approx(at / power.sum(), rel=1e-12)


@pytest.mark.parametrize("period", [2, 4])
def test_the_share_of_white_noise(period):
    expected = (period**2 - 1) / (16 * 16 - 1)
    assert pattern_share(noise(4000), period).value == pytest.approx(expected, rel=0.05)


def test_white_noise_against_white_noise_is_1_with_an_honest_error():
    scores = [checkerboard(noise(60, seed=s), noise(90, seed=s + 999)) for s in range(200)]
    values = [score.value for score in scores]
    spread = np.std(values, ddof=1)
    # A ratio of two shares of relative variance v is 1 + v in the mean, v = 1 / 270 here.
    assert np.mean(values) == pytest.approx(1, abs=0.01 + 4 * spread / np.sqrt(200))
    assert np.mean([s.standard_error for s in scores]) == pytest.approx(spread, rel=0.25)


@pytest.mark.parametrize("period", [2, 4])
@pytest.mark.parametrize("amplitude", [0.1, 0.5])
def test_an_added_pattern_raises_the_score_by_the_closed_form(period, amplitude):
    real = noise(20)
    added = amplitude * board(16, period)
    # Both signs: what image and pattern have in common cancels.
    generated = np.concatenate([real + added, real - added])
    centred = real - real.mean(axis=(2, 3), keepdims=True)
    variance, share = (centred**2).mean(), pattern_share(real, period).value
    expected = (share * variance + amplitude**2) / (variance + amplitude**2) / share
    assert checkerboard(generated, real, period).value == pytest.approx(expected, rel=1e-9)


def test_period_4_holds_patterns_of_period_2_but_not_the_other_way_round():
    real = noise(200)
    two, four = real + 0.5 * board(16, 2), real + 0.5 * board(16, 4)
    assert checkerboard(two, real, 4).value > 2
    assert checkerboard(four, real, 2).value == pytest.approx(1, abs=0.3)


def test_brightness_and_contrast_change_nothing():
    x, real = noise(30), noise(30, seed=1)
    plain = checkerboard(x, real)
    assert checkerboard(3 * x + 0.7, real) == pytest.approx(plain, rel=1e-9)


def test_constant_images_have_no_pattern():
    flat, real = np.full((4, 1, 8, 8), 0.3), noise(4, 8, 1)
    assert checkerboard(flat, real).value == 0
    assert np.isnan(checkerboard(flat, real).standard_error)  # no variance, no share of it
    assert checkerboard(flat, flat).value == 1
    assert checkerboard(real, flat).value == np.inf


def test_transposed_convolution_draws_more_of_it_than_resize_and_convolution():
    rng = torch.Generator().manual_seed(0)
    coarse = torch.randn(200, 4, 4, 4, generator=rng)
    smooth = interpolate(coarse, size=(16, 16), mode="bicubic")
    kernels = torch.randn(4, 1, 3, 3, generator=rng)
    transposed = conv_transpose2d(smooth, kernels, stride=2, padding=1, output_padding=1)
    resized = conv2d(interpolate(smooth, scale_factor=2), kernels.transpose(0, 1), padding=1)
    assert transposed.shape == resized.shape == (200, 1, 32, 32)
    assert checkerboard(transposed.numpy(), resized.numpy()).value > 10


def test_contract():
    metric, real = METRICS.build("checkerboard"), noise(40)
    assert metric(real, real).value == metric.identity_value
    worse = metric(real + 0.3 * board(16), real).value
    assert worse > 1
    assert metric.direction == "minimize"
    order = np.random.default_rng(0).permutation(40)
    assert metric((real + 0.3 * board(16))[order], real).value == pytest.approx(worse, rel=1e-9)
    generated = noise(40, seed=1)
    swapped = metric(real, generated).value
    assert metric(generated, real).value == pytest.approx(1 / swapped)


@pytest.mark.parametrize(
    ("bad", "rule"),
    [
        (np.full((4, 2, 16, 16), np.nan), "non-finite"),
        (np.full((4, 2, 16, 16), np.inf), "non-finite"),
        (noise(1), r"got shape \(1, 2, 16, 16\)"),
        (noise(4)[:, 0], r"got shape \(4, 16, 16\)"),
        (noise(4, 8), r"images differ: \(2, 8, 8\) against \(2, 16, 16\)"),
    ],
)
def test_bad_input_is_a_value_error(bad, rule):
    with pytest.raises(ValueError, match=rule):
        METRICS.build("checkerboard")(bad, noise(4))


@pytest.mark.parametrize(
    ("dataset", "period", "rule"),
    [
        ("ring", 2, "points hold no pattern"),
        ("mnist5k", 8, "multiples of 8 from 16 on, got 28x28"),
        ("digits", 8, "multiples of 8 from 16 on, got 8x8"),
    ],
)
def test_sides_that_hold_no_such_pattern_are_refused(dataset, period, rule):
    with pytest.raises(ValueError, match=rule):
        METRICS.build("checkerboard", period=period).check(DATASETS.build(dataset))


def test_real_images_without_a_pattern_are_refused(tmp_path):
    greys = np.arange(200, dtype=np.uint8)[:, None, None]
    np.savez(tmp_path / "flat.npz", images=np.broadcast_to(greys, (200, 8, 8)))
    flat = DATASETS.build("npz", path=str(tmp_path / "flat.npz"))
    with pytest.raises(ValueError, match="hold nothing that repeats every 2 pixels"):
        METRICS.build("checkerboard").check(flat)
    METRICS.build("checkerboard").check(DATASETS.build("digits"))


def test_photographs_against_other_photographs_hold_as_much():
    patches = DATASETS.build("photo_patches")
    select, report = (normalize(patches.images(s)).numpy() for s in ("select", "report"))
    assert 0.5 < checkerboard(report, select).value < 2


def planted(amplitude: float, period: int = 2, n: int = 500, split: str = "report"):
    images = normalize(DATASETS.build("mnist5k").images(split)[:n]).numpy()
    side = np.arange(28)
    if period == 2:
        pattern = (-1.0) ** (side[:, None] + side[None, :])
    else:
        pattern = np.cos(np.pi * side / 2)[:, None] * np.ones(28)
    return images + amplitude * pattern


def test_real_images_stand_out_no_more_than_real_images():
    lattice = Lattice(planted(0, split="select"))
    score = lattice.contrast(planted(0))
    assert abs(score.value) < 2
    assert 0 < score.standard_error < 1


@pytest.mark.parametrize("period", [2, 4])
def test_a_planted_pattern_has_the_decibels_of_its_power(period):
    lattice, amplitude = Lattice(planted(0, split="select")), 0.1
    score = lattice.contrast(planted(amplitude, period))
    # By hand: at each of its frequencies a pattern adds the square of its Fourier sum.
    at = (14, 14) if period == 2 else (7, 0)
    own, plain = (
        (np.abs(np.fft.fft2(x[:, 0])) ** 2).mean(axis=0)[at]
        for x in (planted(amplitude, period), planted(0, split="select"))
    )
    assert score.value == pytest.approx(10 * np.log10(own / plain), abs=1.0)
    assert score.value > 6


def test_neither_noise_nor_faint_images_stand_out():
    lattice = Lattice(planted(0, split="select"))
    noise = np.random.default_rng(0).standard_normal((500, 1, 28, 28))
    assert lattice.contrast(planted(0) + noise).value < 3
    assert lattice.contrast(1e-3 * planted(1.0)).value < 0


def test_the_lattice_is_the_spectrum_at_multiples_of_a_quarter():
    x = np.random.default_rng(0).standard_normal((3, 2, 8, 12))
    whole = (np.abs(np.fft.fft2(x)) ** 2).sum(axis=1)
    found = _power(x)
    assert found.shape == (3, 15, 9)
    for i, (y, z) in enumerate((y, z) for y in range(4) for z in range(4) if (y, z) != (0, 0)):
        assert found[:, i, 0] == pytest.approx(whole[:, 2 * y, 3 * z], rel=1e-4)
    around = sorted(
        whole[0, (2 + dy) % 8, (9 + dx) % 12] for dy in (-1, 0, 1) for dx in (-1, 0, 1)
    )
    assert sorted(found[0, 4 + 2]) == pytest.approx(around, rel=1e-4)


def test_sides_on_which_the_lattice_has_neighbours():
    assert Lattice.fits(8, 12)
    assert not any(Lattice.fits(*sides) for sides in ((4, 8), (30, 28), (1, 1)))


def test_constant_images_have_no_contrast():
    assert np.isnan(Lattice(planted(0)).contrast(np.zeros((10, 1, 28, 28))).value)
