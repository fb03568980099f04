"""Adaptive search with Optuna's TPE: one independent study per arm, with equal budget.

What it has tried lies in the trial folders alone, so an interrupted search goes on from there.
Adaptive trials are not independent draws: the analysis keeps them out of best-of-k curves.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from ganstudy.gan.seeding import derive
from ganstudy.measure.events import WORTHLESS
from ganstudy.records import TrialStatus
from ganstudy.store import StudyFolder
from ganstudy.study.plan import trial as build_trial
from ganstudy.study.space import Choice, Distribution, IntUniform, LogUniform
from ganstudy.study.spec import Arm, StudySpec
from ganstudy.trial import TrialSpec

optuna.logging.set_verbosity(optuna.logging.WARNING)


def to_optuna(distribution: Distribution) -> BaseDistribution:
    """Return Optuna's counterpart; a choice becomes its index, since values may be mappings."""
    if isinstance(distribution, Choice):
        return CategoricalDistribution(range(len(distribution.values)))
    low, high = distribution.ends()
    if isinstance(distribution, IntUniform):
        return IntDistribution(low, high)
    return FloatDistribution(low, high, log=isinstance(distribution, LogUniform))


class ArmSearch:
    """The search of one arm."""

    def __init__(self, arm: Arm, seed: int, planned: int) -> None:
        """Begin with nothing tried; `planned` configs of an earlier run will be told.

        They are part of the sampler's seed, or a search that goes on would draw them again.
        """
        self.arm = arm
        self.distributions = {key: to_optuna(d) for key, d in sorted(arm.space.items())}
        sampler = optuna.samplers.TPESampler(seed=derive("tpe", seed, arm.name, planned) % 2**32)
        self.study = optuna.create_study(sampler=sampler)
        self._open: dict[str, Any] = {}

    def ask(self, config_id: str) -> dict[str, Any]:
        """Return the values to try next."""
        asked = self._open[config_id] = self.study.ask(self.distributions)
        return {key: self._value(key, v) for key, v in asked.params.items()}

    def tell(self, config_id: str, values: dict[str, Any], score: float) -> None:
        """Report the score (lower is better) of a config, asked for now or by an earlier run."""
        asked = self._open.pop(config_id, None)
        if asked is not None:
            self.study.tell(asked, score)
        else:
            self.study.add_trial(self._past(values, score))

    def _past(self, values: dict[str, Any], score: float) -> FrozenTrial:
        params = {
            key: d.values.index(values[key]) if isinstance(d, Choice) else values[key]
            for key, d in self.arm.space.items()
        }
        return create_trial(
            params=params,
            distributions=self.distributions,
            value=score,
            state=TrialState.COMPLETE,
        )

    def _value(self, key: str, value: Any) -> Any:
        distribution = self.arm.space[key]
        return distribution.values[value] if isinstance(distribution, Choice) else value


class TpeSearch:
    """A Source that asks each arm's search in turn, for equally many configs."""

    def __init__(self, spec: StudySpec, folder: StudyFolder, max_trials: int | None) -> None:
        """Go on from what the folder holds: finished trials are told, open ones run again."""
        self.spec, self.folder = spec, folder
        planned = folder.read_plan()
        begun = Counter(identity["arm"] for identity in planned)
        self._arms = {
            arm.name: ArmSearch(arm, spec.design.seed, begun[arm.name]) for arm in spec.arms
        }
        self._scores: dict[tuple[str, str], dict[int, float]] = {}
        self._queue: list[TrialSpec] = []
        for identity in planned:
            trial = self._trial(
                identity["arm"], identity["config_id"], identity["params"], identity["seed"]
            )
            if folder.trial(trial.trial_id).finished():
                self.tell(trial)
            else:
                self._queue.append(trial)
        arms, seeds = len(spec.arms), len(spec.design.seeds)
        self._next = len(planned) // seeds
        self._last = spec.design.configs * arms
        remaining = len(self._queue) + max(0, self._last - self._next) * seeds
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
        """Tell the arm's search the mean score of a config once all its seeds have ended."""
        score = self._score(trial)
        if score is None:
            return
        scores = self._scores.setdefault((trial.arm, trial.config_id), {})
        scores[trial.seed] = score
        if len(scores) == len(self.spec.design.seeds):
            mean = sum(scores.values()) / len(scores)
            self._arms[trial.arm].tell(trial.config_id, dict(trial.params), mean)

    def _score(self, trial: TrialSpec) -> float | None:
        """Return the best primary score, lower is better; +inf for a failure of the GAN.

        A run that diverged, ended collapsed or copies is worth nothing however low its score
        happens to be. A failure of ours says nothing about the config.
        """
        latest = self.folder.trial(trial.trial_id).latest()
        if latest is None or not latest[1].result.status.finished:
            return None
        record = latest[1]
        lasting = {event.kind for event in record.events if event.ended is None}
        if record.result.status is TrialStatus.DIVERGED or lasting.intersection(WORTHLESS):
            return math.inf
        value = record.values_at(record.result.best_at).get(trial.primary.name)
        if value is None:
            return math.inf
        return value if trial.primary.minimize else -value

    def _ask(self) -> None:
        """Plan the next config: arm by arm, so that the first trials cover every arm."""
        arms = self.spec.arms
        arm, config_id = arms[self._next % len(arms)], f"c{self._next // len(arms):02d}"
        self._next += 1
        values = self._arms[arm.name].ask(config_id)
        trials = [self._trial(arm.name, config_id, values, s) for s in self.spec.design.seeds]
        self.folder.append_plan(trial.identity() for trial in trials)
        self._queue += trials

    def _trial(self, arm: str, config_id: str, values: dict[str, Any], seed: int) -> TrialSpec:
        chosen = next(a for a in self.spec.arms if a.name == arm)
        return build_trial(self.spec, chosen, config_id, values, seed)
