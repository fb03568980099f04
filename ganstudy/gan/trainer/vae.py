"""Training of a variational auto-encoder, the baseline without a game."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy, softplus

from ganstudy.gan.config import TrainConfig
from ganstudy.gan.losses import EvidenceLowerBound
from ganstudy.gan.trainer.base import ROLES, NetworkTrainer, grad_norm


class VaeTrainer(NetworkTrainer):
    """Training of a variational auto-encoder: the generator decodes, an encoder stands opposite.

    One update of both per batch of real images, counted as an update of either network, so that
    a budget in discriminator updates shows it as many images as it shows a GAN.
    """

    def __init__(self, config: TrainConfig, device: str = "cpu") -> None:
        """Build networks and streams from `config`; `device` is "cpu" or "cuda"."""
        super().__init__(config, device)
        if not isinstance(config.loss, EvidenceLowerBound):
            raise TypeError(f"{config.loss.name} is a game: use build_trainer")
        self.bound = config.loss

    def _update(self, end: int) -> None:
        state = self.state
        read = state.discriminator_updates + 1 == end
        before = self._weights("generator") if read else []
        total = self._negative_bound(self._next_real())
        for role in ROLES:
            self._optimizer(role).zero_grad(set_to_none=True)
        total.backward()
        for role in ROLES:
            self._apply(role)
        if read:
            for role in ROLES:
                self._note(f"{role}_grad_norm", grad_norm(self._network(role)))
            self._note_generator_step(before)
        state.discriminator_updates += 1
        state.generator_updates += 1
        self._update_averages()

    def _negative_bound(self, real: Tensor) -> Tensor:
        """Return the negative evidence lower bound of a batch, mean over images, in nats."""
        noise = torch.randn(len(real), self.config.architecture.latent_dim,
                            generator=self.state.streams["latent"]).to(self.device)  # fmt: skip
        with self._autocast():
            mean, spread = self._discriminate(real).float().chunk(2, dim=1)
            deviation = softplus(spread) + 1e-6
            decoded = self._generate(mean + deviation * noise).float()
        # In [0, 1]; torch's cross-entropy clamps logarithms at -100, where tanh has rounded to 1.
        target, likely = (real.float() + 1) / 2, (decoded + 1) / 2
        errors = binary_cross_entropy(likely, target, reduction="none").flatten(1).sum(1)
        if self.bound.variant == "agce_code":
            errors = errors / real.shape[1]
        divergence = (mean.square() + deviation.square() - 1).sum(1) / 2 - deviation.log().sum(1)
        total = errors.mean() + divergence.mean()
        self._note("reconstruction_error", errors.mean())
        self._note("kl_divergence", divergence.mean())
        self._note("generator_loss", total)
        return total
