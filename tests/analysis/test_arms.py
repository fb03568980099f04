"""The table of arms: which trials failed, and which numbers have an interval."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from analysis import answer, arms, failing
from analysis.page import Figure, walk
from analysis.tables import Study
from tests.analysis import seeded
from tests.analysis.conftest import SCORE
from tests.analysis.swept import arm_trials, events_of, study_of

ADAPTIVE = {
    "tpe": {"design": {"sampler": "tpe", "paired": False}},
    "sobol": {"design": {"sampler": "sobol", "paired": True}},
    "grid": {"design": {"sampler": "grid", "paired": True}},
    "asha": {"stopping": {"asha": {"grace": 0.25}}},
}


def noise(u, rng):
    return np.exp(rng.normal(size=len(u)))


def four_fail(u, rng):
    return np.where(np.arange(len(u)) < 4, np.inf, noise(u, rng))


def told(study: Study) -> tuple[str, str, int]:
    """Return how many failed by the answer, by the table of arms, and by the rates."""
    found = arms.summarize_study(study)
    cell = dict(zip(found.columns, found.rows[0], strict=True))["failed"]
    rates = failing.rate_data(study, {arm: study.counted(arm) for arm in study.arms})
    ended = rates[(rates["what"] == "ended") & (rates["kind"] == "any")]
    return answer.failures(study), cell, int(ended["count"].iloc[0])


def kinds(study: Study) -> dict[str, int]:
    rates = failing.rate_data(study, {arm: study.counted(arm) for arm in study.arms})
    ended = rates[rates["what"] == "ended"]
    return dict(zip(ended["kind"], ended["count"], strict=True))


def test_a_trial_without_a_finite_score_failed_wherever_failures_are_told(synthetic):
    trials = arm_trials("a", 20, noise)
    trials.loc[:9, f"best.{SCORE}"] = math.nan
    study = study_of(synthetic, {"a": trials})
    sentence, cell, ended = told(study)
    assert sentence.startswith("10 of 20 trials failed")
    assert cell.startswith("10 of 20 [")
    assert ended == 10
    assert kinds(study) == {"any": 10, "no finite score": 10}


def test_a_trial_judged_failed_by_an_event_that_lasted_failed_in_every_table(synthetic):
    trials = arm_trials("a", 20, noise)
    trials.loc[0, "status"] = "diverged"
    trials.loc[1, ["status", "reason"]] = ["stopped", "mode_collapse"]
    lasted = events_of(trials.iloc[:5], "mode_collapse")
    over = events_of(trials.iloc[5:9], "mode_collapse").assign(ended=5)
    judged = {"judgement": {"failures": ["mode_collapse"]}}
    study = study_of(synthetic, {"a": trials}, [lasted, over], **judged)
    sentence, cell, ended = told(study)
    assert sentence.startswith("5 of 20 trials failed")
    assert cell.startswith("5 of 20 [")
    assert ended == 5
    found = {"any": 5, "diverged": 1, "stopped: mode_collapse": 1}
    assert kinds(study) == found | {"judged failed: mode_collapse lasted": 3}
    assert (
        "while an event of these kinds lasted: mode_collapse"
        in arms.section(study).parts[0].reading
    )


@pytest.mark.parametrize("design", ADAPTIVE)
def test_draws_that_are_not_independent_have_no_interval(synthetic, design):
    trials = arm_trials("a", 30, four_fail)
    events = [events_of(trials[trials["status"] == "diverged"], "mode_collapse")]
    study = study_of(
        synthetic, {"a": trials, "b": trials.assign(arm="b")}, events, **ADAPTIVE[design]
    )
    found = arms.summarize_study(study)
    row = dict(zip(found.columns, found.rows[0], strict=True))
    assert all(row[name].endswith("[none]") for name in ("failed", "collapsed", "median"))
    numbers = arms.arm_rows(study)
    assert numbers[["failed_low", "failed_high", "median_low", "median_high"]].isna().all().all()
    assert numbers["failed"].iloc[0] > 0
    section = failing.section(study)
    figures = {part.key: part for part in walk([section]) if isinstance(part, Figure)}
    assert figures["failure-rates-drawn"].data[["low", "high"]].isna().all().all()
    assert figures["survival-collapse"].data[["low", "high"]].isna().all().all()
    text = " ".join(part for part in walk([section]) if isinstance(part, str))
    assert "no independent draws" in text
    assert "Arms are not tested for how long they last" in text


def test_independent_draws_keep_their_interval(synthetic):
    study = study_of(synthetic, {"a": arm_trials("a", 30, noise)})
    assert arms.arm_rows(study).notna().all().all()


def test_seeds_of_one_configuration_are_no_more_draws_of_it():
    scores = np.repeat(np.arange(1.0, 11.0)[:, None], 3, axis=1)
    scores[:4] = math.inf
    study = seeded.study_of({"a": seeded.trials("a", scores)})
    _, cell, _ = told(study)
    assert cell == "12 of 30 [none]"
    rows = arms.arm_rows(study)
    assert rows["failed"].iloc[0] == 0.4
    assert rows[["failed_low", "failed_high"]].isna().all().all()
    assert rows["median_low"].notna().all()  # of ten configurations
    both = {"a": seeded.trials("a", scores), "b": seeded.trials("b", np.ones((10, 3)))}
    assert answer.failures(seeded.study_of(both)).endswith("most in a (40%), fewest in b (0%).")


def test_seeds_of_a_repeated_configuration_are_draws_of_their_own():
    study = seeded.replicate({"a": seeded.trials("a", np.array([[1.0] * 9 + [math.inf]]))})
    assert arms.arm_rows(study)["failed_high"].iloc[0] == pytest.approx(0.445, abs=1e-3)


def test_a_failure_is_plus_infinity_for_other_programs_whichever_way_is_better():
    study = seeded.study_of({"a": seeded.trials("a", np.full((8, 1), math.inf))}, sign=-1)
    rows = arms.arm_rows(study)
    assert rows["median"].tolist() == rows["best"].tolist() == [math.inf]
    mixed = pd.DataFrame({"arm": ["a"], "low": [-math.inf], "n": [3]})
    assert arms.failures_positive(mixed)["low"].tolist() == [math.inf]
