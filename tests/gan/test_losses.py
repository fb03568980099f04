"""Gradients against closed forms written in numpy, values against sums worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch.nn.functional import softplus

from ganstudy.gan.losses import LOSSES, Loss, logit_slope

GAMES = [name for name in LOSSES.names() if issubclass(LOSSES.get(name), Loss)]


def one(v):
    return np.ones_like(v)


def average_slopes(r, f):
    """Derivatives of the relativistic average loss by each r and by each f, times the batch."""
    real, fake = expit(f.mean() - r), expit(f - r.mean())
    return -real - fake.mean(), fake + real.mean()


# Name -> functions of (r, f): batch times the derivative of the discriminator's loss by r and by
# f, and of the generator's by f. By hand, from the papers.
GRADIENTS = {
    "non_saturating": (lambda r, f: -expit(-r), lambda r, f: expit(f), lambda r, f: -expit(-f)),
    "minimax": (lambda r, f: -expit(-r), lambda r, f: expit(f), lambda r, f: -expit(f)),
    "least_squares": (lambda r, f: r - 1, lambda r, f: f, lambda r, f: f - 1),
    "wasserstein": (lambda r, f: -one(r), lambda r, f: one(f), lambda r, f: -one(f)),
    "hinge": (lambda r, f: -1.0 * (r < 1), lambda r, f: 1.0 * (f > -1), lambda r, f: -one(f)),
    "relativistic_pairing": (
        lambda r, f: -expit(f - r),
        lambda r, f: expit(f - r),
        lambda r, f: -expit(r - f),
    ),
    "relativistic_average": (
        lambda r, f: average_slopes(r, f)[0],
        lambda r, f: average_slopes(r, f)[1],
        lambda r, f: average_slopes(f, r)[0],
    ),
    "energy_based": (lambda r, f: -one(r), lambda r, f: 1.0 * (f > -1), lambda r, f: -one(f)),
    # Before the first update k is 0; see below for what k does.
    "boundary_equilibrium": (lambda r, f: -one(r), lambda r, f: 0 * f, lambda r, f: -one(f)),
    "kl": (lambda r, f: -one(r), lambda r, f: np.exp(f - 1), lambda r, f: -np.exp(f - 1)),
    "reverse_kl": (lambda r, f: -np.exp(-r), lambda r, f: one(f), lambda r, f: -one(f)),
    "pearson_chi2": (lambda r, f: -one(r), lambda r, f: f / 2 + 1, lambda r, f: -f / 2 - 1),
    "squared_hellinger": (lambda r, f: -np.exp(-r), lambda r, f: np.exp(f),
                          lambda r, f: -np.exp(f)),
    "jensen_shannon": (lambda r, f: -expit(-r), lambda r, f: expit(f), lambda r, f: -expit(f)),
}  # fmt: skip
NON_SATURATING = {
    "kl": lambda f: -one(f),
    "reverse_kl": lambda f: -np.exp(-f),
    "pearson_chi2": lambda f: -one(f),
    "squared_hellinger": lambda f: -np.exp(-f),
    "jensen_shannon": lambda f: -expit(-f),
}
LOGISTIC = (2 * math.log(2) + math.log1p(math.exp(-2)) + math.log1p(math.exp(-1))) / 2
R = np.array([-80.0, -5.0, -0.3, 0.7, 5.0, 80.0])
F = np.array([80.0, -0.2, 5.0, -5.0, 0.4, -80.0])


def column(values) -> torch.Tensor:
    return torch.tensor(np.asarray(values, dtype=float)[:, None], requires_grad=True)


def slopes(value: torch.Tensor, logits: torch.Tensor) -> np.ndarray:
    (gradient,) = torch.autograd.grad(value, logits, allow_unused=True)
    return np.zeros(len(logits)) if gradient is None else gradient.numpy()[:, 0] * len(logits)


def assert_slopes(found, expected):
    # 1e-12: the closed forms and torch's functions round differently; the scale of each is kept.
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-30)


def test_every_loss_has_its_gradients_here():
    assert set(GRADIENTS) == set(GAMES)


@pytest.mark.parametrize("name", GAMES)
def test_gradients_are_the_closed_form_also_at_extreme_logits(name):
    loss = LOSSES.build(name)
    by_real, by_fake, by_generated = GRADIENTS[name]
    r, f = column(R), column(F)
    value = loss.discriminator(r, f)
    assert value.isfinite()
    assert_slopes(slopes(loss.discriminator(r, f), r), by_real(R, F))
    assert_slopes(slopes(loss.discriminator(r, f), f), by_fake(R, F))
    real = r.detach() if loss.generator_reads_real else None
    assert_slopes(slopes(loss.generator(f, real), f), by_generated(R, F))


@pytest.mark.parametrize("name", NON_SATURATING)
def test_the_practical_form_of_an_f_divergence_maximises_the_activation(name):
    loss, f = LOSSES.build(name, non_saturating=True), column(F)
    assert_slopes(slopes(loss.generator(f), f), NON_SATURATING[name](F))


@pytest.mark.parametrize("name", NON_SATURATING)
def test_an_f_divergence_bounds_its_divergence_and_reaches_it(name):
    # Two distributions on three points; the bound is tight at T = f'(p / q) (Nowozin, eq. 5).
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6])
    ratio = p / q
    divergence, optimum = {
        "kl": ((p * np.log(ratio)).sum(), 1 + np.log(ratio)),
        "reverse_kl": ((q * np.log(q / p)).sum(), -1 / ratio),
        "pearson_chi2": (((q - p) ** 2 / q).sum(), 2 * (ratio - 1)),
        "squared_hellinger": (((np.sqrt(p) - np.sqrt(q)) ** 2).sum(), 1 - 1 / np.sqrt(ratio)),
        "jensen_shannon": (
            (p * np.log(2 * p / (p + q))).sum() + (q * np.log(2 * q / (p + q))).sum(),
            np.log(2 * ratio / (1 + ratio)),
        ),
    }[name]
    # The logit at which the activation takes that value.
    logits = {
        "kl": optimum,
        "reverse_kl": -np.log(-np.minimum(optimum, -1e-12)),
        "pearson_chi2": optimum,
        "squared_hellinger": -np.log(np.maximum(1 - optimum, 1e-12)),
        "jensen_shannon": -np.log(np.expm1(np.maximum(math.log(2) - optimum, 1e-12))),
    }[name]
    loss = LOSSES.build(name)

    def bound(v: np.ndarray) -> float:
        g, c = loss.activation(torch.tensor(v)), loss.conjugate(torch.tensor(v))
        return float((torch.tensor(p) * g).sum() - (torch.tensor(q) * c).sum())

    assert bound(logits) == pytest.approx(divergence, rel=1e-9)
    for change in np.random.default_rng(0).normal(0, 0.3, (20, 3)):
        assert bound(logits + change) < divergence


@pytest.mark.parametrize(
    ("name", "discriminator", "generator"),
    [
        # r = (0, 2), f = (0, -1), worked out by hand.
        ("non_saturating", LOGISTIC, (math.log(2) + math.log1p(math.e)) / 2),
        ("minimax", LOGISTIC, -(math.log(2) + math.log1p(math.exp(-1))) / 2),
        ("least_squares", 0.75, 1.25),
        ("wasserstein", -1.5, 0.5),
        ("hinge", 1.0, 0.5),
        ("relativistic_pairing", (math.log(2) + math.log1p(math.exp(-3))) / 2,
         (math.log(2) + math.log1p(math.exp(3))) / 2),
        # E r = 1, E f = -0.5: differences (0.5, 2.5) of the reals and (-1, -2) of the fakes.
        ("relativistic_average",
         sum(math.log1p(math.exp(v)) for v in (-0.5, -2.5, -1, -2)) / 2,
         sum(math.log1p(math.exp(v)) for v in (0.5, 2.5, 1, 2)) / 2),
        ("energy_based", -0.5, 0.5),
        ("boundary_equilibrium", -1.0, 0.5),
        ("kl", (math.exp(-1) + math.exp(-2)) / 2 - 1, -(math.exp(-1) + math.exp(-2)) / 2),
        ("reverse_kl", (1 + math.exp(-2)) / 2 - 1.5, 1.5),
        ("pearson_chi2", (0 - 0.75) / 2 - 1, 0.375),
        ("squared_hellinger", (1 + math.exp(-2) + 1 + math.exp(-1)) / 2 - 2,
         1 - (1 + math.exp(-1)) / 2),
        ("jensen_shannon", LOGISTIC - 2 * math.log(2),
         math.log(2) - (math.log(2) + math.log1p(math.exp(-1))) / 2),
    ],
)  # fmt: skip
def test_values_by_hand(name, discriminator, generator):
    loss = LOSSES.build(name)
    r, f = torch.tensor([[0.0], [2.0]]), torch.tensor([[0.0], [-1.0]])
    assert loss.discriminator(r, f).item() == pytest.approx(discriminator, rel=1e-5)
    real = r if loss.generator_reads_real else None
    assert loss.generator(f, real).item() == pytest.approx(generator, rel=1e-5)


def test_agces_least_squares_reads_the_sigmoid_and_so_saturates():
    loss, r, f = LOSSES.build("least_squares", variant="agce_code"), column(R), column(F)
    real, fake = expit(R), expit(F)
    expected = ((real - 1) ** 2).mean() / 2 + (fake**2).mean() / 2
    assert loss.discriminator(r, f).item() == pytest.approx(expected, rel=1e-12)
    assert_slopes(slopes(loss.generator(f), f), (fake - 1) * fake * (1 - fake))


def test_relativistic_losses_ask_for_the_real_logits():
    with pytest.raises(ValueError, match="needs the logits on real images"):
        LOSSES.build("relativistic_pairing").generator(torch.zeros(2, 1))


# AGCE's energies are of images in [0, 1], half of ours: k moves half as far, and is not clamped.
@pytest.mark.parametrize(("variant", "expected"), [("reference", 0.0), ("agce_code", -0.25)])
def test_boundary_equilibrium_moves_k_by_the_imbalance_of_energies(variant, expected):
    loss = LOSSES.build("boundary_equilibrium", gamma=0.5, k_rate=0.1, variant=variant)
    memory = loss.memory()
    energies = torch.tensor([[4.0], [6.0]]), torch.tensor([[1.0], [2.0]])  # means 5 and 1.5
    real, fake = (-energy for energy in energies)
    loss.remember(memory, real, fake)
    moved = 0.1 * (0.5 * 5 - 1.5) * (1.0 if variant == "reference" else 0.5)
    assert memory["k"].item() == pytest.approx(moved)
    value = loss.discriminator_with(memory, real, fake)
    assert value.item() == pytest.approx(5 - moved * 1.5)
    for _ in range(3):  # now the fakes' energy is far too high: k falls by 0.2 each time
        loss.remember(memory, real, -torch.tensor([[4.5], [4.5]]))
    assert memory["k"].item() == pytest.approx(expected, abs=1e-6)


def test_slope_tells_saturation_apart_from_adam_friendly_losses():
    sure = torch.full((8, 1), -30.0)  # the discriminator is certain that these are fake
    assert logit_slope(LOSSES.build("minimax").generator, sure).item() == pytest.approx(
        math.exp(-30), rel=1e-3
    )
    assert logit_slope(LOSSES.build("non_saturating").generator, sure).item() == pytest.approx(
        1, rel=1e-6
    )
    assert logit_slope(LOSSES.build("wasserstein").generator, sure).item() == 1


class Mean:
    """E[...] of the formulas."""

    def __getitem__(self, values: torch.Tensor) -> torch.Tensor:
        return values.mean()


CASES = [
    (name, options)
    for name in LOSSES.names()
    for options in ({}, {"variant": "agce_code"}, {"non_saturating": True})
    if name != "vae" and set(options) <= {option.name for option in LOSSES.options(name)}
]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_formula_that_is_told_is_what_is_computed(name, options):
    """The text itself is evaluated, by the notation that it is printed with."""
    loss = LOSSES.build(name, **options)
    r, f = torch.randn(2, 50, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    k = torch.tensor(0.3, dtype=torch.float64)
    meaning = {"E": Mean(), "r": r, "f": f, "e_r": -r, "e_f": -f, "k": k, "s": softplus}
    meaning |= {"relu": torch.relu, "sigmoid": torch.sigmoid, "exp": torch.exp, "log": math.log}
    meaning |= loss.to_dict()
    told = LOSSES.explained(name).formula_of(loss)
    assert set(told) == {"discriminator", "generator", "sigmoid"}

    def value(text: str) -> float:
        return float(eval(text.replace("^", "**"), {"__builtins__": {}}, meaning))

    played = loss.discriminator_with({"k": k} if "k" in told["discriminator"] else {}, r, f)
    assert value(told["discriminator"]) == pytest.approx(float(played), rel=1e-12)
    assert value(told["generator"]) == pytest.approx(float(loss.generator(f, r)), rel=1e-12)
    through = {"minimax", "non_saturating", "jensen_shannon"}
    through |= {"relativistic_average", "relativistic_pairing"}
    squashed = name in through or (name == "least_squares" and bool(options))
    assert told["sigmoid"] == ("yes" if squashed else "no")


def test_the_vae_says_what_it_minimises():
    told = LOSSES.explained("vae")
    assert "KL(" in told.formula_of(LOSSES.build("vae"))["generator"]
    assert "/ channels" in told.formula_of(LOSSES.build("vae", variant="agce_code"))["generator"]
