"""StyleGAN and StyleGAN2, in compact form."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, instance_norm, interpolate

from ganstudy.gan.architectures.base import (
    ARCHITECTURES,
    Across,
    ImageShape,
    Layered,
    base_and_doublings,
    head,
    initialize,
)
from ganstudy.gan.architectures.equalized import (
    PixelNorm,
    ScaledLeakyReLU,
    channels_inwards,
    equalize,
)
from ganstudy.registry import component

Modulation = Literal["modulated", "adain"]

MAPPING_LR = 0.01
"""Learning-rate multiplier of the mapping network."""
EPSILON = 1e-8
"""Keeps the norms of weights and of feature maps away from 0."""


class ModulatedConv2d(nn.Conv2d):
    """A convolution whose kernel each sample scales by input channel.

    The kernel of a sample is w'_oik = s_i w_oik / sqrt(sum_ik (s_i w_oik)^2 + 1e-8), without the
    division where it does not demodulate (Karras et al. 2020, equations 1 and 3). Inputs and
    outputs are scaled instead of kernels, which is the same and needs no convolution per sample.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, latent_dim: int, *, demodulates: bool
    ) -> None:
        """Build a convolution that keeps the side, with the affine layer of its style."""
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)
        self.affine = nn.Linear(latent_dim, inputs)
        self.demodulates = demodulates

    def forward(self, x: Tensor, style: Tensor) -> Tensor:  # type: ignore[override]
        """Return (batch, outputs, height, width)."""
        weight, scales = self.weight, self.affine(style) + 1
        y = conv2d(x * scales[:, :, None, None], weight, padding=self.padding)
        bias = self.bias[:, None, None]  # type: ignore[index]
        if not self.demodulates:
            return y + bias
        squares = scales.square() @ weight.square().sum(dim=(2, 3)).T
        return torch.addcmul(bias, y, (squares + EPSILON).rsqrt()[:, :, None, None])


class Noise(nn.Module):
    """A map of noise, added to every channel by the channel's own strength, at first 0."""

    def __init__(self, channels: int) -> None:
        """Build the strengths of `channels` channels."""
        super().__init__()
        self.strengths = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """Return `x` with noise (batch, 1, height, width) added, if there is any."""
        return x if noise is None else torch.addcmul(x, self.strengths[:, None, None], noise)


class ModulatedBlock(nn.Module):
    """Modulated 3x3 convolution, noise, leaky ReLU: StyleGAN2."""

    def __init__(self, inputs: int, outputs: int, latent_dim: int, *, noise: bool) -> None:
        """Build the block; without `noise` it has no strengths."""
        super().__init__()
        self.conv = ModulatedConv2d(inputs, outputs, 3, latent_dim, demodulates=True)
        self.noise = Noise(outputs) if noise else None
        self.activation = ScaledLeakyReLU()

    def forward(self, x: Tensor, style: Tensor, noise: Tensor | None) -> Tensor:
        """Return (batch, outputs, height, width)."""
        y = self.conv(x, style)
        return self.activation(self.noise(y, noise) if self.noise else y)


class AdaptiveBlock(nn.Module):
    """3x3 convolution, noise, leaky ReLU, adaptive instance norm: StyleGAN."""

    def __init__(self, inputs: int, outputs: int, latent_dim: int, *, noise: bool) -> None:
        """Build the block; without `noise` it has no strengths."""
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.noise = Noise(outputs) if noise else None
        self.activation = ScaledLeakyReLU()
        self.affine = nn.Linear(latent_dim, 2 * outputs)

    def forward(self, x: Tensor, style: Tensor, noise: Tensor | None) -> Tensor:
        """Return (batch, outputs, height, width)."""
        y = self.conv(x)
        y = self.activation(self.noise(y, noise) if self.noise else y)
        scales, shifts = (self.affine(style)[:, :, None, None]).chunk(2, dim=1)
        return instance_norm(y, eps=EPSILON) * (scales + 1) + shifts


class ToImage(nn.Module):
    """1x1 convolution from features to pixels; StyleGAN2's is modulated too."""

    def __init__(self, inputs: int, channels: int, latent_dim: int, kind: Modulation) -> None:
        """Build the layer; StyleGAN's hears no style."""
        super().__init__()
        self.modulated = kind == "modulated"
        self.conv = (
            ModulatedConv2d(inputs, channels, 1, latent_dim, demodulates=False)
            if self.modulated
            else nn.Conv2d(inputs, channels, 1)
        )

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Return (batch, channels, height, width)."""
        return self.conv(x, style) if self.modulated else self.conv(x)


class Synthesis(nn.Module):
    """From styles and noise to images: a learned constant, blocks, all sides' images summed."""

    def __init__(self, architecture: Style, image_shape: ImageShape) -> None:
        """Build one block at the smallest side, two at every other."""
        super().__init__()
        base, doublings = base_and_doublings(architecture.name, image_shape)
        widths = channels_inwards(architecture.width, doublings)[::-1]
        block = partial(
            ModulatedBlock if architecture.modulation == "modulated" else AdaptiveBlock,
            latent_dim=architecture.latent_dim,
            noise=architecture.noise,
        )
        self.base = base
        # Flat, since it is no kernel: penalties on weights leave vectors out.
        self.constant = nn.Parameter(torch.randn(widths[0] * base * base))
        self.blocks = nn.ModuleList([block(widths[0], widths[0])])
        for wider, width in zip(widths[:-1], widths[1:], strict=True):
            self.blocks += [block(wider, width), block(width, width)]
        self.images = nn.ModuleList(
            ToImage(width, image_shape[0], architecture.latent_dim, architecture.modulation)
            for width in widths
        )

    def forward(self, style: Tensor, noise: list[Tensor] | None) -> Tensor:
        """Return images before the last activation; `noise` holds one map for every block."""
        maps: Sequence[Tensor | None] = noise or [None] * len(self.blocks)
        constant = self.constant.view(1, -1, self.base, self.base)
        x = self.blocks[0](constant.expand(len(style), -1, -1, -1), style, maps[0])
        images = self.images[0](x, style)
        for stage in range(1, len(self.images)):
            x = self.blocks[2 * stage - 1](doubled(x), style, maps[2 * stage - 1])
            x = self.blocks[2 * stage](x, style, maps[2 * stage])
            images = doubled(images) + self.images[stage](x, style)
        # Of size 0.5 to 1.5 at first: the plain sum would begin where tanh is flat.
        return images / math.sqrt(2 * len(self.images))


class StyleGenerator(nn.Module):
    """Mapping network, synthesis network, tanh.

    Reads (batch, latent_dim + pixels of noise); given (batch, latent_dim), it adds no noise.
    """

    def __init__(self, architecture: Style, image_shape: ImageShape) -> None:
        """Build the generator of `architecture`."""
        super().__init__()
        latent_dim = architecture.latent_dim
        layers: list[nn.Module] = [PixelNorm()]
        for _ in range(architecture.mapping_depth):
            layers += [nn.Linear(latent_dim, latent_dim), ScaledLeakyReLU()]
        self.latent_dim = latent_dim
        self.sides = architecture.noise_sides(image_shape)
        self.mapping = nn.Sequential(*layers)
        self.synthesis = Synthesis(architecture, image_shape)
        self.tanh = nn.Tanh()

    def forward(self, latents: Tensor) -> Tensor:
        """Return images (batch, channels, height, width)."""
        style = self.mapping(latents[:, : self.latent_dim])
        return self.tanh(self.synthesis(style, self._maps(latents[:, self.latent_dim :])))

    def _maps(self, noise: Tensor) -> list[Tensor] | None:
        """Return (batch, pixels) cut into square maps; raises ValueError where it does not fit."""
        if noise.shape[1] == 0:
            return None
        areas = [side * side for side in self.sides]
        if noise.shape[1] != sum(areas):
            raise ValueError(
                f"latents are of {self.latent_dim} numbers, or of {sum(areas)} more with noise, "
                f"not {self.latent_dim + noise.shape[1]}: draw them with Architecture.latents"
            )
        parts = noise.split(areas, dim=1)
        return [p.unflatten(1, (1, s, s)) for p, s in zip(parts, self.sides, strict=True)]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and averaging over 2x2; beside it a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        """Build a block that halves the side."""
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, 3, padding=1)
        self.conv2 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.activation = ScaledLeakyReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, outputs, height / 2, width / 2)."""
        y = self.conv2(self.activation(self.conv1(x)))
        y = self.activation(avg_pool2d(y, 2))
        return (y + self.shortcut(avg_pool2d(x, 2))) / math.sqrt(2)


def doubled(x: Tensor) -> Tensor:
    """Return feature maps of twice the side; bilinear is the papers' filter (1, 3, 3, 1)."""
    return interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


@ARCHITECTURES.register(
    "style", paper="Karras et al. 2019, arXiv:1812.04948; Karras et al. 2020, arXiv:1912.04958"
)
@component
class Style(Layered):
    """A latent is mapped to a style, which scales the features of every layer; StyleGAN(2).

    Makes square images of side 4 * 2^s or 7 * 2^s. Generator: normalised latent, mapping network,
    a learned constant of side 4 or 7, one style block there and two at every doubled side, images
    of all sides summed. Discriminator: residual blocks that halve, a 3x3 convolution, two fully
    connected layers. Own first weights are equalised learning rate (100 times slower in the
    mapping network); any other way of drawing them goes without. Noise comes with the latents.

    Departures: images end in tanh where the papers' are linear, and their sum is scaled so that
    tanh is steep at first; strengths of noise are per channel, as in StyleGAN, for both; feature
    maps are doubled bilinearly before the convolution and halved by averaging, without blur
    filters beside; no style mixing, path-length penalty or truncation; minibatch standard
    deviation is a stabiliser of its own. `adain` keeps the one network of StyleGAN2 around
    StyleGAN's blocks: images of all sides summed (StyleGAN: the last one alone), no style on the
    constant itself, no growing.
    """

    mapping_depth: Annotated[int, Field(ge=1)] = 2
    """Layers of the mapping network (8 in the papers, for larger networks)."""
    modulation: Modulation = "modulated"
    """How a style acts: on the kernels (modulated, StyleGAN2) or as adaptive instance norm of the
    feature maps (adain, StyleGAN)."""
    noise: bool = True
    """Whether every style block adds noise, by learned strengths."""

    def generator(self, image_shape: ImageShape) -> nn.Module:
        network = StyleGenerator(self, image_shape)
        if self.initialization == "own":
            equalize(network.mapping, lr_multiplier=MAPPING_LR)
        return self._drawn(network)

    def decoder(self, image_shape: ImageShape) -> nn.Module:
        return self._judging(dataclasses.replace(self, noise=False).generator(image_shape))

    def discriminator(
        self, image_shape: ImageShape, outputs: int = 1, across: Across = ()
    ) -> nn.Module:
        base, doublings = base_and_doublings(self.name, image_shape)
        widths = channels_inwards(self._judging_width, doublings)
        inmost = widths[-1]
        layers = [
            *(nn.Conv2d(image_shape[0], widths[0], 1), ScaledLeakyReLU()),
            *(ResidualBlock(*pair) for pair in zip(widths[:-1], widths[1:], strict=True)),
            *(nn.Conv2d(inmost, inmost, 3, padding=1), ScaledLeakyReLU(), nn.Flatten()),
            *(nn.Linear(inmost * base * base, inmost), ScaledLeakyReLU()),
            head(inmost, outputs, across),
        ]
        return self._judging(self._drawn(nn.Sequential(*layers)))

    def latents(self, count: int, rng: torch.Generator, image_shape: ImageShape) -> Tensor:
        """Draw latents, then the noise of every block, (count, latent_dim + pixels)."""
        latents = super().latents(count, rng, image_shape)
        pixels = sum(side * side for side in self.noise_sides(image_shape))
        return torch.cat([latents, torch.randn(count, pixels, generator=rng)], dim=1)

    def noise_sides(self, image_shape: ImageShape) -> list[int]:
        """Return the side of each block's map of noise."""
        base, doublings = base_and_doublings(self.name, image_shape)
        doubled_sides = [base << s for s in range(1, doublings + 1) for _ in range(2)]
        return [base, *doubled_sides] if self.noise else []

    def _drawn(self, network: nn.Module) -> nn.Module:
        if self.initialization == "own":
            return equalize(network)
        return initialize(network, self.initialization)
