"""Can a study's scores be trusted? Experiments on its data, and on the generators it trained."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text
from torch import Tensor

from ganstudy.display import duration
from ganstudy.gan.trainer import build_trainer
from ganstudy.measure.features import FEATURES, FeatureNetwork
from ganstudy.measure.features.cache import read_torch
from ganstudy.measure.metrics import METRICS, Metric
from ganstudy.measure.protocol import Evaluator, MeasureConfig
from ganstudy.measure.sanity import (
    EXPERIMENTS,
    SCORED,
    Bench,
    Reading,
    Step,
    Unavailable,
    bare_name,
)
from ganstudy.records import TRIALS, TrialStatus
from ganstudy.registry import StudyError
from ganstudy.store import Attempt, StudyFolder
from ganstudy.study.spec import StudySpec
from ganstudy.study_files import resolve_inside
from ganstudy.sweep.driver import prepare
from ganstudy.trial import TrialSpec

NETWORKS = ("random_conv", "pixels", "lite0")
"""Whose order of generators is compared with that of the study's own network, if they are known
and read this data."""
SLOW_SAMPLES = 500
"""Most samples for a network that resizes images first: one of ImageNet, 150 images a second."""
FEWEST = 4
"""Generators below which no order of them is told."""
TRAINED = (TrialStatus.COMPLETED, TrialStatus.STOPPED, TrialStatus.DIVERGED)
Row = Mapping[str, Any]


class Asked(NamedTuple):
    """What to measure.

    Attributes:
        features: Networks to compare beside the study's own.
        generators: Most generators that they rank.
        repeats: Independent draws of each sample of real images.
    """

    features: Sequence[FeatureNetwork]
    generators: int
    repeats: int


class Experiment(NamedTuple):
    """One experiment, in parts that give some readings each."""

    name: str
    parts: Sequence[partial[list[Reading]]]


def networks(spec: StudySpec, names: Sequence[str]) -> list[FeatureNetwork]:
    """Return the networks of these names, or the usual ones, without the study's own.

    Raises:
        StudyError: If a name is unknown, or that network cannot read the study's data.
    """
    own = spec.measure.features
    found = []
    for name in names or [name for name in NETWORKS if name in FEATURES.names()]:
        network = FEATURES.build(name)
        try:
            network.check(spec.dataset)
        except ValueError as error:
            if names:
                raise StudyError("", str(error)) from None
            continue
        if network.name != own.name and network not in found:
            found.append(network)
    return found


def measured(
    spec: StudySpec, folder: StudyFolder, asked: Asked, console: Console
) -> list[Reading]:
    """Return what the experiments read; progress goes to `console`.

    A study of which no trial has begun is prepared first.
    """
    trials = folder.compact()
    if not (folder.folder / "protocol.json").exists():
        prepare(spec, folder)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    found: list[Reading] = []
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        for experiment in experiments(spec, folder, trials, asked, console):
            begun = time.monotonic()
            for part in progress.track(experiment.parts, description=experiment.name):
                found += part()
            took = duration(time.monotonic() - begun)
            told = f"{experiment.name}: {len(experiment.parts)} samples scored in {took}"
            console.print(Text(told))
    return found


def experiments(
    spec: StudySpec, folder: StudyFolder, trials: Sequence[Row], asked: Asked, console: Console
) -> Iterator[Experiment]:
    """Yield each experiment that this study can have; tell `console` why others are left out."""

    def left_out(what: str, why: object) -> None:
        console.print(Text(f"{what} left out: {why}"), soft_wrap=True)

    cache = folder.folder / "features"
    bench = Bench(spec.measure, spec.dataset, cache, asked.repeats)
    for name, make in EXPERIMENTS.items():
        try:
            steps = make(bench)
        except Unavailable as error:
            left_out(name, error)
            continue
        yield Experiment(name, [partial(_readings, bench, name, step) for step in steps])
    for score, reason in bench.refused.items():
        left_out(f"some samples of {score}", reason)
    try:
        yield agreement(spec, folder, trials, asked)
    except Unavailable as error:
        left_out("agreement", error)


def _readings(bench: Bench, name: str, step: Step) -> list[Reading]:
    return list(bench.readings(name, step))


def agreement(
    spec: StudySpec, folder: StudyFolder, trials: Sequence[Row], asked: Asked
) -> Experiment:
    """Score the best checkpoints of trials that span the ranking, by several feature networks."""
    chosen = spread(spec, trials, asked.generators)
    if len(chosen) < FEWEST:
        raise Unavailable(f"it needs {FEWEST} trained generators, this study has {len(chosen)}")
    judges = [
        Evaluator(measure, spec.dataset, "select", folder.folder / "features")
        for measure in measures(spec, asked.features)
    ]
    parts = [
        partial(_ranked, folder, judges, rank, trial) for rank, trial in enumerate(chosen, start=1)
    ]
    return Experiment("agreement", parts)


def spread(spec: StudySpec, trials: Sequence[Row], most: int) -> list[Row]:
    """Return at most `most` trials with a generator, evenly over the ranking, best first.

    Those without a finite score come last; of equal runs one is taken.
    """
    primary = spec.measure.primary_score

    def badness(trial: Row) -> float:
        score = trial.get(f"best.{primary.name}")
        return math.inf if score is None else primary.loss(score)

    kept = {t["result_hash"]: t for t in trials if t["status"] in TRAINED}
    ranked = sorted((t for t in kept.values() if t.get("generator_best")), key=badness)
    if len(ranked) <= most:
        return ranked
    return [ranked[round(at)] for at in np.linspace(0, len(ranked) - 1, most)]


def measures(spec: StudySpec, others: Sequence[FeatureNetwork]) -> list[MeasureConfig]:
    """Return how each network scores: by kernel distance, and by the study's primary where it may.

    It may where its n is enough for the network's features; a primary that reads no features is
    scored once.
    """
    own, primary, kernel = spec.measure, spec.measure.metrics[0], METRICS.build("kernel_distance")
    found = []
    for network in (own.features, *others):
        samples = own.samples if network.resize == "none" else min(own.samples, SLOW_SAMPLES)
        reads = SCORED if network is own.features else ("features",)
        metrics: tuple[Metric, ...] = (kernel,)
        if primary.reads in reads and primary.name != kernel.name:
            both = MeasureConfig(network, (primary, kernel), samples, 1, own.noise_seed)
            metrics = both.metrics if _allowed(both, spec) else metrics
        found.append(MeasureConfig(network, metrics, samples, 1, own.noise_seed))
    return found


def _allowed(measure: MeasureConfig, spec: StudySpec) -> bool:
    try:
        measure.check(spec.dataset)
    except StudyError:
        return False
    return True


def _ranked(
    folder: StudyFolder, judges: Sequence[Evaluator], rank: int, trial: Row
) -> list[Reading]:
    """Score one trial's generator by every judge, on the same latents."""
    noise = judges[0].noise()
    images = best_images(folder, trial, max(j.config.samples for j in judges), noise)
    found = []
    for judge in judges:
        config = judge.config
        scores = judge.scores(images[: config.samples], final=False)
        for metric in config.metrics:
            score = scores.get(judge.name(metric))
            if score is None:  # undefined on these images
                continue
            found.append(
                Reading(
                    "agreement",
                    bare_name(metric, config.features),
                    metric.direction,
                    trial["trial_id"],
                    rank,
                    0,
                    config.samples,
                    len(judge.real.images),
                    score.value,
                    score.standard_error,
                )  # fmt: skip
            )
    return found


def best_images(folder: StudyFolder, trial: Row, n: int, noise: torch.Generator) -> Tensor:
    """Return n images of the best checkpoint of a trial, a row of trials.parquet."""
    config = resolve_inside(folder.folder, trial["config"], TRIALS)
    trainer = build_trainer(TrialSpec.load(config).train)
    path = resolve_inside(folder.folder, trial["generator_best"], TRIALS)
    trainer.load_generator_state_dict(read_torch(path, Attempt(path.parent).remedy))
    return trainer.sample(n, noise)
