"""The trainer: alternating updates of one GAN, yielding signals and nothing else.

It repairs nothing (a NaN goes out as NaN) and logs nowhere. Any object with the four methods of
`Trainer` can take its place in a study.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from ganstudy.gan.config import TrainConfig
from ganstudy.gan.losses import logit_slope
from ganstudy.gan.regularizers import input_gradient_norm
from ganstudy.gan.state import TrainerState

SAMPLE_BATCH = 250
"""Images per forward pass while sampling or judging; bounds memory, changes no value."""


class Trainer(Protocol):
    """What a study needs of whatever trains: four methods and two counters."""

    @property
    def generator_updates(self) -> int:
        """Generator updates made so far."""

    @property
    def discriminator_updates(self) -> int:
        """Discriminator updates made so far."""

    def advance(self, updates: int) -> Mapping[str, float]:
        """Make that many discriminator updates; return the signals by name."""

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        """Return `count` images (count, channels, height, width) in [-1, 1], state unchanged."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resume needs, as tensors, numbers, strings and dicts."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""


def auc(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return P(r > f) + P(r = f) / 2 over all pairs: how well D tells the two apart.

    Unlike accuracy at logit 0 it means the same for every loss. NaN if a logit is not finite.
    """
    difference = real_logits.flatten()[:, None] - fake_logits.flatten()[None, :]
    wins = (difference > 0).double() + (difference == 0).double() / 2
    return torch.where(difference.isfinite().all(), wins.mean(), torch.nan)


class GanTrainer:
    """Alternating training of a generator and a discriminator.

    One generator update follows every `n_critic` discriminator updates. Signals stay on the
    device and are read once per `advance`: losses, penalties and mean logits as means over the
    window, all others at its last update.
    """

    def __init__(self, config: TrainConfig, device: str = "cpu") -> None:
        """Build networks and streams from `config`; `device` is "cpu" or "cuda"."""
        self.config, self.device = config, device
        self.state = TrainerState.initial(config, device)
        self._sums: dict[str, list[Tensor]] = {}

    @property
    def generator_updates(self) -> int:
        """Generator updates made so far."""
        return self.state.generator_updates

    @property
    def discriminator_updates(self) -> int:
        """Discriminator updates made so far."""
        return self.state.discriminator_updates

    def advance(self, updates: int) -> dict[str, float]:
        """Make `updates` discriminator updates, and the generator updates that fall due.

        Returns:
            Signal name -> value. Generator signals are absent where no generator update fell
            into the window.
        """
        state, n_critic = self.state, self.config.n_critic
        end = state.discriminator_updates + updates
        self._sums = {}
        state.generator.train()
        state.discriminator.train()
        while state.discriminator_updates < end:
            self._update_discriminator(read=state.discriminator_updates + 1 == end)
            if state.discriminator_updates % n_critic == 0:
                self._update_generator(read=state.discriminator_updates + n_critic > end)
        names = list(self._sums)
        means = [torch.stack(values).double().mean() for values in self._sums.values()]
        return dict(zip(names, torch.stack(means).tolist(), strict=True))

    @torch.no_grad()
    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        """Return `count` images of the sampled generator in eval mode, on the CPU."""
        network = self.state.sampled.eval()
        latents = self.config.architecture.latents(count, rng)
        images = [network(z.to(self.device)).cpu() for z in latents.split(SAMPLE_BATCH)]
        return torch.cat(images).contiguous()

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Return the discriminator's logits on `images` in eval mode, (count, 1), on the CPU.

        Eval mode, since a network with spectral norm changes by being looked at in train mode.
        """
        network = self.state.discriminator.eval()
        logits = [network(part.to(self.device)).cpu() for part in images.split(SAMPLE_BATCH)]
        return torch.cat(logits)

    def state_dict(self) -> dict[str, Any]:
        """Return the complete state; resuming from it is bit-equal on CPU."""
        return self.state.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.state.load_state_dict(state)

    def generator_state_dict(self) -> dict[str, Any]:
        """Return the weights of the generator that is sampled."""
        return self.state.sampled.state_dict()

    def load_generator_state_dict(self, state: dict[str, Any]) -> None:
        """Sample from these weights from now on."""
        self.state.sampled.load_state_dict(state)

    def _update_discriminator(self, *, read: bool) -> None:
        state, loss = self.state, self.config.loss
        real = self._noised(self._next_real())
        with torch.no_grad():
            fake = self._fake()
        fake = self._noised(fake)
        real_logits, fake_logits = state.discriminator(real), state.discriminator(fake)
        total = game = loss.discriminator(real_logits, fake_logits)
        for regularizer in self.config.regularizers:
            penalty = regularizer.penalty(
                state.discriminator, real, fake, state.streams["penalty"]
            )
            if penalty is not None:
                self._note(f"penalty/{regularizer.name}", penalty)
                total = total + penalty
        state.discriminator_optimizer.zero_grad(set_to_none=True)
        total.backward()
        state.discriminator_optimizer.step()
        for regularizer in self.config.regularizers:
            regularizer.after_update(state.discriminator)
        state.discriminator_updates += 1
        self._note("discriminator_loss", game)
        self._note("real_logits_mean", real_logits.mean())
        self._note("fake_logits_mean", fake_logits.mean())
        if read:
            self._note("discriminator_grad_norm", grad_norm(state.discriminator))
            self._note("discriminator_auc", auc(real_logits.detach(), fake_logits.detach()))

    def _update_generator(self, *, read: bool) -> None:
        state, loss = self.state, self.config.loss
        # The discriminator's own gradients are not needed here: it only passes them through.
        state.discriminator.requires_grad_(False)
        fake = self._noised(self._fake())
        fake_logits = state.discriminator(fake)
        real_logits = None
        if loss.generator_reads_real:
            real_logits = state.discriminator(self._noised(self._next_real()))
        value = loss.generator(fake_logits, real_logits)
        state.generator_optimizer.zero_grad(set_to_none=True)
        value.backward()
        before = [p.detach().clone() for p in state.generator.parameters()] if read else []
        state.generator_optimizer.step()
        if read:
            self._read_generator(before, fake, fake_logits, real_logits)
        state.discriminator.requires_grad_(True)
        state.generator_updates += 1
        for stabilizer in self.config.stabilizers:
            if stabilizer.name in state.averages:
                average = state.averages[stabilizer.name]
                stabilizer.update_average(average, state.generator, self.config.batch_size)
        self._note("generator_loss", value)

    def _read_generator(
        self,
        before: list[Tensor],
        fake: Tensor,
        fake_logits: Tensor,
        real_logits: Tensor | None,
    ) -> None:
        """Note the signals of one generator update; leaves no trace in the networks."""
        state = self.state
        after = list(state.generator.parameters())
        moved = get_total_norm([a.detach() - b for a, b in zip(after, before, strict=True)])
        self._note("generator_grad_norm", grad_norm(state.generator))
        self._note("update_ratio", moved / get_total_norm(before))
        self._note(
            "generator_logit_slope", logit_slope(self.config.loss, fake_logits, real_logits)
        )
        state.discriminator.eval()
        norms = input_gradient_norm(state.discriminator, fake)
        state.discriminator.train()
        self._note("discriminator_input_grad_norm", norms.mean())

    def _next_real(self) -> Tensor:
        real = self.state.batches.next().to(self.device)
        return real.contiguous(memory_format=self._layout) if real.dim() == 4 else real

    @property
    def _layout(self) -> torch.memory_format:
        if self.config.memory_format == "channels_last":
            return torch.channels_last
        return torch.contiguous_format

    def _fake(self) -> Tensor:
        rng = self.state.streams["latent"]
        latents = self.config.architecture.latents(self.config.batch_size, rng)
        return self.state.generator(latents.to(self.device))

    def _noised(self, images: Tensor) -> Tensor:
        for stabilizer in self.config.stabilizers:
            images = stabilizer.discriminator_input(images, self.state.streams["penalty"])
        return images

    def _note(self, name: str, value: Tensor) -> None:
        self._sums.setdefault(name, []).append(value.detach())


def grad_norm(network: nn.Module) -> Tensor:
    """Return the L2 norm of all gradients of `network` as they stand."""
    return get_total_norm([p.grad for p in network.parameters() if p.grad is not None])
