"""StudySpec -> the trials, in a fixed order, whose first ones cover every arm."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from itertools import islice
from typing import Any, NamedTuple

from ganstudy.gan.config import TrainConfig
from ganstudy.gan.seeding import derive
from ganstudy.study.arm import Arm
from ganstudy.study.outcomes import DEFAULT_CONFIG
from ganstudy.study.replicate import Replicate
from ganstudy.study.spec import StudySpec
from ganstudy.trial import TrialSpec, trial_id

Uniforms = Callable[[Arm, str, int], float]
"""Arm, key path and number of the config -> a number in [0, 1)."""


class Planned(NamedTuple):
    """One trial of a plan, before anything of it is built: thousands are made in no time."""

    arm: Arm
    config_id: str
    seed: int
    values: Mapping[str, Any]
    """Key path -> swept value."""

    @property
    def trial_id(self) -> str:
        """Arm, config and seed."""
        return trial_id(self.arm.name, self.config_id, self.seed)

    def train(self) -> TrainConfig:
        """Return the config of its run."""
        return self.arm.train(self.values, self.seed)


def planned(spec: StudySpec) -> Iterator[Planned]:
    """Yield every trial of the study, config by config, each config in every arm and seed."""
    for config_id, values_of in configs(spec):
        for seed in spec.design.seeds:
            for arm in spec.arms:
                values = values_of.get(arm.name)
                if values is not None:
                    yield Planned(arm, config_id, seed + arm.seed_offset, values)


def count_trials(spec: StudySpec, most: int) -> int:
    """Count the trials of a study without drawing them, up to somewhat more than `most`."""
    seeds = len(spec.design.seeds)
    if spec.replicate is not None:
        return seeds * sum(len(configs) for configs in (spec.replicate.configs or {}).values())
    if spec.design.sampler != "grid":
        count = spec.design.configs * len(spec.arms)
    else:
        count = 0
        for arm in spec.arms:  # conditions make a grid smaller than the product of its choices
            count += sum(1 for _ in islice(_products(arm), most + 1))
            if count > most:
                break
    return seeds * (count + (len(spec.arms) if spec.design.include_defaults else 0))


def plan(spec: StudySpec) -> list[TrialSpec]:
    """Return every trial of the study as it will run, in the order of `planned`."""
    return [trial(spec, p.arm, p.config_id, p.values, p.seed) for p in planned(spec)]


def trial(
    spec: StudySpec, arm: Arm, config_id: str, values: Mapping[str, Any], seed: int
) -> TrialSpec:
    """Return the trial of one arm at one config and seed."""
    return TrialSpec(
        study=spec.study,
        arm=arm.name,
        config_id=config_id,
        train=arm.train(values, seed),
        measure=spec.measure,
        events=spec.events,
        params=values,
        cpu=spec.resources.cpu,
        gpu=spec.resources.gpu,
        minutes=spec.resources.trial_minutes,
    )


def configs(spec: StudySpec) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    """Yield config_id, and arm -> swept values, in the order of the design."""
    if spec.design.include_defaults:
        yield DEFAULT_CONFIG, {arm.name: {} for arm in spec.arms}
    if spec.replicate is not None:
        yield from _repeated(spec.replicate)
        return
    if spec.design.sampler == "grid":
        yield from _grid(spec)
        return
    uniforms = _sobol(spec) if spec.design.sampler == "sobol" else _hashed(spec)
    for index in range(spec.design.configs):
        yield (
            f"c{index:02d}",
            {arm.name: arm.draw(partial(_value, uniforms, arm, index)) for arm in spec.arms},
        )


def _value(uniforms: Uniforms, arm: Arm, index: int, key: str) -> Any:
    return arm.space[key].at(uniforms(arm, key, index))


def uniform(design_seed: int, *key: object) -> float:
    """Return a number in [0, 1) that depends on the seed and the key and on nothing else.

    So extending a study or adding an arm moves no other draw, and arms that share a key share
    its draw.
    """
    return (derive("design", design_seed, *key) >> 10) / 2**53


def _hashed(spec: StudySpec) -> Uniforms:
    design = spec.design
    draw = lru_cache(partial(uniform, design.seed))  # arms that share a draw come one by one

    def at(arm: Arm, key: str, index: int) -> float:
        return draw("" if design.paired else arm.name, key, index)

    return at


def _sobol(spec: StudySpec) -> Uniforms:
    """Return draws from one scrambled Sobol sequence over all keys of all arms."""
    from scipy.stats import qmc  # slow to import, and few studies need it

    keys = sorted({key for arm in spec.arms for key in arm.space})
    count = 2 ** math.ceil(math.log2(max(spec.design.configs, 2)))
    sequence = qmc.Sobol(
        d=max(1, len(keys)), scramble=True, bits=30, optimization=None, rng=spec.design.seed
    )
    points = sequence.random(count)

    def at(arm: Arm, key: str, index: int) -> float:
        return float(points[index, keys.index(key)])

    return at


def _repeated(replicate: Replicate) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    """Yield the repeated configs, those that ranked first in some arm before all others."""
    chosen = replicate.configs or {}
    ranks: dict[str, int] = {}
    for configs_of_arm in chosen.values():
        for rank, config_id in enumerate(configs_of_arm):
            ranks[config_id] = min(rank, ranks.get(config_id, rank))
    for config_id in sorted(ranks, key=lambda c: (ranks[c], c)):
        yield config_id, {arm: c[config_id] for arm, c in chosen.items() if config_id in c}


def _grid(spec: StudySpec) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    """Yield the products of all choices; arms with smaller grids end earlier."""
    grids = {arm.name: list(_products(arm)) for arm in spec.arms}
    for index in range(max(len(grid) for grid in grids.values())):
        yield (
            f"c{index:02d}",
            {name: grid[index] for name, grid in grids.items() if index < len(grid)},
        )


def _products(arm: Arm) -> Iterator[dict[str, Any]]:
    """Yield every product of the choices that are drawn together, the last key's fastest."""

    def grow(values: dict[str, Any], keys: list[str]) -> Iterator[dict[str, Any]]:
        if not keys:
            yield dict(sorted(values.items()))
            return
        key, *rest = keys
        if not arm.space[key].holds(values):
            yield from grow(values, rest)
            return
        for value in arm.space[key].ends():
            yield from grow({**values, key: value}, rest)

    yield from grow({}, arm.order)
