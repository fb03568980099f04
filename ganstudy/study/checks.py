"""A study's file -> a StudySpec of which everything has been built once.

What a trial could trip over is built here, both ends of every range and every choice included,
before anything is written or started; what is allowed and yet not what it may seem is noted.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ganstudy.gan.architectures.base import squashing
from ganstudy.gan.config import SINGLE, TrainConfig, at
from ganstudy.gan.datasets import SPLITS, Dataset
from ganstudy.gan.losses import Loss
from ganstudy.gan.optimizers import OPTIMIZERS, SCHEDULES
from ganstudy.gan.state import build_discriminator, build_generator
from ganstudy.limits import MOST_TRIALS
from ganstudy.measure.readers import NETWORK_READERS
from ganstudy.paths import resolve_paths
from ganstudy.registry import StudyError
from ganstudy.study import recipes
from ganstudy.study.arm import Arm
from ganstudy.study.plan import Planned, count_trials, planned
from ganstudy.study.reading import read_yaml, set_keys
from ganstudy.study.recipes import Template
from ganstudy.study.replicate import expand
from ganstudy.study.score_validity import ScoreFacts
from ganstudy.study.space import condition_of, same
from ganstudy.study.spec import StudySpec, parse_study
from ganstudy.study.stopping import Stopping

ADAM, CONSTANT = OPTIMIZERS.build("adam"), SCHEDULES.build("constant")


def load_study(path: Path, overrides: Iterable[str] = ()) -> StudySpec:
    """Read, build and check a study.

    Args:
        path: The YAML file. Relative paths in it are relative to its folder.
        overrides: `KEY=VALUE`, with KEY a dotted path and VALUE YAML: `design.configs=4`.
            Relative paths in them are relative to the working directory.

    Raises:
        StudyError: With the path of the wrong key, the rule and the nearest right name.
    """
    data = resolve_paths(read_yaml(path), path.parent)
    brought = at("recipe", recipes.templates, data["recipe"]) if "recipe" in data else {}
    data = set_keys(data, overrides, brought, partial(resolve_paths, folder=Path()))
    templates: dict[str, Template] = {}
    if data.get("replicate") is not None:
        _check_resolved(path, data["replicate"])
        data, templates = at("replicate", expand, data)
    spec = parse_study(data, templates)
    check(spec)
    return spec


def _check_resolved(path: Path, replicate: object) -> None:
    """Refuse a study's folder that asks to read another study, which may be a server's.

    What a run records is resolved: it names the configurations that it repeats.
    """
    recorded = path.name == "study.yaml" and (path.parent / "plan.jsonl").exists()
    if recorded and isinstance(replicate, Mapping) and not replicate.get("configs"):
        rule = "is missing: the study that it repeats is not read again; restore the file"
        raise StudyError("replicate.configs", rule)


def check(spec: StudySpec) -> None:
    """Build what every trial will need: data, networks, and measures that can be trusted."""
    _check_size(spec)
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
        _check_together(arm)
    at("measure", spec.measure.check, spec.dataset)
    _check_needs(spec)
    if spec.stopping is not None:
        at("stopping", _check_stopping, spec, spec.stopping)
    if spec.design.sampler == "grid":
        _check_grid(spec)


def _check_size(spec: StudySpec) -> None:
    """Refuse a study of more trials than a plan can hold; say which size would do."""
    count, seeds = count_trials(spec, MOST_TRIALS), len(spec.design.seeds)
    if count <= MOST_TRIALS:
        return
    fitting = MOST_TRIALS // (len(spec.arms) * seeds)
    if spec.replicate is not None:
        key, remedy = "replicate.seeds", "lower replicate.seeds or replicate.select.top"
    elif spec.design.sampler == "grid":
        key, remedy = "space", "give the grid fewer choices, or sampler: random and configs"
    elif fitting:
        key, remedy = "design.configs", f"lower it to {fitting} or less"
    else:
        key, remedy = "design.seeds", "name fewer seeds"
    split = "or split the study into several, each with its own design.seed and --name"
    raise StudyError(key, f"gives {count} trials, at most {MOST_TRIALS} fit: {remedy}, {split}")


def _check_needs(spec: StudySpec) -> None:
    """Refuse a score that no arm's generator can have, and a primary one that some cannot."""
    conditional = {arm.name: arm.train({}, 0).conditioning.uses_labels for arm in spec.arms}
    for metric in spec.measure.all_metrics:
        if metric.needs is None:
            continue
        lacking = [arm for arm, has in conditional.items() if has != (metric.needs == "labels")]
        primary = metric is spec.measure.metrics[0]
        if len(lacking) == len(spec.arms) or (lacking and primary):
            kind = "a conditional" if metric.needs == "labels" else "an unconditional"
            key = "final" if metric in spec.measure.final else "metrics"
            rule = f"needs {kind} generator, which arms.{lacking[0]} has not: see conditioning"
            raise StudyError(f"measure.{key}.{metric.name}", rule)


def _check_swept(arm: Arm, key: str, value: Any) -> None:
    """Check the arm's config at one swept value; an error names the space key alone."""
    try:
        _check_train(arm.train(arm.at(key, value), 0))
    except StudyError as error:
        # The top of a range is built just below it, where the highest draw can lie.
        shown = f"{value:.6g}" if isinstance(value, float) else repr(value)
        rule = error.rule.partition(", got ")[0]
        raise StudyError("", f"{rule} (at the value {shown})") from None


def _check_together(arm: Arm) -> None:
    """Build every pair of ends: keys may be right alone and wrong together."""
    for key in arm.space:
        _check_options(arm, key)
    for one, other in itertools.combinations(arm.space, 2):
        for values in itertools.product(arm.space[one].ends(), arm.space[other].ends()):
            at_values = dict(zip((one, other), values, strict=True))
            needed = [arm.at(key, value) for key, value in at_values.items()]
            if not _agree(*needed):
                continue  # never drawn together
            try:
                _check_train(arm.train(needed[0] | needed[1], 0))
            except StudyError as error:
                where = ", ".join(f"{k}: {v}" for k, v in at_values.items())
                rule = f"{error.rule} (together: {where})"
                key = error.path if error.path in at_values else other
                raise StudyError(arm.path_of(key), rule) from None
    for corner in (0, -1):
        ends = {key: distribution.ends()[corner] for key, distribution in arm.space.items()}
        drawn = arm.draw(ends.__getitem__)
        at(f"arms.{arm.name}.space", _check_train, arm.train(drawn, 0))


def _check_options(arm: Arm, key: str) -> None:
    """Refuse options of one component where the space chooses between components."""
    root = key.removesuffix(".name")
    if root not in {*SINGLE, "optimizer"}:
        return
    options = [other for other in arm.space if other.startswith(f"{root}.") and other != key]
    for option in options:
        if key not in condition_of(arm.space, option):
            raise StudyError(
                arm.path_of(option),
                f"excludes {key}: another component would not have this option; "
                f"when: {{{key}: VALUE}} says which one has it",
            )


def _agree(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(same(one[key], other[key]) for key in one.keys() & other.keys())


def _check_stopping(spec: StudySpec, stopping: Stopping) -> None:
    """Refuse a rule that could stop nothing, or that would compare what cannot be compared."""
    if spec.replicate is not None:
        raise StudyError("", "excludes replicate: the seeds of a config do not compete")
    for arm in spec.arms:
        if "budget.discriminator_updates" in arm.space:
            key = arm.path_of("budget.discriminator_updates")
            raise StudyError("", f"excludes {key}: its rungs are shares of one budget per arm")
        first, last = evaluations(spec, stopping, arm)
        if first >= last:
            every = spec.measure.every
            rule = (
                f"{stopping.name} stops nothing: of the {last} evaluations of {arm.name} "
                f"(measure.every: {every}) the first after grace is the last; measure more often"
            )
            raise StudyError(f"{stopping.name}.grace", rule)


def evaluations(spec: StudySpec, stopping: Stopping, arm: Arm) -> tuple[int, int]:
    """Return the number of the first evaluation that may stop a trial of the arm, and the last."""
    budget, every = arm.train({}, 0).discriminator_updates, spec.measure.every
    return stopping.first(budget, every), math.ceil(budget / every)


def check_in_process(spec: StudySpec) -> None:
    """Refuse a study whose trials Ray's schedulers stop, for `--in-process`."""
    if spec.stopping is not None:
        raise StudyError(
            "stopping", f"{spec.stopping.name} is a scheduler of Ray's: leave out --in-process"
        )


def _check_train(config: TrainConfig) -> None:
    """Build the data and the networks of one config."""
    try:
        config.dataset.check()
        shape = config.dataset.image_shape
        available = len(config.dataset.images("train"))
        check_spread(config.dataset)
    except (ValueError, OSError) as error:
        raise StudyError("dataset", str(error)) from None
    if config.flips and shape[2] == 1:
        raise StudyError("flips", "points have no left and right: leave it out")
    for regularizer in config.regularizers:
        try:
            regularizer.check(shape)
        except ValueError as error:
            raise StudyError(f"regularizers.{regularizer.name}", str(error)) from None
    if config.batch_size > available:
        raise StudyError(
            "batch_size", f"{config.batch_size} is more than the {available} training images"
        )
    try:
        networks(config)
    except ValueError as error:
        raise StudyError("architecture", str(error)) from None


@functools.lru_cache(maxsize=8)
def check_spread(dataset: Dataset) -> None:
    """Raise ValueError where all images of a split are the same, unless that is the data's point.

    Scores compare how far samples and real images spread: over a spread of 0 none is defined.
    """
    if dataset.modes == 1:  # dirac, the data of a game of which theory tells the end
        return
    for split in SPLITS:
        images = dataset.images(split)
        # Two images decide, unless they are the same; empty splits are refused elsewhere.
        if len(images) and all(bool((part == images[0]).all()) for part in images.split(100)):
            raise ValueError(
                f"all {len(images)} images of the split {split} of {dataset.name} are the same: "
                f"there is nothing to learn, and scores that divide by their spread are "
                f"undefined; look at the files, or use dirac for data of one point"
            )


def networks(config: TrainConfig) -> tuple[nn.Module, nn.Module]:
    """Build generator and discriminator once, or raise the ValueError of what cannot be made."""
    # Of what the networks depend on only, so that a space of learning rates builds them once.
    return _networks(
        TrainConfig(
            dataset=config.dataset,
            architecture=config.architecture,
            loss=config.loss,
            conditioning=config.conditioning,
            stabilizers=config.stabilizers,
            batch_size=config.batch_size,
            generator_optimizer=ADAM,
            discriminator_optimizer=ADAM,
            schedule=CONSTANT,
        )
    )


@functools.lru_cache
def _networks(config: TrainConfig) -> tuple[nn.Module, nn.Module]:
    shape = config.dataset.image_shape
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        generator = build_generator(config, shape)
        if not isinstance(config.loss, Loss):
            squashing(generator)
        return generator, build_discriminator(config, shape)


def notes(spec: StudySpec, trials: Iterable[Planned] | None = None) -> list[str]:
    """Return what is allowed and yet not what it may seem, each once, with the arms it is of.

    Args:
        spec: The study.
        trials: Its plan, drawn anew unless given.
    """
    found: dict[str, list[str]] = {}
    for arm in spec.arms:
        for note in dict.fromkeys(note for c in extremes(spec, arm) for note in _notes(c)):
            found.setdefault(note, []).append(arm.name)
    said = [f"{', '.join(arms)}: {note}" for note, arms in found.items()]
    averaging = any(s.averages for arm in spec.arms for s in arm.train({}, 0).stabilizers)
    if spec.measure.raw and not averaging:
        said.append("measure.raw: no arm samples an average of its generator; add stabilizers.ema")
    if spec.stopping is not None:
        said += _first_looks(spec, spec.stopping)
    said += [f"measure: {remark}" for remark in spec.measure.remarks(spec.dataset)]
    if spec.design.sampler == "tpe":
        return said
    return [*said, *_repetitions(spec, planned(spec) if trials is None else trials)]


def score_facts(spec: StudySpec) -> ScoreFacts:
    """Collect what is known of the primary score before the first trial; trains nothing.

    Of a classifier that another study has trained on the same data, its accuracy.
    """
    measure, data = spec.measure, spec.dataset
    metric, network = measure.metrics[0], measure.features
    dimension = network.dimension(data)
    facts = ScoreFacts(
        name=measure.primary,
        minimize=measure.primary_score.minimize,
        network=network.name,
        n=measure.size(data),
        dimension=dimension,
        n_needed=metric.samples_needed(dimension),
    )
    labels = data.labels("train")
    if metric.reads not in NETWORK_READERS or not network.own_classes or labels is None:
        return facts
    held_out = network.known_facts(data).get("held_out", {})
    updates = None if held_out else network.training_updates(data)
    classes = len(labels.unique())
    return replace(facts, held_out=held_out, classes=classes, updates=updates)


def _first_looks(spec: StudySpec, stopping: Stopping) -> Iterator[str]:
    """Yield a note for each arm that is looked at long after the rule's grace."""
    for arm in spec.arms:
        budget, every = arm.train({}, 0).discriminator_updates, spec.measure.every
        first = stopping.first(budget, every) * every
        if first > 1.5 * stopping.grace * budget:
            yield (
                f"stopping: {stopping.name} looks at {arm.name} first at its evaluation after "
                f"{first} updates, grace is {stopping.grace * budget:g}; measure.every decides"
            )


def _repetitions(spec: StudySpec, trials: Iterable[Planned]) -> Iterator[str]:
    """Yield a note for each arm that makes one run several times, and for arms that are one."""
    plans: dict[str, list[Planned]] = {arm.name: [] for arm in spec.arms}
    for one in trials:
        plans[one.arm.name].append(one)
    for arm, made in plans.items():
        differing = len({(json.dumps(p.values, default=str), p.seed) for p in made})
        if differing < len(made):
            yield (
                f"{arm}: only {differing} of its {len(made)} trials differ, the others are "
                f"the same run again and are counted once; give it a space, or use design.seeds"
            )
    for first, second in itertools.combinations(plans, 2):
        if len(plans[first]) == len(plans[second]) and all(
            a.train() == b.train() for a, b in zip(plans[first], plans[second], strict=True)
        ):
            yield f"{first}, {second}: the same settings and draws, that is one arm twice"


def extremes(spec: StudySpec, arm: Arm) -> list[TrainConfig]:
    """Return the arm at its defaults and at every end of its space, or at what it repeats."""
    if spec.replicate is not None and spec.replicate.configs is not None:
        drawn = list(spec.replicate.configs[arm.name].values())
    else:
        drawn = [arm.at(key, v) for key, d in arm.space.items() for v in d.ends()]
        drawn.append({})
    return [arm.train(values, 0) for values in drawn]


def _notes(config: TrainConfig) -> Iterator[str]:
    _, discriminator = networks(config)
    batch_norms = nn.modules.batchnorm._BatchNorm
    comparing = [s.name for s in config.stabilizers if s.across is not None]
    for name, regularizer in itertools.product(comparing, config.regularizers):
        if regularizer.differentiates_input:
            yield (
                f"{regularizer.name} with {name}: a logit then depends on the whole batch, so "
                f"that the gradient by an image is not that of its own logit alone"
            )
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
                raise StudyError(arm.path_of(key), "a grid needs choices, not a range")
