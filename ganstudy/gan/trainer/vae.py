"""Training of a variational auto-encoder, the baseline without a game."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from ganstudy.gan.architectures.base import squashing
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
        if not isinstance(config.loss, EvidenceLowerBound):
            raise TypeError(f"{config.loss.name} is a game: use build_trainer")
        self.bound = config.loss
        super().__init__(config, device)

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
            logits = self._pixel_logits(mean + deviation * noise)
        target = (real.float().flatten(1) + 1) / 2
        errors = binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1)
        if self.bound.variant == "agce_code":
            errors = errors / real.shape[1]
        divergence = (mean.square() + deviation.square() - 1).sum(1) / 2 - deviation.log().sum(1)
        total = errors.mean() + divergence.mean()
        self._note("reconstruction_error", errors.mean())
        self._note("kl_divergence", divergence.mean())
        self._note("generator_loss", total)
        return total

    def _pixel_logits(self, latents: Tensor) -> Tensor:
        """Return the log odds of every pixel, (batch, pixels), from before the last activation.

        From the decoder's output they could not be had where it has rounded to -1 or 1, and no
        gradient either.
        """
        seen: list[Tensor] = []
        last = squashing(self.state.generator)
        hook = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        self.state.generator(latents)
        hook.remove()
        # tanh(x) = 2 sigmoid(2 x) - 1; a ScaledSigmoid's input is the log odds itself.
        return seen[0].float().flatten(1) * (2 if isinstance(last, nn.Tanh) else 1)
