"""The baseline without a game: its bound against torch.distributions, and what it learns."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.nn.functional import softplus

from ganstudy.gan.config import TrainConfig
from ganstudy.gan.trainer import VaeTrainer, build_trainer

SMALL = {
    "dataset": "digits",
    "architecture": {"name": "mlp", "width": 64, "latent_dim": 8},
    "loss": "vae",
    "optimizer": {"lr": 1e-3},
    "batch_size": 32,
}


def trainer(**settings) -> VaeTrainer:
    return build_trainer(TrainConfig.from_dict(SMALL | settings))


@pytest.mark.parametrize(("variant", "channels", "share"), [
    ("reference", 1, 1.0), ("agce_code", 1, 1.0), ("reference", 3, 1.0), ("agce_code", 3, 1 / 3),
])  # fmt: skip
def test_the_bound_is_that_of_the_distributions(variant, channels, share):
    t = trainer(loss={"name": "vae", "variant": variant})
    if channels == 3:  # the same networks, read as a picture of three channels
        t.state.generator[-1] = torch.nn.Unflatten(1, (1, 8, 8))
    real = t._next_real()
    shape = (32, 3, 8, 8) if channels == 3 else real.shape
    real = real.expand(shape) if channels == 3 else real
    if channels == 3:
        t._discriminate = lambda x: t.state.discriminator(x[:, :1])
        t._generate = lambda z: t.state.generator(z).expand(shape)
    noise = torch.Generator()
    noise.set_state(t.state.streams["latent"].get_state())
    found = t._negative_bound(real).item()
    mean, spread = t._discriminate(real).chunk(2, dim=1)
    posterior = Normal(mean, softplus(spread) + 1e-6)
    latents = posterior.mean + posterior.stddev * torch.randn(32, 8, generator=noise)
    likely = (t._generate(latents) + 1) / 2
    pixels = Bernoulli(likely, validate_args=False).log_prob((real + 1) / 2)
    divergence = kl_divergence(posterior, Normal(torch.zeros(8), torch.ones(8))).sum(1)
    expected = (-pixels.flatten(1).sum(1) * share + divergence).mean().item()
    assert found == pytest.approx(expected, rel=1e-4)


def test_it_learns_and_moves_both_networks():
    t = trainer()
    before = [p.clone() for p in t.state.discriminator.parameters()]
    first = t.advance(20)
    last = t.advance(200) and t.advance(20)
    assert last["generator_loss"] < first["generator_loss"] - 5
    assert last["reconstruction_error"] < first["reconstruction_error"]
    assert {"kl_divergence", "update_ratio", "generator_grad_norm"} <= set(last)
    assert all(not torch.equal(a, b) for a, b in zip(before, t.state.discriminator.parameters(),
                                                     strict=True))  # fmt: skip
    # A trained decoder makes dark and light pixels out of latents it was not shown.
    images = t.sample(50, torch.Generator().manual_seed(0))
    assert images.shape == (50, 1, 8, 8)
    real = t.config.dataset.images("train").float().div(127.5).sub(1)
    assert images.mean(0).sub(real.mean(0)).abs().mean() < 0.25


def test_it_counts_batches_as_a_gan_does_and_ignores_who_moves_how_often():
    for settings in ({}, {"n_critic": 5}, {"generator_steps": 3}):
        t = trainer(**settings)
        t.advance(7)
        assert (t.discriminator_updates, t.generator_updates) == (7, 7)
