"""What every trainer is, and what ours share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from ganstudy.gan.config import TrainConfig
from ganstudy.gan.regularizers import Regularizer
from ganstudy.gan.regularizers.base import Role
from ganstudy.gan.stabilizers import Features, Stabilizer, Turn
from ganstudy.gan.state import TrainerState

SAMPLE_BATCH = 250
"""Images per forward pass while sampling or judging; bounds memory, changes no value."""
ROLES: tuple[Role, Role] = ("discriminator", "generator")


class Trainer(Protocol):
    """What a study needs of whatever trains: four methods and two counters."""

    @property
    def generator_updates(self) -> int:
        """Generator updates made so far."""

    @property
    def discriminator_updates(self) -> int:
        """Discriminator updates made so far, one batch of real images each: the budget's clock."""

    def advance(self, updates: int) -> Mapping[str, float]:
        """Make that many discriminator updates; return the signals by name."""

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        """Return `count` images (count, channels, height, width) in [-1, 1], state unchanged."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resume needs, as tensors, numbers, strings and dicts."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""


class NetworkTrainer(ABC):
    """What our trainers share: state, sampling, schedule, precision and the noting of signals."""

    def __init__(self, config: TrainConfig, device: str = "cpu") -> None:
        """Build networks and streams from `config`; `device` is "cpu" or "cuda"."""
        self.config, self.device = config, device
        if device == "cuda":
            exact_float32()
        self.state = TrainerState.initial(config, device)
        # Compiled passes share their weights with the networks, which stay as they are for
        # sampling, for judging and for the state.
        compiled: Callable[[nn.Module], Any] = torch.compile if config.compile else _itself
        self._generate, self._discriminate = (
            compiled(network) for network in (self.state.generator, self.state.discriminator)
        )
        self._sums: dict[str, list[Tensor]] = {}
        self._labels: Tensor | None = None
        """Labels of the batch at hand, where the game is conditional."""
        self._first_look = True
        self._grow()

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

        Signals stay on the device and are read once: losses, penalties and mean logits as means
        over the window, all others at its last update.

        Returns:
            Signal name -> value. Generator signals are absent where no generator update fell
            into the window, and so is `update_ratio` where the generator's weights were all 0.
        """
        state = self.state
        end = state.discriminator_updates + updates
        self._sums = {}
        state.generator.train()
        state.discriminator.train()
        while state.discriminator_updates < end:
            self._follow_schedule()
            self._grow()
            self._update(end)
        if not self._sums:
            return {}
        for role in ROLES:
            weights = [p.detach() for p in self._network(role).parameters()]
            self._note(f"{role}_weight_norm", get_total_norm(weights))
        names = list(self._sums)
        means = [torch.stack(values).double().mean() for values in self._sums.values()]
        return _defined(dict(zip(names, torch.stack(means).tolist(), strict=True)))

    @abstractmethod
    def _update(self, end: int) -> None:
        """Make one discriminator update and what goes with it; the window ends at `end`."""

    @torch.no_grad()
    def sample(
        self,
        count: int,
        rng: torch.Generator,
        labels: Tensor | None = None,
        *,
        raw: bool = False,
    ) -> Tensor:
        """Return `count` images of the sampled generator in eval mode, on the CPU.

        A conditional generator is given `labels`, (count,), or those that `draw_labels` draws.
        With `raw` the generator as trained is sampled, not its average.
        """
        network = (self.state.generator if raw else self.state.sampled).eval()
        if labels is None:
            labels = self.draw_labels(count, rng)
        latents = self.draw_latents(count, rng)
        images = []
        for start in range(0, count, SAMPLE_BATCH):
            part = slice(start, start + SAMPLE_BATCH)
            given = None if labels is None else labels[part].to(self.device)
            images.append(given_labels(network, given)(latents[part].to(self.device)).cpu())
        return torch.cat(images).contiguous()

    @property
    def averages(self) -> bool:
        """Whether what is sampled is an average of the generator as trained."""
        return self.state.sampled is not self.state.generator

    def generate(self, latents: Tensor) -> Tensor:
        """Return the sampled generator's images of `latents` on its device, in eval mode.

        Differentiable in the latents. A conditional generator has no image of a latent alone.
        """
        return self.state.sampled.eval()(latents.to(self.device))

    def draw_latents(self, count: int, rng: torch.Generator) -> Tensor:
        """Return `count` latents of the prior, on the CPU."""
        config = self.config
        return config.architecture.latents(count, rng, config.dataset.image_shape)

    def draw_labels(self, count: int, rng: torch.Generator) -> Tensor | None:
        """Return labels as frequent as in the training data, (count,), None if unconditional."""
        if not self.config.conditioning.uses_labels:
            return None
        labels = self._train_labels()
        return labels[torch.randint(len(labels), (count,), generator=rng)]

    def _train_labels(self) -> Tensor:
        labels = self.config.dataset.labels("train")
        assert labels is not None  # conditioning has checked
        return labels

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

    def _step(self, role: Role, loss: Tensor, *, read: bool = False) -> None:
        """Move the network in `role` one step down `loss`."""
        self._backward(role, loss, read=read)
        self._apply(role)

    def _backward(self, role: Role, loss: Tensor, *, read: bool = False) -> None:
        self._optimizer(role).zero_grad(set_to_none=True)
        loss.backward()
        if read:
            self._note(f"{role}_grad_norm", grad_norm(self._network(role)))

    def _apply(self, role: Role) -> None:
        """Step by the gradients that stand in the network of `role`."""
        network, due = self._network(role), self._due(role)
        for regularizer in due:
            regularizer.before_step(network, role)
        self._optimizer(role).step()
        for regularizer in due:
            regularizer.after_step(network, role)
        if self.config.generator_optimizer.extrapolates and self._first_look:
            return  # where extragradient looks first is no place where the weights have been
        for stabilizer in self.config.stabilizers:
            stabilizer.after_step(network, role, self.state.memories[stabilizer.name])

    def _due(self, role: Role) -> list[Regularizer]:
        """Return the regularisers whose interval falls on the update at hand."""
        state = self.state
        made = state.generator_updates if role == "generator" else state.discriminator_updates
        return [r for r in self.config.regularizers if made % r.interval == 0]

    def _weights(self, role: Role) -> list[Tensor]:
        """Return a copy of the weights of the network in `role`."""
        return [p.detach().clone() for p in self._network(role).parameters()]

    @property
    def _progress(self) -> float:
        """Share of the budget that has been trained, in [0, 1]."""
        return min(self.state.discriminator_updates / self.config.discriminator_updates, 1.0)

    def _turn(self, stabilizer: Stabilizer, features: Features | None = None) -> Turn:
        state = self.state
        memory, rng = state.memories[stabilizer.name], state.streams["stabilizers"]
        return Turn(self._progress, memory, rng, features)

    def _grow(self) -> None:
        if self.config.architecture.grows:
            for network in (
                self.state.generator,
                self.state.discriminator,
                *self.state.averages.values(),
            ):
                self.config.architecture.grow(network, self._progress)

    def _follow_schedule(self) -> None:
        factor = self.config.schedule.factor(self._progress)
        for role, network in (
            ("generator", self.config.generator_optimizer),
            ("discriminator", self.config.discriminator_optimizer),
        ):
            for group in self._optimizer(role).param_groups:  # type: ignore[arg-type]
                group["lr"] = network.lr * factor

    def _optimizer(self, role: Role) -> torch.optim.Optimizer:
        state = self.state
        return state.generator_optimizer if role == "generator" else state.discriminator_optimizer

    def _network(self, role: Role) -> nn.Module:
        return self.state.generator if role == "generator" else self.state.discriminator

    def _autocast(self) -> torch.autocast:
        lower = self.config.precision == "bfloat16"
        return torch.autocast(self.device, torch.bfloat16, enabled=lower)

    def _next_real(self) -> Tensor:
        layout = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
        batch = self.config.architecture.real_at(self.state.batches.next(), self._progress)
        real = batch.to(self.device)
        if self.config.conditioning.uses_labels:
            self._labels = self._train_labels()[self.state.batches.latest].to(self.device)
        return real.contiguous(memory_format=layout[self.config.memory_format])

    def _latents(self) -> Tensor:
        rng = self.state.streams["latent"]
        return self.draw_latents(self.config.batch_size, rng).to(self.device)

    def _update_averages(self) -> None:
        for stabilizer in self.config.stabilizers:
            if stabilizer.name in self.state.averages:
                average = self.state.averages[stabilizer.name]
                stabilizer.update_average(average, self.state.generator, self.config.batch_size)

    def _note(self, name: str, value: Tensor) -> None:
        self._sums.setdefault(name, []).append(value.detach())

    def _note_generator_step(self, before: list[Tensor]) -> None:
        after = list(self.state.generator.parameters())
        moved = get_total_norm([a.detach() - b for a, b in zip(after, before, strict=True)])
        self._note("update_ratio", moved / get_total_norm(before))


def _defined(signals: dict[str, float]) -> dict[str, float]:
    """Return `signals` without a step over weights that were all 0, which has no value.

    Where the weights are not finite, nor is the step: that is no ratio over 0, and stays.
    """
    ratio = signals.get("update_ratio", 0.0)
    if math.isfinite(signals["generator_weight_norm"]) and not math.isfinite(ratio):
        del signals["update_ratio"]
    return signals


def grad_norm(network: nn.Module) -> Tensor:
    """Return the L2 norm of all gradients of `network` as they stand."""
    return get_total_norm([p.grad for p in network.parameters() if p.grad is not None])


def exact_float32() -> None:
    """Keep cuDNN and cuBLAS from computing float32 in TF32; CUDA only, where it is the default.

    With `precision: bfloat16` beside it, float32 must mean float32.
    """
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = "ieee"


def given_labels(
    network: Callable[..., Tensor], labels: Tensor | None
) -> Callable[[Tensor], Tensor]:
    """Return `network` as a function of its input alone, at `labels` where it is conditional."""
    return network if labels is None else lambda inputs: network(inputs, labels)


def _itself(network: nn.Module) -> nn.Module:
    return network
