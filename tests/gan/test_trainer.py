from __future__ import annotations

import io
import math

import pytest
import torch

from ganstudy.gan.config import TrainConfig
from ganstudy.gan.losses import LOSSES
from ganstudy.gan.regularizers import REGULARIZERS
from ganstudy.gan.stabilizers import STABILIZERS
from ganstudy.gan.trainer import GanTrainer, auc

SMALL = {
    "dataset": "digits",
    "architecture": {"name": "dcgan", "width": 4, "latent_dim": 4},
    "batch_size": 16,
}


def trainer(**settings) -> GanTrainer:
    return GanTrainer(TrainConfig.from_dict(SMALL | settings))


def weights(t: GanTrainer) -> torch.Tensor:
    networks = (t.state.generator, t.state.discriminator, t.state.averages)
    values = [v.flatten().double() for network in networks for v in network.state_dict().values()]
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
    *({"optimizer": name} for name in ("adam", "rmsprop", "sgd")),
    {"architecture": {"name": "dcgan", "width": 4, "spectral_norm": True}},
    {"architecture": {"name": "mlp", "width": 8}},
    {"n_critic": 3},
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
    watched.logits(images)
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


def test_signals_are_means_over_the_window_and_carry_the_fields_names():
    t, single = trainer(regularizers={"r1": {}}), trainer(regularizers={"r1": {}})
    signals = t.advance(3)
    parts = [single.advance(1) for _ in range(3)]
    for name in ("discriminator_loss", "penalty/r1", "generator_loss", "real_logits_mean"):
        assert signals[name] == pytest.approx(sum(p[name] for p in parts) / 3, rel=1e-6)
    for name in ("discriminator_auc", "discriminator_grad_norm", "update_ratio"):
        assert signals[name] == pytest.approx(parts[-1][name], rel=1e-6)
    assert {"generator_logit_slope", "discriminator_input_grad_norm"} <= set(signals)


def test_off_stabilizer_is_bit_equal_to_a_run_without():
    plain, off = trainer(), trainer(stabilizers={"instance_noise": {"sigma": 0.0}})
    plain.advance(4)
    off.advance(4)
    assert torch.equal(weights(plain), weights(off))


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


def test_instance_noise_has_its_sigma():
    noise = STABILIZERS.build("instance_noise", sigma=0.5)
    images = torch.zeros(64, 1, 28, 28)
    seen = noise.discriminator_input(images, torch.Generator().manual_seed(0))
    # 50,176 draws: the standard deviation's own error is 0.0016.
    assert seen.std().item() == pytest.approx(0.5, abs=0.008)


def test_nan_goes_out_as_nan():
    t = trainer()
    t.state.generator.state_dict()["0.weight"].fill_(math.nan)
    assert math.isnan(t.advance(1)["discriminator_loss"])
    assert t.sample(4, torch.Generator()).isnan().any()


def test_auc_by_hand():
    assert auc(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0])).item() == 3.5 / 4
    assert auc(torch.tensor([0.0]), torch.tensor([1.0])).item() == 0
    assert math.isnan(auc(torch.tensor([math.nan]), torch.tensor([1.0])).item())
