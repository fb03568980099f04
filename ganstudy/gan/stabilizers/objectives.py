"""Stabilisers that change what the generator is trained on, or against what."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from ganstudy.gan.losses import Loss
from ganstudy.gan.stabilizers.base import STABILIZERS, GeneratorLoss, Network, Stabilizer, Turn
from ganstudy.registry import component

if TYPE_CHECKING:
    from ganstudy.gan.config import TrainConfig


@STABILIZERS.register("feature_matching", paper="Salimans et al. 2016, arXiv:1606.03498")
@component
class FeatureMatching(Stabilizer):
    """The generator matches the mean features of real images inside the discriminator.

    It minimises weight * |E h(real) - E h(fake)|^2, h being the features from which the
    discriminator judges (before minibatch layers), in place of its loss as in the paper, or beside
    it. Several heads count by their mean.

    Elsewhere:
        StudioGAN takes the mean absolute difference of the means; torchgan the squared difference
        of paired samples, which matches no distribution.
    """

    weight: Annotated[float, Field(ge=0)] = 1.0
    """Factor of the distance; 0 is off."""
    alone: bool = True
    """Whether it takes the place of the generator's loss (the paper), or is added to it."""

    def check(self, config: TrainConfig) -> None:
        if self.weight == 0:
            return
        if config.compile:
            raise ValueError("reads inside the discriminator, which compile does not allow")
        if isinstance(config.loss, Loss) and config.loss.reconstruction_power:
            raise ValueError(f"{config.loss.name} judges by reconstruction, not from features")
        if self.alone and any(isinstance(s, TopK) and s.share < 1 for s in config.stabilizers):
            raise ValueError(
                "takes the place of the loss that top_k selects for: alone: false adds it instead"
            )

    @property
    def reads_features(self) -> bool:
        return self.weight > 0

    def generator_loss(self, play: GeneratorLoss, turn: Turn) -> GeneratorLoss:
        if self.weight == 0:
            return play

        def matched(fake_logits: Tensor, real_logits: Tensor | None) -> Tensor:
            assert turn.features is not None  # reads_features asked for them
            distances = [
                (fake.mean(dim=0) - real.mean(dim=0)).square().sum()
                for fake, real in zip(*turn.features, strict=True)
            ]
            distance = self.weight * torch.stack(distances).mean()
            return distance if self.alone else play(fake_logits, real_logits) + distance

        return matched


@STABILIZERS.register("top_k", paper="Sinha et al. 2020, arXiv:2002.06224")
@component
class TopK(Stabilizer):
    """The generator learns from those of its fakes only that the discriminator likes best.

    Their share falls exponentially from 1 to `share` at `until` of the budget, and stays.

    Elsewhere:
        The paper multiplies k by a factor (0.99 on CIFAR-10) after every epoch, whatever the
        budget, down to half or three quarters of the batch.
    """

    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the batch that is kept in the end (nu in the paper); 1 is off."""
    until: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the budget at which it is reached."""

    def generator_loss(self, play: GeneratorLoss, turn: Turn) -> GeneratorLoss:
        if self.share == 1:
            return play
        share = self.share ** min(1.0, turn.progress / self.until)

        def best(fake_logits: Tensor, real_logits: Tensor | None) -> Tensor:
            kept = max(1, round(share * len(fake_logits)))
            rows = fake_logits.mean(dim=1).topk(kept).indices
            return play(fake_logits[rows], None if real_logits is None else real_logits[rows])

        return best


@STABILIZERS.register("unrolled_discriminator", paper="Metz et al. 2017, arXiv:1611.02163")
@component
class UnrolledDiscriminator(Stabilizer):
    """The generator plays against the discriminator as it will be some updates later.

    Those updates are made on this update's reals and fakes, by the discriminator's own optimiser
    as it stands, and are differentiated through; then they are forgotten. Their loss is that of
    the game alone: penalties, clips and the telling of classes are no part of them. With 5 steps
    an update takes about seven times as long.

    Elsewhere:
        The authors' code unrolls Adam through a copied graph, with the same batch in every step,
        as here; many codes copy the discriminator and differentiate through nothing, which is
        another method.
    """

    steps: Annotated[int, Field(ge=0)] = 5
    """Discriminator updates that are looked ahead (k in the paper); 0 is off."""

    def check(self, config: TrainConfig) -> None:
        if self.steps and config.discriminator_optimizer.name not in ("adam", "sgd"):
            raise ValueError(
                f"looks ahead with adam or sgd, not with {config.discriminator_optimizer.name}"
            )

    def opponent(
        self,
        discriminator: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: Callable[[Network], Tensor],
    ) -> Network | None:
        if self.steps == 0:
            return None
        names = [name for name, _ in discriminator.named_parameters()]
        start = list(discriminator.parameters())
        weights = [value.detach().clone().requires_grad_() for value in start]
        stepper = LookAhead(optimizer, start)

        def network(images: Tensor, *labels: Tensor) -> Tensor:
            # Buffers are copies: running statistics and spectral norm's vectors stay as they are.
            buffers = {name: value.clone() for name, value in discriminator.named_buffers()}
            values = dict(zip(names, weights, strict=True)) | buffers
            logits: Tensor = functional_call(discriminator, values, (images, *labels))
            return logits

        for _ in range(self.steps):
            # A growing network has weights that are not in use yet: their gradient is 0.
            gradients = torch.autograd.grad(
                loss(network),
                weights,
                create_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            weights = stepper.step(weights, list(gradients))
        return network


class LookAhead:
    """Differentiable steps of Adam or SGD, from where an optimiser stands, which stays there."""

    def __init__(self, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
        """Copy the moments of `parameters`, which `optimizer` moves."""
        self.group, self.adam = optimizer.param_groups[0], "betas" in optimizer.param_groups[0]
        state = [optimizer.state.get(p, {}) for p in parameters]
        # Not one for all: a growing network's later stages have made fewer steps.
        self.made = [int(s.get("step", 0)) for s in state]
        key = "exp_avg" if self.adam else "momentum_buffer"
        self.first = [_moment(s, key, p) for s, p in zip(state, parameters, strict=True)]
        self.second = [_moment(s, "exp_avg_sq", p) for s, p in zip(state, parameters, strict=True)]

    def step(self, weights: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
        """Return the weights one step further."""
        moved = self._adam(gradients) if self.adam else self._sgd(gradients)
        lr = self.group["lr"]
        return [w - lr * m for w, m in zip(weights, moved, strict=True)]

    def _adam(self, gradients: list[Tensor]) -> list[Tensor]:
        beta1, beta2 = self.group["betas"]
        self.made = [made + 1 for made in self.made]
        self.first = [torch.lerp(g, m, beta1) for m, g in zip(self.first, gradients, strict=True)]
        self.second = [
            torch.lerp(g.square(), v, beta2) for v, g in zip(self.second, gradients, strict=True)
        ]
        eps = self.group["eps"]
        moved = []
        for m, v, made in zip(self.first, self.second, self.made, strict=True):
            # The root of exactly 0 has no derivative: a weight without any gradient stays put.
            root = torch.where(v > 0, v, 1.0).sqrt() / math.sqrt(1 - beta2**made)
            moved.append(m / (1 - beta1**made) / (root + eps))
        return moved

    def _sgd(self, gradients: list[Tensor]) -> list[Tensor]:
        momentum = self.group["momentum"]
        self.first = [momentum * m + g for m, g in zip(self.first, gradients, strict=True)]
        return self.first


def _moment(state: dict[str, Tensor], key: str, parameter: nn.Parameter) -> Tensor:
    found = state.get(key)
    return torch.zeros_like(parameter) if found is None else found.detach().clone()
