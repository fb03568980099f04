"""Optimisers and learning-rate schedules by name.

Each optimiser builds one of torch's, or a subclass of one. Each docstring ends with what the
public code bases do under the same name.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import nn

from ganstudy.registry import Component, Registry, component

LearningRate = Annotated[float, Field(gt=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Optimizer(Component, ABC):
    """How one network's weights follow its gradient."""

    extrapolates: ClassVar[bool] = False
    """Whether each update first makes a trial step and then steps by the gradient found there."""

    lr: float

    @abstractmethod
    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return torch's optimiser over `parameters`."""


OPTIMIZERS: Registry[Optimizer] = Registry("optimizer")


@OPTIMIZERS.register("adam", paper="Kingma & Ba 2015, arXiv:1412.6980")
@component
class Adam(Optimizer):
    """Adam; the defaults are DCGAN's (Radford et al. 2016, arXiv:1511.06434).

    Elsewhere:
        StudioGAN's epsilon is 1e-6; mimicry takes betas (0, 0.9), BigGAN's code (0, 0.999).
    """

    lr: LearningRate = 2e-4
    """Learning rate."""
    beta1: Decay = 0.5
    """Decay of the gradient's running mean."""
    beta2: Decay = 0.999
    """Decay of the squared gradient's running mean."""
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the root of the squared gradient's mean."""

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, self.lr, (self.beta1, self.beta2), self.epsilon)


@OPTIMIZERS.register("rmsprop", paper="Tieleman & Hinton 2012, Coursera lecture 6.5")
@component
class RMSProp(Optimizer):
    """RMSProp without momentum, which WGAN's authors used in place of Adam.

    Elsewhere:
        TensorFlow's decays by 0.9, starts the running mean at 1 and adds epsilon inside the root.
    """

    lr: LearningRate = 5e-5
    """Learning rate."""
    decay: Decay = 0.99
    """Decay of the squared gradient's running mean (alpha in torch)."""

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(parameters, self.lr, alpha=self.decay)


@OPTIMIZERS.register("sgd", paper="Robbins & Monro 1951; Polyak 1964")
@component
class SGD(Optimizer):
    """Gradient descent with heavy-ball momentum, none by default; what most GAN theory assumes.

    Elsewhere:
        Keras multiplies each gradient by the learning rate of its own update. Under a schedule
        torch, as here, and tf.train.MomentumOptimizer scale the whole momentum by the new rate.
    """

    lr: LearningRate = 1e-2
    """Learning rate."""
    momentum: Annotated[float, Field(gt=-1, lt=1)] = 0.0
    """Share of the last step that is taken again; may be negative (Gidel et al. 2019,
    arXiv:1807.04740)."""

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        # torch refuses a negative momentum only when it is given to the constructor.
        optimizer = torch.optim.SGD(parameters, self.lr)
        for group in optimizer.param_groups:
            group["momentum"] = self.momentum
        return optimizer


@OPTIMIZERS.register("optimistic_adam", paper="Daskalakis et al. 2018, arXiv:1711.00141, alg. 1")
@component
class OptimisticAdam(Adam):
    """Adam that steps twice its update and takes back the last one: w - 2 u_t + u_(t-1).

    u is Adam's update, bias corrections included, and 0 before the first step, as in the paper.

    Elsewhere:
        Ports differ in the old update: as it was made, as here, or with the bias corrections of
        the step at hand.
    """

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        betas = (self.beta1, self.beta2)
        return OptimisticAdamStep(parameters, self.lr, betas, self.epsilon)


class OptimisticAdamStep(torch.optim.Adam):
    """torch's Adam with the step -2 u_t + u_(t-1)."""

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Make one optimistic step; a closure, which would see no weights, is refused."""
        if closure is not None:
            raise ValueError("optimistic Adam takes no closure")
        with torch.no_grad():
            parameters = [
                p for group in self.param_groups for p in group["params"] if p.grad is not None
            ]
            before = [p.clone() for p in parameters]
            # Adam's update does not depend on the weights: at 0 it is read off without rounding.
            for p in parameters:
                p.zero_()
            super().step()
            for p, start in zip(parameters, before, strict=True):
                update = p.neg()
                last = self.state[p].get("last_update", torch.zeros_like(update))
                p.copy_(start - 2 * update + last)
                self.state[p]["last_update"] = update


@OPTIMIZERS.register(
    "extragradient_sgd", paper="Korpelevich 1976; Gidel et al. 2019, arXiv:1802.10551"
)
@component
class ExtragradientSGD(SGD):
    """Gradient descent by the gradient at an extrapolated point, both networks at once.

    One update computes each gradient twice, on the same batch and latents (Mishchenko et al. 2020,
    arXiv:1905.11373, show why the same): first to extrapolate both networks from where they stand,
    then to step from there. So it costs about twice the time and no more images. Momentum, if any,
    is updated in both halves.

    Elsewhere:
        Gidel's code draws a new batch for the second half, so that an update sees two.
    """

    extrapolates: ClassVar[bool] = True


@OPTIMIZERS.register("extragradient_adam", paper="Gidel et al. 2019, arXiv:1802.10551, alg. 4")
@component
class ExtragradientAdam(Adam):
    """Adam by the gradient at an extrapolated point, both networks at once (ExtraAdam).

    As extragradient_sgd; the running means are updated in both halves, as in the paper.

    Elsewhere:
        Gidel's code draws a new batch for the second half, so that an update sees two.
    """

    extrapolates: ClassVar[bool] = True


class Schedule(Component, ABC):
    """How both networks' learning rates change over the budget; their ratio stays."""

    @abstractmethod
    def factor(self, progress: float) -> float:
        """Return what learning rates are multiplied by.

        Args:
            progress: Share of the budget's discriminator updates made so far, in [0, 1): 0 at the
                first update, 1 - 1 / budget at the last.
        """


SCHEDULES: Registry[Schedule] = Registry("schedule")


@SCHEDULES.register("constant")
@component
class Constant(Schedule):
    """The learning rate stays.

    Elsewhere:
        The default of most GAN code.
    """

    def factor(self, progress: float) -> float:
        return 1.0


@SCHEDULES.register("linear", paper="Gulrajani et al. 2017, arXiv:1704.00028")
@component
class Linear(Schedule):
    """Hold the learning rate, then lower it in a straight line to `final` at the budget's end.

    Elsewhere:
        mimicry decays from the first update; CycleGAN holds it for the first half.
    """

    hold: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the budget before the decay begins."""
    final: Share = 0.0
    """Factor at the end of the budget."""

    def factor(self, progress: float) -> float:
        decayed = max(0.0, progress - self.hold) / (1 - self.hold)
        return 1 - (1 - self.final) * decayed


@SCHEDULES.register("cosine", paper="Loshchilov & Hutter 2017, arXiv:1608.03983, equation 5")
@component
class Cosine(Schedule):
    """Lower the learning rate along half a cosine, without restarts.

    Elsewhere:
        R3GAN (Huang et al. 2024) lowers it so over the first part of training and then holds it.
    """

    final: Share = 0.0
    """Factor at the end of the budget."""

    def factor(self, progress: float) -> float:
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2


@SCHEDULES.register("cyclical", paper="Smith 2017, arXiv:1506.01186 (triangular)")
@component
class Cyclical(Schedule):
    """Let the learning rate rise from `low` to 1 and fall back in straight lines, again and again.

    Elsewhere:
        torch's CyclicLR has its period in updates, and by default cycles momentum too.
    """

    cycles: Annotated[int, Field(ge=1)] = 4
    """Triangles over the budget."""
    low: Share = 0.1
    """Factor at either end of a triangle."""

    def factor(self, progress: float) -> float:
        phase = (progress * self.cycles) % 1.0
        return self.low + (1 - self.low) * (1 - abs(2 * phase - 1))
