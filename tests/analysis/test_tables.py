from __future__ import annotations

import math

import pandas as pd
import pytest

from analysis.bare import TableError
from analysis.report import render, summarize, write_reports
from analysis.style import score_axis
from analysis.tables import Judgement, Study, Tables
from analysis.trials import trial_rows
from ganstudy.records import Event, load_results
from ganstudy.store import StudyFolder
from ganstudy.study.outcomes import ScoreRule
from tests.analysis.conftest import SCORE
from tests.conftest import seal

INF = math.inf


def test_tables_in_memory_are_read_like_those_of_a_folder(synthetic):
    folder = synthetic({"a": [3.0, INF]})
    read = Tables(folder)
    results = load_results(folder)
    held = Tables.of(results.trials, points=results.points, events=results.events)
    for tables in (read, held):
        assert len(tables.points_of(SCORE)) == 6
        assert tables.points_of("nothing").empty
        assert tables.point_names() == [SCORE]
        clock = tables.clock()
        assert clock["wall_seconds"].tolist() == [0, 5, 10] * 2
        assert clock["before"].isna().all()
    pd.testing.assert_frame_equal(read.points_of(SCORE), held.points_of(SCORE))


def test_what_a_trial_scores_depends_on_the_rule_alone(synthetic):
    study = Study.load(synthetic({"a": [3.0, 5.0, INF]}))
    trials = study.results.trials
    trials[f"last.{SCORE}"] = [4.0, math.nan, 2.0]
    trials.loc[1, "status"] = "stopped"
    scores = lambda **how: study.scores(trials, ScoreRule(SCORE, **how)).tolist()  # noqa: E731
    assert scores() == [3, INF, INF]
    assert scores(keep_stopped=True) == [3, 5, INF]
    assert scores(checkpoint="last") == [4, INF, INF]
    assert scores(sign=-1) == [-3, INF, INF]
    assert study.scores(trials, ScoreRule("never_measured")).tolist() == [INF] * 3


def test_an_event_that_lasts_to_the_end_fails_a_trial_where_the_study_said_so(synthetic):
    folder = synthetic({"a": [3.0, 5.0, 7.0]}, judgement={"failures": ["mode_collapse"]})
    for config, ended in ((0, None), (1, 80)):
        trial = StudyFolder(folder).trial(f"a-c0{config}-s0")
        attempt, record = trial.latest()
        happened = Event("mode_collapse", 10, 20, 1.0, {}, ended)
        attempt.save(record.__class__(record.result, record.points, [happened], record.files), {})
    StudyFolder(folder).compact()
    study = Study.load(folder)
    assert study.judgement == Judgement(failures=("mode_collapse",))
    assert study.unit_scores("a").tolist() == [INF, 5, 7]


def test_the_judgement_has_defaults_and_may_ask_for_the_last_checkpoint(synthetic):
    assert Study.load(synthetic({"a": [1.0]})).judgement == Judgement(None, 0.1, "best", ())
    asked = {"checkpoint": "last", "k": 3}
    said = Study.load(synthetic({"a": [1.0]}, at="other", judgement=asked))
    assert said.judgement.k == 3
    assert said.score_rule.checkpoint == "last"


def bare(rows: dict, path) -> None:
    pd.DataFrame(rows).to_parquet(path)


def test_any_table_with_arms_and_scores_can_be_reported(tmp_path):
    rows = {"arm": ["x"] * 8 + ["y"] * 8, "best.fid": [*range(1, 8), math.nan, *range(11, 19)]}
    rows["param.lr"] = [10.0**-i for i in range(8)] * 2
    bare(rows, tmp_path / "mine.parquet")
    study = Study.load(tmp_path / "mine.parquet")
    assert study.primary == "fid"
    assert study.unit_scores("x").tolist()[-1] == INF
    assert study.independent
    assert not study.paired
    page = render(study)
    assert "x scored better than y in 56 of 64 pairs" in page
    assert "how its trials were drawn is not known" in page
    write_reports([tmp_path / "mine.parquet"], tmp_path / "report.html", ["html", "md", "csv"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"best.fid": [1.0]}, "no column 'arm'"),
        ({"arm": ["x"]}, "no column best.<score>"),
        ({"arm": ["%{x}"], "best.fid": [1.0]}, "must not hold '%{'"),
    ],
)
def test_a_table_without_what_is_needed_is_refused(rows, message, tmp_path):
    bare(rows, tmp_path / "trials.parquet")
    with pytest.raises(ValueError, match=message):
        Study.load(tmp_path)


def test_a_table_of_an_older_version_is_completed_and_said_to_be(synthetic):
    folder = synthetic({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    trials = pd.read_parquet(folder / "trials.parquet")
    older = trials.drop(columns=["samples", "samples_best", "threads", "started_at"])
    older.to_parquet(folder / "trials.parquet")
    seal(folder / "trials.parquet")
    page = render(Study.load(folder))
    assert "has no column started_at, threads, samples, samples_best" in page


def test_columns_of_a_newer_version_change_nothing(synthetic):
    folder = synthetic({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    before = render(Study.load(folder))
    trials = pd.read_parquet(folder / "trials.parquet")
    trials["of_the_future"] = "?"
    trials.to_parquet(folder / "trials.parquet")
    seal(folder / "trials.parquet")
    assert render(Study.load(folder)) == before


def test_copies_that_controls_added_are_no_contenders(synthetic):
    said = {"same": {"arm": "a", "again": "a_again"}, "broken": None}
    study = Study.load(synthetic({"a": [1.0], "b": [2.0], "a_again": [1.5]}, controls=said))
    assert study.contenders == ["a", "b"]
    assert study.controls == {"same": ("a", "a_again")}


def test_trials_without_a_hash_are_no_copies_of_each_other(tmp_path):
    hashes = [None, None, "same", "same", None]
    bare(
        {"arm": "x", "best.fid": [1.0, 2, 3, 3, 4], "result_hash": hashes},
        tmp_path / "trials.parquet",
    )
    assert Study.load(tmp_path).counted("x")["best.fid"].tolist() == [1, 2, 3, 4]


def test_an_arm_of_which_no_config_is_repeated_counts_no_trial(synthetic):
    replicate = {"configs": {"a": {"c00": {}}}}
    study = Study.load(synthetic({"a": [1.0, 2.0], "b": [3.0]}, replicate=replicate))
    assert len(study.counted("a")) == 1
    assert study.counted("b").empty


@pytest.mark.parametrize(
    ("low", "high"),
    [(0.5, 1e308), (1e308, 1.7e308), (1.7e308, 1.7e308), (5e-324, 5e-324), (5e-324, 1.7e308)],
)
def test_scores_at_the_ends_of_what_a_number_holds_have_an_axis(low, high):
    ticks = score_axis("score", [low, high])["tickvals"]
    assert ticks == sorted(set(ticks))
    assert len(ticks) > 1
    assert all(0 < tick < INF for tick in ticks)


@pytest.mark.parametrize(
    ("table", "column"),
    [
        *(("events", c) for c in ("onset", "detected", "ended", "severity", "evidence")),
        *(("points", c) for c in ("wall_seconds", "images_seen", "generator_updates")),
    ],
)
def test_a_column_that_another_version_did_not_write_is_said_to_be_missing(
    table, column, synthetic
):
    folder = synthetic({"a": [1.0, 2.0, INF, INF], "b": [3.0, 4.0, 5.0, INF]})
    file = folder / f"{table}.parquet"
    pd.read_parquet(file).drop(columns=column).to_parquet(file)
    seal(file)
    study = Study.load(folder)
    assert getattr(study.results, table)[column].isin(["", math.nan]).all()
    assert f"{table}.parquet has no column {column}" in render(study)
    assert not trial_rows(study, study.results.trials)["events"].str.contains("nan").any()


def test_tables_that_were_not_copied_are_told_before_the_answer(synthetic):
    folder = synthetic(
        {"a": [1.0, 2.0], "b": [2.0, 3.0]}, judgement={"failures": ["mode_collapse"]}
    )
    (folder / "events.parquet").unlink()
    (folder / "points.parquet").unlink()
    page = render(Study.load(folder))
    assert page.index("not judged as was fixed") < page.index('id="verdict"')
    assert "There is no points.parquet" in page
    row = dict(zip(*(part[0] for part in _arms(folder)), strict=True))
    assert row["collapsed"] == "–"


def _arms(folder):
    found = summarize(folder)
    return [found.columns], found.rows


@pytest.mark.parametrize(
    ("key", "value"),
    [("margin", "abc"), ("margin", -1), ("k", 0), ("checkpoint", "middle"), ("kk", 3)],
)
def test_a_judgement_that_cannot_be_is_refused_by_its_key(synthetic, key, value):
    folder = synthetic({"a": [1.0]}, judgement={key: value})
    with pytest.raises(TableError, match=f"judgement.*{key}"):
        Study.load(folder)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"best.coverage": [0.1], "best.recall": [0.2]}, "which of coverage, recall decides"),
        ({"best.fid": ["high"]}, "must hold numbers"),
    ],
)
def test_a_bare_table_is_not_judged_by_a_guess(columns, message, tmp_path):
    bare({"arm": ["x"]} | columns, tmp_path / "trials.parquet")
    with pytest.raises(TableError, match=message):
        Study.load(tmp_path)


def test_of_several_scores_the_known_one_decides(tmp_path):
    bare({"arm": ["x"], "best.coverage_9": [0.1], "best.kd_9": [0.2]}, tmp_path / "t.parquet")
    assert Study.load(tmp_path / "t.parquet").primary == "kd_9"
