"""A study's YAML -> a StudySpec of built objects, or one error with the path of the wrong key.

Everything that a trial could trip over is built here, both ends of every range and every choice
included, before anything is written or started.
"""

from __future__ import annotations

import copy
import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import torch
from pydantic import AfterValidator, Field
from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, DuplicateKeyError
from ruamel.yaml.error import YAMLError
from torch import nn

from ganstudy.gan.architectures import Architecture, ImageShape
from ganstudy.gan.config import (
    SHORTHANDS,
    SINGLE,
    TrainConfig,
    at,
    merge,
)
from ganstudy.gan.datasets import Dataset
from ganstudy.gan.losses import Loss, Objective
from ganstudy.gan.state import build_discriminator
from ganstudy.measure.events import EventsConfig
from ganstudy.measure.protocol import MeasureConfig, whole
from ganstudy.registry import STRICT, StudyError, only_text_keys, translate, unknown
from ganstudy.study.space import Distribution, parse_distribution

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
TRAIN_KEYS = {f.name for f in fields(TrainConfig)} - {"seed", "discriminator_updates"}
TRAIN_KEYS |= {"budget", *SHORTHANDS}
"""Keys of `base` and of an arm; an arm also has `space` and `recipe`."""


Seed = Annotated[int, Field(ge=0, lt=2**63)]


def distinct(seeds: list[int]) -> list[int]:
    """Return `seeds` if none stands twice: two trials of one name would share a folder."""
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"name a seed twice: {seeds}")
    return seeds


class Design(pydantic.BaseModel):
    """Which configurations and seeds are run."""

    model_config = STRICT | {"frozen": True}

    sampler: Literal["random", "sobol", "grid", "tpe"] = "random"
    """random: independent draws, what best-of-k curves need; tpe: adaptive, kept out of them."""
    configs: Annotated[int, Field(ge=1)] = 16
    """Configurations per arm (of a grid: all of them, whatever this says)."""
    seeds: Annotated[list[Seed], Field(min_length=1), AfterValidator(distinct)] = [0]
    """Training seeds per configuration."""
    seed: Seed = 0
    """Seed of the draws."""
    paired: bool = True
    """Whether config i has the same draw in every arm."""
    include_defaults: bool = False
    """Whether each arm's defaults run too, as the config `default`, outside best-of-k."""


class Resources(pydantic.BaseModel):
    """What one trial gets."""

    model_config = STRICT | {"frozen": True}

    cpu: Annotated[int, Field(ge=1)] = 1
    """Cores and threads per trial."""
    gpu: Annotated[float, Field(ge=0)] = 0.0
    """GPUs per trial; a fraction shares one."""
    max_concurrent: Annotated[int, Field(ge=1)] | None = None
    """Trials at a time; as many as fit unless given."""


@dataclass(frozen=True)
class Arm:
    """One way of training that is compared: its settings and its search space."""

    name: str
    settings: Mapping[str, Any]
    space: Mapping[str, Distribution]
    shared: frozenset[str] = frozenset()
    """Keys of `space` that stand in the study's space, not in the arm's own."""

    def path_of(self, key: str) -> str:
        """Return where in the study a space key stands."""
        return f"space.{key}" if key in self.shared else f"arms.{self.name}.space.{key}"

    def train(self, values: Mapping[str, Any], seed: int) -> TrainConfig:
        """Return the config of this arm at the swept `values`, key path -> value."""
        settings = dict(self.settings)
        for key, value in values.items():
            settings = merge(settings, nested(key, value))
        budget = settings.pop("budget")
        settings["discriminator_updates"] = budget["discriminator_updates"]
        return TrainConfig.from_dict(settings | {"seed": seed})


@dataclass(frozen=True)
class StudySpec:
    """A study: what is asked, which arms are compared, how it is measured and run."""

    study: str
    arms: tuple[Arm, ...]
    design: Design
    measure: MeasureConfig
    events: EventsConfig
    resources: Resources
    question: str = ""
    source: str = ""
    retries: int = 2
    max_failed_trials: int = 0

    @property
    def dataset(self) -> Dataset:
        """The data set that all arms share."""
        return self.arms[0].train({}, 0).dataset

    def resolved(self) -> dict[str, Any]:
        """Return the study as plain data, all defaults filled in; parses to an equal spec."""
        return {
            "study": self.study,
            "question": self.question,
            "source": self.source,
            "arms": {
                arm.name: {
                    **copy.deepcopy(dict(arm.settings)),
                    "space": {key: d.to_dict() for key, d in arm.space.items()},
                }
                for arm in self.arms
            },
            "design": self.design.model_dump(),
            "measure": self.measure.to_dict(),
            "events": self.events.to_dict(),
            "resources": self.resources.model_dump(),
            "retries": self.retries,
            "max_failed_trials": self.max_failed_trials,
        }


TOP_KEYS = {
    "study", "question", "source", "base", "arms", "space", "design", "measure", "events",
    "resources", "retries", "max_failed_trials",
}  # fmt: skip


def nested(path: str, value: Any) -> dict[str, Any]:
    """Return `{a: {b: value}}` for the path `a.b`."""
    for part in reversed(path.split(".")):
        value = {part: value}
    return value


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML 1.2 mapping safely: tags are refused, never executed.

    Raises:
        StudyError: For a file that cannot be read, is not UTF-8 or is not a YAML mapping.
    """
    yaml = YAML(typ="safe", pure=True)
    data: object
    try:
        data = yaml.load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyError("", f"cannot read the file: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise StudyError("", f"not UTF-8 text (byte {error.start})") from None
    except DuplicateKeyError as error:
        problem = str(error.problem).partition(" with value")[0]
        raise StudyError("", f"{problem}{_line(error)}") from None
    except ConstructorError as error:
        raise StudyError("", f"YAML tags are not allowed: {error.problem}{_line(error)}") from None
    except (YAMLError, ValueError) as error:
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise StudyError("", f"not valid YAML: {problem}{_line(error)}") from None
    if not isinstance(data, dict):
        raise StudyError("", "a study is a mapping that begins with `study: NAME`")
    return data


def _line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f" (line {mark.line + 1})" if mark is not None else ""


def load_study(path: Path, overrides: Iterable[str] = ()) -> StudySpec:
    """Read, build and check a study.

    Args:
        path: The YAML file.
        overrides: `KEY=VALUE`, with KEY a dotted path and VALUE YAML: `design.configs=4`.

    Raises:
        StudyError: With the path of the wrong key, the rule and the nearest right name.
    """
    data = read_yaml(path)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise StudyError("--set", f"must be KEY=VALUE, got {override!r}")
        try:
            value = YAML(typ="safe", pure=True).load(text)
        except (YAMLError, ValueError):
            raise StudyError("--set", f"the value of {key} is not valid YAML: {text!r}") from None
        root, _, rest = key.partition(".")
        if root == "arms" and rest.partition(".")[0] not in data.get("arms", {}):
            # A slip would silently make one more arm.
            rule = unknown("arm", rest.partition(".")[0], data.get("arms", {}))
            raise StudyError("--set", rule)
        data = merge_plain(data, nested(key, value))
    spec = parse_study(data)
    check(spec)
    return spec


def merge_plain(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `over` laid on `base`, mapping by mapping; a name becomes a mapping where needed."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, str) and key != "study":
            old = {"name": old}
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            merged[key] = merge_plain(old, value)
        else:
            merged[key] = value
    return merged


def parse_study(data: Mapping[str, Any]) -> StudySpec:
    """Build a study from plain data; see `check` for what needs the data set."""
    for key in data:
        if key not in TOP_KEYS:
            raise StudyError(str(key), unknown("key", key, TOP_KEYS))
    name = at("study", _name, data.get("study"))
    base = at("base", _settings, data.get("base", {}), TRAIN_KEYS)
    base = {"budget": {"discriminator_updates": 1000}} | base
    try:
        arms = at("arms", _arms, data.get("arms"), base)
    except StudyError as error:
        # What is wrong in the base would be told of the first arm.
        at("base", _only_if, error.rule, Arm("base", base, {}))
        raise
    arms = _with_shared_space(arms, at("space", _space, data.get("space", {})))
    budget = max(arm.train({}, 0).discriminator_updates for arm in arms)
    return StudySpec(
        study=name,
        question=at("question", _text, data.get("question", "")),
        source=at("source", _text, data.get("source", "")),
        arms=arms,
        design=at("design", _model, Design, data.get("design", {})),
        measure=at("measure", _measure, data.get("measure", {}), budget),
        events=at("events", _events, data.get("events", {})),
        resources=at("resources", _model, Resources, data.get("resources", {})),
        retries=at("retries", whole, data.get("retries", 2), least=0),
        max_failed_trials=at(
            "max_failed_trials", whole, data.get("max_failed_trials", 0), least=0
        ),
    )


def check(spec: StudySpec) -> None:
    """Build what every trial will need: data, networks, and measures that can be trusted."""
    datasets = {arm.train({}, 0).dataset for arm in spec.arms}
    if len(datasets) > 1 or any("dataset" in key for arm in spec.arms for key in arm.space):
        raise StudyError(
            "arms", "all arms must use one data set, or their scores could not be compared"
        )
    for arm in spec.arms:
        at(f"arms.{arm.name}", _check_train, arm.train({}, 0))
        for key, distribution in arm.space.items():
            for value in distribution.ends():
                at(arm.path_of(key), _check_swept, arm, key, value)
        at(f"arms.{arm.name}.space", _check_together, arm)
    at("measure", spec.measure.check, spec.dataset)
    if spec.design.sampler == "grid":
        _check_grid(spec)


def _check_swept(arm: Arm, key: str, value: Any) -> None:
    """Check the arm's config at one swept value; an error names the space key alone."""
    try:
        _check_train(arm.train({key: value}, 0))
    except StudyError as error:
        # The top of a range is built just below it, where the highest draw can lie.
        shown = f"{value:.6g}" if isinstance(value, float) else repr(value)
        rule = error.rule.partition(", got ")[0]
        raise StudyError("", f"{rule} (at the value {shown})") from None


def _check_together(arm: Arm) -> None:
    """Build every pair of ends: keys may be right alone and wrong together."""
    for key in arm.space:
        root = key.removesuffix(".name")
        options = [other for other in arm.space if other.startswith(f"{root}.") and other != key]
        if root in {*SINGLE, "optimizer"} and options:
            raise StudyError(
                options[0], f"excludes {key}: another component would not have this option"
            )
    for one, other in itertools.combinations(arm.space, 2):
        for values in itertools.product(arm.space[one].ends(), arm.space[other].ends()):
            _check_train(arm.train(dict(zip((one, other), values, strict=True)), 0))
    for corner in (0, -1):
        _check_train(arm.train({key: d.ends()[corner] for key, d in arm.space.items()}, 0))


def _check_train(config: TrainConfig) -> None:
    """Build the data and the networks of one config."""
    try:
        config.dataset.check()
        shape = config.dataset.image_shape
    except (ValueError, OSError) as error:
        raise StudyError("dataset", str(error)) from None
    if config.batch_size > len(config.dataset.images("train")):
        available = len(config.dataset.images("train"))
        raise StudyError(
            "batch_size", f"{config.batch_size} is more than the {available} training images"
        )
    try:
        networks(config.architecture, config.loss, shape)
    except ValueError as error:
        raise StudyError("architecture", str(error)) from None


@functools.lru_cache
def networks(
    architecture: Architecture, loss: Objective, shape: ImageShape
) -> tuple[nn.Module, nn.Module]:
    """Build generator and discriminator once, or raise the ValueError of what cannot be made."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return architecture.generator(shape), build_discriminator(architecture, loss, shape)


def notes(spec: StudySpec) -> list[str]:
    """Return what is allowed and yet not what it may seem, each once, with the arms it is of."""
    found: dict[str, list[str]] = {}
    for arm in spec.arms:
        configs = [arm.train({}, 0)]
        for key, distribution in arm.space.items():
            configs += [arm.train({key: value}, 0) for value in distribution.ends()]
        for note in dict.fromkeys(note for config in configs for note in _notes(config)):
            found.setdefault(note, []).append(arm.name)
    return [f"{', '.join(arms)}: {note}" for note, arms in found.items()]


def _notes(config: TrainConfig) -> Iterator[str]:
    _, discriminator = networks(config.architecture, config.loss, config.dataset.image_shape)
    batch_norms = nn.modules.batchnorm._BatchNorm
    if any(isinstance(module, batch_norms) for module in discriminator.modules()):
        for regularizer in config.regularizers:
            if regularizer.differentiates_input:
                yield (
                    f"{regularizer.name} with batch norm in the discriminator: a logit then "
                    f"depends on the whole batch, so that the gradient by an image is not that "
                    f"of its own logit and the penalty is another than the paper's "
                    f"(architecture.discriminator_normalization: layer or none avoids it)"
                )
    if not isinstance(config.loss, Loss):
        yield (
            f"{config.loss.name} has no discriminator: its budget is counted in generator "
            f"updates, one per batch of real images, so that it sees as many images as an arm "
            f"with as many discriminator updates; n_critic and generator_steps change nothing"
        )


def _check_grid(spec: StudySpec) -> None:
    for arm in spec.arms:
        for key, distribution in arm.space.items():
            if "choice" not in distribution.to_dict():
                raise StudyError(
                    f"arms.{arm.name}.space.{key}", "a grid needs choices, not a range"
                )


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise StudyError("", f"a mapping is needed, got {value!r}")
    return only_text_keys(value)


def _name(value: object) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise StudyError("", f"a name of letters, digits, _ and - is needed, got {value!r}")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise StudyError("", f"a text is needed, got {value!r}")
    return value.strip()


def _model(model: type[Any], value: object) -> Any:
    try:
        return model(**_mapping(value))
    except pydantic.ValidationError as error:
        raise translate(error, "key", model.model_fields) from None


def _measure(value: object, budget: int) -> MeasureConfig:
    return MeasureConfig.from_dict(_mapping(value), budget)


def _only_if(rule: str, base: Arm) -> None:
    """Raise the error of the base alone if it breaks the same rule."""
    try:
        base.train({}, 0)
    except StudyError as error:
        if error.rule == rule:
            raise


def _events(value: object) -> EventsConfig:
    return EventsConfig.from_dict(_mapping(value))


def _settings(value: object, known: set[str]) -> dict[str, Any]:
    settings = dict(_mapping(value))
    for key in settings:
        if key not in known:
            raise StudyError(str(key), unknown("key", key, known))
    if "budget" in settings:
        budget = settings["budget"]
        if not isinstance(budget, Mapping) or set(budget) != {"discriminator_updates"}:
            raise StudyError("budget", f"must be {{discriminator_updates: N}}, got {budget!r}")
        at("budget.discriminator_updates", whole, budget["discriminator_updates"])
    return settings


def _space(value: object) -> dict[str, Distribution]:
    return {str(key): at(str(key), parse_distribution, d) for key, d in _mapping(value).items()}


def _arms(value: object, base: Mapping[str, Any]) -> tuple[Arm, ...]:
    if not isinstance(value, Mapping) or not value:
        raise StudyError("", "at least one arm is needed: {name: {loss: ...}}")
    return tuple(at(str(name), _arm, name, own, base) for name, own in value.items())


def _arm(name: object, value: object, base: Mapping[str, Any]) -> Arm:
    own = _settings(value if value is not None else {}, TRAIN_KEYS | {"space"})
    space = at("space", _space, own.pop("space", {}))
    arm = Arm(_name(name), merge(base, own), space)
    arm.train({}, 0)
    for key in space:
        if not has_key(arm, key):
            raise at_space(arm, key)
    return arm


def at_space(arm: Arm, key: str) -> StudyError:
    """Return the error for a space key that the arm does not have."""
    return StudyError(f"space.{key}", unknown("key of this arm", key, sweepable(arm)))


def sweepable(arm: Arm) -> list[str]:
    """Return every key path that a space of this arm may name."""
    plain = arm.train({}, 0).to_dict()
    for key in ("seed", "discriminator_updates"):
        del plain[key]
    paths = ["ttur_ratio", "budget.discriminator_updates"]
    for key, value in plain.items():
        paths.append(key)
        if isinstance(value, Mapping):
            for option, inner in value.items():
                paths.append(f"{key}.{option}")
                if isinstance(inner, Mapping):
                    paths += [f"{key}.{option}.{name}" for name in inner]
    shared = set(plain["generator_optimizer"]) & set(plain["discriminator_optimizer"])
    return paths + ["optimizer", *(f"optimizer.{option}" for option in shared)]


def has_key(arm: Arm, key: str) -> bool:
    """Whether `key` is a path into the settings of `arm`."""
    return key in sweepable(arm)


def _with_shared_space(
    arms: tuple[Arm, ...], shared: Mapping[str, Distribution]
) -> tuple[Arm, ...]:
    """Give every arm those keys of the study's space that it has; a key of no arm is an error."""
    for key in shared:
        if not any(has_key(arm, key) for arm in arms):
            known = {path for arm in arms for path in sweepable(arm)}
            raise StudyError(f"space.{key}", unknown("key of any arm", key, known))
    return tuple(
        Arm(
            arm.name,
            arm.settings,
            {k: d for k, d in shared.items() if has_key(arm, k)} | dict(arm.space),
            frozenset(k for k in shared if has_key(arm, k) and k not in arm.space),
        )
        for arm in arms
    )
