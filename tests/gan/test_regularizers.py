"""On a linear discriminator <w, x> the gradient is w everywhere: penalties have closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ganstudy.gan.regularizers import REGULARIZERS, Regularizer, flipped_and_shifted

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


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Functions of |w|, at the default options.
CLOSED_FORMS = {
    "gradient_penalty": lambda norm: 10 * (norm - 1) ** 2,
    "dragan": lambda norm: 10 * (norm - 1) ** 2,
    "r1": lambda norm: 10 / 2 * norm**2,
    "r2": lambda norm: 10 / 2 * norm**2,
    "zero_centered_gradient_penalty": lambda norm: 10 * norm**2,
    "max_gradient_penalty": lambda norm: 10 * norm**2,
}
OWN_TESTS = {"consistency"}
"""Penalties at points that do not differentiate: tested on their own below."""


def test_the_gradient_penalties_are_those_that_differentiate_the_input():
    marked = {n for n in REGULARIZERS.names() if REGULARIZERS.get(n).differentiates_input}
    assert marked == set(CLOSED_FORMS)


@pytest.mark.parametrize("name", REGULARIZERS.names())
def test_closed_form_on_a_linear_discriminator(name):
    network, (real, fake) = linear(), images()
    penalty = REGULARIZERS.build(name).penalty(network, real, fake, rng())
    if name not in CLOSED_FORMS:
        assert penalty is None or name in OWN_TESTS, f"{name}: add its closed form here"
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


def points_of(regularizer: Regularizer, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Return where the penalty was taken."""
    seen = []

    def quadratic(x):
        seen.append(x.detach())
        return x.square().flatten(1).sum(1, keepdim=True) / 2

    regularizer.penalty(quadratic, real, fake, rng(1))
    (points,) = seen
    return points


def test_penalties_on_a_quadratic_discriminator_are_taken_where_they_say():
    # |x|^2 / 2 has the gradient x: R1 is then the mean square norm of the reals, R2 of the fakes.
    def quadratic(x):
        return x.square().flatten(1).sum(1, keepdim=True) / 2

    real, fake = images()
    for name, points in (("r1", real), ("r2", fake)):
        value = REGULARIZERS.build(name, weight=3.0).penalty(quadratic, real, fake, rng())
        assert value.item() == pytest.approx(1.5 * points.square().flatten(1).sum(1).mean().item())
    largest = REGULARIZERS.build("max_gradient_penalty").penalty(quadratic, real, real, rng())
    assert largest.item() == pytest.approx(10 * real.square().flatten(1).sum(1).max().item())


@pytest.mark.parametrize(
    "name", ["gradient_penalty", "zero_centered_gradient_penalty", "max_gradient_penalty"]
)
def test_interpolates_have_one_alpha_per_sample_between_the_points(name):
    points = points_of(REGULARIZERS.build(name), torch.ones(SHAPE), -torch.ones(SHAPE))
    per_sample = points.flatten(1)
    assert (per_sample == per_sample[:, :1]).all()
    assert len(per_sample[:, 0].unique()) == len(per_sample)
    assert ((per_sample > -1) & (per_sample < 1)).all()


def test_dragan_perturbs_reals_by_its_share_of_their_deviation():
    real = torch.randn(400, 1, 8, 8, generator=rng()) * 0.3
    moved = points_of(REGULARIZERS.build("dragan", noise=0.5), real, real) - real
    # 25,600 draws: the standard deviation's own error is 0.5 %.
    assert moved.std().item() == pytest.approx(0.5 * real.std().item(), rel=0.02)
    assert abs(moved.mean().item()) < 0.005
    agce = points_of(REGULARIZERS.build("dragan", variant="agce_code"), real, real) - real
    assert agce.min() >= 0
    assert agce.max() <= 0.5 * real.std()
    # The product of two uniforms has mean 1/4.
    assert agce.mean().item() == pytest.approx(0.125 * real.std().item(), rel=0.05)


def unit_gradients(network: nn.Module, points: torch.Tensor, squash=None) -> torch.Tensor:
    """Differentiate by u = (x + 1) / 2, images in [0, 1] as AGCE's code holds them."""
    unit = ((points.double() + 1) / 2).requires_grad_()
    logits = network(2 * unit - 1)
    outputs = logits if squash is None else squash(logits)
    return torch.autograd.grad(outputs.sum(), unit)[0].flatten(1)


@pytest.mark.parametrize(
    ("name", "squash"), [("gradient_penalty", None), ("dragan", torch.sigmoid)]
)
def test_agces_penalties_are_those_of_images_in_zero_to_one(name, squash):
    network, (real, fake) = linear(), images()
    regularizer = REGULARIZERS.build(name, variant="agce_code")
    points = points_of(regularizer, real, fake)  # taken with the seed 1
    norms = (1e-4 + unit_gradients(network, points, squash).square().sum(1)).sqrt()
    found = regularizer.penalty(network, real, fake, rng(1))
    assert found.item() == pytest.approx(10 * (norms - 1).square().mean().item(), rel=1e-9)


def test_a_one_sided_penalty_lets_small_gradients_be():
    network, (real, fake) = linear(), images()
    norm = network[1].weight.norm().item()
    for target in (norm + 1, norm - 1):
        penalty = REGULARIZERS.build("gradient_penalty", one_sided=True, target=target)
        expected = 0 if target > norm else 10.0
        found = penalty.penalty(network, real, fake, rng()).item()
        assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_a_gradient_of_zero_gives_no_nan(name):
    network = linear()
    nn.init.zeros_(network[1].weight)
    REGULARIZERS.build(name).penalty(network, *images(), rng()).backward()
    assert network[1].weight.grad.isfinite().all()


def test_weight_clip_clamps_every_parameter_of_the_discriminator_alone():
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    nn.init.constant_(network[0].bias, 5.0)
    before = network[0].weight.detach().clone()
    clip = REGULARIZERS.build("weight_clip", limit=0.1)
    clip.after_step(network, "generator")
    assert network[0].bias[0] == 5
    clip.after_step(network, "discriminator")
    assert all(p.abs().max() <= 0.1 + 1e-9 for p in network.parameters())
    torch.testing.assert_close(network[0].weight, before.clamp(-0.1, 0.1))


def test_lecam_follows_averages_and_penalises_by_hand():
    lecam = REGULARIZERS.build("lecam", weight=2.0, decay=0.9, warmup_updates=1)
    memory = lecam.memory()
    first = torch.tensor([[1.0], [3.0]]), torch.tensor([[-1.0], [-2.0]])
    lecam.remember(memory, *first, updates=0)
    assert lecam.logit_penalty(*first, memory).item() == 0  # still warming up
    assert (memory["real_mean"].item(), memory["fake_mean"].item()) == (2.0, -1.5)
    second = torch.tensor([[2.0], [4.0]]), torch.tensor([[0.0], [1.0]])
    lecam.remember(memory, *second, updates=1)
    assert lecam.logit_penalty(*second, memory).item() == 0  # the averages start first
    assert memory["real_mean"].item() == pytest.approx(0.9 * 2 + 0.1 * 3)
    assert memory["fake_mean"].item() == pytest.approx(0.9 * -1.5 + 0.1 * 0.5)
    third = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [-3.0]])
    lecam.remember(memory, *third, updates=2)
    real_mean, fake_mean = 0.9 * 2.1 + 0.1 * 1, 0.9 * -1.3 + 0.1 * -1
    expected = ((0 - fake_mean) ** 2 + (2 - fake_mean) ** 2) / 2
    expected += ((real_mean - 1) ** 2 + (real_mean + 3) ** 2) / 2
    r, f = (values.clone().requires_grad_() for values in third)
    penalty = lecam.logit_penalty(r, f, memory)
    assert penalty.item() == pytest.approx(2 * expected, rel=1e-6)
    penalty.backward()
    torch.testing.assert_close(r.grad[:, 0], 2 * (third[0][:, 0] - fake_mean))
    torch.testing.assert_close(f.grad[:, 0], -2 * (real_mean - third[1][:, 0]))


@pytest.mark.parametrize("start", [0, 1, 4, 1000])
def test_lecam_starts_where_the_authors_code_does(start):
    """google/lecam-gan: `itr < start_itr` has decay 0, `itr > start_itr` the penalty; itr from 0.

    StudioGAN's counts alike. Before its first average the authors' holds 1,000, ours the batch.
    """
    lecam = REGULARIZERS.build("lecam", weight=1.0, decay=0.5, warmup_updates=start)
    memory, average = lecam.memory(), 0.0
    for itr in range(start + 4):
        real, fake = torch.full((2, 1), float(itr)), torch.full((2, 1), -1.0 - itr)
        lecam.remember(memory, real, fake, updates=itr)
        decay = 0.0 if itr < max(start, 1) else 0.5
        average = decay * average + (1 - decay) * itr
        assert memory["real_mean"].item() == pytest.approx(average)
        penalised = lecam.logit_penalty(real, fake, memory).item() > 0
        assert penalised == (itr > start)


def test_flips_and_shifts_move_pixels_and_invent_none():
    picture = torch.arange(64.0).view(1, 1, 8, 8).expand(300, 1, 8, 8)
    moved = flipped_and_shifted(picture, rng())
    assert moved.shape == picture.shape
    padded = torch.nn.functional.pad(picture[:1], (1, 1, 1, 1), mode="reflect")[0, 0]
    windows = [padded[i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
    allowed = windows + [window.flip(1) for window in windows]
    counts = [sum(torch.equal(image[0], option) for image in moved) for option in allowed]
    assert sum(counts) == 300, "an image is no shift of the picture"
    # 18 equally likely outcomes, 16.7 of each expected: none misses, none dominates.
    assert min(counts) >= 4
    assert max(counts) <= 36
    assert torch.equal(flipped_and_shifted(picture, rng(), flip=False, shift=0.0), picture)


def test_consistency_is_the_mean_square_change_of_logits():
    network, (real, fake) = linear(), images()
    both = REGULARIZERS.build("consistency", real_weight=3.0, fake_weight=2.0, shift=0.4)
    draws = rng(7)
    expected = sum(
        weight * (network(flipped_and_shifted(x, draws, True, 0.4)) - network(x)).square().mean()
        for weight, x in ((3.0, real), (2.0, fake))
    )
    found = both.penalty(network, real, fake, rng(7))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    found.backward()
    assert network[1].weight.grad.abs().sum() > 0
    alone = REGULARIZERS.build("consistency")
    even = torch.ones(SHAPE, dtype=torch.float64)  # no flip or shift changes it
    assert alone.penalty(network, even, fake, rng()).item() == 0


def test_latent_consistency_has_its_closed_form_on_linear_networks():
    # G(z) = z a, D(x) = <w, x>: D moves by sigma e <w, a>, G by sigma |e a|.
    zcr = REGULARIZERS.build("latent_consistency", weight=20.0, generator_weight=0.5, sigma=0.05)
    network, direction = linear(), torch.linspace(0, 1, 18, dtype=torch.float64)
    generator = nn.Sequential(nn.Linear(1, 18, bias=False), nn.Unflatten(1, SHAPE[1:])).double()
    with torch.no_grad():
        generator[0].weight.copy_(direction[:, None])
    latents = torch.randn(5, 1, generator=rng(2)).double()
    noise = 0.05 * torch.randn(5, 1, generator=rng(3)).double()
    found = zcr.latent_penalty(network, generator, latents, rng(3))
    slope = network[1].weight[0] @ direction
    torch.testing.assert_close(found, 20 * (noise * slope).square().mean(), rtol=1e-6, atol=0)
    found.backward()
    assert network[1].weight.grad.abs().sum() > 0
    gained = zcr.generator_penalty(generator, latents, rng(3))
    expected = -0.5 * (noise * direction).square().mean()
    torch.testing.assert_close(gained, expected, rtol=1e-6, atol=0)


def test_weight_penalties_by_hand():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        network[1].weight.copy_(torch.tensor([[5.0, 6.0]]))
        network[0].bias.fill_(100.0)
    l2 = REGULARIZERS.build("l2", weight=0.1)
    assert l2.weight_penalty(network, "discriminator").item() == pytest.approx(0.05 * (30 + 61))
    mean = REGULARIZERS.build("l2", weight=0.1, mean_over_kernels=True)
    assert mean.weight_penalty(network, "discriminator").item() == pytest.approx(0.05 * 45.5)
    # W W^T has 11 off its diagonal, twice; a single row has nothing there.
    orthogonal = REGULARIZERS.build("orthogonal", weight=0.01, networks="both")
    for role in ("generator", "discriminator"):
        assert orthogonal.weight_penalty(network, role).item() == pytest.approx(0.01 * 2 * 121)
    orthogonal.weight_penalty(network, "generator").backward()
    # d/dW sum of squares off the diagonal = 4 (W W^T - diag) W.
    expected = 0.01 * 4 * torch.tensor([[0.0, 11], [11, 0]]) @ network[0].weight.detach()
    torch.testing.assert_close(network[0].weight.grad, expected)
    assert l2.weight_penalty(network, "generator") is None


def test_orthogonal_reads_transposed_convolutions_by_their_outputs():
    network = nn.Sequential(nn.ConvTranspose2d(8, 3, 4))
    weight = network[0].weight.detach().transpose(0, 1).flatten(1)  # (outputs, inputs * 16)
    assert weight.shape == (3, 128)
    gram = weight @ weight.T
    expected = 2 * (gram - gram.diag().diag()).square().sum().item()
    found = REGULARIZERS.build("orthogonal", weight=2.0).weight_penalty(network, "discriminator")
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_gradient_clip_bounds_the_norm_of_all_gradients_together():
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    for p in network.parameters():
        p.grad = torch.full_like(p, 2.0)
    direction = network[0].weight.grad.clone()
    clip = REGULARIZERS.build("gradient_clip", max_norm=0.5, networks="discriminator")
    clip.before_step(network, "generator")
    assert torch.equal(network[0].weight.grad, direction)
    clip.before_step(network, "discriminator")
    total = sum(p.grad.square().sum() for p in network.parameters()).sqrt().item()
    assert total == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("name", REGULARIZERS.names())
def test_it_tells_its_formula_and_where_it_is_taken(name):
    told = REGULARIZERS.explained(name)
    built = REGULARIZERS.build(name)
    assert set(told.formula_of(built)) == {"penalty", "at"}
    assert "variant" not in built.to_dict() or "penalty (agce_code)" in told.formula
    # A factor or limit that the formula leaves out would make it another one.
    for option in ("weight", "real_weight", "limit", "max_norm"):
        assert option not in built.to_dict() or option in told.formula["penalty"]


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("variant", ["reference", "agce_code"])
def test_a_gradient_penalty_tells_the_formula_of_its_options(variant, one_sided):
    built = REGULARIZERS.build("gradient_penalty", variant=variant, one_sided=one_sided)
    text = REGULARIZERS.explained("gradient_penalty").formula_of(built)["penalty"]
    assert ("relu" in text) == one_sided
    assert ("sqrt" in text) == (variant == "agce_code")
