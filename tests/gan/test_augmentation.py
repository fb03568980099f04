"""Each transform against a loop over images and pixels; p's controller against a sum by hand."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import pytest
import torch

from ganstudy.gan.config import TrainConfig
from ganstudy.gan.losses import LOSSES
from ganstudy.gan.stabilizers import STABILIZERS, Turn, adaptive, augmentation
from ganstudy.gan.stabilizers.adaptive import Colors, Dice, affine, resampled
from ganstudy.gan.trainer import build_trainer
from ganstudy.registry import StudyError

NAMES = ("adaptive_augment", "diff_augment")
OFF = [
    ("adaptive_augment", {"max_p": 0.0}),
    ("adaptive_augment", {"blit": False, "geometry": False, "color": False}),
    ("diff_augment", {"color": False, "translation": False, "cutout": False}),
]
ON = [
    *(("diff_augment", {k: k == kept for k in ("color", "translation", "cutout")})
      for kept in ("color", "translation", "cutout")),
    *(("adaptive_augment", {k: k == kept for k in ("blit", "geometry", "color")})
      for kept in ("blit", "geometry", "color")),
    *((name, {}) for name in NAMES),
]  # fmt: skip


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(shape, generator=rng(1), dtype=dtype) * 2 - 1


def turn(p: float = 1.0, seed: int = 0) -> Turn:
    return Turn(progress=0.0, memory={"p": torch.tensor(p)}, rng=rng(seed))


def config(name: str = "adaptive_augment", loss: str = "non_saturating", **options) -> TrainConfig:
    return TrainConfig.from_dict(
        {
            "dataset": "digits",
            "architecture": {"name": "dcgan", "width": 4, "latent_dim": 4},
            "loss": loss,
            "batch_size": 8,
            "stabilizers": {name: options},
        }
    )


def dice(p: float, batch: int, seed: int = 0) -> Dice:
    return Dice(batch, torch.tensor(p), rng(seed))


# Both.


@pytest.mark.parametrize(("name", "options"), OFF)
def test_off_returns_the_images_and_draws_nothing(name, options):
    images, now = some(4, 3, 8, 8), turn()
    assert STABILIZERS.build(name, **options).discriminator_input(images, now) is images
    assert torch.equal(now.rng.get_state(), rng().get_state())


@pytest.mark.parametrize(("name", "options"), ON)
def test_the_only_randomness_is_the_turns(name, options):
    images, stabilizer = some(16, 3, 8, 8), STABILIZERS.build(name, **options)
    torch.manual_seed(1)
    once = stabilizer.discriminator_input(images, turn())
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(stabilizer.discriminator_input(images, turn()), once)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(stabilizer.discriminator_input(images, turn(seed=1)), once)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("name", "options"), ON)
def test_differentiable_twice(name, options, channels):
    images = some(2, channels, 8, 8).requires_grad_()
    stabilizer = STABILIZERS.build(name, **options)

    def augmented(images):
        return stabilizer.discriminator_input(images, turn())

    assert torch.autograd.gradcheck(augmented, images, fast_mode=True)
    # Augmentation is affine in the images; behind a square its second derivatives are not 0.
    assert torch.autograd.gradgradcheck(lambda x: augmented(x).square(), images, fast_mode=True)


@pytest.mark.parametrize(("name", "options"), ON)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_shape_and_type_stay_and_the_transform_is_of_the_draws_alone(name, options, dtype):
    images = some(8, 3, 8, 8)
    stabilizer = STABILIZERS.build(name, **options)
    exact = stabilizer.discriminator_input(images, turn())
    found = stabilizer.discriminator_input(images.to(dtype), turn())
    assert (found.shape, found.dtype) == (images.shape, dtype)
    # Colours are multiplied by up to some 2^3, in numbers of 8 bits for bfloat16.
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=32 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("name", NAMES)
def test_autocast_moves_no_pixel(name):
    images, stabilizer = some(8, 3, 16, 16, dtype=torch.float32), STABILIZERS.build(name)
    with torch.autocast("cpu", torch.bfloat16):
        found = stabilizer.discriminator_input(images, turn())
    assert torch.equal(found, stabilizer.discriminator_input(images, turn()))


@pytest.mark.parametrize("name", NAMES)
def test_nan_stays_nan(name):
    images = torch.full((4, 3, 8, 8), torch.nan)
    found = STABILIZERS.build(name).discriminator_input(images, turn())
    if name == "adaptive_augment":
        assert found.isnan().all()
    # What moves in is 0.
    assert found.isnan()[:, :, 1:-1, 1:-1].all()


@pytest.mark.parametrize(("name", "options"), [*OFF, *ON])
def test_options_come_back(name, options):
    built = STABILIZERS.build(name, **options)
    assert STABILIZERS.parse(built.to_dict()) == built
    assert hash(STABILIZERS.parse(built.to_dict())) == hash(built)


def with_images(*shape: int) -> SimpleNamespace:
    dataset = SimpleNamespace(name="some_set", image_shape=shape)
    return SimpleNamespace(dataset=dataset, loss=LOSSES.build("hinge"))


@pytest.mark.parametrize("name", NAMES)
def test_points_are_refused(name):
    with pytest.raises(ValueError, match="some_set has points, no images.*leave it out"):
        STABILIZERS.build(name).check(with_images(2, 1, 1))


def test_transforms_that_need_other_images_are_refused_with_the_remedy():
    stabilizer = STABILIZERS.build("adaptive_augment")
    stabilizer.check(with_images(3, 8, 8))
    with pytest.raises(ValueError, match="8 x 1 images cannot turn by 90 degrees: blit: false"):
        stabilizer.check(with_images(3, 8, 1))
    stabilizer = STABILIZERS.build("adaptive_augment", blit=False)
    stabilizer.check(with_images(3, 8, 4))
    with pytest.raises(ValueError, match="8 x 1 images cannot be scaled: geometry: false"):
        stabilizer.check(with_images(3, 8, 1))


@pytest.mark.parametrize("name", NAMES)
def test_trains_and_resumes_bit_for_bit(name):
    # p moves by 4 * 8 / 64 = 0.5.
    options = {"ramp_images": 64.0, "start": 0.5} if name == "adaptive_augment" else {}
    straight, resumed = (build_trainer(config(name, **options)) for _ in range(2))
    straight.advance(6)
    # Halfway between two changes of p.
    resumed.load_state_dict(straight.state_dict())
    signals = straight.advance(6)
    assert all(math.isfinite(value) for value in signals.values())
    assert resumed.advance(6) == signals
    if name == "adaptive_augment":
        # An untrained discriminator is sure of little: down at updates 4, 8 and 12.
        assert signals["adaptive_augment/p"] == 0


def test_off_trains_bit_equal_to_a_run_without_it():
    plain = build_trainer(config()).config
    without = TrainConfig.from_dict(plain.to_dict() | {"stabilizers": {}})
    expected = build_trainer(without).advance(5)
    for name, options in OFF:
        signals = build_trainer(config(name, **options)).advance(5)
        assert {k: signals[k] for k in expected} == expected


# DiffAugment.


@pytest.mark.parametrize("channels", [1, 3])
def test_colors_against_a_loop(channels):
    images = some(5, channels, 4, 6)
    brightness, saturation, contrast = torch.rand(3, 5, generator=rng())
    found = augmentation.recolored(images, brightness, saturation, contrast)
    for image, b, s, c, after in zip(
        images, brightness.tolist(), saturation.tolist(), contrast.tolist(), found, strict=True
    ):
        expected = image + b
        for row, column in itertools.product(range(4), range(6)):
            pixel = expected[:, row, column]
            expected[:, row, column] = (pixel - pixel.mean()) * s + pixel.mean()
        mean = expected.mean()
        torch.testing.assert_close(after, (expected - mean) * c + mean)


def test_colors_of_strength_zero_and_of_one_channel():
    images, one, zero = some(5, 3, 4, 4), torch.ones(5), torch.zeros(5)
    torch.testing.assert_close(augmentation.recolored(images, zero, one, one), images)
    grey = images[:, :1]
    torch.testing.assert_close(augmentation.recolored(grey, zero, zero, one), grey)


def test_translation_against_a_loop():
    images = some(6, 2, 5, 7)
    down = torch.tensor([0, 1, -1, 2, 0, -6])
    right = torch.tensor([0, 3, 0, -2, 1, 8])
    found = augmentation.translated(images, down, right)
    expected = torch.zeros_like(images)
    for n, row, column in itertools.product(range(6), range(5), range(7)):
        y, x = row - int(down[n]), column - int(right[n])
        if 0 <= y < 5 and 0 <= x < 7:
            expected[n, :, row, column] = images[n, :, y, x]
    assert torch.equal(found, expected)
    assert torch.equal(found[0], images[0])


@pytest.mark.parametrize("side", [6, 7])
def test_cutout_against_a_loop(side):
    row, column = (torch.tensor(v) for v in ([0, 3, side - 1, 2], [0, 2, 1, side - 1]))
    images = torch.ones(4, 1, side, side)
    found = augmentation.cut(images, row, column)
    expected, half = images.clone(), int(side * 0.5 + 0.5)  # as the authors' code has it
    for n, i, j in itertools.product(range(4), range(half), range(half)):
        y, x = int(row[n]) - half // 2 + i, int(column[n]) - half // 2 + j
        if 0 <= y < side and 0 <= x < side:
            expected[n, 0, y, x] = 0
    assert torch.equal(found, expected)
    assert (found[1] == 0).sum() == half * half


def test_diff_augment_draws_the_ranges_of_the_paper():
    images = torch.zeros(4000, 1, 16, 16)
    images[:, :, 8, 8] = 1
    only = {"color": False, "translation": False, "cutout": False}
    build = STABILIZERS.build

    color = build("diff_augment", **only | {"color": True}).discriminator_input(images, turn())
    contrast = (color.amax((1, 2, 3)) - color.amin((1, 2, 3))).clamp(0, 2)
    brightness = color.mean((1, 2, 3)) - 1 / 256
    for values, low, high in ((contrast, 0.5, 1.5), (brightness, -0.5, 0.5)):
        # 4000 uniform draws come within 1 % of both ends but for one run in 10^17.
        assert low - 1e-5 <= values.min() < low + 0.01
        assert high - 0.01 < values.max() <= high + 1e-5

    stabilizer = build("diff_augment", **only | {"translation": True})
    places = stabilizer.discriminator_input(images, turn()).flatten(1).argmax(1)
    assert set((places // 16).tolist()) == set((places % 16).tolist()) == {6, 7, 8, 9, 10}

    stabilizer = build("diff_augment", **only | {"cutout": True})
    holes = stabilizer.discriminator_input(torch.ones_like(images), turn()) == 0
    areas = set(holes.flatten(1).sum(1).tolist())
    assert (min(areas), max(areas)) == (16, 64)  # a corner of it; all of it
    assert holes.any(0).all()
    # In each corner, nothing but the corner's quarter of the rectangle.
    smallest = holes[holes.flatten(1).sum(1) == 16]
    assert {where(hole) for hole in smallest[:, 0].float()} == {(0, 0), (0, 12), (12, 0), (12, 12)}


def test_saturation_is_drawn_between_none_and_twice():
    images = torch.tensor([1.0, 0, -1]).view(1, 3, 1, 1).repeat(4000, 1, 2, 2)
    options = {"translation": False, "cutout": False}
    found = STABILIZERS.build("diff_augment", **options).discriminator_input(images, turn())
    chroma = (found[:, 0] - found[:, 2]).mean((1, 2)) / 2
    contrast = torch.rand(3, 4000, generator=rng())[2] + 0.5
    saturation = chroma / contrast
    assert -1e-6 <= saturation.min() < 0.02
    assert 1.98 < saturation.max() <= 2 + 1e-6


# ADA: the transforms.


def moved(images: torch.Tensor, sources: torch.Tensor) -> torch.Tensor:
    """Return the result by a loop over the pixels, linear and mirrored."""
    batch, channels, height, width = images.shape
    expected = torch.zeros_like(images)

    def mirrored(place: int, side: int) -> int:
        while not 0 <= place < side:
            place = -place if place < 0 else 2 * (side - 1) - place
        return place

    for n, row, column in itertools.product(range(batch), range(height), range(width)):
        out = torch.tensor([column - (width - 1) / 2, row - (height - 1) / 2, 1])
        x, y, _ = (sources[n] @ out).tolist()
        x, y = x + (width - 1) / 2, y + (height - 1) / 2
        for i, j in itertools.product((0, 1), (0, 1)):
            left, top = math.floor(x) + i, math.floor(y) + j
            share = (1 - abs(x - left)) * (1 - abs(y - top))
            pixel = images[n, :, mirrored(top, height), mirrored(left, width)]
            expected[n, :, row, column] += share * pixel
    return expected


def test_resampling_against_a_loop():
    images = some(4, 2, 5, 6)
    sources = affine(*torch.randn(6, 4, 1, generator=rng()).unbind())
    # Coordinates are float32, up to some 20 pixels.
    torch.testing.assert_close(
        resampled(images, sources), moved(images, sources), rtol=0, atol=1e-4
    )


def test_the_identity_is_exact():
    images = some(3, 3, 7, 8)
    assert torch.equal(resampled(images, torch.eye(3).expand(3, 3, 3)), images)


def test_at_p_0_nothing_changes_and_at_p_1_every_image_does():
    images, stabilizer = some(50, 3, 8, 8), STABILIZERS.build("adaptive_augment")
    assert torch.equal(stabilizer.discriminator_input(images, turn(0.0)), images)
    changed = stabilizer.discriminator_input(images, turn(1.0)) != images
    assert changed.flatten(1).any(1).all()


def dot(row: int, column: int, side: int = 9) -> torch.Tensor:
    images = torch.zeros(1, 1, side, side)
    images[0, 0, row, column] = 1
    return images


def where(images: torch.Tensor) -> tuple[int, int]:
    return divmod(int(images.flatten().argmax()), images.shape[-1])


def test_known_maps_move_a_dot_to_the_right_pixel():
    one = torch.ones(1, 1)
    cases = {
        # From output to input: the dot moves the other way. x right, y down, from the centre.
        "right 2, up 1": (affine(one, 0, 0, 1, -2, 1), (2, 6)),
        "mirrored": (affine(-one, 0, 0, 1), (3, 4)),
        "twice as large": (affine(one / 2, 0, 0, 0.5), (2, 4)),
        "half a turn": (affine(-one, 0, 0, -1), (5, 4)),
        "a quarter turn to the left": (affine(0 * one, -1, 1, 0), (4, 3)),
    }
    for what, (sources, place) in cases.items():
        assert where(resampled(dot(3, 4), sources)) == place, what
    # First moved, then mirrored: the product's left factor acts on the input.
    both = adaptive.product(affine(one, 0, 0, 1, -2, 0), affine(-one, 0, 0, 1))
    assert where(resampled(dot(3, 4), both)) == (3, 2)


@pytest.mark.parametrize("side", [8, 9])
def test_blitting_moves_pixels_onto_pixels(side):
    images = some(200, 3, side, side)
    options = {"geometry": False, "color": False}
    found = STABILIZERS.build("adaptive_augment", **options).discriminator_input(images, turn())
    original = {round(v, 12) for v in images.flatten().tolist()}
    assert {round(v, 12) for v in found.flatten().tolist()} <= original


def test_blitting_draws_every_symmetry_and_shift_of_the_square():
    mirror, turned, shift = adaptive.blitted(dice(1.0, 4000), 16, 16)
    assert set(mirror[:, 0, 0].tolist()) == {-1, 1}
    seen = {tuple(m.flatten().tolist()) for m in turned[:, :2, :2].round().long()}
    assert seen == {(1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0)}
    assert set(shift[:, :2, 2].flatten().tolist()) == {-2, -1, 0, 1, 2}
    assert (turned.det() == 1).all()


def test_geometry_draws_the_widths_of_the_paper():
    n = 20_000
    scale, before, stretch, after, shift = adaptive.distorted(dice(1.0, n), 32, 16)
    spreads = {
        "scale": (scale[:, 0, 0].log2(), 0.2),
        "stretch": (stretch[:, 0, 0].log2(), 0.2),
        "right": (shift[:, 0, 2], 16 / 8),
        "down": (shift[:, 1, 2], 32 / 8),
        # Of a uniform angle between -pi and pi.
        "first turn": (torch.atan2(before[:, 0, 1], before[:, 0, 0]), math.pi / math.sqrt(3)),
        "second turn": (torch.atan2(after[:, 0, 1], after[:, 0, 0]), math.pi / math.sqrt(3)),
    }
    for what, (values, std) in spreads.items():
        # Five standard errors, std / sqrt(2 n) of a standard deviation.
        assert values.std() == pytest.approx(std, rel=5 / math.sqrt(2 * n)), what
        assert values.mean() == pytest.approx(0, abs=5 * std / math.sqrt(n)), what
    assert torch.allclose(stretch.det(), torch.ones(n))
    assert torch.equal(scale[:, 0, 0], scale[:, 1, 1])


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_each_transform_befalls_a_share_p_of_the_images(p):
    n, neutral = 20_000, torch.eye(3)
    scale, before, stretch, after, shift = adaptive.distorted(dice(p, n), 8, 8)
    colors = Colors.drawn(dice(p, n, seed=1), 3)
    shares = {
        "scale": (scale != neutral).flatten(1).any(1),
        "stretch": (stretch != neutral).flatten(1).any(1),
        "shift": (shift != neutral).flatten(1).any(1),
        "turns": (before != neutral).flatten(1).any(1) | (after != neutral).flatten(1).any(1),
        "brightness": colors.brightness != 0,
        "contrast": colors.contrast != 1,
        "hue": colors.hue != 0,
        "saturation": colors.saturation != 1,
    }
    for what, changed in shares.items():
        error = 5 * math.sqrt(p * (1 - p) / n)
        assert float(changed.float().mean()) == pytest.approx(p, abs=error), what
    # Of two signs one changes nothing.
    flipped = float((colors.luma_sign == -1).float().mean())
    assert flipped == pytest.approx(p / 2, abs=5 * math.sqrt(p / 2 * (1 - p / 2) / n))


def test_reals_and_fakes_are_changed_alike():
    stabilizer, now = STABILIZERS.build("adaptive_augment", color=False), turn(0.4)
    images = some(4000, 1, 8, 8)
    shares = []
    for _ in range(2):
        after = stabilizer.discriminator_input(images, now)
        shares.append(float((after != images).flatten(1).any(1).float().mean()))
    # 1/2 of the mirrors, 1/4 of the quarter turns and 1/4 of the moves by two times U(-1, 1)
    # pixels, rounded, are by none; a turn by any angle has one probability for both its places.
    unchanged = (1 - 0.4 / 2) * (1 - 0.4 * 3 / 4) ** 2 * (1 - 0.4) ** 4
    error = 5 * math.sqrt(unchanged * (1 - unchanged) / 4000)
    assert shares == pytest.approx([1 - unchanged] * 2, abs=error)
    assert shares[0] != shares[1]


# ADA: the colours.


def color_matrix(colors: Colors, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the 3 x 3 matrix and the term of image `n` as the paper composes them."""
    axis = torch.ones(3, dtype=torch.float64) / math.sqrt(3)
    eye, along = torch.eye(3, dtype=torch.float64), torch.outer(axis, axis)
    crossed = torch.tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]).double() / math.sqrt(3)
    b, c, sign, hue, s = (float(v[n]) for v in vars(colors).values())
    flip = eye - (1 - sign) * along
    # Rodrigues' formula.
    turned = math.cos(hue) * eye + math.sin(hue) * crossed + (1 - math.cos(hue)) * along
    matrix = (along + s * (eye - along)) @ turned @ flip @ (c * eye)
    return matrix, matrix @ torch.full((3,), b, dtype=torch.float64)


def test_colors_against_the_papers_matrices():
    images, colors = some(6, 3, 2, 3), Colors.drawn(dice(1.0, 6), 3)
    found = adaptive.recolored(images, colors)
    for n in range(6):
        matrix, term = color_matrix(colors, n)
        expected = torch.einsum("ij,jyx->iyx", matrix, images[n]) + term[:, None, None]
        torch.testing.assert_close(found[n], expected, rtol=1e-5, atol=1e-5)


def test_one_channel_is_what_becomes_of_a_grey_image():
    grey, colors = some(6, 1, 4, 4), Colors.drawn(dice(1.0, 6), 1)
    assert (colors.hue == 0).all()
    assert (colors.saturation == 1).all()
    found = adaptive.recolored(grey, colors)
    in_color = adaptive.recolored(grey.expand(-1, 3, -1, -1), colors)
    torch.testing.assert_close(found.expand(-1, 3, -1, -1), in_color)
    b, c, sign = (
        v.double()[:, :, None, None]
        for v in (colors.brightness, colors.contrast, colors.luma_sign)
    )
    torch.testing.assert_close(found, sign * c * (grey + b), rtol=1e-5, atol=1e-5)


def test_hue_and_saturation_keep_the_luma_and_a_third_of_a_turn_swaps_channels():
    images, one = some(2, 3, 4, 4), torch.ones(2, 1)
    for hue, saturation in ((1.0, 1.0), (0.0, 3.0), (2.0, 0.0)):
        found = adaptive.recolored(images, Colors(0 * one, one, one, hue * one, saturation * one))
        torch.testing.assert_close(found.mean(1), images.mean(1), rtol=1e-5, atol=1e-6)
    third = Colors(0 * one, one, one, 2 * math.pi / 3 * one, one)
    torch.testing.assert_close(
        adaptive.recolored(images, third), images.roll(1, 1), rtol=1e-5, atol=1e-6
    )


def test_colors_draw_the_widths_of_the_paper():
    n = 20_000
    colors = Colors.drawn(dice(1.0, n), 3)
    for values, std in (
        (colors.brightness, 0.2),
        (colors.contrast.log2(), 0.5),
        (colors.saturation.log2(), 1.0),
        (colors.hue, math.pi / math.sqrt(3)),
        (colors.luma_sign, 1.0),
    ):
        assert values.std() == pytest.approx(std, rel=5 / math.sqrt(2 * n))
        assert values.mean() == pytest.approx(0, abs=5 * std / math.sqrt(n))


# ADA: the controller.


def test_p_rises_above_the_target_and_falls_below_between_its_clamps():
    settings = config(ramp_images=80.0, max_p=0.9)  # each change is 4 * 8 / 80 = 0.4
    (stabilizer,) = settings.stabilizers
    memory = stabilizer.memory(settings, {})
    sure, wrong = torch.full((8, 1), 3.0), torch.full((8, 1), -0.1)
    # Twelve updates up, twelve down; what the fakes got does not matter.
    seen = []
    for logits in [sure] * 12 + [wrong] * 12:
        stabilizer.remember(memory, logits, -logits, settings)
        seen.append(round(float(stabilizer.signals(memory)["adaptive_augment/p"]), 5))
    up = [0.0] * 3 + [0.4] * 4 + [0.8] * 4 + [0.9]
    down = [0.9] * 3 + [0.5] * 4 + [0.1] * 4 + [0.0]
    assert seen == up + down


def test_p_follows_the_mean_sign_of_all_updates_and_judgements():
    settings = config(ramp_images=320.0, start=0.5, interval=2)  # each change is 0.05
    (stabilizer,) = settings.stabilizers
    memory = stabilizer.memory(settings, {})

    def signs(positive: int) -> torch.Tensor:
        """Return (8, 5) logits of which so many are above 0."""
        return (torch.arange(40) < positive).float().view(8, 5) * 7 - 3

    def p_after(*positives: int) -> float:
        for positive in positives:
            stabilizer.remember(memory, signs(positive), signs(0), settings)
        return float(memory["p"])

    # The mean sign is 0.6 where 32 of 40 are positive.
    assert p_after(40, 25) == pytest.approx(0.55)
    assert p_after(40, 23) == pytest.approx(0.5)
    assert p_after(31, 32) == pytest.approx(0.45)


def test_the_boundary_is_the_losses():
    settings = config(loss="least_squares", ramp_images=80.0, interval=1)
    (stabilizer,) = settings.stabilizers
    memory = stabilizer.memory(settings, {})
    for logit, p in ((0.6, 0.1), (0.4, 0.0)):
        logits = torch.full((8, 1), logit)
        stabilizer.remember(memory, logits, logits, settings)
        assert float(memory["p"]) == pytest.approx(p)


@pytest.mark.parametrize("loss", ["wasserstein", "relativistic_average", "energy_based"])
def test_losses_without_a_boundary_are_refused(loss):
    with pytest.raises(ValueError, match=f"{loss} has no logit.*hinge"):
        STABILIZERS.build("adaptive_augment").check(
            TrainConfig.from_dict({"dataset": "digits", "loss": loss})
        )


def test_p_cannot_start_above_its_largest():
    with pytest.raises(StudyError, match="start 0.5 lies above max_p 0.2"):
        STABILIZERS.build("adaptive_augment", start=0.5, max_p=0.2)
