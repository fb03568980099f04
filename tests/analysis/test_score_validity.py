"""The facts that the report's warning rests on, as they are read from a study's tables."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest

from analysis.answer import warnings
from analysis.report import render
from analysis.score_validity import score_facts
from analysis.tables import Study
from ganstudy.records import REPORTED_SCHEMA, table
from ganstudy.storage import write_json
from ganstudy.store import StudyFolder
from ganstudy.study.score_validity import Measured, find_doubts
from tests.analysis.conftest import SCORE
from tests.analysis.test_sanity import row

JUDGE = "kd_lite0_1k"
ARMS = {"smudges": [3.0, 9.0], "shapes": [50.0, 60.0]}


def report(folder, smudges: tuple[float, float], shapes: tuple[float, float]) -> None:
    """Write both arms' best generators: the primary score and the one that chose nothing."""
    rows = [
        {"arm": arm, "name": name, "value": value, "standard_error": 0.05 * value, "floor": floor}
        for arm, values in (("smudges", smudges), ("shapes", shapes))
        for name, value, floor in zip((SCORE, JUDGE), values, (1.0, 0.1), strict=True)
    ]
    StudyFolder(folder).write_table("reported.parquet", table(rows, REPORTED_SCHEMA))
    protocol = json.loads((folder / "protocol.json").read_text())
    how = protocol["scores"][SCORE] | {"split": "report", "floor_standard_error": 0.1}
    told = protocol | {"reported": {SCORE: how, JUDGE: how}}
    write_json(folder / "protocol.json", told)


def test_a_study_without_findings_has_no_warning(synthetic):
    folder = synthetic(ARMS)
    report(folder, (3.0, 3.0), (50.0, 20.0))
    study = Study.load(folder)
    assert find_doubts(score_facts(study)) == []
    assert warnings(study) == []
    assert 'class="answer warning"' not in render(study)


def test_the_page_opens_with_the_order_that_the_judge_turns_round(synthetic):
    folder = synthetic(ARMS)
    report(folder, (2.7, 28.1), (49.7, 3.9))
    study = Study.load(folder)
    facts = score_facts(study)
    assert facts.floor == Measured(1.0, 0.1)
    assert facts.judged["shapes"].value == 3.9
    (warning,) = warnings(study)
    assert "ranks smudges (2.7 ± 0.14) above shapes" in warning
    page = render(study)
    assert page.index("ranks smudges (2.7") < page.index('id="verdict"')


def test_a_broken_control_is_no_arm_that_can_be_turned_round(synthetic):
    controls = {"broken": {"arm": "smudges", "broken": "shapes"}}
    folder = synthetic(ARMS, controls=controls)
    report(folder, (2.7, 28.1), (49.7, 3.9))
    assert list(score_facts(Study.load(folder)).arms) == ["smudges"]
    assert find_doubts(score_facts(Study.load(folder))) == []


def test_without_scores_on_report_the_best_on_select_is_held_against_the_floor(synthetic):
    better_than_real = Study.load(synthetic({"a": [1.5, 9.0], "b": [4.0, 5.0]}))
    (finding,) = find_doubts(score_facts(better_than_real))
    assert finding.key == "at_the_floor"
    assert "the best generator of a scores 1.5, real images 2" in finding.evidence


def test_sanity_is_read_for_the_primary_score_without_negatives(synthetic):
    folder = synthetic({"a": [9.0]})
    name = SCORE.removesuffix("_1k")
    rows = []
    for step in range(4):
        rows.append(row("ladders", name, "blur", step, 10.0 - step))
        rows.append(row("ladders", name, "noise", step, 10.0 + step))
        rows.append(row("ladders", name, "invert", step, 10.0 - step))
        rows.append(
            row("ladders", "precision_small_cnn", "noise", step, 1.0, direction="maximize")
        )
    rows.append(row("classes_kept", name, "classes", 3, 10.0))  # one level shows nothing
    for rank in range(1, 10):
        for other, value in ((name, rank), ("kd_small_cnn", -rank), ("kd_lite0", -rank)):
            rows.append(row("agreement", other, f"t{rank}", rank, float(value)))
    StudyFolder(folder).write_sanity(rows)
    facts = score_facts(Study.load(folder))
    assert facts.sight == pytest.approx({"blur": -1.0, "noise": 1.0})
    assert facts.agreement == {"kd_lite0": (pytest.approx(-1.0), 9)}
    assert [f.key for f in find_doubts(facts)] == ["blind_to_damage", "networks_disagree"]


def test_a_bare_table_of_trials_has_no_facts_against_it(tmp_path):
    frame = pd.DataFrame({"arm": ["a", "a", "b", "b"], "best.fid": [1.0, 2.0, 3.0, 4.0]})
    frame.to_parquet(tmp_path / "trials.parquet")
    facts = score_facts(Study.load(tmp_path / "trials.parquet"))
    assert math.isnan(facts.floor.value)
    assert find_doubts(facts) == []
