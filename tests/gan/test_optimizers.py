"""Optimisers against loops written by hand from their papers, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from ganstudy.gan.config import TrainConfig
from ganstudy.gan.optimizers import OPTIMIZERS, SCHEDULES
from ganstudy.gan.trainer import GanTrainer

LR, BETA1, BETA2, EPSILON = 0.05, 0.5, 0.9, 1e-8


def gradient(w: np.ndarray) -> np.ndarray:
    """Of a skewed bowl that also turns."""
    return np.array([[1.0, 2.0], [-1.0, 0.5]]) @ w


def adam_updates(gradients) -> list[np.ndarray]:
    """Return lr * m_hat / (sqrt(v_hat) + epsilon) for each gradient in turn (Kingma & Ba)."""
    m = v = np.zeros(2)
    updates = []
    for t, g in enumerate(gradients, start=1):
        m, v = BETA1 * m + (1 - BETA1) * g, BETA2 * v + (1 - BETA2) * g**2
        m_hat, v_hat = m / (1 - BETA1**t), v / (1 - BETA2**t)
        updates.append(LR * m_hat / (np.sqrt(v_hat) + EPSILON))
    return updates


def run(name: str, steps: int, **options) -> np.ndarray:
    weight = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = OPTIMIZERS.build(name, **options).build([weight])
    for _ in range(steps):
        weight.grad = torch.from_numpy(gradient(weight.detach().numpy()))
        optimizer.step()
    return weight.detach().numpy()


def test_optimistic_adam_is_its_papers_algorithm():
    w, gradients, last = np.array([1.0, -2.0]), [], np.zeros(2)
    for _ in range(6):
        gradients.append(gradient(w))
        update = adam_updates(gradients)[-1]
        w, last = w - 2 * update + last, update
    found = run("optimistic_adam", 6, lr=LR, beta1=BETA1, beta2=BETA2)
    np.testing.assert_allclose(found, w, rtol=1e-12)
    assert not np.allclose(found, run("adam", 6, lr=LR, beta1=BETA1, beta2=BETA2))


def test_momentum_takes_the_last_step_again():
    w, step = np.array([1.0, -2.0]), np.zeros(2)
    for _ in range(5):
        step = 0.9 * step + gradient(w)
        w = w - LR * step
    np.testing.assert_allclose(run("sgd", 5, lr=LR, momentum=0.9), w, rtol=1e-12)


def test_negative_momentum_is_allowed():
    w, step = np.array([1.0, -2.0]), np.zeros(2)
    for _ in range(5):
        step = -0.5 * step + gradient(w)
        w = w - LR * step
    np.testing.assert_allclose(run("sgd", 5, lr=LR, momentum=-0.5), w, rtol=1e-12)


@pytest.mark.parametrize("name", ["extragradient_sgd", "extragradient_adam"])
def test_extragradient_is_gidels_algorithm_on_the_bilinear_game(name):
    # L_D = psi theta, L_G = -psi theta: the field is (theta, -psi) at (psi, theta).
    options = {"lr": LR}
    if name == "extragradient_adam":
        options |= {"beta1": BETA1, "beta2": BETA2}
    config = TrainConfig.from_dict(
        {
            "dataset": "dirac",
            "architecture": "dirac",
            "loss": "wasserstein",
            "optimizer": {"name": name, **options},
            "batch_size": 2,
        }
    )
    trainer = GanTrainer(config)
    trainer.advance(4)
    w, gradients = np.array([1.0, 1.0]), []  # psi, theta

    def update(g):
        gradients.append(g)
        return LR * g if name == "extragradient_sgd" else adam_updates(gradients)[-1]

    for _ in range(4):
        ahead = w - update(np.array([w[1], -w[0]]))
        w = w - update(np.array([ahead[1], -ahead[0]]))
    psi = trainer.state.discriminator[1][-1].weight.item()
    theta = trainer.state.generator.theta.item()
    # float32 against float64.
    assert [psi, theta] == pytest.approx(w.tolist(), rel=1e-5)


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_a_schedule_stays_between_nothing_and_the_full_rate(name):
    factors = [SCHEDULES.build(name).factor(u / 800) for u in range(800)]
    assert all(0 <= f <= 1 for f in factors)
    assert max(factors) == pytest.approx(1, abs=0.02)


def test_a_cosine_ends_where_it_is_told():
    cosine = SCHEDULES.build("cosine", final=0.25)
    assert cosine.factor(0.0) == 1
    assert cosine.factor(0.5) == pytest.approx(0.625)
    assert cosine.factor(1 - 1e-9) == pytest.approx(0.25)
    assert math.isclose(SCHEDULES.build("linear", hold=0.5).factor(0.75), 0.5)
