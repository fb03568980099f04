from __future__ import annotations

import copy
import io
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, interpolate

from ganstudy.gan.architectures import ARCHITECTURES
from ganstudy.gan.architectures.base import EnergyDiscriminator, squashing
from ganstudy.gan.architectures.equalized import (
    Equalized,
    PixelNorm,
    ScaledLeakyReLU,
    channels_inwards,
    equalize,
    he_constant,
)
from ganstudy.gan.architectures.progressive import Growing, phase_at

SHAPES = [(1, 8, 8), (2, 14, 14), (1, 28, 28), (3, 32, 32), (4, 64, 64)]


def progressive(**options):
    return ARCHITECTURES.build("progressive", **{"width": 2, "latent_dim": 8, **options})


def networks(shape, **options):
    torch.manual_seed(0)
    architecture = progressive(**options)
    return architecture.generator(shape), architecture.discriminator(shape)


def up(images, times):
    return interpolate(images, scale_factor=times, mode="nearest")


# Equalised learning rate.


@pytest.mark.parametrize("layer", [nn.Linear(50, 40), nn.Conv2d(10, 40, 3)], ids=str)
@pytest.mark.parametrize("gain", [1.0, math.sqrt(2)])
@pytest.mark.parametrize("lr_multiplier", [1.0, 0.01])
def test_the_scale_is_hes_constant(layer, gain, lr_multiplier):
    torch.manual_seed(0)
    layer = copy.deepcopy(layer)
    fan_in = 50 if isinstance(layer, nn.Linear) else 90
    assert he_constant(layer.weight, gain) == pytest.approx(gain / math.sqrt(fan_in))
    equalize(layer, gain, lr_multiplier)
    original = layer.parametrizations.weight.original
    # At least 2000 weights: the standard deviation's own error is 1.6 %.
    assert original.std().item() == pytest.approx(1 / lr_multiplier, rel=0.06)
    scale = gain / math.sqrt(fan_in) * lr_multiplier
    torch.testing.assert_close(layer.weight, original * scale)
    assert layer.bias.abs().max() == 0


@pytest.mark.parametrize("lr_multiplier", [1.0, 0.01])
def test_adams_first_step_moves_a_weight_by_lr_times_the_scale(lr_multiplier):
    torch.manual_seed(0)
    layer = nn.Linear(16, 4)
    equalize(layer, math.sqrt(2), lr_multiplier)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    layer(torch.ones(1, 16)).sum().backward()
    optimizer.step()
    moved = torch.full((4, 16), -0.1 * math.sqrt(2 / 16) * lr_multiplier)
    torch.testing.assert_close(layer.weight - weight, moved, rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(layer.bias - bias, torch.full((4,), -0.1 * lr_multiplier))


def test_what_is_equalised_stays():
    layer = nn.Linear(16, 4)
    equalize(layer)
    before = layer.weight.detach().clone()
    equalize(nn.Sequential(layer), gain=3.0)
    torch.testing.assert_close(layer.weight, before, rtol=0, atol=0)


def test_a_weight_that_is_set_is_the_weight_that_is_used():
    layer = equalize(nn.Linear(16, 4), lr_multiplier=0.01)
    weight = torch.randn(4, 16)
    layer.weight = weight
    torch.testing.assert_close(layer.weight, weight)


def test_pixel_norm_and_activation_keep_a_unit_second_moment():
    torch.manual_seed(0)
    x = 5 * torch.randn(4, 6, 3, 3)
    torch.testing.assert_close(PixelNorm()(x).square().mean(dim=1), torch.ones(4, 3, 3))
    latents = PixelNorm()(x[:, :, 0, 0])
    torch.testing.assert_close(latents.square().mean(dim=1), torch.ones(4))
    # E[2 leaky(x)^2] = 1 + 0.2^2 for x from N(0, 1); 100,000 draws are off by 0.7 %.
    moment = ScaledLeakyReLU()(torch.randn(100_000)).square().mean().item()
    assert moment == pytest.approx(1.04, rel=0.03)


def test_channels_double_inwards_up_to_eightfold():
    assert channels_inwards(3, 1) == [3, 6]
    assert channels_inwards(3, 5) == [3, 6, 12, 24, 24, 24]


# How far they have grown.


def test_phases_are_passed_in_equal_slots_that_stabilise_then_fade():
    at = {p: phase_at(p / 100, growth=0.6, fades=3) for p in (0, 5, 9, 15, 25, 35, 45, 55, 60)}
    expected = {0: 0, 5: 0, 9: 0, 15: 0.5, 25: 1, 35: 1.5, 45: 2, 55: 2.5, 60: 3}
    assert at == pytest.approx(expected)
    assert phase_at(1.0, 0.6, 3) == 3.0


def test_corners_of_the_phase():
    assert phase_at(0.0, 0.0, 2) == 2.0
    assert phase_at(0.0, 1.0, 2) == 0.0
    assert phase_at(1.0, 1.0, 2) == 2.0
    assert phase_at(0.3, 0.6, 0) == 0.0
    assert phase_at(math.nextafter(0.6, 0), 0.6, 3) == pytest.approx(3)
    for growth in (0.1, 0.6, 1.0):
        for fades in range(1, 6):
            phases = [phase_at(p / 997, growth, fades) for p in range(998)]
            assert phases == sorted(phases)
            assert phases[0] == 0
            assert phases[-1] == max(phases) == fades
            steps = [b - a for a, b in zip(phases, phases[1:], strict=False)]
            # A fade of 1 takes half a slot: no jump is above 2 fades / growth per progress.
            assert max(steps) <= 2 * fades / growth / 997 + 1e-9


def test_grow_reaches_every_network_inside_what_wraps_them():
    architecture = progressive(growth=0.5)
    generator, discriminator = architecture.generator((1, 16, 16)), nn.ModuleDict()
    discriminator["inner"] = architecture.discriminator((1, 16, 16))
    assert architecture.grows
    assert generator.phase == discriminator["inner"].phase == 2.0
    for progress, phase in ((0, 0), (0.125, 0), (0.1875, 0.5), (0.25, 1), (0.5, 2), (1, 2)):
        for network in (generator, discriminator):
            architecture.grow(network, progress)
        assert generator.phase == discriminator["inner"].phase == pytest.approx(phase)


def test_without_growth_there_is_one_layer_of_pixels():
    architecture = progressive(growth=0.0)
    networks = architecture.generator((1, 32, 32)), architecture.discriminator((1, 32, 32))
    assert len(networks[0].to_image) == len(networks[1].from_image) == 1
    for network in networks:
        architecture.grow(network, 0.0)
        assert network.phase == 3.0


# The networks.


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("spectral_norm", [False, True])
def test_shapes_ranges_and_gradients_at_every_phase(shape, spectral_norm):
    generator, discriminator = networks(shape, spectral_norm=spectral_norm)
    last, seen = int(generator.phase), set()
    for phase in [p / 2 for p in range(2 * last + 1)]:
        generator.phase = discriminator.phase = phase
        images = generator(torch.randn(4, 8))
        assert images.shape == (4, *shape)
        assert images.abs().max() <= 1
        logits = discriminator(images)
        assert logits.shape == (4, 1)
        for network in (generator, discriminator):
            network.zero_grad(set_to_none=True)
        logits.sum().backward()
        for role, network in (("g", generator), ("d", discriminator)):
            for name, value in network.named_parameters():
                if value.grad is not None:
                    assert value.grad.isfinite().all(), name
                    seen.add((role, name))
    everything = {("g", name) for name, _ in generator.named_parameters()}
    everything |= {("d", name) for name, _ in discriminator.named_parameters()}
    assert seen == everything


@pytest.mark.parametrize(
    ("phase", "stages", "pixels"),
    [(0.0, {0}, {0}), (0.5, {0, 1}, {0, 1}), (1.0, {0, 1}, {1}), (1.5, {0, 1, 2}, {1, 2}),
     (2.0, {0, 1, 2}, {2})],
)  # fmt: skip
def test_only_the_stages_of_the_phase_take_part(phase, stages, pixels):
    for network, pixel_layers in zip(
        networks((1, 16, 16)), ("to_image", "from_image"), strict=True
    ):
        network.phase = phase
        inputs = torch.randn(4, 8) if pixel_layers == "to_image" else torch.randn(4, 1, 16, 16)
        network(inputs).sum().backward()
        found = {"stages": set(), pixel_layers: set()}
        for name, value in network.named_parameters():
            part, index = name.split(".")[:2]
            if value.grad is not None:
                found[part].add(int(index))
        assert found == {"stages": stages, pixel_layers: pixels}
        for name, value in network.named_parameters():
            part, index = name.split(".")[:2]
            assert (value.grad is not None) == (int(index) in found[part]), name


def test_a_side_of_128_is_made():
    generator, discriminator = networks((3, 128, 128), width=1)
    assert discriminator(generator(torch.randn(2, 8))).shape == (2, 1)


@pytest.mark.parametrize("side", [4, 7, 12, 30])
def test_sides_that_cannot_be_made_are_refused(side):
    for network in (progressive().generator, progressive().discriminator):
        with pytest.raises(ValueError, match=f"not {side}x{side}"):
            network((1, side, side))


def test_an_early_stage_is_its_own_image_repeated():
    generator, _ = networks((1, 28, 28))
    latents = torch.randn(4, 8)
    for stage, side in enumerate((7, 14, 28)):
        generator.phase = float(stage)
        images = generator(latents)
        features = latents
        for layers in list(generator.stages)[: stage + 1]:
            features = layers(features)
        small = torch.tanh(generator.to_image[stage](features))
        assert small.shape == (4, 1, side, side)
        torch.testing.assert_close(images, up(small, 28 // side), rtol=0, atol=0)


def test_the_last_activation_reads_whole_images():
    generator, _ = networks((1, 28, 28))
    seen = []
    squashing(generator).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for phase in (0.0, 0.5, 1.0, 2.0):
        generator.phase = phase
        images = generator(torch.randn(4, 8))
        torch.testing.assert_close(seen.pop().tanh(), images, rtol=0, atol=0)


@pytest.mark.parametrize("alpha", [0.25, 0.75])
def test_a_fade_blends_the_images_of_two_stages_before_the_last_activation(alpha):
    generator, _ = networks((1, 28, 28))
    latents, logits = torch.randn(4, 8), {}
    for phase in (0.0, 1.0, alpha):
        generator.phase = phase
        logits[phase] = torch.atanh(generator(latents).double())
    expected = (1 - alpha) * logits[0.0] + alpha * logits[1.0]
    # float32 before the inverse of tanh.
    torch.testing.assert_close(logits[alpha], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("alpha", [0.25, 0.75])
def test_a_fade_blends_the_features_of_two_stages(alpha):
    _, discriminator = networks((1, 14, 14))
    images = torch.randn(4, 1, 14, 14)
    discriminator.phase = alpha
    new = discriminator.stages[1](discriminator.from_image[1](images))
    old = discriminator.from_image[0](avg_pool2d(images, 2))
    expected = discriminator.stages[0](alpha * new + (1 - alpha) * old)
    torch.testing.assert_close(discriminator(images), expected)


@pytest.mark.parametrize("stage", [1, 2])
def test_fading_is_continuous(stage):
    generator, discriminator = networks((1, 28, 28))
    latents, images = torch.randn(4, 8), torch.rand(4, 1, 28, 28) * 2 - 1
    for network, inputs in ((generator, latents), (discriminator, images)):
        values = []
        for phase in (stage - 1e-6, stage, min(stage + 1e-6, 2.0)):
            network.phase = float(phase)
            values.append(network(inputs))
        for other in (values[0], values[2]):
            torch.testing.assert_close(other, values[1], rtol=1e-4, atol=1e-5)


def test_the_discriminator_sees_no_detail_beyond_its_stage():
    _, discriminator = networks((1, 28, 28))
    images = torch.rand(4, 1, 28, 28) * 2 - 1
    for phase, times in ((0.0, 4), (0.5, 2), (1.0, 2), (1.5, 1), (2.0, 1)):
        discriminator.phase = phase
        logits = discriminator(images)
        coarse = up(avg_pool2d(images, times), times)
        torch.testing.assert_close(discriminator(coarse), logits, rtol=1e-4, atol=1e-5)
        if times < 4:
            coarser = up(avg_pool2d(images, 2 * times), 2 * times)
            assert not torch.allclose(discriminator(coarser), logits, rtol=1e-3)


def test_the_state_holds_the_phase_exactly():
    generator, discriminator = networks((1, 28, 28))
    for network in (generator, discriminator):
        network.phase = 1 + 1 / 3
        file = io.BytesIO()
        torch.save(network.state_dict(), file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
        assert all(isinstance(value, torch.Tensor) for value in state.values())
        assert state["_extra_state"].dtype == torch.float64
        network.phase = 0.0
        network.load_state_dict(state)
        assert network.phase == 1 + 1 / 3
        assert copy.deepcopy(network).phase == 1 + 1 / 3


def test_pixel_norm_makes_images_of_a_latents_direction():
    generator, _ = networks((1, 14, 14))
    latents = torch.randn(4, 8)
    torch.testing.assert_close(generator(5 * latents), generator(latents), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("phase", [0.0, 0.5, 1.0])
def test_a_penalty_on_the_discriminators_gradient_reaches_its_weights(phase):
    _, discriminator = networks((1, 14, 14))
    discriminator.phase = phase
    images = torch.randn(4, 1, 14, 14, requires_grad=True)
    (gradient,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    gradient.square().sum().backward()
    reached = {
        name: value.grad
        for name, value in discriminator.named_parameters()
        if name.endswith("weight.original") and value.grad is not None
    }
    # Weights: two layers and a head at the smallest side, two more halving; one or two of pixels.
    assert len(reached) == {0.0: 4, 0.5: 7, 1.0: 6}[phase]
    for name, value in reached.items():
        assert value.isfinite().all(), name
        assert value.abs().max() > 0, name


def test_layers_of_pixels_and_the_head_have_no_gain():
    generator, discriminator = networks((3, 14, 14))
    for network, linear in ((generator, {"to_image"}), (discriminator, set())):
        for name, module in network.named_modules():
            if not isinstance(module, nn.Linear | nn.Conv2d):
                continue
            fan_in = module.weight[0].numel()
            head = network is discriminator and module.weight.shape[0] == 1
            gain = 1 if name.split(".")[0] in linear or head else math.sqrt(2)
            if module is generator.stages[0][1]:
                gain /= 7  # a convolution as large as the map of 7x7: tests/gan/test_first_weights
            scale = module.parametrizations.weight[0].scale
            assert scale == pytest.approx(gain / math.sqrt(fan_in)), name


@pytest.mark.parametrize("how", ["normal", "orthogonal", "xavier"])
def test_any_other_first_weights_go_without_equalising(how):
    for network in networks((1, 8, 8), initialization=how):
        assert not any(isinstance(module, Equalized) for module in network.modules())


@pytest.mark.parametrize("growth", [0.0, 0.6])
def test_auto_encoders_do_not_grow(growth):
    torch.manual_seed(0)
    architecture = progressive(growth=growth, spectral_norm=True)
    network = EnergyDiscriminator(architecture.auto_encoder((1, 14, 14)), power=1)
    architecture.grow(network, 0.0)
    growing = [module for module in network.modules() if isinstance(module, Growing)]
    assert [module.phase for module in growing] == [1.0, 1.0]
    network(torch.rand(4, 1, 14, 14)).sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    assert isinstance(squashing(network), nn.Tanh)
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            assert len(module.parametrizations.weight) == 2


def test_parameters_by_hand():
    # Side 8 from 4: widths 4 and 2, latents of 3.
    def conv(i, o, k):
        return i * o * k * k + o

    generator, discriminator = networks((1, 8, 8), latent_dim=3)
    stages = conv(3, 4 * 16, 1) + conv(4, 4, 3) + conv(4, 2, 3) + conv(2, 2, 3)
    assert count(generator) == stages + conv(4, 1, 1) + conv(2, 1, 1)
    stages = conv(2, 2, 3) + conv(2, 4, 3) + conv(4, 4, 3) + conv(64, 4, 1) + conv(4, 1, 1)
    assert count(discriminator) == stages + conv(1, 2, 1) + conv(1, 4, 1)


def count(network) -> int:
    return sum(p.numel() for p in network.parameters())


def test_outputs_and_widths_are_those_asked_for():
    torch.manual_seed(0)
    architecture = progressive(width=1, discriminator_width=3)
    discriminator = architecture.discriminator((1, 32, 32), outputs=5)
    assert discriminator(torch.randn(4, 1, 32, 32)).shape == (4, 5)
    assert [layers[0].out_channels for layers in discriminator.from_image] == [24, 12, 6, 3]
    generator = architecture.generator((1, 32, 32))
    assert [layer.in_channels for layer in generator.to_image] == [8, 4, 2, 1]


def test_real_images_fade_in_with_the_sides_as_generated_ones_do():
    architecture = ARCHITECTURES.build("progressive", growth=0.5)
    images = torch.rand(2, 3, 28, 28) * 2 - 1
    # Two fades in half of the budget: the first one runs from 1/8 to 1/4 of it.
    half = architecture.real_at(images, 0.1875)
    seven, fourteen = (torch.nn.functional.avg_pool2d(images, side) for side in (4, 2))
    expected = (seven.repeat_interleave(2, 2).repeat_interleave(2, 3) + fourteen) / 2
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(half, 2), expected)
    torch.testing.assert_close(half, expected.repeat_interleave(2, 2).repeat_interleave(2, 3))
    for progress in (0.0, 0.1, 0.3, 0.5, 1.0):  # a side stands alone: nothing to blend
        assert torch.equal(architecture.real_at(images, progress), images)
    plain = ARCHITECTURES.build("dcgan")
    assert torch.equal(plain.real_at(images, 0.1875), images)
