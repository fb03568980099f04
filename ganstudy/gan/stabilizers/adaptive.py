"""Adaptive augmentation (ADA): each transform is applied with a probability that is controlled."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from ganstudy.gan.losses import Memory
from ganstudy.gan.regularizers.base import Role
from ganstudy.gan.stabilizers.augmentation import SHIFT, of_images, refuse_points, taken
from ganstudy.gan.stabilizers.base import STABILIZERS, Share, Stabilizer, Turn
from ganstudy.gan.stabilizers.presented import needs_boundary
from ganstudy.registry import component

if TYPE_CHECKING:
    from ganstudy.gan.config import TrainConfig


@STABILIZERS.register("adaptive_augment", paper="Karras et al. 2020, arXiv:2006.06676")
@component
class AdaptiveAugment(Stabilizer):
    """ADA: augment what the discriminator sees the more often, the more it overfits.

    Each transform befalls each image, real or fake, with probability p, and both networks train
    through it. Every `interval` discriminator updates p rises where r = E sign(D(real) - boundary)
    was above its target and falls where it was below, `ramp_images` images from 0 to 1; boundary
    is the logit at which the loss is undecided. The transforms are the paper's "bgc"; without
    three channels hue and saturation stay as they are.

    Digits and letters do not stay what they are when mirrored or turned (6 and 9), nor under a
    full turn of `geometry`: switch those off for them. As long as p stays below 0.8 (max_p) the
    paper finds it unlikely that augmentations leak into what is generated.

    Departures from the paper: `ramp_images` is a tenth, for runs of thousands of images and not
    of millions; pixels are interpolated linearly between the nearest four instead of between
    wavelet-upsampled ones, so that scaled and turned images are somewhat blurred or aliased;
    beyond the border images are mirrored without end, not zero after one mirror image.

    Elsewhere:
        The authors' code and mmgeneration do not stop p at 1, so that it takes longer to come
        down again; StudioGAN does, as here.
    """

    blit: bool = True
    """Whether images are mirrored, turned by 90 degrees and moved by whole pixels up to 1/8."""
    geometry: bool = True
    """Whether they are scaled, turned, stretched and moved by fractions of a pixel."""
    color: bool = True
    """Whether brightness, contrast, the sign of the luma, hue and saturation change."""
    target: Annotated[float, Field(ge=-1, le=1)] = 0.6
    """Wanted mean sign of the logits on reals: 1 where all of them are taken for real."""
    ramp_images: Annotated[float, Field(gt=0)] = 50_000.0
    """Real images in which p can go from 0 to 1; 500 000 in the paper."""
    interval: Annotated[int, Field(ge=1)] = 4
    """Discriminator updates from one change of p to the next."""
    start: Share = 0.0
    """p at first."""
    max_p: Share = 1.0
    """Largest p; 0 is off."""

    def __post_init__(self) -> None:
        """Refuse to start where p may not be."""
        if self.start > self.max_p:
            raise ValueError(f"start {self.start:g} lies above max_p {self.max_p:g}: lower it")

    def check(self, config: TrainConfig) -> None:
        if self.max_p == 0:
            return
        refuse_points(config)
        needs_boundary(config, "has no logit by which to tell whether the discriminator overfits")
        _, height, width = config.dataset.image_shape
        if self.blit and height != width:
            raise ValueError(f"{height} x {width} images cannot turn by 90 degrees: blit: false")
        if self.geometry and min(height, width) < 2:
            raise ValueError(f"{height} x {width} images cannot be scaled: geometry: false")

    def memory(self, config: TrainConfig, networks: Mapping[Role, nn.Module]) -> Memory:
        return {"p": torch.tensor(self.start), "sign_sum": torch.zeros(()),
                "count": torch.zeros(())}  # fmt: skip

    def remember(
        self, memory: Memory, real_logits: Tensor, fake_logits: Tensor, config: TrainConfig
    ) -> None:
        p, sign_sum, count = memory["p"], memory["sign_sum"], memory["count"]
        boundary = config.loss.boundary
        if boundary is None:  # off, or `check` would have refused the loss
            return
        sign_sum += (real_logits - boundary).sign().mean().to(sign_sum)
        count += 1
        if count < self.interval:
            return
        change = self.interval * config.batch_size / self.ramp_images
        p += change * (sign_sum / count - self.target).sign()
        p.clamp_(0, self.max_p)
        sign_sum.zero_()
        count.zero_()

    def signals(self, memory: Memory) -> Mapping[str, Tensor]:
        return {"adaptive_augment/p": memory["p"]}

    def discriminator_input(self, images: Tensor, turn: Turn) -> Tensor:
        if self.max_p == 0:
            return images
        height, width = images.shape[2:]
        dice = Dice(len(images), turn.memory["p"].cpu(), turn.rng)
        sources = blitted(dice, height, width) if self.blit else []
        sources += distorted(dice, height, width) if self.geometry else []
        if sources:
            images = resampled(images, reduce(product, sources))
        return recolored(images, Colors.drawn(dice, images.shape[1])) if self.color else images


@dataclass(frozen=True)
class Dice:
    """Draws for each image of a batch: with probability p what is asked for, else 0."""

    batch: int
    p: Tensor
    rng: torch.Generator

    def uniform(self, most: float, size: int = 1, p: Tensor | None = None) -> Tensor:
        """Return (batch, size) numbers between -most and most; an image's come together."""
        drawn = torch.rand(self.batch, size, generator=self.rng)
        return self._applied(most * (2 * drawn - 1), p)

    def normal(self, std: float, size: int = 1) -> Tensor:
        """Return (batch, size) Gaussians; an image's come together."""
        return self._applied(std * torch.randn(self.batch, size, generator=self.rng))

    def below(self, count: int) -> Tensor:
        """Return (batch, 1) whole numbers 0 ... count - 1."""
        drawn = torch.randint(count, (self.batch, 1), generator=self.rng)
        return self._applied(drawn.float())

    def _applied(self, drawn: Tensor, p: Tensor | None = None) -> Tensor:
        coins = torch.rand(self.batch, 1, generator=self.rng)
        return torch.where(coins < (self.p if p is None else p), drawn, 0.0)


def blitted(dice: Dice, height: int, width: int) -> list[Tensor]:
    """Return draws that move pixels onto pixels, (batch, 3, 3) maps from output to input."""
    mirror, quarters = 1 - 2 * dice.below(2), dice.below(4)
    # Rounded, or a quarter turn's cosine of 1e-8 would blend neighbours.
    cosine, sine = (f(quarters * math.pi / 2).round() for f in (torch.cos, torch.sin))
    right, down = (dice.uniform(1 / SHIFT, 2) * torch.tensor([width, height])).round().T
    return [
        affine(mirror, 0, 0, 1),
        affine(cosine, -sine, sine, cosine),
        affine(1, 0, 0, 1, -right[:, None], -down[:, None]),
    ]


def distorted(dice: Dice, height: int, width: int) -> list[Tensor]:
    """Return draws of scale, turn, stretch, turn and move, (batch, 3, 3) from output to input."""
    # Either of two turns: 1 - (1 - p_turn)^2 = p.
    p_turn = 1 - (1 - dice.p).sqrt()
    scale, stretch = torch.exp2(dice.normal(0.2)), torch.exp2(dice.normal(0.2))
    turns = [dice.uniform(math.pi, p=p_turn) for _ in range(2)]
    before, after = (affine(a.cos(), a.sin(), -a.sin(), a.cos()) for a in turns)
    right, down = (dice.normal(1 / SHIFT, 2) * torch.tensor([width, height])).T
    return [
        affine(1 / scale, 0, 0, 1 / scale),
        before,
        affine(1 / stretch, 0, 0, stretch),
        after,
        affine(1, 0, 0, 1, -right[:, None], -down[:, None]),
    ]


def affine(*entries: Tensor | float) -> Tensor:
    """Return the map (x, y) -> (a x + b y + e, c x + d y + f) as a matrix, (batch, 3, 3).

    Args:
        entries: a, b, c, d and perhaps e, f: numbers, or (batch, 1), at least one of them.
            x goes right and y down, in pixels from the centre of the image.
    """
    a, b, c, d, e, f = (*entries, 0, 0)[:6]
    full = torch.broadcast_tensors(*(torch.as_tensor(v) for v in (a, b, e, c, d, f, 0, 0, 1)))
    return torch.cat([v.float() for v in full], 1).view(-1, 3, 3)


def product(left: Tensor, right: Tensor) -> Tensor:
    """Return the product of (batch, 3, 3) matrices; under autocast @ would be of bfloat16."""
    return (left[:, :, :, None] * right[:, None]).sum(2)


def resampled(images: Tensor, sources: Tensor) -> Tensor:
    """Return images whose pixel at (x, y) is what the original has at `sources` (x, y).

    Linear between the nearest four pixels; beyond the border the image is mirrored at its
    outermost pixels. A map of pixels onto pixels is exact.

    Args:
        images: (batch, channels, height, width), neither side below 2.
        sources: (batch, 3, 3) float32, as of `affine`.
    """
    height, width = images.shape[2:]
    y, x = (torch.arange(n) - (n - 1) / 2 for n in (height, width))
    grid = torch.stack([*torch.meshgrid(x, y, indexing="xy"), torch.ones(height, width)])
    columns, rows = (sources[:, :2, :, None, None] * grid).sum(2).unbind(1)
    left, right_share = _nearest(columns + (width - 1) / 2, width)
    top, below_share = _nearest(rows + (height - 1) / 2, height)
    result = torch.zeros_like(images)
    for down, row_share in ((0, 1 - below_share), (1, below_share)):
        for right, column_share in ((0, 1 - right_share), (1, right_share)):
            pixels = taken(images, ((top + down) * width + left + right).to(images.device))
            result = result + (row_share * column_share)[:, None].to(images) * pixels
    return result


def _nearest(places: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return the pixel before each place, int64, and how near the place is to the next, 0 to 1."""
    mirrored = (side - 1) - ((places % (2 * side - 2)) - (side - 1)).abs()
    before = mirrored.floor().clamp(0, side - 2)
    return before.long(), mirrored - before


@dataclass(frozen=True)
class Colors:
    """Changes of colour, one after the other; each (batch, 1)."""

    brightness: Tensor
    """What is added."""
    contrast: Tensor
    """Factor."""
    luma_sign: Tensor
    """-1 where the luma, the mean of a pixel's channels, changes its sign."""
    hue: Tensor
    """Angle of the turn around the luma axis, where there are three channels."""
    saturation: Tensor
    """Factor of what is not luma."""

    @classmethod
    def drawn(cls, dice: Dice, channels: int) -> Colors:
        """Return draws of the paper's widths; without three channels there is no chroma."""
        brightness, contrast = dice.normal(0.2), torch.exp2(dice.normal(0.5))
        luma_sign, neutral = 1 - 2 * dice.below(2), torch.zeros_like(brightness)
        if channels != 3:  # noqa: PLR2004
            return cls(brightness, contrast, luma_sign, neutral, neutral + 1)
        hue, saturation = dice.uniform(math.pi), torch.exp2(dice.normal(1.0))
        return cls(brightness, contrast, luma_sign, hue, saturation)


def recolored(images: Tensor, colors: Colors) -> Tensor:
    """Return contrast * (sign * luma(x + brightness) + saturation * turned chroma(x)).

    Luma is a pixel's mean, chroma the rest; hue turns the chroma around (1, 1, 1). All of it
    commutes but for the brightness, so that no matrices need be multiplied.
    """
    chroma = colors.contrast * colors.saturation * colors.hue.cos()
    luma = colors.contrast * colors.luma_sign
    added = luma * colors.brightness
    grey = images.mean(1, keepdim=True)
    # Written around x, not around its parts, so that no change is no change in any bit.
    result = of_images(chroma, images) * images + of_images(luma - chroma, images) * grey
    if images.shape[1] == 3:  # noqa: PLR2004
        across = colors.contrast * colors.saturation * colors.hue.sin() / math.sqrt(3)
        # (1, 1, 1) x (r, g, b) = (b - g, r - b, g - r).
        turned = images.roll(1, 1) - images.roll(-1, 1)
        result = result + of_images(across, images) * turned
    return result + of_images(added, images)
