"""A study goes on from another working directory, and from another place."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from ganstudy.cli import _tracking, _tracking_of, app
from ganstudy.display import Display
from ganstudy.gan.datasets.base import content_hash, loaded
from ganstudy.records import load_results
from ganstudy.store import StudyFolder
from ganstudy.study.checks import load_study
from ganstudy.study.reading import read_yaml
from ganstudy.sweep.driver import Run, pending
from ganstudy.trial import TrialSpec
from tests.conftest import write_yaml
from tests.study.test_paths import npz, save_images
from tests.sweep.test_executors import assert_same


@pytest.fixture
def study(tmp_path, tiny):
    """A study of data beside its YAML, by a relative path; and another folder to stand in."""
    (tmp_path / "home").mkdir()
    save_images(tmp_path / "home" / "digits.npz", 0)
    (tmp_path / "elsewhere").mkdir()
    save_images(tmp_path / "elsewhere" / "digits.npz", 1)  # of the same name, and not meant
    tiny["base"]["dataset"] = npz("digits.npz")
    tiny["base"]["budget"] = {"discriminator_updates": 20}
    tiny["arms"] = {"a": {"loss": "hinge"}}
    return write_yaml(tmp_path / "home" / "study.yaml", tiny)


def undisturbed(study, runs: Path, *overrides: str) -> Path:
    """Run a study in one go, without MLflow and report; return its folder."""
    spec = load_study(study, overrides)
    folder = StudyFolder(runs / "whole")
    folder.create()
    run = Run(spec, folder, "", in_process=True)
    run.begin()
    with Display(Console(quiet=True), 9, spec.measure.primary, True, 0) as display:
        run.execute(display, pending(spec, folder))
    run.conclude(score=False)
    return folder.folder


def done(result) -> None:
    assert result.exit_code == 0, (result.stdout, result.stderr, result.exception)


def test_run_here_resumed_extended_and_repeated_there(study, tmp_path, run, monkeypatch):
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    monkeypatch.chdir(home)
    whole = undisturbed(Path("study.yaml"), home, "design.configs=3")
    done(run("run", "study.yaml", "--runs", "runs", "--max-trials", 1))
    monkeypatch.chdir(elsewhere)
    done(run("resume", home / "runs" / "tiny"))
    more = ("--runs", "../home/runs", "--extend", "--set", "design.configs=3")
    done(run("run", "../home/study.yaml", *more))
    assert_same(whole, home / "runs" / "tiny")
    assert len(load_results(home / "runs" / "tiny").trials) == 3

    # `from` and the data are relative to their own files, wherever they are read.
    asked = {"study": "again", "replicate": {"from": "../home/runs/tiny", "seeds": 1}}
    again = write_yaml(elsewhere / "again.yaml", asked)
    monkeypatch.chdir(tmp_path)
    spec = load_study(again)
    assert spec.dataset.path == str(home / "digits.npz")
    done(run("run", "elsewhere/again.yaml", "--runs", "home/runs"))
    stored = read_yaml(home / "runs" / "again" / "study.yaml")
    assert stored["replicate"]["from"] == "../tiny"
    assert stored["arms"]["a"]["dataset"]["path"] == str(home / "digits.npz")


def test_runs_that_are_moved_with_their_data_go_on(study, tmp_path, run, monkeypatch):
    runs = tmp_path / "runs"
    runs.mkdir()
    shutil.copy(tmp_path / "home" / "digits.npz", runs / "digits.npz")
    monkeypatch.chdir(tmp_path)
    shell = ("--set", "base.dataset.path=runs/digits.npz")  # a shell's path: of this folder
    done(run("run", study, "--runs", "runs", "--name", "cut", *shell, "--max-trials", 1))
    undisturbed(study, runs, shell[1])
    assert (
        read_yaml(runs / "cut" / "study.yaml")["arms"]["a"]["dataset"]["path"] == "../digits.npz"
    )
    moved = tmp_path / "elsewhere" / "moved"
    os.rename(runs, moved)
    monkeypatch.chdir("/")
    done(run("resume", moved / "cut"))
    assert_same(moved / "whole", moved / "cut")
    (row,) = load_results(moved / "cut").trials.query("trial_id == 'a-c00-s0'").to_dict("records")
    assert TrialSpec.load(moved / "cut" / row["config"]).train.dataset.path == str(
        moved / "digits.npz"
    )


def test_data_that_changed_are_refused(study, tmp_path, run):
    runs = tmp_path / "runs"
    done(run("run", study, "--runs", runs, "--max-trials", 1))
    save_images(tmp_path / "home" / "digits.npz", 2)
    content_hash.cache_clear()  # another process would not have read the old ones
    loaded.cache_clear()
    refused = run("resume", runs / "tiny")
    assert refused.exit_code == 2
    assert "or its data changed: the trial a-c00-s0 is no longer what it was" in refused.stderr


def test_where_a_study_is_tracked_moves_with_its_runs_folder(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec, runs = load_study(study), tmp_path / "runs"
    for name, uri in (
        ("own", None),
        ("given", "sqlite:///runs/other.db"),
        ("server", "http://h:1"),
    ):
        folder = StudyFolder(runs / name)
        folder.create()
        Run(spec, folder, _tracking(runs, uri)).begin()
    moved = tmp_path / "elsewhere" / "moved"
    os.rename(runs, moved)
    monkeypatch.chdir("/")
    assert _tracking_of(moved / "own") == f"sqlite:///{moved}/mlflow.db"
    assert _tracking_of(moved / "given") == f"sqlite:///{moved}/other.db"
    assert _tracking_of(moved / "server") == "http://h:1"


def test_a_job_is_refused_data_in_the_copy_that_ray_deletes(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "home")
    sent = ["submit", "study.yaml", "--address", "http://127.0.0.1:1", "--runs", "/shared"]
    refused = CliRunner().invoke(app, sent)
    assert refused.exit_code == 2
    assert "digits.npz: the job runs in a copy of this directory" in refused.stderr
    whole = CliRunner().invoke(
        app, [*sent, "--set", f"base.dataset.path={tmp_path}/home/digits.npz"]
    )
    assert "no Ray dashboard at" in whole.stderr
