"""TrainConfig: everything that one run depends on, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar, get_args

from ganstudy.gan.architectures import ARCHITECTURES, Architecture
from ganstudy.gan.conditioning import CONDITIONINGS, Conditioning, Unconditional
from ganstudy.gan.datasets import DATASETS, Dataset
from ganstudy.gan.losses import LOSSES, Loss, Objective
from ganstudy.gan.optimizers import OPTIMIZERS, SCHEDULES, Optimizer, Schedule
from ganstudy.gan.regularizers import REGULARIZERS, Regularizer
from ganstudy.gan.stabilizers import STABILIZERS, Stabilizer
from ganstudy.registry import Component, Registry, StudyError, only_text_keys, unknown, whole

MemoryFormat = Literal["channels_last", "contiguous"]
Precision = Literal["float32", "bfloat16"]

SINGLE: dict[str, Registry[Any]] = {
    "dataset": DATASETS,
    "architecture": ARCHITECTURES,
    "loss": LOSSES,
    "conditioning": CONDITIONINGS,
    "generator_optimizer": OPTIMIZERS,
    "discriminator_optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
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
    "conditioning": "unconditional",
    "generator_optimizer": "adam",
    "discriminator_optimizer": "adam",
    "schedule": "constant",
    "regularizers": {},
    "stabilizers": {},
}


@dataclass(frozen=True)
class TrainConfig:
    """One run of one GAN, as built objects.

    Attributes:
        conditioning: How labels enter the game, if they do.
        schedule: Of both networks' learning rates, over the budget.
        regularizers: In the order of their names.
        n_critic: Discriminator updates per generator update.
        generator_steps: Generator updates per discriminator update, the other way round.
        simultaneous: Whether both networks move at once, by their gradients at one point, and do
            not alternate.
        batch_size: Real images, and as many fakes, per update.
        flips: Whether real training images are mirrored left-right with probability 1/2.
        discriminator_updates: The budget.
        memory_format: Layout of images and weights; channels_last is the faster one on CPU.
        precision: bfloat16 runs the networks under autocast; losses, penalties and weights stay
            in float32.
        compile: Whether torch.compile compiles the networks' training passes.
        data_seed: Seed of the order of the data (and of flips); `seed` unless given.
        seed: Seed of every other stream of randomness of the run.
    """

    dataset: Dataset
    architecture: Architecture
    loss: Objective
    generator_optimizer: Optimizer
    discriminator_optimizer: Optimizer
    schedule: Schedule
    conditioning: Conditioning = field(default_factory=Unconditional)
    regularizers: tuple[Regularizer, ...] = ()
    stabilizers: tuple[Stabilizer, ...] = ()
    n_critic: int = 1
    generator_steps: int = 1
    simultaneous: bool = False
    batch_size: int = 64
    flips: bool = False
    discriminator_updates: int = 1000
    memory_format: MemoryFormat = "channels_last"
    precision: Precision = "float32"
    compile: bool = False
    data_seed: int | None = None
    seed: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        """Check the plain values, and what cannot go together; components checked themselves."""
        for name in ("n_critic", "generator_steps", "batch_size", "discriminator_updates"):
            at(name, whole, getattr(self, name))
        if self.data_seed is not None:
            at("data_seed", whole, self.data_seed, least=0)
        for name in ("simultaneous", "flips", "compile"):
            if not isinstance(getattr(self, name), bool):
                raise StudyError(name, f"must be true or false, got {getattr(self, name)!r}")
        for name, choices in (("memory_format", MemoryFormat), ("precision", Precision)):
            if getattr(self, name) not in get_args(choices):
                raise StudyError(name, unknown("value", getattr(self, name), get_args(choices)))
        self._check_together()

    def _check_together(self) -> None:
        """Refuse what no trainer could do, with the reason."""
        differentiated = [r.name for r in self.regularizers if r.differentiates_input]
        if self.compile and differentiated:
            raise StudyError(
                "compile",
                f"excludes {differentiated[0]}: torch.compile has no double backward, so that a "
                f"penalty on gradients could only run uncompiled beside it",
            )
        if self.compile and self.architecture.grows:
            raise StudyError("compile", f"excludes {self.architecture.name}, which grows")
        if self.n_critic > 1 and self.generator_steps > 1:
            raise StudyError("generator_steps", "excludes n_critic > 1, its converse")
        extrapolating = [o.extrapolates for o in self._optimizers()]
        if any(extrapolating) and not all(extrapolating):
            raise StudyError(
                "optimizer", "extragradient moves both networks at once: name it for both"
            )
        if (any(extrapolating) or self.simultaneous) and self.n_critic * self.generator_steps > 1:
            key = "n_critic" if self.n_critic > 1 else "generator_steps"
            what = "extragradient" if any(extrapolating) else "a simultaneous game"
            raise StudyError(key, f"must be 1: {what} moves both networks at once")
        if not isinstance(self.loss, Loss):
            self._check_without_game()
        _checked("conditioning", self.conditioning.check, self)
        for stabilizer in self.stabilizers:
            _checked(f"stabilizers.{stabilizer.name}", stabilizer.check, self)

    def _check_without_game(self) -> None:
        """Refuse what needs a discriminator, for a model that has none."""
        why = f"{self.loss.name} has no discriminator"
        if self.compile:
            raise StudyError("compile", f"is for games, and {why}")
        if self.regularizers:
            raise StudyError(
                f"regularizers.{self.regularizers[0].name}",
                f"{why} to regularise: null removes it",
            )
        played = [s.name for s in self.stabilizers if not s.averages]
        if played:
            raise StudyError(f"stabilizers.{played[0]}", f"{why} to play against: null removes it")
        if any(o.extrapolates for o in self._optimizers()):
            raise StudyError("optimizer", f"{why}: extragradient needs a game of two")
        if self.architecture.prior != "normal":
            raise StudyError(
                "architecture.prior", f"must be normal: {self.loss.name} is defined on N(0, I)"
            )

    def _optimizers(self) -> tuple[Optimizer, Optimizer]:
        return self.generator_optimizer, self.discriminator_optimizer

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
        for key in data:
            if key not in CONFIG_KEYS:
                raise StudyError(str(key), unknown("key", key, CONFIG_KEYS))
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


CONFIG_KEYS = {f.name for f in fields(TrainConfig)} | set(SHORTHANDS)
"""What `TrainConfig.from_dict` reads."""


def _checked(path: str, check: Callable[[TrainConfig], None], config: TrainConfig) -> None:
    try:
        check(config)
    except StudyError:
        raise
    except (ValueError, OSError) as error:
        raise StudyError(path, str(error)) from None


T = TypeVar("T")


def at(path: str, build: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Return `build(*arguments, **options)`; a StudyError gets `path` put before its own."""
    try:
        return build(*arguments, **options)
    except StudyError as error:
        raise error.under(path) from None


def updates(value: object) -> int:
    """Return N of `{discriminator_updates: N}`: so distances and lengths are written."""
    if not isinstance(value, Mapping) or set(value) != {"discriminator_updates"}:
        raise StudyError("", f"must be {{discriminator_updates: N}}, got {value!r}")
    return at("discriminator_updates", whole, value["discriminator_updates"])


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
    """Return `name` or `{name: ..., ...}` as a mapping of its own."""
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, Mapping):
        return dict(value)
    raise StudyError("", f"a name or a mapping with a name is needed, got {value!r}")


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings `over` laid on `base`, by the study grammar.

    Mappings merge by key and null removes; a component that is named anew drops the options that
    belonged to the other one. What is nested may be shared with either, so nothing may change it.
    """
    merged = dict(base)
    for key, value in over.items():
        if key in SINGLE or key == "optimizer":
            old = at(key, named, merged[key]) if key in merged else {}
            new = at(key, named, value)
            changed = "name" in new and new["name"] != old.get("name", new["name"])
            merged[key] = new if changed else old | new
        elif isinstance(value, Mapping) and (key in MANY or isinstance(merged.get(key), Mapping)):
            for name in value if key in MANY else ():
                at(key, MANY[key].get, name)
            merged[key] = merge(merged.get(key, {}), value)
        elif value is None:
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged


def expand_shorthands(data: Mapping[str, Any]) -> dict[str, Any]:
    """Resolve `optimizer` and `ttur_ratio` into the two networks' optimisers, fill defaults."""
    plain = dict(data)
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
    for key, default in DEFAULTS.items():
        if key in SINGLE and isinstance(plain.get(key), Mapping):
            plain[key] = {"name": default} | plain[key]
    return {**DEFAULTS, **plain}
