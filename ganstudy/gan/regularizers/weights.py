"""Penalties and limits on weights and on their gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from ganstudy.gan.regularizers.base import (
    REGULARIZERS,
    Positive,
    Regularizer,
    Role,
    Roles,
    Weight,
)
from ganstudy.registry import component


@REGULARIZERS.register("weight_clip", paper="Arjovsky et al. 2017, arXiv:1701.07875, algorithm 1")
@component
class WeightClip(Regularizer):
    """Clamp every parameter of the discriminator, biases included, after its step.

    Formula:
        penalty: none; w becomes min(max(w, -limit), limit)
        at: every parameter of the discriminator, after its step

    Elsewhere:
        The same in StudioGAN and compare_gan, scales of normalisations included; torchgan clamps
        before the step, so that the generator meets weights beyond the limit.
    """

    limit: Positive = 0.01
    """Largest absolute value of a parameter (c in the paper)."""

    @torch.no_grad()
    def after_step(self, network: nn.Module, role: Role) -> None:
        if role == "discriminator":
            for parameter in network.parameters():
                parameter.clamp_(-self.limit, self.limit)


def kernels(network: nn.Module) -> list[Tensor]:
    """Return the weights of `network` with at least two axes: no biases, no norms' scales."""
    return [p for p in network.parameters() if p.dim() > 1]


def matrices(network: nn.Module) -> list[Tensor]:
    """Return the kernels of `network` as matrices, (outputs, rest).

    torch holds a transposed convolution's weight with its inputs first.
    """
    inputs_first = {
        id(parameter)
        for module in network.modules()
        if isinstance(module, nn.ConvTranspose2d)
        for parameter in module.parameters()
    }
    return [
        (kernel.transpose(0, 1) if id(kernel) in inputs_first else kernel).flatten(1)
        for kernel in kernels(network)
    ]


@REGULARIZERS.register("orthogonal", paper="Brock et al. 2019, arXiv:1809.11096, equation 3")
@component
class Orthogonal(Regularizer):
    """weight * sum |W W^T (1 - I)|^2 over kernels, W as (outputs, rest): only angles count.

    Formula:
        penalty: weight * sum |W W^T (1 - I)|^2
        at: the kernels, as (outputs, rest)

    Elsewhere:
        BigGAN's code adds half of this penalty's gradient, shared embeddings left out. The paper
        writes W^T W; its code, as here, W W^T.
    """

    weight: Weight = 1e-4
    """Factor of the penalty (beta in the paper)."""
    networks: Roles = "discriminator"
    """Whose weights; BigGAN regularised the generator's."""

    def weight_penalty(self, network: nn.Module, role: Role) -> Tensor | None:
        if self.networks not in (role, "both"):
            return None
        parts = []
        for matrix in matrices(network):
            gram = matrix @ matrix.T
            parts.append((gram - gram.diag().diag()).square().sum())
        return self.weight * torch.stack(parts).sum()


@REGULARIZERS.register("l2", paper="Krogh & Hertz 1991; Kurach et al. 2019, arXiv:1807.04720")
@component
class L2(Regularizer):
    """weight / 2 * sum of squares of the kernels, biases and norms' scales left out.

    Formula:
        penalty: weight / 2 * sum of w^2
        penalty (mean_over_kernels): weight / 2 * mean over kernels of the sum of w^2
        at: the kernels

    Elsewhere:
        Kurach's code averages over kernels instead of summing (mean_over_kernels); weight decay of
        an optimiser takes every parameter and, in Adam, is rescaled like a gradient.
    """

    weight: Weight = 1e-4
    """Factor of the penalty."""
    mean_over_kernels: bool = False
    """Whether to divide by the number of kernels, as Kurach's code does."""
    networks: Roles = "discriminator"
    """Whose weights."""

    def weight_penalty(self, network: nn.Module, role: Role) -> Tensor | None:
        if self.networks not in (role, "both"):
            return None
        squares = torch.stack([kernel.square().sum() for kernel in kernels(network)])
        total = squares.mean() if self.mean_over_kernels else squares.sum()
        return self.weight / 2 * total


@REGULARIZERS.register("gradient_clip", paper="Pascanu et al. 2013, arXiv:1211.5063, algorithm 1")
@component
class GradientClip(Regularizer):
    """Scale a network's gradients down so that the norm of all together is at most `max_norm`.

    Formula:
        penalty: none; the gradient g becomes g * min(1, max_norm / |g|)
        at: the gradient of all parameters together, before the step

    Elsewhere:
        The same as torch's clip_grad_norm_; Adam undoes a constant scale, so that it tells only at
        sudden peaks.
    """

    max_norm: Positive = 1.0
    """Largest norm of a network's whole gradient."""
    networks: Roles = "both"
    """Whose gradients."""

    def before_step(self, network: nn.Module, role: Role) -> None:
        if self.networks in (role, "both"):
            clip_grad_norm_(network.parameters(), self.max_norm)
