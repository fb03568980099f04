"""Multi-layer perceptrons, for images of any shape and for points."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from torch import nn

from ganstudy.gan.architectures.base import (
    ARCHITECTURES,
    Across,
    ImageShape,
    Layered,
    Width,
    apply_spectral_norm,
    head,
    initialize,
)
from ganstudy.gan.architectures.parts import FlatNormalization, normalization
from ganstudy.registry import component


@ARCHITECTURES.register("mlp", paper="Goodfellow et al. 2014, arXiv:1406.2661")
@component
class MLP(Layered):
    """Fully connected layers; ReLU in the generator, leaky ReLU (0.2) in the discriminator.

    For images of any shape, and for two-dimensional points (ring, grid). Own first weights and
    biases are torch's, uniform in +-1 / sqrt(inputs of the layer).
    """

    latent_dim: Width = 32
    """Dimension of the latent."""
    width: Width = 128
    """Units of each hidden layer."""
    depth: Annotated[int, Field(ge=1)] = 2
    """Hidden layers of each network."""
    generator_normalization: FlatNormalization = "none"
    """Normalisation of the generator's hidden layers."""
    discriminator_normalization: FlatNormalization = "none"
    """Normalisation of the discriminator's hidden layers."""
    generator_spectral_norm: bool = False
    """Spectral normalisation of every generator layer."""

    def generator(self, image_shape: ImageShape) -> nn.Module:
        network = self._to_images(image_shape, self.width, self.generator_normalization)
        return apply_spectral_norm(network) if self.generator_spectral_norm else network

    def decoder(self, image_shape: ImageShape) -> nn.Module:
        norm = self.discriminator_normalization
        return self._judging(self._to_images(image_shape, self._judging_width, norm))

    def discriminator(
        self, image_shape: ImageShape, outputs: int = 1, across: Across = ()
    ) -> nn.Module:
        width, norm = self._judging_width, self.discriminator_normalization
        layers = self._layers(math.prod(image_shape), width, norm, nn.LeakyReLU(0.2))
        network = nn.Sequential(nn.Flatten(), *layers, head(width, outputs, across))
        return self._judging(initialize(network, self.initialization))

    def _to_images(
        self, image_shape: ImageShape, width: int, norm: FlatNormalization
    ) -> nn.Module:
        layers = self._layers(self.latent_dim, width, norm, nn.ReLU())
        last = nn.Linear(width, math.prod(image_shape))
        network = nn.Sequential(*layers, last, nn.Tanh(), nn.Unflatten(1, image_shape))
        return initialize(network, self.initialization)

    def _layers(
        self, inputs: int, width: int, norm: FlatNormalization, activation: nn.Module
    ) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for units in (inputs, *[width] * (self.depth - 1)):
            layers.append(nn.Linear(units, width))
            layers += [] if norm == "none" else [normalization(norm, width, flat=True)]
            layers.append(activation)
        return layers
