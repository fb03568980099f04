from __future__ import annotations

import pytest
import torch

from ganstudy.gan.architectures import ARCHITECTURES

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ARCHITECTURES.names())
@pytest.mark.parametrize("spectral_norm", [False, True])
def test_shapes_ranges_and_gradients(name, shape, spectral_norm):
    torch.manual_seed(0)
    architecture = ARCHITECTURES.build(name, width=8, spectral_norm=spectral_norm)
    generator, discriminator = architecture.generator(shape), architecture.discriminator(shape)
    latents = architecture.latents(6, torch.Generator().manual_seed(0))
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
