from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.answer import answer
from analysis.budget import budget_curve_data
from analysis.distribution import score_distribution_data
from analysis.report import render, summarize, write_report
from analysis.samples import sample_picks
from analysis.style import common_extent, log_ticks
from analysis.tables import Study
from analysis.training import training_curves_data
from analysis.verdict import comparisons, verdict
from ganstudy.records import TrialStatus
from ganstudy.storage import write_json
from ganstudy.store import StudyFolder

INF = math.inf
FOUR = {"a": [10.0, 20.0, 30.0, INF], "b": [11.0, 19.0, 33.0, 44.0]}


def test_four_configs_cannot_tell(synthetic):
    text = verdict(Study.load(synthetic(FOUR)))
    assert text.startswith("This study cannot tell its 2 arms apart: with 4 configurations an arm")
    assert "p = 0.12" in text


def test_a_planted_difference_is_told_with_its_pairs(synthetic):
    better = [float(i) for i in range(1, 13)]
    text = verdict(Study.load(synthetic({"good": better, "bad": [v + 0.5 for v in better]})))
    assert text.startswith("This study shows that good scored better than bad in 12 of 12 pairs")


def test_no_difference_is_no_proof_of_equality(synthetic):
    a = [float(i) for i in range(12)]
    b = [v + (0.5 if i % 2 else -0.5) for i, v in enumerate(a)]
    text = verdict(Study.load(synthetic({"a": a, "b": b})))
    assert "cannot tell" in text
    assert "no proof that they are equal" in text


def test_one_arm_and_adaptive_designs_claim_nothing(synthetic, tmp_path):
    assert "compares nothing" in verdict(Study.load(synthetic({"a": [1.0, 2.0]})))
    shutil.rmtree(tmp_path / "study")
    adaptive = synthetic(FOUR, design={"sampler": "tpe", "paired": True})
    assert "searched adaptively" in verdict(Study.load(adaptive))
    assert budget_curve_data(Study.load(adaptive)) == []


def test_trials_that_a_rule_stopped_are_neither_failures_nor_results(synthetic):
    folder = synthetic({"a": [1.0, 2.0, 3.0]}, stopping={"asha": {"grace": 0.25}})
    unfinished(folder, "a-c02-s0", stopped="asha")
    study = Study.load(folder)
    assert "stopped trials by asha" in verdict(study)
    assert budget_curve_data(study) == []
    assert study.unit_scores("a").tolist() == [1.0, 2.0]
    rows = summarize(folder).rows
    assert "1 stopped by asha" in " ".join(rows[0])


def unfinished(folder: Path, trial_id: str, stopped: str) -> None:
    """Rewrite a trial as one that a scheduler stopped."""
    trial = StudyFolder(folder).trial(trial_id)
    attempt, record = trial.latest()
    result = replace(record.result, status=TrialStatus.RUNNING)
    attempt.save(replace(record, result=result), {})
    trial.stop(stopped)
    StudyFolder(folder).compact()


def test_failures_are_plus_infinity_in_every_figure(synthetic):
    study = Study.load(synthetic(FOUR))
    rows = score_distribution_data(study).rows
    assert rows.loc[rows["arm"] == "a", "score"].tolist() == [10.0, 20.0, 30.0, INF]
    (a, b) = budget_curve_data(study)
    assert a.median == [25.0, 15.0, 10.0, 10.0]
    assert b.median == [26.0, 15.0, 11.0, 11.0]
    assert a.largest_k == 0
    assert a.low == [None] * 4
    assert a.all_fail == [0.25, 0, 0, 0]
    assert a.expected == pytest.approx([20.0, (10 * 3 + 20 * 2 + 30) / 6, 12.5, 10.0])
    curves = training_curves_data(study, "a")  # best first
    assert [curve.role for curve in curves] == ["best", "median", "", "failed"]
    assert math.isnan(curves[3].scores[-1])
    assert curves[3].events == [("divergence", 50, 400.0)]


def test_intervals_stand_where_they_exist(synthetic):
    study = Study.load(synthetic({"a": [float(i) for i in range(1, 17)]}))
    (curve,) = budget_curve_data(study)
    assert curve.largest_k == 3
    assert [low is not None for low in curve.low] == [True] * 3 + [False] * 13
    assert curve.low[0] < curve.median[0] < curve.high[0]


def test_samples_show_best_median_and_failed(synthetic):
    study = Study.load(synthetic(FOUR))
    picks = sample_picks(study, "a")
    assert [(p.why, p.trial_id) for p in picks] == [
        ("best", "a-c00-s0"),
        ("lower median", "a-c01-s0"),
        ("failed", "a-c03-s0"),
    ]


def test_the_table_of_arms_holds_n_failures_and_intervals(synthetic):
    found = summarize(synthetic(FOUR))
    rows = {row[0]: dict(zip(found.columns, row, strict=True)) for row in found.rows}
    assert rows["a"]["failed"] == "1 of 4 [1%, 81%]"
    assert rows["b"]["failed"] == "0 of 4 [0%, 60%]"
    assert rows["a"]["median"] == "25 [none]"
    assert rows["b"]["best"] == "11"


def test_the_page_is_repeatable_offline_and_escaped(synthetic):
    folder = synthetic(FOUR)
    page = render(Study.load(folder))
    assert page == render(Study.load(folder))
    body = page[page.index("<body>") :]
    assert "Is &lt;b&gt;it&lt;/b&gt; escaped?" in body
    assert "<script>alert(1)" not in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page[: page.index("<script>")] + body)
    assert "default-src 'none'" in page


def test_a_study_without_any_trial_yet_has_a_page(synthetic):
    page = render(Study.load(synthetic({"a": [], "b": []})))
    assert "No trial of this study has ended yet" in page


def test_a_read_only_study_can_be_reported_elsewhere(synthetic, tmp_path):
    folder = synthetic(FOUR)
    before = sorted(p.name for p in folder.iterdir())
    write_report(folder, tmp_path / "out" / "report.html")
    assert sorted(p.name for p in folder.iterdir()) == before


def test_repeated_configs_are_compared_over_seeds(synthetic):
    # The arms' best configs are c01 and c00; other configs, however good, are not looked at.
    chosen = {"a": {"c01": {}, "c00": {}}, "b": {"c00": {}}}
    folder = synthetic(
        {"a": [1.0, 8.0], "b": [7.0]},
        design={"sampler": "replicate", "paired": True},
        replicate={"from": "elsewhere", "configs": chosen},
    )
    study = Study.load(folder)
    assert study.unit_scores("a").to_dict() == {0: 8.0}
    assert study.unit == "seed"
    (pair,) = comparisons(study)
    assert (pair.wins, pair.losses, pair.pairs) == (0, 1, 1)
    assert budget_curve_data(study) == []
    summary = summarize(folder)
    assert summary.columns[1] == "seeds"
    assert "with 1 seed an arm" in summary.verdict
    assert "Median and best over seeds" in render(study)


def test_notes_stand_in_the_report(synthetic):
    folder = synthetic({"a": [1.0, 2.0]})
    protocol = json.loads((folder / "protocol.json").read_text())
    note = "vae: vae has no discriminator: its budget <is> counted"
    write_json(folder / "protocol.json", protocol | {"notes": [note]})
    assert "its budget &lt;is&gt; counted" in render(Study.load(folder))


@pytest.mark.parametrize(
    ("low", "high"), [(0.64, 0.66), (271.0, 715.0), (1.2, 80.0), (3e-10, 2.0), (5.0, 5.0)]
)
def test_a_logarithmic_axis_has_two_round_labels_about_its_scores(low, high):
    ticks = log_ticks(low, high)
    assert len(ticks) == len(set(ticks))
    near = [t for t in ticks if low / 11 <= t <= high * 11]
    assert 2 <= len(near) <= 16
    assert all(float(f"{t:.3g}") == pytest.approx(t, rel=1e-9) for t in ticks)


def test_a_trial_on_its_way_out_leaves_the_common_scale():
    healthy = [float(v) for v in range(1, 100)]
    assert common_extent(healthy) == (1, 99)
    low, high = common_extent([*healthy, 1e30])
    assert low == 1
    assert 99 <= high < 1e6
    assert common_extent([]) is None
    assert common_extent([-2.0, -1.0]) == (-2, -1)


def test_a_run_that_was_made_six_times_is_one_run(synthetic):
    folder = synthetic({"a": [1.0] * 6, "b": [2.0] * 6})
    study = Study.load(folder)
    trials = study.results.trials
    trials["result_hash"] = trials["arm"]
    assert [len(study.unit_scores(arm)) for arm in study.arms] == [1, 1]
    assert "no outcome could have been significant" in verdict(study)


def test_the_answer_says_what_an_interval_would_take(synthetic):
    study = Study.load(synthetic(FOUR, judgement={"k": 2}))
    told = " ".join(answer(study))
    assert "An interval takes 11 configurations an arm, and there are 4" in told
    enough = {arm: [float(i + j) for i in range(1, 12)] for j, arm in enumerate("ab")}
    told = " ".join(answer(Study.load(synthetic(enough, at="more", judgement={"k": 2}))))
    assert "An interval takes" not in told


def test_the_answer_says_by_which_margin_and_what_counts_as_failed(synthetic):
    judged = {"margin": 0.025, "failures": ["mode_collapse"]}
    told = " ".join(answer(Study.load(synthetic(FOUR, judgement=judged))))
    assert "within 2.5%" in told
    assert "a trial failed if" in told
    assert "mode_collapse" in told
