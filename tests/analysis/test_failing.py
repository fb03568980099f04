from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

from analysis import failing, odds, statistics
from analysis.page import Figure, Section, Table, walk
from analysis.sensitivity import space
from tests.analysis.swept import BUDGET, SPACE, arm_trials, events_of, study_of


def noise(u, rng):
    return np.exp(rng.normal(size=len(u)))


def all_failed(u, rng):
    return np.full(len(u), np.inf)


def some_fail(u, rng):
    return np.where(rng.random(len(u)) < 0.3, np.inf, noise(u, rng))


def lr_kills(u, rng):
    return np.where(rng.random(len(u)) < 1 / (1 + np.exp(4 - 8 * u[:, 0])), np.inf, 1.0)


def counted(study):
    return {arm: study.counted(arm) for arm in study.arms}


def parts(section: Section, kind: type) -> dict[str, object]:
    return {part.key: part for part in walk([section]) if isinstance(part, kind)}


def texts(section: Section) -> str:
    return " ".join(part for part in walk([section]) if isinstance(part, str))


class TestRates:
    def test_each_kind_counts_a_trial_once_with_the_interval_of_its_n(self, synthetic):
        big, small = arm_trials("big", 60, noise), arm_trials("small", 20, noise)
        big.loc[:5, "status"] = "diverged"
        big.loc[6:8, "status"], big.loc[6:8, "reason"] = "stopped", "mode_collapse"
        small.loc[:1, "status"] = "diverged"
        events = [
            *(events_of(big.iloc[:10], "mode_collapse") for _ in range(2)),
            events_of(big.iloc[:3], "recovery"),
        ]
        study = study_of(synthetic, {"big": big, "small": small}, events)
        rows = failing.rate_data(study, counted(study)).set_index(["arm", "what", "kind"])
        assert rows.loc[("big", "ended", "any"), "count"] == 9
        assert rows.loc[("big", "ended", "diverged"), "count"] == 6
        assert rows.loc[("big", "ended", "stopped: mode_collapse"), "count"] == 3
        assert rows.loc[("big", "had", "mode_collapse"), "count"] == 10
        assert rows.loc[("small", "had", "mode_collapse"), "count"] == 0
        assert "recovery" not in rows.index.get_level_values("kind")
        exact = stats.binomtest(2, 20).proportion_ci(0.95, "exact")
        wilson = stats.binomtest(9, 60).proportion_ci(0.95, "wilsoncc")
        assert tuple(rows.loc[("small", "ended", "any"), ["low", "high"]]) == tuple(exact)
        assert tuple(rows.loc[("big", "ended", "any"), ["low", "high"]]) == tuple(wilson)


def test_only_what_the_comparison_rule_calls_failed_is_called_failed(synthetic):
    """One trial of four diverged; all four had an event that passed or that no rule names."""
    trials = arm_trials("a", 4, noise)
    trials.loc[0, "status"] = "diverged"
    section = failing.section(
        study_of(synthetic, {"a": trials}, [events_of(trials, "quality_drop")])
    )
    rows = parts(section, Table)["failure-rates"].data.set_index(["what", "kind"])["count"]
    assert (rows[("ended", "any")], rows[("had", "quality_drop")]) == (1, 4)
    survival = parts(section, Figure)["survival-any"]
    assert survival.title == "Survival to the first event of any kind"
    assert "not trials that failed" in survival.reading
    told = [part.title + part.reading for part in walk([section]) if isinstance(part, Figure)]
    assert not any("failure event" in text for text in [*told, texts(section)])


class TestLasting:
    def test_what_a_rule_or_the_clock_stopped_is_censored_where_it_stopped(self, synthetic):
        trials = arm_trials("a", 5, noise)
        trials["discriminator_updates"] = [600, 600, 300, 200, 100]
        trials["status"] = ["completed", "completed", "stopped", "stopped", "diverged"]
        trials["reason"] = ["", "", "time_limit", "mode_collapse", ""]
        events = [events_of(trials.iloc[[0, 3]], "mode_collapse", onset=[400, 200])]
        study = study_of(synthetic, {"a": trials}, events)
        [collapse] = failing.lasting_data(study, "mode_collapse")
        ended = sorted(zip(collapse.times, collapse.observed, strict=True))
        assert ended == [(100, 0), (200, 1), (300, 0), (400, 1), (600, 0)]
        [first] = failing.lasting_data(study, None)
        ended = sorted(zip(first.times, first.observed, strict=True))
        assert ended == [(100, 1), (200, 1), (300, 0), (400, 1), (600, 0)]

    def test_the_curve_drawn_starts_at_one_and_is_kaplan_meiers(self, synthetic):
        trials = arm_trials("a", 50, some_fail)
        failed = trials[trials["status"] == "diverged"]
        section = failing.section(
            study_of(synthetic, {"a": trials}, [events_of(failed, "mode_collapse")])
        )
        rows = parts(section, Figure)["survival-collapse"].data
        assert tuple(rows.iloc[0][["time", "survival"]]) == (0, 1)
        # Nothing is censored before the end: survival is the share left.
        assert rows["survival"].iloc[-1] == pytest.approx(1 - len(failed) / 50)
        assert rows["at_risk"].iloc[0] == 50

    def test_arms_that_last_alike_are_told_apart_once_in_twenty(self):
        """Of 300 pairs of exponential arms at most 5 % + 3 standard errors; censored at random."""
        hits = 0
        for seed in range(300):
            rng = np.random.default_rng(seed)
            pair = []
            for arm in "ab":
                when, end = rng.exponential(size=5), rng.exponential(2, size=5)
                pair.append(failing.Lasting(arm, np.minimum(when, end), when <= end))
            hits += failing.log_rank_data(pair)["p"].iloc[0] <= 0.05
        assert 0 < hits / 300 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)

    def test_four_trials_an_arm_of_four_arms_are_not_tested_and_why(self, synthetic):
        arms = {arm: arm_trials(arm, 4, noise) for arm in "abcd"}
        collapsed = arms["a"]
        events = [events_of(collapsed, "mode_collapse", onset=[10, 20, 30, 40])]
        section = failing.section(study_of(synthetic, arms, events))
        assert not any("log-rank" in key for key in parts(section, Table))
        # 2 / 70, times six pairs, of which three had no event on either side.
        assert "p = 0.029, 0.086 after adjustment for 3 pairs" in texts(section)

    def test_pairs_with_too_few_trials_are_left_out_of_the_table_and_counted(self, synthetic):
        """Two arms of eight are tested; a third of two is not, as 2 / C(10, 2) is too large."""
        arms = {"a": arm_trials("a", 8, noise), "b": arm_trials("b", 8, noise)}
        arms["c"] = arm_trials("c", 2, noise)
        events = [events_of(arms["a"], "mode_collapse", onset=range(10, 90, 10))]
        events += [events_of(arms["c"], "mode_collapse", onset=[50, 60])]
        table = parts(failing.section(study_of(synthetic, arms, events)), Table)
        table = table["survival-collapse-log-rank"]
        assert table.shown["first"].tolist() == ["a"]
        assert table.shown["second"].tolist() == ["b"]
        assert "2 of 3 pairs are not shown" in table.reading
        assert table.data["p"].iloc[0] == pytest.approx(2 / math.comb(16, 8))

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize("failing_arms", ["", "a", "ab"])
    def test_one_trial_an_arm_is_told_without_a_warning(self, synthetic, failing_arms):
        arms = {a: arm_trials(a, 1, all_failed if a in failing_arms else noise) for a in "ab"}
        study = study_of(synthetic, arms, [events_of(t, "divergence") for t in arms.values()])
        section = failing.section(study)
        assert not any("log-rank" in key for key in parts(section, Table))
        assert "Arms are not tested" in texts(section)

    def test_pairs_are_adjusted_by_holm(self):
        rng = np.random.default_rng(0)
        rate = {"a": 1.0, "b": 1.0, "c": 4.0}
        data = [
            failing.Lasting(arm, rng.exponential(1 / r, 40), np.ones(40, bool))
            for arm, r in rate.items()
        ]
        rows = failing.log_rank_data(data)
        assert list(zip(rows["first"], rows["second"], strict=True)) == [
            ("a", "b"), ("a", "c"), ("b", "c"),
        ]  # fmt: skip
        assert rows["p_holm"].tolist() == statistics.holm(rows["p"].tolist())
        assert (rows["p_holm"] <= 0.05).tolist() == [False, True, True]


class TestOdds:
    def test_the_design_runs_from_the_low_to_the_high_end(self, synthetic):
        spaces = {"a": SPACE | {"width": {"int_uniform": [2, 4]}}}
        trials = arm_trials("a", 30, noise, spaces["a"])
        of = space.sample(study_of(synthetic, {"a": trials}, spaces=spaces), "a")
        x, names = odds.design(of)
        columns = dict(zip(names, x.T, strict=True))
        lr = np.log10(trials["param.generator_optimizer.lr"])
        assert columns["generator_optimizer.lr: high vs low end (log)"] == pytest.approx(
            ((lr + 5) / 3).to_numpy()
        )
        assert columns["width: high vs low end"] == pytest.approx(
            ((trials["param.width"] - 2) / 2).to_numpy()
        )
        assert columns["n_critic: 5 vs 1"].tolist() == (trials["param.n_critic"] == 5).tolist()

    def test_a_planted_effect_is_found_and_of_the_size_planted(self, synthetic):
        study = study_of(synthetic, {"a": arm_trials("a", 1000, lr_kills)})
        data, refused = odds.odds_data(space.samples(study))
        assert not refused
        sure = data[data["p_holm"] <= 0.05]
        assert sure["term"].tolist() == ["generator_optimizer.lr: high vs low end (log)"]
        assert sure["low"].iloc[0] < math.exp(8) < sure["high"].iloc[0]

    def test_in_many_trials_it_is_the_plain_fit(self, synthetic):
        study = study_of(synthetic, {"a": arm_trials("a", 2000, lr_kills)})
        of = space.samples(study)["a"]
        x, _ = odds.design(of)
        design = np.column_stack([np.ones(2000), x])

        def loss(beta):
            linear = design @ beta
            return np.logaddexp(0, linear).sum() - linear[of.failed].sum()

        plain = optimize.minimize(loss, np.zeros(design.shape[1])).x[1:]
        data, _ = odds.odds_data({"a": of})
        assert np.log(data["odds_ratio"].to_numpy()) == pytest.approx(plain, abs=0.1)

    def test_no_effect_is_found_once_in_twenty_studies(self):
        """Studies of 60 configurations, 18 of which fail for no reason.

        Of 200 such studies 3.5 % had any of 5 coefficients sure after Holm (of 40 configurations
        with 5 failures 0.5 %), and single ones had p <= 0.05 in 3.0 % (4.3 %). Here are 40.
        """
        parameters = [space.parse(key, drawn) for key, drawn in SPACE.items()]
        hits = 0
        for seed in range(40):
            rng = np.random.default_rng(seed)
            positions = {
                p.key: rng.integers(0, 3, 60).astype(float) if p.choices else rng.random(60)
                for p in parameters
            }
            scores = np.where(np.arange(60) < 18, np.inf, 1.0)
            of = space.Sample("a", [str(i) for i in range(60)], parameters, positions, scores)
            x, names = odds.design(of)
            p = statistics.firth_logistic(x, of.failed, names).p[1:]
            hits += min(statistics.holm(p.tolist())) <= 0.05
        assert hits / 40 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 40)

    @pytest.mark.parametrize(
        ("n", "failures", "why"),
        [
            (30, 0, "no configuration failed"),
            (30, 30, "every configuration failed"),
            (30, 4, "4 of 30 failed, and 5 failures"),
            (30, 26, "26 of 30 failed"),
            (12, 6, "12 configurations are too few for 5 coefficients"),
        ],
    )
    def test_refused_with_a_reason(self, synthetic, n, failures, why):
        trials = arm_trials("a", n, lambda u, rng: np.where(np.arange(n) < failures, np.inf, 1))
        section = failing.section(study_of(synthetic, {"a": trials}))
        assert why in texts(section)
        assert "failure-odds" not in parts(section, Figure)


class TestTimeline:
    def test_onsets_are_shares_of_the_budget_and_all_are_in_the_data(self, synthetic):
        trials = arm_trials("a", 1500, noise)
        events = [
            events_of(trials, k, onset=[150] * 1500) for k in ("mode_collapse", "oscillation")
        ]
        section = failing.section(study_of(synthetic, {"a": trials}, events))
        figure = parts(section, Figure)["event-timeline"]
        assert len(figure.data) == 3000
        assert set(figure.data["share"]) == {150 / BUDGET}
        assert sum(len(trace.x) for trace in figure.plot.data) <= failing.MOST_MARKS
        assert "Drawn are 2000 of 3000" in figure.reading

    def test_a_swept_budget_is_each_trials_own(self, synthetic):
        spaces = {"a": {"budget.discriminator_updates": {"choice": [100, 200]}}}
        trials = arm_trials("a", 20, noise, spaces["a"])
        events = [events_of(trials, "oscillation", onset=[50] * 20)]
        study = study_of(synthetic, {"a": trials}, events, spaces)
        shares = failing.timeline_data(study, counted(study))["share"]
        assert shares.tolist() == (50 / trials["param.budget.discriminator_updates"]).tolist()


class TestSection:
    @pytest.mark.parametrize("n", [1, 2, 40])
    @pytest.mark.parametrize("scores", [noise, all_failed, some_fail])
    def test_every_study_can_be_told_and_is_told_alike_twice(self, synthetic, n, scores):
        arms = {arm: arm_trials(arm, n, scores) for arm in ("a", "b")}
        study = study_of(synthetic, arms)
        first, second = (parts(failing.section(study), Figure) for _ in range(2))
        assert "failure-rates-drawn" in first
        assert {k: f.plot.to_json() for k, f in first.items()} == {
            k: f.plot.to_json() for k, f in second.items()
        }
        keys = [p.key for p in walk([failing.section(study)]) if isinstance(p, Figure | Table)]
        assert len(keys) == len(set(keys))

    def test_one_arm_alone_has_no_test(self, synthetic):
        trials = arm_trials("a", 40, some_fail)
        section = failing.section(study_of(synthetic, {"a": trials}))
        assert "One arm alone" in texts(section)
        assert not any("log-rank" in key for key in parts(section, Table))

    def test_no_failures_give_sentences_not_curves(self, synthetic):
        section = failing.section(study_of(synthetic, {"a": arm_trials("a", 40, noise)}))
        assert "No trial came to mode collapse" in texts(section)
        assert "No trial had events" in texts(section)
        assert set(parts(section, Figure)) == {"failure-rates-drawn"}

    def test_none_where_no_trial_ended(self, synthetic):
        trials = arm_trials("a", 3, noise).assign(status="pending")
        assert failing.section(study_of(synthetic, {"a": trials})) is None

    def test_several_seeds_are_said_to_be_no_independent_draws(self, synthetic):
        trials = arm_trials("a", 6, some_fail)
        other = {name: trials[name] + "-1" for name in ("trial_id", "result_hash")}
        more = trials.assign(seed=1, **other)
        design = {"sampler": "random", "seeds": [0, 1]}
        study = study_of(synthetic, {"a": pd.concat([trials, more])}, design=design)
        assert "resemble each other" in texts(failing.section(study))
