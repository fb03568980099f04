from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from analysis import savings
from analysis.report import render
from analysis.stopping import (
    FirstEvent,
    asha,
    median_stopping,
    recorded_runs,
    stopping_rules,
)
from analysis.tables import Study, Tables
from ganstudy.records import PROBE_SCORE, TrialStatus, load_results
from ganstudy.store import StudyFolder
from ganstudy.study.plan import plan
from ganstudy.study.spec import parse_study
from ganstudy.sweep.driver import Run, prepare
from ganstudy.trial import run_trial
from tests.conftest import seal

INF = math.inf
SCORE = "fd"
READ, EVALUATION = 10.0, 3.0
"""Seconds of the training between two reads, and of an evaluation."""


def trial(
    arm: str,
    scores: Sequence[float],
    events: Mapping[str, int] | None = None,
    *,
    config: str | None = None,
    status: TrialStatus = TrialStatus.COMPLETED,
    probes: Mapping[int, float] | None = None,
    error: float = 0.0,
) -> dict[str, Any]:
    """A trial that is read every 50 updates and evaluated every 100."""
    clock, points = 0.0, []
    for at in range(0, 100 * len(scores) - 99, 50):
        if at:
            clock += READ
            points.append(("generator_loss", at, clock, 1.0))
        if probes and at in probes:
            points.append((PROBE_SCORE, at, clock, probes[at]))
        if at % 100 == 0:
            clock += EVALUATION
            points.append((SCORE, at, clock, scores[at // 100]))
            points.append((f"{SCORE}_se", at, clock, error))
    finite = [score for score in scores if math.isfinite(score)]
    return {
        "arm": arm, "points": points, "events": events or {}, "config_id": config,
        "status": status, "best": min(finite, default=math.nan), "updates": points[-1][1],
    }  # fmt: skip


def study(*trials: dict[str, Any], sign: int = 1, **design: Any) -> Study:
    """A loaded study of these trials."""
    counts: dict[str, int] = {}
    rows, points, events = [], [], []
    for made in trials:
        number = counts[made["arm"]] = counts.get(made["arm"], -1) + 1
        config = made["config_id"] or f"c{number:02d}"
        trial_id = f"{made['arm']}-{config}-{number}"
        rows.append(
            {
                "arm": made["arm"], "trial_id": trial_id, "config_id": config, "seed": number,
                "result_hash": trial_id, "status": made["status"], "reason": "",
                "discriminator_updates": made["updates"], f"best.{SCORE}": made["best"],
            }
        )  # fmt: skip
        points += [(trial_id, *point) for point in made["points"]]
        events += [(trial_id, kind, at, at) for kind, at in made["events"].items()]
    return Study(
        folder=Path("made-up"),
        results=Tables.of(
            trials=pd.DataFrame(rows),
            points=pd.DataFrame(
                points,
                columns=["trial_id", "name", "discriminator_updates", "wall_seconds", "value"],
            ),
            events=pd.DataFrame(events, columns=["trial_id", "kind", "onset", "detected"]),
        ),
        settings={
            "arms": {
                arm: {"space": {}, "budget": {"discriminator_updates": 500}} for arm in counts
            },
            "design": {"sampler": "random", "paired": True} | design,
        },
        provenance={}, protocol={}, reported_protocol={}, notes=[], primary=SCORE, sign=sign,
    )  # fmt: skip


def rule(of: Study, name: str) -> savings.Saving:
    data = savings.savings_data(of)
    assert data is not None
    return next(saving for saving in data.rules if saving.rule == name)


LEARNS = [100.0, 60, 40, 30, 25, 20]
WHOLE = 6 * EVALUATION + 10 * READ


def test_a_stop_pays_for_one_more_evaluation():
    (run,) = recorded_runs(study(trial("a", LEARNS)))
    assert run.seconds == WHOLE
    assert run.evaluation == EVALUATION
    # At 200 there was one anyway; at 250 there was none.
    assert run.spent(200) == 3 * EVALUATION + 4 * READ
    assert run.spent(250) == 3 * EVALUATION + 5 * READ + EVALUATION
    assert run.spent(None) == WHOLE


@pytest.mark.parametrize(
    ("scores", "from_evaluation"),
    [
        (LEARNS, None),
        ([100, 20, 20, 20, 20, 20], None),  # learned early, and kept it
        ([100, 20, 20, 60, 20, 20], None),  # came back
        ([100, 96, 92, 88, 84, 80], None),  # slow, gained in its second half
        ([100, 20, 19, 60, 60, 60], 1),  # fell; 19 is no gain of a tenth on 20
        ([100, 20, 17, 60, 60, 60], 2),
        ([100, 99, 98, 97, 96, 95], 0),  # never learned
        ([100, 70, 70, 70, 70, 70], 1),  # stuck at little
        ([100, 70, 70, 70, 70, 60], None),  # was stuck
        ([100, 20, math.nan, math.nan, math.nan, math.nan], 1),
        ([100, math.nan, 20, 20, 20, 20], None),
        ([math.nan] * 6, 0),
        ([math.nan, 20, 20, 20, 20, 20], None),
    ],
)
def test_never_recovering_is_told_by_the_scores_alone(scores, from_evaluation):
    (run,) = recorded_runs(study(trial("a", scores)))
    expected = None if from_evaluation is None else run.clock(100 * from_evaluation)
    assert run.lost_from() == expected
    # The same of a score of which more is better.
    inverted = trial("a", [1 / s for s in scores])
    (run,) = recorded_runs(study(inverted, sign=-1))
    assert run.lost_from() == expected


def test_what_counts_as_little_can_be_set():
    (run,) = recorded_runs(study(trial("a", [100, 70, 70, 70, 70, 70])))
    assert run.lost_from() is not None
    assert run.lost_from(little=0.9) is None


def test_a_fall_by_chance_is_none():
    scores = [100, 50, 2, 2, 2, 3.2]
    (sure,) = recorded_runs(study(trial("a", scores, error=0.2)))
    (noisy,) = recorded_runs(study(trial("a", scores, error=0.4)))
    assert sure.lost_from() is not None
    assert noisy.lost_from() is None


@pytest.mark.parametrize("sign", [1, -1])
def test_a_fall_that_stays_near_real_images_is_none(sign):
    scores = [s**sign for s in (100, 50, 2, 2, 2, 8)]

    def falls(floor: float) -> bool:
        loaded = study(trial("a", scores), sign=sign)
        protocol = {SCORE: {"floor": floor**sign}}
        (run,) = recorded_runs(replace(loaded, protocol=protocol))
        return run.lost_from() is not None

    assert falls(math.nan)
    assert falls(1.0)
    assert not falls(6.0)


def test_a_kernel_distance_below_zero_is_no_loss():
    (run,) = recorded_runs(study(trial("a", [1, 0.1, -0.001, 0.001, -0.001, 0.001], error=1e-3)))
    assert run.lost_from() is None


def test_a_long_run_is_not_judged_by_its_very_last_point():
    scores = [100.0] + [20.0] * 28 + [90.0]
    (run,) = recorded_runs(study(trial("a", scores)))
    assert run.lost_from() is None


def test_savings_worked_out_by_hand():
    fell = trial("a", [100, 20, 60, 60, 60, 60], {"quality_drop": 350})
    of = study(trial("a", LEARNS), fell)
    data = savings.savings_data(of)
    assert (data.n, data.lost, data.left_out) == (2, 1, 0)
    assert data.seconds == 2 * WHOLE
    assert data.savable == 8 * READ + 4 * EVALUATION
    found = rule(of, "quality_drop")
    saved = 3 * READ + 2 * EVALUATION - EVALUATION
    assert (found.stopped, found.lost, found.wrongly) == (1, 1, 0)
    assert found.seconds == saved
    assert found.share.value == pytest.approx(saved / (2 * WHOLE))
    assert found.share_of_savable.value == pytest.approx(saved / data.savable)
    assert not found.share.has_interval
    assert found.worse == found.discarded == []
    assert rule(of, "eager events")._replace(rule="quality_drop") == found


def test_stopping_before_the_loss_saves_no_more_than_the_savable():
    fell = trial("a", [100, 60, 20, 60, 60, 60], {"mode_collapse": 100})
    found = rule(study(fell), "mode_collapse")
    assert found.share_of_savable.value == 1
    assert found.seconds == 8 * READ + 4 * EVALUATION


def test_a_recovering_trial_that_is_stopped_counts_and_costs_its_arm():
    later_best = trial("a", [100, 70, 70, 30, 15, 10], {"mode_collapse": 200})
    of = study(later_best, trial("a", LEARNS), trial("b", [100, 60, 40, 30, 15, 15]))
    found = rule(of, "mode_collapse")
    assert (found.stopped, found.lost, found.wrongly) == (1, 0, 1)
    assert savings.savings_data(of).best == {"a": 10, "b": 15}
    assert found.best == {"a": 20, "b": 15}
    assert found.worse == found.discarded == ["a"]
    assert found.tau == -1
    assert not found.same_ranking
    assert "the best of 1 of 2 arms would have been worse" in savings.told(
        savings.savings_data(of)
    )


def test_the_best_checkpoint_outlives_a_stop_unless_stopped_means_failed():
    fell = trial("a", [100, 20, 10, 60, 60, 60], {"quality_drop": 500, "checkerboard": 300})
    found = rule(study(fell, trial("a", LEARNS)), "checkerboard")
    assert (found.worse, found.discarded) == ([], ["a"])
    # To stop at the very end is to stop nothing.
    assert rule(study(fell), "quality_drop").stopped == 0


def test_bests_of_several_seeds_are_medians_as_in_the_table():
    runs = [trial("a", [100, value, value], config="c00") for value in (10.0, 20.0, 90.0)]
    runs.append(trial("a", [100, 15, 15], config="default"))
    assert savings.savings_data(study(*runs)).best == {"a": 20}


def test_trials_that_were_stopped_are_left_out_and_told_of():
    stopped = trial("a", [100, 20], {"mode_collapse": 100}, status=TrialStatus.STOPPED)
    early = trial("a", [100, math.nan], {"divergence": 50}, status=TrialStatus.DIVERGED)
    late = trial("a", [100, 20, 20, 20, 20, math.nan], status=TrialStatus.DIVERGED)
    data = savings.savings_data(study(trial("a", LEARNS), stopped, early, late))
    assert (data.n, data.left_out, data.lost) == (2, 2, 1)
    assert "Another 2 trials ended before" in savings.told(data)
    assert [saving.rule for saving in data.rules] == ["ASHA", "median stopping"]


def test_a_run_that_ends_broken_has_no_best_with_or_without_a_rule():
    broken = trial(
        "a", [100, 5, 5, 5, 5, math.nan], {"mode_collapse": 200}, status=TrialStatus.DIVERGED
    )
    found = rule(study(broken, trial("a", LEARNS)), "mode_collapse")
    assert (found.best, found.worse, found.discarded) == ({"a": 20}, [], [])


def test_nothing_to_try():
    assert savings.savings_data(study(trial("a", [100.0]))) is None
    assert savings.savings_data(study(trial("a", [100.0, 20], status=TrialStatus.STOPPED))) is None


def test_an_adaptive_search_is_told_of():
    random, adaptive = (
        savings.savings_data(study(trial("a", LEARNS), sampler=sampler))
        for sampler in ("random", "tpe")
    )
    assert "adaptive" not in savings.told(random)
    assert "The search was adaptive" in savings.told(adaptive)


def test_a_recovery_is_no_failure():
    runs = recorded_runs(study(trial("a", LEARNS, {"recovery": 100, "oscillation": 300})))
    events = ["recommended events", "eager events", "oscillation"]
    assert list(stopping_rules(runs)) == [*events, "ASHA", "median stopping"]


def test_schedulers_read_what_detectors_read():
    probes = {0: 90.0, 50: 80.0, 100: 70.0}
    broken = {0: 90.0, 50: 80.0}  # a probe of a generator that is not finite has no score
    of = study(trial("a", LEARNS, probes=probes), trial("b", LEARNS, probes=broken),
               trial("a", LEARNS, probes=broken))  # fmt: skip
    by_arm = {run.trial_id: dict(run.reports) for run in recorded_runs(of)}
    assert by_arm["a-c00-0"] == {50: 80, 100: 70}
    assert by_arm["a-c01-1"] == {50: 80, 100: INF}
    assert by_arm["b-c00-0"] == {50: 80}
    (run,) = recorded_runs(study(trial("a", [5.0, 6, math.nan]), sign=-1))
    assert run.reports == {100: -6, 200: INF}


def random_study(rng: np.random.Generator) -> Study:
    trials = []
    for arm, _ in itertools.product("abc", range(24)):
        scores = (100 * rng.random(6)).tolist()
        kinds = rng.choice(["divergence", "mode_collapse", "checkerboard"], 2, replace=False)
        events = {str(k): int(50 * rng.integers(1, 11)) for k in kinds if rng.random() < 0.7}
        trials.append(trial(arm, scores, events))
    return study(*trials)


@pytest.mark.parametrize("seed", range(3))
def test_no_rule_makes_an_arm_better_or_saves_more_than_there_is(seed):
    of = random_study(np.random.default_rng(seed))
    data = savings.savings_data(of)
    for saving in data.rules:
        assert all(saving.best[arm] >= data.best[arm] for arm in data.best)
        assert saving.worse == [arm for arm in "abc" if saving.best[arm] > data.best[arm]]
        assert set(saving.worse) <= set(saving.discarded)
        assert saving.lost + saving.wrongly <= saving.stopped
        assert saving.seconds < data.seconds
        assert saving.share_of_savable.value <= 1
        if saving.share.has_interval:
            assert saving.share.low <= saving.share.value <= saving.share.high
        assert saving.same_ranking or saving.tau < 1
    assert any(saving.share.has_interval for saving in data.rules)


@pytest.mark.parametrize(
    ("n", "saved", "known"), [(19, 19, False), (30, 9, False), (30, 10, True)]
)
def test_a_share_of_few_runs_that_save_anything_has_no_interval(n, saved, known):
    """Of 8 runs of which a tenth saves anything the bootstrap covers 63 %."""
    parts = np.where(np.arange(n) < saved, 0.5, 0.0)
    [found] = savings._shares([parts], np.ones(n), [str(i) for i in range(n)])
    assert found.value == pytest.approx(0.5 * saved / n)
    assert found.has_interval == known


def test_more_kinds_stop_no_later():
    runs = recorded_runs(random_study(np.random.default_rng(9)))
    few, many = (
        FirstEvent(kinds)(runs) for kinds in (["divergence"], ["divergence", "checkerboard"])
    )
    assert all(b is not None and b <= a for a, b in zip(few, many, strict=True) if a is not None)
    assert sum(stop is not None for stop in many) > sum(stop is not None for stop in few)


def reported(seed: int, kind: str) -> list[list[float]]:
    """What 24 trials report 20 times: falling scores, some of them tied or not finite."""
    rng = np.random.default_rng(seed)
    scores = (
        rng.lognormal(size=(24, 1))
        * np.geomspace(100, 10, 20)
        * rng.lognormal(sigma=0.3, size=(24, 20))
    )
    if kind == "ties":
        scores = scores.round(-1)
    if kind == "failures":
        for row, at in zip(scores[::3], rng.integers(0, 20, size=8), strict=True):
            row[at:] = INF
    return scores.tolist()


class RayTrial(NamedTuple):
    """All that Ray's schedulers read of a trial."""

    trial_id: str


def ray_stops(scheduler: Any, reports: list[list[float]], side_by_side: bool) -> list[int | None]:
    """Feed Ray's scheduler as Tune does, trial after trial or all in turns."""
    trials = [RayTrial(str(i)) for i in range(len(reports))]
    stops: dict[int, int] = {}
    numbers, indices = range(1, len(reports[0]) + 1), range(len(reports))
    turns = itertools.product(numbers, indices) if side_by_side else (
        (number, index) for index, number in itertools.product(indices, numbers)
    )  # fmt: skip
    for each in trials:
        scheduler.on_trial_add(None, each)
    for number, index in turns:
        if index in stops:
            continue
        result = {"training_iteration": number, "score": reports[index][number - 1]}
        if number == len(reports[0]):
            scheduler.on_trial_complete(None, trials[index], result)
        elif scheduler.on_trial_result(None, trials[index], result) == "STOP":
            stops[index] = number
    return [stops.get(index) for index in indices]


def before_the_end(stops: list[int | None], reports: list[list[float]]) -> list[int | None]:
    return [None if stop == len(r) else stop for stop, r in zip(stops, reports, strict=True)]


CASES = pytest.mark.parametrize(
    ("seed", "kind", "side_by_side"),
    list(itertools.product(range(3), ("plain", "ties", "failures"), (False, True))),
)


@CASES
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # Ray's, where all have failed
@pytest.mark.parametrize("factor", [3, 4])
@pytest.mark.parametrize("grace", [1, 2])
def test_asha_is_rays(seed, kind, side_by_side, factor, grace):
    schedulers = pytest.importorskip("ray.tune.schedulers")
    reports = reported(seed, kind)
    theirs = ray_stops(
        schedulers.ASHAScheduler(
            time_attr="training_iteration", metric="score", mode="min", max_t=20,
            grace_period=grace, reduction_factor=factor,
        ),
        reports, side_by_side,
    )  # fmt: skip
    ours = before_the_end(asha(reports, grace, factor), reports)
    assert ours == theirs
    assert sum(stop is not None for stop in ours) > 8


@CASES
@pytest.mark.parametrize("grace", [1, 4])
def test_median_stopping_is_rays(seed, kind, side_by_side, grace):
    schedulers = pytest.importorskip("ray.tune.schedulers")
    reports = reported(seed, kind)
    rule = schedulers.MedianStoppingRule(
        time_attr="training_iteration", metric="score", mode="min", grace_period=grace,
        min_samples_required=3,
    )  # fmt: skip
    rule._on_insufficient_samples = lambda *given: "CONTINUE"  # it asks the controller who waits
    ours = before_the_end(median_stopping(reports, grace), reports)
    assert ours == ray_stops(rule, reports, side_by_side)
    assert sum(stop is not None for stop in ours) > 4


def test_the_figure_hatches_what_costs_an_arm_its_best():
    later_best = trial("a", [100, 70, 70, 30, 15, 10], {"mode_collapse": 200})
    of = study(later_best, trial("a", LEARNS, {"<b>odd": 400}))
    data = savings.savings_data(of)
    figure = savings.savings_figure(data)
    names = [saving.rule for saving in data.rules]
    hatched = dict(zip(names, figure.data[0].marker.pattern.shape, strict=True))
    assert hatched["mode_collapse"] == hatched["recommended events"] == "/"
    assert hatched["<b>odd"] == ""
    assert "<b>odd" in figure.data[0].y
    assert "best worse in 1 of 1 arms" in figure.layout.yaxis.ticktext[0]
    assert list(figure.data[0].x) == [saving.share.value for saving in data.rules]


def test_the_section_stands_in_the_report(synthetic):
    folder = synthetic({"a": [10.0, 20.0, 30.0, INF], "b": [11.0, 19.0, 33.0, 44.0]})
    page = render(Study.load(folder))
    assert '<section id="savings">' in page
    assert 'id="figure-savings"' in page
    assert "Of n = 7 trials that ran to the end of their budget" in page
    assert '<section id="savings">' not in render(Study.load(folder_without_rules(folder)))


def folder_without_rules(folder: Path) -> Path:
    """Take all evaluations but the first from a study."""
    points = load_results(folder).points
    points[points["discriminator_updates"] == 0].to_parquet(folder / "points.parquet")
    seal(folder / "points.parquet")
    return folder


def finished(settings: Mapping[str, Any], runs: Path) -> Study:
    """Run a study in this process."""
    spec, folder = parse_study(settings), StudyFolder(runs / "tiny")
    folder.create()
    run = Run(spec, folder, "nowhere")
    run.begin()
    prepare(spec, folder)
    for each in plan(spec):
        run_trial(each, folder.trial(each.trial_id))
    run.conclude(score=False)
    return Study.load(folder.folder)


def test_a_run_cut_short_is_the_run_that_was_stopped(tiny, tmp_path):
    tiny["arms"] = {"hot": {"loss": "wasserstein"}, "warm": {"loss": "non_saturating"}}
    tiny["space"] = {}
    tiny["arms"]["hot"]["optimizer"] = {"lr": 1e30}
    tiny["base"]["budget"] = {"discriminator_updates": 100}
    tiny["design"] = {"configs": 1}
    whole = finished(tiny | {"events": {"stop_on": []}}, tmp_path / "whole")
    stopped = finished(tiny | {"events": {"stop_on": ["divergence"]}}, tmp_path / "stopped")
    hot, warm = recorded_runs(whole)
    at = hot.detected["divergence"]
    (row,) = stopped.results.trials.query("arm == 'hot'").itertuples()
    assert row.discriminator_updates == at < 100
    assert row.status == TrialStatus.DIVERGED
    (left,) = recorded_runs(stopped)
    assert left.trial_id == warm.trial_id
    found = rule(whole, "divergence")
    assert (found.stopped, found.lost, found.wrongly, found.worse) == (1, 1, 0, [])
    assert found.seconds == pytest.approx(hot.seconds - hot.spent(at))
    assert hot.clock(at) <= hot.spent(at) < hot.seconds
    assert '<section id="savings">' in render(whole)
