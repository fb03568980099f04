from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import sanity
from analysis.page import Section
from analysis.report import render
from analysis.tables import Study, Tables
from ganstudy.store import StudyFolder


def row(experiment, name, series, x, value, repeat=0, n=1000, direction="minimize") -> dict:
    return {
        "experiment": experiment, "name": name, "direction": direction, "series": series, "x": x,
        "repeat": repeat, "n_generated": n, "n_real": 1000, "value": value,
        "standard_error": math.nan,
    }  # fmt: skip


def experiments() -> list[dict]:
    """fd sees everything, precision no missing class and no blur."""
    rows = []
    for repeat in range(3):
        for k in (1, 2, 3):
            rows.append(row("classes_kept", "fd", "classes", k, 10 - k + repeat, repeat, 300))
            precision = 0.9 + 0.01 * ((k + repeat) % 3)
            rows.append(
                row("classes_kept", "precision", "classes", k, precision, repeat, 300, "maximize")
            )
        for n in (50, 100, 1000):
            rows.append(row("floor_by_n", "fd", "train", n, 100 / n, repeat, n))
        for i, x in enumerate((0, 0.5, 1)):
            for series in ("blur", "noise"):
                rows.append(row("ladders", "fd", series, x, i + repeat, repeat))
                shown = 1.0 if series == "blur" else 1 - x
                rows.append(
                    row("ladders", "precision", series, x, shown, repeat, direction="maximize")
                )
    for rank in range(1, 13):
        series = f"a-c{rank:02d}-s0"
        rows.append(row("agreement", "kd_a", series, rank, float(rank)))
        rows.append(row("agreement", "kd_b", series, rank, float(rank % 6), n=500))
        rows.append(row("agreement", "recall_a", series, rank, -float(rank), direction="maximize"))
    return rows


@pytest.fixture
def study(synthetic) -> Study:
    folder = synthetic({"a": [1.0, 2.0]})
    StudyFolder(folder).write_sanity(experiments())
    return Study.load(folder)


@pytest.mark.parametrize("ties", [False, True])
def test_spearman_is_scipys(ties):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 40))
    if ties:
        x, y = x.round(), y.round()
    expected = stats.spearmanr(x, y).statistic
    assert float(sanity.spearman(x, y)) == pytest.approx(expected, abs=1e-12)
    many = sanity.spearman(np.stack((x, -x)), np.stack((y, y)))
    assert many == pytest.approx([expected, -expected], abs=1e-12)


def test_a_constant_score_has_no_rho():
    assert math.isnan(sanity.spearman([1, 2, 3], [5, 5, 5]))
    assert math.isnan(sanity.rank_agreement([1.0, 2, 3, 4, 5], [0.5] * 5).value)


def test_rho_without_an_interval_where_few_or_one_order_says_all():
    assert sanity.rank_agreement([1, 2, 3], [1, 2, 3]).n == 3
    assert math.isnan(sanity.rank_agreement([1, 2, 3], [1, 2, 3]).value)
    seven = sanity.rank_agreement(range(7), [1, 0, 2, 3, 4, 6, 5])
    assert seven.value == pytest.approx(1 - 6 * 4 / (7 * 48))
    assert not seven.has_interval
    assert sanity.rank_agreement(range(20), range(20)) == (1.0, None, None, 20)


def test_generators_without_a_score_are_left_out():
    x = [1.0, 2, 3, 4, 5, math.nan, 7, 8, 9, 10]
    y = [1.0, 3, 2, 4, math.inf, 6, 7, 9, 8, 10]
    kept = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(a) and math.isfinite(b)]
    found = sanity.rank_agreement(x, y)
    assert found.n == 8
    assert found.value == pytest.approx(stats.spearmanr(*zip(*kept, strict=True)).statistic)
    assert found.low < found.value < found.high


def test_the_interval_holds_the_true_rho_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    r, trials = 0.8, 200
    truth = 6 / math.pi * math.asin(r / 2)  # of two normal variables with correlation r
    covered = 0
    for _ in range(trials):
        x = rng.normal(size=24)
        y = r * x + math.sqrt(1 - r * r) * rng.normal(size=24)
        found = sanity.rank_agreement(x, y)
        covered += found.low <= truth <= found.high
    # Bootstrap percentiles of 24 are somewhat narrow; 200 trials have a standard error of 1.7 %.
    assert 0.86 < covered / trials < 0.99


def test_rho_is_one_where_a_score_worsens_whichever_way_is_better(study):
    kept = {p.name: p for p in sanity.panels(study.results.sanity, "classes_kept")}
    assert kept["fd"].lines[0].rho == pytest.approx([1, 1, 1])
    assert kept["fd"].lines[0].mean == [10.0, 9.0, 8.0]
    assert kept["fd"].lines[0].low == [9.0, 8.0, 7.0]
    assert kept["fd"].n == [300]
    spoilt = {p.name: p for p in sanity.panels(study.results.sanity, "ladders")}
    blur, noise = spoilt["precision"].lines
    assert noise.rho == pytest.approx([1, 1, 1])
    assert all(map(math.isnan, blur.rho))
    assert sanity.sees(noise)
    assert not sanity.sees(blur)


def test_agreement_is_of_orders_not_of_signs(study):
    pairs = {(p.first, p.second): p for p in sanity.agreement_data(study.results.sanity)}
    assert set(pairs) == {("kd_a", "kd_b"), ("kd_a", "recall_a"), ("kd_b", "recall_a")}
    assert pairs["kd_a", "recall_a"].all.value == pytest.approx(1)
    ranks = np.arange(1, 13)
    expected = stats.spearmanr(ranks, ranks % 6).statistic
    assert pairs["kd_a", "kd_b"].all.value == pytest.approx(expected)
    # The better half are ranks 1 to 6, of which the sixth is kd_b's best.
    better = stats.spearmanr(ranks[:6], ranks[:6] % 6).statistic
    assert pairs["kd_a", "kd_b"].better_half.value == pytest.approx(better)
    assert pairs["kd_a", "kd_b"].better_half.n == 6


def test_the_sentences_say_what_is_seen_and_of_how_many(study):
    found = sanity.section(study)
    table, kept, spoilt, floor, agreement = found.parts
    rows = table.data.to_numpy().tolist()
    assert list(table.data) == ["score", "classes missing", "blur", "noise"]
    assert rows[0] == ["fd", "1.00", "1.00", "1.00"]
    assert rows[1][2:] == ["does not move", "1.00"]
    assert kept.parts[0].startswith("fd worsens as classes go missing, precision does not")
    assert "n = 300 real images" in kept.parts[0]
    assert spoilt.parts[0].startswith("fd sees all damage; precision misses blur")
    assert "fd of real images is 0.1 at n = 1000 and 2 at n = 50" in floor.parts[0]
    assert "rank 12 generators" in agreement.parts[0]
    assert "500 images for kd_b" in agreement.parts[0]
    pairs = agreement.parts[2].data
    assert len(pairs) == 3
    assert pairs["rho, all"][1] == "1.00 [none]"


def test_the_figures_hold_the_data(study):
    found = sanity.panels(study.results.sanity, "ladders")[0]
    figure = sanity.panel_figure(found, sanity.AXES["ladders"])
    assert [trace.name for trace in figure.data] == ["blur", "noise"]
    assert list(figure.data[0].x) == [0, 1, 2]
    assert list(figure.data[0].customdata) == [0, 0.5, 1]
    assert list(figure.data[0].error_y.array) == [1, 1, 1]
    matrix = sanity.agreement_figure(sanity.agreement_data(study.results.sanity))
    assert list(matrix.data[0].x) == ["kd_a", "kd_b"]
    assert list(matrix.data[0].y) == ["kd_b", "recall_a"]
    assert matrix.data[0].z[1][0] == pytest.approx(1)
    assert np.isnan(matrix.data[0].z[0][1])


def with_sanity(study: Study, frame: pd.DataFrame) -> Study:
    return replace(study, results=Tables.of(study.results.trials, sanity=frame))


def test_the_page_has_the_section_only_where_it_was_measured(study, synthetic):
    title = "Can these scores be trusted?"
    page = render(study)
    assert title in page
    assert page == render(study)
    assert "Do feature networks agree on generators?" in page
    assert title not in render(with_sanity(study, study.results.sanity.iloc[:0]))


def test_a_study_without_labels_and_generators_has_the_rest(study):
    frame = study.results.sanity
    some = frame[frame["experiment"].isin(["floor_by_n", "ladders"])]
    rest = with_sanity(study, some)
    assert [part.title for part in sanity.section(rest).parts if isinstance(part, Section)] == [
        "Real images spoilt by degrees",
        "Real images against real ones, by n",
    ]
    assert "Can these scores be trusted?" in render(rest)
