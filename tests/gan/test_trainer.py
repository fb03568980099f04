from __future__ import annotations

import io
import math
import shutil

import pytest
import torch

from ganstudy.gan.conditioning import CONDITIONINGS
from ganstudy.gan.config import TrainConfig
from ganstudy.gan.losses import LOSSES, auc
from ganstudy.gan.optimizers import OPTIMIZERS, SCHEDULES
from ganstudy.gan.regularizers import REGULARIZERS
from ganstudy.gan.stabilizers import STABILIZERS
from ganstudy.gan.trainer import GanTrainer, NetworkTrainer, build_trainer

SMALL = {
    "dataset": "digits",
    "architecture": {"name": "dcgan", "width": 4, "latent_dim": 4},
    "batch_size": 16,
}


def trainer(**settings) -> NetworkTrainer:
    return build_trainer(TrainConfig.from_dict(SMALL | settings))


def weights(t: NetworkTrainer) -> torch.Tensor:
    networks = (t.state.generator, t.state.discriminator, t.state.averages)
    values = [v.flatten().double() for network in networks for v in network.state_dict().values()]
    values += [v.flatten().double() for m in t.state.memories.values() for v in m.values()]
    return torch.cat(values)


def reload(state: dict) -> dict:
    """Send a state through a file, as a resume does."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


VARIANTS = [
    *({"loss": name} for name in LOSSES.names()),
    *({"regularizers": {name: {}}} for name in REGULARIZERS.names()),
    *({"stabilizers": {name: {}}} for name in STABILIZERS.names()),
    *({"conditioning": name} for name in CONDITIONINGS.names()),
    *({"optimizer": name} for name in OPTIMIZERS.names()),
    *({"schedule": name, "discriminator_updates": 10} for name in SCHEDULES.names()),
    {"optimizer": {"name": "sgd", "momentum": 0.9}},
    {"optimizer": "extragradient_adam", "regularizers": {"lecam": {"warmup_updates": 2}}},
    {"regularizers": {"lecam": {"warmup_updates": 2, "interval": 2}, "r1": {"interval": 3}}},
    {"regularizers": {"weight_clip": {}, "gradient_penalty": {}, "l2": {}, "gradient_clip": {}}},
    {"architecture": {"name": "dcgan", "width": 4, "spectral_norm": True}},
    {"architecture": {"name": "mlp", "width": 8}},
    {"architecture": {"name": "style", "width": 4}},
    {"architecture": {"name": "progressive", "width": 4}, "discriminator_updates": 10},
    {"architecture": {"name": "patch", "width": 4, "scales": 2}, "dataset": "mnist5k"},
    {"conditioning": "projection", "stabilizers": {"several_discriminators": {}, "ema": {}}},
    {"stabilizers": {"experience_replay": {"images": 32}, "packing": {}, "top_k": {}}},
    {"stabilizers": {"unrolled_discriminator": {"steps": 2}}, "optimizer": "sgd"},
    {"n_critic": 3},
    {"generator_steps": 2},
    {"simultaneous": True, "loss": "relativistic_pairing"},
    {"flips": True, "data_seed": 547},
    {"precision": "bfloat16"},
    {"precision": "bfloat16", "loss": "vae"},
    {"memory_format": "contiguous"},
]


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_resume_is_bit_equal(settings):
    straight = trainer(**settings)
    straight.advance(5)
    expected = straight.advance(4)
    first = trainer(**settings)
    first.advance(5)
    second = trainer(**settings)
    second.load_state_dict(reload(first.state_dict()))
    assert second.advance(4) == expected
    assert torch.equal(weights(second), weights(straight))


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_looking_changes_nothing(settings):
    watched, alone = trainer(**settings), trainer(**settings)
    watched.advance(3)
    images = watched.sample(20, torch.Generator().manual_seed(1))
    if isinstance(watched, GanTrainer):
        watched.logits(images, watched.draw_labels(20, torch.Generator().manual_seed(1)))
    watched.advance(3)
    alone.advance(3)
    alone.advance(3)
    assert torch.equal(weights(watched), weights(alone))


def test_reading_more_often_changes_no_weight():
    often, seldom = trainer(), trainer()
    for _ in range(6):
        often.advance(1)
    seldom.advance(6)
    assert torch.equal(weights(often), weights(seldom))


def test_the_global_seed_neither_matters_nor_changes():
    torch.manual_seed(1)
    first = trainer(regularizers={"gradient_penalty": {}})
    first.advance(3)
    after = torch.rand(1)
    torch.manual_seed(2)
    second = trainer(regularizers={"gradient_penalty": {}})
    second.advance(3)
    torch.manual_seed(1)
    assert torch.equal(weights(first), weights(second))
    assert torch.equal(after, torch.rand(1))


def test_seeds_differ():
    assert not torch.equal(weights(trainer(seed=0)), weights(trainer(seed=1)))


@pytest.mark.parametrize(("n_critic", "updates", "expected"), [(1, 7, 7), (3, 7, 2), (5, 4, 0)])
def test_n_critic_counts_discriminator_updates_per_generator_update(n_critic, updates, expected):
    t = trainer(n_critic=n_critic)
    t.advance(updates)
    assert (t.discriminator_updates, t.generator_updates) == (updates, expected)


def test_generator_steps_counts_generator_updates_per_discriminator_update():
    t = trainer(generator_steps=3)
    t.advance(2)
    assert (t.discriminator_updates, t.generator_updates) == (2, 6)


@pytest.mark.parametrize(
    "settings", [{"loss": "vae"}, {"optimizer": "extragradient_sgd"}], ids=str
)
def test_every_trainer_reads_one_batch_per_discriminator_update(settings):
    t = trainer(**settings)
    batches = t.state.batches
    drawn = []
    batches.next, original = lambda: drawn.append(1) or original(), batches.next
    t.advance(7)
    assert (t.discriminator_updates, t.generator_updates, len(drawn)) == (7, 7, 7)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1, 1, 1, 1, 1, 1, 1, 1]),
        ("linear", [1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        ({"name": "linear", "hold": 0.5, "final": 0.2}, [1, 1, 1, 1, 1, 0.8, 0.6, 0.4]),
        ("cosine", [(1 + math.cos(math.pi * u / 8)) / 2 for u in range(8)]),
        ({"name": "cyclical", "cycles": 2, "low": 0.2}, [0.2, 0.6, 1, 0.6] * 2),
    ],
)  # fmt: skip
def test_schedules_count_discriminator_updates_of_the_budget(schedule, expected):
    t = trainer(schedule=schedule, discriminator_updates=8, optimizer={"lr": 0.01}, ttur_ratio=3)
    seen = []
    for _ in range(8):
        t.advance(1)
        (d,) = {g["lr"] for g in t.state.discriminator_optimizer.param_groups}
        (g,) = {g["lr"] for g in t.state.generator_optimizer.param_groups}
        assert d / g == pytest.approx(3)
        seen.append(g / 0.01)
    assert seen == pytest.approx(expected)


def test_lazy_penalties_fall_on_every_interval_th_update_the_first_included():
    t = trainer(regularizers={"r1": {"interval": 3}})
    due = ["penalty/r1" in t.advance(1) for _ in range(7)]
    assert due == [True, False, False, True, False, False, True]


def test_a_lazy_penalty_weighs_as_much_as_its_interval():
    # One SGD update from the same start: the penalty's share of the step is 4 times as long.
    sgd = {"optimizer": {"name": "sgd", "lr": 1e-3}}
    plain, every, lazy = (
        trainer(**sgd, regularizers=r)
        for r in ({}, {"r1": {"weight": 4.0}}, {"r1": {"interval": 4, "weight": 4.0}})
    )
    for t in (plain, every, lazy):
        t.advance(1)
    start = [p.detach() for p in plain.state.discriminator.parameters()]
    shares = [
        torch.cat([(p.detach() - s).flatten() for p, s in zip(t.state.discriminator.parameters(),
                                                              start, strict=True)])
        for t in (every, lazy)
    ]  # fmt: skip
    # 1 %: differences of float32 weights that moved by some 1e-4.
    assert (shares[1].norm() / shares[0].norm()).item() == pytest.approx(4, rel=0.01)


def test_lazy_generator_penalties_count_generator_updates():
    t = trainer(n_critic=2, regularizers={"orthogonal": {"networks": "both", "interval": 2}})
    windows = [t.advance(1) for _ in range(8)]
    of_d = [i for i, w in enumerate(windows) if "penalty/orthogonal" in w]
    of_g = [i for i, w in enumerate(windows) if "generator_penalty/orthogonal" in w]
    assert of_d == [0, 2, 4, 6]  # discriminator updates 0, 2, 4, 6
    assert of_g == [1, 5]  # generator updates 0 and 2, after the 2nd and the 6th


def test_a_clip_holds_after_every_update_and_a_lazy_one_after_its_own():
    def largest(t):
        return max(p.abs().max().item() for p in t.state.discriminator.parameters())

    t = trainer(regularizers={"weight_clip": {"limit": 0.005}}, optimizer={"lr": 0.01})
    lazy = trainer(
        regularizers={"weight_clip": {"limit": 0.005, "interval": 2}}, optimizer={"lr": 0.01}
    )
    held = []
    for _ in range(4):
        t.advance(1)
        lazy.advance(1)
        assert largest(t) <= 0.005 + 1e-9
        held.append(largest(lazy) <= 0.005 + 1e-9)
    assert held == [True, False, True, False]


def test_the_order_of_the_data_has_a_seed_of_its_own():
    first, second, other = (
        trainer(seed=s, data_seed=d) for s, d in ((0, 547), (1, 547), (0, 548))
    )
    batches = [t.state.batches.next() for t in (first, second, other)]
    assert torch.equal(batches[0], batches[1])
    assert not torch.equal(batches[0], batches[2])
    assert not torch.equal(weights(first), weights(second))


@pytest.mark.parametrize(
    "settings", [{}, {"precision": "bfloat16"}, {"stabilizers": {"instance_noise": {}}}], ids=str
)
def test_latent_consistency_sees_the_change_of_the_latent_and_nothing_else(settings):
    # With a change of nothing there is nothing to pay, whatever noise or precision the game has.
    t = trainer(regularizers={"latent_consistency": {"sigma": 1e-6}}, **settings)
    signals = t.advance(2)
    assert signals["penalty/latent_consistency"] < 1e-8
    assert abs(signals["generator_penalty/latent_consistency"]) < 1e-8


def test_both_halves_of_an_extragradient_update_see_the_same_draws():
    t = trainer(
        optimizer="extragradient_sgd",
        regularizers={"gradient_penalty": {}},
        stabilizers={"instance_noise": {"sigma": 0.5}},
    )
    seen, forward = [], t.state.discriminator.forward
    t.state.discriminator.forward = lambda x: seen.append(x.detach().clone()) or forward(x)
    t.advance(1)
    # Reals, fakes, penalty points, the generator's fakes, and in the first half one reading more.
    assert len(seen) == 9
    assert torch.equal(seen[0], seen[5]), "the noise on the reals differs between the halves"
    alphas = [
        ((points - fake) / (real - fake)).flatten(1).median(dim=1).values
        for real, fake, points in (seen[0:3], seen[5:8])
    ]
    torch.testing.assert_close(alphas[0], alphas[1], rtol=0, atol=1e-3)


def test_boundary_equilibriums_k_is_signalled_and_moves():
    t = trainer(loss={"name": "boundary_equilibrium", "k_rate": 0.1})
    values = [t.advance(1)["boundary_equilibrium/k"] for _ in range(5)]
    assert len(set(values)) == 5
    assert all(0 <= v <= 1 for v in values)


def test_bfloat16_runs_networks_lower_and_leaves_weights_and_penalties_in_float32():
    t = trainer(precision="bfloat16", regularizers={"r1": {}})
    seen = []
    t.state.discriminator[0].register_forward_hook(lambda m, i, o: seen.append(o.dtype))
    signals = t.advance(2)
    assert seen.count(torch.bfloat16) == 6  # real, fake and the generator's pass, twice
    assert seen.count(torch.float32) == 2 + 1  # R1 in each update, the reading of its gradient
    assert {p.dtype for p in t.state.discriminator.parameters()} == {torch.float32}
    exact = trainer(regularizers={"r1": {}}).advance(2)
    # bfloat16 has 8 bits of mantissa: the losses agree to a per cent or so, not more.
    assert signals["discriminator_loss"] == pytest.approx(exact["discriminator_loss"], rel=0.03)
    assert signals["discriminator_loss"] != exact["discriminator_loss"]


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_training_agrees_with_eager_training():
    small = {"architecture": {"name": "mlp", "width": 8, "depth": 1}}  # compiles in seconds
    eager, compiled = trainer(**small), trainer(**small, compile=True)
    assert isinstance(compiled._discriminate, torch._dynamo.OptimizedModule)
    one, other = eager.advance(3), compiled.advance(3)
    for name, value in one.items():
        # 1 %: fused kernels round differently, and three updates of Adam amplify it.
        assert other[name] == pytest.approx(value, rel=0.01, abs=1e-4), name
    resumed = trainer(**small, compile=True)
    resumed.load_state_dict(reload(compiled.state_dict()))
    assert resumed.discriminator_updates == 3
    assert torch.equal(weights(resumed), weights(compiled))


def test_signals_are_means_over_the_window_and_carry_the_fields_names():
    t, single = trainer(regularizers={"r1": {}}), trainer(regularizers={"r1": {}})
    signals = t.advance(3)
    parts = [single.advance(1) for _ in range(3)]
    for name in ("discriminator_loss", "penalty/r1", "generator_loss", "real_logits_mean"):
        assert signals[name] == pytest.approx(sum(p[name] for p in parts) / 3, rel=1e-6)
    for name in ("discriminator_auc", "discriminator_grad_norm", "update_ratio"):
        assert signals[name] == pytest.approx(parts[-1][name], rel=1e-6)
    assert {"generator_logit_slope", "discriminator_input_grad_norm"} <= set(signals)


@pytest.mark.parametrize("others", [{}, {"ema": {"halflife_images": 10.0}}])
@pytest.mark.parametrize("loss", ["wasserstein", "vae"])
def test_an_average_that_is_never_updated_is_the_untrained_generator(loss, others):
    settings: dict = {"loss": loss}
    if loss == "vae":
        settings["architecture"] = SMALL["architecture"] | {"prior": "normal"}
    plain = trainer(**settings, stabilizers=others)
    broken = trainer(**settings, stabilizers={**others, "average_never_updated": {}})
    before = broken.sample(20, torch.Generator().manual_seed(0))
    assert plain.advance(4) == broken.advance(4)
    assert torch.equal(broken.sample(20, torch.Generator().manual_seed(0)), before)
    assert not torch.equal(plain.sample(20, torch.Generator().manual_seed(0)), before)
    as_trained = broken.sample(20, torch.Generator().manual_seed(0), raw=True)
    assert torch.equal(plain.sample(20, torch.Generator().manual_seed(0), raw=True), as_trained)


def test_ema_has_its_half_life_in_images():
    t = trainer(stabilizers={"ema": {"halflife_images": 160.0}})
    start = [p.detach().clone() for p in t.state.generator.parameters()]
    for p in t.state.generator.parameters():
        p.data.fill_(3.0)
    average = t.state.averages["ema"]
    for _ in range(10):  # 10 batches of 16 images: one half-life
        t.config.stabilizers[0].update_average(average, t.state.generator, 16)
    for before, now in zip(start, average.parameters(), strict=True):
        torch.testing.assert_close(now, (before + 3.0) / 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "signal"), [("hinge", "discriminator_loss"), ("vae", "generator_loss")]
)
def test_nan_goes_out_as_nan(loss, signal):
    t = trainer(loss=loss)
    t.state.generator.state_dict()["0.weight"].fill_(math.nan)
    assert math.isnan(t.advance(1)[signal])
    assert t.sample(4, torch.Generator()).isnan().any()


def test_auc_by_hand():
    def found(real, fake) -> float:
        return auc(torch.tensor(real), torch.tensor(fake)).item()

    assert found([[1.0], [2.0]], [[0.0], [1.0]]) == 3.5 / 4
    assert found([[0.0]], [[1.0]]) == 0
    assert found([[0.0, 4.0]], [[1.0, 1.0]]) == 1  # judgements of one image count by their mean
    assert math.isnan(found([[math.nan]], [[1.0]]))
