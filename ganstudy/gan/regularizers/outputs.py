"""Penalties on the discriminator's logits, and on how they move with its input."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import mse_loss, pad, relu

from ganstudy.gan.architectures import ImageShape
from ganstudy.gan.losses import Memory
from ganstudy.gan.regularizers.base import REGULARIZERS, Network, Positive, Regularizer, Weight
from ganstudy.registry import component


@REGULARIZERS.register("lecam", paper="Tseng et al. 2021, arXiv:2104.03310")
@component
class LeCam(Regularizer):
    """weight * (E relu(r - mean_f)^2 + E relu(mean_r - f)^2), means over past updates.

    mean_r and mean_f are exponential moving averages of the batches' mean logits; each includes
    the update at hand, and no gradient flows into them. During the warm-up they equal the batch's
    means. The averages start at update `warmup_updates` (the first is update 0), the penalty one
    update later, as in the authors' code.

    Formula:
        penalty: weight * (E[relu(r - mean_f)^2] + E[relu(mean_r - f)^2])
        at: the logits of the batch

    Elsewhere:
        The paper's equation squares differences of either sign; its code and StudioGAN's take the
        positive parts, as here. Both count iterations, each of which may be several discriminator
        updates. The authors' decay is 0.9 in BigGAN; in StyleGAN2 it is 0.99, without a warm-up.
    """

    weight: Weight = 0.3
    """Factor of the penalty (lambda in the paper)."""
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of the moving averages per discriminator update."""
    warmup_updates: Annotated[int, Field(ge=0)] = 1000
    """Discriminator updates before the averages start."""

    def memory(self) -> Memory:
        return {"real_mean": torch.zeros(()), "fake_mean": torch.zeros(()),
                "begun": torch.zeros(())}  # fmt: skip

    def remember(
        self, memory: Memory, real_logits: Tensor, fake_logits: Tensor, updates: int
    ) -> None:
        following = updates == 0 or updates < self.warmup_updates
        decay = 0.0 if following else self.decay
        for name, logits in (("real_mean", real_logits), ("fake_mean", fake_logits)):
            memory[name].lerp_(logits.mean().to(memory[name]), 1 - decay)
        memory["begun"].fill_(float(updates > self.warmup_updates))

    def logit_penalty(
        self, real_logits: Tensor, fake_logits: Tensor, memory: Memory
    ) -> Tensor | None:
        real_mean, fake_mean = (memory[n].to(real_logits) for n in ("real_mean", "fake_mean"))
        real, fake = relu(real_logits - fake_mean), relu(real_mean - fake_logits)
        total = real.square().mean() + fake.square().mean()
        return self.weight * memory["begun"].to(total) * total


def flipped_and_shifted(
    images: Tensor, rng: torch.Generator, flip: bool = True, shift: float = 0.125
) -> Tensor:
    """Return `images`, each mirrored with probability 1/2 and shifted, borders reflected.

    Args:
        images: (batch, channels, height, width).
        rng: Draws two integers and a coin per image.
        flip: Whether to mirror.
        shift: Largest shift in either direction, as a share of the shorter side, rounded down.
    """
    batch, _, height, width = images.shape
    most = math.floor(min(height, width) * shift)
    padded = pad(images, (most,) * 4, mode="reflect") if most else images
    offsets = torch.randint(0, 2 * most + 1, (batch, 2), generator=rng)
    mirrored = torch.rand(batch, generator=rng) < 0.5 if flip else torch.zeros(batch).bool()
    rows = offsets[:, :1] + torch.arange(height)
    columns = offsets[:, 1:] + torch.arange(width)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    index = torch.arange(batch)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


@REGULARIZERS.register(
    "consistency", paper="Zhang et al. 2020, arXiv:1910.12027; Zhao et al. 2020, arXiv:2002.04724"
)
@component
class Consistency(Regularizer):
    """weight * E (D(x) - D(T x))^2, T a random flip and shift: CR-GAN; bCR with a fake_weight.

    The first paper regularises real images (fake_weight 0), the second both ("balanced", both
    weights 10). D(x) is taken anew beside D(T x), one pass more than the papers make.

    Formula:
        penalty: real_weight * E[(D(x) - D(T x))^2] + fake_weight * E[(D(G(z)) - D(T G(z)))^2]
        at: real images, and generated ones where fake_weight is above 0

    Elsewhere:
        The same in StudioGAN: flips with probability 1/2, shifts up to an eighth of the height.
    """

    real_weight: Weight = 10.0
    """Factor on real images (lambda_real)."""
    fake_weight: Weight = 0.0
    """Factor on generated images (lambda_fake); 10 in bCR."""
    flip: bool = True
    """Whether T mirrors; digits and letters do not stay what they are when mirrored."""
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.125
    """Largest shift, as a share of the image's shorter side."""

    def check(self, image_shape: ImageShape) -> None:
        if image_shape[1:] == (1, 1):
            raise ValueError("points cannot be flipped or shifted: leave it out")

    def penalty(
        self, discriminator: Network, real: Tensor, fake: Tensor, rng: torch.Generator
    ) -> Tensor:
        total = real.new_zeros(())
        for weight, images in ((self.real_weight, real), (self.fake_weight, fake)):
            if weight:
                moved = flipped_and_shifted(images, rng, self.flip, self.shift)
                total = total + weight * mse_loss(discriminator(moved), discriminator(images))
        return total


@REGULARIZERS.register("latent_consistency", paper="Zhao et al. 2020, arXiv:2002.04724 (zCR)")
@component
class LatentConsistency(Regularizer):
    """zCR: D is to ignore small changes of the latent, G is to show them.

    D pays weight * E (D(G(z)) - D(G(z + e)))^2, G gets generator_weight * E (G(z) - G(z + e))^2
    off its loss, e Gaussian.

    Formula:
        penalty: weight * E[(D(G(z)) - D(G(z + e)))^2]; the generator's: -generator_weight *
            E[(G(z) - G(z + e))^2]
        at: generated images of latents moved by e in N(0, sigma^2 I)

    Elsewhere:
        The same in StudioGAN; ICR-GAN is this together with bCR (see consistency).
    """

    weight: Weight = 20.0
    """Factor in the discriminator's loss (lambda_dis)."""
    generator_weight: Weight = 0.5
    """Factor in the generator's loss (lambda_gen)."""
    sigma: Positive = 0.05
    """Standard deviation of the change of the latent."""

    def latent_penalty(
        self, discriminator: Network, generator: Network, latents: Tensor, rng: torch.Generator
    ) -> Tensor:
        # Both made here, alike: the fakes that were trained on may be noised or of less precision.
        with torch.no_grad():
            fake, moved = generator(latents), generator(self._moved(latents, rng))
        return self.weight * mse_loss(discriminator(moved), discriminator(fake))

    def generator_penalty(
        self, generator: Network, latents: Tensor, rng: torch.Generator
    ) -> Tensor:
        moved = generator(self._moved(latents, rng))
        return -self.generator_weight * mse_loss(moved, generator(latents))

    def _moved(self, latents: Tensor, rng: torch.Generator) -> Tensor:
        return latents + self.sigma * torch.randn(latents.shape, generator=rng).to(latents)
