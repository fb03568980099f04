"""Every stabiliser by its definition; its effects are in test_stabilizer_effects.py."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import softplus

from ganstudy.gan.architectures.base import Head
from ganstudy.gan.conditioning import inputs_of
from ganstudy.gan.config import TrainConfig
from ganstudy.gan.losses import LOSSES
from ganstudy.gan.regularizers import REGULARIZERS
from ganstudy.gan.stabilizers import STABILIZERS, Features, Turn
from ganstudy.gan.stabilizers.judges import Packed, SeveralDiscriminators, SpreadInGroup
from ganstudy.gan.stabilizers.objectives import LookAhead
from ganstudy.gan.trainer import GanTrainer, build_trainer
from ganstudy.registry import StudyError

SMALL = {
    "dataset": "digits",
    "architecture": {"name": "dcgan", "width": 4, "latent_dim": 4},
    "batch_size": 16,
}
OFF = {
    "adaptive_augment": {"max_p": 0.0},
    "average_never_updated": {},
    "diff_augment": {"color": False, "translation": False, "cutout": False},
    "discriminator_freezing": {"threshold": 1.0},
    "ema": {},
    "experience_replay": {"share": 0.0},
    "feature_matching": {"weight": 0.0},
    "historical_averaging": {"weight": 0.0},
    "instance_noise": {"sigma": 0.0},
    "label_flipping": {"probability": 0.0},
    "label_smoothing": {"amount": 0.0},
    "minibatch_discrimination": {"kernels": 0},
    "minibatch_stddev": {"group": 1},
    "packing": {"images": 1},
    "several_discriminators": {"count": 1},
    "top_k": {"share": 1.0},
    "unrolled_discriminator": {"steps": 0},
}
"""What turns each of them off. An average is sampled from and never looked at by the game."""
AVERAGES = {"ema", "average_never_updated"}


def trainer(**settings) -> GanTrainer:
    built = build_trainer(TrainConfig.from_dict(SMALL | settings))
    assert isinstance(built, GanTrainer)
    return built


def played(t: GanTrainer) -> torch.Tensor:
    networks = t.state.generator, t.state.discriminator
    return torch.cat([v.flatten().double() for n in networks for v in n.state_dict().values()])


def turn(progress: float = 0.0, seed: int = 0, **memory) -> Turn:
    return Turn(progress, memory, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", STABILIZERS.names())
def test_off_is_bit_equal_to_a_run_without(name):
    plain, off = trainer(), trainer(stabilizers={name: OFF[name]})
    one, other = plain.advance(4), off.advance(4)
    assert torch.equal(played(plain), played(off))
    assert one == {key: other[key] for key in one}


@pytest.mark.parametrize("name", sorted(set(STABILIZERS.names()) - AVERAGES))
def test_on_is_another_run(name):
    # Freezing asks for a discriminator that is too strong; the rest changes the first updates.
    options = {"threshold": 0.0} if name == "discriminator_freezing" else {}
    options |= {"start": 0.9} if name == "adaptive_augment" else {}
    budget = {"discriminator_updates": 8}
    plain, on = trainer(**budget), trainer(**budget, stabilizers={name: options})
    plain.advance(4)
    on.advance(4)
    assert played(plain).shape != played(on).shape or not torch.equal(played(plain), played(on))


@pytest.mark.parametrize("loss", LOSSES.names())
def test_every_stabiliser_trains_with_every_loss_or_is_refused_with_a_reason(loss):
    for name in STABILIZERS.names():
        settings = SMALL | {"loss": loss, "stabilizers": {name: {}}}
        if refused(loss, name):
            with pytest.raises(StudyError, match=rf"^stabilizers\.{name}: {loss} "):
                TrainConfig.from_dict(settings)
            continue
        signals = build_trainer(TrainConfig.from_dict(settings)).advance(3)
        broken = [key for key, value in signals.items() if not math.isfinite(value)]
        assert not broken, name


def refused(loss: str, stabilizer: str) -> bool:
    """Whether `stabilizer` has no meaning for `loss`."""
    if loss == "vae":
        return stabilizer not in AVERAGES
    if stabilizer.startswith("minibatch") or stabilizer == "feature_matching":
        return LOSSES.get(loss).reconstruction_power > 0
    needs = {"label_smoothing", "adaptive_augment"}
    return stabilizer in needs and LOSSES.build(loss).boundary is None


@pytest.mark.parametrize("architecture", ["mlp", "infogan", "resnet", "style", "progressive"])
def test_every_stabiliser_trains_with_every_kind_of_network(architecture):
    for name in STABILIZERS.names():
        settings = {"architecture": {"name": architecture, "width": 4, "latent_dim": 4}}
        signals = trainer(**settings, stabilizers={name: {}}).advance(2)
        assert all(math.isfinite(value) for value in signals.values()), name


def test_all_stabilisers_together_train_and_resume():
    every: dict = {name: {} for name in STABILIZERS.names()}
    every |= {"ema": {"halflife_images": 100.0}, "feature_matching": {"alone": False}}
    settings = {"stabilizers": every, "regularizers": {"r1": {}, "weight_clip": {}}}
    straight = trainer(**settings)
    signals = straight.advance(3)
    assert all(math.isfinite(value) for value in signals.values())
    other = trainer(**settings)
    other.load_state_dict(copy.deepcopy(straight.state_dict()))
    assert straight.advance(3) == other.advance(3)
    assert torch.equal(played(straight), played(other))


def test_what_is_off_refuses_nothing():
    """A sweep over it contains the plain game, whatever the rest of the config is."""
    awkward = {"loss": "wasserstein", "conditioning": "projection", "batch_size": 15}
    off = {name: options for name, options in OFF.items() if name != "feature_matching"}
    points = {"dataset": "ring", "architecture": {"name": "mlp", "width": 8}}
    matching = {"stabilizers": {"feature_matching": {}}}
    for settings, added in (
        (awkward, off),
        (points, OFF),
        (matching, {"feature_matching": {}, "top_k": {"share": 1.0}}),
    ):
        without, beside = trainer(**settings), trainer(**settings | {"stabilizers": added})
        without.advance(2)
        beside.advance(2)
        assert torch.equal(played(without), played(beside))


@pytest.mark.parametrize("regularizer", REGULARIZERS.names())
def test_every_regulariser_goes_with_packs_and_several_discriminators(regularizer):
    both = {"packing": {}, "several_discriminators": {"count": 2}}
    signals = trainer(stabilizers=both, regularizers={regularizer: {}}).advance(2)
    assert all(math.isfinite(value) for value in signals.values())


@pytest.mark.parametrize(
    ("settings", "path", "reason"),
    [
        ({"stabilizers": {"packing": {"images": 3}}}, "packing", "not a multiple of 3"),
        ({"stabilizers": {"packing": {}}, "conditioning": "projection"}, "packing", "no label"),
        (
            {"stabilizers": {"experience_replay": {}}, "conditioning": "embedding"},
            "experience_replay",
            "no labels",
        ),
        (
            {"stabilizers": {"label_smoothing": {}}, "loss": "wasserstein"},
            "label_smoothing",
            "no target to smooth",
        ),
        (
            {"stabilizers": {"minibatch_stddev": {}}, "loss": "energy_based"},
            "minibatch_stddev",
            "no last layer",
        ),
        (
            {"stabilizers": {"unrolled_discriminator": {}}, "optimizer": "rmsprop"},
            "unrolled_discriminator",
            "adam or sgd",
        ),
        (
            {"stabilizers": {"discriminator_freezing": {}}, "simultaneous": True},
            "discriminator_freezing",
            "alternating",
        ),
        (
            {"stabilizers": {"feature_matching": {}}, "compile": True},
            "feature_matching",
            "compile",
        ),
        ({"stabilizers": {"diff_augment": {}}, "dataset": "ring"}, "diff_augment", "oint"),
        ({"stabilizers": {"packing": {"images": 16}}}, "packing", "less than two packs"),
        ({"stabilizers": {"feature_matching": {}, "top_k": {}}}, "feature_matching", "top_k"),
        (
            {"stabilizers": {"experience_replay": {}}, "optimizer": "extragradient_adam"},
            "experience_replay",
            "looks twice",
        ),
        (
            {"stabilizers": {"minibatch_stddev": {}}, "architecture": {"name": "patch"}},
            "minibatch_stddev",
            "judges patches",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_cannot_work_is_refused_with_the_reason(settings, path, reason):
    with pytest.raises(StudyError) as error:
        TrainConfig.from_dict(SMALL | settings)
    assert error.value.path == f"stabilizers.{path}"
    assert reason in error.value.rule


def test_instance_noise_has_its_sigma_and_fades_when_asked():
    images = torch.zeros(64, 1, 28, 28)
    for progress, until, expected in ((0.4, None, 0.5), (0.4, 0.8, 0.25), (0.9, 0.8, 0.0)):
        noise = STABILIZERS.build("instance_noise", sigma=0.5, until=until)
        seen = noise.discriminator_input(images, turn(progress))
        # 50,176 draws: the standard deviation's own error is at most 0.0016.
        assert seen.std().item() == pytest.approx(expected, abs=0.008)


LOGITS = torch.linspace(-3, 4, 8).view(8, 1), torch.linspace(-5, 2, 8).view(8, 1)


def test_smoothed_logistic_labels_are_the_cross_entropy_with_soft_targets():
    real, fake = (logits.clone().requires_grad_() for logits in LOGITS)
    smoothing = STABILIZERS.build("label_smoothing", amount=0.2)
    loss = LOSSES.build("non_saturating")
    smoothing.discriminator_loss(loss.discriminator, turn())(real, fake).backward()
    soft = nn.functional.binary_cross_entropy_with_logits
    other_real, other_fake = (logits.clone().requires_grad_() for logits in LOGITS)
    target = torch.full_like(other_real, 0.8)
    (soft(other_real, target) + softplus(other_fake).mean()).backward()
    torch.testing.assert_close(real.grad, other_real.grad)
    torch.testing.assert_close(fake.grad, other_fake.grad)


def test_smoothed_least_squares_has_the_moved_target():
    real, fake = (logits.clone().requires_grad_() for logits in LOGITS)
    smoothing = STABILIZERS.build("label_smoothing", amount=0.3)
    play = smoothing.discriminator_loss(LOSSES.build("least_squares").discriminator, turn())
    play(real, fake).backward()
    torch.testing.assert_close(real.grad, (LOGITS[0] - 0.7) / 8)
    torch.testing.assert_close(fake.grad, LOGITS[1] / 8)


def test_flipped_labels_are_the_loss_of_exchanged_pairs_as_often_as_asked():
    flipping = STABILIZERS.build("label_flipping", probability=0.3)
    seen = []
    play = flipping.discriminator_loss(lambda r, f: seen.append((r, f)) or r.mean(), turn())
    real, fake = torch.ones(20_000, 1), torch.zeros(20_000, 1)
    play(real, fake)
    ((r, f),) = seen
    assert torch.equal(r + f, torch.ones_like(r))
    # 20,000 coins: the share's own error is 0.0032.
    assert f.mean().item() == pytest.approx(0.3, abs=0.013)


def test_the_replay_buffer_fills_and_then_gives_old_fakes_back():
    replay = STABILIZERS.build("experience_replay", share=0.25, images=6)
    config = TrainConfig.from_dict(SMALL)
    memory = replay.memory(config, {})
    batches = [torch.full((16, 1, 8, 8), float(k)) for k in range(1, 6)]
    shown = [replay.presented(batch, turn(seed=k, **memory)) for k, batch in enumerate(batches)]
    assert torch.equal(shown[0], batches[0]), "an empty buffer has nothing to give"
    for k, batch in enumerate(shown[1:], start=2):
        assert (batch[:12] == k).all()
        assert (batch[12:] < k).all(), "the buffer's images are of earlier updates"
        assert (batch[12:] > 0).all(), "nothing is taken from the buffer's empty part"
    assert int(memory["held"]) == 6
    assert (memory["images"] > 0).all()


def test_labels_are_flipped_before_they_are_smoothed():
    """Whatever is called real has the smoothed target, in any order of writing."""
    both = {"label_smoothing": {"amount": 0.4}, "label_flipping": {"probability": 0.3}}
    t = trainer(stabilizers=both)
    real, fake = (torch.randn(50_000, 1).requires_grad_() for _ in range(2))
    t._discriminator_play()(real, fake).backward()
    coins = torch.Generator()
    coins.set_state(trainer(stabilizers=both).state.streams["stabilizers"].get_state())
    wrong = (torch.rand(50_000, 1, generator=coins) < 0.3).double()
    for logits, called_real in ((real, 1 - wrong), (fake, wrong)):
        expected = (logits.detach().sigmoid() - 0.6 * called_real) / 50_000
        torch.testing.assert_close(logits.grad.double(), expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("loss", ["hinge", "energy_based"])
@pytest.mark.parametrize("architecture", ["mlp", "infogan", "resnet"])
def test_energies_go_with_every_stabiliser_that_is_not_refused(architecture, loss):
    settings = {"architecture": {"name": architecture, "width": 4, "latent_dim": 4}, "loss": loss}
    for name in STABILIZERS.names():
        if not refused(loss, name):
            signals = trainer(**settings, stabilizers={name: {}}).advance(2)
            assert all(math.isfinite(value) for value in signals.values()), name


@pytest.mark.parametrize("name", ["instance_noise", "label_flipping", "diff_augment"])
def test_both_looks_of_extragradient_draw_the_same(name):
    t = trainer(optimizer="extragradient_sgd", stabilizers={name: {}})
    seen, rng = [], t.state.streams["stabilizers"]
    play = t._move_together
    t._move_together = lambda *a, **k: (play(*a, **k), seen.append(rng.get_state()))[0]
    t.advance(1)
    assert len(seen) == 2
    assert torch.equal(*seen)


def test_minibatch_discrimination_is_the_sum_of_the_paper():
    torch.manual_seed(0)
    layer = STABILIZERS.build("minibatch_discrimination", kernels=3, kernel_dim=2).across(5)
    features = torch.randn(4, 5)
    out = layer(features)
    assert out.shape == (4, layer.out_features) == (4, 8)
    assert torch.equal(out[:, :5], features)
    for i in range(4):
        for b in range(3):
            rows = [features[j] @ layer.projection[:, b] for j in range(4)]
            expected = sum(
                math.exp(-(rows[i] - rows[j]).abs().sum().item()) for j in range(4) if j != i
            )
            assert out[i, 5 + b].item() == pytest.approx(expected, rel=1e-5)


def test_minibatch_stddev_is_that_of_every_group():
    torch.manual_seed(0)
    features = torch.randn(9, 5)
    out = SpreadInGroup(5, 4)(features)
    for label in range(2):  # two groups of 4; the ninth image reads the spread of the first
        group = features[[label, label + 2, label + 4, label + 6]]
        expected = group.var(dim=0, unbiased=False).sqrt().mean()
        torch.testing.assert_close(out[label:8:2, 5], expected.expand(4), rtol=1e-5, atol=1e-6)
    assert out[8, 5] == out[0, 5]
    collapsed = SpreadInGroup(5, 4)(features[:1].repeat(8, 1))
    assert collapsed[:, 5].max() < 1e-3


def test_packs_are_neighbours_stacked_as_channels():
    seen = []
    packed = Packed(nn.Sequential(Keep(seen), nn.Flatten(), nn.Linear(6 * 4, 1)), 3)
    images = torch.arange(7 * 2 * 4).float().view(7, 2, 2, 2)
    assert packed(images).shape == (2, 1)  # the seventh image makes no pack
    expected = torch.stack([images[:3].flatten(0, 1), images[3:6].flatten(0, 1)])
    assert torch.equal(seen[0], expected)


class Keep(nn.Module):
    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def forward(self, x):
        self.seen.append(x)
        return x


def test_a_penalty_on_packs_takes_the_norm_over_the_pack():
    # A linear discriminator of packs has the same gradient everywhere: the norm of its weights.
    linear = nn.Linear(2 * 4, 1, bias=False)
    packed = Packed(nn.Sequential(nn.Flatten(), linear), 2)
    real, fake = torch.randn(6, 1, 2, 2), torch.randn(6, 1, 2, 2)
    rng = torch.Generator().manual_seed(0)
    norm = linear.weight.norm().item()
    r1 = REGULARIZERS.build("r1", weight=2.0).penalty(packed, real, fake, rng).item()
    assert r1 == pytest.approx(norm**2, rel=1e-5)
    gp = REGULARIZERS.build("gradient_penalty", weight=1.0).penalty(packed, real, fake, rng)
    assert gp.item() == pytest.approx((norm - 1) ** 2, rel=1e-4)


def test_several_discriminators_weigh_the_generators_losses_by_their_softmax():
    gman = STABILIZERS.build("several_discriminators", count=3, harshness=2.0)
    fake = torch.tensor([[-2.0, 0.0, 1.0], [-1.0, 0.5, 3.0]], requires_grad=True)
    loss = LOSSES.build("non_saturating").generator
    value = gman.generator_loss(loss, turn())(fake, None)
    parts = torch.stack([softplus(-fake[:, i]).mean() for i in range(3)])
    weights = (2.0 * parts).softmax(0).detach()
    torch.testing.assert_close(value, (weights * parts).sum())
    value.backward()
    slopes = -(weights / 2) * torch.sigmoid(-fake.detach())
    torch.testing.assert_close(fake.grad, slopes)


def test_several_discriminators_are_trained_each_by_itself():
    # Two members beside each other move as each of them would alone.
    t = trainer(
        stabilizers={"several_discriminators": {"count": 2}},
        optimizer={"name": "sgd", "lr": 0.1},
        regularizers={"r1": {}},
        architecture={"name": "mlp", "width": 8, "latent_dim": 4},
    )
    alone = copy.deepcopy(t.state.discriminator.members[1])
    assert isinstance(t.state.discriminator, SeveralDiscriminators)
    real, latents = t._next_real(), t._latents()
    fake = t.state.generator(latents).detach()
    logits = alone(real), alone(fake)
    total = LOSSES.build("non_saturating").discriminator(*logits)
    total = total + REGULARIZERS.build("r1").penalty(alone, real, fake, torch.Generator())
    total.backward()
    game = t._play(real, latents)
    t._step("discriminator", t._discriminator_loss(game))
    pairs = zip(t.state.discriminator.members[1].parameters(), alone.parameters(), strict=True)
    for moved, start in pairs:
        step = -0.1 * start.grad if start.grad is not None else 0.0
        torch.testing.assert_close(moved.detach(), (start + step).detach(), rtol=1e-5, atol=1e-6)


def test_feature_matching_is_the_squared_distance_of_mean_features():
    matching = STABILIZERS.build("feature_matching", weight=3.0)
    fake, real = torch.randn(6, 4), torch.randn(5, 4)
    at = Turn(0.0, {}, torch.Generator(), features=Features([fake], [real]))
    value = matching.generator_loss(lambda f, r: f.mean(), at)(torch.ones(6, 1), None)
    expected = 3 * (fake.mean(0) - real.mean(0)).square().sum()
    torch.testing.assert_close(value, expected)
    beside = STABILIZERS.build("feature_matching", weight=3.0, alone=False)
    value = beside.generator_loss(lambda f, r: f.mean(), at)(torch.ones(6, 1), None)
    torch.testing.assert_close(value, expected + 1)


@pytest.mark.parametrize("spectral", [False, True])
def test_features_are_what_the_last_layer_reads(spectral):
    t = trainer(
        architecture={"name": "dcgan", "width": 4, "latent_dim": 4, "spectral_norm": spectral},
        stabilizers={"feature_matching": {}},
    )
    real, fake = t._next_real(), t.sample(16, torch.Generator().manual_seed(0))
    t.state.discriminator.eval()
    judged = t._judged(t.state.discriminator, fake, real)
    body = t.state.discriminator[:-1]
    torch.testing.assert_close(judged.features.fake[0], body(fake))
    torch.testing.assert_close(judged.features.real[0], body(real))
    with inputs_of(t.state.discriminator, Head) as seen:
        pass
    t.state.discriminator(fake)
    assert seen == [], "hooks are gone after the block"


def test_top_k_keeps_the_best_rows_and_their_reals():
    kept = STABILIZERS.build("top_k", share=0.5, until=0.5)
    seen = []
    fake, real = torch.tensor([[3.0], [1.0], [4.0], [2.0]]), torch.arange(4.0)[:, None]
    for progress, count in ((0.0, 4), (0.25, 3), (0.5, 2), (0.9, 2)):
        kept.generator_loss(lambda f, r: seen.append((f, r)) or f.mean(), turn(progress))(
            fake, real
        )
        f, r = seen.pop()
        assert f.flatten().tolist() == [4.0, 3.0, 2.0, 1.0][:count]  # 4 * 0.5^(1/2) = 2.8
        assert r.flatten().tolist() == [2.0, 0.0, 3.0, 1.0][:count]


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_looking_ahead_makes_the_steps_that_the_optimiser_would_make(optimizer):
    # Unrolled without the generator's share, the weights are those of real updates.
    lr = {"adam": {"lr": 0.01, "beta1": 0.5}, "sgd": {"lr": 0.1, "momentum": 0.5}}[optimizer]
    t = trainer(optimizer={"name": optimizer, **lr}, stabilizers={"unrolled_discriminator": {}})
    t.advance(3)
    real, latents = t._next_real(), t._latents()
    fake = t.state.generator(latents).detach()
    loss = LOSSES.build("non_saturating").discriminator
    state = t.state
    unrolled = t.config.stabilizers[0].opponent(
        state.discriminator, state.discriminator_optimizer,
        lambda network: loss(network(real), network(fake)),
    )  # fmt: skip
    ahead = unrolled(fake).detach()
    before = copy.deepcopy(state.discriminator.state_dict())
    for name, value in state.discriminator.state_dict().items():
        assert torch.equal(value, before[name]), "nothing of it stays"
    for _ in range(5):
        t._step("discriminator", loss(state.discriminator(real), state.discriminator(fake)))
    torch.testing.assert_close(ahead, state.discriminator(fake).detach(), rtol=1e-3, atol=1e-4)


def test_looking_ahead_counts_the_steps_of_every_weight():
    """A growing network's later stages have made fewer steps than its first."""
    early, late = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = torch.optim.Adam([early, late], lr=0.1, betas=(0.5, 0.999))
    for step in range(5):
        early.grad, late.grad = torch.ones(1), torch.ones(1) if step > 2 else None
        optimizer.step()
    stepper = LookAhead(optimizer, [early, late])
    ahead = stepper.step([early, late], [torch.full((1,), 2.0)] * 2)
    early.grad, late.grad = torch.full((1,), 2.0), torch.full((1,), 2.0)
    optimizer.step()
    for found, real in zip(ahead, (early, late), strict=True):
        torch.testing.assert_close(found.detach(), real.detach())


def test_a_slope_that_no_gradient_passes_is_no_signal():
    assert "generator_logit_slope" not in trainer(stabilizers={"feature_matching": {}}).advance(1)
    beside = trainer(stabilizers={"feature_matching": {"alone": False}}).advance(1)
    assert beside["generator_logit_slope"] > 0


@pytest.mark.parametrize("stabilizers", [{"packing": {}}, {"minibatch_discrimination": {}}])
def test_judging_leaves_an_incomplete_batch_out_where_there_is_a_whole_one(stabilizers):
    t = trainer(stabilizers=stabilizers, architecture={"name": "mlp", "width": 8})
    images = t.sample(33, torch.Generator().manual_seed(0))
    rows = 16 if "packing" in stabilizers else 32
    assert t.logits(images).shape == (rows, 1)
    assert torch.equal(t.logits(images), t.logits(images[:32]))
    assert len(t.logits(images[:6])) == (3 if "packing" in stabilizers else 6)


def test_the_unrolled_steps_are_differentiated_through():
    """d/dx of f(x, w - lr dL(x, w)/dw) by hand: one linear weight, one SGD step."""
    discriminator = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(discriminator.parameters(), lr=0.5)
    x = torch.tensor([[2.0]], requires_grad=True)
    unrolled = STABILIZERS.build("unrolled_discriminator", steps=1).opponent(
        discriminator, optimizer, lambda network: network(x).square().mean()
    )
    unrolled(x).backward()
    w, at = discriminator.weight.item(), 2.0
    # w' = w - 0.5 * 2 w x^2 = w (1 - x^2); the logit w' x has the slope w (1 - 3 x^2).
    assert x.grad.item() == pytest.approx(w * (1 - 3 * at**2), rel=1e-5)
    assert discriminator.weight.grad is None


def test_looking_ahead_leaves_a_weight_without_gradient_where_it_is():
    parameter = nn.Parameter(torch.ones(2))
    stepper = LookAhead(torch.optim.Adam([parameter], lr=0.1), [parameter])
    (moved,) = stepper.step([parameter], [torch.tensor([0.0, 3.0])])
    torch.testing.assert_close(moved.detach(), torch.tensor([1.0, 0.9]))


def test_historical_averaging_pulls_to_the_mean_of_the_past():
    averaging = STABILIZERS.build("historical_averaging", weight=2.0)
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(1.0)
    memory = averaging.memory(TrainConfig.from_dict(SMALL), {"generator": network})
    for value in (4.0, 7.0):
        network.weight.data.fill_(value)
        averaging.after_step(network, "generator", memory)
    penalty = averaging.weight_penalty(network, "generator", memory)
    penalty.backward()
    # The mean of 1, 4 and 7 is 4, the weight 7.
    assert penalty.item() == pytest.approx(2 * 9)
    assert network.weight.grad.item() == pytest.approx(2 * 2 * 3)


def test_extragradient_remembers_where_the_weights_were_and_not_where_it_looked():
    t = trainer(optimizer="extragradient_sgd", stabilizers={"historical_averaging": {}})
    start = [p.detach().clone() for p in t.state.generator.parameters()]
    t.advance(1)
    memory = t.state.memories["historical_averaging"]
    assert memory["generator.values"] == 2
    now = dict(t.state.generator.named_parameters())
    for before, (name, value) in zip(start, now.items(), strict=True):
        torch.testing.assert_close(memory[f"generator.{name}"], (before + value.detach()) / 2)


def test_a_frozen_discriminator_does_not_move_and_is_counted_on():
    t = trainer(stabilizers={"discriminator_freezing": {"threshold": 0.0}})
    before = [p.clone() for p in t.state.discriminator.parameters()]
    signals = t.advance(3)
    assert signals["discriminator_freezing/frozen"] == 1
    assert t.discriminator_updates == t.generator_updates == 3
    for start, now in zip(before, t.state.discriminator.parameters(), strict=True):
        assert torch.equal(start, now)


def test_freezing_ends_when_the_average_falls_below_its_threshold():
    freezing = STABILIZERS.build("discriminator_freezing", threshold=0.9, halflife_updates=1.0)
    config = TrainConfig.from_dict(SMALL)
    memory = freezing.memory(config, {})
    right = torch.ones(4, 1), torch.zeros(4, 1)
    learning = []
    for real, fake in [right] * 4 + [right[::-1]] * 2:
        freezing.remember(memory, real, fake, config)
        learning.append(freezing.learns(turn(**memory)))
    # 0.5 -> 0.75, 0.875, 0.9375, 0.969, then 0.48, 0.24
    assert learning == [True, True, False, False, True, True]
