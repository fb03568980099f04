"""TrainConfig: everything that one run depends on, and nothing else."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

from ganstudy.gan.architectures import ARCHITECTURES, Architecture
from ganstudy.gan.datasets import DATASETS, Dataset
from ganstudy.gan.losses import LOSSES, Loss
from ganstudy.gan.optimizers import OPTIMIZERS, Optimizer
from ganstudy.gan.regularizers import REGULARIZERS, Regularizer
from ganstudy.gan.stabilizers import STABILIZERS, Stabilizer
from ganstudy.registry import Component, Registry, StudyError, only_text_keys, unknown

MemoryFormat = Literal["channels_last", "contiguous"]

SINGLE: dict[str, Registry[Any]] = {
    "dataset": DATASETS,
    "architecture": ARCHITECTURES,
    "loss": LOSSES,
    "generator_optimizer": OPTIMIZERS,
    "discriminator_optimizer": OPTIMIZERS,
}
"""Keys that hold one component."""
MANY: dict[str, Registry[Any]] = {"regularizers": REGULARIZERS, "stabilizers": STABILIZERS}
"""Keys that hold a mapping name -> options."""
SHORTHANDS = ("optimizer", "ttur_ratio")
"""Keys that only set others: both networks' optimiser; discriminator lr / generator lr."""

DEFAULTS: dict[str, Any] = {
    "dataset": "mnist5k",
    "architecture": "dcgan",
    "loss": "non_saturating",
    "generator_optimizer": "adam",
    "discriminator_optimizer": "adam",
    "regularizers": {},
    "stabilizers": {},
}


@dataclass(frozen=True)
class TrainConfig:
    """One run of one GAN, as built objects.

    Attributes:
        regularizers: Of the discriminator, in the order of their names.
        n_critic: Discriminator updates per generator update.
        batch_size: Real images, and as many fakes, per update.
        discriminator_updates: The budget.
        memory_format: Layout of images and weights; channels_last is the faster one on CPU.
        seed: Seed of every stream of randomness of the run.
    """

    dataset: Dataset
    architecture: Architecture
    loss: Loss
    generator_optimizer: Optimizer
    discriminator_optimizer: Optimizer
    regularizers: tuple[Regularizer, ...] = ()
    stabilizers: tuple[Stabilizer, ...] = ()
    n_critic: int = 1
    batch_size: int = 64
    discriminator_updates: int = 1000
    memory_format: MemoryFormat = "channels_last"
    seed: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        """Check the plain numbers; components have checked themselves."""
        for name in ("n_critic", "batch_size", "discriminator_updates"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise StudyError(name, f"must be a whole number of at least 1, got {value!r}")
        if self.memory_format not in ("channels_last", "contiguous"):
            rule = unknown("memory format", self.memory_format, ("channels_last", "contiguous"))
            raise StudyError("memory_format", rule)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data from which `from_dict` builds an equal config."""
        plain: dict[str, Any] = {}
        for name in (f.name for f in fields(self)):
            value = getattr(self, name)
            if isinstance(value, Component):
                plain[name] = value.to_dict()
            elif isinstance(value, tuple):
                parts = [c.to_dict() for c in value]
                plain[name] = {c.pop("name"): c for c in parts}
            else:
                plain[name] = value
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrainConfig:
        """Build from plain data, what `to_dict` gave or a YAML holds.

        Raises:
            StudyError: With the path of the wrong key, the rule and the nearest right name.
        """
        known = {f.name for f in fields(cls)} | set(SHORTHANDS)
        for key in data:
            if key not in known:
                raise StudyError(str(key), unknown("key", key, known))
        plain = expand_shorthands(data)
        built: dict[str, Any] = {}
        for key, registry in SINGLE.items():
            try:
                built[key] = registry.parse(plain[key])
            except StudyError as error:
                raise error.under(written(key, error.path, data)) from None
        for key, registry in MANY.items():
            built[key] = at(key, parse_many, registry, plain[key])
        numbers = {k: v for k, v in plain.items() if k not in built}
        return cls(**built, **numbers)

    def canonical_json(self) -> str:
        """Return the one JSON text of this config: sorted keys, no spaces."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))


T = TypeVar("T")


def at(path: str, build: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Return `build(*arguments, **options)`; a StudyError gets `path` put before its own."""
    try:
        return build(*arguments, **options)
    except StudyError as error:
        raise error.under(path) from None


def written(key: str, option: str, data: Mapping[str, Any]) -> str:
    """Return the key under which a user wrote `option`: `optimizer` for both networks' too."""
    both = named(data.get("optimizer", {}))
    own = named(data.get(key, {})) if key.endswith("_optimizer") else {option: None}
    return "optimizer" if option in both and option not in own else key


def parse_many(registry: Registry[Any], value: object) -> tuple[Any, ...]:
    """Build a mapping name -> options into components, in the order of their names."""
    if not isinstance(value, Mapping):
        raise StudyError("", f"a mapping name -> options is needed, got {value!r}")
    built = []
    for name, options in sorted(only_text_keys(value).items()):
        registry.get(name)
        if not isinstance(options, Mapping):
            raise StudyError(
                name, f"options are a mapping, {{}} for the defaults, got {options!r}"
            )
        built.append(at(name, _build, registry, name, options))
    return tuple(built)


def _build(registry: Registry[Any], name: str, options: Mapping[Any, Any]) -> Any:
    return registry.build(name, **only_text_keys(options))


def named(value: object) -> dict[str, Any]:
    """Return `name` or `{name: ..., ...}` as the mapping, copied."""
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, Mapping):
        return copy.deepcopy(dict(value))
    raise StudyError("", f"a name or a mapping with a name is needed, got {value!r}")


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings `over` laid on `base`, by the study grammar.

    Mappings merge by key and null removes; a component that is named anew drops the options that
    belonged to the other one.
    """
    merged = copy.deepcopy(dict(base))
    for key, value in over.items():
        if key in SINGLE or key == "optimizer":
            old = at(key, named, merged[key]) if key in merged else {}
            new = at(key, named, value)
            changed = "name" in new and new["name"] != old.get("name", new["name"])
            merged[key] = new if changed else old | new
        elif isinstance(value, Mapping) and (key in MANY or isinstance(merged.get(key), Mapping)):
            merged[key] = merge(merged.get(key, {}), value)
        elif value is None:
            merged.pop(key, None)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def expand_shorthands(data: Mapping[str, Any]) -> dict[str, Any]:
    """Resolve `optimizer` and `ttur_ratio` into the two networks' optimisers, fill defaults."""
    plain = copy.deepcopy(dict(data))
    both = at("optimizer", named, plain.pop("optimizer", {}))
    ratio = plain.pop("ttur_ratio", None)
    own_discriminator = at(
        "discriminator_optimizer", named, plain.get("discriminator_optimizer", {})
    )
    if ratio is not None and "lr" in own_discriminator:
        raise StudyError("ttur_ratio", "excludes discriminator_optimizer.lr: both set one number")
    for key in ("generator_optimizer", "discriminator_optimizer"):
        own = at(key, named, plain.get(key, {}))
        plain[key] = {"name": DEFAULTS[key]} | merge({key: both}, {key: own})[key]
    if ratio is not None:
        if isinstance(ratio, bool) or not isinstance(ratio, int | float) or ratio <= 0:
            raise StudyError("ttur_ratio", f"must be greater than 0, got {ratio!r}")
        generator = at("generator_optimizer", OPTIMIZERS.parse, plain["generator_optimizer"])
        plain["discriminator_optimizer"]["lr"] = ratio * generator.lr
    return {**DEFAULTS, **plain}
