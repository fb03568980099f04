"""Best configurations over seeds, variances by source, and what choosing adds."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import optimism, report, seeds, statistics, variability
from analysis.page import Figure, Table, walk
from analysis.style import failure_lane
from analysis.tables import Study
from tests.analysis.conftest import SCORE
from tests.analysis.seeded import replicate, study_of, trials


def log_normal(configs: int, count: int, config_sd: float, seed_sd: float, seed: int = 0):
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, seed_sd, (configs, count))
    return np.exp(3 + rng.normal(0, config_sd, (configs, 1)) + noise)


def parts_of(study: Study) -> dict[str, Figure | Table]:
    section = seeds.section(study)
    assert section is not None
    return {part.key: part for part in walk(section.parts) if isinstance(part, Figure | Table)}


def text_of(study: Study) -> str:
    return " ".join(part for part in walk(seeds.section(study).parts) if isinstance(part, str))


def test_the_best_of_a_replicate_is_all_seeds_of_the_config_chosen_beforehand():
    scores = np.array([[8.0, 9.0, 13.0, math.inf, 10.0], [1.0, 1.0, 1.0, 1.0, 1.0]])
    (best,) = seeds.best_configs(replicate({"a": trials("a", scores)}))
    assert (best.config, best.ok, best.failed) == ("c000", 4, 1)
    assert best.parameters == "generator_optimizer.lr 0.0001"
    assert best.mean.value == 10.0  # of the four that did not fail
    assert best.sd == pytest.approx(math.sqrt((4 + 1 + 9 + 0) / 3))
    low, high = stats.t.interval(0.95, 3, loc=10, scale=best.sd / 2)
    assert (best.mean.low, best.mean.high) == pytest.approx((low, high))
    assert best.median.value == 10.0  # of all five
    assert (best.low_quartile, best.high_quartile) == (9.0, 13.0)


def test_the_mean_of_skewed_scores_has_an_interval_that_covers():
    """Of 4 seeds of log standard deviation 0.7 the interval of the plain mean covers 0.89."""
    rng, study = np.random.default_rng(0), study_of({"a": trials("a", np.ones((1, 4)))})
    held = 0
    for _ in range(1000):
        found = seeds.geometric_mean(study, rng.lognormal(1, 0.7, 4))
        held += found.low <= math.e <= found.high
    assert held / 1000 == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / 1000))
    below = seeds.geometric_mean(study, np.array([-1.0, 2.0]))
    assert math.isnan(below.value)


def test_the_best_of_a_sweep_has_the_lowest_median_over_its_few_seeds():
    scores = np.array([[1.0, 30.0, 30.0], [20.0, 5.0, 6.0], [7.0, 7.0, 9.0]])
    study = study_of({"a": trials("a", scores)})
    (best,) = seeds.best_configs(study)
    assert (best.config, best.median.value, best.ok) == ("c001", 6.0, 3)
    assert "chosen by the very scores" in parts_of(study)["best-configs"].reading


def test_one_seed_is_told_as_one():
    study = study_of({"a": trials("a", np.array([[3.0], [2.0]]))})
    table = parts_of(study)["best-configs"]
    assert table.cells.loc[0, "seeds"] == "1"
    assert table.cells.loc[0, "mean ± sd"] == "2 ± –"
    assert table.cells.loc[0, "geometric mean [95 %]"] == "2 [none]"
    assert not {"seeds-best", "seeds-needed", "variance"} & set(parts_of(study))
    assert "by seed" not in text_of(study)
    assert seeds.ONE_SEED in text_of(study)


def test_one_configuration_of_many_seeds_has_seeds_to_tell_but_no_components():
    study = replicate({"a": trials("a", log_normal(1, 9, 0.0, 0.1))})
    assert "2 configurations of an arm" in text_of(study)
    assert {"seeds-best", "seeds-needed"} < set(parts_of(study))
    assert not {"seeds-configs", "variance", "optimism-seed"} & set(parts_of(study))


def test_higher_is_better_is_told_as_measured():
    scores = np.array([[0.5, 0.7, math.inf], [0.9, 0.8, 0.7]])
    study = study_of({"a": trials("a", scores)}, sign=-1)
    (best,) = seeds.best_configs(study)
    assert (best.config, best.mean.value) == ("c001", pytest.approx(0.8))
    assert (best.low_quartile, best.high_quartile) == (0.7, 0.9)
    rows = parts_of(study)["seeds-configs"].data
    assert set(rows[rows["config"] == "c000"][SCORE]) == {0.5, 0.7, math.inf}
    # The lane of failures lies at the worse end.
    assert failure_lane([0.5, 0.9], True, -1) < 0.5 < 0.9
    assert failure_lane([0.5, 0.9], True, 1) > 0.9


def test_failures_are_in_the_strips_and_said():
    scores = np.array([[2.0, 3.0, math.inf, 4.0, 5.0, 6.0]])
    study = replicate({"a": trials("a", scores)})
    figure = parts_of(study)["seeds-best"]
    assert len(figure.data) == 6
    assert "n = 6, 1 failed" in str(figure.plot.layout.xaxis.ticktext)
    assert "1 of them here" in parts_of(study)["best-configs"].reading


def test_an_arm_of_which_all_failed_is_said_to_have():
    lost = np.full((3, 2), math.inf)
    table = parts_of(study_of({"a": trials("a", lost), "b": trials("b", np.ones((3, 2)))}))
    assert table["best-configs"].cells.loc[0, "configuration"] == "none: all failed"
    alone = study_of({"a": trials("a", lost)})
    assert "seeds-needed" not in parts_of(alone)
    (best,) = seeds.best_configs(replicate({"a": trials("a", lost)}))
    assert (best.ok, best.failed, best.median.value) == (0, 2, math.inf)
    assert math.isnan(best.mean.value)


def test_strips_are_those_of_the_best_configs_where_there_are_many():
    rng = np.random.default_rng(0)
    study = study_of({"a": trials("a", rng.uniform(1, 9, (60, 2)))})
    strips = seeds.config_strips(study)
    assert strips.rows["config"].nunique() == seeds.MOST_STRIPS
    assert strips.left_out == 60 - seeds.MOST_STRIPS
    medians = strips.rows.groupby("rank")["score"].median()
    assert medians.is_monotonic_increasing


def test_simulated_components_are_recovered():
    scores = log_normal(400, 3, config_sd=0.5, seed_sd=0.2)
    # The spread over seeds holds the evaluation's: 0.2^2 = 0.16^2 + 0.12^2.
    (spread,) = variability.spreads(study_of({"a": trials("a", scores, se=0.12)}))
    parts = spread.components
    assert spread.log
    # Four standard errors of each at these numbers of configurations and seeds.
    assert math.sqrt(parts.config) == pytest.approx(0.5, abs=0.08)
    assert math.sqrt(parts.seed) == pytest.approx(0.16, abs=0.025)
    assert math.sqrt(parts.evaluation) == pytest.approx(0.12, rel=1e-9)
    assert parts.intraclass_low < 0.25 / 0.29 < parts.intraclass_high
    assert spread.seed_sd == pytest.approx(0.2, abs=0.02)


def test_failures_are_left_out_of_variances_and_counted():
    scores = log_normal(20, 3, 0.5, 0.2)
    scores[0, :] = math.inf
    scores[1, 0] = math.inf
    (spread,) = variability.spreads(study_of({"a": trials("a", scores)}))
    assert (spread.failed, spread.components.configs, spread.components.runs) == (4, 19, 56)
    assert spread.components.evaluation is None
    table = parts_of(study_of({"a": trials("a", scores)}))["variance"]
    assert table.cells.loc[0, "left out"] == "4"
    assert table.cells.loc[0, "evaluation"] == "–"


def test_negative_scores_vary_on_their_own_scale():
    scores = np.array([[-1.0, 1.0], [3.0, 5.0], [-4.0, -2.0]])
    study = study_of({"a": trials("a", scores)})
    (spread,) = variability.spreads(study)
    assert not spread.log
    assert spread.components == statistics.variance_components(list(scores))
    assert spread.seed_sd == pytest.approx(math.sqrt(2))
    assert "In the score's unit" in parts_of(study)["variance"].reading


def test_constant_scores_have_no_shares():
    study = study_of({"a": trials("a", np.full((4, 3), 7.0))})
    assert "nothing to share out" in text_of(study)
    assert "variance-shares" not in parts_of(study)
    # A sd of 0 asks for the fewest seeds that have a spread.
    assert set(parts_of(study)["seeds-needed"].data["seeds"]) == {2.0}


def test_an_arm_without_two_repeated_configs_is_named():
    arms = {"a": log_normal(5, 2, 0.5, 0.2), "b": log_normal(1, 5, 0.5, 0.2)}
    study = study_of({arm: trials(arm, scores) for arm, scores in arms.items()})
    assert "not here: b." in text_of(study)
    shares = parts_of(study)["variance-shares"].data
    assert shares["share"].sum() == pytest.approx(1.0)


def test_an_adaptive_study_has_no_variances():
    scores = log_normal(5, 3, 0.5, 0.2)
    study = study_of({"a": trials("a", scores)}, design={"sampler": "tpe", "paired": False})
    assert "not separated" in text_of(study)
    assert not {"variance", "seeds-needed"} & set(parts_of(study))
    assert set(parts_of(study)["optimism-seed"].data["k"]) == {5}


def test_seeds_needed_are_those_of_a_t_test_and_the_arms_own_spread():
    arms = {"a": log_normal(1, 50, 0.0, 0.1), "b": log_normal(1, 50, 0.0, 0.4, seed=1)}
    study = replicate({arm: trials(arm, scores) for arm, scores in arms.items()})
    curves = parts_of(study)["seeds-needed"].data
    at = {arm: c.set_index("difference")["seeds"] for arm, c in curves.groupby("arm")}
    sd = np.log(arms["a"]).std(ddof=1)
    assert at["a"].iloc[0] == statistics.seeds_to_tell(sd, [math.log(1.01)])[0]
    # Four times the spread, sixteen times the seeds, within the error of two spreads of 50.
    assert 8 < at["b"].iloc[0] / at["a"].iloc[0] < 32
    assert all(curve.is_monotonic_decreasing for curve in at.values())
    texts = [note.text for note in parts_of(study)["seeds-needed"].plot.layout.annotations]
    assert texts == ["this study: 50"]


def test_the_spread_over_seeds_has_its_interval_by_chi_squared():
    (spread,) = variability.spreads(replicate({"a": trials("a", log_normal(1, 20, 0, 0.3))}))
    low, high = spread.seed_interval.low, spread.seed_interval.high
    assert stats.chi2.cdf(19 * (spread.seed_sd / low) ** 2, 19) == pytest.approx(0.975)
    assert stats.chi2.cdf(19 * (spread.seed_sd / high) ** 2, 19) == pytest.approx(0.025)


def test_a_choice_by_one_seed_is_told_by_the_others():
    scores = np.random.default_rng(3).uniform(1, 9, (6, 3))
    by, told, fails = optimism.told_by_others(scores, [2, 6])
    expected = statistics.seed_optimism(scores, [2, 6])
    np.testing.assert_allclose(by, expected.chosen_on)
    np.testing.assert_allclose(told, expected.told_on)
    assert fails.tolist() == [0, 0]


def test_a_choice_that_may_fail_elsewhere_has_the_chance_beside_it():
    scores = np.array([[1.0, math.inf, 5.0], [2.0, 3.0, 4.0]])
    (row,) = optimism.seed_choices(study_of({"a": trials("a", scores)}))
    # By seeds 0, 1, 2 in turn the first, the second and the second is chosen.
    assert row.chosen_by == pytest.approx((1 + 3 + 4) / 3)
    # Elsewhere: (inf, 5), (2, 4), (2, 3): five scores and one failure.
    assert row.told_by == pytest.approx((5 + 2 + 4 + 2 + 3) / 5)
    assert row.fails == pytest.approx(1 / 6)


def test_seeds_that_differ_between_configs_are_not_compared():
    table = trials("a", np.array([[1.0, 2.0], [3.0, 4.0]]))
    table.loc[3, "seed"] = 9
    assert optimism.seed_choices(study_of({"a": table})) == []


def reported(arm: str, trial: str, value: float) -> pd.DataFrame:
    return pd.DataFrame(
        [{"arm": arm, "trial_id": trial, "discriminator_updates": 1, "name": SCORE,
          "split": "report", "n_generated": 10, "n_real": 10, "value": value,
          "standard_error": 0.1, "floor": 1.0}]
    )  # fmt: skip


def test_what_select_chose_stands_beside_what_report_tells():
    table = trials("a", np.array([[2.0], [4.0]]))
    study = study_of({"a": table}, reported=reported("a", "a-c000-s0", 2.5))
    (row,) = optimism.split_choices(study).to_dict("records")
    assert (row["select"], row["report"]) == (2.0, 2.5)
    assert (row["difference"], row["ratio"]) == (0.5, 1.25)
    assert math.isnan(row["select_se"])
    assert "No generator was measured on the report split" in text_of(study_of({"a": table}))


def test_the_last_checkpoint_is_compared_with_the_best():
    scores = np.array([[2.0], [4.0], [math.inf], [5.0]])
    (found,), ratio = optimism.checkpoint_choices(study_of({"a": trials("a", scores)}))
    assert ratio
    assert (found.ratio.value, found.ratio.n, found.left_out) == (1.5, 3, 1)
    assert found.evaluations == 3
    signed = study_of({"a": trials("a", np.array([[-2.0], [4.0]]))})
    (found,), ratio = optimism.checkpoint_choices(signed)
    assert not ratio
    assert found.ratio.value == pytest.approx((-1.0 + 2.0) / 2)


def test_a_bare_table_and_no_outcome_at_all():
    table = trials("a", np.array([[2.0, 3.0], [4.0, 5.0]])).drop(columns=f"last.{SCORE}")
    study = study_of({"a": table.assign(**{f"last.{SCORE}": np.nan})})
    assert "No trial has a score both" in text_of(study)
    lost = table.assign(**{f"last.{SCORE}": 1.0}, status="failed")
    assert seeds.section(study_of({"a": lost})) is None


def test_the_section_is_in_the_report_and_made_twice_is_equal(synthetic):
    study = Study.load(synthetic({"a": [1.0, 2.0, math.inf], "b": [3.0, 4.0, 5.0]}))
    first, again = report.render(study), report.render(study)
    assert seeds.TITLE in first
    assert first == again
