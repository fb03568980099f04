"""What each architecture, stabiliser and conditioning costs, and what layout and precision give.

    python benchmarks/architectures.py [--rounds N]

Architectures are at their own defaults but for a compact width: 16 channels next to the image
(the mlp 128 units; resnet's generator has twice its width). Progressive networks stand at full
size from the start. The game is the default one: batch 64, non-saturating loss, Adam, one
generator update per discriminator update, channels_last, one thread.

A discriminator's share of an update is the time of a game in which the generator's turn never
comes, over that of the whole game: it includes drawing the batch and making the fakes. The rest
is the generator's. Multiples are of the quickstart's plainest arm, a DCGAN of width 16 without
normalisation in the discriminator, on 28x28 digits.

Everything is timed in turns within one run; a ratio is the median over rounds of times paired by
round, with its quartiles. Time is the processor's, of this process alone, since others may share
the machine. No signals are read, which training does every 25th update.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any, get_args

import torch
from torch import nn

from ganstudy.gan.architectures import ARCHITECTURES
from ganstudy.gan.architectures.parts import Normalization
from ganstudy.gan.conditioning import CONDITIONINGS
from ganstudy.gan.config import TrainConfig
from ganstudy.gan.stabilizers import STABILIZERS
from ganstudy.gan.trainer import NetworkTrainer, build_trainer

Settings = Mapping[str, Any]
Key = tuple[str, str]
"""What is timed: an architecture and how it is trained, or a kind of component and its label."""
Times = Mapping[Key, list[float]]
"""Seconds per update, one a round."""

UPDATES = 2
"""Updates per window: short, so that what is paired was timed close together."""
COMPONENT_ROUNDS = 3
"""Rounds of the components for each of the architectures, whose windows are longer."""
NEVER = sys.maxsize
DIGITS, PATCHES = "mnist5k", "photo_patches"
OPTIONS: Mapping[str, Settings] = {"mlp": {"width": 128}, "progressive": {"growth": 0.0}}
"""Options of an architecture beside the width of 16."""
WAYS: Mapping[str, Settings] = {
    "plain": {},
    "alone": {"n_critic": NEVER},
    "contiguous": {"memory_format": "contiguous"},
    "bfloat16": {"precision": "bfloat16"},
}
"""How each architecture is trained; the last two on the first data set that it can make."""
PLAIN: Key = ("plain", "")
PLAIN_DCGAN = {"name": "dcgan", "width": 16, "discriminator_normalization": "none"}
STABILIZER_OPTIONS: Mapping[str, Mapping[str, Settings]] = {
    "adaptive_augment": {"at p = 0.5": {"start": 0.5, "max_p": 0.5}},
    "discriminator_freezing": {
        "default": {},
        "never frozen": {"threshold": 1.0},
        "always frozen": {"threshold": 0.0},
    },
    "packing": {"2 images": {"images": 2}},
    "several_discriminators": {"3 of them": {"count": 3}},
    "unrolled_discriminator": {"5 steps": {"steps": 5}},
}
"""Stabiliser -> label -> options; one that is not here is timed at its defaults."""


def architecture_settings(name: str, dataset: str) -> Settings:
    """Return the settings of an architecture at its compact width."""
    return {
        "dataset": dataset,
        "architecture": {"name": name, "width": 16, **OPTIONS.get(name, {})},
    }


def makers(dataset: str) -> list[str]:
    """Return the architectures that can make the images of `dataset`."""
    found = []
    for name in ARCHITECTURES.names():
        if name == "dirac":
            continue
        config = TrainConfig.from_dict(architecture_settings(name, dataset))
        try:
            config.architecture.generator(config.dataset.image_shape)
        except ValueError:
            continue
        found.append(name)
    return found


def compared(dataset: str) -> list[str]:
    """Return the architectures whose layouts and precisions are timed on `dataset`."""
    digits = makers(DIGITS)
    return digits if dataset == DIGITS else [n for n in makers(dataset) if n not in digits]


def architecture_variants(dataset: str) -> dict[Key, Settings]:
    """Return what is timed of the architectures on `dataset`."""
    both = compared(dataset)
    return {
        (name, way): {**architecture_settings(name, dataset), **settings}
        for name in makers(dataset)
        for way, settings in WAYS.items()
        if way in ("plain", "alone") or name in both
    }


def component_variants() -> dict[Key, Settings]:
    """Return what is timed against the plain DCGAN."""
    changes: dict[Key, Settings] = {PLAIN: {}}
    for name in STABILIZERS.names():
        for label, options in STABILIZER_OPTIONS.get(name, {"": {}}).items():
            key = ("stabilizer", f"{name}, {label}" if label else name)
            changes[key] = {"stabilizers": {name: options}}
    changes |= {("conditioning", name): {"conditioning": name} for name in CONDITIONINGS.names()}
    for label, options in architecture_options().items():
        changes["option", label] = {"architecture": {**PLAIN_DCGAN, **options}}
    return {key: {"architecture": PLAIN_DCGAN, **change} for key, change in changes.items()}


def architecture_options() -> dict[str, Settings]:
    """Return the options of a DCGAN that are timed, those that the plain one has left out."""
    found: dict[str, Settings] = {f"attention {side}": {"attention": side} for side in (14, 7)}
    found["scales 2"] = {"scales": 2}
    found |= {f"upsampling {how}": {"upsampling": how} for how in ("resize_conv", "sub_pixel")}
    for role, own in (("generator", "batch"), ("discriminator", "none")):
        key = f"{role}_normalization"
        found |= {f"{key} {kind}": {key: kind} for kind in get_args(Normalization) if kind != own}
    found |= {key: {key: True} for key in ("spectral_norm", "generator_spectral_norm")}
    return found


def timed(trained: NetworkTrainer) -> float:
    """Return seconds per update over one window."""
    begun = time.process_time()
    for _ in range(UPDATES):
        trained._update(NEVER)
    return (time.process_time() - begun) / UPDATES


def in_turns(variants: Mapping[Key, Settings], rounds: int) -> Times:
    """Time all variants in turns, every round once each."""
    trainers = {k: build_trainer(TrainConfig.from_dict(s)) for k, s in variants.items()}
    times: dict[Key, list[float]] = {key: [] for key in trainers}
    for trained in trainers.values():
        trained.advance(2)
    for round_ in range(rounds):
        # Every other round backwards, so that a drift of the machine favours nobody.
        order = list(trainers) if round_ % 2 == 0 else list(reversed(trainers))
        for key in order:
            times[key].append(timed(trainers[key]))
    return times


def ratio(first: list[float], second: list[float], digits: int = 2) -> str:
    """Return the median of the paired ratios, with its quartiles."""
    ratios = [a / b for a, b in zip(first, second, strict=True)]
    low, median, high = (f"{q:.{digits}f}" for q in statistics.quantiles(ratios, n=4))
    return f"{median:>6}  ({low} to {high})"


def parameters(network: nn.Module) -> int:
    """Return the number of parameters of `network`."""
    return sum(p.numel() for p in network.parameters())


def show_architectures(dataset: str, times: Times) -> None:
    """Print the throughput and the division of an update, architecture by architecture."""
    channels, height, width = TrainConfig.from_dict({"dataset": dataset}).dataset.image_shape
    print(f"\n{dataset}, {height}x{width}x{channels}")
    print(f"{'':12} {'width':>5} {'parameters G':>12} {'D':>8} {'images/s':>9}   "
          f"{'time over dcgan':24} {'share of D':24} {'of G':>5}")  # fmt: skip
    for name in makers(dataset):
        config = TrainConfig.from_dict(architecture_settings(name, dataset))
        shape, built = config.dataset.image_shape, config.architecture
        whole, alone = times[name, "plain"], times[name, "alone"]
        share = statistics.median(a / b for a, b in zip(alone, whole, strict=True))
        print(f"{name:12} {built.to_dict()['width']:5} {parameters(built.generator(shape)):12,} "
              f"{parameters(built.discriminator(shape)):8,} "
              f"{config.batch_size / statistics.median(whole):9.0f} "
              f"{ratio(whole, times['dcgan', 'plain']):26} {ratio(alone, whole):24} "
              f"{1 - share:5.2f}")  # fmt: skip


def show_ways(dataset: str, times: Times) -> None:
    """Print what channels_last and bfloat16 give, for those compared on `dataset`."""
    print(f"\n{dataset:14} {'channels_last / contiguous':28} bfloat16 / float32, time")
    for name in compared(dataset):
        plain = times[name, "plain"]
        layouts, precisions = times[name, "contiguous"], times[name, "bfloat16"]
        print(f"{name:14} {ratio(plain, layouts):28} {ratio(precisions, plain)}")


def show_components(times: Times) -> None:
    """Print the multiple of the plain update that each component costs."""
    plain = times[PLAIN]
    print(f"\na plain update takes {statistics.median(plain) * 1e3:.1f} ms; {len(plain)} rounds")
    print(f"{'':50} multiple of the plain update (quartiles)")
    for (kind, label), seconds in times.items():
        print(f"{f'{kind} {label}':50} {ratio(seconds, plain)}")


def main() -> None:
    """Time the architectures on both data sets, then all components, and print the tables."""
    parser = argparse.ArgumentParser(description="What architectures and stabilisers cost.")
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, 1 thread, {rounds} rounds of {UPDATES} updates", flush=True)
    for dataset in (DIGITS, PATCHES):
        times = in_turns(architecture_variants(dataset), rounds)
        show_architectures(dataset, times)
        show_ways(dataset, times)
        sys.stdout.flush()
    show_components(in_turns(component_variants(), COMPONENT_ROUNDS * rounds))


if __name__ == "__main__":
    main()
