"""A study's plain data -> a StudySpec of built objects, or one error with the wrong key's path."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import AfterValidator, Field

from ganstudy.gan.config import MANY, SHORTHANDS, TrainConfig, at, merge
from ganstudy.gan.datasets import Dataset
from ganstudy.measure.events import EventsConfig
from ganstudy.measure.protocol import MeasureConfig
from ganstudy.paths import resolve_paths
from ganstudy.registry import STRICT, StudyError, only_text_keys, translate, unknown, whole
from ganstudy.study import recipes
from ganstudy.study.arm import Arm, checked_name
from ganstudy.study.controls import Controls, check_seeds, with_controls
from ganstudy.study.judgement import Judgement, parse_judgement
from ganstudy.study.narrow import with_narrow
from ganstudy.study.recipes import Template
from ganstudy.study.replicate import Replicate, parse_replicate
from ganstudy.study.space import Distribution, Space, condition_of, in_order, parse_space
from ganstudy.study.stopping import Stopping, parse_stopping

TRAIN_KEYS = {f.name for f in fields(TrainConfig)} - {"seed", "discriminator_updates"}
TRAIN_KEYS |= {"budget", *SHORTHANDS}
"""Keys of `base` and of an arm; an arm also has `space`, `narrow` and `recipe`."""


BUDGET = {"budget": {"discriminator_updates": 1000}}
Seed = Annotated[int, Field(ge=0, lt=2**63)]


def distinct(seeds: list[int]) -> list[int]:
    """Return `seeds` if none stands twice: two trials of one name would share a folder."""
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"name a seed twice: {seeds}")
    return seeds


class Design(pydantic.BaseModel):
    """Which configurations and seeds are run."""

    model_config = STRICT | {"frozen": True}

    sampler: Literal["random", "sobol", "grid", "tpe", "replicate"] = "random"
    """random: independent draws, what best-of-k curves need; tpe: adaptive, kept out of them;
    replicate is what the key `replicate` sets."""
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
    memory_gib: Annotated[float, Field(gt=0)] | None = None
    """Main memory that Ray sets aside per trial, so that a node takes no more than it can hold."""
    max_concurrent: Annotated[int, Field(ge=1)] | None = None
    """Trials at a time; as many as fit unless given."""
    trial_minutes: Annotated[float, Field(gt=0)] | None = None
    """How long a trial may take; at the end of it, it is stopped and evaluated."""
    study_minutes: Annotated[float, Field(gt=0)] | None = None
    """How long one call may take until it ends as if interrupted; `resume` goes on."""


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
    replicate: Replicate | None = None
    stopping: Stopping | None = None
    controls: Controls = Controls()
    judgement: Judgement = Judgement()
    judgement_written: frozenset[str] = field(default=frozenset(), compare=False)
    """Keys of the judgement that the YAML says, whatever their values are."""

    @property
    def configs(self) -> int | None:
        """Configurations per arm that are compared; None of a grid."""
        return _configs(self.design, self.replicate)

    @property
    def judged_by(self) -> dict[str, Any]:
        """All that decides which arm is better: what is fixed and hashed before trial 1."""
        primary = self.measure.primary_score
        named = {"primary": primary.name, "minimize": primary.minimize}
        return named | self.judgement.model_dump()

    @property
    def dataset(self) -> Dataset:
        """The data set that all arms share."""
        return self.arms[0].train({}, 0).dataset

    def judged_like(self, before: StudySpec) -> StudySpec:
        """Return the study with the judgement of `before`, as far as its YAML says no other."""
        kept = before.judgement.model_dump()
        own = {key: getattr(self.judgement, key) for key in self.judgement_written}
        return replace(self, judgement=Judgement(**(kept | own)))

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
                    "narrow": {key: d.to_dict() for key, d in arm.narrow.items()},
                }
                for arm in self.arms
            },
            "design": self.design.model_dump(),
            "measure": self.measure.to_dict(),
            "events": self.events.to_dict(),
            "resources": self.resources.model_dump(),
            "retries": self.retries,
            "max_failed_trials": self.max_failed_trials,
            "stopping": None if self.stopping is None else _options(self.stopping),
            "controls": self.controls.to_dict(),
            "judgement": self.judgement.model_dump(),
        } | ({"replicate": self.replicate.model_dump(by_alias=True)} if self.replicate else {})


TOP_KEYS = {
    "study", "question", "source", "base", "arms", "space", "design", "measure", "events",
    "resources", "retries", "max_failed_trials", "recipe", "replicate", "stopping",
    "controls", "judgement", "narrow",
}  # fmt: skip


def parse_study(
    data: Mapping[str, Any], templates: Mapping[str, Template] | None = None
) -> StudySpec:
    """Build a study from plain data; see `checks.check` for what needs the data set.

    Args:
        data: What a YAML holds; a path that is still relative is so to the working directory.
        templates: Arms that lie under those of `data`, which may leave them out.
    """
    for key in data:
        if key not in TOP_KEYS:
            raise StudyError(str(key), unknown("key", key, TOP_KEYS))
    data = resolve_paths(data, Path())
    name = at("study", checked_name, data.get("study"))
    base = at("base", _settings, data.get("base", {}), TRAIN_KEYS)
    under = dict(templates or {})
    if "recipe" in data:
        under |= at("recipe", recipes.templates, data["recipe"])
    shared = at("space", parse_space, data.get("space", {}))
    at("space", in_order, {key: d for key, d in shared.items() if d is not None})
    try:
        arms = at("arms", _arms, data.get("arms"), base, under, shared)
    except StudyError as error:
        # What is wrong in the base would be told of the first arm.
        at("base", _only_if, error.rule, Arm("base", BUDGET | base, {}))
        raise
    _check_shared(arms, shared)
    arms = with_narrow(arms, data, under)
    arms, controls = at("controls", with_controls, data.get("controls"), arms)
    replicate = at("replicate", _replicate, data.get("replicate"), arms, controls)
    design = at("design", _model, Design, data.get("design", {}))
    at("controls", check_seeds, controls, design.seeds)
    if (design.sampler == "replicate") != (replicate is not None):
        raise StudyError("design.sampler", "replicate goes with the key `replicate`, and only so")
    budget = max(arm.train({}, 0).discriminator_updates for arm in arms)
    events = at("events", _events, data.get("events", {}))
    stopping = at("stopping", parse_stopping, data.get("stopping"))
    independent = design.sampler == "random" and stopping is None
    rule, count = data.get("judgement"), _configs(design, replicate)
    judgement = at("judgement", parse_judgement, rule, events, count, independent=independent)
    return StudySpec(
        study=name,
        question=at("question", _text, data.get("question", "")),
        source=at("source", _text, data.get("source", "")),
        arms=arms,
        design=design,
        measure=at("measure", _measure, data.get("measure", {}), budget),
        events=events,
        resources=at("resources", _model, Resources, data.get("resources", {})),
        retries=at("retries", whole, data.get("retries", 2), least=0),
        max_failed_trials=at(
            "max_failed_trials", whole, data.get("max_failed_trials", 0), least=0
        ),
        replicate=replicate,
        stopping=stopping,
        controls=controls,
        judgement=judgement,
        judgement_written=frozenset(rule or {}),
    )


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise StudyError("", f"a mapping is needed, got {value!r}")
    return only_text_keys(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise StudyError("", f"a text is needed, got {value!r}")
    return value.strip()


def _options(stopping: Stopping) -> dict[str, Any]:
    options = stopping.to_dict()
    return {options.pop("name"): options}


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


def _replicate(value: object, arms: tuple[Arm, ...], controls: Controls) -> Replicate | None:
    """Return what is repeated; a control repeats the configs of its arm."""
    if value is None:
        return None
    replicate = parse_replicate(value)
    configs = dict(replicate.configs or {})
    for control in controls.all:
        if control.arm in configs:
            configs.setdefault(control.copy, configs[control.arm])
    replicate = replicate.model_copy(update={"configs": configs})
    missing = [arm.name for arm in arms if arm.name not in (replicate.configs or {})]
    if missing:
        raise StudyError("", f"its source has no arm {missing[0]}: only its arms can be repeated")
    return replicate


def _configs(design: Design, replicate: Replicate | None) -> int | None:
    """Return the configs per arm that are compared, None of a grid."""
    if replicate is not None:
        return min(len(configs) for configs in (replicate.configs or {}).values())
    return None if design.sampler == "grid" else design.configs


def _arms(
    value: object, base: Mapping[str, Any], templates: Mapping[str, Template], shared: Space
) -> tuple[Arm, ...]:
    written = {} if value is None and templates else value
    if not isinstance(written, Mapping) or not (written or templates):
        raise StudyError("", "at least one arm is needed: {name: {loss: ...}}")
    # A template's arm that is null is not wanted; any other null is an arm of the base alone.
    dropped = {name for name, own in written.items() if own is None and name in templates}
    names = [name for name in dict.fromkeys([*templates, *written]) if name not in dropped]
    if not names:
        raise StudyError("", "at least one arm must be left")
    return tuple(
        at(str(name), _arm, name, written.get(name), base, templates.get(name), shared)
        for name in names
    )


def _arm(
    name: object,
    value: object,
    base: Mapping[str, Any],
    template: Template | None,
    shared: Space,
) -> Arm:
    own = _settings(value if value is not None else {}, TRAIN_KEYS | {"space", "narrow", "recipe"})
    space = at("space", parse_space, own.pop("space", {}))
    own.pop("narrow", None)
    if "recipe" in own:
        template = at("recipe", recipes.template, own.pop("recipe"))
    under = template or Template({}, {})
    settings = merge(merge(merge(BUDGET, under.settings), base), own)
    arm = Arm(checked_name(name), settings, {})
    arm.train({}, 0)
    # The arm's own space goes before the study's, the study's before a recipe's.
    offered = {**parse_space(under.space), **shared, **space}
    drawn = {key: d for key, d in offered.items() if d is not None}
    for key in at("space", in_order, drawn):
        wrong = _misplaced(arm, key, drawn)
        if wrong is not None and key in space:
            raise wrong.under("space")
        if wrong is not None:
            del drawn[key]
    return replace(arm, space=drawn, shared=frozenset(drawn.keys() & shared.keys() - space.keys()))


def _misplaced(arm: Arm, key: str, space: Mapping[str, Distribution]) -> StudyError | None:
    """Return why `key` has no place in the space of `arm`, None if it has one."""
    try:
        given = condition_of(space, key)
    except StudyError as error:
        return error
    try:
        known = sweepable(arm, given)
    except StudyError as error:  # what the condition asks for cannot be built
        return StudyError(f"{key}.when", str(error))
    if key in known:
        return None
    rule = unknown("key of this arm", key, known)
    choosing = [k for k in space if key.startswith(f"{k.removesuffix('.name')}.") and k != key]
    if choosing and not given:
        rule += f"; an option of one choice alone needs when: {{{choosing[0]}: VALUE}}"
    return StudyError(key, rule)


def sweepable(arm: Arm, given: Mapping[str, Any]) -> list[str]:
    """Return every key path that a space of this arm may name, where `given` keys have values."""
    plain = arm.train(given, 0).to_dict()
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


def _check_shared(arms: tuple[Arm, ...], shared: Space) -> None:
    """Refuse a key of the study's space that no arm has."""
    wanted = {key: d for key, d in shared.items() if d is not None}
    for key, distribution in wanted.items():
        wrong = [_misplaced(arm, key, {**wanted, **arm.space}) for arm in arms]
        if None in wrong:
            continue
        if distribution.when and wrong[0] is not None:
            raise wrong[0].under("space")
        known = {path for arm in arms for path in sweepable(arm, {})}
        kind, _, name = key.partition(".")
        name = name.partition(".")[0]
        if kind in MANY and name in MANY[kind].names():
            rule = f"no arm has {name}: write {kind}: {{{name}: {{}}}} in base or in an arm"
            raise StudyError(f"space.{key}", rule)
        raise StudyError(f"space.{key}", unknown("key of any arm", key, known))
