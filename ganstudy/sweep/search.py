"""Adaptive search with Optuna's TPE: one independent study per arm, with equal budget.

What it has tried lies in the trial folders alone, so an interrupted search goes on from there.
Adaptive trials are not independent draws: the analysis keeps them out of best-of-k curves.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from ganstudy.gan.seeding import derive
from ganstudy.measure.events import WORTHLESS
from ganstudy.records import TIME_LIMIT, TrialRecord, TrialResult, TrialStatus
from ganstudy.store import StudyFolder
from ganstudy.study.arm import Arm
from ganstudy.study.outcomes import ScoreRule, score_record
from ganstudy.study.plan import trial as build_trial
from ganstudy.study.space import Choice, Distribution, IntUniform, LogUniform, same
from ganstudy.study.spec import StudySpec
from ganstudy.trial import TrialSpec

optuna.logging.set_verbosity(optuna.logging.WARNING)

STARTUP = 10
"""Trials of an arm that are drawn at random before the model of good and bad ones is fitted."""


def good_trials(n: int) -> int:
    """Return how many of `n` finished trials count as good: a tenth, at most 25."""
    return min(math.ceil(0.1 * n), 25)


def trial_weights(n: int) -> NDArray[np.float64]:
    """Return the weights of `n` trials, oldest first: the newest 25 count fully, (n,)."""
    if n < 25:
        return np.ones(n)
    return np.concatenate([np.linspace(1 / n, 1, num=n - 25), np.ones(25)])


TPE_OPTIONS: Mapping[str, Any] = {
    "multivariate": False,
    "group": False,
    "constant_liar": True,
    "n_startup_trials": STARTUP,
    "n_ei_candidates": 24,
    "gamma": good_trials,
    "weights": trial_weights,
    "prior_weight": 1.0,
    "consider_prior": True,
    "consider_magic_clip": True,
    "consider_endpoints": False,
    "warn_independent_sampling": False,
}
"""Every option of Optuna's sampler that changes its draws, written out: Optuna 5 changed defaults.

Each key has a model of its own, of all trials that drew it, conditions or not. A joint model
found worse configurations on the recorded sweep of docs/search.md; with conditions it would need
`group`, which Optuna calls experimental. `constant_liar` keeps trials that run at once apart, and
changes nothing where they run one after another. The others are Optuna's long-standing defaults.
"""


def build_sampler(
    seed: int, options: Mapping[str, Any] = TPE_OPTIONS
) -> optuna.samplers.TPESampler:
    """Build the sampler of one arm's search."""
    with warnings.catch_warnings():
        # Optuna 5 announces that it will fix some options at these values. A version without one
        # of them raises TypeError here.
        warnings.simplefilter("ignore", FutureWarning)
        return optuna.samplers.TPESampler(seed=seed, **options)


def to_optuna(distribution: Distribution) -> BaseDistribution:
    """Return Optuna's counterpart; a choice becomes its index, since values may be mappings."""
    if isinstance(distribution, Choice):
        return CategoricalDistribution(range(len(distribution.values)))
    low, high = distribution.ends()
    if isinstance(distribution, IntUniform):
        return IntDistribution(low, high)
    return FloatDistribution(low, high, log=isinstance(distribution, LogUniform))


class Outcome(NamedTuple):
    """What is told of a config, or of one of its trials."""

    state: TrialState
    """COMPLETE with a score; PRUNED with what was reported; FAIL, our fault, with neither."""
    score: float = math.nan
    """Lower is better; +inf for a failure of the GAN."""
    reports: Mapping[int, float] = {}
    """Discriminator updates -> score at the evaluations so far."""


class ArmSearch:
    """The search of one arm."""

    def __init__(
        self, arm: Arm, seed: int, planned: int, options: Mapping[str, Any] = TPE_OPTIONS
    ) -> None:
        """Begin with nothing tried; `planned` configs of an earlier run will be told.

        They are part of the sampler's seed, or a search that goes on would draw them again.
        """
        self.arm = arm
        self.distributions = {key: to_optuna(d) for key, d in arm.space.items()}
        sampler = build_sampler(derive("tpe", seed, arm.name, planned) % 2**32, options)
        self.study = optuna.create_study(sampler=sampler)
        self._open: dict[str, optuna.Trial] = {}

    def ask(self, config_id: str) -> dict[str, Any]:
        """Return the values to try next, of the keys whose conditions hold."""
        asked = self._open[config_id] = self.study.ask()
        return self.arm.draw(partial(self._suggest, asked))

    def reopen(self, config_id: str, values: Mapping[str, Any]) -> None:
        """Ask again for a config of an earlier run that still runs: the next ones keep apart."""
        if config_id not in self._open:
            self.study.enqueue_trial({key: self._plain(key, v) for key, v in values.items()})
            self.ask(config_id)

    def tell(self, config_id: str, values: Mapping[str, Any], outcome: Outcome) -> None:
        """Report what became of a config, asked for now or by an earlier run."""
        asked = self._open.pop(config_id, None)
        if asked is None:
            self.study.add_trial(self._past(values, outcome))
            return
        for updates, score in outcome.reports.items():
            asked.report(score, updates)
        complete = outcome.state is TrialState.COMPLETE
        self.study.tell(asked, outcome.score if complete else None, outcome.state)

    def _past(self, values: Mapping[str, Any], outcome: Outcome) -> FrozenTrial:
        return create_trial(
            params={key: self._plain(key, value) for key, value in values.items()},
            distributions={key: self.distributions[key] for key in values},
            value=outcome.score if outcome.state is TrialState.COMPLETE else None,
            intermediate_values=dict(outcome.reports),
            state=outcome.state,
        )

    def _suggest(self, asked: optuna.Trial, key: str) -> Any:
        """Let an asked trial draw one key."""
        distribution = self.arm.space[key]
        if isinstance(distribution, Choice):
            index = asked.suggest_categorical(key, range(len(distribution.values)))
            return distribution.values[index]
        low, high = distribution.ends()
        if isinstance(distribution, IntUniform):
            return asked.suggest_int(key, low, high)
        return asked.suggest_float(key, low, high, log=isinstance(distribution, LogUniform))

    def _plain(self, key: str, value: Any) -> Any:
        """Return a value as Optuna holds it."""
        distribution = self.arm.space[key]
        if not isinstance(distribution, Choice):
            return value
        return next(i for i, choice in enumerate(distribution.values) if same(choice, value))


def of_config(trials: Sequence[Outcome]) -> Outcome:
    """Return what is told of a config of whose seeds these trials are.

    It scores the median over its seeds, as in the comparison rule. Where a scheduler stopped a
    seed, all are compared where all were evaluated. Seeds that failed through our fault say
    nothing.
    """
    told = [trial for trial in trials if trial.state is not TrialState.FAIL]
    if not told:
        return Outcome(TrialState.FAIL)
    shared = set.intersection(*(set(trial.reports) for trial in told))
    reports = {at: median(trial.reports[at] for trial in told) for at in sorted(shared)}
    failed = sum(trial.score == math.inf for trial in told)
    if 2 * failed >= len(told):  # so is their median, whatever a stopped seed would have scored
        return Outcome(TrialState.COMPLETE, math.inf, reports)
    if any(trial.state is TrialState.PRUNED for trial in told):
        return Outcome(TrialState.PRUNED, reports=reports)
    score = median(trial.score for trial in told)
    return Outcome(TrialState.COMPLETE, score, reports)


class TpeSearch:
    """A Source that asks each arm's search in turn, for equally many configs."""

    def __init__(self, spec: StudySpec, folder: StudyFolder, max_trials: int | None) -> None:
        """Go on from what the folder holds: finished trials are told, open ones run again."""
        self.spec, self.folder = spec, folder
        primary, comparison = spec.measure.primary_score, spec.judgement
        self._score_rule = ScoreRule(
            primary.name,
            1 if primary.minimize else -1,
            comparison.checkpoint,
            failures=tuple(comparison.failures),
        )
        planned = folder.read_plan()
        configs = {(identity["arm"], identity["config_id"]) for identity in planned}
        self._begun = Counter(arm for arm, _ in configs)
        self._arms = {
            arm.name: ArmSearch(arm, spec.design.seed, self._begun[arm.name]) for arm in spec.arms
        }
        self._ended: dict[tuple[str, str], dict[int, Outcome]] = {}
        self._queue: list[TrialSpec] = []
        for identity in planned:
            trial = self._trial(
                identity["arm"], identity["config_id"], identity["params"], identity["seed"]
            )
            if folder.trial(trial.trial_id).finished():
                self.tell(trial)
            else:
                self._queue.append(trial)
                self._arms[trial.arm].reopen(trial.config_id, trial.params)
        wanted = [max(0, spec.design.configs - self._begun[arm.name]) for arm in spec.arms]
        remaining = len(self._queue) + sum(wanted) * len(spec.design.seeds)
        self._remaining = min(remaining, remaining if max_trials is None else max_trials)
        self._total = self._remaining

    def __len__(self) -> int:
        return self._total

    def next(self) -> TrialSpec | None:
        if self._remaining == 0:
            return None
        if not self._queue:
            self._ask()
        self._remaining -= 1
        return self._queue.pop(0)

    def tell(self, trial: TrialSpec) -> None:
        """Tell the arm's search what became of a config once all its seeds have ended."""
        outcome = self._outcome(trial)
        if outcome is None:
            return
        seeds = self._ended.setdefault((trial.arm, trial.config_id), {})
        seeds[trial.seed] = outcome
        if len(seeds) == len(self.spec.design.seeds):
            config = of_config(list(seeds.values()))
            self._arms[trial.arm].tell(trial.config_id, trial.params, config)

    def _outcome(self, trial: TrialSpec) -> Outcome | None:
        """Return what became of a trial, None where it has not ended.

        A run is scored by the study's comparison rule, or the search would optimise what no arm
        is judged by. One that ended collapsed or copies is worth nothing besides, however low its
        score happens to be, and whoever ended it. A failure of ours says nothing about the config.
        """
        folder = self.folder.trial(trial.trial_id)
        latest = folder.latest()
        record = TrialRecord(TrialResult(TrialStatus.PENDING)) if latest is None else latest[1]
        status, reason = folder.standing(record.result, running=True)
        if not status.finished:
            return None
        if status is TrialStatus.FAILED:
            return Outcome(TrialState.FAIL)
        reports = trial.primary.losses(record.points)
        # Of a trial that a rule or its clock stopped, the score so far is no score of its config.
        cut = not record.result.status.finished or reason == TIME_LIMIT
        if cut and not reports:  # ended from outside, before its first score
            return Outcome(TrialState.FAIL)
        score = score_record(record, status, replace(self._score_rule, keep_stopped=cut))
        lasting = {event.kind for event in record.events if event.ended is None}
        if lasting.intersection(WORTHLESS):
            score = math.inf
        if score < math.inf and cut:
            return Outcome(TrialState.PRUNED, reports=reports)
        return Outcome(TrialState.COMPLETE, score, reports)

    def _ask(self) -> None:
        """Plan the next config, of the arm that has the fewest: the first cover every arm."""
        arm = min((arm.name for arm in self.spec.arms), key=self._begun.__getitem__)
        config_id = f"c{self._begun[arm]:02d}"
        self._begun[arm] += 1
        values = self._arms[arm].ask(config_id)
        offset = self._arms[arm].arm.seed_offset
        seeds = [seed + offset for seed in self.spec.design.seeds]
        trials = [self._trial(arm, config_id, values, seed) for seed in seeds]
        self.folder.append_plan(trial.identity() for trial in trials)
        self._queue += trials

    def _trial(self, arm: str, config_id: str, values: dict[str, Any], seed: int) -> TrialSpec:
        chosen = next(a for a in self.spec.arms if a.name == arm)
        return build_trial(self.spec, chosen, config_id, values, seed)
