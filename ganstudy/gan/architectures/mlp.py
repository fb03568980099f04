"""Multi-layer perceptrons, for images of any shape and for points."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from torch import nn

from ganstudy.gan.architectures.base import (
    ARCHITECTURES,
    Across,
    Architecture,
    ImageShape,
    Width,
    apply_spectral_norm,
    head,
    initialize,
)
from ganstudy.registry import component


@ARCHITECTURES.register("mlp", paper="Goodfellow et al. 2014, arXiv:1406.2661")
@component
class MLP(Architecture):
    """Fully connected layers; ReLU in the generator, leaky ReLU (0.2) in the discriminator.

    For images of any shape, and for two-dimensional points (ring, grid).
    """

    latent_dim: Width = 32
    """Dimension of the latent."""
    width: Width = 128
    """Units of each hidden layer."""
    depth: Annotated[int, Field(ge=1)] = 2
    """Hidden layers of each network."""
    spectral_norm: bool = False
    """Spectral normalisation of every discriminator layer (Miyato et al. 2018)."""

    def generator(self, image_shape: ImageShape) -> nn.Module:
        layers = self._layers(self.latent_dim, nn.ReLU())
        last = nn.Linear(self.width, math.prod(image_shape))
        network = nn.Sequential(*layers, last, nn.Tanh(), nn.Unflatten(1, image_shape))
        return initialize(network, self.initialization)

    def decoder(self, image_shape: ImageShape) -> nn.Module:
        network = self.generator(image_shape)
        return apply_spectral_norm(network) if self.spectral_norm else network

    def discriminator(
        self, image_shape: ImageShape, outputs: int = 1, across: Across = ()
    ) -> nn.Module:
        layers = self._layers(math.prod(image_shape), nn.LeakyReLU(0.2))
        last = head(self.width, outputs, across)
        network = initialize(nn.Sequential(nn.Flatten(), *layers, last), self.initialization)
        return apply_spectral_norm(network) if self.spectral_norm else network

    def _layers(self, inputs: int, activation: nn.Module) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for width in (inputs, *[self.width] * (self.depth - 1)):
            layers += [nn.Linear(width, self.width), activation]
        return layers
