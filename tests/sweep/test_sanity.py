"""The sanity command on a real study: its rows, its report, and what it refuses."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from ganstudy.cli import app
from ganstudy.gan.datasets import DATASETS
from ganstudy.measure.protocol import MeasureConfig
from ganstudy.records import SANITY, load_results
from ganstudy.registry import StudyError
from ganstudy.store import StudyFolder
from ganstudy.study.checks import load_study
from ganstudy.sweep.driver import judging, prepare
from ganstudy.sweep.sanity import measures, networks, spread
from tests.conftest import TINY

cli = CliRunner()


def invoke(*arguments):
    return cli.invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tracking_store) -> Path:
    """A study that has run, and its sanity study."""
    place = tmp_path_factory.mktemp("sanity")
    with (place / "study.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(TINY, file)
    run = invoke("run", place / "study.yaml", "--runs", place, "--in-process",
                 "--tracking-uri", tracking_store)  # fmt: skip
    assert run.exit_code == 0, run.output
    result = invoke("sanity", place / "tiny", "--features", "pixels", "--repeats", 1)
    assert result.exit_code == 0, result.output
    assert "agreement: 4 samples scored" in result.stderr
    return place / "tiny"


def original(folder: Path) -> Path:
    """Return what the study was run from."""
    return folder.parent / "study.yaml"


def test_all_experiments_have_rows_and_the_report_tells_them(folder):
    found = load_results(folder).sanity
    assert set(found["experiment"]) == {"classes_kept", "floor_by_n", "ladders", "agreement"}
    assert found["value"].map(math.isfinite).all()
    own = {"kd_small_cnn", "precision_small_cnn", "diversity_small_cnn", "coverage_small_cnn"}
    assert set(found.loc[found["experiment"] == "ladders", "name"]) == own
    agreement = found[found["experiment"] == "agreement"]
    assert set(agreement["name"]) == {"kd_small_cnn", "kd_pixels"}
    assert "Can these scores be trusted?" in (folder / "report.html").read_text("utf-8")


def test_a_generator_is_scored_as_in_its_trial(folder):
    """Same weights, noise and real images: the same score, and the same order of trials."""
    results = load_results(folder)
    rows = results.sanity[results.sanity["name"] == "kd_small_cnn"]
    again = rows[rows["experiment"] == "agreement"].sort_values("x")
    recorded = results.trials.set_index("trial_id")["best.kd_small_cnn_60"]
    assert len(again) == len(recorded) == 4
    # Sampled in one batch here as there; only threads of BLAS may sum in another order.
    assert again["value"].tolist() == pytest.approx(recorded[again["series"]].tolist(), rel=1e-4)
    assert recorded[again["series"]].is_monotonic_increasing


def test_the_generators_span_the_ranking_without_equal_runs(folder):
    spec = load_study(folder / "study.yaml")
    trials = StudyFolder(folder).trial_rows()
    ranked = spread(spec, trials, 24)
    assert len(ranked) == 4
    assert spread(spec, [*trials, *trials], 24) == ranked
    assert spread(spec, trials, 2) == [ranked[0], ranked[-1]]
    broken = ranked[0] | {"best.kd_small_cnn_60": math.nan}
    others = [t for t in trials if t["trial_id"] != broken["trial_id"]]
    assert spread(spec, [broken, *others], 24)[-1] == broken


def test_only_networks_that_read_the_data_are_compared(folder):
    spec = load_study(folder / "study.yaml")
    usual = [network.name for network in networks(spec, ())]
    assert {"pixels", "lite0"} <= set(usual)
    assert "small_cnn" not in usual
    with pytest.raises(StudyError, match="did you mean 'pixels'"):
        networks(spec, ["pixel"])
    ring = load_study(original(folder), ["base.dataset=ring", "measure.features=pixels"])
    assert "lite0" not in [network.name for network in networks(ring, ())]
    with pytest.raises(StudyError, match="small_cnn reads images"):
        networks(ring, ["small_cnn"])


def test_a_primary_that_would_be_blind_is_left_to_the_kernel_distance(folder):
    spec = load_study(original(folder), ["base.dataset=mnist5k", "measure.samples=1000",
                                         "measure.metrics=[frechet_distance]"])  # fmt: skip
    own, pixels, lite0 = measures(spec, networks(spec, ["pixels", "lite0"]))
    names = [[metric.name for metric in measure.metrics] for measure in (own, pixels, lite0)]
    assert names[0] == ["frechet_distance", "kernel_distance"]
    assert names[1] == names[2] == ["kernel_distance"]  # 784 and 1,280 features
    assert [m.samples for m in (own, pixels, lite0)] == [1000, 1000, 500]


def test_wrong_input_exits_2_and_writes_nothing(folder, tmp_path):
    table = (folder / SANITY).read_bytes()
    assert invoke("sanity", tmp_path).exit_code == 2
    assert "holds no study.yaml" in invoke("sanity", tmp_path).stderr
    unknown = invoke("sanity", folder, "--features", "pixel")
    assert unknown.exit_code == 2
    assert unknown.stderr.startswith("--features: unknown feature network 'pixel'")
    driver = StudyFolder(folder)
    driver.lock()
    try:
        busy = invoke("sanity", folder)
    finally:
        driver.unlock()
    assert busy.exit_code == 2
    assert "another process is running the study" in busy.stderr
    assert (folder / SANITY).read_bytes() == table


def test_what_is_told_of_the_best_generators_outlives_the_next_preparation(folder):
    study = StudyFolder(folder)
    told = study.read_json("protocol.json")["reported"]
    assert {how["split"] for how in told.values()} == {"report"}
    prepare(load_study(original(folder)), study)
    assert study.read_json("protocol.json")["reported"] == told


def test_a_study_on_imagenet_features_has_no_second_judge_of_their_name():
    data = DATASETS.build("mnist5k")
    own = MeasureConfig.from_dict({"metrics": ["kernel_distance"]}, 60)
    assert [measure.primary for measure in judging(data, own)] == ["kd_lite0_1k"]
    lite0 = {"features": {"name": "lite0", "side": 32}, "metrics": ["kernel_distance"]}
    assert judging(data, MeasureConfig.from_dict(lite0, 60)) == []
