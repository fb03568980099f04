"""ProGAN: networks that grow from a small side to the image's."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from ganstudy.gan.architectures.base import (
    ARCHITECTURES,
    Across,
    ImageShape,
    Layered,
    base_and_doublings,
    head,
    initialize,
)
from ganstudy.gan.architectures.equalized import PixelNorm, channels_inwards, equalize
from ganstudy.registry import component


def phase_at(progress: float, growth: float, fades: int) -> float:
    """Return how far networks have grown: stages passed, plus the share of the next one's fade.

    Each of `fades` equal slots of the growing time first stabilises a stage, then fades the next
    one in, equally long (Karras et al. 2018).

    Args:
        progress: Share of the budget, in [0, 1].
        growth: Share of the budget in which the networks grow, in [0, 1].
        fades: Stages after the first one.
    """
    if progress >= growth:
        return float(fades)
    slot, within = divmod(progress / growth * fades, 1.0)
    return min(slot + max(0.0, 2 * within - 1), float(fades))


class Growing(nn.Module):
    """A network of stages, one per side; only the stages up to its phase take part.

    Attributes:
        first: The first stage that it can stand at alone.
        last: The stage of the whole image.
        phase: In [first, last]: its integer part is the stage it stands at, its fraction the share
            of the next stage, which fades in. It is a part of the state.
    """

    def __init__(self, last: int, *, grows: bool) -> None:
        """Stand at the whole image, forever where the network does not grow."""
        super().__init__()
        self.first, self.last, self.phase = 0 if grows else last, last, float(last)

    @property
    def stage_and_alpha(self) -> tuple[int, float]:
        """The stage it stands at, and the share of the next one, in [0, 1)."""
        return int(self.phase), self.phase % 1.0

    def get_extra_state(self) -> Tensor:
        """Return the phase, exactly."""
        return torch.tensor(self.phase, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Stand at the phase of `get_extra_state`."""
        self.phase = float(state)


class GrowingGenerator(Growing):
    """From latents to images of the whole side, with the detail of the stage it stands at."""

    def __init__(
        self, latent_dim: int, channels: int, base: int, widths: list[int], *, grows: bool
    ) -> None:
        """Build stages of `widths` channels, the smallest side first."""
        super().__init__(len(widths) - 1, grows=grows)
        wide = widths[0]
        first = [
            *(PixelNorm(), nn.Linear(latent_dim, wide * base * base)),
            *(nn.Unflatten(1, (wide, base, base)), nn.LeakyReLU(0.2), PixelNorm()),
            *normed_conv(wide, wide),
        ]
        doubling = [
            nn.Sequential(nn.Upsample(scale_factor=2), *normed_conv(*pair), *normed_conv(pair[1]))
            for pair in zip(widths[:-1], widths[1:], strict=True)
        ]
        self.stages = nn.ModuleList([nn.Sequential(*first), *doubling])
        self.to_image = nn.ModuleList(nn.Conv2d(w, channels, 1) for w in widths[self.first :])
        self.tanh = nn.Tanh()

    def forward(self, latents: Tensor) -> Tensor:
        """Return images (batch, channels, height, width)."""
        stage, alpha = self.stage_and_alpha
        x = latents
        for layers in list(self.stages)[: stage + 1]:
            x = layers(x)
        images = self._image(x, stage)
        if alpha > 0:
            new = self._image(self.stages[stage + 1](x), stage + 1)
            images = torch.lerp(repeated(images, 2), new, alpha)
        # Repeated before tanh, whose input is read as the images' log odds (vae).
        return self.tanh(repeated(images, 1 << (self.last - stage - (alpha > 0))))

    def _image(self, x: Tensor, stage: int) -> Tensor:
        return self.to_image[stage - self.first](x)


class GrowingDiscriminator(Growing):
    """From images of the whole side, averaged to that of the stage it stands at, to logits."""

    def __init__(
        self, channels: int, base: int, widths: list[int], last: nn.Module, *, grows: bool
    ) -> None:
        """Build stages of `widths` channels, the smallest side first, and end in `last`."""
        super().__init__(len(widths) - 1, grows=grows)
        wide, leaky = widths[0], nn.LeakyReLU(0.2)
        smallest = [
            *(nn.Conv2d(wide, wide, 3, padding=1), leaky, nn.Flatten()),
            *(nn.Linear(wide * base * base, wide), leaky, last),
        ]
        halving = [halving_block(*pair) for pair in zip(widths[1:], widths[:-1], strict=True)]
        self.stages = nn.ModuleList([nn.Sequential(*smallest), *halving])
        self.from_image = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, width, 1), leaky) for width in widths[self.first :]
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (batch, outputs)."""
        stage, alpha = self.stage_and_alpha
        images = avg_pool2d(images, 1 << (self.last - stage - (alpha > 0)))
        if alpha > 0:
            new = self.stages[stage + 1](self._features(images, stage + 1))
            x = torch.lerp(self._features(avg_pool2d(images, 2), stage), new, alpha)
        else:
            x = self._features(images, stage)
        for layers in list(self.stages)[stage::-1]:
            x = layers(x)
        return x

    def _features(self, images: Tensor, stage: int) -> Tensor:
        return self.from_image[stage - self.first](images)


def normed_conv(inputs: int, outputs: int | None = None) -> list[nn.Module]:
    """Return 3x3 convolution, leaky ReLU and pixel norm; as many outputs as inputs by default."""
    return [nn.Conv2d(inputs, outputs or inputs, 3, padding=1), nn.LeakyReLU(0.2), PixelNorm()]


def halving_block(inputs: int, outputs: int) -> nn.Sequential:
    """Return two 3x3 convolutions with leaky ReLU, then averaging over 2x2."""
    return nn.Sequential(
        *(nn.Conv2d(inputs, inputs, 3, padding=1), nn.LeakyReLU(0.2)),
        *(nn.Conv2d(inputs, outputs, 3, padding=1), nn.LeakyReLU(0.2), nn.AvgPool2d(2)),
    )


def repeated(images: Tensor, times: int) -> Tensor:
    """Return images whose every pixel is `times` x `times` pixels."""
    return images if times == 1 else interpolate(images, scale_factor=times, mode="nearest")


@ARCHITECTURES.register("progressive", paper="Karras et al. 2018, arXiv:1710.10196")
@component
class Progressive(Layered):
    """Networks that begin at a side of 4 or 7 and double it while the run goes on; ProGAN.

    Makes square images of side 4 * 2^s or 7 * 2^s. Two 3x3 convolutions per side; leaky ReLU
    (0.2); pixel norm in the generator; nearest neighbours to double, averaging to halve; 1x1
    convolutions between features and pixels at every side. Own first weights are equalised
    learning rate, with a gain of root 2 before each activation; as in the authors' code the
    generator's first layer has the fan in of a convolution as large as its map. Any other way of
    drawing them goes without.

    Both networks always take whole images: at a smaller side the generator repeats pixels and the
    discriminator averages them, which is the game at that side. While a side fades in, real images
    do too. Freshly built networks are grown up.

    Departures: images end in tanh where the paper's are linear; batch size, learning rate and the
    optimiser's moments stay as they are when a stage begins; minibatch standard deviation is a
    stabiliser of its own. Penalties on weights reach stages that do not take part yet.
    Auto-encoders, which energy-based losses need, do not grow: their errors
    are those of whole images.
    """

    growth: Annotated[float, Field(ge=0, lt=1)] = 0.6
    """Share of the budget in which the networks grow; 0 trains at full size from the start."""

    @property
    def grows(self) -> bool:  # type: ignore[override]
        """Whether there is a time in which the networks grow."""
        return self.growth > 0

    def real_at(self, images: Tensor, progress: float) -> Tensor:
        _, doublings = base_and_doublings(self.name, (1, *images.shape[2:]))
        phase = phase_at(progress, self.growth, doublings)
        stage, alpha = int(phase), phase % 1.0
        if alpha == 0:
            return images  # the discriminator averages them to its side by itself
        coarse, fine = 1 << (doublings - stage), 1 << (doublings - stage - 1)
        smooth = avg_pool2d(images, fine)
        return repeated(torch.lerp(repeated(avg_pool2d(images, coarse), 2), smooth, alpha), fine)

    def generator(self, image_shape: ImageShape) -> nn.Module:
        base, widths = self._base_and_widths(image_shape, self.width)
        network = GrowingGenerator(
            self.latent_dim, image_shape[0], base, widths, grows=self.growth > 0
        )
        if self.initialization == "own":
            # The paper's first layer is a convolution of base x base over a padded map of 1x1.
            equalize(network.stages[0][1], gain=math.sqrt(2) / base)  # type: ignore[index]
        return self._drawn(network, network.to_image)

    def discriminator(
        self, image_shape: ImageShape, outputs: int = 1, across: Across = ()
    ) -> nn.Module:
        base, widths = self._base_and_widths(image_shape, self._judging_width)
        last = head(widths[0], outputs, across)
        network = GrowingDiscriminator(image_shape[0], base, widths, last, grows=self.growth > 0)
        return self._judging(self._drawn(network, last))

    def decoder(self, image_shape: ImageShape) -> nn.Module:
        return self._judging(dataclasses.replace(self, growth=0.0).generator(image_shape))

    def auto_encoder(self, image_shape: ImageShape) -> nn.Module:
        if self.growth > 0:
            return dataclasses.replace(self, growth=0.0).auto_encoder(image_shape)
        return super().auto_encoder(image_shape)

    def grow(self, network: nn.Module, progress: float) -> None:
        for module in network.modules():
            if isinstance(module, Growing):
                fades = module.last - module.first
                module.phase = module.first + phase_at(progress, self.growth, fades)

    def _base_and_widths(self, image_shape: ImageShape, width: int) -> tuple[int, list[int]]:
        base, doublings = base_and_doublings(self.name, image_shape)
        return base, channels_inwards(width, doublings)[::-1]

    def _drawn(self, network: nn.Module, linear: nn.Module) -> nn.Module:
        """Draw the first weights; behind the layers of `linear` there is no activation."""
        if self.initialization != "own":
            return initialize(network, self.initialization)
        equalize(linear)
        return equalize(network, gain=math.sqrt(2))
