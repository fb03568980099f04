"""On a linear discriminator <w, x> the gradient is w everywhere: penalties have closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ganstudy.gan.regularizers import REGULARIZERS

SHAPE = (5, 2, 3, 3)


def linear() -> nn.Module:
    network = nn.Sequential(nn.Flatten(), nn.Linear(18, 1, bias=False)).double()
    with torch.no_grad():
        network[1].weight.copy_(torch.linspace(-1, 2, 18))
    return network


def images() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return (
        torch.rand(SHAPE, generator=rng, dtype=torch.float64),
        torch.rand(SHAPE, generator=rng, dtype=torch.float64),
    )


CLOSED_FORMS = {
    "gradient_penalty": lambda norm: 10 * (norm - 1) ** 2,
    "r1": lambda norm: 10 / 2 * norm**2,
}


@pytest.mark.parametrize("name", REGULARIZERS.names())
def test_closed_form_on_a_linear_discriminator(name):
    network, (real, fake) = linear(), images()
    penalty = REGULARIZERS.build(name).penalty(network, real, fake, torch.Generator())
    if name not in CLOSED_FORMS:
        assert penalty is None, f"{name} is a penalty: add its closed form here"
        return
    weight = network[1].weight
    norm = weight.detach().norm().requires_grad_()
    expected = CLOSED_FORMS[name](norm)
    torch.testing.assert_close(penalty, expected, rtol=1e-12, atol=0)
    # d penalty / d w = d penalty / d norm * w / |w|: the gradient must reach the weights.
    penalty.backward()
    (slope,) = torch.autograd.grad(expected, norm)
    direction = (weight / weight.norm()).detach()
    torch.testing.assert_close(weight.grad, slope * direction, rtol=1e-10, atol=1e-12)


def test_gradient_penalty_draws_one_alpha_per_sample_between_the_points():
    # |x|^2 / 2 has the gradient x: the penalty reveals the points at which it was taken.
    seen = []

    def quadratic(x):
        seen.append(x.detach())
        return x.square().flatten(1).sum(1, keepdim=True) / 2

    real, fake = torch.ones(SHAPE), -torch.ones(SHAPE)
    REGULARIZERS.build("gradient_penalty").penalty(
        quadratic, real, fake, torch.Generator().manual_seed(1)
    )
    (points,) = seen
    per_sample = points.flatten(1)
    assert (per_sample == per_sample[:, :1]).all()
    assert len(per_sample[:, 0].unique()) == len(per_sample)
    assert ((per_sample > -1) & (per_sample < 1)).all()


def test_a_gradient_of_zero_gives_no_nan():
    network = linear()
    nn.init.zeros_(network[1].weight)
    for name in CLOSED_FORMS:
        penalty = REGULARIZERS.build(name).penalty(network, *images(), torch.Generator())
        network.zero_grad()
        penalty.backward()
        assert network[1].weight.grad.isfinite().all()


def test_weight_clip_clamps_every_parameter():
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    nn.init.constant_(network[0].bias, 5.0)
    before = network[0].weight.detach().clone()
    REGULARIZERS.build("weight_clip", limit=0.1).after_update(network)
    assert all(p.abs().max() <= 0.1 + 1e-9 for p in network.parameters())
    torch.testing.assert_close(network[0].weight, before.clamp(-0.1, 0.1))
