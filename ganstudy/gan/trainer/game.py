"""Training of a GAN: alternating, or both networks at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ganstudy.gan.architectures.base import Head
from ganstudy.gan.conditioning import ClassLogits, inputs_of
from ganstudy.gan.config import TrainConfig
from ganstudy.gan.losses import Loss, auc, logit_slope
from ganstudy.gan.regularizers import input_gradient_norm
from ganstudy.gan.regularizers.base import Role
from ganstudy.gan.stabilizers import Features
from ganstudy.gan.stabilizers.base import GeneratorLoss
from ganstudy.gan.stabilizers.judges import members
from ganstudy.gan.trainer.base import ROLES, NetworkTrainer, given_labels


class Played(NamedTuple):
    """One pass of the discriminator over a batch, as it saw it."""

    real: Tensor
    fake: Tensor
    latents: Tensor
    real_logits: Tensor
    """(batch, judgements)."""
    fake_logits: Tensor
    class_logits: list[Tensor]
    """What an auxiliary classifier said of reals and fakes."""


class Judged(NamedTuple):
    """What the generator's opponent says of its fakes, and what its loss reads of the reals."""

    fake_logits: Tensor
    real_logits: Tensor | None
    class_logits: list[Tensor]
    """Of the fakes."""
    features: Features | None


class Penalty(NamedTuple):
    """What is added to a loss, times its interval, under the name that its signal gets."""

    name: str
    value: Tensor
    interval: int = 1


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
    def logits(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the discriminator's logits in eval mode, (count, judgements), on the CPU.

        Eval mode, since a network with spectral norm changes by being looked at in train mode.
        Batches are those of training, since a discriminator may compare the images of a batch;
        an incomplete last one is left out where there is a whole one.

        Args:
            images: (count, channels, height, width) in [-1, 1].
            labels: (count,), where the game is conditional.
        """
        network, size = self.state.discriminator.eval(), self.config.batch_size
        logits, count = [], len(images) // size * size or len(images)
        for start in range(0, count, size):
            part = slice(start, min(start + size, count))
            given = None if labels is None else labels[part].to(self.device)
            logits.append(given_labels(network, given)(images[part].to(self.device)).cpu())
        return torch.cat(logits)

    def held_out_auc(
        self, real: Tensor, real_labels: Tensor | None, generated: Tensor, labels: Tensor | None
    ) -> float:
        """Return how well the discriminator tells held-out real images from generated ones.

        Both (count, channels, height, width) in [-1, 1], with labels (count,) where the game is
        conditional. Real images look as they do in training.
        """
        config = self.config
        real = config.architecture.real_at(real, self._progress)
        return auc(self.logits(real, real_labels), self.logits(generated, labels)).item()

    def _update(self, end: int) -> None:
        state, config = self.state, self.config
        read = state.discriminator_updates + 1 == end
        real = self._next_real()
        if config.simultaneous or config.generator_optimizer.extrapolates:
            self._simultaneous_update(real, read=read)
            return
        played = self._play(real, self._latents())
        total = self._discriminator_loss(played, read=read)
        if all(s.learns(self._turn(s)) for s in config.stabilizers):
            self._step("discriminator", total, read=read)
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
        for stabilizer in self.config.stabilizers:
            memory = self.state.memories[stabilizer.name]
            stabilizer.remember(memory, *logits, self.config)
            for name, value in stabilizer.signals(memory).items():
                self._note(name, value.clone())
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
    ) -> Played:
        """Move both networks by the gradients where they stand, from `start` if it is given."""
        played = self._play(real, latents)
        total = self._discriminator_loss(played, read=read)
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
        latents = self._latents()
        draws = [self.state.streams[name] for name in ("penalty", "stabilizers")]
        before = [rng.get_state() for rng in draws]
        played = self._move_together(real, latents, read=read)
        if extrapolates:
            noted, self._sums = self._sums, {}
            for rng, state in zip(draws, before, strict=True):
                rng.set_state(state)
            self._first_look = False
            self._move_together(real, latents, start=start)
            self._sums, self._first_look = noted, True
        self._after_discriminator_update(played)
        self._after_generator_update(start["generator"] if read else [])

    def _play(self, real: Tensor, latents: Tensor) -> Played:
        """Return the discriminator's pass over reals and fakes; no gradient reaches G."""
        with self._autocast(), inputs_of(self.state.discriminator, ClassLogits) as classes:
            with torch.no_grad():
                fake = self._generate_at_labels(latents)
            for stabilizer in self.config.stabilizers:
                fake = stabilizer.presented(fake, self._turn(stabilizer))
            real, fake = self._seen(real), self._seen(fake)
            judge = given_labels(self._discriminate, self._labels)
            logits = judge(real).float(), judge(fake).float()
        return Played(real, fake.float(), latents, *logits, classes)

    def _generate_at_labels(self, latents: Tensor) -> Tensor:
        return given_labels(self._generate, self._labels)(latents)

    def _discriminator_loss(self, played: Played, *, read: bool = False) -> Tensor:
        """Return the discriminator's loss with its penalties; notes it and the logits."""
        real_logits, fake_logits = played.real_logits, played.fake_logits
        total = game = self._discriminator_play()(real_logits, fake_logits)
        self._remember(played)
        class_loss = self.config.conditioning.class_loss(played.class_logits, self._labels)
        if class_loss is not None:
            self._note("class_loss", class_loss)
            total = total + class_loss
        for name, penalty, interval in self._discriminator_penalties(played):
            self._note(f"penalty/{name}", penalty)
            total = total + interval * penalty
        self._note("discriminator_loss", game / len(members(self.state.discriminator)))
        self._note("real_logits_mean", real_logits.mean())
        self._note("fake_logits_mean", fake_logits.mean())
        if read:
            self._note("discriminator_auc", auc(real_logits.detach(), fake_logits.detach()))
        return total

    def _discriminator_play(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the discriminator's loss of logits, as the stabilisers leave it."""
        play: Callable[[Tensor, Tensor], Tensor]
        play = partial(self.loss.discriminator_with, self.state.memories["loss"])
        # The first name is outermost: labels are flipped before they are smoothed.
        for stabilizer in reversed(self.config.stabilizers):
            play = stabilizer.discriminator_loss(play, self._turn(stabilizer))
        return play

    def _remember(self, played: Played) -> None:
        if not self._first_look:
            return
        logits = played.real_logits.detach(), played.fake_logits.detach()
        for regularizer in self.config.regularizers:
            memory = self.state.memories[regularizer.name]
            regularizer.remember(memory, *logits, self.state.discriminator_updates)

    def _discriminator_penalties(self, played: Played) -> Iterator[Penalty]:
        """Yield what is added to the discriminator's loss; few have more than one."""
        state, rng = self.state, self.state.streams["penalty"]
        generator = given_labels(state.generator, self._labels)
        for regularizer in self._due("discriminator"):
            memory = state.memories[regularizer.name]
            logits = played.real_logits, played.fake_logits
            found = [
                regularizer.logit_penalty(*logits, memory),
                regularizer.weight_penalty(state.discriminator, "discriminator"),
            ]
            for member in members(state.discriminator):
                judge = given_labels(member, self._labels)
                found += [
                    regularizer.penalty(judge, played.real, played.fake, rng),
                    regularizer.latent_penalty(judge, generator, played.latents, rng),
                ]
            for penalty in found:
                if penalty is not None:
                    yield Penalty(regularizer.name, penalty, regularizer.interval)
        yield from self._weight_penalties("discriminator")

    def _weight_penalties(self, role: Role) -> Iterator[Penalty]:
        """Yield what stabilisers add to the loss of the network in `role` for its weights."""
        for stabilizer in self.config.stabilizers:
            memory = self.state.memories[stabilizer.name]
            penalty = stabilizer.weight_penalty(self._network(role), role, memory)
            if penalty is not None:
                yield Penalty(stabilizer.name, penalty)

    def _generator_loss(self, real: Tensor, latents: Tensor, *, read: bool = False) -> Tensor:
        """Return the generator's loss with its penalties, and note its signals."""
        with self._autocast():
            fake = self._seen(self._generate_at_labels(latents))
        opponent = self._opponent(real, fake)
        # The discriminator's own gradients are not needed here: it only passes them through.
        self.state.discriminator.requires_grad_(False)
        judged = self._judged(opponent, fake, real)
        play: GeneratorLoss = self.loss.generator
        for stabilizer in reversed(self.config.stabilizers):
            play = stabilizer.generator_loss(play, self._turn(stabilizer, judged.features))
        total = value = play(judged.fake_logits, judged.real_logits)
        class_loss = self.config.conditioning.class_loss(judged.class_logits, self._labels)
        if class_loss is not None:
            mean = class_loss / len(members(self.state.discriminator))
            self._note("generator_class_loss", mean)
            total = total + mean
        for name, penalty, interval in self._generator_penalties(latents):
            self._note(f"generator_penalty/{name}", penalty)
            total = total + interval * penalty
        self._note("generator_loss", value)
        if read:
            self._read_logits(play, fake.float(), judged)
        self.state.discriminator.requires_grad_(True)
        return total

    def _judged(self, opponent: Callable[[Tensor], Tensor], fake: Tensor, real: Tensor) -> Judged:
        """Return what the opponent says of the fakes, and of the reals where that is read."""
        network = self.state.discriminator
        reads_features = any(s.reads_features for s in self.config.stabilizers)
        with ExitStack() as stack:
            stack.enter_context(self._autocast())
            classes = stack.enter_context(inputs_of(network, ClassLogits))
            seen = stack.enter_context(inputs_of(network, Head)) if reads_features else []
            fake_logits = opponent(fake).float()
            of_fakes, class_logits = len(seen), list(classes)
            if not (self.loss.generator_reads_real or reads_features):
                return Judged(fake_logits, None, class_logits, None)
            real_logits = opponent(self._seen(real)).float()
        floats = [inputs.float() for inputs in seen]
        features = Features(floats[:of_fakes], floats[of_fakes:])
        read = real_logits if self.loss.generator_reads_real else None
        return Judged(fake_logits, read, class_logits, features)

    def _opponent(self, real: Tensor, fake: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what the generator plays against: the discriminator, or what it will become."""
        play = self._discriminator_play()

        def loss(network: Callable[..., Tensor]) -> Tensor:
            judge = given_labels(network, self._labels)
            with self._autocast():
                logits = judge(self._seen(real)), judge(fake)
            return play(logits[0].float(), logits[1].float())

        for stabilizer in self.config.stabilizers:
            optimizer = self.state.discriminator_optimizer
            found = stabilizer.opponent(self.state.discriminator, optimizer, loss)
            if found is not None:
                return given_labels(found, self._labels)
        return given_labels(self._discriminate, self._labels)

    def _generator_penalties(self, latents: Tensor) -> Iterator[Penalty]:
        """Yield what is added to the generator's loss."""
        generator, rng = self.state.generator, self.state.streams["penalty"]
        for regularizer in self._due("generator"):
            for penalty in (
                regularizer.generator_penalty(given_labels(generator, self._labels), latents, rng),
                regularizer.weight_penalty(generator, "generator"),
            ):
                if penalty is not None:
                    yield Penalty(regularizer.name, penalty, regularizer.interval)
        yield from self._weight_penalties("generator")

    def _read_logits(self, play: GeneratorLoss, fake: Tensor, judged: Judged) -> None:
        """Note what the generator's gradient has to pass; leaves no trace in the networks."""
        network = self.state.discriminator.eval()
        slope = logit_slope(play, judged.fake_logits, judged.real_logits)
        if slope is not None:
            self._note("generator_logit_slope", slope)
        judge = given_labels(network, self._labels)
        norms = input_gradient_norm(judge, fake, differentiable=False)
        network.train()
        self._note("discriminator_input_grad_norm", norms.mean())

    def _seen(self, images: Tensor) -> Tensor:
        """Return what the discriminator sees of `images`."""
        for stabilizer in self.config.stabilizers:
            images = stabilizer.discriminator_input(images, self._turn(stabilizer))
        return images


@torch.no_grad()
def restore(network: nn.Module, weights: list[Tensor]) -> None:
    """Put `weights` back into the parameters of `network`."""
    for parameter, value in zip(network.parameters(), weights, strict=True):
        parameter.copy_(value)
