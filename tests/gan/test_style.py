from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d

from ganstudy.gan.architectures import ARCHITECTURES
from ganstudy.gan.architectures.base import squashing
from ganstudy.gan.architectures.equalized import Equalized, ScaledLeakyReLU
from ganstudy.gan.architectures.style import AdaptiveBlock, ModulatedConv2d, Noise

MODULATIONS = ["modulated", "adain"]
SHAPES = [(1, 8, 8), (2, 14, 14), (1, 28, 28), (3, 32, 32), (4, 64, 64)]


def style(**options):
    return ARCHITECTURES.build("style", **{"width": 2, "latent_dim": 8, **options})


def drawn(architecture, shape, count=4, seed=0):
    return architecture.latents(count, torch.Generator().manual_seed(seed), shape)


def strengthen(generator):
    """Let noise tell: strengths start at 0."""
    for module in generator.modules():
        if isinstance(module, Noise):
            nn.init.constant_(module.strengths, 0.5)
    return generator


@pytest.mark.parametrize("modulation", MODULATIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes_ranges_and_gradients(shape, modulation):
    torch.manual_seed(0)
    architecture = style(modulation=modulation)
    generator, discriminator = architecture.generator(shape), architecture.discriminator(shape)
    images = generator(drawn(architecture, shape))
    assert images.shape == (4, *shape)
    assert images.abs().max() <= 1
    logits = discriminator(images)
    assert logits.shape == (4, 1)
    logits.sum().backward()
    for network in (generator, discriminator):
        for name, value in network.named_parameters():
            assert value.grad is not None, name
            assert value.grad.isfinite().all(), name
            assert value.grad.abs().max() > 0, name


def test_a_side_of_128_is_made():
    torch.manual_seed(0)
    architecture, shape = style(width=1), (3, 128, 128)
    images = architecture.generator(shape)(drawn(architecture, shape, count=2))
    assert images.shape == (2, *shape)
    assert architecture.discriminator(shape)(images).shape == (2, 1)


@pytest.mark.parametrize("side", [4, 7, 12, 30])
def test_sides_that_cannot_be_made_are_refused(side):
    for network in (style().generator, style().discriminator):
        with pytest.raises(ValueError, match=f"not {side}x{side}"):
            network((1, side, side))


@pytest.mark.parametrize("demodulates", [True, False])
def test_scaled_inputs_and_outputs_are_the_kernel_of_each_sample(demodulates):
    torch.manual_seed(0)
    conv = ModulatedConv2d(3, 4, 3, latent_dim=5, demodulates=demodulates)
    nn.init.normal_(conv.bias)
    x, latents = torch.randn(6, 3, 8, 8), torch.randn(6, 5)
    expected = []
    for sample, scales in zip(x, conv.affine(latents) + 1, strict=True):
        kernel = torch.empty_like(conv.weight)
        for out in range(4):
            scaled = torch.stack([scales[i] * conv.weight[out, i] for i in range(3)])
            norm = torch.sqrt(scaled.square().sum() + 1e-8) if demodulates else 1.0
            kernel[out] = scaled / norm
        expected.append(conv2d(sample[None], kernel, conv.bias, padding=1)[0])
    torch.testing.assert_close(conv(x, latents), torch.stack(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [0.1, 30.0])
def test_demodulation_keeps_unit_variance_whatever_the_style(scale):
    torch.manual_seed(0)
    conv = ModulatedConv2d(16, 8, 3, latent_dim=5, demodulates=True)
    nn.init.zeros_(conv.bias)
    x, latents = torch.randn(8, 16, 64, 64), scale * torch.randn(8, 5)
    inner = conv(x, latents)[:, :, 1:-1, 1:-1]
    # 3844 places of a map, neighbours correlated: its own variance is off by about 4 %.
    assert inner.var(dim=(2, 3)).mean().item() == pytest.approx(1, abs=0.02)
    assert inner.var(dim=(2, 3)).sub(1).abs().max() < 0.25


def test_adaptive_instance_norm_is_its_definition():
    torch.manual_seed(0)
    block = AdaptiveBlock(3, 4, latent_dim=5, noise=False)
    x, latents = torch.randn(6, 3, 8, 8), torch.randn(6, 5)
    features = ScaledLeakyReLU()(block.conv(x))
    means = features.mean(dim=(2, 3), keepdim=True)
    deviations = features.var(dim=(2, 3), correction=0, keepdim=True).add(1e-8).sqrt()
    scales, shifts = block.affine(latents)[:, :, None, None].split(4, dim=1)
    expected = (features - means) / deviations * (1 + scales) + shifts
    torch.testing.assert_close(block(x, latents, None), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("modulation", MODULATIONS)
def test_noise_comes_with_the_latents_and_from_nowhere_else(modulation):
    torch.manual_seed(0)
    architecture, shape = style(modulation=modulation), (1, 14, 14)
    latents = drawn(architecture, shape)
    # One map of side 7, two of side 14, behind the latent.
    assert latents.shape == (4, 8 + 49 + 2 * 196)
    generator = architecture.generator(shape)
    torch.testing.assert_close(generator(latents), generator(latents[:, :8]), rtol=0, atol=0)
    strengthen(generator)
    images = generator(latents)
    torch.manual_seed(1)
    torch.testing.assert_close(generator(latents), images, rtol=0, atol=0)
    other = latents.clone()
    other[:, 8:] = drawn(architecture, shape, seed=1)[:, 8:]
    assert (generator(other) - images).abs().amax(dim=(1, 2, 3)).min() > 0.01
    no_noise = latents.clone()
    no_noise[:, 8:] = 0
    torch.testing.assert_close(generator(no_noise), generator(latents[:, :8]))


@pytest.mark.parametrize("block", range(3))
def test_every_block_hears_its_own_map_in_its_own_place(block):
    torch.manual_seed(0)
    architecture, shape = style(), (1, 14, 14)
    generator = architecture.generator(shape)
    nn.init.constant_(generator.synthesis.blocks[block].noise.strengths, 1.0)
    latents = drawn(architecture, shape)
    quiet, heard = latents.clone(), [slice(8, 57), slice(57, 253), slice(253, 449)]
    for other, columns in enumerate(heard):
        if other != block:
            quiet[:, columns] = 0
    torch.testing.assert_close(generator(quiet), generator(latents), rtol=0, atol=0)
    silent = quiet.clone()
    silent[:, heard[block]] = 0
    assert not torch.equal(generator(silent), generator(latents))


@pytest.mark.parametrize("modulation", MODULATIONS)
def test_an_image_is_independent_of_its_batch(modulation):
    torch.manual_seed(0)
    architecture, shape = style(modulation=modulation), (1, 14, 14)
    generator = strengthen(architecture.generator(shape))
    latents = drawn(architecture, shape, count=6)
    alone = torch.cat([generator(row[None]) for row in latents])
    # Convolutions of other batch sizes sum in another order.
    torch.testing.assert_close(generator(latents), alone, rtol=1e-4, atol=1e-5)


def test_latents_are_the_priors_draws_whether_or_not_noise_follows():
    shape = (1, 28, 28)
    for prior in ("normal", "uniform"):
        with_noise = drawn(style(prior=prior), shape)
        without = drawn(style(prior=prior, noise=False), shape)
        assert without.shape == (4, 8)
        torch.testing.assert_close(with_noise[:, :8], without, rtol=0, atol=0)
        noise = with_noise[:, 8:]
        assert noise.shape == (4, 49 + 2 * 196 + 2 * 784)
        # 8036 draws: the standard deviation's own error is 0.8 %.
        assert noise.std().item() == pytest.approx(1, abs=0.04)


def test_latents_of_another_length_are_refused():
    with pytest.raises(ValueError, match="latents are of 8 numbers, or of 441 more with noise"):
        style().generator((1, 14, 14))(torch.randn(2, 20))


@pytest.mark.parametrize("modulation", MODULATIONS)
def test_another_style_is_another_image(modulation):
    torch.manual_seed(0)
    shape = (1, 14, 14)
    generator = style(modulation=modulation).generator(shape)
    latents = drawn(style(noise=False), shape)
    images, swapped = generator(latents), generator(latents.flip(0))
    torch.testing.assert_close(swapped.flip(0), images, rtol=1e-4, atol=1e-5)
    assert (swapped - images).abs().amax(dim=(1, 2, 3)).min() > 0.01
    # Latents are normalised: only their direction tells.
    torch.testing.assert_close(generator(3 * latents), images, rtol=1e-4, atol=1e-5)


def test_a_longer_latent_stands_in_front_of_the_noise():
    torch.manual_seed(0)
    shape, architecture = (1, 8, 8), style()
    latents, codes = drawn(architecture, shape), torch.randn(4, 3)
    generator = dataclasses.replace(architecture, latent_dim=11).generator(shape)
    strengthen(generator)
    images = generator(torch.cat([codes, latents], dim=1))
    assert images.shape == (4, *shape)
    assert not torch.equal(generator(torch.cat([codes.flip(0), latents], dim=1)), images)


@pytest.mark.parametrize("spectral_norm", [False, True])
def test_the_decoder_has_no_noise_and_the_discriminators_norm(spectral_norm):
    torch.manual_seed(0)
    architecture = style(spectral_norm=spectral_norm)
    decoder = architecture.decoder((1, 14, 14))
    assert not any(isinstance(module, Noise) for module in decoder.modules())
    decoder(torch.randn(3, 8)).sum().backward()
    assert all(p.grad is not None for p in decoder.parameters())
    assert isinstance(squashing(decoder), nn.Tanh)
    for network in (decoder, architecture.discriminator((1, 14, 14))):
        kinds = {
            tuple(type(p).__name__ for p in module.parametrizations.weight)
            for module in network.modules()
            if isinstance(module, nn.Linear | nn.Conv2d)
        }
        assert kinds == {("Equalized", "_SpectralNorm") if spectral_norm else ("Equalized",)}


def test_the_mapping_network_learns_a_hundred_times_slower():
    torch.manual_seed(0)
    generator = style(latent_dim=64).generator((1, 8, 8))
    layers = [module for module in generator.mapping if isinstance(module, nn.Linear)]
    assert len(layers) == 2
    for layer in layers:
        weight, bias = layer.parametrizations.weight, layer.parametrizations.bias
        assert weight[0].scale == pytest.approx(0.01 / 8)
        # 4096 weights: the standard deviation's own error is 1.1 %.
        assert weight.original.std().item() == pytest.approx(100, rel=0.05)
        assert layer.weight.std().item() == pytest.approx(1 / 8, rel=0.05)
        assert bias[0].scale == 0.01
    assert all(
        module.parametrizations.weight[0].scale > 0.02
        for module in generator.synthesis.modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    )


@pytest.mark.parametrize("how", ["normal", "orthogonal", "xavier"])
def test_any_other_first_weights_go_without_equalising(how):
    architecture = style(initialization=how)
    for network in (architecture.generator((1, 8, 8)), architecture.discriminator((1, 8, 8))):
        assert not any(isinstance(module, Equalized) for module in network.modules())


def test_a_penalty_on_the_discriminators_gradient_reaches_its_weights():
    torch.manual_seed(0)
    discriminator = style().discriminator((1, 14, 14))
    images = torch.randn(4, 1, 14, 14, requires_grad=True)
    (gradient,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    gradient.square().sum().backward()
    for name, value in discriminator.named_parameters():
        if name.endswith("weight.original"):
            assert value.grad.isfinite().all(), name
            assert value.grad.abs().max() > 0, name


@pytest.mark.parametrize("modulation", MODULATIONS)
def test_signals_neither_die_nor_explode_at_first(modulation):
    torch.manual_seed(0)
    architecture, shape = style(modulation=modulation, width=8, latent_dim=32), (1, 32, 32)
    generator, discriminator = architecture.generator(shape), architecture.discriminator(shape)
    latents = drawn(architecture, shape, count=32)
    styles = generator.mapping(latents[:, :32])
    # Second moments of about 1, give or take the few weights that make one channel of pixels.
    assert 0.5 < styles.square().mean() < 2
    assert 0.3 < generator.synthesis(styles, None).square().mean() < 5
    # Averaging takes white noise away, smooth images stay.
    smooth = torch.randn(32, 1, 4, 4).repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    assert 0.3 < discriminator[:-1](smooth).square().mean() < 3


def test_parameters_by_hand():
    # Side 8 from 4: widths 4 and 2, latents of 3, two mapping layers.
    def conv(i, o, k):
        return i * o * k * k + o

    generator = style(latent_dim=3).generator((1, 8, 8))
    mapping, constant = 2 * (3 * 3 + 3), 4 * 16
    blocks = sum(conv(i, o, 3) + conv(3, i, 1) + o for i, o in ((4, 4), (4, 2), (2, 2)))
    images = sum(conv(i, 1, 1) + conv(3, i, 1) for i in (4, 2))
    assert count(generator) == mapping + constant + blocks + images
    adaptive = style(latent_dim=3, modulation="adain").generator((1, 8, 8))
    blocks = sum(conv(i, o, 3) + conv(3, 2 * o, 1) + o for i, o in ((4, 4), (4, 2), (2, 2)))
    assert count(adaptive) == mapping + constant + blocks + conv(4, 1, 1) + conv(2, 1, 1)
    discriminator = style().discriminator((1, 8, 8))
    block = conv(2, 2, 3) + conv(2, 4, 3) + 2 * 4
    assert count(discriminator) == conv(1, 2, 1) + block + conv(4, 4, 3) + conv(64, 4, 1) + 5


def test_channels_double_inwards_up_to_eightfold():
    generator = style(width=1, discriminator_width=2).generator((1, 128, 128))
    assert [image.conv.in_channels for image in generator.synthesis.images] == [8, 8, 8, 4, 2, 1]
    discriminator = style(width=1, discriminator_width=2).discriminator((1, 128, 128))
    halved = [layer.conv2.out_channels for layer in discriminator if hasattr(layer, "conv2")]
    assert halved == [4, 8, 16, 16, 16]


def count(network) -> int:
    return sum(p.numel() for p in network.parameters())


def test_the_head_and_the_outputs_are_those_asked_for():
    torch.manual_seed(0)
    images = torch.randn(4, 1, 8, 8)

    class Doubling(nn.Module):
        def __init__(self, features):
            super().__init__()
            self.out_features = 2 * features

        def forward(self, x):
            return torch.cat([x, x.mean(dim=0).expand_as(x)], dim=1)

    discriminator = style().discriminator((1, 8, 8), outputs=5, across=[Doubling])
    logits = discriminator(images)
    assert logits.shape == (4, 5)
    assert discriminator[-1][-1].in_features == 8
    alone = torch.cat([discriminator(image[None]) for image in images])
    assert not torch.allclose(logits, alone)
    assert math.isfinite(logits.sum().item())
