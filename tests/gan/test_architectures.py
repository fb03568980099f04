from __future__ import annotations

import math

import pytest
import torch

from ganstudy.gan.architectures import ARCHITECTURES
from ganstudy.gan.architectures.base import EnergyDiscriminator

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32)]
NOT_MADE = {("sndcgan", (1, 28, 28))}


IMAGES = [name for name in ARCHITECTURES.names() if name != "dirac"]
"""Architectures that make images; dirac makes one number."""


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("options", [{}, {"spectral_norm": True}, {"prior": "uniform"}], ids=str)
def test_shapes_ranges_and_gradients(name, shape, options):
    torch.manual_seed(0)
    if (name, shape) in NOT_MADE:
        with pytest.raises(ValueError, match="multiples of"):
            ARCHITECTURES.build(name).generator(shape)
        return
    architecture = ARCHITECTURES.build(name, width=8, **options)
    generator, discriminator = architecture.generator(shape), architecture.discriminator(shape)
    latents = architecture.latents(6, torch.Generator().manual_seed(0), shape)
    assert latents.shape == (6, architecture.latent_dim)
    images = generator(latents)
    assert images.shape == (6, *shape)
    assert images.abs().max() <= 1
    logits = discriminator(images)
    assert logits.shape == (6, 1)
    logits.sum().backward()
    for network in (generator, discriminator):
        for parameter, value in network.named_parameters():
            assert value.grad is not None, parameter
            assert value.grad.isfinite().all(), parameter


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", IMAGES)
def test_encoders_and_auto_encoders_fit_the_images(name, shape):
    torch.manual_seed(0)
    shape = (1, 24, 24) if (name, shape) in NOT_MADE else shape
    architecture = ARCHITECTURES.build(name, width=8)
    images = torch.rand(6, *shape) * 2 - 1
    assert architecture.discriminator(shape, outputs=10)(images).shape == (6, 10)
    auto_encoder = architecture.auto_encoder(shape)
    copies = auto_encoder(images)
    assert copies.shape == images.shape
    for power in (1, 2):
        logits = EnergyDiscriminator(auto_encoder.eval(), power)(images)
        error = (images - auto_encoder(images)).abs() ** power
        torch.testing.assert_close(logits, -error.mean(dim=(1, 2, 3))[:, None])
    logits.sum().backward()
    for parameter, value in auto_encoder.named_parameters():
        assert value.grad is not None, parameter


@pytest.mark.parametrize("name", ["dcgan", "infogan", "sndcgan", "resnet"])
def test_the_discriminators_options_reach_the_whole_auto_encoder(name):
    shape, bn = (1, 32, 32), torch.nn.modules.batchnorm._BatchNorm
    for norm in ("none", "layer", "batch"):
        plain = ARCHITECTURES.build(name, width=4, discriminator_normalization=norm)
        found = any(isinstance(m, bn) for m in plain.auto_encoder(shape).modules())
        assert found == (norm == "batch")
    spectral = ARCHITECTURES.build(name, width=4, spectral_norm=True).auto_encoder(shape)
    kinds = torch.nn.Linear | torch.nn.Conv2d | torch.nn.ConvTranspose2d
    for module in spectral.modules():
        if isinstance(module, kinds):
            assert hasattr(module, "parametrizations")


@pytest.mark.parametrize(("prior", "deviation"), [("normal", 1.0), ("uniform", 1 / math.sqrt(3))])
def test_latents_follow_their_prior(prior, deviation):
    architecture = ARCHITECTURES.build("mlp", prior=prior, latent_dim=4)
    latents = architecture.latents(20_000, torch.Generator().manual_seed(0), (1, 8, 8))
    # 80,000 draws: the standard deviation's own error is below 0.3 %.
    assert latents.std().item() == pytest.approx(deviation, rel=0.015)
    assert (latents.abs().max() <= 1) == (prior == "uniform")


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("how", ["normal", "orthogonal", "xavier"])
def test_first_weights_are_drawn_as_asked(name, how):
    torch.manual_seed(0)
    architecture = ARCHITECTURES.build(name, width=32, initialization=how, spectral_norm=True)
    shape = (1, 32, 32)
    for network in (architecture.generator(shape), architecture.discriminator(shape)):
        for layer, weight in first_weights(network):
            if how == "normal" and weight.numel() > 2000:
                assert weight.std().item() == pytest.approx(0.02, rel=0.1), layer
            elif how == "orthogonal":
                matrix = (
                    weight.flatten(1)
                    if weight.shape[0] <= weight[0].numel()
                    else (weight.flatten(1).T)
                )
                product = matrix @ matrix.T
                torch.testing.assert_close(product, torch.eye(len(product)), atol=1e-4, rtol=0)
            elif how == "xavier":
                field = math.prod(weight.shape[2:])
                bound = math.sqrt(6 / ((weight.shape[0] + weight.shape[1]) * field))
                assert weight.abs().max() <= bound + 1e-6
                if weight.numel() > 2000:
                    assert weight.abs().max() > 0.98 * bound


def first_weights(network):
    """Yield the weights of linear and convolution layers, below any parametrization."""
    for name, value in network.named_parameters():
        if value.dim() > 1 and ("weight" in name):
            yield name, value.detach()


def test_infogan_has_the_published_size():
    # InfoGAN's networks of Lucic et al. 2018: 6.64 and 6.56 million parameters at 28x28x1.
    millions = {(1, 28, 28): (6.64, 6.56), (3, 32, 32): (8.62, 8.53), (3, 64, 64): (33.9, 33.7)}
    architecture = ARCHITECTURES.build("infogan")
    for shape, expected in millions.items():
        networks = architecture.generator(shape), architecture.discriminator(shape)
        for network, count in zip(networks, expected, strict=True):
            found = sum(p.numel() for p in network.parameters()) / 1e6
            assert found == pytest.approx(count, abs=0.05 if count > 10 else 0.005)


def test_sndcgan_and_resnet_have_the_published_sizes_at_32_pixels():
    # By hand from the tables of Miyato et al. 2018, biases and the latent of 128 included.
    def conv(i, o, k):
        return i * o * k * k + o

    down = sum(conv(*c) for c in ((3, 64, 3), (64, 128, 4), (128, 128, 3), (128, 256, 4),
                                  (256, 256, 3), (256, 512, 4), (512, 512, 3)))  # fmt: skip
    up = 129 * 512 * 16 + sum(conv(*c) for c in ((512, 256, 4), (256, 128, 4), (128, 64, 4),
                                                 (64, 3, 3)))  # fmt: skip
    norms = 2 * (512 + 256 + 128 + 64)
    sndcgan = ARCHITECTURES.build("sndcgan", latent_dim=128, spectral_norm=False)
    assert count(sndcgan.discriminator((3, 32, 32))) == down + 512 * 16 + 1
    assert count(sndcgan.generator((3, 32, 32))) == up + norms
    resnet = ARCHITECTURES.build("resnet", spectral_norm=False)
    block = conv(128, 128, 3) * 2
    halving = conv(3, 128, 3) + conv(128, 128, 3) + conv(3, 128, 1) + block + conv(128, 128, 1)
    assert count(resnet.discriminator((3, 32, 32))) == halving + 2 * block + 129
    upward = 3 * (2 * conv(256, 256, 3) + conv(256, 256, 1) + 2 * 2 * 256)
    assert count(resnet.generator((3, 32, 32))) == (
        129 * 256 * 16 + upward + 2 * 256 + conv(256, 3, 3)
    )


def count(network) -> int:
    return sum(p.numel() for p in network.parameters())


def test_infogan_is_built_as_published():
    torch.manual_seed(0)
    generator = ARCHITECTURES.build("infogan").generator((1, 28, 28))
    kinds = [type(layer).__name__ for layer in generator]
    assert kinds == ["Linear", "BatchNorm1d", "LeakyReLU"] * 2 + [
        "Unflatten", "ConvTranspose2d", "BatchNorm2d", "LeakyReLU", "ConvTranspose2d",
        "ScaledSigmoid",
    ]  # fmt: skip
    norms = [layer for layer in generator if "BatchNorm" in type(layer).__name__]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 1e-3)}
    assert generator[0].weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert generator[7].weight.std().item() == pytest.approx(0.02, rel=0.02)
    discriminator = ARCHITECTURES.build("infogan").discriminator((1, 28, 28))
    # Convolutions are cut at two deviations, transposed ones are not.
    assert generator[7].weight.abs().max() > 0.04
    assert discriminator[2].weight.abs().max() <= 0.04
    assert discriminator[2].weight.std().item() == pytest.approx(0.02 * 0.8796, rel=0.02)
    assert [type(layer).__name__ for layer in discriminator] == [
        "Conv2d", "LeakyReLU", "Conv2d", "BatchNorm2d", "LeakyReLU", "Flatten", "Linear",
        "BatchNorm1d", "LeakyReLU", "Head",
    ]  # fmt: skip


def test_a_scaled_sigmoid_is_a_sigmoid_on_minus_one_to_one():
    x = torch.linspace(-20, 20, 41)
    scaled = ARCHITECTURES.build("infogan").generator((1, 28, 28))[-1]
    torch.testing.assert_close(scaled(x), 2 * torch.sigmoid(x) - 1)


@pytest.mark.parametrize(
    ("name", "shape", "rule"),
    [
        ("infogan", (1, 30, 30), "multiples of 4"),
        ("resnet", (1, 30, 30), "not 30x30"),
        ("dirac", (1, 28, 28), "makes one number"),
    ],
)
def test_shapes_that_cannot_be_made_are_refused(name, shape, rule):
    with pytest.raises(ValueError, match=rule):
        ARCHITECTURES.build(name).generator(shape)


def test_dcgan_parameter_count_by_hand():
    architecture = ARCHITECTURES.build("dcgan", width=16, latent_dim=64)
    generator = architecture.generator((1, 28, 28))
    # linear 64 -> 32 * 7 * 7; batch norms of 32 and 16; k4 deconvolutions 32 -> 16 -> 1
    assert sum(p.numel() for p in generator.parameters()) == (
        64 * 1568 + 2 * 32 + 16 * 32 * 16 + 2 * 16 + 16 * 16 + 1
    )
    discriminator = architecture.discriminator((1, 28, 28))
    assert sum(p.numel() for p in discriminator.parameters()) == (
        16 * 16 + 16 + 16 * 16 * 32 + 2 * 32 + 1568 + 1
    )


@pytest.mark.parametrize("side", [7, 9, 12, 30, 100])
def test_dcgan_refuses_sides_it_cannot_make(side):
    with pytest.raises(ValueError, match=f"not {side}x{side}"):
        ARCHITECTURES.build("dcgan").generator((1, side, side))


def test_spectral_norm_bounds_every_layer():
    torch.manual_seed(0)
    network = ARCHITECTURES.build("mlp", width=16, spectral_norm=True).discriminator((1, 8, 8))
    for _ in range(50):  # power iterations happen in train mode
        network(torch.randn(4, 1, 8, 8))
    layers = [m for m in network.modules() if isinstance(m, torch.nn.Linear)]
    for layer in layers:
        # 2 %: the power method has not quite converged after 50 steps.
        assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1, abs=0.02)
