from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis import sceptic
from analysis.answer import answer, warnings
from analysis.ranking import judged_k
from analysis.report import render
from analysis.tables import Study, Tables
from analysis.verdict import comparisons
from ganstudy.records import judgement_hash
from ganstudy.storage import write_json
from tests.analysis.conftest import SCORE

INF = math.inf
RULE = {"primary": SCORE, "minimize": True, "k": 2, "margin": 0.1, "checkpoint": "best",
        "failures": []}  # fmt: skip
JUDGEMENT = {"k": 2, "margin": 0.1, "checkpoint": "best", "failures": []}


def lognormal(n: int, seed: int, factor: float = 1.0) -> list[float]:
    return [float(v) for v in factor * np.random.default_rng(seed).lognormal(3, 0.7, n)]


def fixed(folder, rule) -> None:
    path = folder / "provenance.json"
    made = json.loads(path.read_text())
    said = {"fixed_at": "2026-01-01T00:00:00+00:00", "hash": judgement_hash(rule), "rule": rule}
    write_json(path, made | {"judgement": said})


def test_what_was_fixed_is_told_and_a_change_is_seen(synthetic):
    folder = synthetic({"a": [1.0, 2.0], "b": [2.0, 3.0]}, judgement=JUDGEMENT)
    assert sceptic.unchanged(Study.load(folder)) is None
    assert "could have been chosen after looking" in render(Study.load(folder))
    fixed(folder, RULE)
    assert sceptic.unchanged(Study.load(folder)) is True
    assert judgement_hash(RULE) in render(Study.load(folder))
    fixed(folder, RULE | {"margin": 0.5})
    study = Study.load(folder)
    assert sceptic.unchanged(study) is False
    assert any("changed after its first trial" in sentence for sentence in warnings(study))


def controlled(synthetic, again: list[float], broken: list[float]) -> Study:
    said = {"same": {"arm": "a", "again": "a_again"}, "broken": {"arm": "a", "broken": "a_broken"}}
    arms = {"a": lognormal(16, 0), "b": lognormal(16, 1), "a_again": again, "a_broken": broken}
    return Study.load(synthetic(arms, controls=said))


def test_controls_that_come_out_as_they_must(synthetic):
    study = controlled(synthetic, lognormal(16, 2), [1000.0] * 16)
    same, broken = sceptic.control_outcomes(study)
    assert sceptic.passed(same)
    assert sceptic.passed(broken)
    assert (broken.wins, broken.losses) == (16, 0)
    told = " ".join(answer(study))
    assert "a run twice is not told apart" in told
    assert "broken on purpose is seen to lose" in told


def test_controls_that_do_not_are_told_in_the_first_lines(synthetic):
    better = [v / 10 for v in lognormal(16, 0)]
    study = controlled(synthetic, better, lognormal(16, 3))
    assert not any(map(sceptic.passed, sceptic.control_outcomes(study)))
    told = " ".join(answer(study))
    assert "noise alone makes differences" in told
    assert "too small" in told


def test_a_broken_arm_that_wins_has_not_passed(synthetic):
    study = controlled(synthetic, lognormal(16, 2), [v / 10 for v in lognormal(16, 0)])
    assert not sceptic.passed(sceptic.control_outcomes(study)[1])


def test_controls_enter_no_comparison_of_arms(synthetic):
    study = controlled(synthetic, lognormal(16, 2), [1000.0] * 16)
    assert [(c.first, c.second) for c in comparisons(study)] == [("a", "b")]


def test_a_lead_is_held_against_what_shuffled_labels_give(synthetic):
    same = Study.load(synthetic({f"arm{i}": lognormal(50, i) for i in range(4)}))
    lead = sceptic.lead_data(same)
    assert lead.k == 9
    assert lead.p > 0.05
    assert 1 < lead.null_median < lead.null_high


def test_a_planted_lead_stands_out(synthetic):
    arms = {f"arm{i}": lognormal(50, i, 0.2 if i == 3 else 1) for i in range(4)}
    lead = sceptic.lead_data(Study.load(synthetic(arms)))
    assert lead.first == "arm3"
    assert lead.p < 0.01


def test_shuffled_labels_lead_as_much_as_the_data_in_one_of_twenty(synthetic):
    """Without a difference p is below 0.05 in 5 % of studies: of 60, at most 8 (1 in 1,000)."""
    below = 0
    for seed in range(60):
        arms = {name: lognormal(12, 10 * seed + i) for i, name in enumerate("abc")}
        study = Study.load(synthetic(arms)) if seed == 0 else _with(study, arms)  # noqa: F821
        below += sceptic.lead_data(study).p <= 0.05
    assert below <= 8


def _with(study: Study, arms) -> Study:
    from dataclasses import replace

    from analysis.tables import Tables

    trials = study.results.trials.copy()
    for arm, scores in arms.items():
        trials.loc[trials["arm"] == arm, f"best.{SCORE}"] = scores
    return replace(study, results=Tables.of(trials))


@pytest.mark.parametrize(
    "arms",
    [{"a": [1.0, 2.0]}, {"a": [INF] * 3, "b": [INF] * 3}, {"a": [1.0, 2.0], "b": []},
     {"a": [-1.0, 2.0], "b": [1.0, 2.0]}],
)  # fmt: skip
def test_no_lead_where_there_is_none_to_speak_of(synthetic, arms):
    assert sceptic.lead_data(Study.load(synthetic(arms))) is None


def test_every_way_of_judging_ranks_every_arm(synthetic):
    arms = {"a": lognormal(8, 0), "b": [*lognormal(7, 1), INF]}
    study = Study.load(synthetic(arms, judgement=JUDGEMENT))
    rows = sceptic.specification_rows(study)
    assert set(rows["checkpoint"]) == {"best", "last"}
    assert set(rows["failures"]) == {"as judged", "any lasting event fails"}
    assert set(rows["k"]) == {1, 2, 4, 8}
    assert rows["judged"].sum() == 2
    by_spec = rows.groupby("specification")
    assert (by_spec["rank"].min() == 1).all()
    best = rows.loc[rows.groupby("specification")["median"].idxmin()]
    assert (best["rank"] == 1).all()


def test_arms_that_all_fail_share_the_last_rank(synthetic):
    study = Study.load(synthetic({"a": [1.0], "b": [INF], "c": [INF]}))
    rows = sceptic.specification_rows(study)
    assert rows.groupby("arm")["rank"].unique().map(list).to_dict() == {
        "a": [1],
        "b": [2],
        "c": [2],
    }


def test_the_narrow_space_is_read_out_of_the_wide_trials(synthetic):
    folder = synthetic({"a": [float(i) for i in range(1, 9)]})
    study = Study.load(folder)
    arm = study.settings["arms"]["a"]
    arm["narrow"] = {"generator_optimizer.lr": {"uniform": [0.25, 0.55]}}
    narrow = sceptic.narrowed(study)
    assert narrow.unit_scores("a").tolist() == [3, 4, 5]  # lr 0.3, 0.4, 0.5
    assert study.unit_scores("a").size == 8
    assert "out of the wide trials" in render(study)
    assert sceptic.narrowed(Study.load(folder)) is None


def test_an_adaptive_study_has_a_page_without_claims(synthetic):
    study = Study.load(synthetic({"a": [1.0, 2.0], "b": [2.0, 3.0]}, design={"sampler": "tpe"}))
    assert sceptic.control_outcomes(study) == []
    assert sceptic.lead_data(study) is None
    assert sceptic.specification_rows(study).empty
    assert "sceptic" in render(study)


def test_a_k_that_no_arm_has_reached_yet_is_clamped_and_said(synthetic):
    """While a study runs its arms have fewer configurations than it was planned for."""
    said = JUDGEMENT | {"k": 6}
    folder = synthetic({"a": [1.0, 2.0, 3.0, 4.0], "b": [2.0, 3.0, 5.0]}, judgement=said)
    study = Study.load(folder)
    assert judged_k(study) == 3
    assert "compared at k = 3" in render(study)


def test_controls_are_judged_by_no_judge(synthetic):
    said = {"broken": {"arm": "a", "broken": "a_broken"}}
    study = Study.load(synthetic({"a": [1.0], "b": [2.0], "a_broken": [9.0]}, controls=said))
    rows = [
        {"arm": arm, "trial_id": arm, "name": name, "value": value, "standard_error": math.nan,
         "discriminator_updates": 1, "split": "report", "n_generated": 9, "n_real": 9,
         "floor": 0.0}
        for name in (SCORE, "kd_lite0_1k")
        for arm, value in (("a", 1.0), ("b", 2.0), ("a_broken", 9.0))
    ]  # fmt: skip
    tables = Tables.of(study.results.trials, reported=pd.DataFrame(rows))
    (table,) = sceptic._judge(replace(study, results=tables)).parts
    assert table.data["arms"].tolist() == [2]
    assert table.data["rho"].isna().all()


def test_ratios_stand_where_higher_is_better_too(synthetic):
    """Scores told as 1/x of the others: leads and equivalence are the same."""
    arms = {"a": lognormal(24, 0), "b": lognormal(24, 1)}
    lower = Study.load(synthetic(arms))
    inverse = {arm: [1 / v for v in scores] for arm, scores in arms.items()}
    higher = replace(Study.load(synthetic(inverse, at="higher")), sign=-1)
    one, other = sceptic.lead_data(lower), sceptic.lead_data(higher)
    assert one.first == other.first
    assert other.ratio == pytest.approx(one.ratio)
    assert [s for s in answer(higher) if "equivalent" in s]


def test_no_shuffles_where_draws_are_not_independent(synthetic):
    design = {"sampler": "sobol", "paired": True}
    study = Study.load(synthetic({"a": lognormal(8, 0), "b": lognormal(8, 1)}, design=design))
    assert sceptic.lead_data(study) is None
    assert "This cannot be told here" in render(study)
