"""Arms compared: numbers against closed forms, planted differences found and planted nulls not."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from analysis import comparisons, paired, profiles
from analysis.page import Figure, Section, Table, walk
from analysis.tables import Study, Tables
from tests.analysis.conftest import SCORE
from tests.analysis.swept import arm_trials, study_of

INF = math.inf
CLEAR = {"good": [float(i) for i in range(1, 13)], "bad": [2.0 * i for i in range(1, 13)]}
MIXED = {"a": [1.0, 2.0, 3.0, INF, INF, 5.0], "b": [2.0, 2.0, 1.0, 4.0, INF, INF]}


def keys(section: Section | None) -> list[str]:
    assert section is not None
    return [part.key for part in walk(section.parts) if isinstance(part, Figure | Table)]


def words(section: Section | None) -> str:
    assert section is not None
    parts = list(walk(section.parts))
    told = [part if isinstance(part, str) else getattr(part, "reading", "") for part in parts]
    return " ".join(told)


def higher(study: Study) -> Study:
    """Return the same study of a score of which higher is better: 100 over what it was."""
    trials = study.results.trials.copy()
    trials[f"best.{SCORE}"] = 100 / trials[f"best.{SCORE}"]
    return dataclasses.replace(study, results=Tables.of(trials), sign=-1)


def shifted(study: Study, by: float) -> Study:
    trials = study.results.trials.copy()
    trials[f"best.{SCORE}"] += by
    return dataclasses.replace(study, results=Tables.of(trials))


def test_a_planted_difference_is_found_and_told_with_its_size(synthetic):
    [pair] = comparisons.pairs_data(Study.load(synthetic(CLEAR))).pairs
    assert (pair.test.wins, pair.test.losses, pair.test.pairs) == (12, 0, 12)
    assert pair.test.p == pytest.approx(2 / 2**12)
    assert pair.improvement.value == 1.0
    assert pair.improvement.low == pytest.approx(0.025 ** (1 / 12))
    assert pair.shift == (0.5, 0.5, 0.5, 12)
    assert pair.at_k.ratio.value == pytest.approx(0.5)


def test_a_planted_null_is_not_found(synthetic):
    """Of 40 studies of equal arms 4 or fewer are told apart by mistake, in 98 % of all draws.

    The exact test is conservative: at 15 pairs its size is 3.5 %.
    """
    rng = np.random.default_rng(1)
    base = Study.load(synthetic({"a": [1.0], "b": [1.0]}))
    found = 0
    for _ in range(40):
        both = [arm_trials(arm, 15, lambda u, _: rng.random(len(u)) + 1) for arm in "ab"]
        study = dataclasses.replace(base, results=Tables.of(pd.concat(both, ignore_index=True)))
        [pair] = comparisons.pairs_data(study).pairs
        found += pair.test.p < 0.05
    assert found <= 4


def test_ties_and_failures_in_pairs(synthetic):
    [pair] = comparisons.pairs_data(Study.load(synthetic(MIXED))).pairs
    # a wins at c0 and c5; b at c2 and c3; c1 ties; c4 failed in both.
    assert (pair.test.wins, pair.test.losses, pair.test.pairs) == (2, 2, 6)
    assert pair.improvement.value == pytest.approx(0.5)
    assert pair.shift.n == 5
    assert pair.shift.value == pytest.approx(1.0)  # of 0, 1/2, 1, 3, infinity


def test_a_higher_score_is_better_gives_the_same_comparison(synthetic):
    study = Study.load(synthetic(CLEAR))
    [lower], [upper] = (comparisons.pairs_data(s).pairs for s in (study, higher(study)))
    assert upper.test == lower.test
    assert upper.improvement == lower.improvement
    assert upper.shift == pytest.approx(lower.shift)
    assert upper.at_k.ratio == pytest.approx(lower.at_k.ratio)
    middle = comparisons.middle_rows(higher(study)).set_index("arm")["interquartile_mean"]
    assert middle["good"] > middle["bad"] > 0
    assert "higher" in words(comparisons.section(higher(study))).lower()


def test_scores_at_or_below_zero_have_differences_and_no_ratios(synthetic):
    study = shifted(Study.load(synthetic(CLEAR)), -3.0)
    data = comparisons.pairs_data(study)
    [pair] = data.pairs
    assert not data.ratios
    assert pair.at_k is None
    differences = [-float(i) for i in range(1, 13)]
    assert pair.shift.value == pytest.approx(np.median(differences))
    assert pair.shift.low in differences
    assert "no ratios" in words(comparisons.section(study))
    assert comparisons.pairs_data(Study.load(study.folder)).ratios


def test_differences_are_told_the_way_the_score_points(synthetic):
    study = Study.load(synthetic(CLEAR))
    trials = study.results.trials.copy()
    trials[f"best.{SCORE}"] = 5 - trials[f"best.{SCORE}"]
    study = dataclasses.replace(study, results=Tables.of(trials), sign=-1)
    [pair] = comparisons.pairs_data(study).pairs
    assert pair.shift.value == pytest.approx(6.5)  # good's are higher by 1 to 12
    assert pair.shift.low <= pair.shift.value <= pair.shift.high


def test_a_difference_between_opposite_failures_is_unknown():
    one, other = pd.Series([1.0, INF]), pd.Series([INF, 1.0])
    assert math.isnan(comparisons.paired_difference(one, other).value)
    assert comparisons.paired_difference(pd.Series([INF]), pd.Series([INF])).n == 0


def test_unpaired_arms_are_compared_over_all_runs(synthetic):
    study = Study.load(synthetic(CLEAR, design={"sampler": "random", "paired": False}))
    [pair] = comparisons.pairs_data(study).pairs
    good, bad = (np.array(CLEAR[arm]) for arm in CLEAR)
    wins = (good[:, None] < bad).mean() + (good[:, None] == bad).mean() / 2
    assert pair.test.pairs == 144
    assert pair.improvement.value == pytest.approx(wins)
    assert math.isnan(pair.shift.value)
    section = comparisons.section(study)
    assert "paired-good-bad" not in keys(section)
    assert "Mann-Whitney" in words(section)


def test_arms_that_are_equivalent_by_margin(synthetic):
    rng = np.random.default_rng(0)
    base = rng.normal(100, 0.5, 60)
    study = Study.load(synthetic({"a": [1.0], "b": [1.0], "c": [1.0]}))
    arms = {"a": base, "b": rng.permutation(base), "c": 2 * base}
    trials = [arm_trials(arm, 60, lambda u, _, v=v: v) for arm, v in arms.items()]
    study = dataclasses.replace(study, results=Tables.of(pd.concat(trials, ignore_index=True)))
    ab, ac, bc = comparisons.pairs_data(study).pairs
    assert ab.at_k.verdict == "equivalent"
    assert ac.at_k.verdict == bc.at_k.verdict == "different"
    assert ac.at_k.ratio.low < 0.5 < ac.at_k.ratio.high


def test_a_budget_that_no_arm_has_yet_is_judged_at_what_they_have(synthetic):
    study = Study.load(synthetic(CLEAR, judgement={"k": 50}))
    data = comparisons.pairs_data(study)
    assert data.k == 12
    [pair] = data.pairs
    assert pair.at_k.verdict == "cannot tell"
    assert not pair.at_k.ratio.has_interval


def test_every_pair_in_both_orders(synthetic):
    study = Study.load(synthetic(MIXED | {"c": [9.0] * 6}))
    rows = comparisons.ordered_rows(comparisons.pairs_data(study)).set_index(["arm", "against"])
    assert len(rows) == 6
    for one, other in rows.index:
        assert rows.loc[(one, other), "probability"] == pytest.approx(
            1 - rows.loc[(other, one), "probability"]
        )
        assert rows.loc[(one, other), "low"] == pytest.approx(1 - rows.loc[(other, one), "high"])


@pytest.mark.parametrize("arms", [2, 6, 9])
def test_every_number_of_arms_is_drawn(synthetic, arms):
    study = Study.load(synthetic({f"a{i}": [1.0 + i, 2.0, 3.0 * i + 1] for i in range(arms)}))
    found = keys(section := comparisons.section(study))
    assert len(found) == len(set(found))
    drawn = [key for key in found if key.startswith("paired-")]
    assert len(drawn) == min(6, math.comb(arms, 2))
    assert ("Drawn are 6 of" in words(section)) == (arms == 6 or arms == 9)
    improvement = next(p for p in section.parts if getattr(p, "key", "") == "improvement")
    marks = improvement.plot.data
    assert marks[0].type == ("heatmap" if arms > 6 else "scatter")
    if arms <= 6:
        assert sum(len(trace.x) for trace in marks) == arms * (arms - 1)


def test_dots_of_one_column_lie_apart(synthetic):
    study = Study.load(synthetic({f"a{i}": [1.0, 2.0, 3.0] for i in range(5)}))
    rows = comparisons.ordered_rows(comparisons.pairs_data(study))
    xs = [x for trace in comparisons.improvement_figure(rows, study.arms).data for x in trace.x]
    assert len({round(x, 6) for x in xs}) == 20
    assert all(abs(x - round(x)) < 0.5 for x in xs)


def test_leading_arms_come_first_whatever_failed(synthetic):
    study = Study.load(
        synthetic({"fails": [INF] * 4, "slow": [5.0] * 4, "best": [1.0, 2, 3, INF]})
    )
    assert comparisons.standing(study) == ["best", "slow", "fails"]
    assert paired.chosen_pairs(["x", "y", "z"], 2) == [("x", "y"), ("x", "z")]


@pytest.mark.parametrize("sampler", ["sobol", "grid", "tpe"])
def test_no_tests_of_draws_that_are_not_independent(synthetic, sampler):
    study = Study.load(synthetic(CLEAR, design={"sampler": sampler, "paired": True}))
    section = comparisons.section(study)
    found = keys(section)
    assert "pairs" not in found
    assert "improvement" not in found
    assert "no pair of arms is tested" in words(section)
    assert all(p.low is None for p in profiles.profiles_data(study))
    assert comparisons.middle_rows(study)["low"].isna().all()
    assert ("paired-good-bad" in found) == (sampler != "tpe")


def test_one_arm_is_no_pair(synthetic):
    section = comparisons.section(Study.load(synthetic({"a": [1.0, 2.0]})))
    assert "there is no pair" in words(section)
    assert keys(section) == ["middle", "profiles"]


def test_one_configuration_is_compared_and_proves_nothing(synthetic):
    study = Study.load(synthetic({"a": [1.0], "b": [2.0]}))
    found = keys(comparisons.section(study))
    assert found == ["pairs", "sizes", "improvement", "middle", "profiles", "paired-a-b"]
    [pair] = comparisons.pairs_data(study).pairs
    assert pair.test.p == 1.0
    assert pair.at_k.verdict == "cannot tell"


def test_all_failed_and_nothing_at_all(synthetic):
    failed = Study.load(synthetic({"x": [INF] * 3, "y": [INF] * 3}))
    assert "Every trial failed" in words(comparisons.section(failed))
    [pair] = comparisons.pairs_data(failed).pairs
    assert (pair.improvement.value, pair.test.p) == (0.5, 1.0)
    empty = dataclasses.replace(failed, results=Tables.of(failed.results.trials.iloc[:0]))
    assert comparisons.section(empty) is None


def test_profiles_are_the_empirical_distribution(synthetic):
    study = Study.load(synthetic(MIXED))
    a, b = profiles.profiles_data(study)
    assert (a.n, a.failed, b.n, b.failed) == (6, 2, 6, 2)
    np.testing.assert_array_equal(a.score, [1, 2, 3, 5])
    np.testing.assert_allclose(a.share, [1 / 6, 2 / 6, 3 / 6, 4 / 6])
    np.testing.assert_allclose(b.share, [1 / 6, 3 / 6, 4 / 6, 4 / 6])
    turned, _ = profiles.profiles_data(higher(study))
    np.testing.assert_allclose(turned.score, [100, 50, 100 / 3, 20])
    np.testing.assert_allclose(turned.share, a.share)


def test_profiles_thin_their_steps_and_not_their_shares(synthetic):
    study = study_of(synthetic, {"a": arm_trials("a", 3000, lambda u, _: u[:, 0] + 1)})
    [profile] = profiles.profiles_data(study)
    scores = study.unit_scores("a").to_numpy()
    assert len(profile.score) == profiles.MOST_STEPS
    exact = [(scores <= at).mean() for at in profile.score]
    np.testing.assert_allclose(profile.share, exact)


def test_paired_scores_and_their_lanes(synthetic):
    study = Study.load(synthetic(MIXED))
    data = paired.paired_data(study, "a", "b")
    assert data.failed == (1, 1, 1)
    assert data.rows["better"].tolist() == [1, 0, 2, 2, 0, 1]
    assert len(data.scored) == 3
    figure = paired.paired_figure(data, study.arms, study.sign)
    assert sum(len(trace.x) for trace in figure.data) == 6
    span = paired.span_of(data, study.sign)
    assert span.lane > span.high == 5.0
    assert [note.text for note in figure.layout.annotations] == [
        "1 failed", "1 failed", "1"    ]  # fmt: skip
    turned = paired.span_of(paired.paired_data(higher(study), "a", "b"), -1)
    assert turned.lane < turned.low == 20.0


def test_paired_pictures_thin_and_keep_both_ends(synthetic):
    arms = {arm: arm_trials(arm, 2500, lambda u, _: u[:, 0] + 1) for arm in "ab"}
    study = study_of(synthetic, arms)
    data = paired.paired_data(study, "a", "b")
    figure = paired.paired_figure(data, study.arms, study.sign)
    xs = np.concatenate([trace.x for trace in figure.data])
    assert len(xs) == paired.MOST_DRAWN
    assert (min(xs), max(xs)) == (data.rows["x"].min(), data.rows["x"].max())


def test_repeated_configs_are_compared_over_seeds(synthetic):
    study = Study.load(synthetic({"a": [1.0], "b": [1.0]}))
    rows = [
        arm_trials(arm, 10, lambda u, _, at=at: at + np.arange(len(u))).assign(
            config_id="c0", seed=range(10)
        )
        for arm, at in (("a", 1.0), ("b", 101.0))
    ]
    settings = study.settings | {
        "replicate": {"configs": {"a": {"c0": {}}, "b": {"c0": {}}}},
        "design": {"sampler": "replicate", "paired": True},
    }
    tables = Tables.of(pd.concat(rows, ignore_index=True))
    study = dataclasses.replace(study, results=tables, settings=settings)
    data = comparisons.pairs_data(study)
    [pair] = data.pairs
    assert (data.unit, data.k, data.paired) == ("seed", 1, False)
    assert pair.test.pairs == 100
    assert pair.at_k.ratio.value == pytest.approx(5.5 / 105.5)
    section = comparisons.section(study)
    assert "median over seeds" in words(section)
    assert not [key for key in keys(section) if key.startswith("paired-")]
