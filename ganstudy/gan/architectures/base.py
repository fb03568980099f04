"""What an architecture is, and the parts that several share.

A generator maps latents (batch, latent_dim) to images (batch, channels, height, width) in
[-1, 1]; a discriminator maps images to logits (batch, 1), or (batch, judgements).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ganstudy.gan.architectures.parts import (
    MultiScale,
    Normalization,
    SelfAttention,
    Upsampling,
    doubling,
    normalization,
)
from ganstudy.registry import Component, Registry, component

ImageShape = tuple[int, int, int]
"""(channels, height, width)."""
Maps = list[tuple[int, int]]
"""(height, width) of a network's feature maps, the largest first."""

Initialization = Literal["own", "normal", "orthogonal", "xavier"]
Prior = Literal["normal", "uniform", "truncated"]
Width = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=1)]
Kernel = Annotated[int, Field(ge=2, le=7)]
ANY_SIDE = (
    "use the architecture mlp, or infogan for multiples of 4 and sndcgan for multiples of 8, or "
    "resize the data"
)
"""What to do about images that an architecture cannot make."""
Across = Sequence[Callable[[int], nn.Module]]
"""Makers of layers across the batch: features -> a module (batch, features) -> (batch,
out_features), with `out_features` as attribute."""


@component
class Architecture(Component, ABC):
    """A pair of networks for one image shape."""

    judges_whole_images: ClassVar[bool] = True
    """Whether the discriminator's last layer reads the features of whole images."""
    grows: ClassVar[bool] = False
    """Whether the networks change with the progress of the run (`grow`)."""

    latent_dim: Width = 64
    """Dimension of the latent."""
    prior: Prior = "normal"
    """Distribution of the latent: N(0, I), uniform on [-1, 1] in every dimension, or truncated:
    N(0, 1) in every dimension, cut at +-`truncation`."""
    truncation: Annotated[float, Field(gt=0)] = 2.0
    """Where the prior "truncated" is cut, in standard deviations of the normal distribution."""
    initialization: Initialization = "own"
    """First weights: own (those of the architecture's source), normal (N(0, 0.02)), orthogonal
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

    def real_at(self, images: Tensor, progress: float) -> Tensor:
        """Return real images as the discriminator sees them at `progress`."""
        return images

    def grow(self, network: nn.Module, progress: float) -> None:
        """Bring `network`, or what wraps it, to `progress`, the share of the budget in [0, 1]."""

    def encoder(self, image_shape: ImageShape, outputs: int) -> nn.Module:
        """Return the encoder of a VAE, images -> (batch, outputs): the discriminator's network."""
        return self.discriminator(image_shape, outputs)

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
        if self.prior == "truncated":
            bound, latents = self.truncation, torch.empty(count, self.latent_dim)
            return nn.init.trunc_normal_(latents, a=-bound, b=bound, generator=rng)
        return torch.randn(count, self.latent_dim, generator=rng)


ARCHITECTURES: Registry[Architecture] = Registry("architecture")


class Head(nn.Sequential):
    """What a discriminator ends in; its input is what feature matching reads.

    That is (batch, features), or (batch, channels, height, width) where each place is judged: then
    the head is a convolution, flattened.
    """


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
class Layered(Architecture):
    """What architectures of layers share: a width for either network, and spectral norm."""

    width: Width = 32
    """Channels next to the image; they double at each halving, up to eightfold."""
    discriminator_width: Width | None = None
    """The discriminator's `width`; the generator's unless given."""
    spectral_norm: bool = False
    """Spectral normalisation of every discriminator layer (Miyato et al. 2018)."""

    @property
    def _judging_width(self) -> int:
        return self.discriminator_width or self.width

    def _judging(self, network: nn.Module) -> nn.Module:
        """Return `network`, whose weights have been drawn, as a part of the discriminator."""
        return apply_spectral_norm(network) if self.spectral_norm else network


@component
class Convolutional(Layered):
    """What convolutional architectures share: their options, and the order of drawing.

    Weights are drawn first, spectral norm goes on last.
    """

    width: Width = 64
    """Channels next to the image; they double at each halving."""
    depth: Annotated[int, Field(ge=0)] = 0
    """Additional 3x3 convolutions of stride 1 at every side that a network has a map of, in both
    networks."""
    generator_normalization: Normalization = "batch"
    """Normalisation of the generator's feature maps; group has gcd(8, channels) groups."""
    discriminator_normalization: Normalization = "none"
    """Normalisation of the discriminator's feature maps."""
    generator_spectral_norm: bool = False
    """Spectral normalisation of every generator layer, as in SAGAN (Zhang et al. 2019)."""
    upsampling: Upsampling = "transposed"
    """How the generator doubles a map: transposed (a transposed convolution of stride 2),
    resize_conv (nearest neighbour, then a convolution; Odena et al. 2016) or sub_pixel (a
    convolution to 4 times the channels, laid out in 2x2; Shi et al. 2016)."""
    upsampling_kernel: Kernel = 4
    """Side of the kernel of the convolutions that double a map, 2 to 7; a transposed one covers
    the pixels unevenly where it is odd."""
    attention: Annotated[int, Field(ge=2)] | None = None
    """Side in pixels (the height) of the map behind which both networks have a self-attention
    block (SAGAN, Zhang et al. 2019); of several scales, those that have such a map."""
    scales: Count = 1
    """Discriminators, each with its own weights, that read the image at its side, at half of it,
    and so on (pix2pixHD, Wang et al. 2018)."""

    def generator(self, image_shape: ImageShape) -> nn.Module:
        self._check_attention(image_shape)
        _check_normalization(self.generator_normalization, self.maps(image_shape))
        images = self.to_images(image_shape, self.width, self.generator_normalization)
        drawn = self._drawn(images)
        return apply_spectral_norm(drawn) if self.generator_spectral_norm else drawn

    def decoder(self, image_shape: ImageShape) -> nn.Module:
        norm = self.discriminator_normalization
        _check_normalization(norm, self.maps(image_shape))
        images = self.to_images(image_shape, self._judging_width, norm)
        return self._judging(self._drawn(images))

    def discriminator(
        self, image_shape: ImageShape, outputs: int = 1, across: Across = ()
    ) -> nn.Module:
        self._check_attention(image_shape)
        networks = []
        for shape in self._pyramid(image_shape):
            _check_normalization(self.discriminator_normalization, self.discriminator_maps(shape))
            network = self.from_images(shape, outputs, across)
            networks.append(self._judging(self._drawn(network)))
        return networks[0] if self.scales == 1 else MultiScale(networks, outputs)

    def encoder(self, image_shape: ImageShape, outputs: int) -> nn.Module:
        self._check_one_scale()
        return super().encoder(image_shape, outputs)

    def auto_encoder(self, image_shape: ImageShape) -> nn.Module:
        self._check_one_scale()
        return super().auto_encoder(image_shape)

    @abstractmethod
    def maps(self, image_shape: ImageShape) -> Maps:
        """Return the generator's maps; raises ValueError for a shape it cannot make."""

    def discriminator_maps(self, image_shape: ImageShape) -> Maps:
        """Return the discriminator's maps; raises ValueError for a shape it cannot read."""
        return self.maps(image_shape)

    @abstractmethod
    def to_images(self, image_shape: ImageShape, width: int, norm: Normalization) -> nn.Module:
        """Return the layers from latents to images, `width` wide with `norm` between them."""

    @abstractmethod
    def from_images(self, image_shape: ImageShape, outputs: int, across: Across) -> nn.Module:
        """Return the layers from images to `outputs` numbers."""

    @abstractmethod
    def draw(self, network: nn.Module) -> nn.Module:
        """Draw the first weights of the architecture's own paper."""

    def norm(self, kind: Normalization, channels: int) -> nn.Module:
        """Return the normalisation of a map with `channels` channels."""
        return normalization(kind, channels)

    def doubled(self, inputs: int, outputs: int, bias: bool = True) -> list[nn.Module]:
        """Return the layers that double a map's side, as the options have it."""
        return doubling(self.upsampling, inputs, outputs, self.upsampling_kernel, bias)

    def kept(
        self, size: tuple[int, int], channels: int, norm: Normalization, activation: nn.Module
    ) -> list[nn.Module]:
        """Return the additional layers that keep a map of `size`: `depth`, then attention."""
        layers: list[nn.Module] = []
        for _ in range(self.depth):
            convolution = nn.Conv2d(channels, channels, 3, 1, 1, bias=norm != "batch")
            layers += [convolution, self.norm(norm, channels), activation]
        return layers + self.attended(size, channels)

    def attended(self, size: tuple[int, int], channels: int) -> list[nn.Module]:
        """Return the attention behind a map of `size`, where the option asks for it."""
        return [SelfAttention(channels)] if size[0] == self.attention else []

    def _pyramid(self, image_shape: ImageShape) -> list[ImageShape]:
        """Return what each discriminator reads; raises ValueError where it cannot."""
        shapes = [image_shape]
        while len(shapes) < self.scales:
            channels, height, width = shapes[-1]
            cannot = f"discriminator {len(shapes) + 1} of scales: {self.scales} cannot read images"
            if height % 2 or width % 2:
                raise ValueError(f"{cannot}: {height}x{width} has no half; use fewer scales")
            shapes.append((channels, height // 2, width // 2))
            try:
                self.discriminator_maps(shapes[-1])
            except ValueError as error:
                raise ValueError(f"{cannot}: {error}; or use fewer scales") from None
        return shapes

    def _check_one_scale(self) -> None:
        if self.scales > 1:
            raise ValueError(
                f"an encoder, which energy-based losses and a VAE have, reads the image at "
                f"one scale, not at scales: {self.scales}; use scales: 1 or another loss"
            )

    def _check_attention(self, image_shape: ImageShape) -> None:
        if self.attention is None:
            return
        generated, judged = self.maps(image_shape), self.discriminator_maps(image_shape)
        both = sorted({height for height, _ in generated} & {height for height, _ in judged} - {1})
        if self.attention not in both:
            raise ValueError(
                f"attention: both networks of {self.name} have maps of side "
                f"{', '.join(map(str, both))} for images of {image_shape[1]}x{image_shape[2]}, "
                f"not {self.attention}; take one of these sides"
            )

    def _drawn(self, network: nn.Module) -> nn.Module:
        return initialize(self.draw(network), self.initialization)


def _check_normalization(norm: Normalization, maps: Maps) -> None:
    if norm == "instance" and (1, 1) in maps:
        raise ValueError(
            "instance normalisation needs maps of more than one place, and these images make one "
            "of 1x1, which it would set to a constant; use layer or group, or larger images"
        )


def check_multiples(name: str, image_shape: ImageShape, of: int) -> tuple[int, int]:
    """Return height and width; raises ValueError unless both are multiples of `of`."""
    _, height, width = image_shape
    if height % of or width % of:
        raise ValueError(
            f"{name} makes images whose sides are multiples of {of}, not {height}x{width}; "
            f"{ANY_SIDE}"
        )
    return height, width


def base_and_doublings(name: str, image_shape: ImageShape) -> tuple[int, int]:
    """Return the side that a generator begins with, 4 or 7, and how often it doubles.

    Raises:
        ValueError: For an image that is not square, or of another side.
    """
    _, height, width = image_shape
    if height == width == 1:
        raise ValueError(f"{name} makes images, no points; use the architecture mlp")
    for base in (4, 7):
        for doublings in range(1, 10):
            if height == width == base << doublings:
                return base, doublings
    raise ValueError(
        f"{name} makes square images of side 4 * 2^s or 7 * 2^s "
        f"(8, 14, 16, 28, 32, 56, 64, ...), not {height}x{width}; "
        f"{ANY_SIDE}"
    )
