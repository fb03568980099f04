"""Penalties on the gradient of the discriminator's logit by its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import relu

from ganstudy.gan.losses import Variant
from ganstudy.gan.regularizers.base import REGULARIZERS, Network, Positive, Regularizer, Weight
from ganstudy.registry import component


def input_gradient_norm(
    discriminator: Network, images: Tensor, *, differentiable: bool = True
) -> Tensor:
    """Return the L2 norm of the gradient of each sample's logit at `images`, (batch,).

    The norm is over all of channels, height and width, and over all images of a pack. At a
    gradient of exactly zero torch's norm has derivative 0, so nothing needs to be added inside
    the root.

    Args:
        discriminator: Images -> logits.
        images: Where, (batch, channels, height, width).
        differentiable: Whether the norms can be differentiated again, as a penalty's must.
    """
    gradients = input_gradients(discriminator, images, differentiable=differentiable)
    return gradients.norm(dim=1)


def input_gradients(
    discriminator: Network,
    images: Tensor,
    squash: Callable[[Tensor], Tensor] | None = None,
    *,
    differentiable: bool = True,
) -> Tensor:
    """Return the gradient of each sample's logit, squashed first, at `images`, (batch, numbers).

    A discriminator that judges in several places is differentiated in the mean of its judgements,
    which is what a Wasserstein loss takes for its critic. One that judges packs has a row a pack.
    """
    images = images.detach().requires_grad_()
    logits = discriminator(images)
    outputs = (logits if squash is None else squash(logits)).mean(dim=1)
    (gradient,) = torch.autograd.grad(outputs.sum(), images, create_graph=differentiable)
    return gradient.reshape(len(logits), -1)


def agce_norm(gradient: Tensor) -> Tensor:
    """Return sqrt(1e-4 + |2 gradient|^2) per sample, as AGCE's code has it.

    Twice, since that code holds images in [0, 1]: the same step in pixels is half as long there.
    """
    return (1e-4 + (2 * gradient).square().sum(1)).sqrt()


def between(real: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
    """Return points on the lines from fakes to reals, one uniform alpha per sample."""
    alpha = torch.rand(len(real), 1, 1, 1, generator=rng).to(real)
    return torch.lerp(fake, real, alpha)


@REGULARIZERS.register("gradient_penalty", paper="Gulrajani et al. 2017, arXiv:1704.00028")
@component
class GradientPenalty(Regularizer):
    """weight * E (norm - target)^2 of the logit's gradient between real and fake (WGAN-GP).

    One alpha per sample; the norm over all pixels of an image in [-1, 1].

    Formula:
        penalty: weight * E[(|grad D(x)| - target)^2]
        penalty (one_sided): weight * E[relu(|grad D(x)| - target)^2]
        penalty (agce_code): weight * E[(sqrt(1e-4 + |2 grad D(x)|^2) - target)^2]
        penalty (agce_code, one_sided): weight * E[relu(sqrt(1e-4 + |2 grad D(x)|^2) - target)^2]
        at: points between real and fake, one uniform share per sample

    Elsewhere:
        StudioGAN, mimicry and PyTorch-GAN are the same; compare_gan, AGCE's code, adds 1e-4 inside
        the root, on images in [0, 1] (variant: agce_code); torchgan draws one alpha per batch and
        takes one norm over the batch; mmgeneration's default takes norms over channels only;
        hwalsuklee's collection over the height only, one alpha per pixel. Mescheder's code has
        target 0.3 and a weight of 1 / 2.
    """

    differentiates_input: ClassVar[bool] = True

    weight: Weight = 10.0
    """Factor of the penalty (lambda in the paper)."""
    target: Weight = 1.0
    """Norm of the gradient that costs nothing."""
    one_sided: bool = False
    """Whether only norms above the target cost (section 4 of the paper; Petzka et al. 2018)."""
    variant: Variant = "reference"
    """reference: the paper's; agce_code: sqrt(1e-4 + norm^2), on images in [0, 1]."""

    def penalty(
        self, discriminator: Network, real: Tensor, fake: Tensor, rng: torch.Generator
    ) -> Tensor:
        gradient = input_gradients(discriminator, between(real, fake, rng))
        agce = self.variant == "agce_code"
        excess = (agce_norm(gradient) if agce else gradient.norm(dim=1)) - self.target
        return self.weight * (relu(excess) if self.one_sided else excess).square().mean()


@REGULARIZERS.register("dragan", paper="Kodali et al. 2017, arXiv:1705.07215")
@component
class DRAGAN(Regularizer):
    """weight * E (norm - target)^2 of the logit's gradient at noisy real images.

    The noise is Gaussian, its standard deviation `noise` times that of the batch's pixels.

    Formula:
        penalty: weight * E[(|grad D(x)| - target)^2]
        at: real images plus noise * std(real) * N(0, I)
        penalty (agce_code): weight * E[(sqrt(1e-4 + |2 grad sigmoid(D(x))|^2) - target)^2]
        at (agce_code): real images plus noise * std(real) * a * u; a of a sample and u of a
            pixel in U(0, 1)

    Elsewhere:
        Its authors' and most public codes draw uniform noise of one sign, x + u std(x) / 2,
        StudioGAN times an alpha per sample; AGCE's code (variant: agce_code) does so too and
        differentiates the sigmoid of the logit, with 1e-4 inside the root, on images in [0, 1].
        torchgan takes one norm over the batch, PyTorch-GAN over channels only.
    """

    differentiates_input: ClassVar[bool] = True

    weight: Weight = 10.0
    """Factor of the penalty (lambda in the paper)."""
    target: Weight = 1.0
    """Norm of the gradient that costs nothing (k in the paper)."""
    noise: Positive = 0.5
    """Scale of the noise, in standard deviations of the real batch over all its pixels."""
    variant: Variant = "reference"
    """reference: Gaussian noise, gradient of the logit; agce_code: one-sided, of its sigmoid."""

    def penalty(
        self, discriminator: Network, real: Tensor, fake: Tensor, rng: torch.Generator
    ) -> Tensor:
        scale = self.noise * real.std()
        if self.variant == "reference":
            noise = torch.randn(real.shape, generator=rng).to(real)
            norms = input_gradient_norm(discriminator, real + scale * noise)
        else:
            alpha = torch.rand(len(real), 1, 1, 1, generator=rng).to(real)
            noise = alpha * torch.rand(real.shape, generator=rng).to(real)
            norms = agce_norm(
                input_gradients(discriminator, real + scale * noise, squash=torch.sigmoid)
            )
        return self.weight * (norms - self.target).square().mean()


@REGULARIZERS.register("r1", paper="Mescheder et al. 2018, arXiv:1801.04406, equation 9")
@component
class R1(Regularizer):
    """weight / 2 * E norm^2 of the logit's gradient at real images; the half is the paper's.

    Formula:
        penalty: weight / 2 * E[|grad D(x)|^2]
        at: real images

    Elsewhere:
        StudioGAN is the same, at augmented reals; mmgeneration leaves the half out, and its
        default averages over pixels instead of summing (a factor of 2 / (height width)).
    """

    differentiates_input: ClassVar[bool] = True

    weight: Weight = 10.0
    """Factor of the penalty (gamma in the paper)."""

    def penalty(
        self, discriminator: Network, real: Tensor, fake: Tensor, rng: torch.Generator
    ) -> Tensor:
        return self.weight / 2 * input_gradient_norm(discriminator, real).square().mean()


@REGULARIZERS.register("r2", paper="Mescheder et al. 2018, arXiv:1801.04406, equation 10")
@component
class R2(Regularizer):
    """weight / 2 * E norm^2 of the logit's gradient at generated images.

    Formula:
        penalty: weight / 2 * E[|grad D(x)|^2]
        at: generated images

    Elsewhere:
        The same in R3GAN (Huang et al. 2024), together with R1 at the same weight.
    """

    differentiates_input: ClassVar[bool] = True

    weight: Weight = 10.0
    """Factor of the penalty (gamma in the paper)."""

    def penalty(
        self, discriminator: Network, real: Tensor, fake: Tensor, rng: torch.Generator
    ) -> Tensor:
        return self.weight / 2 * input_gradient_norm(discriminator, fake).square().mean()


@REGULARIZERS.register(
    "zero_centered_gradient_penalty", paper="Thanh-Tung et al. 2019, arXiv:1902.03984, section 5"
)
@component
class ZeroCenteredGradientPenalty(Regularizer):
    """weight * E norm^2 of the logit's gradient at points between real and fake.

    Formula:
        penalty: weight * E[|grad D(x)|^2]
        at: points between real and fake, one uniform share per sample

    Elsewhere:
        Often gradient_penalty with target 0, the same function; the authors' code draws one alpha
        per sample, as here.
    """

    differentiates_input: ClassVar[bool] = True

    weight: Weight = 10.0
    """Factor of the penalty (lambda in the paper); no half."""

    def penalty(
        self, discriminator: Network, real: Tensor, fake: Tensor, rng: torch.Generator
    ) -> Tensor:
        points = between(real, fake, rng)
        return self.weight * input_gradient_norm(discriminator, points).square().mean()


@REGULARIZERS.register("max_gradient_penalty", paper="Zhou et al. 2019, arXiv:1902.05687 (LGAN)")
@component
class MaxGradientPenalty(Regularizer):
    """weight * max norm^2 over the batch of the logit's gradient between real and fake.

    Formula:
        penalty: weight * max |grad D(x)|^2 over the batch
        at: points between real and fake, one uniform share per sample

    Elsewhere:
        The same in StudioGAN, there with the logistic loss.
    """

    differentiates_input: ClassVar[bool] = True

    weight: Weight = 10.0
    """Factor of the penalty (lambda in the paper)."""

    def penalty(
        self, discriminator: Network, real: Tensor, fake: Tensor, rng: torch.Generator
    ) -> Tensor:
        norms = input_gradient_norm(discriminator, between(real, fake, rng))
        return self.weight * norms.square().max()
