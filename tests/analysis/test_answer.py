"""The answer and the table of arms speak of one quantity, and name the same arm first."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pandas as pd
import pytest

from analysis.answer import answer, failures, leaders
from analysis.arms import arm_rows, section, summarize_study
from analysis.ranking import compared_k, rank_arms
from analysis.tables import Study, Tables
from tests.analysis import seeded
from tests.analysis.conftest import SCORE
from tests.analysis.swept import arm_trials

INF = math.inf
# As a quickstart: three kinds of best, of as many arms.
QUICKSTART = {
    "non_saturating": [60.0, 300.0, 1605.0, INF],
    "wgan_clip": [900.0, 950.0, 990.0, 1000.0],
    "wgan_gp": [92.6, 800.0, 900.0, INF],
    "hinge_sn": [113.6, 120.0, 130.0, INF],
}


def named_first(study: Study) -> list[str]:
    """Return the arms that the answer puts first; none where it puts no arm first."""
    sentence = leaders(study)
    if level := re.search(r"order\) (.*?) share the first place", sentence):
        return re.split(", | and ", level[1])
    first = re.search(r"order\) (\S+) .*? is first", sentence)
    return [first[1]] if first else []


def random_arms(rng: np.random.Generator) -> dict[str, list[float]]:
    """Return arms with unequal n, ties, failures, and at times all failed."""
    arms = {}
    for index in range(rng.integers(2, 6)):
        scores = rng.integers(1, 6, rng.integers(1, 8)).astype(float)
        scores[rng.random(len(scores)) < rng.choice([0, 0.4, 1.0], p=[0.5, 0.4, 0.1])] = INF
        arms[f"arm{index}"] = scores.tolist()
    return arms


def study_of(base: Study, arms: dict[str, list[float]], **settings) -> Study:
    """Return a study of these scores with the settings of another."""
    trials = [
        arm_trials(arm, len(scores), lambda u, _, scores=scores: np.array(scores))
        for arm, scores in arms.items()
    ]
    resolved = base.settings | {"arms": {arm: {"space": {}} for arm in arms}} | settings
    tables = Tables.of(pd.concat(trials, ignore_index=True))
    return dataclasses.replace(base, results=tables, settings=resolved)


@pytest.mark.parametrize("paired", [True, False])
def test_the_answers_best_is_the_tables_first_row(synthetic, paired):
    base = Study.load(synthetic({"a": [1.0]}, design={"sampler": "random", "paired": paired}))
    told = 0
    for seed in range(25):
        rng = np.random.default_rng([seed, paired])
        arms, said = random_arms(rng), {}
        if seed % 2:
            said["judgement"] = {"k": int(rng.integers(1, 5))}
        if seed % 3 == 0:
            arms["copy"] = [0.5] * 4  # better than all, and yet no contender
            said["controls"] = {"same": {"arm": "arm0", "again": "copy"}}
        study = study_of(base, arms, **said)
        rows, first = arm_rows(study), named_first(study)
        contenders = rows[rows["arm"] != "copy"]
        best = contenders["best_of_k"].tolist()
        assert best == sorted(best), seed
        assert summarize_study(study).rows[0][0] == rows["arm"].iloc[0]
        if "copy" in arms:
            assert rows["arm"].iloc[-1] == "copy"
        level = contenders.loc[contenders["best_of_k"] == best[0], "arm"].tolist()
        if math.isinf(best[0]):
            assert first == []
            assert "fail" in leaders(study)
        else:
            assert first == level, seed
            told += 1
    assert told > 12


def test_the_quantity_is_that_of_the_comparison_rule(synthetic):
    """By the median an arm that the best single score would not put first."""
    study = Study.load(synthetic(QUICKSTART))
    assert compared_k(study) == 1
    assert [one.arm for one in rank_arms(study)][0] == "hinge_sn"
    assert named_first(study) == ["hinge_sn"] == [summarize_study(study).rows[0][0]]
    sentence = leaders(study)
    assert f"median {SCORE} over configurations" in sentence
    assert "best single configuration of all is non_saturating's (60)" in sentence
    assert "as the answer compares them" in section(study).parts[0].reading


def test_a_budget_of_k_has_its_own_column_and_its_own_order(synthetic):
    study = Study.load(synthetic(QUICKSTART, judgement={"k": 3}))
    found = summarize_study(study)
    assert "best of 3" in found.columns
    assert named_first(study) == ["non_saturating"] == [found.rows[0][0]]
    cell = dict(zip(found.columns, found.rows[0], strict=True))["best of 3"]
    assert cell == "60 [none]"
    assert "non_saturating 60," in leaders(study).replace(" is first", ",")


def test_the_checkpoint_and_the_failures_are_those_of_the_rule(synthetic):
    """Scores fall until the last checkpoint, which is the best here; an event may be a failure."""
    last = Study.load(synthetic(QUICKSTART, judgement={"checkpoint": "last"}))
    assert named_first(last) == ["hinge_sn"]
    judged = {"failures": ["mode_collapse"]}
    study = Study.load(synthetic(QUICKSTART, at="events", judgement=judged))
    hurt = study.results.trials[study.results.trials["arm"] == "hinge_sn"]
    events = pd.DataFrame(
        {"trial_id": hurt["trial_id"], "kind": "mode_collapse", "onset": 10, "detected": 10,
         "ended": math.nan, "severity": 1.0, "evidence": "{}"}
    )  # fmt: skip
    tables = Tables.of(study.results.trials, events=events)
    study = dataclasses.replace(study, results=tables)
    assert named_first(study) == ["wgan_gp"] == [summarize_study(study).rows[0][0]]


def test_fewest_failures_are_no_praise_of_bad_scores(synthetic):
    said = failures(Study.load(synthetic(QUICKSTART)))
    assert "fewest in wgan_clip (0%" in said
    assert "intervals overlap" in said
    assert "by median fd_small_cnn_1k over configurations wgan_clip is 4 of 4" in said


def test_all_arms_with_as_few_failures_are_named(synthetic):
    study = Study.load(synthetic({"a": [1.0, 2.0], "b": [3.0, 4.0], "c": [5.0, INF]}))
    assert "most in c (50%" in failures(study)
    assert "fewest in a and b (0%" in failures(study)
    assert "b is 2 of 3" in failures(study)
    assert "a is" not in failures(study)


def test_a_winner_of_most_pairs_that_is_behind_at_k_is_explained(synthetic):
    """One arm wins 14 of 16 configurations, the other has by far the best two."""
    wide = [float(i) for i in range(10, 26)]
    lucky = [0.1, 0.2, *(score + 1 for score in wide[2:])]
    study = Study.load(synthetic({"lucky": lucky, "steady": wide}, judgement={"k": 8}))
    told = " ".join(answer(study))
    assert "steady scored better than lucky in 14 of 16 pairs" in told
    assert named_first(study) == ["lucky"]
    assert "lucky stands before steady although steady wins more pairs" in told


def test_a_lead_that_no_test_shows_is_said_to_be_none(synthetic):
    scores = [float(i) for i in range(1, 13)]
    swapped = [scores[i + 1 - 2 * (i % 2)] for i in range(12)]
    arms = {"a": scores, "b": swapped, "bad": [100 * v for v in scores]}
    told = " ".join(answer(Study.load(synthetic(arms, judgement={"k": 1}))))
    assert "This study shows that a scored better than bad" in told
    assert "a and b share the first place at 6.5" in told
    arms["b"] = [score + 0.1 for score in swapped]
    told = " ".join(answer(Study.load(synthetic(arms, at="near", judgement={"k": 1}))))
    assert "a 6.5" in told
    assert "Between a and b the tests show no difference" in told


def test_seeds_are_ordered_by_their_median():
    study = seeded.replicate(
        {"a": seeded.trials("a", np.array([[9.0, 8.0, 1.0]])),
         "b": seeded.trials("b", np.array([[5.0, 6.0, 7.0]]))}
    )  # fmt: skip
    assert named_first(study) == ["b"] == [summarize_study(study).rows[0][0]]
    assert "over seeds" in leaders(study)
    assert "best single seed of all is a's (1)" in leaders(study)


def test_a_higher_score_is_better(synthetic):
    study = dataclasses.replace(Study.load(synthetic({"a": [1.0] * 4, "b": [2.0] * 4})), sign=-1)
    assert named_first(study) == ["b"] == [summarize_study(study).rows[0][0]]
    assert "b 2 is first, then a 1" in leaders(study)


def test_an_adaptive_search_puts_no_arm_first(synthetic):
    study = Study.load(synthetic(QUICKSTART, design={"sampler": "tpe", "paired": False}))
    assert leaders(study) == ""
    assert [row[0] for row in summarize_study(study).rows] == list(QUICKSTART)
    assert "in the order of the study" in section(study).parts[0].reading
    assert "4 of 4" not in failures(study)


def test_arms_without_trials_come_last_and_stop_no_answer(synthetic):
    study = Study.load(synthetic({"none": [], "a": [2.0], "b": [1.0]}))
    assert [row[0] for row in summarize_study(study).rows] == ["b", "a", "none"]
    assert named_first(study) == ["b"]
