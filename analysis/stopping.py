"""Recorded runs, and where stopping rules would have stopped them.

A trial that ran to the end of its budget holds what it would have cost and brought, had a rule
stopped it earlier, so every rule can be tried on one study afterwards, without training.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

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
Columns = tuple[NDArray[Any], ...]
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
        floor: `badness` of real images, below which a ratio is noise; 0 where it is not known.
        ticks: Updates at which anything was recorded, ascending.
        seconds_at: Seconds since the trial's begin at the last record of such an update.
        evaluation: Seconds of an evaluation, the median of the trial's own.
        broken: Whether it ended with a value that is not finite.
        failed: Whether it failed by the study's comparison rule.
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
    floor: float
    ticks: NDArray[np.int64]
    seconds_at: Floats
    evaluation: float
    broken: bool
    failed: bool
    detected: Mapping[str, int]
    reports: Mapping[int, float]

    @cached_property
    def seconds(self) -> float:
        """What the whole trial took."""
        return float(self._elapsed[-1])

    @cached_property
    def _elapsed(self) -> Floats:
        return np.maximum.accumulate(self.seconds_at)

    @cached_property
    def _best_so_far(self) -> Floats:
        return np.minimum.accumulate(self.scores)

    @cached_property
    def _badness_so_far(self) -> Floats:
        return np.minimum.accumulate(self.badness)

    @cached_property
    def _badness_to_come(self) -> Floats:
        return np.append(np.minimum.accumulate(self.badness[::-1])[::-1], math.inf)

    def clock(self, update: int) -> float:
        """Return the seconds when all that was recorded up to the update was there."""
        return float(self._elapsed[self.ticks.searchsorted(update, "right") - 1])

    def spent(self, stop: int | None) -> float:
        """Return the seconds until the trial is stopped and evaluated for the last time."""
        if stop is None:
            return self.seconds
        evaluated = self.updates[self.updates.searchsorted(stop, "right") - 1] == stop
        return self.clock(stop) + (0.0 if evaluated else self.evaluation)

    def best(self, stop: int | None = None) -> float:
        """Return the best score up to the stop; a run that fails has none.

        The last evaluation that a stop brings is not known where the run had none there: then
        this is an upper bound.
        """
        if self.failed:
            return math.inf
        seen = len(self.scores) if stop is None else self.updates.searchsorted(stop, "right")
        return float(self._best_so_far[seen - 1])

    def gains_after(self, stop: int) -> bool:
        """Whether the run would have become better than its best up to the stop, by a gain."""
        seen = self.updates.searchsorted(stop, "right")
        return bool(self._badness_to_come[seen] < (1 - GAIN) * self._badness_so_far[seen - 1])

    def last_gain(self) -> int:
        """Return the index of the last evaluation that was better by a gain than the last such."""
        last, badness = 0, self.badness.tolist()
        for index, found in enumerate(badness):
            if found < (1 - GAIN) * badness[last]:
                last = index
        return last

    def lost_from(self, little: float = LITTLE) -> float | None:
        """Return the second from which the run never recovers, None if it ends well.

        Told by the scores alone. A run never recovers if at its end (the median of the last tenth
        of its evaluations) it is not finite; or is 1.5 times as bad as its own best, or as real
        images where these are worse, and that by more than 3 standard errors; or is more than
        half as bad as the untrained generator and had no gain of 10 % in the second half of its
        budget. It is lost from its last gain on.

        Args:
            little: Share of the untrained generator's score, a half, above which it is stuck.
        """
        last = self.last_gain()
        end = float(np.median(self.badness[-math.ceil(len(self.badness) / 10) :]))
        stuck = end > little * self.badness[0] and 2 * self.updates[last] <= self.updates[-1]
        if self.broken or math.isinf(end) or self._fallen(end) or stuck:
            return self.clock(int(self.updates[last]))
        return None

    def _fallen(self, end: float) -> bool:
        best = int(self.badness.argmin())
        error = math.hypot(self.errors[best], self.errors[-1])
        worst = WORSE * max(self.badness[best], self.floor)
        return end >= worst and end - self.badness[best] > ERRORS * error


def recorded_runs(study: Study) -> list[Run]:
    """Return the trials that ran to the end of their budget, arm by arm in the plan's order."""
    of = _Recorded.of(study)
    runs = []
    for arm in study.contenders:
        trials = study.trials(arm)
        counted = set(study.counted(arm)["trial_id"])
        whole = trials[_ran_to_their_end(study, arm, trials)]
        whole = whole[whole["trial_id"].isin(of.clock)]
        # Of a generator that is not finite a probe records no score.
        updates = [of.told[trial][0] for trial in whole["trial_id"] if trial in of.told]
        due = np.unique(np.concatenate([*updates, np.zeros(0, np.int64)]))
        columns = ("trial_id", "config_id", "seed", "status", "score")
        runs += [
            _run(study, of, arm, row, row[0] in counted, due[due > 0])
            for row in zip(*(whole[name].tolist() for name in columns), strict=True)
            if len(of.scores.get(row[0], ((),))[0]) > 1
        ]
    return runs


def reported_score(study: Study) -> str:
    """Return the score that schedulers are told: what detectors read too, where there are probes.

    An evaluation's score comes a few times to a trial: at that a scheduler would be the later.
    """
    return PROBE_SCORE if PROBE_SCORE in study.results.point_names() else study.primary


def _ran_to_their_end(study: Study, arm: str, trials: pd.DataFrame) -> pd.Series[bool]:
    """Return which trials nothing stopped: one may well end diverged at its last update."""
    budget = study.settings["arms"][arm].get("budget", {})
    full = trials["discriminator_updates"] >= budget.get("discriminator_updates", math.inf)
    diverged = (trials["status"] == TrialStatus.DIVERGED) & full
    return (trials["status"] == TrialStatus.COMPLETED) | diverged


class _Recorded(NamedTuple):
    """What was recorded of every trial: trial_id -> columns, by update; absent where none was.

    Attributes:
        scores: Updates and values of the primary score.
        errors: The same of its standard error.
        told: The same of the score that schedulers are told, lower is better.
        clock: Updates, seconds of their last point, and of the last before.
        detected: Kind of event -> first detection.
    """

    scores: dict[str, Columns]
    errors: dict[str, Columns]
    told: dict[str, Columns]
    clock: dict[str, Columns]
    detected: dict[str, dict[str, int]]

    @classmethod
    def of(cls, study: Study) -> _Recorded:
        """Read each table once and cut it into trials."""
        value = ("discriminator_updates", "value")
        scores = _by_trial(study.primary_points, *value)
        told, other = scores, reported_score(study)
        if other != study.primary:
            told = _by_trial(study.results.points_of(other), *value)
        elif study.sign == -1:
            told = {trial: (at, -values) for trial, (at, values) in scores.items()}
        events = study.results.events
        bad = events[~events["kind"].isin(GOOD_NEWS)]
        first = bad.groupby(["trial_id", "kind"], as_index=False)["detected"].min().dropna()
        detected: dict[str, dict[str, int]] = {}
        for trial, kind, at in zip(*(first[name] for name in first), strict=True):
            detected.setdefault(trial, {})[kind] = int(at)
        return cls(
            scores=scores,
            errors=_by_trial(study.results.points_of(f"{study.primary}_se"), *value),
            told=told,
            clock=_by_trial(
                study.results.clock(), "discriminator_updates", "wall_seconds", "before"
            ),
            detected=detected,
        )


def _by_trial(rows: pd.DataFrame, *columns: str) -> dict[str, Columns]:
    """Return trial_id -> these columns; rows of one trial follow each other."""
    ids = rows["trial_id"].to_numpy(dtype=object)
    begins = (
        np.flatnonzero(np.append(True, ids[1:] != ids[:-1])) if len(ids) else np.array([], int)
    )
    parts = (np.split(rows[name].to_numpy(), begins[1:]) for name in columns)
    return dict(zip(ids[begins], zip(*parts, strict=True), strict=False))


def _run(
    study: Study,
    of: _Recorded,
    arm: str,
    row: tuple[str, str, int, str, float],
    counted: bool,
    due: NDArray[np.int64],
) -> Run:
    trial_id, config_id, seed, status, score = row
    updates, values = of.scores[trial_id]
    badness, spread = _badness(values, _at(updates, of.errors.get(trial_id), 0.0), study.sign)
    ticks, last, before = of.clock[trial_id]
    told = _at(due, of.told.get(trial_id), math.inf)
    return Run(
        arm=arm,
        trial_id=trial_id,
        unit=str(config_id if study.unit == "configuration" else seed),
        counted=counted,
        cluster=str(config_id if study.paired else trial_id),
        updates=updates,
        scores=np.where(np.isfinite(values), study.sign * values, math.inf),
        badness=badness,
        errors=spread,
        floor=_floor(study),
        ticks=ticks,
        seconds_at=last,
        evaluation=_evaluation_seconds((last - before)[np.isin(ticks, updates[1:])]),
        broken=status == TrialStatus.DIVERGED,
        failed=math.isinf(score),
        detected=of.detected.get(trial_id, {}),
        reports=dict(
            zip(due.tolist(), np.where(np.isfinite(told), told, math.inf).tolist(), strict=True)
        ),
    )


def _at(wanted: NDArray[np.int64], known: Columns | None, otherwise: float) -> Floats:
    """Return the values at these updates, `otherwise` where there is none."""
    if known is None:
        return np.full(len(wanted), otherwise)
    updates, values = known
    place = np.minimum(updates.searchsorted(wanted), len(updates) - 1)
    return np.where(updates[place] == wanted, values[place], otherwise)


def _evaluation_seconds(spent: Floats) -> float:
    """Return the median seconds from the last read before an evaluation to its end, 0 of none."""
    known = spent[np.isfinite(spent)]
    return float(np.median(known)) if len(known) else 0.0


def _badness(values: Floats, errors: Floats, sign: int) -> tuple[Floats, Floats]:
    """Return how bad the scores are, and the standard errors of that."""
    if sign == -1:
        known = values > 0
        errors = np.divide(errors, values**2, out=np.zeros_like(values), where=known)
        values = np.divide(1, values, out=np.full_like(values, math.inf), where=known)
    # An unbiased kernel distance is at times slightly negative.
    return np.where(np.isfinite(values), np.maximum(values, 0), math.inf), errors


def _floor(study: Study) -> float:
    """Return how bad real images are by the primary score, 0 where nobody knows."""
    (floor,), _ = _badness(np.array([study.floor]), np.zeros(1), study.sign)
    return float(floor) if math.isfinite(floor) else 0.0


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
            if known and reward < quantile(known, 1 - 1 / reduction_factor):
                stop = number
            bisect.insort(known, reward)
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
        stop, told = None, np.asarray(scores, dtype=float)
        best = np.minimum.accumulate(told).tolist()
        for number in range(grace, len(best) + 1):
            others = means.get(number, [])
            if len(others) >= fewest and best[number - 1] > middle(others):
                stop = number
                break
        for number in range(grace, len(best[:stop]) + 1):
            # As numpy's mean, bit by bit, without what that costs besides.
            mean = float(np.add.reduce(told[grace - 1 : number])) / (number - grace + 1)
            if math.isfinite(mean):
                bisect.insort(means.setdefault(number, []), mean)
        stops.append(stop)
    return stops


def middle(ascending: Sequence[float]) -> float:
    """Return the median of numbers in order, without looking at them all."""
    half = len(ascending) // 2
    return ascending[half] if len(ascending) % 2 else (ascending[half - 1] + ascending[half]) / 2


def quantile(ascending: Sequence[float], share: float) -> float:
    """Return the quantile of numbers in order as `numpy.percentile` does, without sorting them.

    NaN between two equal infinities: of them alone there is no quantile.
    """
    at = (len(ascending) - 1) * (share * 100 / 100)  # by way of per cent: the same last bit
    low = math.floor(at)
    high = min(low + 1, len(ascending) - 1)
    step = ascending[high] - ascending[low]
    weight = at - low
    if weight < 0.5:
        return ascending[low] + step * weight
    return ascending[high] - step * (1 - weight)


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
