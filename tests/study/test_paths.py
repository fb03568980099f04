"""Paths of a study: what each is relative to, and what a study's folder stores of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from ganstudy.catalog import REGISTRIES
from ganstudy.gan.datasets import DATASETS
from ganstudy.measure.features import FEATURES
from ganstudy.paths import KINDS, map_paths, path_keys, resolve_paths, resolve_uri, store_paths
from ganstudy.registry import StudyError, path_options
from ganstudy.storage import write_json
from ganstudy.study.checks import load_study
from ganstudy.study.plan import plan
from ganstudy.study.reading import read_yaml
from ganstudy.study.spec import parse_study
from ganstudy.trial import TrialSpec
from tests.conftest import write_yaml


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A folder with a study's YAML, another to stand in, and data in both."""
    for name, seed in (("yamls", 0), ("elsewhere", 1)):
        (tmp_path / name / "data").mkdir(parents=True)
        save_images(tmp_path / name / "data" / "digits.npz", seed)
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path


def save_images(path: Path, seed: int) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (200, 8, 8), dtype=np.uint8)
    np.savez(path, images=images, labels=np.arange(200) % 10)


def npz(path: object, **options: object) -> dict[str, object]:
    return {"name": "npz", "path": str(path), "labels_key": "labels", **options}


def data_path(spec) -> str:
    return spec.dataset.path


def test_every_option_that_is_a_path_is_one_that_a_study_resolves():
    for kind, registry in REGISTRIES.items():
        for name in registry.names():
            options = path_options(registry.get(name))
            keys = [key for key, covered in KINDS.items() if covered is registry]
            assert not options or keys, f"{kind} {name}: nothing resolves {options}"
            for option in options:
                assert (keys[0], option) in path_keys()
            suspects = {o.name for o in registry.options(name) if "path" in o.name.lower()}
            assert suspects <= options, f"{kind} {name}: declare {suspects} as AbsolutePath"
    assert path_keys() == {("replicate", "from"), ("dataset", "path"), ("features", "weights")}


def test_a_relative_path_is_relative_to_its_yaml_and_that_of_set_to_the_working_directory(
    places, tiny
):
    tiny["base"]["dataset"] = npz("data/digits.npz")
    study = write_yaml(places / "yamls" / "study.yaml", tiny)
    assert data_path(load_study(study)) == str(places / "yamls" / "data" / "digits.npz")
    assert data_path(load_study(Path("../yamls/study.yaml"))) == data_path(load_study(study))
    here = str(places / "elsewhere" / "data" / "digits.npz")
    for override in (
        "base.dataset.path=data/digits.npz",
        "base.dataset={name: npz, path: data/digits.npz, labels_key: labels}",
        "base.dataset.path=../elsewhere/./data/digits.npz",
    ):
        assert data_path(load_study(study, [override])) == here


def test_arms_may_write_the_same_place_in_different_ways(places, tiny):
    tiny["base"]["dataset"] = npz(places / "yamls" / "data" / "digits.npz")
    tiny["arms"] = {
        "a": {"dataset": {"path": "data/digits.npz"}},
        "b": {"dataset": {"path": "../yamls/data/../data/digits.npz"}},
    }
    spec = load_study(write_yaml(places / "yamls" / "study.yaml", tiny))
    assert len({arm.train({}, 0).dataset for arm in spec.arms}) == 1


def test_paths_are_found_in_choices_conditions_and_dotted_keys():
    data = {
        "base": {"dataset": {"name": "npz", "path": "a"}},
        "arms": {
            "x": {"dataset": {"path": "b"}, "space": {"dataset": {"choice": [{"path": "c"}]}}}
        },
        "space": {
            "dataset.path": {"choice": ["d", "e"], "when": {"dataset": {"path": "f"}}},
            "optimizer.lr": {"choice": [1, 2]},
        },
        "measure": {"features": {"name": "inception", "weights": "g"}},
        "replicate": {"from": "h"},
        "question": "path",
        "source": "from",
    }
    found = []
    map_paths(data, lambda path: found.append(path) or path)
    assert found == list("abcdefgh")
    assert map_paths(data, lambda path: path) == data


def test_home_is_expanded_and_variables_and_uris_are_not(places, tiny, monkeypatch):
    monkeypatch.setenv("HOME", str(places / "yamls"))
    monkeypatch.setenv("DATA", str(places / "yamls" / "data"))
    tiny["base"]["dataset"] = npz("~/data/digits.npz")
    study = write_yaml(places / "elsewhere" / "study.yaml", tiny)
    assert data_path(load_study(study)) == str(places / "yamls" / "data" / "digits.npz")
    with pytest.raises(StudyError, match=r"no such file: .*/elsewhere/\$DATA/digits.npz"):
        load_study(study, ["base.dataset.path=$DATA/digits.npz"])
    for uri in ("s3://bucket/digits.npz", "file:///digits.npz"):
        with pytest.raises(StudyError, match=r"dataset.path: must be a path of this machine, not"):
            load_study(study, [f"base.dataset.path={uri}"])


def test_a_links_parent_is_the_folder_above_its_target(places):
    (places / "link").symlink_to(places / "yamls" / "data")
    linked = DATASETS.build("npz", path=str(places / "link" / "digits.npz"))
    assert linked.path == str(places / "link" / "digits.npz")
    above = DATASETS.build("npz", path=str(places / "link" / ".." / "data" / "digits.npz"))
    assert above.path == str(places / "yamls" / "data" / "digits.npz")


@pytest.mark.parametrize("linked", [False, True])
def test_a_study_stores_what_lies_in_its_runs_folder_as_relative(tmp_path, linked):
    runs, inside = tmp_path / "runs", tmp_path / "runs" / "data" / "x.npz"
    (runs / "data").mkdir(parents=True)
    inside.touch()
    study = runs / "study"
    study.mkdir()
    if linked:
        (tmp_path / "other").symlink_to(runs)
        study = tmp_path / "other" / "study"
    data = {
        "base": {"dataset": {"path": str(inside)}},
        "measure": {"features": {"weights": str(tmp_path / "w.pth")}},
        "replicate": {"from": str(runs / "before")},
    }
    stored = store_paths(data, study)
    assert stored["base"]["dataset"]["path"] == "../data/x.npz"
    assert stored["measure"]["features"]["weights"] == str(tmp_path / "w.pth")
    assert stored["replicate"]["from"] == "../before"
    back = resolve_paths(stored, study)["base"]["dataset"]["path"]
    assert Path(back).samefile(inside)


def test_a_study_folder_that_is_a_link_stores_what_leads_back(tmp_path):
    """From runs/study, a link to another disk, `..` leads to the other disk."""
    (tmp_path / "disk" / "study").mkdir(parents=True)
    (tmp_path / "runs" / "data").mkdir(parents=True)
    (tmp_path / "runs" / "study").symlink_to(tmp_path / "disk" / "study")
    inside = tmp_path / "runs" / "data" / "x.npz"
    inside.touch()
    data = {"base": {"dataset": {"path": str(inside)}}}
    stored = store_paths(data, tmp_path / "runs" / "study")
    assert resolve_paths(stored, tmp_path / "runs" / "study") == data


def test_the_hash_of_a_trial_is_of_the_data_and_not_of_their_place(places, tiny):
    tiny["base"]["dataset"] = npz("data/digits.npz")
    study = write_yaml(places / "yamls" / "study.yaml", tiny)
    moved = shutil.copytree(places / "yamls", places / "moved") / "study.yaml"
    (places / "moved" / "data" / "digits.npz").touch()  # another time, the same content
    hashes = [trial.result_hash for trial in plan(load_study(study))]
    assert [trial.result_hash for trial in plan(load_study(moved))] == hashes
    other = load_study(study, ["base.dataset.path=data/digits.npz"])  # of the same size and name
    assert not {trial.result_hash for trial in plan(other)} & set(hashes)
    alone = load_study(study, ["base.dataset.labels_key=null", "measure.features=pixels"])
    assert not {trial.result_hash for trial in plan(alone)} & set(hashes)


def test_the_hash_of_a_trial_ignores_where_the_weights_lie(tiny, tmp_path):
    here, there = (FEATURES.build("inception", weights=str(tmp_path / n)) for n in ("a", "b"))
    assert here.identity() == there.identity() != FEATURES.build("pixels").identity()
    assert here.to_dict() != there.to_dict()


def test_a_hash_without_files_is_of_the_options_alone(tiny):
    """What was recorded of the packaged data sets stays valid."""
    trial = plan(parse_study(tiny))[0]
    assert trial.train.dataset.identity() == trial.train.dataset.to_dict()
    assert trial.measure.features.identity() == trial.measure.features.to_dict()


def test_a_trial_file_is_read_from_anywhere(places, tiny):
    runs = places / "runs"
    attempt = runs / "tiny" / "trials" / "a-c00-s0" / "attempt-1"
    attempt.mkdir(parents=True)
    tiny["base"]["dataset"] = npz(runs / "digits.npz")
    save_images(runs / "digits.npz", 0)
    (spec, *_) = plan(parse_study(tiny))
    write_yaml(attempt / "trial.json", store_paths(spec.to_dict(), runs / "tiny"))
    stored = read_yaml(attempt / "trial.json")
    assert stored["train"]["dataset"]["path"] == "../digits.npz"
    write_json(attempt / "trial.json", stored)
    assert TrialSpec.load(attempt / "trial.json") == spec


def test_the_uri_of_a_file_becomes_absolute_and_others_stay(tmp_path):
    assert resolve_uri("sqlite:///m/mlflow.db", tmp_path) == f"sqlite:///{tmp_path}/m/mlflow.db"
    for uri in ("http://host:5000", f"sqlite:///{tmp_path}/mlflow.db"):
        assert resolve_uri(uri, Path("/elsewhere")) == uri
