"""Training of a GAN: alternating, or both networks at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ganstudy.gan.config import TrainConfig
from ganstudy.gan.losses import Loss, logit_slope
from ganstudy.gan.regularizers import Regularizer, input_gradient_norm
from ganstudy.gan.regularizers.base import Role
from ganstudy.gan.trainer.base import ROLES, SAMPLE_BATCH, NetworkTrainer


class Played(NamedTuple):
    """One pass of the discriminator over a batch, as it saw it."""

    real: Tensor
    fake: Tensor
    latents: Tensor
    real_logits: Tensor
    fake_logits: Tensor


class GanTrainer(NetworkTrainer):
    """Training of a generator against a discriminator.

    Alternating: `generator_steps` generator updates follow every `n_critic` discriminator updates.
    Simultaneous, which extragradient is too: both networks move at once.
    """

    def __init__(self, config: TrainConfig, device: str = "cpu") -> None:
        """Build networks and streams from `config`; `device` is "cpu" or "cuda"."""
        if not isinstance(config.loss, Loss):
            raise TypeError(f"{config.loss.name} is no game: use build_trainer")
        self.loss = config.loss
        super().__init__(config, device)

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Return the discriminator's logits on `images` in eval mode, (count, 1), on the CPU.

        Eval mode, since a network with spectral norm changes by being looked at in train mode.
        """
        network = self.state.discriminator.eval()
        logits = [network(part.to(self.device)).cpu() for part in images.split(SAMPLE_BATCH)]
        return torch.cat(logits)

    def _update(self, end: int) -> None:
        state, config = self.state, self.config
        read = state.discriminator_updates + 1 == end
        real = self._next_real()
        if config.simultaneous or config.generator_optimizer.extrapolates:
            self._simultaneous_update(real, read=read)
            return
        played = self._play(real, self._latents())
        self._step("discriminator", self._discriminator_loss(played, read=read), read=read)
        self._after_discriminator_update(played)
        if state.discriminator_updates % config.n_critic == 0:
            last = state.discriminator_updates + config.n_critic > end
            for step in range(1, config.generator_steps + 1):
                self._generator_update(real, read=last and step == config.generator_steps)

    def _after_discriminator_update(self, played: Played) -> None:
        memory = self.state.memories["loss"]
        logits = played.real_logits.detach(), played.fake_logits.detach()
        self.loss.remember(memory, *logits)
        for name, value in memory.items():
            self._note(f"{self.loss.name}/{name}", value.clone())
        self.state.discriminator_updates += 1

    def _generator_update(self, real: Tensor, *, read: bool) -> None:
        before = self._weights("generator") if read else []
        total = self._generator_loss(real, self._latents(), read=read)
        self._step("generator", total, read=read)
        self._after_generator_update(before)

    def _after_generator_update(self, before: list[Tensor]) -> None:
        if before:
            self._note_generator_step(before)
        self.state.generator_updates += 1
        self._update_averages()

    def _move_together(
        self,
        real: Tensor,
        latents: Tensor,
        *,
        start: Mapping[Role, list[Tensor]] | None = None,
        read: bool = False,
        first: bool = True,
    ) -> Played:
        """Move both networks by the gradients where they stand, from `start` if it is given."""
        played = self._play(real, latents)
        total = self._discriminator_loss(played, read=read, first=first)
        self._backward("discriminator", total, read=read)
        self._backward("generator", self._generator_loss(real, latents, read=read), read=read)
        for role in ROLES:
            if start is not None:
                restore(self._network(role), start[role])
            self._apply(role)
        return played

    def _simultaneous_update(self, real: Tensor, *, read: bool) -> None:
        """Move both networks at once, and with extragradient first where that would lead.

        Both halves of an extragradient update see the same batch, latents and draws. Signals are
        those of the first half.
        """
        extrapolates = self.config.generator_optimizer.extrapolates
        start = {role: self._weights(role) for role in ROLES if extrapolates or read}
        latents, draws = self._latents(), self.state.streams["penalty"]
        before = draws.get_state()
        played = self._move_together(real, latents, read=read)
        if extrapolates:
            noted, self._sums = self._sums, {}
            draws.set_state(before)
            self._move_together(real, latents, start=start, first=False)
            self._sums = noted
        self._after_discriminator_update(played)
        self._after_generator_update(start["generator"] if read else [])

    def _play(self, real: Tensor, latents: Tensor) -> Played:
        """Return the discriminator's pass over reals and fakes; no gradient reaches G."""
        with self._autocast():
            with torch.no_grad():
                clean = self._generate(latents)
            real, fake = self._noised(real), self._noised(clean)
            real_logits, fake_logits = self._discriminate(real), self._discriminate(fake)
        return Played(real, fake.float(), latents, real_logits.float(), fake_logits.float())

    def _discriminator_loss(
        self, played: Played, *, read: bool = False, first: bool = True
    ) -> Tensor:
        """Return the discriminator's loss with its penalties.

        Args:
            played: The pass over this update's batch.
            read: Whether this is an update whose last values are noted.
            first: False at an update's second look, which nothing remembers.
        """
        real_logits, fake_logits = played.real_logits, played.fake_logits
        memory = self.state.memories["loss"]
        game = self.loss.discriminator_with(memory, real_logits, fake_logits)
        if first:
            self._remember(played)
        total = game
        for regularizer in self._due("discriminator"):
            for penalty in self._discriminator_penalties(regularizer, played):
                self._note(f"penalty/{regularizer.name}", penalty)
                total = total + regularizer.interval * penalty
        self._note("discriminator_loss", game)
        self._note("real_logits_mean", real_logits.mean())
        self._note("fake_logits_mean", fake_logits.mean())
        if read:
            self._note("discriminator_auc", auc(real_logits.detach(), fake_logits.detach()))
        return total

    def _remember(self, played: Played) -> None:
        logits = played.real_logits.detach(), played.fake_logits.detach()
        for regularizer in self.config.regularizers:
            memory = self.state.memories[regularizer.name]
            regularizer.remember(memory, *logits, self.state.discriminator_updates)

    def _discriminator_penalties(self, regularizer: Regularizer, played: Played) -> list[Tensor]:
        """Return what `regularizer` adds to the discriminator's loss; few have more than one."""
        state, rng = self.state, self.state.streams["penalty"]
        real, fake, latents, real_logits, fake_logits = played
        memory = state.memories[regularizer.name]
        found = (
            regularizer.penalty(state.discriminator, real, fake, rng),
            regularizer.logit_penalty(real_logits, fake_logits, memory),
            regularizer.latent_penalty(state.discriminator, state.generator, latents, rng),
            regularizer.weight_penalty(state.discriminator, "discriminator"),
        )
        return [penalty for penalty in found if penalty is not None]

    def _generator_loss(self, real: Tensor, latents: Tensor, *, read: bool = False) -> Tensor:
        """Return the generator's loss with its penalties, and note its signals."""
        state = self.state
        # The discriminator's own gradients are not needed here: it only passes them through.
        state.discriminator.requires_grad_(False)
        with self._autocast():
            fake = self._noised(self._generate(latents))
            fake_logits = self._discriminate(fake).float()
            real_logits = None
            if self.loss.generator_reads_real:
                real_logits = self._discriminate(self._noised(real)).float()
        total = value = self.loss.generator(fake_logits, real_logits)
        for regularizer in self._due("generator"):
            for penalty in self._generator_penalties(regularizer, latents):
                self._note(f"generator_penalty/{regularizer.name}", penalty)
                total = total + regularizer.interval * penalty
        self._note("generator_loss", value)
        if read:
            self._read_logits(fake.float(), fake_logits, real_logits)
        state.discriminator.requires_grad_(True)
        return total

    def _generator_penalties(self, regularizer: Regularizer, latents: Tensor) -> list[Tensor]:
        """Return what `regularizer` adds to the generator's loss."""
        generator, rng = self.state.generator, self.state.streams["penalty"]
        found = (
            regularizer.generator_penalty(generator, latents, rng),
            regularizer.weight_penalty(generator, "generator"),
        )
        return [penalty for penalty in found if penalty is not None]

    def _read_logits(self, fake: Tensor, fake_logits: Tensor, real_logits: Tensor | None) -> None:
        """Note what the generator's gradient has to pass; leaves no trace in the networks."""
        state = self.state
        self._note("generator_logit_slope", logit_slope(self.loss, fake_logits, real_logits))
        state.discriminator.eval()
        norms = input_gradient_norm(state.discriminator, fake, differentiable=False)
        state.discriminator.train()
        self._note("discriminator_input_grad_norm", norms.mean())

    def _noised(self, images: Tensor) -> Tensor:
        for stabilizer in self.config.stabilizers:
            images = stabilizer.discriminator_input(images, self.state.streams["penalty"])
        return images


def auc(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return P(r > f) + P(r = f) / 2 over all pairs: how well D tells the two apart.

    Unlike accuracy at logit 0 it means the same for every loss. NaN if a logit is not finite.
    """
    difference = real_logits.flatten()[:, None] - fake_logits.flatten()[None, :]
    wins = (difference > 0).double() + (difference == 0).double() / 2
    return torch.where(difference.isfinite().all(), wins.mean(), torch.nan)


@torch.no_grad()
def restore(network: nn.Module, weights: list[Tensor]) -> None:
    """Put `weights` back into the parameters of `network`."""
    for parameter, value in zip(network.parameters(), weights, strict=True):
        parameter.copy_(value)
