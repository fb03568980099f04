"""Objectives. r = logits on real, f = logits on fake, both (batch, 1) -> scalar; s = softplus.

Every loss takes logits, never probabilities, and averages over the batch. Each docstring ends
with its formula, E[...] being the mean over the batch, and with what the public code bases compute
under the same name.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import relu, softplus

from ganstudy.registry import Component, Registry, component

Memory = dict[str, Tensor]
"""What a component carries from one update to the next; the trainer saves and resumes it."""
Variant = Literal["reference", "agce_code"]
"""`agce_code` is what the public code of Lucic et al. 2018 computes where its papers differ."""


class Objective(Component):
    """What a model is trained on: a `Loss` of two networks, or the bound of a VAE."""

    boundary: ClassVar[float | None] = None
    """The logit of an undecided discriminator, above which it takes an image for real; None where
    a logit means nothing by itself (Wasserstein, relativistic and energy-based losses)."""


class Loss(Objective, ABC):
    """What the two networks minimise."""

    generator_reads_real: ClassVar[bool] = False
    """Whether `generator` needs the logits on real images (relativistic losses do)."""
    reconstruction_power: ClassVar[int] = 0
    """0: logits of a plain discriminator. p > 0: the discriminator is an auto-encoder A and its
    logit minus the energy mean |x - A(x)|^p."""

    @abstractmethod
    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Return the discriminator's loss.

        Args:
            real_logits: Logits on real images, (batch, 1).
            fake_logits: Logits on generated images, (batch, 1).
        """

    @abstractmethod
    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """Return the generator's loss; `real_logits` only where `generator_reads_real`."""

    def memory(self) -> Memory:
        """Return what this loss remembers, before the first update."""
        return {}

    def discriminator_with(
        self, memory: Memory, real_logits: Tensor, fake_logits: Tensor
    ) -> Tensor:
        """Return the discriminator's loss at `memory`; what the trainer calls."""
        return self.discriminator(real_logits, fake_logits)

    def remember(self, memory: Memory, real_logits: Tensor, fake_logits: Tensor) -> None:
        """Change `memory` in place after a discriminator update that saw these logits."""


LOSSES: Registry[Objective] = Registry("loss")


@LOSSES.register("non_saturating", paper="Goodfellow et al. 2014, arXiv:1406.2661, section 3")
@component
class NonSaturating(Loss):
    """Logistic loss; the generator maximises log D(fake): E s(-r) + E s(f), then E s(-f).

    Formula:
        discriminator: E[s(-r)] + E[s(f)]
        generator: E[s(-f)]
        sigmoid: yes

    Elsewhere:
        The default of most code bases ("vanilla", "logistic"). One of them calls it minimax, and
        adds 1e-8 inside a logarithm of sigmoids in its non-saturating form, which stops the
        gradient where the discriminator is sure.
    """

    boundary: ClassVar[float | None] = 0.0

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return softplus(-real_logits).mean() + softplus(fake_logits).mean()

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return softplus(-fake_logits).mean()


@LOSSES.register("minimax", paper="Goodfellow et al. 2014, arXiv:1406.2661, equation 1")
@component
class Minimax(NonSaturating):
    """Logistic loss; the generator minimises log(1 - D(fake)): it saturates where D is sure.

    Formula:
        discriminator: E[s(-r)] + E[s(f)]
        generator: -E[s(f)]
        sigmoid: yes

    Elsewhere:
        The same in compare_gan ("GAN_MINMAX") and torchgan; mimicry's loss of that name is the
        non-saturating one.
    """

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return -softplus(fake_logits).mean()


@LOSSES.register("least_squares", paper="Mao et al. 2017, arXiv:1611.04076, equation 9")
@component
class LeastSquares(Loss):
    """Squared distance to 0 / 1 targets: E (r - 1)^2 / 2 + E f^2 / 2, then E (f - 1)^2 / 2.

    Formula:
        discriminator: E[(r - 1)^2] / 2 + E[f^2] / 2
        generator: E[(f - 1)^2] / 2
        sigmoid: no
        discriminator (agce_code): E[(sigmoid(r) - 1)^2] / 2 + E[sigmoid(f)^2] / 2
        generator (agce_code): E[(sigmoid(f) - 1)^2] / 2
        sigmoid (agce_code): yes

    Elsewhere:
        StudioGAN and torchgan are the same; mmgeneration leaves the halves out, which doubles the
        gradient; compare_gan, AGCE's code, applies it to the sigmoid of the logits, so that it
        saturates (variant: agce_code); hwalsuklee's collection takes a root of the sum.
    """

    variant: Variant = "reference"
    """reference: on logits; agce_code: on their sigmoid."""

    @property
    def boundary(self) -> float:  # type: ignore[override]
        """The logit halfway between the targets."""
        return 0.5 if self.variant == "reference" else 0.0

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        real, fake = self._read(real_logits), self._read(fake_logits)
        return ((real - 1).square().mean() + fake.square().mean()) / 2

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return (self._read(fake_logits) - 1).square().mean() / 2

    def _read(self, logits: Tensor) -> Tensor:
        return logits if self.variant == "reference" else logits.sigmoid()


@LOSSES.register("wasserstein", paper="Arjovsky et al. 2017, arXiv:1701.07875")
@component
class Wasserstein(Loss):
    """Difference of mean logits, E f - E r, then -E f; needs a Lipschitz bound from elsewhere.

    Formula:
        discriminator: E[f] - E[r]
        generator: -E[f]
        sigmoid: no

    Elsewhere:
        The same everywhere; what differs is how the bound is kept (see the regularisers).
    """

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return fake_logits.mean() - real_logits.mean()

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return -fake_logits.mean()


@LOSSES.register("hinge", paper="Lim & Ye 2017, arXiv:1705.02894; Miyato et al. 2018")
@component
class Hinge(Loss):
    """Margin loss E relu(1 - r) + E relu(1 + f); the generator minimises -E f, unbounded.

    Formula:
        discriminator: E[relu(1 - r)] + E[relu(1 + f)]
        generator: -E[f]
        sigmoid: no

    Elsewhere:
        The same in StudioGAN, compare_gan, mimicry and BigGAN.
    """

    boundary: ClassVar[float | None] = 0.0

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return relu(1 - real_logits).mean() + relu(1 + fake_logits).mean()

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return -fake_logits.mean()


@LOSSES.register(
    "relativistic_pairing",
    paper="Jolicoeur-Martineau 2018, arXiv:1807.00734, section 4.1; Huang et al. 2024",
)
@component
class RelativisticPairing(Loss):
    """Logistic loss of the difference within pairs: E s(f - r), then E s(r - f).

    Real i is paired with fake i, both drawn at random. The generator reads the logits of the real
    batch that its discriminator was last trained on, so that no arm sees more images.

    Formula:
        discriminator: E[s(f - r)]
        generator: E[s(r - f)]
        sigmoid: yes

    Elsewhere:
        "RpGAN" (R3GAN); "RSGAN" in its first paper.
    """

    generator_reads_real: ClassVar[bool] = True

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return softplus(fake_logits - real_logits).mean()

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return softplus(_given(real_logits) - fake_logits).mean()


@LOSSES.register(
    "relativistic_average",
    paper="Jolicoeur-Martineau 2018, arXiv:1807.00734, section 4.3 (RaSGAN)",
)
@component
class RelativisticAverage(Loss):
    """Logistic loss against the other side's mean: E s(E f - r) + E s(f - E r); G swaps r and f.

    Gradients flow through the means too, as in the paper.

    Formula:
        discriminator: E[s(E[f] - r)] + E[s(f - E[r])]
        generator: E[s(E[r] - f)] + E[s(r - E[f])]
        sigmoid: yes

    Elsewhere:
        The author's own code halves the sum: beside a penalty, that doubles the penalty's share.
    """

    generator_reads_real: ClassVar[bool] = True

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        real, fake = real_logits - fake_logits.mean(), fake_logits - real_logits.mean()
        return softplus(-real).mean() + softplus(fake).mean()

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return self.discriminator(fake_logits, _given(real_logits))


@LOSSES.register("energy_based", paper="Zhao et al. 2017, arXiv:1609.03126")
@component
class EnergyBased(Loss):
    """Hinge on energies e = -logit of an auto-encoder: E e_r + E relu(margin - e_f), then E e_f.

    The discriminator is an auto-encoder A, its energy the mean squared error |x - A(x)|^2 over
    pixels in [-1, 1]. The pulling-away term of the paper is not included.

    Formula:
        discriminator: E[e_r] + E[relu(margin - e_f)]
        generator: E[e_f]
        sigmoid: no

    Elsewhere:
        torchgan is the same with any module's output as energy; hwalsuklee's collection
        takes a root of the batch's summed error and a margin of max(1, batch / 64).
    """

    reconstruction_power: ClassVar[int] = 2

    margin: Annotated[float, Field(gt=0)] = 1.0
    """Energy above which a fake costs the discriminator nothing (m in the paper)."""

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return -real_logits.mean() + relu(self.margin + fake_logits).mean()

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return -fake_logits.mean()


@LOSSES.register("boundary_equilibrium", paper="Berthelot et al. 2017, arXiv:1703.10717")
@component
class BoundaryEquilibrium(Loss):
    """Energies e = -logit of an auto-encoder: E e_r - k E e_f, then E e_f, with k kept in balance.

    The energy is the mean absolute error |x - A(x)| over pixels in [-1, 1]. After every
    discriminator update k += k_rate (gamma e_r - e_f), from k = 0, clamped to [0, 1] as in the
    paper; both energies are those of that update's batches.

    Formula:
        discriminator: E[e_r] - k * E[e_f]
        generator: E[e_f]
        sigmoid: no

    Elsewhere:
        torchgan and hwalsuklee's collection clamp k; compare_gan, AGCE's code, does not, and its
        images in [0, 1] halve the energies that move k (variant: agce_code); it takes them anew
        after the update.
    """

    reconstruction_power: ClassVar[int] = 1

    gamma: Annotated[float, Field(ge=0, le=1)] = 0.75
    """Wanted ratio of the energies, e_f / e_r: lower gives sharper and less diverse images."""
    k_rate: Annotated[float, Field(gt=0)] = 1e-3
    """How fast k moves (lambda_k in the paper)."""
    variant: Variant = "reference"
    """reference: k is clamped to [0, 1]; agce_code: it is not, and energies are half as large."""

    def memory(self) -> Memory:
        return {"k": torch.zeros(())}

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return self.discriminator_with(self.memory(), real_logits, fake_logits)

    def discriminator_with(
        self, memory: Memory, real_logits: Tensor, fake_logits: Tensor
    ) -> Tensor:
        return -real_logits.mean() + memory["k"].to(fake_logits) * fake_logits.mean()

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return -fake_logits.mean()

    def remember(self, memory: Memory, real_logits: Tensor, fake_logits: Tensor) -> None:
        k = memory["k"]
        imbalance = (fake_logits.mean() - self.gamma * real_logits.mean()).to(k)
        k += self.k_rate * (imbalance if self.variant == "reference" else imbalance / 2)
        if self.variant == "reference":
            k.clamp_(0, 1)


@component
class FDivergence(Loss, ABC):
    """Minus the variational bound of an f-divergence: -E g(r) + E f*(g(f)), g its activation.

    Where exponentials stand, logits beyond some 88 overflow float32: such a run diverges.
    """

    boundary: ClassVar[float | None] = 0.0

    non_saturating: bool = False
    """Whether the generator maximises E g(f), the paper's practical form, not minimises -E f*."""

    @abstractmethod
    def activation(self, logits: Tensor) -> Tensor:
        """Return g(v), table 2 of the paper: the bound's variational function."""

    @abstractmethod
    def conjugate(self, logits: Tensor) -> Tensor:
        """Return f*(g(v)), the Fenchel conjugate at the activation."""

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return self.conjugate(fake_logits).mean() - self.activation(real_logits).mean()

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        function = self.activation if self.non_saturating else self.conjugate
        return -function(fake_logits).mean()


F_GAN = "Nowozin et al. 2016, arXiv:1606.00709, table 2"


@LOSSES.register("kl", paper=F_GAN)
@component
class KullbackLeibler(FDivergence):
    """f-GAN bound of KL(data || model): g(v) = v, f*(g(v)) = exp(v - 1); unbounded gradients.

    Formula:
        discriminator: E[exp(f - 1)] - E[r]
        generator: -E[exp(f - 1)]
        generator (non_saturating): -E[f]
        sigmoid: no

    Elsewhere:
        In few code bases; without the paper's activation the conjugate's domain is left.
    """

    boundary: ClassVar[float | None] = 1.0

    def activation(self, logits: Tensor) -> Tensor:
        return logits

    def conjugate(self, logits: Tensor) -> Tensor:
        return (logits - 1).exp()


@LOSSES.register("reverse_kl", paper=F_GAN)
@component
class ReverseKullbackLeibler(FDivergence):
    """f-GAN bound of KL(model || data): g(v) = -exp(-v), f*(g(v)) = v - 1.

    Formula:
        discriminator: E[f - 1] + E[exp(-r)]
        generator: -E[f - 1]
        generator (non_saturating): E[exp(-f)]
        sigmoid: no

    Elsewhere:
        In few code bases; some write the activation as -exp(v), the same game with signs of the
        logits swapped.
    """

    def activation(self, logits: Tensor) -> Tensor:
        return -(-logits).exp()

    def conjugate(self, logits: Tensor) -> Tensor:
        return logits - 1


@LOSSES.register("pearson_chi2", paper=F_GAN)
@component
class PearsonChiSquared(FDivergence):
    """f-GAN bound of the Pearson chi-squared divergence: g(v) = v, f*(g(v)) = v^2 / 4 + v.

    Formula:
        discriminator: E[f^2 / 4 + f] - E[r]
        generator: -E[f^2 / 4 + f]
        generator (non_saturating): -E[f]
        sigmoid: no

    Elsewhere:
        Least squares with targets -1, 1 and 0 minimises a relative of it: the divergence of
        data + model from twice the model (Mao et al. 2017).
    """

    def activation(self, logits: Tensor) -> Tensor:
        return logits

    def conjugate(self, logits: Tensor) -> Tensor:
        return logits.square() / 4 + logits


@LOSSES.register("squared_hellinger", paper=F_GAN)
@component
class SquaredHellinger(FDivergence):
    """f-GAN bound of the squared Hellinger distance: g(v) = 1 - exp(-v), f*(g(v)) = exp(v) - 1.

    Formula:
        discriminator: E[exp(f) - 1] - E[1 - exp(-r)]
        generator: -E[exp(f) - 1]
        generator (non_saturating): -E[1 - exp(-f)]
        sigmoid: no

    Elsewhere:
        In few code bases; t / (1 - t) computed from g instead of exp(v) - 1 overflows early.
    """

    def activation(self, logits: Tensor) -> Tensor:
        return -torch.expm1(-logits)

    def conjugate(self, logits: Tensor) -> Tensor:
        return torch.expm1(logits)


@LOSSES.register("jensen_shannon", paper=F_GAN)
@component
class JensenShannon(FDivergence):
    """f-GAN bound of Jensen-Shannon: g(v) = log 2 - s(-v), f*(g(v)) = s(v) - log 2.

    Formula:
        discriminator: E[s(f) - log(2)] - E[log(2) - s(-r)]
        generator: -E[s(f) - log(2)]
        generator (non_saturating): -E[log(2) - s(-f)]
        sigmoid: yes

    Elsewhere:
        The minimax loss less 2 log 2 in the discriminator, plus log 2 in the generator: the same
        gradients.
    """

    def activation(self, logits: Tensor) -> Tensor:
        return math.log(2) - softplus(-logits)

    def conjugate(self, logits: Tensor) -> Tensor:
        return softplus(logits) - math.log(2)


@LOSSES.register("vae", paper="Kingma & Welling 2014, arXiv:1312.6114")
@component
class EvidenceLowerBound(Objective):
    """No game: a variational auto-encoder, the baseline of Lucic et al. 2018.

    Minimises E sum BCE(x, decoded) + KL(q(z|x) || N(0, I)), with pixels and decoder means in
    [0, 1] and one draw of z per image. The generator is the decoder; the encoder is the
    discriminator's network with 2 latent_dim outputs, the mean and what softplus turns into the
    standard deviation (+ 1e-6). There being no discriminator, its budget is counted in generator
    updates, one per batch of real images, so that it sees as many images as an arm with as many
    discriminator updates; `n_critic` and `generator_steps` change nothing.

    Formula:
        discriminator: none, its network is the encoder
        generator: E[sum of BCE(x, decoded)] + KL(q(z|x) || N(0, I))
        generator (agce_code): E[sum of BCE(x, decoded)] / channels + KL(q(z|x) || N(0, I))
        sigmoid: no

    Elsewhere:
        compare_gan, AGCE's code, sums the likelihood over height and width and averages it over
        channels, a third of the bound's weight on colour images (variant: agce_code); its first
        release evaluated the VAE on uniform latents it was not trained on.
    """

    variant: Variant = "reference"
    """reference: the likelihood is summed over channels; agce_code: averaged over them."""


def _given(real_logits: Tensor | None) -> Tensor:
    if real_logits is None:
        raise ValueError("a relativistic loss needs the logits on real images: real_logits=")
    return real_logits


def logit_slope(
    loss: Callable[[Tensor, Tensor | None], Tensor],
    fake_logits: Tensor,
    real_logits: Tensor | None = None,
) -> Tensor | None:
    """Return mean |dL_G / df| per sample: how much the loss lets the generator learn.

    None where the generator's loss does not look at the logits, but at features alone.
    The mean over the batch that every loss takes is undone, so that 1 is the slope of the
    Wasserstein loss at any batch size. Adam hides a vanishing slope from gradient norms.
    """
    logits = fake_logits.detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(
            loss(logits, real_logits), logits, retain_graph=True, allow_unused=True
        )
    return None if slope is None else slope.abs().sum()


def auc(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return P(r > f) + P(r = f) / 2 over all pairs: how well D tells the two apart.

    Several judgements of one image count by their mean. Unlike accuracy at logit 0 it means the
    same for every loss. NaN if a logit is not finite.
    """
    difference = real_logits.mean(dim=1)[:, None] - fake_logits.mean(dim=1)[None, :]
    wins = (difference > 0).double() + (difference == 0).double() / 2
    return torch.where(difference.isfinite().all(), wins.mean(), torch.nan)
