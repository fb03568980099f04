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


@pytest.mark.parametrize("dataset", ["digits", "photo_patches"])
@pytest.mark.parametrize("variant", ["reference", "agce_code"])
@pytest.mark.parametrize("architecture", ["mlp", "infogan"])
def test_the_bound_is_that_of_the_distributions(dataset, variant, architecture):
    t = trainer(
        dataset=dataset,
        loss={"name": "vae", "variant": variant},
        architecture={"name": architecture, "width": 4, "latent_dim": 8, "prior": "normal"},
    )
    real = t._next_real()
    noise = torch.Generator()
    noise.set_state(t.state.streams["latent"].get_state())
    found = t._negative_bound(real).item()
    mean, spread = t.state.discriminator(real).chunk(2, dim=1)
    posterior = Normal(mean, softplus(spread) + 1e-6)
    latents = posterior.mean + posterior.stddev * torch.randn(32, 8, generator=noise)
    likely = (t.state.generator(latents) + 1) / 2
    pixels = Bernoulli(likely, validate_args=False).log_prob((real + 1) / 2)
    share = 1 / real.shape[1] if variant == "agce_code" else 1.0
    divergence = kl_divergence(posterior, Normal(torch.zeros(8), torch.ones(8))).sum(1)
    expected = (-pixels.flatten(1).sum(1) * share + divergence).mean().item()
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_pixel_that_is_surely_wrong_still_has_a_gradient():
    # In tanh(20) = 1 it would be lost; a pixel wrong by 40 nats pulls with a slope of 2 per unit.
    t = trainer()
    with torch.no_grad():
        t.state.generator[-3].weight.zero_()
        t.state.generator[-3].bias.fill_(20.0)
    t._negative_bound(-torch.ones(4, 1, 8, 8)).backward()
    assert t.state.generator[-3].bias.grad == pytest.approx(torch.full((64,), 2.0), abs=1e-4)


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
