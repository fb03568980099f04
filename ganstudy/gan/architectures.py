"""Generators and discriminators by name.

A generator maps latents (batch, latent_dim) to images (batch, channels, height, width) in
[-1, 1]; a discriminator maps images to logits (batch, 1).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ganstudy.registry import Component, Registry, component

ImageShape = tuple[int, int, int]
"""(channels, height, width)."""

Normalization = Literal["batch", "layer", "none"]
Width = Annotated[int, Field(ge=1)]


class Architecture(Component, ABC):
    """A pair of networks for one image shape."""

    latent_dim: int

    @abstractmethod
    def generator(self, image_shape: ImageShape) -> nn.Module:
        """Return the generator; raises ValueError for a shape it cannot make."""

    @abstractmethod
    def discriminator(self, image_shape: ImageShape) -> nn.Module:
        """Return the discriminator; raises ValueError for a shape it cannot read."""

    def latents(self, count: int, rng: torch.Generator) -> Tensor:
        """Draw `count` latents from the prior N(0, I), (count, latent_dim)."""
        return torch.randn(count, self.latent_dim, generator=rng)


ARCHITECTURES: Registry[Architecture] = Registry("architecture")


def normalization(kind: Normalization, channels: int) -> nn.Module:
    """Return the normalisation of a feature map with `channels` channels."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "layer":
        # One group over all channels: layer norm of a feature map, safe under a gradient penalty.
        return nn.GroupNorm(1, channels)
    return nn.Identity()


def apply_spectral_norm(network: nn.Module) -> nn.Module:
    """Put torch's spectral-norm parametrization on every linear and convolution layer."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            spectral_norm(module)
    return network


@torch.no_grad()
def init_normal(network: nn.Module, std: float = 0.02) -> nn.Module:
    """Draw weights from N(0, std), scales of batch norm from N(1, std), biases 0: DCGAN's init."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, std)
        elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            nn.init.normal_(module.weight, 1.0, std)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    return network


@ARCHITECTURES.register("dcgan", paper="Radford et al. 2016, arXiv:1511.06434")
@component
class DCGAN(Architecture):
    """Strided 4x4 convolutions, halving or doubling the image down to a side of 4 or 7.

    Makes square images of side 4 * 2^s or 7 * 2^s, s >= 1. The rules of the paper: no pooling,
    batch norm everywhere but at the generator's output and the discriminator's input, ReLU in the
    generator, leaky ReLU (0.2) in the discriminator, N(0, 0.02) weights. The discriminator's
    normalisation is an option, since batch norm there breaks per-sample gradient penalties.
    """

    width: Width = 64
    """Channels next to the image; they double at each halving."""
    latent_dim: Width = 64
    """Dimension of the latent."""
    discriminator_normalization: Normalization = "batch"
    """Normalisation of the discriminator's feature maps."""
    spectral_norm: bool = False
    """Spectral normalisation of every discriminator layer (Miyato et al. 2018)."""

    def generator(self, image_shape: ImageShape) -> nn.Module:
        channels, side, _ = image_shape
        widths = self._widths(image_shape)
        base = side >> len(widths)
        layers: list[nn.Module] = [
            nn.Linear(self.latent_dim, widths[-1] * base * base, bias=False),
            nn.Unflatten(1, (widths[-1], base, base)),
        ]
        for width, narrower in zip(widths[:0:-1], widths[-2::-1], strict=True):
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
            layers += [nn.ConvTranspose2d(width, narrower, 4, 2, 1, bias=False)]
        layers += [nn.BatchNorm2d(widths[0]), nn.ReLU()]
        layers += [nn.ConvTranspose2d(widths[0], channels, 4, 2, 1), nn.Tanh()]
        return init_normal(nn.Sequential(*layers))

    def discriminator(self, image_shape: ImageShape) -> nn.Module:
        channels, side, _ = image_shape
        widths = self._widths(image_shape)
        bias = self.discriminator_normalization != "batch"
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 4, 2, 1), nn.LeakyReLU(0.2)]
        for narrower, width in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Conv2d(narrower, width, 4, 2, 1, bias=bias)]
            layers += [normalization(self.discriminator_normalization, width), nn.LeakyReLU(0.2)]
        base = side >> len(widths)
        layers += [nn.Flatten(), nn.Linear(widths[-1] * base * base, 1)]
        network = init_normal(nn.Sequential(*layers))
        return apply_spectral_norm(network) if self.spectral_norm else network

    def _widths(self, image_shape: ImageShape) -> list[int]:
        """Return the channels after each halving, from the image inwards."""
        _, height, width = image_shape
        halvings = next(
            (s for s in range(1, 10) if height in (4 << s, 7 << s) and height == width), None
        )
        if halvings is None:
            raise ValueError(
                f"dcgan makes square images of side 4 * 2^s or 7 * 2^s "
                f"(8, 14, 16, 28, 32, 56, 64, ...), not {height}x{width}; "
                f"use the architecture mlp or resize the data"
            )
        return [self.width << s for s in range(halvings)]


@ARCHITECTURES.register("mlp", paper="Goodfellow et al. 2014, arXiv:1406.2661")
@component
class MLP(Architecture):
    """Two hidden layers each; ReLU in the generator, leaky ReLU (0.2) in the discriminator."""

    width: Width = 128
    """Units of each hidden layer."""
    latent_dim: Width = 32
    """Dimension of the latent."""
    spectral_norm: bool = False
    """Spectral normalisation of every discriminator layer (Miyato et al. 2018)."""

    def generator(self, image_shape: ImageShape) -> nn.Module:
        return nn.Sequential(
            nn.Linear(self.latent_dim, self.width),
            nn.ReLU(),
            nn.Linear(self.width, self.width),
            nn.ReLU(),
            nn.Linear(self.width, math.prod(image_shape)),
            nn.Tanh(),
            nn.Unflatten(1, image_shape),
        )

    def discriminator(self, image_shape: ImageShape) -> nn.Module:
        network = nn.Sequential(
            nn.Flatten(),
            nn.Linear(math.prod(image_shape), self.width),
            nn.LeakyReLU(0.2),
            nn.Linear(self.width, self.width),
            nn.LeakyReLU(0.2),
            nn.Linear(self.width, 1),
        )
        return apply_spectral_norm(network) if self.spectral_norm else network
