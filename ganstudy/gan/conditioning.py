"""How labels enter the game: class-conditional generators and discriminators.

Conditional networks take labels (batch,) int64 beside their input. The fakes of an update are
made for the labels of its real batch: classes come as often as in the data, and a penalty between
a real and a fake image stays within a class.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ganstudy.gan.architectures import Architecture, ImageShape
from ganstudy.gan.architectures.base import Across
from ganstudy.gan.losses import Loss
from ganstudy.gan.regularizers.base import Weight
from ganstudy.registry import Component, Registry, component

if TYPE_CHECKING:
    from ganstudy.gan.config import TrainConfig


class Conditioning(Component):
    """A way to give the networks the labels."""

    uses_labels: ClassVar[bool] = True

    def check(self, config: TrainConfig) -> None:
        """Raise ValueError where the data or the loss has no place for labels."""

    @abstractmethod
    def generator(self, architecture: Architecture, shape: ImageShape, classes: int) -> nn.Module:
        """Return the generator: latents (and labels) -> images."""

    @abstractmethod
    def discriminator(
        self, architecture: Architecture, shape: ImageShape, classes: int, across: Across
    ) -> nn.Module:
        """Return the discriminator: images (and labels) -> logits (batch, judgements)."""

    def class_loss(self, class_logits: list[Tensor], labels: Tensor | None) -> Tensor | None:
        """Return what both networks' losses get for telling classes, or None.

        Args:
            class_logits: (batch, classes) or (batch, classes, judgements), one per pass and head.
            labels: (batch,), those of every pass.
        """
        return None


CONDITIONINGS: Registry[Conditioning] = Registry("conditioning")


@CONDITIONINGS.register("unconditional")
@component
class Unconditional(Conditioning):
    """Labels are not used."""

    uses_labels: ClassVar[bool] = False

    def generator(self, architecture: Architecture, shape: ImageShape, classes: int) -> nn.Module:
        return architecture.generator(shape)

    def discriminator(
        self, architecture: Architecture, shape: ImageShape, classes: int, across: Across
    ) -> nn.Module:
        return architecture.discriminator(shape, across=across)


class ConditionalGenerator(nn.Module):
    """A generator that reads an embedding of the label before its latent."""

    def __init__(self, network: nn.Module, classes: int, embedding_dim: int) -> None:
        """Put an embedding of `classes` labels, drawn from N(0, 1), before `network`."""
        super().__init__()
        self.embedding, self.network = nn.Embedding(classes, embedding_dim), network

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Return images, (batch, channels, height, width)."""
        images: Tensor = self.network(torch.cat([self.embedding(labels), latents], dim=1))
        return images


@component
class Conditional(Conditioning):
    """What conditionings share: the generator, and what they cannot go with."""

    embedding_dim: Annotated[int, Field(ge=1)] = 32
    """Numbers that a label becomes before the generator's latent."""

    def check(self, config: TrainConfig) -> None:
        if config.dataset.classes is None:
            raise ValueError(f"{config.dataset.name} has no labels: use unconditional")
        for split in ("select", "report"):
            labels = config.dataset.labels(split)
            if labels is None or int(labels.max()) >= config.dataset.classes:
                raise ValueError(
                    f"{config.dataset.name} has labels in {split} that its training images lack"
                )
        if not isinstance(config.loss, Loss) or config.loss.reconstruction_power:
            raise ValueError(
                f"{config.loss.name} judges without labels: use unconditional, or another loss"
            )

    def generator(self, architecture: Architecture, shape: ImageShape, classes: int) -> nn.Module:
        wider = replace(architecture, latent_dim=architecture.latent_dim + self.embedding_dim)
        return ConditionalGenerator(wider.generator(shape), classes, self.embedding_dim)


class LabelPlane(nn.Module):
    """A discriminator that reads an embedding of the label as one more channel."""

    def __init__(self, network: nn.Module, classes: int, side: tuple[int, int]) -> None:
        """Put a plane of height and width `side` per label, drawn from N(0, 1), before it."""
        super().__init__()
        self.embedding, self.side = nn.Embedding(classes, math.prod(side)), side
        self.network = network

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the network's logits."""
        plane = self.embedding(labels).view(len(images), 1, *self.side)
        logits: Tensor = self.network(torch.cat([images, plane.to(images)], dim=1))
        return logits


@CONDITIONINGS.register("embedding", paper="Mirza & Osindero 2014, arXiv:1411.1784 (cGAN)")
@component
class Embedding(Conditional):
    """Both networks read an embedding of the label beside their input.

    The generator's goes before the latent, the discriminator's is one more channel of the image.

    Elsewhere:
        The paper concatenates hidden layers of a small perceptron; one-hot planes are common too.
    """

    def discriminator(
        self, architecture: Architecture, shape: ImageShape, classes: int, across: Across
    ) -> nn.Module:
        channels, height, width = shape
        network = architecture.discriminator((channels + 1, height, width), across=across)
        return LabelPlane(network, classes, (height, width))


class Projection(nn.Module):
    """Logit of being real given the label, from a network with 1 + classes outputs."""

    def __init__(self, network: nn.Module) -> None:
        """Read the first output for all labels and the output of the label itself."""
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return logits, (batch, judgements)."""
        outputs = self.network(images)
        rows = torch.arange(len(images), device=labels.device)
        logits: Tensor = outputs[:, 0] + outputs[rows, 1 + labels]
        return logits.view(len(images), -1)


@CONDITIONINGS.register("projection", paper="Miyato & Koyama 2018, arXiv:1802.05637")
@component
class ProjectionConditioning(Conditional):
    """The discriminator's logit is psi(h) + <v_y, h>, h being what its last layer reads.

    v_y is the vector of the label. One linear layer holds psi and all v_y, each with a bias, and
    spectral norm bounds them together. The generator reads an embedding of the label before its
    latent.

    Elsewhere:
        In the paper, StudioGAN and mimicry generators have class-conditional batch norm, and v is
        an embedding with a spectral norm of its own, without bias.
    """

    def discriminator(
        self, architecture: Architecture, shape: ImageShape, classes: int, across: Across
    ) -> nn.Module:
        return Projection(architecture.discriminator(shape, 1 + classes, across))


class ClassLogits(nn.Identity):
    """Passes class logits through; `inputs_of` finds them here."""


class AuxiliaryClassifier(nn.Module):
    """A discriminator that also classifies, from a network with 1 + classes outputs."""

    def __init__(self, network: nn.Module) -> None:
        """Read the first output as logit and the others as class logits."""
        super().__init__()
        self.network, self.class_logits = network, ClassLogits()

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return logits, (batch, judgements)."""
        outputs = self.network(images)
        self.class_logits(outputs[:, 1:])
        logits: Tensor = outputs[:, 0]
        return logits.view(len(images), -1)


@CONDITIONINGS.register("auxiliary_classifier", paper="Odena et al. 2017, arXiv:1610.09585")
@component
class AuxiliaryClassifierConditioning(Conditional):
    """AC-GAN: the discriminator also classifies; either network gains by what is told rightly.

    weight * cross-entropy of the classes is added to the discriminator's loss for reals and for
    fakes, and to the generator's for its fakes. The logit itself does not depend on the label.

    Elsewhere:
        The same in the paper; StudioGAN classifies real images only in the discriminator's loss.
    """

    weight: Weight = 1.0
    """Factor of the cross-entropy."""

    def check(self, config: TrainConfig) -> None:
        Conditional.check(self, config)
        if config.compile:
            raise ValueError("reads inside the discriminator, which compile does not allow")

    def discriminator(
        self, architecture: Architecture, shape: ImageShape, classes: int, across: Across
    ) -> nn.Module:
        return AuxiliaryClassifier(architecture.discriminator(shape, 1 + classes, across))

    def class_loss(self, class_logits: list[Tensor], labels: Tensor | None) -> Tensor | None:
        assert labels is not None  # a conditional game has them
        losses = []
        for logits in class_logits:
            judged = logits.float().reshape(len(logits), logits.shape[1], -1)
            losses.append(cross_entropy(judged, labels[:, None].expand(-1, judged.shape[2])))
        return self.weight * torch.stack(losses).sum()


@contextmanager
def inputs_of(network: nn.Module, kind: type[nn.Module]) -> Iterator[list[Tensor]]:
    """Collect what every module of `kind` inside `network` is given while the block runs."""
    seen: list[Tensor] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        for module in network.modules()
        if isinstance(module, kind)
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
