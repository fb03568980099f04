"""What the networks of Karras et al. share: equalised learning rate, and some small parts."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu
from torch.nn.utils.parametrize import is_parametrized, register_parametrization

WIDEST = 8
"""Most channels of a layer, in multiples of those next to the image."""


class Equalized(nn.Module):
    """A weight as `scale` times what the optimiser sees."""

    def __init__(self, scale: float) -> None:
        """Scale by `scale`, at run time."""
        super().__init__()
        self.scale = scale

    def forward(self, original: Tensor) -> Tensor:
        """Return the weight that the layer uses."""
        return original * self.scale

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return what the optimiser sees of `weight`."""
        return weight / self.scale


def he_constant(weight: Tensor, gain: float = 1.0) -> float:
    """Return gain / sqrt(fan in) of a linear layer's or a convolution's weight."""
    return gain / math.sqrt(weight[0].numel())


@torch.no_grad()
def equalize(network: nn.Module, gain: float = 1.0, lr_multiplier: float = 1.0) -> nn.Module:
    """Give every linear and convolution layer of `network` an equalised learning rate.

    Weights are drawn from N(0, 1) and scaled at run time by He's constant, so that an optimiser
    that normalises its step, such as Adam, moves all layers by the same share of their size
    (Karras et al. 2018, arXiv:1710.10196). Regularisers of weights see the unscaled ones. Layers
    that are equalised already stay as they are.

    Args:
        network: Where the layers are, changed in place.
        gain: Of the activation behind the layers: sqrt 2 for (leaky) ReLU, 1 for none.
        lr_multiplier: Factor of the steps of weights and biases (Karras et al. 2019,
            arXiv:1812.04948); weights are drawn from N(0, 1 / lr_multiplier).
    """
    # Listed first: to parametrize a module is to add modules to the network.
    for module in list(network.modules()):
        if not isinstance(module, nn.Linear | nn.Conv2d) or is_parametrized(module):
            continue
        constant = he_constant(module.weight, gain)
        nn.init.normal_(module.weight, std=constant)
        register_parametrization(module, "weight", Equalized(constant * lr_multiplier))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
            if lr_multiplier != 1:
                register_parametrization(module, "bias", Equalized(lr_multiplier))
    return network


def channels_inwards(width: int, doublings: int) -> list[int]:
    """Return the channels at every side, from the image's inwards to the smallest."""
    return [width * min(1 << s, WIDEST) for s in range(doublings + 1)]


class PixelNorm(nn.Module):
    """Every place's features, or every latent, divided by their root mean square."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x / sqrt(mean over axis 1 of x^2 + 1e-8)."""
        return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


class ScaledLeakyReLU(nn.Module):
    """Leaky ReLU (0.2) times sqrt 2, which keeps a unit second moment (almost)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the activations."""
        return leaky_relu(x, 0.2) * math.sqrt(2)
