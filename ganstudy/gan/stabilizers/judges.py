"""Stabilisers that change what the discriminator is: across the batch, packed, or several."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from ganstudy.gan.architectures import ImageShape
from ganstudy.gan.losses import Loss
from ganstudy.gan.stabilizers.base import (
    STABILIZERS,
    Build,
    DiscriminatorLoss,
    GeneratorLoss,
    Stabilizer,
    Turn,
)
from ganstudy.registry import component

if TYPE_CHECKING:
    from ganstudy.gan.config import TrainConfig


class SimilaritiesInBatch(nn.Module):
    """Append to each sample's features how similar it is to the others of its batch."""

    def __init__(self, features: int, kernels: int, kernel_dim: int) -> None:
        """Draw the tensor T of the paper from N(0, 1 / features).

        The paper's projections have no stated scale: at N(0, 1) distances of hundreds of features
        would be so large that every similarity begins at 0, without gradient.
        """
        super().__init__()
        self.out_features = features + kernels
        self.projection = nn.Parameter(
            torch.randn(features, kernels, kernel_dim) / math.sqrt(features)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return (batch, features + kernels)."""
        projected = torch.einsum("bf,fkd->bkd", features, self.projection)
        distances = (projected[:, None] - projected[None]).abs().sum(dim=3)
        return torch.cat([features, (-distances).exp().sum(dim=1) - 1], dim=1)


class AcrossBatch(Stabilizer):
    """A stabiliser that compares the images of a batch before the discriminator's last layer."""

    def check(self, config: TrainConfig) -> None:
        if not self.across:
            return
        if not config.architecture.judges_whole_images:
            raise ValueError(
                f"{config.architecture.name} judges patches: no layer reads the features of a "
                f"whole image; use another architecture, or leave it out"
            )
        if isinstance(config.loss, Loss) and config.loss.reconstruction_power:
            raise ValueError(
                f"{config.loss.name} judges by reconstruction: there is no last layer to inform; "
                f"leave it out"
            )


@STABILIZERS.register("minibatch_discrimination", paper="Salimans et al. 2016, arXiv:1606.03498")
@component
class MinibatchDiscrimination(AcrossBatch):
    """The discriminator sees how similar each image is to the others of its batch.

    Before its last layer o_b(x_i) = sum over j != i of exp(-|M_ib - M_jb|_1) is appended for
    every kernel b, M_i = f(x_i) T. Reals and fakes are compared among themselves.

    Elsewhere:
        torchgan draws T from N(0, 1) and is otherwise the same; the authors' code has a bias per
        kernel and a first scale that depends on the data.
    """

    kernels: Annotated[int, Field(ge=0)] = 16
    """Similarities that are appended (B in the paper); 0 is off."""
    kernel_dim: Annotated[int, Field(ge=1)] = 8
    """Numbers that each of them compares (C in the paper)."""

    @property
    def across(self) -> Callable[[int], nn.Module] | None:
        if self.kernels == 0:
            return None
        return partial(SimilaritiesInBatch, kernels=self.kernels, kernel_dim=self.kernel_dim)


class SpreadInGroup(nn.Module):
    """Append to each sample's features how much the features spread in its group."""

    def __init__(self, features: int, group: int) -> None:
        """Compare groups of `group` images, or of all where a batch has fewer."""
        super().__init__()
        self.out_features, self.group = features + 1, group

    def forward(self, features: Tensor) -> Tensor:
        """Return (batch, features + 1); images beyond whole groups read the spread of one."""
        # Every count-th image belongs together, as in StyleGAN.
        count = max(1, len(features) // self.group)
        whole = len(features) // count * count
        groups = features[:whole].view(-1, count, features.shape[1])
        # By hand: Tensor.var over the first dimension is several times slower on a CPU.
        variance = (groups - groups.mean(dim=0)).square().mean(dim=0)
        spread = (variance + 1e-8).sqrt().mean(dim=1, keepdim=True)
        label = torch.arange(len(features), device=features.device) % count
        return torch.cat([features, spread[label]], dim=1)


@STABILIZERS.register("minibatch_stddev", paper="Karras et al. 2018, arXiv:1710.10196")
@component
class MinibatchStddev(AcrossBatch):
    """The discriminator sees how much the features of a group of images spread.

    The standard deviation of each feature over the group, averaged over features, is one number,
    appended before the last layer. The paper appends it as a map to the last feature map, before
    one more convolution and a fully connected layer, which can weigh features by it; here it moves
    the logit by itself only.

    Elsewhere:
        Groups of 4 in StyleGAN, where they depend on the order of the batch, as here; StudioGAN's
        CIFAR configurations have groups of 32.
    """

    group: Annotated[int, Field(ge=1)] = 4
    """Images of a group, all of a smaller batch (or of its packs); images beyond whole groups read
    the spread of one of them; 1 is off."""

    @property
    def across(self) -> Callable[[int], nn.Module] | None:
        return None if self.group == 1 else partial(SpreadInGroup, group=self.group)


class Packed(nn.Module):
    """A discriminator of packs of images: (batch, ...) -> logits (batch / images, judgements)."""

    def __init__(self, network: nn.Module, images: int) -> None:
        """Show `network` as many images at a time, as channels of one."""
        super().__init__()
        self.network, self.images = network, images

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of packs of neighbours; an incomplete last pack is left out."""
        packs = len(images) // self.images
        _, channels, height, width = images.shape
        packed = images[: packs * self.images].reshape(
            packs, self.images * channels, height, width
        )
        logits: Tensor = self.network(packed)
        return logits


@STABILIZERS.register("packing", paper="Lin et al. 2018, arXiv:1712.04086 (PacGAN)")
@component
class Packing(Stabilizer):
    """The discriminator judges several images at once, all real or all fake.

    They are stacked as channels of one image; all else about the network stays. An update sees as
    many images as without, and so makes fewer judgements. Norms of a gradient penalty are taken
    over a pack; points between reals and fakes are drawn image by image.

    Elsewhere:
        The authors' code reads a batch of packs, so that its discriminator sees `images` times as
        many real images per update as the one it is compared with.
    """

    images: Annotated[int, Field(ge=1)] = 2
    """Images of a pack (m in the paper); 1 is off."""

    def check(self, config: TrainConfig) -> None:
        if self.images > 1 and config.batch_size % self.images:
            raise ValueError(
                f"batch_size {config.batch_size} is not a multiple of {self.images} images a pack"
            )
        if self.images > 1 and config.batch_size < 2 * self.images:
            raise ValueError(
                f"batch_size {config.batch_size} is less than two packs of {self.images} images"
            )
        if self.images > 1 and config.conditioning.uses_labels:
            raise ValueError("a pack of several labels has no label: use it without conditioning")

    def judge(self, build: Build, image_shape: ImageShape) -> nn.Module:
        if self.images == 1:
            return build(image_shape)
        channels, height, width = image_shape
        return Packed(build((self.images * channels, height, width)), self.images)


class SeveralDiscriminators(nn.Module):
    """Discriminators side by side: logits (batch, judgements of the first, of the second, ...)."""

    def __init__(self, members: list[nn.Module]) -> None:
        """Take `members`, which see the same images and share nothing."""
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor, *labels: Tensor) -> Tensor:
        """Return the members' logits side by side."""
        return torch.cat([member(images, *labels) for member in self.members], dim=1)


@STABILIZERS.register("several_discriminators", paper="Durugkar et al. 2017, arXiv:1611.01673")
@component
class SeveralDiscriminatorsGame(Stabilizer):
    """GMAN: the generator plays against several discriminators, each trained by itself.

    Its loss is the mean of its losses against them under the weights softmax(lambda loss): at
    lambda 0 all weigh the same, the larger it is the more the harshest one counts. The
    discriminators differ in their first weights only, and see the same batches; their losses are
    added up, their mean is the signal. No gradient flows through the weights. lecam reads the mean
    of all members' logits.

    Elsewhere:
        The paper weighs by the whole value of the minimax game, its part on real images included;
        it also learns lambda (GMAN*) and trains each member on a batch of its own.
    """

    count: Annotated[int, Field(ge=1)] = 3
    """Discriminators (N in the paper); 1 is off."""
    harshness: Annotated[float, Field(ge=0)] = 1.0
    """lambda of the softmax; 0 averages."""

    def judge(self, build: Build, image_shape: ImageShape) -> nn.Module:
        if self.count == 1:
            return build(image_shape)
        return SeveralDiscriminators([build(image_shape) for _ in range(self.count)])

    def discriminator_loss(self, play: DiscriminatorLoss, turn: Turn) -> DiscriminatorLoss:
        if self.count == 1:
            return play

        def total(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
            pairs = zip(self._each(real_logits), self._each(fake_logits), strict=True)
            return torch.stack([play(real, fake) for real, fake in pairs]).sum()

        return total

    def generator_loss(self, play: GeneratorLoss, turn: Turn) -> GeneratorLoss:
        if self.count == 1:
            return play

        def weighted(fake_logits: Tensor, real_logits: Tensor | None) -> Tensor:
            reals = self._each(real_logits) if real_logits is not None else [None] * self.count
            pairs = zip(self._each(fake_logits), reals, strict=True)
            losses = torch.stack([play(fake, real) for fake, real in pairs])
            return ((self.harshness * losses.detach()).softmax(0) * losses).sum()

        return weighted

    def _each(self, logits: Tensor) -> tuple[Tensor, ...]:
        return logits.chunk(self.count, dim=1)


def members(discriminator: nn.Module) -> list[nn.Module]:
    """Return the discriminators that are trained each by itself: one, or GMAN's several."""
    if isinstance(discriminator, SeveralDiscriminators):
        return list(discriminator.members)
    return [discriminator]
