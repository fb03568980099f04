"""Each stabiliser's claim on the smallest game where it can be seen, or what was seen instead.

What most of them do is worked out in closed form; the rest runs over five seeds. Instance noise
on the Dirac-GAN is in test_dirac.py, the table over all of them is benchmarks/stabilizers.py.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.stabilizers import Run, trained
from ganstudy.gan.architectures.base import Head
from ganstudy.gan.conditioning import inputs_of
from ganstudy.gan.config import TrainConfig
from ganstudy.gan.datasets import DATASETS
from ganstudy.gan.datasets.base import normalize
from ganstudy.gan.losses import auc
from ganstudy.gan.stabilizers import STABILIZERS, Turn
from ganstudy.gan.trainer import GanTrainer

SEEDS = range(5)
NEVER = 10**6
"""As n_critic: the generator makes no update."""
POINTS = {
    "dataset": {"name": "ring", "std": 0.02},
    "architecture": {"name": "mlp", "width": 32, "latent_dim": 8},
    "optimizer": {"lr": 1e-3, "beta1": 0.5},
    "batch_size": 64,
}
H = 0.1
DIRAC = {
    "dataset": "dirac",
    "architecture": "dirac",
    "loss": "wasserstein",
    "optimizer": {"name": "sgd", "lr": H},
    "batch_size": 2,
}


def trainer(base: dict, **settings) -> GanTrainer:
    return GanTrainer(TrainConfig.from_dict(base | settings))


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def against(fakes: Callable[[int], Tensor], **settings) -> GanTrainer:
    """Return a trainer whose discriminator learns alone, against what `fakes` makes of a count."""
    t = trainer(POINTS, n_critic=NEVER, **settings)
    t.state.generator.forward = lambda latents: fakes(len(latents))
    return t


def real_points(t: GanTrainer, count: int, draws: torch.Generator) -> Tensor:
    points = t.config.dataset.images("report")
    return points[torch.randint(len(points), (count,), generator=draws)]


# Across the batch.


def copies_of_one(points: Tensor, draws: torch.Generator) -> Callable[[int], Tensor]:
    """Return a generator collapsed onto one real point, another one in every batch."""
    return lambda count: points[torch.randint(len(points), (1,), generator=draws)].expand(
        count, -1, -1, -1
    )


def auc_of_collapse(seed: int, stabilizers: dict, updates: int = 200) -> float:
    """Return how well a discriminator tells collapsed batches from diverse ones, unseen points."""
    draws = rng(seed)
    dataset = DATASETS.parse(POINTS["dataset"])
    fakes = copies_of_one(dataset.images("train"), draws)
    t = against(fakes, optimizer={"lr": 5e-3}, stabilizers=stabilizers, seed=seed, batch_size=32)
    t.advance(updates)
    size, batches = t.config.batch_size, 200
    real = real_points(t, batches * size, draws)
    unseen = copies_of_one(dataset.images("report"), draws)
    fake = torch.cat([unseen(size) for _ in range(batches)])
    # Every eighth judgement, since an AUC compares all pairs.
    return auc(t.logits(real)[::8], t.logits(fake)[::8]).item()


@pytest.mark.parametrize("seed", SEEDS)
def test_one_image_at_a_time_shows_no_collapse(seed):
    # 200 fakes that differ: their AUC has a standard error of 0.02, and each update's one fake
    # leaves a trace in the discriminator.
    assert auc_of_collapse(seed, {}) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "stabilizers",
    [{"minibatch_discrimination": {}}, {"minibatch_stddev": {}}, {"packing": {"images": 4}}],
    ids=str,
)
def test_discriminators_across_the_batch_see_the_collapse(stabilizers, seed):
    assert auc_of_collapse(seed, stabilizers) > 0.95


# Labels: D = sigmoid(psi x + b) against a generator that stays where it is.


def logits_at_optimum(start: float, updates: int, **settings) -> tuple[float, float]:
    """Return the logits on reals, all at 0, and fakes, all at `start`, as means of the end."""
    t = trainer(
        DIRAC,
        loss="non_saturating",
        architecture={"name": "dirac", "start": start, "bias": True},
        n_critic=NEVER,
        discriminator_updates=updates,
        **settings,
    )
    t.advance(updates // 2)
    signals = t.advance(updates - updates // 2)
    return signals["real_logits_mean"], signals["fake_logits_mean"]


def probability(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


@pytest.mark.parametrize("amount", [0.1, 0.3])
def test_smoothing_holds_the_discriminator_at_its_target_on_reals_and_leaves_fakes(amount):
    fast = {"optimizer": {"name": "sgd", "lr": 1.0}}
    plain = logits_at_optimum(3.0, 2000, **fast)
    smoothed = logits_at_optimum(
        3.0, 2000, **fast, stabilizers={"label_smoothing": {"amount": amount}}
    )
    assert probability(plain[0]) > 0.995
    # 1 %: fakes still fall, as a logarithm, and pull at the bias a little.
    assert probability(smoothed[0]) == pytest.approx(1 - amount, rel=0.01)
    assert probability(smoothed[1]) < 0.005


@pytest.mark.parametrize("amount", [0.0, 0.1, 0.3])
def test_smoothing_where_fakes_equal_reals(amount):
    # (1 - amount) p_real / (p_real + p_fake).
    logits = logits_at_optimum(0.0, 400, stabilizers={"label_smoothing": {"amount": amount}})
    expected = (1 - amount) / 2
    assert [probability(v) for v in logits] == pytest.approx([expected] * 2, rel=0.01)


@pytest.mark.parametrize("seed", SEEDS)
def test_flipping_holds_both_sides_at_the_flips_odds(seed):
    share = 0.1
    real, fake = logits_at_optimum(
        3.0,
        2000,
        stabilizers={"label_flipping": {"probability": share}},
        batch_size=256,
        seed=seed,
    )
    odds = math.log((1 - share) / share)
    # 5 %: 1,000 updates of 256 coins leave a noise of some 1 %.
    assert (real, fake) == pytest.approx((odds, -odds), rel=0.05)


# What the discriminator is shown.


def test_instance_noise_falls_linearly_to_nothing():
    t = trainer(
        DIRAC,
        discriminator_updates=10,
        batch_size=1024,
        stabilizers={"instance_noise": {"sigma": 0.5, "until": 0.5}},
    )
    seen, forward = [], t.state.discriminator.forward
    t.state.discriminator.forward = lambda x: seen.append(x.std().item()) or forward(x)
    deviations = []
    for _ in range(10):
        seen.clear()
        t.advance(1)
        deviations.append(seen[0])  # of the reals, all 0
    # 10 %: four standard errors of a deviation of 1,024 numbers.
    assert deviations == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1, 0, 0, 0, 0, 0], rel=0.1)


REPLAY = {"experience_replay": {"images": 16_384}}
"""All that the generator has made: 2,048 images would be replaced within 300 updates."""


def hopping_auc(seed: int, stabilizers: dict) -> float:
    """Return the AUC on fakes of a mode that the generator has left 300 updates ago."""
    draws = rng(seed)
    centers = DATASETS.parse(POINTS["dataset"]).centers().view(-1, 2, 1, 1)
    mode = 0

    def fakes(count: int) -> Tensor:
        return centers[mode] + 0.02 * torch.randn(count, 2, 1, 1, generator=draws)

    t = against(fakes, optimizer={"lr": 5e-3}, stabilizers=stabilizers, seed=seed)
    t.advance(100)
    mode = 4
    t.advance(300)
    mode = 0
    return auc(t.logits(real_points(t, 2000, draws)), t.logits(fakes(2000))).item()


def test_replay_remembers_the_mode_that_the_generator_has_left():
    plain = [hopping_auc(seed, {}) for seed in SEEDS]
    replayed = [hopping_auc(seed, REPLAY) for seed in SEEDS]
    # Knowing both modes, 7/8 of the reals rank above the old fakes and 1/8 lie among them.
    # Seen: 0.55 and 0.82.
    assert max(plain) < 0.65
    assert min(replayed) > 0.75


# What the generator is trained on.


def mean_features(t: GanTrainer, images: Tensor) -> Tensor:
    with torch.no_grad(), inputs_of(t.state.discriminator, Head) as seen:
        t.state.discriminator(images)
    return seen[0].mean(dim=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_feature_matching_matches_the_means_of_features(seed):
    t = trainer(
        POINTS,
        dataset="digits",
        stabilizers={"feature_matching": {}},
        optimizer={"lr": 1e-3},
        discriminator_optimizer={"name": "sgd", "lr": 1e-12},
        seed=seed,
    )
    real = normalize(t.config.dataset.images("train"))

    def distances() -> tuple[float, float]:
        fake = t.sample(len(real), rng(1))
        features = mean_features(t, fake) - mean_features(t, real)
        pixels = fake.mean(dim=0) - real.mean(dim=0)
        return features.square().sum().item(), pixels.square().sum().item()

    before = distances()
    t.advance(500)
    after = distances()
    # Seen: 70 times nearer in 32 random features, down to the noise of batches of 64. They leave
    # the mean image nearly free: its squared distance falls by a fifth only.
    assert after[0] < before[0] / 25
    assert 0.5 < after[1] / before[1] < 0.95


def test_feature_matching_of_a_linear_discriminator_is_least_squares_of_the_mean():
    # Its feature is x itself and the data's mean 0: theta falls by 1 - 2 h an update.
    t = trainer(DIRAC, stabilizers={"feature_matching": {}})
    t.advance(20)
    assert t.state.generator.theta.item() == pytest.approx((1 - 2 * H) ** 20, rel=1e-4)


def test_top_k_plays_the_best_of_the_batch_and_fewer_and_fewer_of_them():
    top_k = STABILIZERS.build("top_k", share=0.25, until=0.5)
    logits = torch.randn(64, 1, generator=rng(0)).requires_grad_()

    def kept(progress: float) -> Tensor:
        turn = Turn(progress, {}, rng(0))
        loss = top_k.generator_loss(lambda fake, real: -fake.sum(), turn)(logits, None)
        (gradient,) = torch.autograd.grad(loss, logits)
        return gradient.flatten() != 0

    # 64 * 0.25 ** (progress / 0.5), and a quarter from the half on.
    counts = [int(kept(p).sum()) for p in (0, 0.125, 0.25, 0.375, 0.5, 0.75, 0.999)]
    assert counts == [64, 45, 32, 23, 16, 16, 16]
    best = kept(0.25)
    assert logits.flatten()[best].min() > logits.flatten()[~best].max()


def test_several_discriminators_weigh_by_softmax_and_keep_a_gradient():
    def gradient(harshness: float) -> list[float]:
        # The first takes fakes for fakes for sure, where minimax is flat; the second is undecided.
        logits = torch.tensor([[-50.0, 0.0]], requires_grad=True)
        game = STABILIZERS.build("several_discriminators", count=2, harshness=harshness)
        minimax = TrainConfig.from_dict(POINTS | {"loss": "minimax"}).loss.generator
        game.generator_loss(minimax, Turn(0.0, {}, rng(0)))(logits, None).backward()
        return logits.grad[0].tolist()

    # Losses 0 and -log 2 under weights exp(lambda loss) / sum: 1/2 at 0, 1/3 at 1, 1/5 at 2.
    for harshness, weight in ((0.0, 1 / 2), (1.0, 1 / 3), (2.0, 1 / 5)):
        saturated, other = gradient(harshness)
        assert abs(saturated) < 1e-12
        assert other == pytest.approx(-0.5 * weight, rel=1e-5)


# Averages, on the Dirac-GAN that circles.


@pytest.mark.parametrize("weight", [0.25, 1.0])
def test_historical_averaging_spirals_in_as_a_power_of_time(weight):
    # x' = J x - 2 w (x - m), m' = (x - m) / t, J a quarter turn: once x rests on the slow
    # manifold (2 w - J) x = 2 w m, m' = J (2 w - J)^-1 m / t, so that |x| falls as
    # t^(-1 / (1 + 4 w^2)): the heavier the weight, the more the game is tied to its past.
    t = trainer(DIRAC, stabilizers={"historical_averaging": {"weight": weight}})
    theta, psi = t.state.generator.theta, t.state.discriminator[1][-1].weight
    radius = []
    for updates in (500, 1500):
        t.advance(updates)
        radius.append(math.hypot(theta.item(), psi.item()))
    power = math.log(radius[0] / radius[1]) / math.log(4)
    # 5 %: the transient, and steps of 0.1.
    assert power == pytest.approx(1 / (1 + 4 * weight**2), rel=0.05)


def test_ema_lies_at_the_centre_of_the_circle():
    half = 100  # updates; the period is 62.8
    t = trainer(DIRAC, stabilizers={"ema": {"halflife_images": 2.0 * half}})
    t.advance(1200)
    looks = []
    for _ in range(33):  # two periods
        t.advance(4)
        looks.append((abs(t.state.generator.theta.item()), abs(t.state.sampled.theta.item())))
    theta, average = np.max(looks, axis=0)
    decay = math.log(2) / half
    assert theta > 1.3
    # A low pass of the first order, at H radians an update; 5 %: looks miss the crests by 2 %.
    assert average / theta == pytest.approx(decay / math.hypot(decay, H), rel=0.05)


# Balance.


def balance(seed: int, stabilizers: dict) -> tuple[float, float, float]:
    """Return mean AUC, mean slope of the generator's loss, and share of frozen updates."""
    t = trainer(
        POINTS,
        dataset="digits",
        loss="minimax",
        ttur_ratio=10,
        stabilizers=stabilizers,
        seed=seed,
        batch_size=32,
    )
    windows = [t.advance(10) for _ in range(30)][10:]
    names = ("discriminator_auc", "generator_logit_slope", "discriminator_freezing/frozen")
    return tuple(float(np.mean([w.get(name, 0.0) for w in windows])) for name in names)


def test_freezing_holds_back_a_discriminator_that_is_too_fast():
    plain = np.array([balance(seed, {}) for seed in SEEDS])
    held = np.array([balance(seed, {"discriminator_freezing": {}}) for seed in SEEDS])
    # Seen: AUC 0.92 after 0.97, -0.08 to -0.01 at 95 %; slope 0.25 after 0.13, +0.01 to +0.24;
    # frozen in 0.4 of the updates. Each seed has the signs, by as little as 0.001 of AUC.
    assert ((held[:, 2] > 0.2) & (held[:, 2] < 0.7)).all()
    assert -0.1 < (held[:, 0] - plain[:, 0]).mean() < -0.01
    assert 0.03 < (held[:, 1] - plain[:, 1]).mean() < 0.3
    assert (held[:, 1] > plain[:, 1]).all()


# Few images.


@pytest.fixture(scope="module")
def few_digits(tmp_path_factory) -> dict:
    """Return a data set that trains on 65 digits; the others of `digits` are unseen."""
    file = tmp_path_factory.mktemp("few") / "digits.npz"
    np.savez(file, images=DATASETS.parse("digits").images("train")[:107].numpy()[:, 0])
    return {"name": "npz", "path": str(file)}


def overfitting(dataset: dict | str, seed: int, stabilizers: dict) -> tuple[float, float]:
    """Return the AUC of seen against unseen reals, 0.5 without overfitting, and the last p.

    The generator is perfect: its fakes are digits that are not among the few.
    """
    others, draws = normalize(DATASETS.parse("digits").images("train")[107:]), rng(seed)
    t = against(
        lambda count: others[torch.randint(len(others), (count,), generator=draws)],
        dataset=dataset,
        architecture={"name": "mlp", "width": 64},
        optimizer={"lr": 3e-3},
        batch_size=32,
        stabilizers=stabilizers,
        seed=seed,
    )
    signals = t.advance(200)
    splits = t.config.dataset.images("train"), DATASETS.parse("digits").images("select")
    seen, unseen = (t.logits(normalize(images)) for images in splits)
    return auc(seen, unseen).item(), signals.get("adaptive_augment/p", 0.0)


ADA = {"adaptive_augment": {"blit": False, "ramp_images": 5_000.0}}


@pytest.mark.slow
def test_augmentation_keeps_the_discriminator_from_knowing_few_images_by_heart(few_digits):
    plain, diff, ada = (
        np.array([overfitting(few_digits, seed, s) for seed in SEEDS])
        for s in ({}, {"diff_augment": {}}, ADA)
    )
    plenty = np.array([overfitting("digits", seed, ADA) for seed in SEEDS])
    # Seen: 0.96 without, 0.57 to 0.62 with diff_augment, and 0.94 to 0.95 with ADA, whose p has
    # come no further than 0.05 in 6,400 images; with plenty of digits it stays at 0.
    assert plain[:, 0].min() > 0.93
    assert diff[:, 0].max() < 0.7
    assert (ada[:, 0] < plain[:, 0]).all()
    assert ada[:, 1].min() > 0.02
    assert plenty[:, 1].max() < 0.005


# Modes: the benchmark's game, seeds and looks.


@functools.cache
def mean_run(name: str | None = None, **options) -> Run:
    """Return the mean over five seeds of what the benchmark sees of one stabiliser, or of none."""
    stabilizers = {name: options} if name else {}
    runs = [trained("ring", 1500, seed, stabilizers) for seed in SEEDS]
    return Run(*np.mean(runs, axis=0))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_looking_ahead_covers_more_modes_and_holds_some():
    plain, unrolled = mean_run(), mean_run("unrolled_discriminator")
    assert plain.covered < 3
    assert unrolled.covered > 6
    assert unrolled.held > plain.held + 1  # seen: 2.9 against 0.2
    assert unrolled.quality > plain.quality + 0.1


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_minibatch_discrimination_covers_and_holds_modes():
    plain, informed = mean_run(), mean_run("minibatch_discrimination")
    assert informed.covered > plain.covered + 4
    assert informed.held > plain.held + 3  # seen: 6.2 against 0.2
    assert informed.quality > plain.quality + 0.25


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("name", "options"), [("packing", {"images": 2}), ("top_k", {})])
def test_packing_and_top_k_spread_the_samples_but_hold_no_mode(name, options):
    # They cover nearly all modes; so would points strewn over the square (7.5), of which 0.022
    # are near a centre. In so short a run the collapse is undone and nothing more.
    run = mean_run(name, **options)
    assert run.covered > mean_run().covered + 4
    assert run.held < 1
    assert 0.01 < run.quality < 0.15


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_several_discriminators_alone_undo_no_collapse():
    # Seen: a paired difference of -0.1 modes, -0.6 to +0.4.
    run = mean_run("several_discriminators")
    assert run.covered == pytest.approx(mean_run().covered, abs=2)
    assert run.held < 2
