from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis import several
from analysis.html import render
from analysis.several import across, again
from analysis.several.shared import no_sample
from analysis.tables import Study
from ganstudy.records import judgement_hash
from tests.analysis.conftest import SPACE
from tests.conftest import seal

INF = math.inf


def made(synthetic, name: str, scores, **settings) -> Study:
    """A synthetic study in a folder of its own."""
    return Study.load(synthetic(scores, at=name, **settings))


def on(dataset: str, arms) -> dict:
    return {"arms": {arm: {"space": SPACE, "dataset": {"name": dataset}} for arm in arms}}


def scores(seed: int, factor: float) -> list[float]:
    return [float(v) for v in factor * np.random.default_rng(seed).lognormal(3, 0.3, 20)]


def three(synthetic) -> dict[str, Study]:
    """Arm b is 0.8, 0.5 and 0.3125 times as bad as a, on scales that differ by a thousand."""
    studies = []
    for i, (factor, scale) in enumerate([(0.8, 1), (0.5, 30), (0.3125, 1000)]):
        a = scores(i, scale)
        arms = {"a": a, "b": [factor * v for v in a]}
        studies.append(made(synthetic, f"s{i}", arms, **on(f"set{i}", arms)))
    return several.names(studies)


def test_ratios_are_aggregated_as_logs_never_as_scores(synthetic):
    studies = three(synthetic)
    ratios = across.ratio_rows(studies)
    assert ratios["ratio"].tolist() == pytest.approx([0.8, 0.5, 0.3125])
    assert ratios["paired_ratio"].tolist() == pytest.approx([0.8, 0.5, 0.3125])
    (aggregate,) = across.aggregate_rows(ratios).itertuples()
    assert aggregate.ratio == pytest.approx(0.5)
    assert aggregate.low < 0.5 < aggregate.high
    assert aggregate.studies == 3
    assert (ratios["p_holm"] < 0.001).all()


def test_two_studies_warn_that_they_tell_little(synthetic):
    studies = three(synthetic)
    two = {name: studies[name] for name in ("s0", "s1")}
    (aggregate,) = across.aggregate_rows(across.ratio_rows(two)).itertuples()
    assert "2 data sets" in aggregate.warning


def test_the_page_of_several_is_complete_and_repeatable(synthetic):
    studies = list(three(synthetic).values())
    page = render(*several.compose(studies))
    assert page == render(*several.compose(studies))
    assert "Over 3 studies the median best of k = " in page
    assert "An interval over 3 studies says how such studies vary" in page
    assert "no test is made over so few" in page
    assert "set2" in page


def test_no_arm_in_common_is_said(synthetic):
    pair = [
        made(synthetic, "x", {"a": [1.0]}),
        made(synthetic, "y", {"b": [1.0]}),
    ]
    front, _ = several.compose(pair)
    assert front.answer == [
        "These studies share no arm with results and no trial: nothing compares."
    ]


def test_one_arm_in_common_is_named_though_it_has_no_ratio(synthetic):
    """Of two studies that share `ns` alone, on two data sets."""
    pair = [
        made(
            synthetic,
            f"s{i}",
            {"ns": scores(i, 1), other: scores(9, 1)},
            **on(data, ["ns", other]),
        )
        for i, (data, other) in enumerate([("one", "hinge"), ("two", "wgan")])
    ]
    front, _ = several.compose(pair)
    assert front.answer == [
        "These studies share the arm ns, whose medians stand below. There are no ratios: they "
        "need a second common arm with results."
    ]
    page = render(front, several.compose(pair)[1])
    assert "share no arm" not in page
    assert "no arm in common" not in page


def test_an_arm_without_results_in_one_study_is_said_to_be(synthetic):
    empty = made(synthetic, "y", {"ns": []})
    front, _ = several.compose([made(synthetic, "x", {"ns": scores(0, 1)}), empty])
    assert front.answer == [
        "These studies share ns by name, but not every study has results of such an arm."
    ]


def test_the_overview_counts_as_the_studies_own_tables_do(synthetic):
    folder = synthetic({"a": [1.0, 2.0, INF]}, at="x")
    table = pd.read_parquet(folder / "trials.parquet")
    table.loc[2, "config_id"] = "default"  # it failed, and is no draw
    table.to_parquet(folder / "trials.parquet")
    seal(folder / "trials.parquet")
    pair = [Study.load(folder), made(synthetic, "y", {"a": [1.0]})]
    overview = several.overview(several.names(pair)).parts[0].data
    assert overview[["trials", "counted", "failed"]].to_numpy().tolist() == [[3, 2, 0], [1, 1, 0]]


def test_the_same_trials_are_compared_before_and_after(synthetic):
    before = scores(0, 1)
    after = [0.9 * v for v in before[:-1]] + [INF]
    pair = several.names(
        [
            made(synthetic, "before", {"a": before}),
            made(synthetic, "after", {"a": after}),
        ]
    )
    rows = again.repeated(*pair.values())
    assert len(rows) == 20
    front, sections = several.compose(list(pair.values()))
    assert any("after is better in 19 of 20" in sentence for sentence in front.answer)
    assert any("completed to diverged" in str(p) for s in sections for p in getattr(s, "parts", ())
               for p in getattr(p, "parts", [p]))  # fmt: skip


def test_equal_studies_are_equal_to_the_last_bit(synthetic):
    pair = [made(synthetic, name, {"a": scores(0, 1)}) for name in ("x", "y")]
    front, _ = several.compose(pair)
    assert any("equal to the last bit" in sentence for sentence in front.answer)


def test_trials_on_other_data_are_not_the_same_trials(synthetic):
    x = three(synthetic)["s0"]
    y = made(synthetic, "other", {"a": scores(0, 1)}, **on("elsewhere", ["a"]))
    assert again.repeated(x, y).empty


def test_a_narrow_study_is_found_within_a_wide_one(synthetic):
    arms = {"a": [float(i) for i in range(1, 10)]}
    wide = made(synthetic, "wide", arms)
    inner = {"generator_optimizer.lr": {"uniform": [0.25, 0.55]}}
    narrow = made(synthetic, "narrow", {"a": [3.5]}, arms={"a": {"space": inner}})
    section = again.narrow(several.names([wide, narrow]))
    (table,) = section.parts
    assert table.data["n"].tolist() == [9, 3, 1]
    assert again.narrow(several.names([wide])) is None


def test_names_take_as_much_of_the_path_as_they_need(synthetic):
    x, y = (made(synthetic, f"{parent}/same", {"a": [1.0]}) for parent in "xy")
    assert list(several.names([x, y])) == ["x/same", "y/same"]


def test_ratios_are_refused_where_scores_are_no_ratios(synthetic):
    arms = {"a": [-0.1, 0.2], "b": [0.3, 0.1]}
    study = made(synthetic, "negative", arms)
    assert isinstance(across.ratio_rows(several.names([study])), pd.DataFrame)
    assert across.ratio_rows(several.names([study])).empty


def test_ratios_are_at_one_k_the_smallest_that_studies_are_judged_at(synthetic):
    studies = []
    for i, k in enumerate((5, 2, 8)):
        arms = {"a": scores(i, 1), "b": scores(i + 10, 1)}
        asked = on(f"set{i}", arms) | {"judgement": {"k": k}}
        studies.append(made(synthetic, f"s{i}", arms, **asked))
    ratios = across.ratio_rows(several.names(studies))
    assert ratios["k"].tolist() == [2, 2, 2]


def test_a_study_whose_scores_are_no_ratios_is_not_counted(synthetic):
    arms = {"a": [-0.1, 0.2], "b": [0.3, 0.1]}
    odd = made(synthetic, "odd", arms, **on("elsewhere", arms))
    front, _ = several.compose([*three(synthetic).values(), odd])
    assert front.answer[0].startswith("Over 3 of 4 studies the median best of k = ")


@pytest.mark.parametrize("same", ["set", None])
def test_studies_on_one_data_set_have_no_interval_over_them(synthetic, same):
    studies = []
    for i in range(3):
        arms = {"a": scores(i, 1), "b": scores(i + 10, 1)}
        studies.append(made(synthetic, f"s{i}", arms, **(on(same, arms) if same else {})))
    named = several.names(studies)
    why = no_sample(named)
    assert why == (
        "s0 and s1 are on the same data set, set" if same
        else "the data sets of s0 and s1 are not known"
    )  # fmt: skip
    (aggregate,) = across.aggregate_rows(across.ratio_rows(named), why).itertuples()
    assert math.isfinite(aggregate.ratio)
    assert math.isnan(aggregate.low)
    assert math.isnan(aggregate.high)
    page = render(*several.compose(studies))
    assert f"There is no interval over them: {why}" in page
    assert "Student" not in across.over_studies(why)


def test_bare_tables_of_one_folder_are_named_by_their_files(tmp_path):
    for name in ("one", "two"):
        rows = {"arm": ["a", "b"] * 5, "best.fid": scores(len(name), 1)[:10]}
        pd.DataFrame(rows).to_parquet(tmp_path / f"{name}.parquet")
    pair = [Study.load(tmp_path / f"{name}.parquet") for name in ("one", "two")]
    assert list(several.names(pair)) == ["one.parquet", "two.parquet"]
    assert pair[0].name == "one.parquet"
    assert render(*several.compose(pair))


def test_a_study_given_twice_is_refused(synthetic):
    folder = synthetic({"a": [1.0]})
    twice = [Study.load(folder), Study.load(folder / ".." / folder.name)]
    with pytest.raises(ValueError, match="the same study is given twice"):
        several.compose(twice)


def test_a_narrow_study_within_two_wide_ones_makes_two_tables(synthetic):
    inner = {"generator_optimizer.lr": {"uniform": [0.25, 0.55]}}
    nine = {"a": [float(i) for i in range(1, 10)]}
    studies = [made(synthetic, name, nine) for name in ("wide", "wider")]
    studies.append(made(synthetic, "narrow", {"a": [3.5]}, arms={"a": {"space": inner}}))
    section = again.narrow(several.names(studies))
    assert [table.key for table in section.parts] == ["narrow-wide-narrow", "narrow-wider-narrow"]


def test_scores_of_opposite_signs_are_not_the_same_trials(synthetic):
    x, y = (made(synthetic, name, {"a": [1.0, 2.0]}) for name in "xy")
    assert len(again.repeated(x, y)) == 2
    assert again.repeated(x, replace(y, sign=-1)).empty


def test_other_settings_are_told_and_make_other_trainings(synthetic):
    def under(updates: int, at: str) -> Study:
        arm = {"space": SPACE, "dataset": "digits", "budget": {"discriminator_updates": updates}}
        return made(synthetic, at, {"a": scores(0, 1)}, arms={"a": arm})

    pair = [under(400, "long"), under(100, "short")]
    page = render(*several.compose(pair))
    assert "Settings that differ" in page
    assert "arms.a.budget.discriminator_updates (400 to 100)" in page
    alike = render(*several.compose([under(400, "one"), under(400, "other")]))
    assert "They were trained under the same settings." in alike
    assert "The studies have the same settings" in alike


def test_ratios_of_scores_where_higher_is_better_are_worse_over_better(synthetic):
    worse = scores(0, 1)
    study = made(synthetic, "higher", {"a": worse, "b": [2 * v for v in worse]})
    rows = across.ratio_rows({"higher": replace(study, sign=-1)})
    assert rows["ratio"].tolist() == pytest.approx([0.5])


def test_a_study_that_was_judged_anew_says_so_beside_others_too(synthetic):
    said = {"k": 2, "margin": 0.025, "checkpoint": "best", "failures": []}
    pair = [made(synthetic, at, {"a": [1.0, 2.0]}, judgement=said) for at in ("x", "y")]
    rule = said | {"primary": pair[0].primary, "minimize": True}
    record = {"fixed_at": "2026", "hash": judgement_hash(rule | {"k": 1}), "rule": rule}
    changed = replace(pair[0], provenance=pair[0].provenance | {"judgement": record})
    assert "changed after its first trial" in render(*several.compose([changed, pair[1]]))
