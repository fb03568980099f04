"""The driver of a study: prepare, execute, compact and track in the background, conclude."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from rich.text import Text
from ruamel.yaml import YAML

from ganstudy.display import Display
from ganstudy.exits import CLUSTER_LOST
from ganstudy.gan.datasets import Dataset
from ganstudy.gan.trainer import build_trainer
from ganstudy.measure.features import FEATURES
from ganstudy.measure.features.cache import read_torch
from ganstudy.measure.metrics import METRICS, Curve
from ganstudy.measure.protocol import Evaluator, MeasureConfig, evaluator
from ganstudy.paths import store_paths, stored_uri
from ganstudy.provenance import STUDY_ID, new_study_id, provenance, read_study_id, redact
from ganstudy.records import TRIALS, read_events
from ganstudy.storage import DamagedFile, write_settings
from ganstudy.store import COMPONENTS, Attempt, StudyFolder
from ganstudy.study.checks import notes
from ganstudy.study.components import components
from ganstudy.study.judgement import fixed, rejudged
from ganstudy.study.outcomes import OutcomeRule, select_counted, select_median_trial
from ganstudy.study.plan import plan
from ganstudy.study.plan import trial as build_trial
from ganstudy.study.score_validity import find_doubts, recorded_facts, warning_text
from ganstudy.study.spec import StudySpec
from ganstudy.study_files import resolve_inside
from ganstudy.sweep import local
from ganstudy.sweep.recorder import Recorder
from ganstudy.sweep.source import FixedPlan, Source
from ganstudy.trial import TrialSpec, labels_of, latents_of

KEEP_SECONDS = 20.0
"""Longest time between the loss of the cluster and the end of the call."""
JUDGE_SAMPLES = 1000
"""Samples of an arm's best generator for the kernel distance on ImageNet features."""


@dataclass
class Run:
    """One call of the driver on one study."""

    spec: StudySpec
    folder: StudyFolder
    tracking_uri: str
    address: str | None = None
    in_process: bool = False
    notes: list[str] = field(default_factory=list)
    """What went wrong without ending the study, in words."""
    phases: dict[str, float] = field(default_factory=dict)
    """Seconds by what the driver did, kept in phases.json."""
    tracking_open: bool = False
    """Whether MLflow may hold runs that this call opened and has not ended."""

    def __post_init__(self) -> None:
        """Have a recorder at hand."""
        self.recorder = Recorder(self.folder, self.tracking_uri)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Note wall and CPU seconds of a block."""
        wall, cpu = time.monotonic(), time.process_time()
        try:
            yield
        finally:
            self.phases[f"{name}_seconds"] = time.monotonic() - wall
            self.phases[f"{name}_cpu_seconds"] = time.process_time() - cpu

    def begin(self) -> None:
        """Write what the study is; its folder exists and is locked.

        `study.yaml` comes last: a folder without it is that of a study that never began.
        """
        if (self.folder.folder / "provenance.json").exists():
            origin = self.folder.read_json("provenance.json")
            origin["extended"] = [*origin.get("extended", []), provenance()]
        else:
            origin = provenance()
        origin.setdefault("judgement", self._judgement())
        origin.setdefault(STUDY_ID, new_study_id())
        self.folder.write_json("provenance.json", origin)
        self._record_tracking()
        self.folder.write_json(COMPONENTS, components(self.spec))
        if self.spec.design.sampler != "tpe":
            self.folder.write_plan(trial.identity() for trial in plan(self.spec))
        elif not (self.folder.folder / "plan.jsonl").exists():
            self.folder.write_plan([])
        text = io.StringIO()
        YAML().dump(store_paths(self.spec.resolved(), self.folder.folder), text)
        write_settings(self.folder.folder / "study.yaml", text.getvalue())

    def _record_tracking(self) -> None:
        """Write where the study is tracked: a path in its runs folder as a relative one."""
        uri = stored_uri(self.tracking_uri, self.folder.folder)
        self.folder.write_json("tracking.json", {"uri": redact(uri)})

    def identify(self, *, record_tracking: bool) -> None:
        """Give a study of an older ganstudy an id, and record where it is tracked from now on.

        Args:
            record_tracking: Whether the tracking URI is a new one; another may lack a secret.
        """
        origin = self.folder.read_json("provenance.json")
        if not read_study_id(self.folder.folder):
            self.folder.write_json("provenance.json", origin | {STUDY_ID: new_study_id()})
        if record_tracking:
            self._record_tracking()

    def _judgement(self) -> dict[str, Any]:
        return fixed(self.spec.judged_by, self.spec.configs, len(self.spec.design.seeds))

    def mark_mixed(self, changes: Sequence[str]) -> None:
        """Mark the study as mixed, where a person insists on other rules, code or versions.

        The judgement that was fixed before trial 1 stays beside the new one.
        """
        origin = self.folder.read_json("provenance.json")
        origin["mixed"] = [*origin.get("mixed", []), *changes]
        if rejudged(origin, self.spec.judged_by):
            first = origin["judgement"]
            first["changed"] = [*first.get("changed", []), self._judgement()]
        self.folder.write_json("provenance.json", origin)

    def execute(self, display: Display, source: Source) -> None:
        """Run the trials of `source`, compacting and tracking in the background."""
        with self.phase("prepare"):
            prepare(self.spec, self.folder)
        if len(source):
            self._warn_of_score(display)
        self.recorder.say = display.say
        self.tracking_open = True
        with self.phase("execute"), self.recorder:
            self._execute(display, source)

    def _warn_of_score(self, display: Display) -> None:
        """Say what is known against the primary score before trials take their time."""
        facts = recorded_facts(self.folder.read_json("protocol.json"))
        if doubts := warning_text(facts.name, find_doubts(facts)):
            display.say(f"warning: {doubts}")

    def _execute(self, display: Display, source: Source) -> None:
        if not len(source):
            return
        if self.in_process:
            local.execute(source, self.folder, display, self.spec.retries)
            return
        from ganstudy.sweep import ray_tune

        def lost(what: str) -> None:
            """Keep what there is, in the watchdog's thread: Ray will end this process shortly."""
            display.__exit__(None, None, None)  # or the message would not be seen
            display.console.print(Text(lost_cluster(what, self.folder.folder)), soft_wrap=True)
            keeping = threading.Thread(target=self._keep, daemon=True)
            keeping.start()
            keeping.join(KEEP_SECONDS)
            os._exit(CLUSTER_LOST)

        ray_tune.execute(source, self.folder, display, self.spec, self.address, lost)

    def close(self) -> None:
        """End MLflow's runs after an error, as far as the store and the tables allow."""
        if not self.tracking_open:
            return
        with suppress(Exception):
            self.recorder.rest()
        with suppress(Exception):
            self.folder.compact()
        with suppress(Exception):
            self.track()

    def _keep(self) -> None:
        """Write tables and bring MLflow up to date, without the cluster; let others drive."""
        self.recorder.rest()
        self.conclude(score=False)
        self.folder.unlock()
        self.recorder.finish()

    def conclude(self, *, score: bool) -> list[dict[str, Any]]:
        """Write the tables and return the rows of trials.parquet.

        Args:
            score: Whether to score the arms' best generators on the report split, which takes
                half a minute: nobody waits for it after Ctrl-C.
        """
        with self.phase("compact"):
            trials = self.folder.compact()
        self.recorder.catch_up()  # while the best generators are scored and the report is written
        if not score:
            return trials
        with self.phase("reported"):
            told = reported(self.spec, self.folder, trials)
            self.folder.write_reported(told.scores, told.curves)
            if told.protocol:
                protocol = self.folder.read_json("protocol.json")
                self.folder.write_json("protocol.json", protocol | {"reported": told.protocol})
        return trials

    def track(self) -> None:
        """Bring MLflow up to date; a store that is away is noted, never raised."""
        self.recorder.say = self.notes.append  # the caller prints them, once
        with self.phase("track"):
            self.recorder.finish()
        self.tracking_open = False


def lost_cluster(what: str, folder: Path) -> str:
    """Return what to tell the user when `what` of the cluster is lost."""
    return (
        f"the cluster is lost: {what} no longer answers. Rows written so far are in "
        f"{folder}; `ganstudy resume {folder}` goes on, on another cluster by --address"
    )


def pending(spec: StudySpec, folder: StudyFolder, max_trials: int | None = None) -> Source:
    """Return the trials that are not finished: the plan minus finished folders."""
    if spec.design.sampler == "tpe":
        from ganstudy.sweep.search import TpeSearch

        return TpeSearch(spec, folder, max_trials)
    trials = {trial.trial_id: trial for trial in plan(spec)}
    unfinished = folder.unfinished(list(trials))[:max_trials]
    return FixedPlan(trials[trial_id] for trial_id in unfinished)


def first_changed(spec: StudySpec, folder: StudyFolder) -> str | None:
    """Return a trial of the folder that `spec` would not run just so, None if there is none."""
    planned = folder.read_plan()
    if spec.design.sampler != "tpe":
        hashes = {trial.trial_id: trial.result_hash for trial in plan(spec)}
    else:
        hashes = {}
        arms = {arm.name for arm in spec.arms}
        for row in planned:
            if row["arm"] in arms:
                params = {f"param.{key}": value for key, value in row["params"].items()}
                hashes[row["trial_id"]] = _spec_of(spec, row | params).result_hash
    changed = (row for row in planned if hashes.get(row["trial_id"]) != row["result_hash"])
    return next((str(row["trial_id"]) for row in changed), None)


def prepare(spec: StudySpec, folder: StudyFolder) -> None:
    """Train or fetch the feature network, keep it in the study, write the protocol."""
    judge = evaluator(spec.measure, spec.dataset, "select", folder.folder / "features")
    scores = judge.protocol()
    protocol = {
        "primary": spec.measure.primary,
        "minimize": spec.measure.primary_score.minimize,
        "scores": scores | judge.raw_protocol(scores),
        "notes": notes(spec),
    }
    # What was told of the best generators is told until it is told anew.
    with suppress(FileNotFoundError, DamagedFile):
        protocol["reported"] = folder.read_json("protocol.json").get("reported", {})
    folder.write_json("protocol.json", protocol)


class Reported(NamedTuple):
    """What is told of the arms' best generators: rows of two tables, and how they were measured.

    Attributes:
        protocol: As that of the study's own scores, by stored name.
    """

    scores: list[dict[str, Any]]
    curves: list[dict[str, Any]]
    protocol: dict[str, dict[str, Any]]


def reported(spec: StudySpec, folder: StudyFolder, trials: Sequence[dict[str, Any]]) -> Reported:
    """Score one generator of each arm's best config, chosen on select, on the report split.

    The study's own scores, and the kernel distance on ImageNet features, which no trial was
    chosen by.
    """
    told = Reported([], [], {})
    best = best_trials(spec, trials, read_events(folder.folder))
    if not best:
        return told
    features = folder.folder / "features"
    judges = [
        evaluator(measure, spec.dataset, "report", features)
        for measure in (spec.measure, *judging(spec.dataset, spec.measure))
    ]
    for judge in judges:
        told.protocol.update(judge.protocol())
    for trial in best:
        _report_trial(spec, folder, trial, judges, told)
    return told


def judging(dataset: Dataset, own: MeasureConfig) -> list[MeasureConfig]:
    """Return the measure that chooses nothing.

    None where ImageNet features say nothing, or are those of the study's `own` measure.
    """
    lite0 = FEATURES.build("lite0")
    if own.features.name == lite0.name:
        return []
    try:
        lite0.check(dataset)
    except ValueError:
        return []
    samples = min(JUDGE_SAMPLES, len(dataset.images("report")))
    return [MeasureConfig(lite0, (METRICS.build("kernel_distance"),), samples, every=1)]


def best_trials(
    spec: StudySpec, trials: Sequence[dict[str, Any]], events: pd.DataFrame
) -> list[dict[str, Any]]:
    """Return the trial of each arm whose generator is scored on the report split.

    It is the trial at the median of the config that the report calls the arm's best: both follow
    the study's comparison rule (`ganstudy.study.outcomes`). An arm of which every config failed,
    or whose trainer keeps no generator, has none.

    Args:
        spec: The study.
        trials: Rows of trials.parquet.
        events: The table of events.
    """
    if not trials:
        return []
    primary = spec.measure.primary_score
    rule = OutcomeRule.from_settings(spec.resolved(), primary.name, minimize=primary.minimize)
    outcomes, best = rule.score_outcomes(pd.DataFrame(trials), events), []
    for arm in spec.arms:
        mine = outcomes[outcomes["arm"] == arm.name]
        row = select_median_trial(select_counted(mine, rule.repeated_by(arm.name)))
        if row is not None and trials[row].get(f"generator_{rule.score.checkpoint}"):
            best.append(trials[row])
    return best


def _report_trial(
    spec: StudySpec,
    folder: StudyFolder,
    trial: dict[str, Any],
    judges: Sequence[Evaluator],
    told: Reported,
) -> None:
    """Add what comes of one arm's best generator to `told`.

    It is the generator of the checkpoint that the study's comparison rule names.
    """
    checkpoint = spec.judgement.checkpoint
    at_update = trial["best_at" if checkpoint == "best" else "discriminator_updates"]
    trainer = build_trainer(_spec_of(spec, trial).train)
    path = resolve_inside(folder.folder, trial[f"generator_{checkpoint}"], TRIALS)
    weights = Attempt(path.parent).read_file(path, read_torch)
    trainer.load_generator_state_dict(weights)
    who = {"arm": trial["arm"], "trial_id": trial["trial_id"]}
    for judge in judges:
        images = trainer.sample(judge.config.samples, judge.noise())
        labels = labels_of(trainer, judge, len(images))
        made = judge.evaluate(images, latents_of(trainer), labels, curves=True)
        for name, score in made.scores.items():
            how = told.protocol[name]
            row = {key: how[key] for key in ("split", "n_generated", "n_real", "floor")}
            at = {"name": name, "discriminator_updates": at_update}
            told.scores.append({**who, **at, **row, **score._asdict()})
        for name, curves in made.curves.items():
            told.curves.extend(_curve_rows({**who, "name": name}, curves))


def _curve_rows(who: dict[str, Any], curves: Sequence[Curve]) -> Iterator[dict[str, Any]]:
    for line, x_name, y_name, xs, ys in curves:
        named = {**who, "line": line, "x_name": x_name, "y_name": y_name}
        for x, y in zip(xs.tolist(), ys.tolist(), strict=True):
            yield {**named, "x": x, "y": y}


def _spec_of(spec: StudySpec, trial: dict[str, Any]) -> TrialSpec:
    """Return the trial that a row of trials.parquet tells of."""
    arm = next(arm for arm in spec.arms if arm.name == trial["arm"])
    values = {k.removeprefix("param."): v for k, v in trial.items() if k.startswith("param.")}
    return build_trial(spec, arm, trial["config_id"], values, trial["seed"])
