"""Fidelity against variety, and networks against each other: fronts and rank correlations."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import networks, trade_offs
from analysis.page import Figure, Table, walk
from analysis.report import SECTIONS
from analysis.tables import Study, Tables
from tests.analysis.conftest import SCORE
from tests.analysis.swept import arm_trials

OTHER, KERNEL = "fd_lite0_1k", "kd_lite0_1k"
INF = math.inf


def how(metric: str, network: str = "small_cnn", direction: str = "maximize") -> dict:
    return {
        "metric": {"name": metric},
        "direction": direction,
        "features": {"name": network},
        "features_hash": network,
    }


SHARES = {
    "precision_small_cnn_1k": how("precision"),
    "recall_small_cnn_1k": how("recall"),
}
PRIMARY = {SCORE: how("frechet_distance", direction="minimize")}
NETWORKS = PRIMARY | {
    OTHER: how("frechet_distance", "lite0", "minimize"),
    KERNEL: how("kernel_distance", "lite0", "minimize"),
    "coverage_lite0_1k": how("coverage", "lite0"),
}


def study_with(synthetic, columns, protocol, n=40, arms="ab", **settings) -> Study:
    """Return a study whose trials have these columns: name -> (rng, n, primary) -> values."""
    study = Study.load(synthetic({arm: [1.0] for arm in arms}, **settings))
    rng = np.random.default_rng(3)
    parts = [arm_trials(arm, n, lambda u, r: 1 + 99 * r.random(len(u))) for arm in arms]
    trials = pd.concat(parts, ignore_index=True)
    for name, values in columns.items():
        trials[f"best.{name}"] = values(rng, len(trials), trials[f"best.{SCORE}"])
    return dataclasses.replace(
        study, results=Tables.of(trials), protocol={name: dict(p) for name, p in protocol.items()}
    )


def share(rng, n, _):
    return rng.random(n)


def brute_front(x, y):
    points = list(zip(x, y, strict=True))
    return [
        not any(a >= p and b >= q and (a > p or b > q) for a, b in points) for p, q in points
    ]  # fmt: skip


@pytest.mark.parametrize("digits", [0, 1, 6])
def test_the_front_is_that_of_brute_force(digits):
    rng = np.random.default_rng(digits)
    for _ in range(20):
        x, y = rng.random((2, 30)).round(digits)
        assert trade_offs.pareto_front(x, y).tolist() == brute_front(x, y)


def test_twins_are_members_of_the_front_together_and_none_of_nothing():
    assert trade_offs.pareto_front([1, 1, 0], [1, 1, 1]).tolist() == [True, True, False]
    assert trade_offs.pareto_front([], []).tolist() == []


def test_couples_were_measured_alike():
    protocol = SHARES | {
        "recall_lite0_1k": how("recall", "lite0"),
        "coverage_small_cnn_1k": how("coverage"),
        "precision_small_cnn_1k_raw": how("precision"),
        "coverage_small_cnn_1k_raw": how("coverage"),
        "polygon_precision_1k": how("polygon_precision"),
        "polygon_recall_1k": how("polygon_recall"),
    }
    assert trade_offs.couples(protocol) == [
        ("precision_small_cnn_1k", "recall_small_cnn_1k"),
        ("polygon_precision_1k", "polygon_recall_1k"),
        ("precision_small_cnn_1k_raw", "coverage_small_cnn_1k_raw"),
    ]
    assert trade_offs.couples({"recall_a_1k": how("recall")}) == []


def test_failed_runs_are_counted_and_have_no_place(synthetic):
    study = study_with(synthetic, dict.fromkeys(SHARES, share), SHARES)
    trials = study.results.trials.copy()
    failed = trials.index[[0, 1, 45]]
    # The numbers of a run that diverged are no scores, whatever stands there.
    trials.loc[failed, "status"] = "diverged"
    trials.loc[failed, [f"best.{name}" for name in SHARES]] = 1.0
    trials.loc[trials.index[2], "best.recall_small_cnn_1k"] = math.nan
    study = dataclasses.replace(study, results=Tables.of(trials))
    data = trade_offs.trade_off_data(study, *SHARES)
    assert data.missing == {"a": 3, "b": 1}
    assert len(data.rows) == 76
    assert data.rows["front"].tolist() == brute_front(data.rows["x"], data.rows["y"])
    [figure] = trade_offs.section(study).parts
    assert "4 more failed" in figure.reading
    assert figure.data["front"].sum() == data.rows["front"].sum()
    assert [trace.name for trace in figure.plot.data][1] == "a (n = 37, 3 failed or unscored)"


def test_the_staircase_never_passes_above_a_run(synthetic):
    study = study_with(synthetic, dict.fromkeys(SHARES, share), SHARES)
    data = trade_offs.trade_off_data(study, *SHARES)
    line = trade_offs.trade_off_figure(data, study.arms).data[0]
    assert line.line.shape == "vh"
    assert list(line.x) == sorted(line.x)
    assert list(line.y) == sorted(line.y, reverse=True)


def test_thinning_keeps_the_whole_front(synthetic):
    study = study_with(synthetic, dict.fromkeys(SHARES, share), SHARES, n=1500)
    data = trade_offs.trade_off_data(study, *SHARES)
    drawn = trade_offs.thinned(data.rows)
    assert trade_offs.MOST_DRAWN <= len(drawn) < trade_offs.MOST_DRAWN + 50
    assert drawn["front"].sum() == data.rows["front"].sum() > 0
    assert {data.rows["x"].idxmin(), data.rows["x"].idxmax()} <= set(drawn.index)
    assert f"Drawn are {len(drawn)}" in trade_offs.section(study).parts[0].reading
    assert len(trade_offs.section(study).parts[0].data) == 3000


def test_nothing_measured_all_failed_and_a_missing_column(synthetic):
    study = study_with(synthetic, {}, SHARES)
    [text] = trade_offs.section(study).parts
    assert "no column" in text
    assert trade_offs.section(dataclasses.replace(study, protocol=PRIMARY)) is None
    failed = {name: lambda rng, n, _: np.full(n, math.nan) for name in SHARES}
    trials = study.results.trials.assign(
        **{f"best.{name}": failed[name](None, 80, None) for name in SHARES}
    )
    [text] = trade_offs.section(dataclasses.replace(study, results=Tables.of(trials))).parts
    assert text.startswith("No run has both")
    empty = dataclasses.replace(study, results=Tables.of(trials.iloc[:0]))
    assert trade_offs.section(empty) is None
    assert networks.section(empty) is None


@pytest.mark.parametrize("ties", [False, True])
def test_weighted_spearman_is_scipys_of_the_repeated_points(ties):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 50))
    x, y = (x.round(), y.round()) if ties else (x, y)
    weights = rng.integers(0, 4, 50)
    codes = [stats.rankdata(v, "dense").astype(int) - 1 for v in (x, y)]
    expected = stats.spearmanr(np.repeat(x, weights), np.repeat(y, weights)).statistic
    found = networks.weighted_spearman(*codes, weights.astype(float))
    assert found == pytest.approx(expected, abs=1e-12)


def test_rho_is_scipys_and_its_interval_covers():
    """Two correlated normals: rho_s = 6 / pi asin(rho / 2); 95 % give or take simulation."""
    rng = np.random.default_rng(0)
    truth, hits, runs = 6 / math.pi * math.asin(0.35), 0, 30
    for _ in range(runs):
        x, y = rng.multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]], 60).T
        found = networks.rank_correlation(x, y, np.arange(60))
        assert found.value == pytest.approx(stats.spearmanr(x, y).statistic)
        hits += found.low <= truth <= found.high
    assert hits >= 25  # of 30: less has a probability of 0.3 % at 95 %


def test_runs_of_one_configuration_are_drawn_together():
    """Ten copies of every run add no evidence, and so must not narrow the interval."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=30)
    y = x + rng.normal(size=30)
    once = networks.rank_correlation(x, y, np.arange(30))
    tiled = [np.tile(v, 10) for v in (x, y, np.arange(30))]
    many = networks.rank_correlation(*tiled)
    assert many.value == pytest.approx(once.value)
    assert many.high - many.low == pytest.approx(once.high - once.low)
    apart = networks.rank_correlation(*tiled[:2], np.arange(300))
    assert apart.high - apart.low < 0.5 * (once.high - once.low)


def test_rho_is_refused_where_it_means_nothing():
    assert math.isnan(networks.rank_correlation([1, 2, 3], [1, 2, 3], [0, 1, 2]).value)
    assert math.isnan(networks.rank_correlation([1, 1, 1, 1], [1, 2, 3, 4], range(4)).value)
    few = networks.rank_correlation([1, 2, 3, 4], [2, 1, 3, INF], range(4))
    assert few.n == 3
    assert not networks.rank_correlation(range(5), [1, 0, 2, 3, 4], range(5)).has_interval
    assert networks.rank_correlation(range(20), range(20), range(20)) == (1.0, None, None, 20)


def agreeing(rng, n, primary):
    return primary * np.exp(0.01 * rng.normal(size=n))


def unrelated(rng, n, primary):
    return rng.normal(size=n)  # a kernel distance may well be negative


def test_planted_agreement_is_found_and_none_is_not(synthetic):
    columns = {OTHER: agreeing, KERNEL: unrelated, "coverage_lite0_1k": share}
    study = study_with(synthetic, columns, NETWORKS)
    assert networks.other_networks(study) == [OTHER, KERNEL]
    rows = networks.network_rows(study, [OTHER, KERNEL]).set_index(["score", "runs"])
    assert rows.loc[(OTHER, "all"), "low"] > 0.98
    assert rows.loc[(OTHER, "a"), "n"] == 40
    assert rows.loc[(OTHER, "better half"), "n"] == 40
    assert rows.loc[(KERNEL, "all"), "low"] < 0 < rows.loc[(KERNEL, "all"), "high"]
    section = networks.section(study)
    found = [part.key for part in walk(section.parts) if isinstance(part, Figure | Table)]
    assert found == [f"network-{OTHER}", f"network-{KERNEL}", "networks"]


def test_one_network_has_nothing_to_agree_with(synthetic):
    assert networks.section(study_with(synthetic, {}, PRIMARY)) is None


def test_adaptive_runs_have_rho_and_no_interval(synthetic):
    design = {"sampler": "tpe", "paired": False}
    study = study_with(synthetic, {OTHER: agreeing}, NETWORKS, design=design)
    rows = networks.network_rows(study, [OTHER])
    assert rows["rho"].notna().all()
    assert rows[["low", "high"]].isna().all().all()


def test_failed_runs_take_no_part_in_rho(synthetic):
    study = study_with(synthetic, {OTHER: agreeing}, NETWORKS)
    trials = study.results.trials.copy()
    trials.loc[:9, "status"] = "diverged"
    study = dataclasses.replace(study, results=Tables.of(trials))
    [figure] = [
        p for p in networks.section(study).parts if getattr(p, "key", "") == "network-" + OTHER
    ]
    assert "n = 70; 10 more failed" in figure.reading
    assert networks.network_rows(study, [OTHER])["n"].iloc[0] == 70


@pytest.mark.parametrize("arms", ["abc", "abcd"])
def test_the_judge_is_asked_of_four_generators(synthetic, arms):
    study = study_with(synthetic, {}, PRIMARY, arms=arms)
    told = pd.DataFrame(
        [
            {"arm": arm, "trial_id": f"{arm}-c0", "name": name, "value": at + sign * 1.0}
            for at, arm in enumerate(arms)
            for name, sign in ((SCORE, 1), ("kd_judge_1k", -1))
        ]
    )
    reported = {"kd_judge_1k": how("kernel_distance", "judge", "minimize")}
    results = Tables.of(study.results.trials, reported=told)
    study = dataclasses.replace(study, results=results, reported_protocol=reported)
    section = networks.section(study)
    if len(arms) < 4:
        assert section is None
        return
    [figure] = section.parts
    assert len(figure.data) == 4
    assert "Spearman's rho 1.00" in figure.reading


def test_both_are_part_of_the_report():
    assert {trade_offs.section, networks.section} <= set(SECTIONS)
