"""Optimisers by name; each builds torch's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from ganstudy.registry import Component, Registry, component

LearningRate = Annotated[float, Field(gt=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class Optimizer(Component, ABC):
    """How one network's weights follow its gradient."""

    lr: float

    @abstractmethod
    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return torch's optimiser over `parameters`."""


OPTIMIZERS: Registry[Optimizer] = Registry("optimizer")


@OPTIMIZERS.register("adam", paper="Kingma & Ba 2015, arXiv:1412.6980")
@component
class Adam(Optimizer):
    """Adam; the defaults are DCGAN's (Radford et al. 2016, arXiv:1511.06434)."""

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
    """RMSProp without momentum, which WGAN's authors used in place of Adam."""

    lr: LearningRate = 5e-5
    """Learning rate."""
    decay: Decay = 0.99
    """Decay of the squared gradient's running mean (alpha in torch)."""

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(parameters, self.lr, alpha=self.decay)


@OPTIMIZERS.register("sgd", paper="Robbins & Monro 1951")
@component
class SGD(Optimizer):
    """Gradient descent with heavy-ball momentum, none by default."""

    lr: LearningRate = 1e-2
    """Learning rate."""
    momentum: Decay = 0.0
    """Share of the last step that is taken again."""

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, self.lr, self.momentum)
