"""Recorded runs, and where stopping rules would have stopped them.

A trial that ran to the end of its budget holds what it would have cost and brought, had a rule
stopped it earlier, so every rule can be tried on one study afterwards, without training.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.tables import Study
from ganstudy.records import PROBE_SCORE, RECOVERY, TrialStatus

RECOMMENDED = ("divergence", "mode_collapse", "no_learning")
"""Kinds of event from which no trial of the sweep in docs/stopping.md came back to matter."""
RECOMMENDED_RULE = "recommended events"
"""Name of the rule that stops at the first of them."""
EAGER = (*RECOMMENDED, "vanishing_gradient", "quality_drop")
EAGER_RULE = "eager events"
"""Name of the rule that stops at the first of more kinds: it saves more, and may cost a little."""
GOOD_NEWS = frozenset({RECOVERY})
"""Kinds of event that are no failure."""
GAIN = 0.1
"""Share by which a score must become better than at the gain before to be a gain."""
WORSE = 1.5
"""Times its own best at which a trial has lost what it had learned."""
ERRORS = 3.0
"""Standard errors of the difference beyond which that is no chance."""
LITTLE = 0.5
"""Share of the untrained generator's score above which little has been learned."""
Floats = NDArray[np.float64]
Stops = Sequence[int | None]
"""By trial the discriminator update at which it is stopped, None where it is not."""


@dataclass(frozen=True)
class Run:
    """One trial that ran to the end of its budget.

    Attributes:
        unit: What the arm's scores are of: its configuration, or its seed.
        counted: Whether it is among the trials that the arm's best is chosen from.
        cluster: Trials of one cluster are no independent draws.
        updates: Discriminator updates of the evaluations; at the first nothing had been learned.
        scores: The primary score there, lower is better, +inf where it was not finite.
        badness: The same as a positive number that doubles where a generator is twice as bad:
            the score itself where lower is better, else its inverse.
        errors: Standard errors of `badness`, 0 where none was recorded.
        clock: Update -> seconds since the trial's begin when all that is of that update was
            recorded.
        evaluation: Seconds of an evaluation, the median of the trial's own.
        broken: Whether it ended with a value that is not finite.
        detected: Kind of event -> update at which the first of it was detected.
        reports: Update -> score that a scheduler would have been told, ascending.
    """

    arm: str
    trial_id: str
    unit: str
    counted: bool
    cluster: str
    updates: NDArray[np.int64]
    scores: Floats
    badness: Floats
    errors: Floats
    clock: Mapping[int, float]
    evaluation: float
    broken: bool
    detected: Mapping[str, int]
    reports: Mapping[int, float]

    @property
    def seconds(self) -> float:
        """What the whole trial took."""
        return max(self.clock.values())

    def spent(self, stop: int | None) -> float:
        """Return the seconds until the trial is stopped and evaluated for the last time."""
        if stop is None:
            return self.seconds
        spent = max(seconds for update, seconds in self.clock.items() if update <= stop)
        return spent if stop in self.updates else spent + self.evaluation

    def best(self, stop: int | None = None) -> float:
        """Return the best score up to the stop; a run that ends broken has none.

        The last evaluation that a stop brings is not known where the run had none there: then
        this is an upper bound.
        """
        seen = self.scores if stop is None else self.scores[self.updates <= stop]
        return math.inf if self.broken else float(seen.min())

    def gains_after(self, stop: int) -> bool:
        """Whether the run would have become better than its best up to the stop, by a gain."""
        before, after = (
            self.badness[side] for side in (self.updates <= stop, self.updates > stop)
        )
        return bool(after.min(initial=math.inf) < (1 - GAIN) * before.min())

    def last_gain(self) -> int:
        """Return the index of the last evaluation that was better by a gain than the last such."""
        last = 0
        for index, badness in enumerate(self.badness):
            if badness < (1 - GAIN) * self.badness[last]:
                last = index
        return last

    def lost_from(self, little: float = LITTLE) -> float | None:
        """Return the second from which the run never recovers, None if it ends well.

        Told by the scores alone. A run never recovers if at its end (the median of the last tenth
        of its evaluations) it is not finite; or is 1.5 times as bad as its own best, and that by
        more than 3 standard errors; or is more than half as bad as the untrained generator and
        had no gain of 10 % in the second half of its budget. It is lost from its last gain on.

        Args:
            little: Share of the untrained generator's score, a half, above which it is stuck.
        """
        last = self.last_gain()
        end = float(np.median(self.badness[-math.ceil(len(self.badness) / 10) :]))
        stuck = end > little * self.badness[0] and 2 * self.updates[last] <= self.updates[-1]
        if self.broken or math.isinf(end) or self._fallen(end) or stuck:
            return self.clock[int(self.updates[last])]
        return None

    def _fallen(self, end: float) -> bool:
        best = int(self.badness.argmin())
        error = math.hypot(self.errors[best], self.errors[-1])
        return end >= WORSE * self.badness[best] and end - self.badness[best] > ERRORS * error


def recorded_runs(study: Study) -> list[Run]:
    """Return the trials that ran to the end of their budget, arm by arm in the plan's order."""
    points = study.results.points
    by_trial = dict(tuple(points.groupby("trial_id", sort=False)))
    told, runs = reported_score(study), []
    for arm in study.arms:
        counted = set(study.counted(arm)["trial_id"])
        rows = [row for _, row in study.trials(arm).iterrows() if _ran_to_its_end(study, row)]
        mine = [(row, by_trial[row["trial_id"]]) for row in rows if row["trial_id"] in by_trial]
        # Of a generator that is not finite a probe records no score.
        due = {update for _, of in mine for update in _by_update(of, told) if update > 0}
        runs += [
            _run(study, row, of, row["trial_id"] in counted, _reports(study, of, told, due))
            for row, of in mine
            if len(_by_update(of, study.primary)) > 1
        ]
    return runs


def reported_score(study: Study) -> str:
    """Return the score that schedulers are told: what detectors read too, where there are probes.

    An evaluation's score comes a few times to a trial: at that a scheduler would be the later.
    """
    names = study.results.points["name"]
    return PROBE_SCORE if (names == PROBE_SCORE).any() else study.primary


def _ran_to_its_end(study: Study, row: pd.Series[Any]) -> bool:
    """Whether nothing stopped the trial: one may well end diverged at its last update."""
    budget = study.settings["arms"][row["arm"]].get("budget", {})
    full = row["discriminator_updates"] >= budget.get("discriminator_updates", math.inf)
    return row["status"] == TrialStatus.COMPLETED or (
        row["status"] == TrialStatus.DIVERGED and full
    )


def _run(
    study: Study,
    row: pd.Series[Any],
    points: pd.DataFrame,
    counted: bool,
    reports: Mapping[int, float],
) -> Run:
    scores, errors = (_by_update(points, study.primary + end) for end in ("", "_se"))
    values = np.array(list(scores.values()))
    badness, spread = _badness(values, np.array([errors.get(u, 0.0) for u in scores]), study.sign)
    events = study.results.events
    mine = events[(events["trial_id"] == row["trial_id"]) & ~events["kind"].isin(GOOD_NEWS)]
    last = points.groupby("discriminator_updates")["wall_seconds"].max()
    paired = study.unit == "configuration" and bool(study.settings["design"].get("paired"))
    return Run(
        arm=str(row["arm"]),
        trial_id=str(row["trial_id"]),
        unit=str(row["config_id"] if study.unit == "configuration" else row["seed"]),
        counted=counted,
        cluster=str(row["config_id"] if paired else row["trial_id"]),
        updates=np.array(list(scores)),
        scores=np.where(np.isfinite(values), study.sign * values, math.inf),
        badness=badness,
        errors=spread,
        clock=dict(zip(last.index.tolist(), last.tolist(), strict=True)),
        evaluation=_evaluation_seconds(points, list(scores)[1:]),
        broken=row["status"] == TrialStatus.DIVERGED,
        detected=mine.groupby("kind")["detected"].min().to_dict(),
        reports=reports,
    )


def _by_update(points: pd.DataFrame, name: str) -> dict[int, float]:
    """Return update -> value of one name, ascending."""
    mine = points[points["name"] == name].sort_values("discriminator_updates")
    return dict(zip(mine["discriminator_updates"].tolist(), mine["value"].tolist(), strict=True))


def _reports(study: Study, points: pd.DataFrame, told: str, due: set[int]) -> dict[int, float]:
    """Return what a scheduler is told at the updates of the arm's reports; lower is better."""
    sign = study.sign if told == study.primary else 1
    values = {update: sign * value for update, value in _by_update(points, told).items()}
    finite = {update: value for update, value in values.items() if math.isfinite(value)}
    return {update: finite.get(update, math.inf) for update in sorted(due)}


def _badness(values: Floats, errors: Floats, sign: int) -> tuple[Floats, Floats]:
    """Return how bad the scores are, and the standard errors of that."""
    if sign == -1:
        known = values > 0
        errors = np.divide(errors, values**2, out=np.zeros_like(values), where=known)
        values = np.divide(1, values, out=np.full_like(values, math.inf), where=known)
    # An unbiased kernel distance is at times slightly negative.
    return np.where(np.isfinite(values), np.maximum(values, 0), math.inf), errors


def _evaluation_seconds(points: pd.DataFrame, evaluated: Sequence[int]) -> float:
    """Return the median of the seconds between the last read before an evaluation and its end."""
    at = points[points["discriminator_updates"].isin(evaluated)]
    clocks = at.groupby("discriminator_updates")["wall_seconds"].unique()
    spent = [np.diff(np.sort(clock))[-1] for clock in clocks if len(clock) > 1]
    return float(np.median(spent)) if spent else 0.0


class Rule(Protocol):
    """Decides which of one arm's trials stop, and when."""

    def __call__(self, runs: Sequence[Run]) -> Stops:
        """Return the stops of `runs`, one arm's in the order of the plan."""


@dataclass(frozen=True)
class FirstEvent:
    """Stop at the first detection of an event of some kinds."""

    kinds: Sequence[str]

    def __call__(self, runs: Sequence[Run]) -> Stops:
        """Return the stops of `runs`."""
        found = [
            [run.detected[kind] for kind in self.kinds if kind in run.detected] for run in runs
        ]
        return [min(updates, default=None) for updates in found]


@dataclass(frozen=True)
class Scheduler:
    """Stop by comparing the scores that the trials of one arm report."""

    stopped: Callable[[Sequence[Sequence[float]]], Sequence[int | None]]
    """Reports by trial -> the number of the report, from 1, at which each is stopped."""

    def __call__(self, runs: Sequence[Run]) -> Stops:
        """Return the stops of `runs`."""
        numbers = self.stopped([list(run.reports.values()) for run in runs])
        return [
            None if number is None else list(run.reports)[number - 1]
            for run, number in zip(runs, numbers, strict=True)
        ]


def asha(
    reports: Sequence[Sequence[float]], grace: int = 1, reduction_factor: int = 4
) -> list[int | None]:
    """Return at which report asynchronous successive halving stops each trial.

    As in Ray's `ASHAScheduler` with one bracket: at the reports grace * factor^k a trial goes on
    only if it is among the best 1 / factor of those that came there before it (Li et al. 2018,
    arXiv:1810.05934). No report is compared with one of a trial later in the order, so trials side
    by side and trials one after another stop alike.

    Args:
        reports: By trial in their order, the scores that it would report; lower is better.
        grace: Reports before the first decision.
        reduction_factor: Of the trials that reach a decision one in so many goes on.
    """
    rungs: dict[int, list[float]] = {}
    stops: list[int | None] = []
    for scores in reports:
        number, stop = grace, None
        while number <= len(scores) and stop is None:
            known, reward = rungs.setdefault(number, []), -scores[number - 1]
            # Of infinities alone there is no quantile, and nobody is stopped.
            with np.errstate(invalid="ignore"):
                if known and reward < np.percentile(known, (1 - 1 / reduction_factor) * 100):
                    stop = number
            known.append(reward)
            number *= reduction_factor
        stops.append(stop)
    return stops


def median_stopping(
    reports: Sequence[Sequence[float]], grace: int = 1, fewest: int = 3
) -> list[int | None]:
    """Return at which report the median stopping rule stops each trial.

    As Ray's `MedianStoppingRule`: a trial stops where the best of its reports is worse than the
    median over other trials of their mean report up to there (Golovin et al. 2017, Google Vizier).
    Order as in `asha`.

    Args:
        reports: By trial in their order, the scores that it would report; lower is better.
        grace: First report that is judged and enters means.
        fewest: Other trials with a finite mean without which nobody is stopped.
    """
    means: dict[int, list[float]] = {}
    """Number of a report -> the finite means up to there of the trials so far, ascending."""
    stops: list[int | None] = []
    for scores in reports:
        stop = None
        for number in range(grace, len(scores) + 1):
            others = means.get(number, [])
            if len(others) >= fewest and min(scores[:number]) > middle(others):
                stop = number
                break
        for number in range(grace, len(scores[:stop]) + 1):
            mean = float(np.mean(scores[grace - 1 : number]))
            if math.isfinite(mean):
                bisect.insort(means.setdefault(number, []), mean)
        stops.append(stop)
    return stops


def middle(ascending: Sequence[float]) -> float:
    """Return the median of numbers in order, without looking at them all."""
    half = len(ascending) // 2
    around = ascending[half : half + 1] if len(ascending) % 2 else ascending[half - 1 : half + 1]
    return float(np.mean(around))


def stopping_rules(runs: Sequence[Run]) -> dict[str, Rule]:
    """Return the rules by name: on events, first the recommended ones, then schedulers."""
    kinds = sorted({kind for run in runs for kind in run.detected})
    rules: dict[str, Rule] = {}
    if kinds:
        rules[RECOMMENDED_RULE] = FirstEvent(RECOMMENDED)
        rules[EAGER_RULE] = FirstEvent(EAGER)
    rules |= {kind: FirstEvent((kind,)) for kind in kinds}
    if max((len(run.reports) for run in runs), default=0) > 1:
        rules |= {"ASHA": Scheduler(asha), "median stopping": Scheduler(median_stopping)}
    return rules
