from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import truncnorm

from ganstudy.gan.architectures import ARCHITECTURES
from ganstudy.gan.architectures.base import EnergyDiscriminator, Head
from ganstudy.gan.architectures.parts import SelfAttention
from ganstudy.registry import StudyError

IMAGES = [name for name in ARCHITECTURES.names() if name != "dirac"]
"""Architectures that make images; dirac makes one number."""
CONVOLUTIONAL = ["dcgan", "infogan", "patch", "resnet", "sndcgan"]
SHAPES = [(1, 8, 8), (2, 16, 16), (1, 28, 28), (3, 32, 32)]
SIDES = [8, 16, 28, 32, 64, 128]


def makeable(name, shape):
    return not (name == "sndcgan" and shape[1] % 8)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", IMAGES)
def test_images_of_one_to_four_channels_are_made_and_read(name, side):
    architecture = ARCHITECTURES.build(name, width=2, latent_dim=4)
    for shape in ((channels, side, side) for channels in (1, 2, 3, 4)):
        if not makeable(name, shape):
            with pytest.raises(ValueError, match=f"multiples of 8, not {side}x{side}; use"):
                architecture.generator(shape)
            continue
        latents = architecture.latents(3, torch.Generator().manual_seed(0), shape)
        generator, discriminator = networks(architecture, shape)
        with torch.no_grad():
            images = generator(latents)
            judgements = discriminator(images).shape[1]
        assert images.shape == (3, *shape)
        assert images.abs().max() <= 1
        assert judgements == ((side // 4) ** 2 if name == "patch" else 1)


def networks(architecture, shape):
    return architecture.generator(shape), architecture.discriminator(shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("options", [{}, {"spectral_norm": True}], ids=str)
def test_shapes_ranges_and_gradients(name, shape, options):
    if makeable(name, shape):
        check_a_step(ARCHITECTURES.build(name, width=4, latent_dim=4, **options), shape)


def check_a_step(architecture, shape):
    torch.manual_seed(0)
    generator, discriminator = networks(architecture, shape)
    open_gates(generator, discriminator)
    images = generator(architecture.latents(6, torch.Generator().manual_seed(0), shape))
    assert images.shape == (6, *shape)
    assert images.abs().max() <= 1
    logits = discriminator(images)
    assert logits.shape[0] == 6
    assert logits.shape[1] >= getattr(architecture, "scales", 1)
    # Not the sum: a loss that is linear in normalised features would be constant.
    logits.square().sum().backward()
    if architecture.grows:  # the tests of growing networks say which layers take part
        return
    for network in (generator, discriminator):
        for parameter, value in network.named_parameters():
            assert value.grad is not None, parameter
            assert value.grad.isfinite().all(), parameter


def open_gates(*networks):
    """Give attention a share, which is 0 at first and lets no gradient to its layers."""
    for network in networks:
        for module in network.modules():
            if isinstance(module, SelfAttention):
                torch.nn.init.constant_(module.gamma, 0.7)


def both(option, *values):
    return [
        {f"{network}_{option}": v} for network in ("generator", "discriminator") for v in values
    ]


ANYWHERE = [
    {"discriminator_width": 3},
    {"prior": "uniform"},
    {"prior": "truncated", "truncation": 0.5},
    {"generator_spectral_norm": True, "spectral_norm": True},
    {"depth": 1},
    {"depth": 3},
    *both("normalization", "none", "layer", "batch"),
]
ON_MAPS = [
    *both("normalization", "group"),
    *({"upsampling": u, "upsampling_kernel": k}
      for u in ("transposed", "resize_conv", "sub_pixel") for k in (2, 3, 4, 7)),
    {"attention": 8},
    {"attention": 16, "spectral_norm": True, "generator_spectral_norm": True},
    {"scales": 2},
    {"scales": 2, "attention": 8, "depth": 1, "spectral_norm": True},
]  # fmt: skip
CASES = [
    *((name, options) for name in ("mlp", *CONVOLUTIONAL) for options in ANYWHERE),
    *((name, options) for name in CONVOLUTIONAL for options in ON_MAPS),
    *((n, o) for n in ("dcgan", "patch", "resnet", "sndcgan")
      for o in both("normalization", "instance")),
    ("mlp", {"generator_normalization": "group", "discriminator_normalization": "group",
             "width": 12}),
    ("patch", {"halvings": 1}),
    ("patch", {"halvings": 5}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_every_option_makes_networks_that_learn(name, options):
    check_a_step(
        ARCHITECTURES.build(name, **({"width": 2, "latent_dim": 4} | options)), (2, 32, 32)
    )


@pytest.mark.parametrize("name", ["mlp", *CONVOLUTIONAL])
def test_each_network_has_its_own_width(name):
    def sizes(**options):
        return [count(n) for n in networks(ARCHITECTURES.build(name, **options), (1, 32, 32))]

    (narrow_up, narrow_down), (wide_up, wide_down) = sizes(width=4), sizes(width=8)
    assert sizes(width=4, discriminator_width=8) == [narrow_up, wide_down]
    assert sizes(width=8, discriminator_width=4) == [wide_up, narrow_down]


@pytest.mark.parametrize(("name", "maps"), [("dcgan", 3), ("infogan", 2), ("sndcgan", 4)])
def test_depth_adds_convolutions_at_every_side_of_both_networks(name, maps):
    kinds = torch.nn.Conv2d | torch.nn.ConvTranspose2d
    found = []
    for depth in (0, 1, 3):
        built = networks(ARCHITECTURES.build(name, width=2, depth=depth), (1, 32, 32))
        found.append([sum(isinstance(m, kinds) for m in n.modules()) for n in built])
    plain, one, three = (torch.tensor(f) for f in found)
    assert (one - plain).tolist() == [maps, maps]
    assert (three - plain).tolist() == [3 * maps, 3 * maps]


class BesideTheMean(torch.nn.Module):
    """Features, and their mean over the batch."""

    def __init__(self, features):
        super().__init__()
        self.out_features = 2 * features

    def forward(self, x):
        return torch.cat([x, x.mean(dim=0).expand_as(x)], dim=1)


@pytest.mark.parametrize("options", [{}, {"scales": 2}], ids=str)
@pytest.mark.parametrize("name", [name for name in IMAGES if name != "patch"])
def test_layers_across_the_batch_stand_before_the_last_one(name, options):
    if options and name not in CONVOLUTIONAL:
        return
    torch.manual_seed(0)
    architecture = ARCHITECTURES.build(name, width=4, **options)
    discriminator = architecture.discriminator((1, 16, 16), across=(BesideTheMean,))
    found = sum(isinstance(m, BesideTheMean) for m in discriminator.modules())
    assert found == options.get("scales", 1)
    images = torch.randn(3, 1, 16, 16)
    others = torch.cat([images[:1], torch.randn(2, 1, 16, 16)])
    alone, among = discriminator.eval()(images), discriminator(others)
    assert (alone[0] != among[0]).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", [name for name in IMAGES if name != "patch"])
def test_encoders_and_auto_encoders_fit_the_images(name, shape):
    torch.manual_seed(0)
    shape = shape if makeable(name, shape) else (1, 24, 24)
    architecture = ARCHITECTURES.build(name, width=4)
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
        assert value.grad is not None or architecture.grows, parameter


@pytest.mark.parametrize("options", [{"depth": 1}, {"attention": 8}, {"discriminator_width": 3},
                                     {"upsampling": "sub_pixel"}], ids=str)  # fmt: skip
@pytest.mark.parametrize("name", [name for name in CONVOLUTIONAL if name != "patch"])
def test_auto_encoders_have_the_options_too(name, options):
    auto_encoder = ARCHITECTURES.build(name, width=2, **options).auto_encoder((1, 32, 32))
    assert auto_encoder(torch.zeros(2, 1, 32, 32)).shape == (2, 1, 32, 32)
    if "discriminator_width" in options:
        narrow = ARCHITECTURES.build(name, width=3).auto_encoder((1, 32, 32))
        assert count(auto_encoder) == count(narrow)


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


@pytest.mark.parametrize(
    ("prior", "truncation", "deviation", "bound"),
    [
        ("normal", 2.0, 1.0, math.inf),
        ("uniform", 2.0, 1 / math.sqrt(3), 1.0),
        ("truncated", 2.0, truncnorm.std(-2, 2), 2.0),
        ("truncated", 0.4, truncnorm.std(-0.4, 0.4), 0.4),
        ("truncated", 3.5, truncnorm.std(-3.5, 3.5), 3.5),
    ],
)
def test_latents_follow_their_prior(prior, truncation, deviation, bound):
    architecture = ARCHITECTURES.build("mlp", prior=prior, latent_dim=4, truncation=truncation)
    before = torch.get_rng_state()
    latents = architecture.latents(20_000, torch.Generator().manual_seed(0), (1, 8, 8))
    assert torch.equal(torch.get_rng_state(), before)
    # 80,000 draws: the standard deviation's own error is below 0.3 %.
    assert latents.std().item() == pytest.approx(deviation, rel=0.015)
    assert latents.mean().item() == pytest.approx(0, abs=0.015)
    # Single precision may round the bound up by one part in 10 million.
    assert latents.abs().max() <= bound * (1 + 1e-6)
    assert latents.abs().max() > min(0.98 * bound, 3)


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
        ("infogan", (1, 30, 30), "multiples of 4, not 30x30; use the architecture mlp"),
        ("resnet", (1, 30, 30), "not 30x30; use the architecture mlp"),
        ("patch", (1, 30, 30), "patch makes square images.*not 30x30"),
        (
            "sndcgan",
            (1, 28, 28),
            "multiples of 8, not 28x28; use the architecture mlp, or infogan",
        ),
        ("dirac", (1, 28, 28), "makes one number"),
    ],
)
def test_shapes_that_cannot_be_made_are_refused(name, shape, rule):
    with pytest.raises(ValueError, match=rule):
        ARCHITECTURES.build(name).generator(shape)


@pytest.mark.parametrize(
    ("name", "side", "options", "rule"),
    [
        ("dcgan", 32, {"attention": 32}, "dcgan have maps of side 4, 8, 16 for images of 32x32"),
        ("dcgan", 28, {"attention": 8}, "maps of side 7, 14 for images of 28x28, not 8"),
        ("infogan", 32, {"attention": 4}, "maps of side 8, 16 for"),
        ("sndcgan", 8, {"attention": 16}, "maps of side 2, 4, 8 for"),
        # Its generator has maps of 4 and 32 too, its discriminator has not.
        ("resnet", 32, {"attention": 4}, "maps of side 8, 16 for"),
        ("patch", 32, {"attention": 4}, "maps of side 8, 16 for"),
        ("sndcgan", 8, {"generator_normalization": "instance",
                        "discriminator_normalization": "instance"}, "more than one place"),
        ("patch", 8, {"halvings": 3, "generator_normalization": "none",
                      "discriminator_normalization": "instance"}, "use layer or group"),
        ("dcgan", 28, {"scales": 3}, "discriminator 3 of scales: 3 cannot read.* fewer scales"),
        ("patch", 28, {"scales": 4, "halvings": 1}, "7x7 has no half; use fewer scales"),
        ("infogan", 28, {"scales": 2}, "multiples of 4, not 14x14.* fewer scales"),
        ("resnet", 8, {"scales": 2}, "not 4x4.*or use fewer scales"),
        ("patch", 8, {"halvings": 4}, "halves the sides of an image 4 times.* 8x8; use fewer"),
        ("mlp", 8, {"width": 8, "generator_normalization": "group",
                    "discriminator_normalization": "group"}, "makes each a constant"),
    ],
)  # fmt: skip
def test_options_that_an_image_does_not_allow_are_refused(name, side, options, rule):
    architecture = ARCHITECTURES.build(name, **options)
    with pytest.raises(ValueError, match=rule):
        architecture.discriminator((1, side, side))
    if any(option.startswith("generator") or option == "attention" for option in options) and (
        options.get("generator_normalization") != "none"
    ):
        with pytest.raises(ValueError, match=rule):
            architecture.generator((1, side, side))


@pytest.mark.parametrize(
    ("name", "options", "rule"),
    [
        ("infogan", {"generator_normalization": "instance"}, "unknown value 'instance'.*batch"),
        ("mlp", {"discriminator_normalization": "instance"}, "unknown value 'instance'.*batch"),
        ("mlp", {"attention": 8}, "unknown option"),
        ("dcgan", {"upsampling": "transpose"}, "did you mean 'transposed'"),
        ("dcgan", {"upsampling_kernel": 8}, "less than or equal to 7"),
        ("dcgan", {"upsampling_kernel": 1}, "greater than or equal to 2"),
        ("dcgan", {"scales": 0}, "greater than or equal to 1"),
        ("dcgan", {"depth": -1}, "greater than or equal to 0"),
        ("mlp", {"depth": 0}, "greater than or equal to 1"),
        ("resnet", {"discriminator_width": 0}, "greater than or equal to 1"),
        ("mlp", {"truncation": 0.0}, "greater than 0"),
        ("patch", {"halvings": 0}, "greater than or equal to 1"),
    ],
)
def test_values_out_of_range_are_refused_at_construction(name, options, rule):
    with pytest.raises(StudyError, match=rule):
        ARCHITECTURES.build(name, **options)


@pytest.mark.parametrize("name", [name for name in CONVOLUTIONAL if name != "patch"])
def test_an_auto_encoder_has_one_scale(name):
    with pytest.raises(ValueError, match=r"reads the image at one scale.*use scales: 1"):
        ARCHITECTURES.build(name, scales=2).auto_encoder((1, 32, 32))


@pytest.mark.parametrize("name", CONVOLUTIONAL)
@pytest.mark.parametrize("outputs", [1, 3])
def test_several_scales_are_their_parts_on_averaged_images(name, outputs):
    torch.manual_seed(0)
    architecture = ARCHITECTURES.build(name, width=2, scales=3)
    network = architecture.discriminator((1, 32, 32), outputs)
    images = torch.randn(2, 1, 32, 32)
    means = [
        images.unfold(2, s, s).unfold(3, s, s).mean(dim=(4, 5)) if s > 1 else images
        for s in (1, 2, 4)
    ]
    judgements = network.eval()(images)
    parts = [part(mean) for part, mean in zip(network.networks, means, strict=True)]
    if outputs > 1:
        parts = [part.reshape(2, outputs, -1) for part in parts]
    torch.testing.assert_close(judgements, torch.cat(parts, dim=-1))
    places = 64 + 16 + 4 if name == "patch" else 3
    assert judgements.shape == ((2, places) if outputs == 1 else (2, outputs, places))
    assert sum(isinstance(m, Head) for m in network.modules()) == 3


@pytest.mark.parametrize(("side", "blocks"), [(16, [1, 0]), (8, [1, 1])])
def test_attention_is_at_the_scales_that_have_its_map(side, blocks):
    architecture = ARCHITECTURES.build("dcgan", width=2, scales=2, attention=side)
    scales = architecture.discriminator((1, 32, 32)).networks
    assert [sum(isinstance(m, SelfAttention) for m in s.modules()) for s in scales] == blocks


@pytest.mark.parametrize("name", [name for name in CONVOLUTIONAL if name != "patch"])
def test_an_auto_encoder_refuses_attention_on_a_map_that_it_has_not(name):
    with pytest.raises(ValueError, match="maps of side .* not 5"):
        ARCHITECTURES.build(name, width=2, attention=5).auto_encoder((1, 32, 32))


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_attention_is_in_both_networks_and_adds_nothing_at_first(name):
    architecture = ARCHITECTURES.build(name, width=2, attention=8)
    generator, discriminator = networks(architecture, (1, 32, 32))
    seen = []
    for network in (generator, discriminator):
        (block,) = (m for m in network.modules() if isinstance(m, SelfAttention))
        block.register_forward_hook(lambda _, read, made: seen.append((read[0], made)))
    discriminator(generator(torch.randn(2, architecture.latent_dim)))
    assert len(seen) == 2
    for read, made in seen:
        assert read.shape[2:] == (8, 8)
        assert torch.equal(read, made)


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
