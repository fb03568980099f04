"""Ray Tune's stopping rules, one of them per arm: trials compete within their arm only.

Every decision is one of Ray's own objects'. What is told them is the primary score (lower is
better) at each evaluation, counted from 1; the untrained generator's is no report. A GAN that
failed, by values that are not finite or by an event that ended it, is told as +inf, there and at
all evaluations that it did not come to: else an arm's rungs would hold its survivors only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from ganstudy.measure.protocol import Primary
from ganstudy.records import TrialRecord, gan_failed
from ganstudy.storage import names_in, store_errors
from ganstudy.store import StudyFolder
from ganstudy.study.arm import Arm
from ganstudy.study.checks import evaluations
from ganstudy.study.spec import StudySpec
from ganstudy.study.stopping import Asha, MedianStopping, Stopping

TOLD = {"time_attr": "evaluation", "metric": "score", "mode": "min"}


class Told(NamedTuple):
    """All that Ray's rules read of a trial: our name of it, which a resume does not change."""

    trial_id: str


class Report(NamedTuple):
    """What a rule is told of one evaluation."""

    evaluation: int
    score: float

    def result(self) -> dict[str, Any]:
        """Return it as Ray's rules read it; what is not finite would enter their quantiles."""
        score = self.score if math.isfinite(self.score) else math.inf
        return {"evaluation": self.evaluation, "score": score}


def scheduler(spec: StudySpec, folder: StudyFolder) -> TrialScheduler:
    """Return the scheduler of a study, at the state in which its trial folders leave it."""
    if spec.stopping is None:
        return FIFOScheduler()
    return ArmSchedulers(spec, spec.stopping, folder)


def rule(stopping: Stopping, first: int, last: int) -> TrialScheduler:
    """Return Ray's object of a rule.

    Args:
        stopping: The rule.
        first: Number of the first evaluation that may stop a trial.
        last: That of the evaluation at the end of the budget.
    """
    match stopping:
        case Asha():
            factor = stopping.reduction_factor
            return ASHAScheduler(
                **TOLD,
                grace_period=first,
                max_t=last,
                reduction_factor=factor,
                brackets=1,
                stop_last_trials=True,
            )
        case MedianStopping():
            # A trial is never paused to wait for others: it could not be gone on with.
            return MedianStoppingRule(
                **TOLD,
                grace_period=first,
                min_samples_required=stopping.fewest,
                min_time_slice=math.inf,
                hard_stop=True,
            )
    raise TypeError(f"Ray has no counterpart of {stopping!r}")


class ArmRule:
    """The rule of one arm, told in numbers of evaluations."""

    def __init__(self, spec: StudySpec, stopping: Stopping, arm: Arm) -> None:
        """Begin with nothing told."""
        first, self.last = evaluations(spec, stopping, arm)
        self.every = spec.measure.every
        self.rule = rule(stopping, first, self.last)

    def number(self, discriminator_updates: int) -> int:
        """Return the number of the evaluation at an update; an event may end a trial between."""
        return math.ceil(discriminator_updates / self.every)

    def add(self, trial_id: str) -> None:
        """Hear of a trial, for the first time or again."""
        self.rule.on_trial_add(None, Told(trial_id))

    def stops(self, trial_id: str, report: Report) -> bool:
        """Tell a report of a running trial; whether the trial is stopped."""
        # Of infinities alone there is no quantile, and then nobody is stopped.
        with np.errstate(invalid="ignore"):
            decision = self.rule.on_trial_result(None, Told(trial_id), report.result())
        return bool(decision == TrialScheduler.STOP)

    def note(self, trial_id: str, reports: Iterable[Report]) -> None:
        """Tell reports about which there is nothing to decide."""
        for report in reports:
            self.add(trial_id)  # Ray's ASHA forgets a trial that is complete, not its rungs
            with np.errstate(invalid="ignore"):
                self.rule.on_trial_complete(None, Told(trial_id), report.result())

    def end(self, trial_id: str, failed: bool, report: Report) -> None:
        """Tell the last report of a trial that ended by itself, its GAN `failed` or not."""
        if failed:
            missed = range(max(report.evaluation, 1), self.last + 1)
            self.note(trial_id, [Report(number, math.inf) for number in missed])
        elif report.evaluation > 0:
            self.note(trial_id, [report])

    def replay(self, trial_id: str, record: TrialRecord, primary: Primary) -> None:
        """Tell what a trial recorded before this driver began."""
        losses = primary.losses(record.points)
        reports = [Report(self.number(updates), loss) for updates, loss in losses.items()]
        if not gan_failed(record.result.status, record.result.reason):
            self.note(trial_id, reports)
            return
        self.note(trial_id, reports[:-1])
        last = Report(self.number(record.result.discriminator_updates), math.inf)
        self.end(trial_id, True, last)


class ArmSchedulers(FIFOScheduler):
    """Starts trials in their order, and stops them by one rule of Ray's per arm.

    A driver that goes on with a study tells the rules the recorded scores of all trials begun,
    trial after trial in the order of the plan. The order makes no difference: a rung is the set
    of the scores that reached it, and nothing is decided again. A trial that was interrupted is
    thus judged from its next evaluation on.
    """

    def __init__(self, spec: StudySpec, stopping: Stopping, folder: StudyFolder) -> None:
        """Tell the rules what the folder holds."""
        super().__init__()
        self._name, self._folder = stopping.name, folder
        self._arms = {arm.name: ArmRule(spec, stopping, arm) for arm in spec.arms}
        begun = set(names_in(folder.folder / "trials"))
        for identity in folder.read_plan():
            trial_id = identity["trial_id"]
            latest = folder.trial(trial_id).latest() if trial_id in begun else None
            if latest is not None:
                arm = self._arms[identity["arm"]]
                arm.replay(trial_id, latest[1], spec.measure.primary_score)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A trial is about to begin."""
        arm, trial_id = self._who(trial)
        arm.add(trial_id)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Return whether the trial goes on; note it in its folder where it does not."""
        arm, trial_id = self._who(trial)
        report = Report(arm.number(result["discriminator_updates"]), result["score"])
        if report.evaluation == 0 or not arm.stops(trial_id, report):
            return str(TrialScheduler.CONTINUE)
        try:
            self._folder.trial(trial_id).stop(self._name)
        except store_errors():
            # Stopped without a note it would be taken for interrupted, and run on by a resume.
            return str(TrialScheduler.CONTINUE)
        return str(TrialScheduler.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """A trial has ended: by itself, which is told, or stopped, which the rule has decided."""
        beat = result.get("beat")
        if beat is None or not beat.status.finished:
            return
        arm, trial_id = self._who(trial)
        report = Report(arm.number(result["discriminator_updates"]), result["score"])
        arm.end(trial_id, gan_failed(beat.status, beat.reason), report)

    def debug_string(self) -> str:
        """Return what the rules have done, one after the other."""
        return "\n".join(f"{name}: {arm.rule.debug_string()}" for name, arm in self._arms.items())

    def _who(self, trial: Any) -> tuple[ArmRule, str]:
        """Return the rule of the trial's arm, and our name of the trial."""
        config = trial.config
        return self._arms[config["spec"]["arm"]], PurePosixPath(config["folder"]).name

    def __getstate__(self) -> dict[str, Any]:
        """Leave out everything: Tune's snapshots are not the record."""
        return {}
