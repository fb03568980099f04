from __future__ import annotations

import math

import pytest
import torch

from ganstudy.gan.losses import LOSSES, logit_slope

sigmoid = torch.sigmoid
# Derivatives of the discriminator's loss by r and by f, and of the generator's by f, by hand.
GRADIENTS = {
    "non_saturating": (lambda r: -sigmoid(-r), sigmoid, lambda f: -sigmoid(-f)),
    "minimax": (lambda r: -sigmoid(-r), sigmoid, lambda f: -sigmoid(f)),
    "wasserstein": (lambda r: -torch.ones_like(r), torch.ones_like, lambda f: -torch.ones_like(f)),
    "hinge": (
        lambda r: -(r < 1).double(),
        lambda f: (f > -1).double(),
        lambda f: -torch.ones_like(f),
    ),
}
LOGISTIC = (2 * math.log(2) + math.log1p(math.exp(-2)) + math.log1p(math.exp(-1))) / 2
LOGITS = torch.tensor([[-80.0], [-5.0], [-0.3], [0.7], [5.0], [80.0]], dtype=torch.float64)


def test_every_loss_has_its_gradients_here():
    assert set(GRADIENTS) == set(LOSSES.names())


@pytest.mark.parametrize("name", LOSSES.names())
def test_gradients_are_the_closed_form_also_at_extreme_logits(name):
    loss = LOSSES.build(name)
    by_real, by_fake, by_generated = GRADIENTS[name]
    r, f, g = (LOGITS.clone().requires_grad_() for _ in range(3))
    loss.discriminator(r, f).backward()
    loss.generator(g, r.detach() if loss.generator_reads_real else None).backward()
    n = len(LOGITS)
    for found, expected in ((r, by_real), (f, by_fake), (g, by_generated)):
        torch.testing.assert_close(found.grad * n, expected(LOGITS), rtol=1e-12, atol=1e-30)


@pytest.mark.parametrize(
    ("name", "discriminator", "generator"),
    [
        # r = (0, 2), f = (0, -1), worked out by hand.
        ("non_saturating", LOGISTIC, (math.log(2) + math.log1p(math.e)) / 2),
        ("minimax", LOGISTIC, -(math.log(2) + math.log1p(math.exp(-1))) / 2),
        ("wasserstein", -1.5, 0.5),
        ("hinge", 1.0, 0.5),
    ],
)  # fmt: skip
def test_values_by_hand(name, discriminator, generator):
    loss = LOSSES.build(name)
    r, f = torch.tensor([[0.0], [2.0]]), torch.tensor([[0.0], [-1.0]])
    assert loss.discriminator(r, f).item() == pytest.approx(discriminator, rel=1e-6)
    assert loss.generator(f, r).item() == pytest.approx(generator, rel=1e-6)


def test_slope_tells_saturation_apart_from_adam_friendly_losses():
    sure = torch.full((8, 1), -30.0)  # the discriminator is certain that these are fake
    assert logit_slope(LOSSES.build("minimax"), sure).item() == pytest.approx(
        math.exp(-30), rel=1e-3
    )
    assert logit_slope(LOSSES.build("non_saturating"), sure).item() == pytest.approx(1, rel=1e-6)
    assert logit_slope(LOSSES.build("wasserstein"), sure).item() == 1
