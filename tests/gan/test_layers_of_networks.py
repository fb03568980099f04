from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ganstudy.gan.architectures import ARCHITECTURES
from ganstudy.gan.architectures.parts import SelfAttention, doubling, normalization

UPSAMPLING = ["transposed", "resize_conv", "sub_pixel"]


@pytest.mark.parametrize("kind", UPSAMPLING)
@pytest.mark.parametrize("kernel", range(2, 8))
def test_doubling_doubles_exactly(kind, kernel):
    for height, width in ((1, 1), (4, 4), (7, 5)):
        layers = nn.Sequential(*doubling(kind, 3, 2, kernel))
        assert layers(torch.randn(2, 3, height, width)).shape == (2, 2, 2 * height, 2 * width)


@pytest.mark.parametrize("kind", UPSAMPLING)
@pytest.mark.parametrize("bias", [True, False])
def test_a_doubling_has_one_convolution_with_the_kernel_asked_for(kind, bias):
    outputs = 4 * 5 if kind == "sub_pixel" else 5
    for kernel in range(2, 8):
        parameters = nn.Sequential(*doubling(kind, 3, 5, kernel, bias)).parameters()
        assert sum(p.numel() for p in parameters) == 3 * outputs * kernel**2 + bias * outputs


def interior_of_constants(kind, kernel):
    """Return what constant weights make of a constant map, away from its border."""
    layers = nn.Sequential(*doubling(kind, 1, 1, kernel, bias=False))
    for parameter in layers.parameters():
        nn.init.ones_(parameter)
    return layers(torch.ones(1, 1, 12, 12))[0, 0, 8:-8, 8:-8]


@pytest.mark.parametrize("kernel", range(2, 8))
def test_only_transposed_convolutions_with_an_odd_kernel_overlap_unevenly(kernel):
    # Odena et al. 2016: a kernel whose side the stride does not divide covers some pixels more.
    covered = interior_of_constants("transposed", kernel)
    few, many = (kernel // 2) ** 2, ((kernel + 1) // 2) ** 2
    assert covered.min() == few
    assert covered.max() == many
    assert (few == many) == (kernel % 2 == 0)
    assert (interior_of_constants("resize_conv", kernel) == kernel**2).all()
    assert (interior_of_constants("sub_pixel", kernel) == kernel**2).all()


def test_a_resize_convolution_is_one_on_repeated_pixels():
    torch.manual_seed(0)
    layers = nn.Sequential(*doubling("resize_conv", 3, 2, 3))
    x = torch.randn(2, 3, 5, 5)
    repeated = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    expected = nn.functional.conv2d(repeated, layers[-1].weight, layers[-1].bias, padding=1)
    torch.testing.assert_close(layers(x), expected)


@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_a_sub_pixel_convolution_lays_four_channels_out_in_squares(kernel):
    torch.manual_seed(0)
    layers = nn.Sequential(*doubling("sub_pixel", 3, 2, kernel))
    x = torch.randn(2, 3, 4, 5)
    made, channels = layers(x), layers[:-1](x)
    for down in (0, 1):
        for right in (0, 1):
            # Shi et al. 2016, equation 4.
            expected = channels[:, [4 * c + 2 * down + right for c in range(2)]]
            assert torch.equal(made[:, :, down::2, right::2], expected)


@pytest.mark.parametrize("name", ["dcgan", "infogan", "patch", "resnet", "sndcgan"])
@pytest.mark.parametrize("kind", UPSAMPLING)
def test_generators_double_as_asked(name, kind):
    architecture = ARCHITECTURES.build(name, width=2, upsampling=kind, upsampling_kernel=6)
    modules = list(architecture.generator((1, 32, 32)).modules())
    wide = [m for m in modules if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)
            and m.kernel_size == (6, 6)]  # fmt: skip
    doublings = 2 if name == "infogan" else 3
    assert len(wide) == doublings
    assert all(isinstance(m, nn.ConvTranspose2d) == (kind == "transposed") for m in wide)
    assert sum(isinstance(m, nn.PixelShuffle) for m in modules) == doublings * (
        kind == "sub_pixel"
    )
    assert sum(isinstance(m, nn.Upsample) for m in modules) == doublings * (kind == "resize_conv")


def test_the_shortcut_of_a_residual_block_repeats_pixels_whatever_the_option():
    torch.manual_seed(0)
    architecture = ARCHITECTURES.build("resnet", width=2, upsampling="sub_pixel")
    block = architecture.generator((1, 8, 8))[2].eval()
    nn.init.zeros_(block.conv2.weight)
    x = torch.randn(1, 4, 4, 4)
    repeated = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(block(x), block.shortcut(repeated))


def by_hand(block, x):
    """Return self-attention of one map (channels, height, width), place by place."""

    def convolved(convolution, values):
        weight = convolution.weight.detach().double().numpy()[:, :, 0, 0]
        return np.einsum("oc,chw->ohw", weight, values)

    def pooled(values):
        channels, height, width = values.shape
        if height % 2 or width % 2 or height * width <= 4:
            return values
        squares = values.reshape(channels, height // 2, 2, width // 2, 2)
        return squares.max(axis=(2, 4))

    x = x.double().numpy()
    query = convolved(block.query, x)
    key, value = pooled(convolved(block.key, x)), pooled(convolved(block.value, x))
    attended = np.zeros((value.shape[0], *x.shape[1:]))
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            shares = np.exp(np.einsum("c,chw->hw", query[:, i, j], key))
            attended[:, i, j] = np.einsum("hw,chw->c", shares / shares.sum(), value)
    return x + block.gamma.item() * convolved(block.output, attended)


@pytest.mark.parametrize("shape", [(16, 4, 4), (16, 8, 6), (3, 7, 7), (8, 2, 2), (1, 4, 3)])
def test_attention_is_its_definition(shape):
    torch.manual_seed(0)
    block = SelfAttention(shape[0])
    nn.init.constant_(block.gamma, 0.5)
    x = torch.randn(2, *shape)
    expected = np.stack([by_hand(block, image) for image in x])
    torch.testing.assert_close(block(x), torch.from_numpy(expected).float())


def test_attention_has_the_channels_of_its_paper():
    block = SelfAttention(64)
    assert (block.query.out_channels, block.key.out_channels) == (8, 8)
    assert (block.value.out_channels, block.output.in_channels) == (32, 32)
    assert sum(p.numel() for p in SelfAttention(1).parameters()) == 4 + 1


def test_every_layer_of_attention_learns_even_on_the_smallest_maps():
    torch.manual_seed(0)
    for side in (2, 3, 4):
        block = SelfAttention(8)
        nn.init.constant_(block.gamma, 0.5)
        block(torch.randn(4, 8, side, side)).square().sum().backward()
        for parameter, value in block.named_parameters():
            assert value.grad.abs().max() > 1e-6, (side, parameter)


def test_attention_has_second_derivatives():
    torch.manual_seed(0)
    block = SelfAttention(2).double()
    nn.init.constant_(block.gamma, 0.5)
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(block, x)


@pytest.mark.parametrize("options", [{}, {"spectral_norm": True}, {"initialization": "xavier"}])
def test_first_weights_and_spectral_norm_reach_attention_but_not_gamma(options):
    torch.manual_seed(0)
    architecture = ARCHITECTURES.build(
        "dcgan", width=64, attention=16, **options, generator_spectral_norm=True
    )
    for network in (architecture.generator((1, 32, 32)), architecture.discriminator((1, 32, 32))):
        (block,) = (m for m in network.modules() if isinstance(m, SelfAttention))
        assert block.gamma.item() == 0
        normed = "spectral_norm" in options or network[-1].__class__ is nn.Tanh
        assert hasattr(block.value, "parametrizations") == normed
        drawn = block.value.parametrizations.weight.original if normed else block.value.weight
        deviation = (2 / 96) ** 0.5 if "initialization" in options else 0.02
        assert drawn.std().item() == pytest.approx(deviation, rel=0.1)


@pytest.mark.parametrize(
    ("kind", "groups"), [("layer", 1), ("instance", 12), ("group", 4), ("batch", None)]
)
def test_normalisations_standardise_over_their_own_values(kind, groups):
    torch.manual_seed(0)
    x = 3 * torch.randn(5, 12, 4, 4) + 7
    y = normalization(kind, 12, epsilon=1e-12)(x)
    # gcd(8, 12) = 4 groups.
    values = y.reshape(5 * groups, -1) if groups else y.transpose(0, 1).flatten(1)
    torch.testing.assert_close(values.mean(dim=1), torch.zeros(len(values)), atol=1e-5, rtol=0)
    torch.testing.assert_close(values.var(dim=1, correction=0), torch.ones(len(values)))


@pytest.mark.parametrize("kind", ["batch", "layer", "instance", "group"])
def test_every_normalisation_learns_a_scale_and_a_shift_per_channel(kind):
    norm = normalization(kind, 12)
    assert norm.weight.shape == norm.bias.shape == (12,)
    if kind != "instance":
        assert normalization(kind, 12, flat=True)(torch.randn(3, 12)).shape == (3, 12)


@pytest.mark.parametrize("name", ["dcgan", "infogan", "mlp", "patch", "resnet", "sndcgan"])
@pytest.mark.parametrize("kind", ["layer", "group"])
def test_each_network_has_its_own_normalisation(name, kind):
    architecture = ARCHITECTURES.build(
        name, width=12, generator_normalization=kind, discriminator_normalization="none"
    )
    norms = nn.modules.batchnorm._NormBase | nn.GroupNorm
    generator, discriminator = (
        [m for m in network.modules() if isinstance(m, norms)]
        for network in (
            architecture.generator((1, 32, 32)),
            architecture.discriminator((1, 32, 32)),
        )
    )
    assert generator
    assert not discriminator
    assert all(isinstance(m, nn.GroupNorm) for m in generator)
    assert all((m.num_groups == 1) == (kind == "layer") for m in generator)


@pytest.mark.parametrize("kind", ["layer", "instance", "group", "none"])
def test_per_image_normalisations_judge_an_image_alone(kind):
    torch.manual_seed(0)
    architecture = ARCHITECTURES.build("dcgan", width=2, discriminator_normalization=kind)
    discriminator, images = architecture.discriminator((1, 16, 16)), torch.randn(4, 1, 16, 16)
    torch.testing.assert_close(discriminator(images)[:1], discriminator(images[:1]))
