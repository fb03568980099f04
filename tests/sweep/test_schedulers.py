"""Ray's stopping rules as studies use them: its real objects, which need no cluster."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from analysis.stopping import asha, median_stopping
from ganstudy.records import TIME_LIMIT, Point, TrialRecord, TrialResult, TrialStatus, gan_failed
from ganstudy.store import StudyFolder
from ganstudy.study.plan import plan
from ganstudy.study.spec import StudySpec, parse_study
from ganstudy.sweep.ray_tune.schedulers import ArmSchedulers, scheduler

INF = math.inf
EVALUATIONS = 6
CONTINUE, STOP = "CONTINUE", "STOP"


def study(tiny: dict[str, Any], stopping: object, configs: int = 12) -> StudySpec:
    """A study of two arms with six evaluations of ten updates."""
    tiny["base"]["budget"] = {"discriminator_updates": 10 * EVALUATIONS}
    tiny["measure"]["every"] = {"discriminator_updates": 10}
    return parse_study(tiny | {"stopping": stopping, "design": {"configs": configs}})


@pytest.fixture
def folder(tmp_path) -> StudyFolder:
    made = StudyFolder(tmp_path / "study")
    made.create()
    return made


class Sweep:
    """Drives a scheduler as Tune does; trials of all arms in turns, or one after another."""

    def __init__(self, spec: StudySpec, folder: StudyFolder) -> None:
        folder.write_plan(trial.identity() for trial in plan(spec))
        self.spec, self.folder = spec, folder
        self.scheduler = scheduler(spec, folder)
        self.stopped: dict[str, int] = {}
        self.scores: dict[str, list[float]] = {}

    def trial(self, spec) -> Any:
        config = {"spec": spec.to_dict(), "folder": str(self.folder.trial(spec.trial_id).folder)}
        return SimpleNamespace(config=config, trial_id="tunes-own")

    def begin(self, spec) -> None:
        (self.folder.folder / "trials" / spec.trial_id).mkdir(exist_ok=True)
        self.scheduler.on_trial_add(None, self.trial(spec))

    def report(
        self, spec, updates: int, score: float, status: TrialStatus = TrialStatus.RUNNING
    ) -> str:
        """Tell one evaluation, and the end of the trial where there is one."""
        result = {
            "discriminator_updates": updates,
            "score": score if math.isfinite(score) else INF,
            "beat": SimpleNamespace(status=status, reason=""),
            "done": status.finished,
        }
        trial = self.trial(spec)
        decision = STOP
        if not status.finished:
            decision = self.scheduler.on_trial_result(None, trial, result)
        if decision == STOP:  # Tune says so of every end, whoever decided it
            self.scheduler.on_trial_complete(None, trial, result)
        return decision

    def run(self, reports: dict[str, list[float]], *, side_by_side: bool = False) -> None:
        """Report the scores of trials in the order of the plan, until they are stopped."""
        trials = [t for t in plan(self.spec) if t.trial_id in reports]
        for spec in trials:
            self.begin(spec)
        steps = [(i, t) for t in trials for i in range(len(reports[t.trial_id]))]
        if side_by_side:
            steps.sort(key=lambda step: step[0])
        for i, spec in steps:
            name = spec.trial_id
            if name in self.stopped:
                continue
            last = i == EVALUATIONS - 1
            status = TrialStatus.COMPLETED if last else TrialStatus.RUNNING
            self.scores.setdefault(name, []).append(reports[name][i])
            if self.report(spec, 10 * (i + 1), reports[name][i], status) == STOP and not last:
                self.stopped[name] = i + 1


def drawn(spec: StudySpec, seed: int, failing: float = 0.0) -> dict[str, list[float]]:
    """Falling scores of every trial; some fail at random."""
    rng = np.random.default_rng(seed)
    reports = {}
    for trial in plan(spec):
        scores = rng.uniform(1, 10) * np.exp(-rng.uniform(0, 0.5) * np.arange(EVALUATIONS))
        scores[rng.uniform(size=EVALUATIONS) < failing] = INF
        reports[trial.trial_id] = scores.tolist()
    return reports


RULES = {
    "asha": {"grace": 0.1, "reduction_factor": 2},
    "median_stopping": {"grace": 0.3, "fewest": 2},
}


@pytest.mark.parametrize("side_by_side", [False, True])
@pytest.mark.parametrize("failing", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", RULES)
def test_each_arm_stops_as_the_analysis_replays_it(tiny, folder, name, failing, side_by_side):
    spec = study(tiny, {name: RULES[name]})
    reports = drawn(spec, seed=3, failing=failing)
    sweep = Sweep(spec, folder)
    sweep.run(reports, side_by_side=side_by_side)
    for arm in spec.arms:
        mine = {trial: scores for trial, scores in reports.items() if trial.startswith(arm.name)}
        if name == "asha":
            stops = asha(list(mine.values()), grace=1, reduction_factor=2)
        else:
            stops = median_stopping(list(mine.values()), grace=2, fewest=2)
        expected = {t: s for t, s in zip(mine, stops, strict=True) if s and s < EVALUATIONS}
        assert {t: s for t, s in sweep.stopped.items() if t in mine} == expected
        assert expected or failing == 1.0


def test_a_stop_is_noted_in_the_trials_folder(tiny, folder):
    spec = study(tiny, "asha")
    sweep = Sweep(spec, folder)
    sweep.run(drawn(spec, seed=1))
    assert sweep.stopped
    running = TrialResult(TrialStatus.RUNNING)
    for trial in plan(spec):
        status, reason = folder.trial(trial.trial_id).standing(running, running=True)
        expected = (TrialStatus.STOPPED, "asha") if trial.trial_id in sweep.stopped else (
            TrialStatus.RUNNING, "")  # fmt: skip
        assert (status, reason) == expected


def test_the_untrained_generator_is_no_report(tiny, folder):
    spec = study(tiny, {"asha": {"grace": 0.1, "reduction_factor": 2}})
    sweep = Sweep(spec, folder)
    first, second = (t for t in plan(spec) if t.arm == "wgan_gp" and t.config_id < "c02")
    for trial, score in ((first, 1.0), (second, 9.0)):
        sweep.begin(trial)
        assert sweep.report(trial, 0, score) == CONTINUE
    assert sweep.report(first, 10, 1.0) == CONTINUE
    assert sweep.report(second, 10, 9.0) == STOP


@pytest.mark.parametrize("status", [TrialStatus.DIVERGED, TrialStatus.STOPPED])
def test_a_gan_that_failed_before_a_rung_is_beaten_there(tiny, folder, status):
    """Of two that failed and two that learn, the worse one that learns is among the best half."""
    spec = study(tiny, {"asha": {"grace": 0.5, "reduction_factor": 2}})
    trials = [t for t in plan(spec) if t.arm == "wgan_gp"][:4]
    sweep = Sweep(spec, folder)
    for trial in trials:
        sweep.begin(trial)
    for trial in trials[:2]:
        sweep.report(trial, 7, 0.5, status)
    assert sweep.report(trials[2], 30, 1.0) == CONTINUE
    assert sweep.report(trials[3], 30, 2.0) == CONTINUE


def test_what_is_not_a_number_is_told_as_failed(tiny, folder):
    spec = study(tiny, {"asha": {"grace": 0.1, "reduction_factor": 2}})
    trials = [t for t in plan(spec) if t.arm == "wgan_gp"][:3]
    sweep = Sweep(spec, folder)
    for trial in trials:
        sweep.begin(trial)
    assert sweep.report(trials[0], 10, 1.0) == CONTINUE
    assert sweep.report(trials[1], 10, 1.0) == CONTINUE
    result = {"discriminator_updates": 10, "score": math.nan, "beat": None, "done": False}
    assert sweep.scheduler.on_trial_result(None, sweep.trial(trials[2]), result) == STOP


def test_a_stop_that_cannot_be_noted_is_none(tiny, folder):
    """Or a resume would take the trial for interrupted and run it on."""
    spec = study(tiny, {"asha": {"grace": 0.1, "reduction_factor": 2}})
    first, second = (t for t in plan(spec) if t.arm == "wgan_gp" and t.config_id < "c02")
    sweep = Sweep(spec, folder)
    sweep.scheduler.on_trial_add(None, sweep.trial(first))
    (folder.folder / "trials" / second.trial_id).write_text("a file where a folder should be")
    sweep.scheduler.on_trial_add(None, sweep.trial(second))
    assert sweep.report(first, 10, 1.0) == CONTINUE
    assert sweep.report(second, 10, 9.0) == CONTINUE


def record(scores: list[float], status: TrialStatus, primary: str) -> TrialRecord:
    """What a trial writes: its untrained generator's score, then `scores`."""
    at = [10 * i for i in range(len(scores) + 1)]
    values = [99.0, *scores]
    points = [Point(primary, u, u, u, 0.0, v) for u, v in zip(at, values, strict=True)]
    return TrialRecord(TrialResult(status, discriminator_updates=at[-1]), points)


@pytest.mark.parametrize("name", RULES)
def test_a_driver_that_goes_on_decides_as_the_first_one_would_have(tiny, folder, name):
    spec = study(tiny, {name: RULES[name]})
    reports = drawn(spec, seed=5, failing=0.2)
    early = {trial: scores for trial, scores in reports.items() if trial.split("-")[1] < "c06"}
    late = {trial: scores for trial, scores in reports.items() if trial not in early}
    undisturbed = Sweep(spec, folder)
    undisturbed.run(early)
    for trial, scores in undisturbed.scores.items():
        ended = len(scores) == EVALUATIONS
        status = TrialStatus.COMPLETED if ended else TrialStatus.RUNNING
        attempt = folder.trial(trial).new_attempt()
        attempt.save(record(scores, status, spec.measure.primary), {})
    resumed = Sweep(spec, folder)
    undisturbed.run(late)
    resumed.run(late)
    expected = {trial: at for trial, at in undisturbed.stopped.items() if trial in late}
    assert resumed.stopped == expected
    assert expected


def test_an_interrupted_trial_is_judged_from_its_next_evaluation_on(tiny, folder):
    """Ray's rule would assert if a trial that its replay stops came back."""
    spec = study(tiny, {"median_stopping": {"grace": 0.1, "fewest": 1}})
    trials = [t for t in plan(spec) if t.arm == "wgan_gp"][:2]
    for trial, scores in zip(trials, ([1.0, 1.0], [9.0]), strict=True):
        attempt = folder.trial(trial.trial_id).new_attempt()
        attempt.save(record(scores, TrialStatus.RUNNING, spec.measure.primary), {})
    sweep = Sweep(spec, folder)
    sweep.begin(trials[1])
    assert sweep.report(trials[1], 20, 9.0) == STOP


def test_scores_of_which_more_is_better_are_replayed_with_their_sign(tiny, folder):
    tiny["measure"]["metrics"] = ["precision"]
    spec = study(tiny, {"asha": {"grace": 0.1, "reduction_factor": 2}})
    good, bad = (t for t in plan(spec) if t.arm == "wgan_gp" and t.config_id < "c02")
    attempt = folder.trial(good.trial_id).new_attempt()
    attempt.save(record([0.9], TrialStatus.RUNNING, spec.measure.primary), {})
    sweep = Sweep(spec, folder)
    sweep.begin(bad)
    assert sweep.report(bad, 10, -0.1) == STOP  # an executor tells it with lower as better


def test_without_a_rule_nothing_is_stopped(tiny, folder):
    spec = study(tiny, None)
    sweep = Sweep(spec, folder)
    assert not isinstance(sweep.scheduler, ArmSchedulers)
    sweep.run(drawn(spec, seed=0))
    assert not sweep.stopped


def test_a_trial_whose_time_was_up_is_no_failure_of_its_gan():
    """Its scores count where it had them, and nothing is made up for the rest."""
    assert gan_failed(TrialStatus.STOPPED, "mode_collapse")
    assert gan_failed(TrialStatus.DIVERGED, "")
    assert not gan_failed(TrialStatus.STOPPED, TIME_LIMIT)
    assert not gan_failed(TrialStatus.COMPLETED, "")
