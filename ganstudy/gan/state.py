"""TrainerState: every tensor and number that a run carries from one update to the next."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from ganstudy.gan.architectures import ImageShape
from ganstudy.gan.architectures.base import EnergyDiscriminator
from ganstudy.gan.config import TrainConfig
from ganstudy.gan.datasets import BatchSampler
from ganstudy.gan.losses import Loss, Memory
from ganstudy.gan.regularizers.base import Role
from ganstudy.gan.seeding import STREAMS, seeded_init, stream
from ganstudy.gan.stabilizers.base import Build


@dataclass
class TrainerState:
    """Networks, optimisers, averages, counters, data order and random streams of one run."""

    generator: nn.Module
    discriminator: nn.Module
    generator_optimizer: torch.optim.Optimizer
    discriminator_optimizer: torch.optim.Optimizer
    averages: nn.ModuleDict
    memories: dict[str, Memory]
    """What the loss ("loss"), the regularisers and the stabilisers (their names) remember."""
    batches: BatchSampler
    streams: dict[str, torch.Generator]
    generator_updates: int = 0
    discriminator_updates: int = 0

    @classmethod
    def initial(cls, config: TrainConfig, device: str) -> TrainerState:
        """Return the state before the first update."""
        shape = config.dataset.image_shape
        layout = getattr(torch, config.memory_format.replace("contiguous", "contiguous_format"))
        with seeded_init(config.seed, "init/generator"):
            generator = build_generator(config, shape)
        with seeded_init(config.seed, "init/discriminator"):
            discriminator = build_discriminator(config, shape)
        for network in (generator, discriminator):
            network.to(device, memory_format=layout)  # type: ignore[call-overload]
        averages = {s.name: s.averaged(generator) for s in config.stabilizers}
        streams = {name: stream(config.seed, name) for name in STREAMS}
        if config.data_seed is not None:
            streams |= {name: stream(config.data_seed, name) for name in ("data", "flips")}
        images = config.dataset.images("train")
        return cls(
            generator=generator,
            discriminator=discriminator,
            generator_optimizer=config.generator_optimizer.build(generator.parameters()),
            discriminator_optimizer=config.discriminator_optimizer.build(
                discriminator.parameters()
            ),
            averages=nn.ModuleDict({k: v for k, v in averages.items() if v is not None}),
            memories=initial_memories(config, generator, discriminator, device),
            batches=BatchSampler(
                images,
                config.batch_size,
                streams["data"],
                streams["flips"] if config.flips else None,
            ),
            streams=streams,
        )

    @property
    def sampled(self) -> nn.Module:
        """The generator that is sampled: the averaged one where a stabiliser keeps one.

        Of several averages it is the first one's, by the stabilisers' names.
        """
        return next(iter(self.averages.values()), self.generator)

    def state_dict(self) -> dict[str, Any]:
        """Return tensors, numbers and dicts only: `torch.load(weights_only=True)` reads it."""
        return {
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "generator_optimizer": self.generator_optimizer.state_dict(),
            "discriminator_optimizer": self.discriminator_optimizer.state_dict(),
            "averages": self.averages.state_dict(),
            "memories": {name: dict(memory) for name, memory in self.memories.items()},
            "batches": self.batches.state_dict(),
            "streams": {name: rng.get_state() for name, rng in self.streams.items()},
            "generator_updates": self.generator_updates,
            "discriminator_updates": self.discriminator_updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Become the state that `state_dict` was taken of."""
        self.generator.load_state_dict(state["generator"])
        self.discriminator.load_state_dict(state["discriminator"])
        # Copied, since torch's optimisers take tensors over as they are.
        for optimizer in ("generator_optimizer", "discriminator_optimizer"):
            getattr(self, optimizer).load_state_dict(copy.deepcopy(state[optimizer]))
        self.averages.load_state_dict(state["averages"])
        for name, memory in self.memories.items():
            for key, value in memory.items():
                value.copy_(state["memories"][name][key])
        self.batches.load_state_dict(state["batches"])
        for name, rng in self.streams.items():
            rng.set_state(state["streams"][name])
        self.generator_updates = state["generator_updates"]
        self.discriminator_updates = state["discriminator_updates"]


def build_generator(config: TrainConfig, shape: ImageShape) -> nn.Module:
    """Return the generator of images of `shape`."""
    return config.conditioning.generator(config.architecture, shape, _classes(config))


def build_discriminator(config: TrainConfig, shape: ImageShape) -> nn.Module:
    """Return the network against the generator: a discriminator, or what the objective has.

    Energy-based losses judge by the reconstruction error of an auto-encoder; a VAE has an encoder
    in the discriminator's place, (batch, 2 latent_dim).
    """
    architecture, loss = config.architecture, config.loss
    if not isinstance(loss, Loss):
        return architecture.encoder(shape, 2 * architecture.latent_dim)
    build: Build = partial(_judge, config)
    for stabilizer in config.stabilizers:
        build = partial(stabilizer.judge, build)
    return build(shape)


def _judge(config: TrainConfig, shape: ImageShape) -> nn.Module:
    """Return one discriminator of images of `shape`."""
    architecture, loss = config.architecture, config.loss
    assert isinstance(loss, Loss)
    if loss.reconstruction_power:
        return EnergyDiscriminator(architecture.auto_encoder(shape), loss.reconstruction_power)
    across = [s.across for s in config.stabilizers if s.across is not None]
    return config.conditioning.discriminator(architecture, shape, _classes(config), across)


def _classes(config: TrainConfig) -> int:
    return (config.dataset.classes or 0) if config.conditioning.uses_labels else 0


def initial_memories(
    config: TrainConfig, generator: nn.Module, discriminator: nn.Module, device: str
) -> dict[str, Memory]:
    """Return what the loss ("loss"), each regulariser and each stabiliser remember at first."""
    networks: dict[Role, nn.Module] = {"generator": generator, "discriminator": discriminator}
    memories = {r.name: r.memory() for r in config.regularizers}
    memories |= {s.name: s.memory(config, networks) for s in config.stabilizers}
    if isinstance(config.loss, Loss):
        memories["loss"] = config.loss.memory()
    return {
        name: {key: value.to(device) for key, value in memory.items()}
        for name, memory in memories.items()
    }
