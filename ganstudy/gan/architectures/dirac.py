"""The Dirac-GAN: the smallest game on which training methods differ."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ganstudy.gan.architectures.base import (
    ARCHITECTURES,
    Across,
    Architecture,
    ImageShape,
    Width,
    head,
)
from ganstudy.registry import component


class Point(nn.Module):
    """A generator that makes one point, whatever the latent."""

    def __init__(self, start: float, image_shape: ImageShape) -> None:
        """Begin with every coordinate at `start`."""
        super().__init__()
        self.theta = nn.Parameter(torch.full(image_shape, start))

    def forward(self, latents: Tensor) -> Tensor:
        """Return the point once per latent."""
        return self.theta.expand(len(latents), *self.theta.shape)


@ARCHITECTURES.register("dirac", paper="Mescheder et al. 2018, arXiv:1801.04406, section 2")
@component
class Dirac(Architecture):
    """A generator of one point theta and a linear discriminator psi x: two parameters in all.

    With the data set dirac, the point 0, the game's only equilibrium is theta = psi = 0.
    """

    latent_dim: Width = 1
    """Dimension of the latent, which is not looked at."""
    start: float = 1.0
    """Value of theta and of psi before the first update."""
    bias: bool = False
    """Whether the discriminator has a bias, from 0."""

    def generator(self, image_shape: ImageShape) -> nn.Module:
        _refuse_images(image_shape)
        if self.initialization != "own":
            raise ValueError("dirac begins at `start`: it has no other initialization")
        return Point(self.start, image_shape)

    def discriminator(
        self, image_shape: ImageShape, outputs: int = 1, across: Across = ()
    ) -> nn.Module:
        _refuse_images(image_shape)
        ending = head(1, outputs, across)
        linear = ending[-1]
        assert isinstance(linear, nn.Linear)
        nn.init.constant_(linear.weight, self.start)
        if self.bias:
            nn.init.zeros_(linear.bias)
        else:
            linear.bias = None  # type: ignore[assignment]
        return nn.Sequential(nn.Flatten(), ending)

    def decoder(self, image_shape: ImageShape) -> nn.Module:
        raise ValueError("dirac has no auto-encoder; use another loss or the architecture mlp")


def _refuse_images(image_shape: ImageShape) -> None:
    if image_shape != (1, 1, 1):
        raise ValueError(f"dirac makes one number, not {image_shape}; use the data set dirac")
