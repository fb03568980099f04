from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ganstudy.gan.config import TrainConfig
from ganstudy.gan.datasets import DATASETS, normalize
from ganstudy.gan.datasets.polygons import GREYS, draw_polygons
from ganstudy.gan.trainer import build_trainer
from ganstudy.measure.metrics import METRICS, Drawn, Latents, Sample
from ganstudy.measure.metrics.polygons import (
    Search,
    fit,
    harmonic_mean,
    invert,
    share_within,
    triangles,
)
from ganstudy.measure.protocol import Evaluator, MeasureConfig
from ganstudy.registry import StudyError

NAMES = ["polygon_f1", "polygon_precision", "polygon_recall"]
SEARCH = Search(draws=500, restarts=1, steps=60, clamp=True, seed=0)


def shapes(n: int, variant="published", seed: int = 1) -> torch.Tensor:
    """Images (n, 1, 28, 28) in [-1, 1] of the data's generator, under another seed than its."""
    levels = draw_polygons(n, variant, seed).levels
    return normalize(torch.from_numpy(GREYS[levels])).unsqueeze(1)


def drawn(images: torch.Tensor, latents: Latents | None = None) -> Drawn:
    return Drawn(images, Sample(np.arange(len(images), dtype=float)[:, None]), latents)


def uniform(dimension: int):
    return lambda count, rng: torch.rand(count, dimension, generator=rng) * 2 - 1


def normal(dimension: int):
    return lambda count, rng: torch.randn(count, dimension, generator=rng)


def linear(dimension: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, Latents]:
    """Weights (784, d), offset (784,) and the generator z -> weights z + offset."""
    rng = torch.Generator().manual_seed(seed)
    weights = torch.randn(784, dimension, generator=rng) / 28
    offset = torch.randn(784, generator=rng) / 28
    image = lambda z: (z @ weights.T + offset).view(-1, 1, 28, 28)  # noqa: E731
    return weights, offset, Latents(image, normal(dimension))


SLOPE = 4.0
"""Of the soft edges below: grey falls from 0.98 to 0.02 over two pixels."""


def soft_triangles(z: torch.Tensor) -> torch.Tensor:
    """The published family with soft edges: latents (n, 4) in [-1, 1] -> images in [-1, 1]."""
    u = (z + 1) / 2
    degrees = torch.tensor([10.0, 130.0, 250.0]) + 110 * u[:, :3] - 2 * math.pi * u[:, 3:]
    radians = torch.deg2rad(degrees)
    corners = 10.5 * torch.stack((radians.cos(), radians.sin()), dim=-1)
    corners = corners + (14 - corners.mean(dim=1, keepdim=True))
    # The box of a pixel takes in sub-pixels -3 to 4: its middle is at 1 / 16.
    at = torch.arange(28) + 1 / 16
    pixels = torch.stack(torch.meshgrid(at, at, indexing="ij"), dim=-1).view(-1, 1, 2)
    edges = corners.roll(-1, dims=1) - corners
    outward = torch.stack((edges[..., 1], -edges[..., 0]), dim=-1)
    outward = outward / outward.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    away = ((pixels - corners[:, None]) * outward[:, None]).sum(dim=-1)
    inside = torch.sigmoid(-SLOPE * away).prod(dim=-1)
    return (1 - 2 * inside).view(-1, 1, 28, 28)


# Distances to the family.


@pytest.mark.parametrize("family", ["published", "corrected"])
def test_the_family_is_the_data_sets(family):
    vertices = draw_polygons(200, family).vertices
    sides = np.sort(np.linalg.norm(vertices - np.roll(vertices, 1, axis=1), axis=-1), axis=1)
    rng = np.random.default_rng(0)
    ours = triangles.FAMILIES[family]
    angles = ours.draw(rng.random((20_000, 4)))
    made = ours.vertices(angles)
    assert np.allclose(made.mean(axis=1), 14)
    found = np.sort(np.linalg.norm(made - np.roll(made, 1, axis=1), axis=-1), axis=1)
    # The shapes up to rotation: every one of the data's has one of ours beside it.
    gaps = np.linalg.norm(sides[:, None] - found[None], axis=-1).min(axis=1)
    assert gaps.max() < 0.5
    np.testing.assert_allclose(ours.restrict(angles), angles, atol=1e-9)


@pytest.mark.parametrize("family", ["published", "corrected"])
def test_what_is_restricted_is_of_the_family(family):
    ours, rng = triangles.FAMILIES[family], np.random.default_rng(0)
    wild = ours.restrict(ours.draw(rng.random((5000, 4))) + rng.normal(0, 30, (5000, 3)))
    offsets = wild - [10, 130, 250]
    span, turn = (110, 2 * np.pi) if family == "published" else (100, np.inf)
    assert (np.ptp(offsets, axis=1) <= span + 1e-9).all()
    assert offsets.min() >= -turn - 1e-9
    if family == "published":
        assert offsets.max() <= span + 1e-9
    np.testing.assert_allclose(ours.restrict(wild), wild, atol=1e-9)


@pytest.mark.parametrize("family", ["published", "corrected", "free"])
def test_a_polygon_is_at_distance_0_of_its_family(family):
    variant = "corrected" if family == "corrected" else "published"
    found = fit(shapes(60, variant).numpy(), family)
    assert (found.refined <= found.pooled).all()
    assert 0.2 < np.median(found.pooled) < 0.8
    # Sub-pixels make steps of the raster: a vertex moved by a tenth of one leaves some of them.
    assert (found.refined <= 0.05).mean() > 0.95
    assert np.median(found.refined) < 0.002
    np.testing.assert_allclose(
        triangles.squared(
            triangles.FAMILIES[family],
            found.parameters,
            (shapes(60, variant).numpy().reshape(60, -1).astype(float) + 1) / 2,
        ),
        found.refined,
        atol=1e-9,
    )


def test_known_angles_are_found():
    rng = np.random.default_rng(3)
    # Two degrees within the family, so that no neighbour is cut off.
    angles = np.array([10.0, 130, 250]) + rng.uniform(2, 100, (40, 3))
    images = triangles.raster(triangles.on_circle(angles)).reshape(-1, 1, 28, 28) * 2 - 1
    found = fit(images)
    assert found.refined.max() <= 0.05
    # A degree moves a vertex by a fifth of a pixel.
    assert np.median(np.abs(found.parameters - angles).max(axis=1)) < 0.2


def test_the_distance_is_that_of_exhaustive_search_or_less():
    blurred = torch.nn.functional.avg_pool2d(shapes(6, seed=2), 3, 1, 1, count_include_pad=False)
    found = fit(blurred.numpy())
    many = draw_polygons(8000, seed=9).levels
    pool = torch.from_numpy(GREYS[many] / 255.0).flatten(1)
    exhaustive = torch.cdist((blurred.double().flatten(1) + 1) / 2, pool).square().amin(dim=1)
    assert (found.refined <= exhaustive.numpy() + 1e-9).all()
    # 8,000 shapes lie some 0.6 from any other; no shape is a blurred one.
    assert (found.refined >= exhaustive.numpy() - 1.0).all()
    assert found.refined.min() > 0.75


@pytest.mark.parametrize("split", ["train", "select", "report"])
def test_all_splits_of_the_data_have_precision_1(split):
    data = DATASETS.build("polygons", train=100, test=100)
    images = normalize(data.images(split))
    metric = METRICS.build("polygon_precision")
    score = metric(drawn(images), drawn(images))
    assert score == (metric.identity_value, 1 / (len(images) + 1))


def test_noise_and_other_figures_have_precision_0():
    noise = torch.rand(30, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    inverse = -shapes(30)
    shifted = shapes(30).roll(4, dims=3)
    for images in (noise, inverse, shifted):
        assert METRICS.build("polygon_precision")(drawn(images), drawn(noise)).value == 0


def test_a_shifted_triangle_is_a_free_one():
    # Away from the border, over which the roll would carry parts.
    images = shapes(30).roll(1, dims=3)
    found, free = fit(images.numpy()), fit(images.numpy(), "free")
    assert np.median(found.refined) > 5
    assert (free.refined <= 0.05).mean() > 0.9


def test_pale_triangles_are_away_by_their_paleness():
    images = shapes(20)
    # Black becomes 0.1: its pixels are 0.1 off, those of the edge less.
    black = ((images + 1) / 2 == 0).flatten(1).sum(dim=1).numpy()
    found = fit((images.clamp(min=-0.8)).numpy()).refined
    assert (found <= 0.01 * black + 0.05).all()
    assert (found >= 0.8 * 0.01 * black).all()


def test_rows_are_fitted_one_by_one():
    images = torch.cat([shapes(30), soft_triangles(uniform(4)(30, torch.Generator()))]).numpy()
    order = np.random.default_rng(0).permutation(60)
    straight, shuffled = fit(images), fit(images[order])
    np.testing.assert_allclose(shuffled.refined, straight.refined[order], atol=1e-6)


# Distances to what a generator makes.


def test_a_linear_generators_inversion_is_least_squares():
    weights, offset, latents = linear(8)
    rng = torch.Generator().manual_seed(5)
    images = latents.generate(normal(8)(20, rng)) + torch.randn(20, 1, 28, 28, generator=rng) / 28
    wanted = (images.flatten(1) - offset).double()
    solved = torch.linalg.lstsq(weights.double(), wanted.T).solution
    expected = ((wanted.T - weights.double() @ solved) ** 2).sum(dim=0) / 4
    found = invert(latents, images, SEARCH)
    # The closed form is the least there is; float32 sums of 784 squares.
    np.testing.assert_allclose(found.found, expected.numpy(), rtol=1e-3)
    assert (found.found >= expected.numpy() * (1 - 1e-5)).all()
    assert (found.screened > 1.2 * expected.numpy()).all()


def test_clamped_latents_stay_within_the_draws():
    weights, offset, latents = linear(2)
    latents = latents._replace(draw=uniform(2))
    # Out of reach: the nearest image within the support lies on its border.
    images = latents.generate(torch.tensor([[3.0, 0.0]]))
    inside = invert(latents, images, SEARCH).found
    beyond = invert(latents, images, SEARCH._replace(clamp=False)).found
    assert beyond.max() < 1e-6
    corner = torch.tensor([[1.0, v] for v in torch.linspace(-1, 1, 401)])
    border = (latents.generate(corner) - images).square().flatten(1).sum(dim=1).min() / 4
    # The support as 500 draws tell it is within 0.01 of it, of 2 that are missing.
    assert inside == pytest.approx(border.item(), rel=0.02)


def test_a_generator_of_the_family_reaches_nearly_all_polygons():
    latents = Latents(soft_triangles, uniform(4))
    real = drawn(shapes(40))
    soft = soft_triangles(uniform(4)(40, torch.Generator().manual_seed(3)))
    metrics = {
        n: METRICS.build(n, **({"images": 40, "steps": 40, "draws": 500} if n != NAMES[1] else {}))
        for n in NAMES
    }
    scores = {n: m(drawn(soft, latents), real).value for n, m in metrics.items()}
    assert scores["polygon_recall"] > 0.8
    assert scores["polygon_precision"] > 0.8
    p, r = scores["polygon_precision"], scores["polygon_recall"]
    assert scores["polygon_f1"] == pytest.approx(2 * p * r / (p + r))


def test_a_generator_of_one_polygon_has_precision_1_and_recall_0():
    image = shapes(1)
    latents = Latents(lambda z: image + 0 * z[:, :1, None, None], uniform(4))
    made, real = drawn(image.repeat(20, 1, 1, 1), latents), drawn(shapes(50, seed=2))
    options = {"images": 50, "steps": 10, "draws": 100}
    # None or all of n say that the share lies within 1 / (n + 1), not that it is known.
    assert METRICS.build("polygon_precision")(made, real) == (1, 1 / 21)
    assert METRICS.build("polygon_recall", **options)(made, real) == (0, 1 / 51)
    f1 = METRICS.build("polygon_f1", **options)(made, real)
    assert f1 == pytest.approx((0, 2 / 51))  # 2 r where r is small beside p


@pytest.fixture
def network() -> torch.nn.Module:
    """A small network with batch norm in eval mode and outputs that differ."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        layers = [torch.nn.Linear(6, 40), torch.nn.BatchNorm1d(40), torch.nn.ReLU()]
        last = torch.nn.Linear(40, 784)
        last.weight.data *= 10
        out = [last, torch.nn.Tanh(), torch.nn.Unflatten(1, (1, 28, 28))]
        return torch.nn.Sequential(*layers, *out).eval()


def test_more_steps_never_find_less(network):
    latents, images = Latents(network, uniform(6)), shapes(20)
    short, long = (invert(latents, images, SEARCH._replace(steps=s)) for s in (40, 80))
    # Half of a search is the search of half as many steps.
    np.testing.assert_array_equal(long.half, short.found)
    assert (long.found <= long.half).all()
    assert (long.half <= long.screened).all()
    assert (long.found < long.screened).any()


def test_more_restarts_never_find_less():
    latents, images = Latents(soft_triangles, uniform(4)), shapes(12)
    few = SEARCH._replace(draws=20, steps=3)
    once, often = (invert(latents, images, few._replace(restarts=r)).found for r in (1, 4))
    assert (often <= once * (1 + 1e-4)).all()
    assert (often < 0.9 * once).any()


def test_no_steps_find_the_nearest_draw(network):
    latents, images = Latents(network, uniform(6)), shapes(20)
    found = invert(latents, images, SEARCH._replace(steps=0))
    z = latents.draw(SEARCH.draws, torch.Generator().manual_seed(0))
    with torch.no_grad():
        made = (network(z).flatten(1).double() + 1) / 2
    expected = torch.cdist((images.flatten(1).double() + 1) / 2, made).square().amin(dim=1)
    np.testing.assert_allclose(found.found, expected.numpy(), rtol=1e-5)
    np.testing.assert_array_equal(found.found, found.screened)


def test_the_network_and_the_global_stream_are_left_alone(network):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.random.get_rng_state()
    legacy = np.random.get_state()[1].copy()  # noqa: NPY002
    latents, images = Latents(network, uniform(6)), shapes(5)
    first = invert(latents, images, SEARCH)
    fit(images.numpy())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], legacy)  # noqa: NPY002
    assert all(torch.equal(before[n], value) for n, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    with torch.no_grad():  # whoever samples may have switched gradients off
        np.testing.assert_array_equal(invert(latents, images, SEARCH).found, first.found)
    other = invert(latents, images, SEARCH._replace(seed=1))
    assert not np.array_equal(other.screened, first.screened)


def test_held_out_images_are_looked_for_one_by_one(network):
    latents, images = Latents(network, uniform(6)), shapes(12)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    straight, shuffled = (invert(latents, x, SEARCH).found for x in (images, images[order]))
    np.testing.assert_allclose(shuffled, straight[order.numpy()], rtol=1e-3)


# Scores.


def test_shares_and_their_harmonic_mean():
    score = share_within(np.array([0.1, 0.75, 0.76, 3.0]), 0.75)
    assert score == (0.5, 0.25)
    rng = np.random.default_rng(0)
    p, r, n = 0.8, 0.3, 400
    made = [
        harmonic_mean(
            share_within((rng.random(n) > p).astype(float), 0.5),
            share_within((rng.random(n) > r).astype(float), 0.5),
        )
        for _ in range(2000)
    ]
    values = [score.value for score in made]
    assert np.mean(values) == pytest.approx(2 * p * r / (p + r), abs=0.005)
    # A standard deviation of 2,000 draws is known to 1.6 %.
    assert np.mean([s.standard_error for s in made]) == pytest.approx(np.std(values), rel=0.06)


def test_the_harmonic_mean_of_nothing_has_an_error():
    none = share_within(np.full(49, 9.0), 0.5)
    assert none == (0, 1 / 50)
    assert harmonic_mean(none, share_within(np.full(24, 9.0), 0.5)) == pytest.approx(
        (0, 2 * (1 / 50) * (1 / 25) / (1 / 50 + 1 / 25))
    )


def test_a_distance_that_is_no_number_gives_no_score():
    assert math.isnan(share_within(np.array([0.1, np.nan]), 0.75).value)
    latents = Latents(
        lambda z: (z.sum(dim=1) * math.nan).view(-1, 1, 1, 1).expand(-1, 1, 28, 28), uniform(3)
    )
    metric = METRICS.build("polygon_f1", images=5, steps=2, draws=100)
    assert math.isnan(metric(drawn(shapes(5), latents), drawn(shapes(5))).value)


@pytest.mark.parametrize("name", NAMES)
def test_scores_grow_with_delta(name, network):
    latents = Latents(soft_triangles, uniform(4))
    made, real = (
        drawn(soft_triangles(uniform(4)(30, torch.Generator())), latents),
        drawn(shapes(30)),
    )
    options = {} if name == "polygon_precision" else {"images": 30, "steps": 20, "draws": 100}
    deltas = (0.1, 0.4, 0.75, 2.0, 5.0)
    values = [METRICS.build(name, delta=d, **options)(made, real).value for d in deltas]
    assert values == sorted(values)
    assert values[0] < values[-1]
    curves = METRICS.build(name, **options).curves(made, real)
    for curve in curves:
        assert (np.diff(curve.y) >= 0).all()
        assert curve.x[0] < 0.75 < curve.x[-1]
    for delta, value in zip(deltas, values, strict=True):
        below, above = np.interp([delta * 0.94, delta * 1.07], curves[0].x, curves[0].y)
        assert below - 0.1 <= value <= above + 0.1


def test_curves_are_told_with_what_they_converge_from(network):
    latents = Latents(network, uniform(6))
    made, real = drawn(shapes(20), latents), drawn(shapes(20, seed=2))
    precision = METRICS.build("polygon_precision").curves(made, real)
    assert [c.line for c in precision] == ["precision", "precision, without refinement"]
    assert (precision[0].y >= precision[1].y).all()
    recall = METRICS.build("polygon_recall", images=20, steps=20).curves(made, real)
    assert [c.line for c in recall] == [
        "recall",
        "recall, half of the steps",
        "recall, draws alone",
    ]
    assert (recall[0].y >= recall[1].y).all()
    assert (recall[1].y >= recall[2].y).all()
    f1 = METRICS.build("polygon_f1", images=20, steps=20).curves(made, real)
    assert [c.line for c in f1] == ["F1", "precision", "recall"]


def test_convergence_is_what_the_second_half_of_the_steps_adds():
    latents = Latents(soft_triangles, uniform(4))
    made, real = drawn(shapes(30), latents), drawn(shapes(30, seed=2))
    few, many = (METRICS.build("polygon_recall", images=30, draws=200, steps=s) for s in (4, 8))
    added = many(made, real).value - few(made, real).value
    (convergence,) = many.beside()
    assert convergence(made, real).value == pytest.approx(added)
    assert added > 0
    longer = METRICS.build("polygon_convergence", images=30, steps=40)
    assert longer(made, real).value <= 0.05


def test_three_metrics_search_once():
    calls = []

    def generate(z: torch.Tensor) -> torch.Tensor:
        calls.append(len(z))
        return soft_triangles(z)

    made, real = drawn(shapes(10), Latents(generate, uniform(4))), drawn(shapes(10, seed=2))
    options = {"images": 10, "steps": 5, "draws": 100}
    METRICS.build("polygon_recall", **options)(made, real)
    once = len(calls)
    f1 = METRICS.build("polygon_f1", **options)
    f1(made, real)
    f1.curves(made, real)
    assert len(calls) == once
    METRICS.build("polygon_f1", **options, seed=1)(made, real)
    assert len(calls) == 2 * once


@pytest.mark.parametrize("name", ["polygon_recall", "polygon_f1", "polygon_convergence"])
def test_what_is_searched_for_among_latents_needs_them(name):
    assert METRICS.get(name).needs == "latents"


# What is refused.


@pytest.mark.parametrize(
    ("bad", "rule"),
    [
        (np.full((4, 1, 28, 28), np.nan), "hold 3136 non-finite values"),
        (np.full((4, 1, 28, 28), np.inf), "hold 3136 non-finite values"),
        (np.zeros((0, 1, 28, 28)), r"got shape \(0, 1, 28, 28\)"),
        (np.zeros((4, 28, 28)), r"got shape \(4, 28, 28\)"),
        (np.zeros((4, 3, 28, 28)), r"got shape \(4, 3, 28, 28\)"),
    ],
)
def test_bad_images_are_a_value_error(bad, rule):
    with pytest.raises(ValueError, match=rule):
        fit(bad)


def test_images_that_the_generator_cannot_make_are_a_value_error():
    _, _, latents = linear(3)
    with pytest.raises(ValueError, match=r"images of shape \(1, 8, 8\) are not what"):
        invert(latents, torch.zeros(3, 1, 8, 8), SEARCH)
    with pytest.raises(ValueError, match=r"got shape \(0, 1, 28, 28\)"):
        invert(latents, torch.zeros(0, 1, 28, 28), SEARCH)


@pytest.mark.parametrize("name", ["polygon_recall", "polygon_f1"])
def test_fewer_held_out_images_than_asked_for_are_refused(name):
    metric = METRICS.build(name)
    with pytest.raises(ValueError, match="looks for 256 held-out images, got 255; lower `images`"):
        metric.check_size(255, 784)
    metric.check_size(256, 784)
    _, _, latents = linear(3)
    with pytest.raises(ValueError, match="got 5; lower"):
        metric(drawn(shapes(5), latents), drawn(shapes(5)))


@pytest.mark.parametrize("name", NAMES)
def test_other_data_sets_and_variants_are_refused(name):
    metric = METRICS.build(name)
    with pytest.raises(ValueError, match="polygons only, got mnist5k; use precision, recall"):
        metric.check(DATASETS.build("mnist5k"))
    metric.check(DATASETS.build("polygons"))
    corrected = DATASETS.build("polygons", variant="corrected")
    if name == "polygon_recall":
        metric.check(corrected)
        return
    with pytest.raises(ValueError, match="family must be corrected or free"):
        metric.check(corrected)
    METRICS.build(name, family="corrected").check(corrected)
    METRICS.build(name, family="free").check(corrected)


@pytest.mark.parametrize(
    "options", [{"delta": 0.0}, {"images": 0}, {"steps": -1}, {"family": "squares"}, {"pool": 3}]
)
def test_wrong_options_are_study_errors(options):
    with pytest.raises(StudyError, match=next(iter(options))):
        METRICS.build("polygon_f1", **options)


def test_a_trained_generator_is_scored_at_the_end_of_its_trial(tmp_path):
    settings = {
        "dataset": {"name": "polygons", "train": 300, "test": 60},
        "architecture": {"name": "infogan", "width": 4, "latent_dim": 8, "momentum": 0.1},
        "batch_size": 32,
        "discriminator_updates": 20,
    }
    final = [{"name": n, "images": 20, "steps": 10} for n in ("polygon_recall", "polygon_f1")]
    plain = {"features": "pixels", "samples": 60, "final": ["polygon_precision", *final]}
    config = TrainConfig.from_dict(settings)
    measure = MeasureConfig.from_dict({**plain, "metrics": ["diversity"]}, 20)
    measure.check(config.dataset)
    judge = Evaluator(measure, config.dataset, cache=tmp_path)
    trainer = build_trainer(config)
    trainer.advance(20)
    images = trainer.sample(60, judge.noise())
    latents = Latents(trainer.generate, trainer.draw_latents)
    scores = judge.evaluate(images, latents).scores
    for name in ("polygon_precision_60", "polygon_recall_60", "polygon_f1_60"):
        # Twenty updates make no triangle, but every number is one.
        assert 0 <= scores[name].value < 0.5
        assert scores[name].standard_error < 0.1
    table = judge.protocol()
    assert table["polygon_precision_60"]["floor"] == 1.0
    assert math.isnan(table["polygon_recall_60"]["floor"])
    assert table["polygon_f1_60"]["metric"]["images"] == 20
    assert table["polygon_f1_60"]["evaluated"] == "at the end"
