"""What an architecture is, and the parts that several share.

A generator maps latents (batch, latent_dim) to images (batch, channels, height, width) in
[-1, 1]; a discriminator maps images to logits (batch, 1).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ganstudy.registry import Component, Registry, component

ImageShape = tuple[int, int, int]
"""(channels, height, width)."""

Normalization = Literal["batch", "layer", "none"]
Initialization = Literal["own", "normal", "orthogonal", "xavier"]
Prior = Literal["normal", "uniform"]
Width = Annotated[int, Field(ge=1)]
Across = Sequence[Callable[[int], nn.Module]]
"""Makers of layers across the batch: features -> a module (batch, features) -> (batch,
out_features), with `out_features` as attribute."""


@component
class Architecture(Component, ABC):
    """A pair of networks for one image shape."""

    grows: ClassVar[bool] = False
    """Whether the networks change with the progress of the run (`grow`)."""

    latent_dim: Width = 64
    """Dimension of the latent."""
    prior: Prior = "normal"
    """Distribution of the latent: N(0, I), or uniform on [-1, 1] in every dimension."""
    initialization: Initialization = "own"
    """First weights: own (what the architecture's paper does), normal (N(0, 0.02)), orthogonal
    (gain 1; Saxe et al. 2014) or xavier (uniform; Glorot & Bengio 2010); biases from 0."""

    @abstractmethod
    def generator(self, image_shape: ImageShape) -> nn.Module:
        """Return the generator; raises ValueError for a shape it cannot make."""

    @abstractmethod
    def discriminator(
        self, image_shape: ImageShape, outputs: int = 1, across: Across = ()
    ) -> nn.Module:
        """Return the discriminator; raises ValueError for a shape it cannot read.

        One that judges an image in several places or at several scales returns as many logits,
        (batch, judgements), or (batch, outputs, judgements) where more than one output is asked.

        Args:
            image_shape: What it reads.
            outputs: 1 for logits (batch, 1); more for an encoder, (batch, outputs).
            across: Layers before the last one that see the features of the whole batch.
        """

    def grow(self, network: nn.Module, progress: float) -> None:
        """Bring `network`, or what wraps it, to `progress`, the share of the budget in [0, 1]."""

    def auto_encoder(self, image_shape: ImageShape) -> nn.Module:
        """Return an auto-encoder of images, the discriminator of energy-based losses.

        Its encoder is the discriminator's network, its decoder has the generator's layers, as in
        BEGAN, under the discriminator's normalisation.
        """
        encoder = self.discriminator(image_shape, outputs=self.latent_dim)
        return nn.Sequential(encoder, self.decoder(image_shape))

    @abstractmethod
    def decoder(self, image_shape: ImageShape) -> nn.Module:
        """Return the decoder of `auto_encoder`: codes (batch, latent_dim) -> images."""

    def latents(self, count: int, rng: torch.Generator, image_shape: ImageShape) -> Tensor:
        """Draw `count` latents from the prior, (count, latent_dim).

        A generator that injects noise takes it from here too, behind the latent: what it makes
        is a function of what is drawn here, and of nothing else.
        """
        if self.prior == "uniform":
            return torch.rand(count, self.latent_dim, generator=rng) * 2 - 1
        return torch.randn(count, self.latent_dim, generator=rng)


ARCHITECTURES: Registry[Architecture] = Registry("architecture")


class Head(nn.Sequential):
    """What a discriminator ends in; its input, (batch, features), is what feature matching reads."""


def head(features: int, outputs: int, across: Across = ()) -> Head:
    """Return the last layers of a discriminator: those across the batch, then a linear one.

    Args:
        features: What the head reads, (batch, features).
        outputs: What it returns, (batch, outputs).
        across: Makers of layers from (batch, n) to (batch, `out_features`).
    """
    layers: list[nn.Module] = []
    for make in across:
        layers.append(make(features))
        features = int(layers[-1].out_features)  # type: ignore[arg-type]
    return Head(*layers, nn.Linear(features, outputs))


class ScaledSigmoid(nn.Module):
    """2 sigmoid(x) - 1: a sigmoid output for images in [-1, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        """Return values in [-1, 1]."""
        return torch.tanh(x / 2)


def squashing(generator: nn.Module) -> nn.Module:
    """Return the generator's last activation; raises ValueError where it is of no known kind."""
    found = [m for m in generator.modules() if isinstance(m, nn.Tanh | ScaledSigmoid)]
    if not found:
        raise ValueError("a vae needs a generator that ends in Tanh or ScaledSigmoid")
    return found[-1]


class EnergyDiscriminator(nn.Module):
    """An auto-encoder as discriminator: logit = -mean |x - A(x)|^power over an image's pixels."""

    def __init__(self, auto_encoder: nn.Module, power: int) -> None:
        """Judge by the reconstruction error of `auto_encoder`."""
        super().__init__()
        self.auto_encoder, self.power = auto_encoder, power

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, (batch, 1)."""
        error = (images - self.auto_encoder(images)).flatten(1).abs()
        return -error.pow(self.power).mean(dim=1, keepdim=True)


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
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            spectral_norm(module)
    return network


@torch.no_grad()
def initialize(network: nn.Module, how: Initialization) -> nn.Module:
    """Draw the first weights of `network` anew, before any parametrization; "own" leaves them."""
    draw = {
        "normal": lambda w: nn.init.normal_(w, 0.0, 0.02),
        "orthogonal": nn.init.orthogonal_,
        "xavier": nn.init.xavier_uniform_,
    }
    if how == "own":
        return network
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            draw[how](module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


@component
class Convolutional(Architecture):
    """What convolutional architectures share: options of the discriminator, and their order.

    Weights are drawn first, spectral norm goes on last.
    """

    discriminator_normalization: Normalization = "none"
    """Normalisation of the discriminator's feature maps."""
    spectral_norm: bool = False
    """Spectral normalisation of every discriminator layer (Miyato et al. 2018)."""

    def generator(self, image_shape: ImageShape) -> nn.Module:
        return self._drawn(self.upsampling(image_shape, "batch"))

    def decoder(self, image_shape: ImageShape) -> nn.Module:
        return self._judging(self.upsampling(image_shape, self.discriminator_normalization))

    def discriminator(
        self, image_shape: ImageShape, outputs: int = 1, across: Across = ()
    ) -> nn.Module:
        return self._judging(self.downsampling(image_shape, outputs, across))

    @abstractmethod
    def upsampling(self, image_shape: ImageShape, norm: Normalization) -> nn.Module:
        """Return the layers from latents to images, with `norm` between them."""

    @abstractmethod
    def downsampling(self, image_shape: ImageShape, outputs: int, across: Across) -> nn.Module:
        """Return the layers from images to `outputs` numbers."""

    @abstractmethod
    def draw(self, network: nn.Module) -> nn.Module:
        """Draw the first weights of the architecture's own paper."""

    def _drawn(self, network: nn.Module) -> nn.Module:
        return initialize(self.draw(network), self.initialization)

    def _judging(self, network: nn.Module) -> nn.Module:
        drawn = self._drawn(network)
        return apply_spectral_norm(drawn) if self.spectral_norm else drawn


def base_and_doublings(name: str, image_shape: ImageShape) -> tuple[int, int]:
    """Return the side that a generator begins with, 4 or 7, and how often it doubles.

    Raises:
        ValueError: For an image that is not square, or of another side.
    """
    _, height, width = image_shape
    for base in (4, 7):
        for doublings in range(1, 10):
            if height == width == base << doublings:
                return base, doublings
    raise ValueError(
        f"{name} makes square images of side 4 * 2^s or 7 * 2^s "
        f"(8, 14, 16, 28, 32, 56, 64, ...), not {height}x{width}; "
        f"use the architecture mlp or resize the data"
    )
