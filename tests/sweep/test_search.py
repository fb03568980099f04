"""The adaptive search and what it is told, by the records that trials leave. No training."""

from __future__ import annotations

import inspect
import json
import math
import time
import warnings

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from typer.testing import CliRunner

from ganstudy.cli import app
from ganstudy.provenance import changed, provenance
from ganstudy.records import Event, Point, TrialRecord, TrialResult, TrialStatus
from ganstudy.store import StudyFolder
from ganstudy.study.spec import parse_study
from ganstudy.sweep.driver import Run
from ganstudy.sweep.search import (
    STARTUP,
    TPE_OPTIONS,
    ArmSearch,
    Outcome,
    TpeSearch,
    build_sampler,
    of_config,
)

PENALTIES = {"choice": [{"r1": {}}, {"gradient_penalty": {}}]}
WEIGHT = {"log_uniform": [0.1, 100], "when": {"regularizers": {"r1": {}}}}
PRIMARY = "kd_small_cnn_60"
COMPLETED, RUNNING = TrialStatus.COMPLETED, TrialStatus.RUNNING


@pytest.fixture
def folder(tmp_path) -> StudyFolder:
    made = StudyFolder(tmp_path / "study")
    made.create()
    made.write_plan([])
    return made


@pytest.fixture
def study(tiny):
    tiny["arms"] = {"a": {"loss": "hinge"}}
    tiny["design"] = {"sampler": "tpe", "configs": 30}
    return tiny


def end(
    search: TpeSearch, trial, scores, status=COMPLETED, *, stopped=None, failed=None, events=()
) -> None:
    """Leave the record of a trial that ended after these scores, and tell the search."""
    assert trial.primary.name == PRIMARY
    at = [20 * i for i in range(len(scores) + 1)]
    values = [99.0, *scores]
    points = [Point(PRIMARY, u, u, u, 0.0, v) for u, v in zip(at, values, strict=True)]
    finite = [(v, u) for v, u in zip(scores, at[1:], strict=True) if math.isfinite(v)]
    best_at = min(finite)[1] if finite else None
    result = TrialResult(status, discriminator_updates=at[-1], best_at=best_at)
    folder = search.folder.trial(trial.trial_id)
    folder.new_attempt().save(TrialRecord(result, points, list(events)), {})
    if stopped is not None:
        folder.stop(stopped)
    if failed is not None:
        folder.fail(failed)
    search.tell(trial)


def told(search: TpeSearch, arm: str = "a"):
    """What Optuna holds of an arm."""
    return search._arms[arm].study.trials


COLLAPSE = Event("mode_collapse", 20, 40, 1.0, {})


@pytest.mark.parametrize(
    ("scores", "how", "state", "value"),
    [
        ([3.0, 1.0, 2.0], {}, TrialState.COMPLETE, 1.0),
        ([3.0, 1.0], {"status": RUNNING, "stopped": "asha"}, TrialState.PRUNED, 1.0),
        ([1.0, 3.0], {"status": RUNNING, "stopped": "asha"}, TrialState.PRUNED, 3.0),
        ([3.0, math.nan], {"status": TrialStatus.DIVERGED}, TrialState.COMPLETE, math.inf),
        ([3.0, 1.0], {"events": [COLLAPSE]}, TrialState.COMPLETE, math.inf),
        ([3.0, 1.0], {"events": [COLLAPSE], "status": RUNNING, "stopped": "asha"},
         TrialState.COMPLETE, math.inf),
        # Stopped by an event: a failure by the comparison rule, so one for the search as well.
        ([3.0, 1.0], {"status": TrialStatus.STOPPED}, TrialState.COMPLETE, math.inf),
        ([3.0, 1.0], {"status": RUNNING, "failed": "out of memory"}, TrialState.FAIL, None),
        # Ended from outside before its first score, which says nothing about its config.
        ([], {"status": RUNNING, "stopped": "time_limit"}, TrialState.FAIL, None),
        ([3.0, 1.0], {"status": RUNNING}, TrialState.RUNNING, None),
    ],
)  # fmt: skip
def test_what_is_told_of_a_trial(study, folder, scores, how, state, value):
    spec = parse_study(study)
    search = TpeSearch(spec, folder, None)
    end(search, search.next(), scores, **how)
    (trial,) = told(search)
    assert (trial.state, trial.value) == (state, value)
    if state is TrialState.PRUNED:
        assert trial.intermediate_values == {20: scores[0], 40: scores[1]}
    # A search that goes on from the folder holds the same; who is still running is asked again.
    again = TpeSearch(spec, folder, None)
    (past,) = told(again)
    if state is TrialState.RUNNING:  # known as such, so that the next config keeps apart from it
        assert (past.state, past.params) == (state, trial.params)
        asked = again.next()
        assert (asked.trial_id, asked.params) == ("a-c00-s0", trial.params)
        end(again, asked, [1.0])
        (past,) = told(again)
        assert (past.state, past.value) == (COMPLETE, 1.0)
        return
    assert (past.state, past.params) == (trial.state, trial.params)
    assert past.intermediate_values == trial.intermediate_values
    assert past.value == trial.value or state is TrialState.PRUNED
    assert again.next().trial_id == "a-c01-s0"


@pytest.mark.parametrize(
    ("events", "value"), [([], 2.0), ([Event("checkerboard", 20, 40, 1.0, {})], math.inf)]
)
def test_a_trial_is_worth_what_the_comparison_rule_says(study, folder, events, value):
    study["judgement"] = {"checkpoint": "last", "failures": ["checkerboard"]}
    search = TpeSearch(parse_study(study), folder, None)
    end(search, search.next(), [3.0, 1.0, 2.0], events=events)
    assert [trial.value for trial in told(search)] == [value]


COMPLETE, PRUNED, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL
ONE, TWO = Outcome(COMPLETE, 1.0, {20: 3.0, 40: 1.0}), Outcome(COMPLETE, 2.0, {20: 5.0, 40: 2.0})
CUT = Outcome(PRUNED, reports={20: 7.0})
LOST = Outcome(COMPLETE, math.inf, {20: math.inf})


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [
        ([ONE, TWO], Outcome(COMPLETE, 1.5, {20: 4.0, 40: 1.5})),
        ([ONE, TWO, LOST], Outcome(COMPLETE, 2.0, {20: 5.0})),
        ([ONE, CUT], Outcome(PRUNED, reports={20: 5.0})),
        ([ONE, LOST], Outcome(COMPLETE, math.inf, {20: math.inf})),
        ([CUT, LOST], Outcome(COMPLETE, math.inf, {20: math.inf})),
        ([ONE, Outcome(FAIL)], ONE),
        ([Outcome(FAIL), Outcome(FAIL)], Outcome(FAIL)),
    ],
)
def test_seeds_of_a_config_are_told_as_one(seeds, expected):
    found = of_config(seeds)
    assert found.state is expected.state
    assert found.reports == expected.reports
    assert found.score == expected.score or math.isnan(found.score) is math.isnan(expected.score)


def test_a_config_is_told_once_all_its_seeds_have_ended(study, folder):
    study["design"]["seeds"] = [0, 1]
    search = TpeSearch(parse_study(study), folder, None)
    first, second = search.next(), search.next()
    assert first.params == second.params
    end(search, first, [1.0])
    assert told(search)[0].state is TrialState.RUNNING
    end(search, second, [3.0])
    assert told(search)[0].value == 2.0


def test_conditions_hold_in_what_is_asked_and_in_what_is_gone_on_with(study, folder):
    study["space"] = {"regularizers": PENALTIES, "regularizers.r1.weight": WEIGHT}
    spec = parse_study(study)
    search = TpeSearch(spec, folder, None)
    for _ in range(20):
        trial = search.next()
        r1 = "r1" in trial.params["regularizers"]
        assert ("regularizers.r1.weight" in trial.params) == r1
        # The best lies at a weight of about 10.
        score = abs(math.log10(trial.params["regularizers.r1.weight"]) - 1) if r1 else 5.0
        end(search, trial, [score])
    asked = [dict(t.params) for t in told(search)]
    again = TpeSearch(spec, folder, None)
    assert [dict(t.params) for t in told(again)] == asked
    late = [again.next() for _ in range(10)]
    assert {"r1" in t.params["regularizers"] for t in late} >= {True}


def test_the_search_goes_where_scores_are_good(study, folder):
    spec = parse_study(study)
    search = TpeSearch(spec, folder, None)
    rates = []
    while (trial := search.next()) is not None:
        rates.append(math.log10(trial.params["generator_optimizer.lr"]))
        end(search, trial, [abs(rates[-1] + 3)])
    assert len(rates) == 30
    late = [abs(rate + 3) for rate in rates[20:]]
    # Ten draws from [-4, -2] would lie 0.5 away on average, give or take 0.09.
    assert sum(late) / len(late) < 0.3


def test_arms_get_equal_budgets_and_a_new_arm_catches_up(tiny, folder):
    tiny["design"] = {"sampler": "tpe", "configs": 2}
    search = TpeSearch(parse_study(tiny), folder, None)
    names = []
    while (trial := search.next()) is not None:
        names.append(trial.trial_id)
        end(search, trial, [1.0])
    assert names == [
        "non_saturating-c00-s0", "wgan_gp-c00-s0", "non_saturating-c01-s0", "wgan_gp-c01-s0",
    ]  # fmt: skip
    tiny["arms"] = {"hinge": {"loss": "hinge"}} | tiny["arms"]
    tiny["design"]["configs"] = 3
    more = TpeSearch(parse_study(tiny), folder, None)
    assert len(more) == 5
    assert sorted(more.next().trial_id for _ in range(5)) == [
        "hinge-c00-s0", "hinge-c01-s0", "hinge-c02-s0", "non_saturating-c02-s0", "wgan_gp-c02-s0",
    ]  # fmt: skip
    assert more.next() is None


def test_planning_one_more_trial_takes_no_longer_late_than_early(study, folder):
    """The plan is written anew for each: that must not be felt in a search of thousands."""
    search = TpeSearch(parse_study(study), folder, None)
    row = search.next().identity()
    folder.write_plan([row] * 2000)
    begun = time.process_time()
    for _ in range(20):
        folder.append_plan([row])
    assert (time.process_time() - begun) / 20 < 0.05
    assert len(folder.read_plan()) == 2020


def test_every_option_of_the_sampler_is_written_out():
    """A library's new default must not change what a study draws."""
    known = set(inspect.signature(optuna.samplers.TPESampler.__init__).parameters)
    # Constraints are of no study; the seed is the study's.
    assert known - {"self", "seed", "constraints_func"} == set(TPE_OPTIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_sampler(0)


def test_the_options_that_optuna_will_fix_have_the_values_that_it_will_fix():
    own = ("multivariate", "group", "constant_liar", "n_startup_trials", "n_ei_candidates")
    plain = optuna.samplers.TPESampler(seed=5, **{name: TPE_OPTIONS[name] for name in own})
    draws = []
    for sampler in (build_sampler(5), plain):
        study = optuna.create_study(sampler=sampler)
        for _ in range(40):  # beyond 25, from where on old trials weigh less
            trial = study.ask()
            x, n = trial.suggest_float("x", 0, 1), trial.suggest_int("n", 1, 9)
            study.tell(trial, (x - 0.3) ** 2 + n)
        draws.append([trial.params for trial in study.trials])
    assert draws[0] == draws[1]


def spread(arm, seed: int, **options) -> float:
    """How far apart eight configs lie that are asked for at once, as their mean distance."""
    search = ArmSearch(arm, seed, 0, TPE_OPTIONS | options)
    for i in range(2 * STARTUP):
        rate = search.ask(str(i))["generator_optimizer.lr"]
        search.tell(str(i), {}, Outcome(COMPLETE, abs(math.log10(rate) + 3)))
    at_once = [search.ask(f"open-{i}")["generator_optimizer.lr"] for i in range(8)]
    rates = np.log10(at_once)
    return float(np.abs(rates[:, None] - rates).mean())


def test_configs_that_run_at_once_are_kept_apart(study):
    (arm,) = parse_study(study).arms
    apart = [spread(arm, s) > spread(arm, s, constant_liar=False) for s in range(10)]
    assert sum(apart) >= 8  # by chance in 1 of 18 tries; the seeds are fixed


def test_another_optuna_is_refused_where_it_chooses_what_is_tried(study, write_study, tmp_path):
    spec, runs = parse_study(study), tmp_path / "runs"
    begun = StudyFolder(runs / "tiny")
    begun.create()
    Run(spec, begun, f"sqlite:///{tmp_path}/mlflow.db").begin()
    origin = begun.read_json("provenance.json")
    assert origin["packages"]["optuna"] == optuna.__version__
    origin["packages"] |= {"optuna": "4.5.0", "ray": "2.59.0"}
    begun.write_json("provenance.json", origin)
    told = f"optuna 4.5.0 -> {optuna.__version__}, which chooses the configurations"
    resumed = ["resume", str(begun.folder)]
    extended = ["run", str(write_study(study)), "--runs", str(runs), "--extend"]
    for command in (resumed, extended):
        refused = CliRunner().invoke(app, [*command, "--in-process"])
        assert refused.exit_code == 2
        message = " ".join(refused.stderr.split())
        assert told in message
        assert "pip install optuna==4.5.0" in message
    assert "--force" in CliRunner().invoke(app, resumed).stderr
    # Where nothing is chosen by it, another version is none of the study's business.
    assert changed(origin) == []
    assert len(changed(origin, adaptive=True)) == 1
    assert "ray 2.59.0 -> " in changed(origin, pruned=True)[0]


def test_another_search_of_our_own_is_refused_too():
    then = json.loads(json.dumps(provenance()))
    assert changed(then, adaptive=True) == []
    assert changed(then | {"search_hash": "0" * 16}) == []
    (difference,) = changed(then | {"search_hash": "0" * 16}, adaptive=True)
    assert "ganstudy's own search" in difference
