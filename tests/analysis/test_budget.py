"""What a budget buys: costs that are known, scores by the study's own rule."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd

from analysis import budget, trials
from analysis.page import Figure, Section, Table, walk
from analysis.tables import Study
from tests.analysis import seeded


def parts_of(study: Study) -> dict[str, Figure | Table]:
    section = budget.section(study)
    assert section is not None
    return {part.key: part for part in walk(section.parts) if isinstance(part, Figure | Table)}


def texts(section: Section) -> str:
    return " ".join(part for part in walk([section]) if isinstance(part, str))


def ten(arm: str) -> pd.DataFrame:
    return seeded.trials(arm, np.arange(1.0, 11.0)[:, None])


def test_costs_that_no_column_tells_are_a_sentence_not_a_figure():
    study = seeded.study_of({"a": ten("a"), "b": ten("b")})
    for curve in budget.budget_curve_data(study):
        assert math.isnan(curve.updates)
        assert math.isnan(curve.seconds)
    assert "budget" in parts_of(study)
    assert not {"budget-updates", "budget-seconds"} & set(parts_of(study))
    told = texts(budget.section(study))
    assert "does not tell the updates of a, b" in told
    assert "does not tell the seconds of a, b" in told
    [listed] = trials.section(study).parts
    assert set(listed.cells["updates"]) == {"–"}


def test_costs_are_sums_over_seeds_of_the_configurations_that_know_them():
    table = seeded.trials("a", np.arange(1.0, 9.0).reshape(4, 2))
    table = table.assign(seconds=[1.0, 2, 3, 4, 5, 6, 7, math.nan], discriminator_updates=10)
    study = seeded.study_of({"a": table})
    (curve,) = budget.budget_curve_data(study)
    assert curve.seconds == (3 + 7 + 11) / 3
    assert curve.updates == 20
    assert {"budget-updates", "budget-seconds"} <= set(parts_of(study))


def test_other_scores_are_read_by_the_rule_that_the_study_is_judged_by():
    """Judged by the last checkpoint, at which a collapse that lasts is a failure."""
    table = ten("a").assign(**{"best.other": 0.9, "last.other": np.linspace(0.1, 0.5, 10)})
    protocol = {"other": {"direction": "maximize"}}
    judged = {"judgement": {"checkpoint": "last", "failures": ["mode_collapse"]}}
    study = seeded.study_of({"a": table}, **judged)
    events = pd.DataFrame(
        {"trial_id": table["trial_id"][9:], "kind": "mode_collapse", "onset": 1, "detected": 1,
         "ended": math.nan, "severity": 1.0, "evidence": "{}"}
    )  # fmt: skip
    vars(study.results)["events"] = events
    study = dataclasses.replace(study, protocol=protocol)
    rows = parts_of(study)["budget-other"].data.set_index("k")
    assert rows["failed"].iloc[0] == 1
    assert rows["median"].iloc[-1] == table["last.other"].iloc[8]
    assert "read at the last checkpoint" in texts(budget.section(study))


def test_a_budget_of_failures_is_plus_infinity_where_higher_is_better():
    scores = np.array([[0.5]] * 2 + [[math.inf]] * 8)
    study = seeded.study_of({"a": seeded.trials("a", scores)}, sign=-1)
    parts = parts_of(study)
    for key in ("budget", "budget-table"):
        rows = parts[key].data
        assert rows.loc[rows["k"] == 1, "median"].tolist() == [math.inf]
        assert not (rows[["median", "low", "high"]].astype(float) == -math.inf).any().any()
    assert "unbiased" not in parts["budget-table"].reading
