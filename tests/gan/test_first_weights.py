"""First weights of each architecture against the closed form in its source's code."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import truncnorm
from torch import nn

from ganstudy.gan.architectures import ARCHITECTURES
from ganstudy.gan.architectures.resnet import DownBlock, UpBlock

LAYERS = nn.Linear | nn.Conv2d | nn.ConvTranspose2d
NORMS = nn.BatchNorm1d | nn.BatchNorm2d | nn.GroupNorm


def build(name, shape=(3, 32, 32), **options):
    """Return both networks, drawn by seed 0."""
    torch.manual_seed(0)
    architecture = ARCHITECTURES.build(name, spectral_norm=False, **options)
    return architecture.generator(shape), architecture.discriminator(shape)


def layers(network, kinds=LAYERS):
    return [(name, m) for name, m in network.named_modules() if isinstance(m, kinds)]


def fan_in(layer):
    return layer.weight[0].numel()


def glorot(layer, gain=1.0):
    """Return the deviation of GlorotUniform(gain): chainer counts the kernel in either fan."""
    outputs, inputs, *kernel = layer.weight.shape
    return gain * math.sqrt(2 / ((inputs + outputs) * math.prod(kernel)))


def check_deviation(values, expected, name=""):
    """Five standard errors of a normal sample's deviation, which is wide for a uniform one."""
    tolerance = 5 / math.sqrt(2 * values.numel())
    assert values.numel() >= 96, name
    assert values.mean().item() == pytest.approx(0, abs=5 * expected / math.sqrt(values.numel()))
    assert values.std().item() == pytest.approx(expected, rel=tolerance), name


def check_biases_are_0(network):
    for name, layer in layers(network):
        assert layer.bias is None or not layer.bias.any(), name


@pytest.mark.parametrize("upsampling", ["resize_conv", "transposed", "sub_pixel"])
def test_resnet_draws_as_sngans_authors_do(upsampling):
    """pfnet-research/sngan_projection, gen_models and dis_models: resblocks.py.

    GlorotUniform(sqrt 2) for the two convolutions of a block, GlorotUniform() for shortcuts and
    for what stands outside the blocks.
    """
    for network in build("resnet", upsampling=upsampling):
        blocks = [m for m in network.modules() if isinstance(m, UpBlock | DownBlock)]
        inside = {
            layer for b in blocks for part in (b.conv1, b.conv2) for _, layer in layers(part)
        }
        assert len(inside) == 2 * len(blocks)
        for name, layer in layers(network):
            check_deviation(layer.weight, glorot(layer, math.sqrt(2) if layer in inside else 1))
            bound = math.sqrt(3) * glorot(layer, math.sqrt(2) if layer in inside else 1)
            assert layer.weight.abs().max() <= bound * (1 + 1e-6), name
        check_biases_are_0(network)
        assert all((norm.weight == 1).all() for _, norm in layers(network, NORMS))
    if upsampling == "resize_conv":
        # 3x3 from 256 to 256 channels, 0.0295; 0.0208 without the gain.
        generator, _ = build("resnet")
        assert generator[2].conv2.weight.std().item() == pytest.approx(0.0295, abs=1e-4)


def test_attention_in_resnet_has_no_gain():
    for network in build("resnet", attention=16):
        for name, layer in layers(network):
            if name.split(".")[-1] in ("query", "key", "value", "output"):
                check_deviation(layer.weight, glorot(layer), name)


@pytest.mark.parametrize("name", ["dcgan", "patch"])
def test_dcgan_and_patch_draw_weights_and_scales_of_norms(name):
    """soumith/dcgan.torch, weights_init; junyanz/pytorch-CycleGAN-and-pix2pix, init_weights."""
    for network in build(name):
        for path, layer in layers(network):
            check_deviation(layer.weight, 0.02, path)
        check_biases_are_0(network)
        scales = torch.cat([norm.weight for _, norm in layers(network, NORMS)])
        check_deviation(scales - 1, 0.02)
        assert not any(norm.bias.any() for _, norm in layers(network, NORMS))


def test_sndcgan_draws_weights_alone():
    """pfnet-research/chainer-gan-lib, common/net.py: Normal(0.02); scales of norms begin at 1."""
    for network in build("sndcgan"):
        for path, layer in layers(network):
            check_deviation(layer.weight, 0.02, path)
        check_biases_are_0(network)
        assert all((norm.weight == 1).all() for _, norm in layers(network, NORMS))


def test_infogan_cuts_the_weights_of_convolutions():
    """google/compare_gan, src/gans/ops.py: truncated_normal for conv2d, normal for the rest."""
    for network in build("infogan"):
        for path, layer in layers(network):
            cut = isinstance(layer, nn.Conv2d)
            check_deviation(layer.weight, 0.02 * (truncnorm.std(-2, 2) if cut else 1), path)
            assert not cut or layer.weight.abs().max() <= 0.04
        check_biases_are_0(network)
        assert all((norm.weight == 1).all() for _, norm in layers(network, NORMS))


def test_mlp_draws_as_torch_does():
    """As its docstring says: uniform in +-1 / sqrt(fan in), biases too."""
    for network in build("mlp"):
        for path, layer in layers(network):
            check_deviation(layer.weight, 1 / math.sqrt(3 * fan_in(layer)), path)
            assert layer.weight.abs().max() <= 1 / math.sqrt(fan_in(layer))
            assert 0 < layer.bias.abs().max() <= 1 / math.sqrt(fan_in(layer))


@pytest.mark.parametrize("modulation", ["modulated", "adain"])
def test_style_has_hes_deviation_without_a_gain(modulation):
    """NVlabs/stylegan2, training/networks_stylegan2.py: get_weight; its activation has the gain.

    The mapping network's are stored a hundred times as large. Biases and strengths of noise are 0,
    the constant is N(0, 1).
    """
    for network in build("style", width=32, modulation=modulation):
        for path, layer in layers(network):
            check_deviation(layer.weight, 1 / math.sqrt(fan_in(layer)), path)
            stored = layer.parametrizations.weight.original
            check_deviation(stored, 100 if path.startswith("mapping") else 1, path)
        check_biases_are_0(network)
    generator, _ = build("style", width=32)
    check_deviation(generator.synthesis.constant, 1)
    assert not any(b.noise.strengths.any() for b in generator.synthesis.blocks)


@pytest.mark.parametrize(("side", "base"), [(16, 4), (14, 7)])
def test_progressive_has_hes_deviation(side, base):
    """tkarras/progressive_growing_of_gans, networks.py.

    A gain of root 2, 1 for pixels and for the last layer. The generator's first layer is a
    convolution of base x base over a 1x1 map: its fan in counts the kernel.
    """
    generator, discriminator = build("progressive", (3, side, side), width=32)
    first = generator.stages[0][1]
    assert first.out_features == 32 * 2 ** len(generator.stages[1:]) * base**2
    for network in (generator, discriminator):
        for path, layer in layers(network):
            gain = math.sqrt(2)
            if path.startswith("to_image") or layer.weight.shape[0] == 1:
                gain = 1
            elif layer is first:
                gain = math.sqrt(2) / base
            if layer.weight.numel() >= 96:
                check_deviation(layer.weight, gain / math.sqrt(fan_in(layer)), path)
            scale = layer.parametrizations.weight[0].scale
            assert scale == pytest.approx(gain / math.sqrt(fan_in(layer))), path
        check_biases_are_0(network)
