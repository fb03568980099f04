"""A study is known by its random id: not by where it lies, nor by what it is called."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import urllib.request
import uuid
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ganstudy.cli import _track_again, _tracking_of, app
from ganstudy.store import StudyFolder
from tests.conftest import ROOT, TINY, ganstudy, write_yaml
from tests.faults.study_folder import (
    STUDY_ID,
    assert_whole,
    copy_store,
    make_study,
    read_json,
    read_store,
    sync,
    texts_below,
)


@pytest.fixture(scope="module")
def tracked(tracking_store, tmp_path_factory) -> Path:
    """The runs folder of a study that MLflow holds all of."""
    runs = tmp_path_factory.mktemp("tracked") / "runs"
    copy_store(tracking_store, runs)
    make_study(runs / "tiny")
    sync(runs / "tiny")
    return runs


@pytest.fixture
def runs(tracked, tmp_path) -> Path:
    """A copy whose original the test cannot reach by accident: it is compared afterwards."""
    before = contents(tracked)
    yield Path(shutil.copytree(tracked, tmp_path / "copied"))
    assert contents(tracked) == before, "the original was written"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def invoke(*arguments: object):
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_a_copied_runs_folder_writes_to_its_own_store(tracked, runs):
    assert _tracking_of(runs / "tiny") == f"sqlite:///{runs}/mlflow.db"
    assert sync(runs / "tiny") == []
    found = assert_whole(runs / "mlflow.db")
    assert found.keys() == read_store(tracked / "mlflow.db").keys()
    for run in found.values():
        assert run["artifacts"].startswith(f"file://{runs}/mlartifacts/planned/")
        assert run["tags"]["ganstudy.folder"] == f"{runs}/tiny"
        assert run["tags"]["ganstudy.study_id"] == STUDY_ID
    assert texts_below(runs, f"{tracked}/mlartifacts") == []


def test_a_moved_runs_folder_does_not_make_the_old_path_again(runs, tmp_path):
    sync(runs / "tiny")
    moved = tmp_path / "a place with % and ä"
    os.rename(runs, moved)
    make_study_grow(moved / "tiny")
    assert sync(moved / "tiny") == []
    assert not runs.exists()
    found = assert_whole(moved / "mlflow.db")
    artifacts = moved / "mlartifacts" / "planned" / found["a-c00-s0"]["id"] / "artifacts"
    assert (artifacts / "samples" / "samples.png").read_bytes() == b"picture"


def make_study_grow(folder: Path) -> None:
    """Have something to upload: a file of the study's own run."""
    (folder / "report.html").write_text("a report")


def test_a_renamed_folder_keeps_its_runs(runs):
    before = assert_whole(runs / "mlflow.db")
    os.rename(runs / "tiny", runs / "other")
    sync(runs / "other")
    after = assert_whole(runs / "mlflow.db")
    assert {t: run["id"] for t, run in after.items()} == {t: r["id"] for t, r in before.items()}
    assert after[""]["name"] == "other"
    assert {run["tags"]["ganstudy.folder"] for run in after.values()} == {f"{runs}/other"}


def test_a_study_of_another_name_keeps_its_runs(runs):
    """`run --extend` with another `study:` writes the plan anew."""
    before = assert_whole(runs / "mlflow.db")
    folder = StudyFolder(runs / "tiny")
    folder.write_plan([row | {"study": "renamed"} for row in folder.read_plan()])
    folder.compact()
    sync(runs / "tiny")
    after = assert_whole(runs / "mlflow.db")
    assert {t: run["id"] for t, run in after.items()} == {t: r["id"] for t, r in before.items()}


def test_copies_that_went_on_differently_share_no_trial(runs):
    """Both were extended, by different trials of one name."""
    before = assert_whole(runs / "mlflow.db")
    folder = StudyFolder(runs / "tiny")
    first, second = folder.read_plan()
    folder.write_plan([first, second | {"result_hash": "another"}])
    folder.compact()
    sync(runs / "tiny")
    after = read_store(runs / "mlflow.db")
    assert {t: len(found) for t, found in after.items()} == {"": 1, "a-c00-s0": 1, "a-c01-s0": 2}
    hashes = {run["id"]: run["tags"]["result_hash"] for run in after["a-c01-s0"]}
    assert hashes[before["a-c01-s0"]["id"]] == "hash1"
    assert set(hashes.values()) == {"hash1", "another"}


def test_two_studies_of_one_name_and_store_stay_apart(runs):
    make_study(runs / "second", study_id=str(uuid.uuid4()))
    sync(runs / "second")
    sync(runs / "tiny")
    counts = {trial: len(found) for trial, found in read_store(runs / "mlflow.db").items()}
    assert counts == {"": 2, "a-c00-s0": 2, "a-c01-s0": 2}


def test_runs_of_a_study_without_an_id_are_taken_over(tracking_store, tmp_path):
    """As an older ganstudy left it: no id, an absolute path of the store; and then moved."""
    old, new = tmp_path / "old", tmp_path / "new"
    copy_store(tracking_store, old)
    make_study(old / "tiny", study_id=None)
    sync(old / "tiny")
    before = assert_whole(old / "mlflow.db")
    recorded = {"uri": f"sqlite:///{old}/mlflow.db"}
    (old / "tiny" / "tracking.json").write_text(json.dumps(recorded))
    shutil.copytree(old, new)
    original = contents(old)
    assert _tracking_of(old / "tiny") == f"sqlite:///{old}/mlflow.db"
    assert _tracking_of(new / "tiny") == f"sqlite:///{new}/mlflow.db"
    (new / "tiny" / "provenance.json").write_text(json.dumps({"study_id": STUDY_ID}))
    sync(new / "tiny")
    after = assert_whole(new / "mlflow.db")
    assert {t: run["id"] for t, run in after.items()} == {t: r["id"] for t, r in before.items()}
    assert {run["tags"]["ganstudy.study_id"] for run in after.values()} == {STUDY_ID}
    assert contents(old) == original


@pytest.mark.parametrize("store", ["missing", "garbage", "behind"])
def test_ui_brings_the_store_up_to_date(store, runs, capsys, tracking_store):
    path = runs / "mlflow.db"
    if store == "behind":
        copy_store(tracking_store, runs)
    elif store == "missing":
        path.unlink()
    else:
        path.write_bytes(b"garbage" * 100)
    folder = StudyFolder(runs / "tiny")
    assert _track_again(folder, f"sqlite:///{path}").startswith("/#/experiments/")
    assert_whole(path)
    assert (f"{path}.unusable-1" in capsys.readouterr().err) == (store == "garbage")
    folder.lock()  # `ui` has let go of it
    folder.unlock()


def test_ui_serves_the_files_of_a_moved_study(runs, tmp_path):
    """A real server of MLflow, on a folder that was moved and is not synced yet."""
    moved = tmp_path / "moved"
    os.rename(runs, moved)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ganstudy("ui", moved / "tiny", "--no-open", "--port", port)
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            assert f"http://127.0.0.1:{port}/#/experiments/" in process.stdout.readline()
            run_id = read_store(moved / "mlflow.db")["a-c01-s0"][0]["id"]
            query = f"path=samples/samples.png&run_uuid={run_id}"
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/get-artifact?{query}") as got:
                assert got.read() == b"picture"
        finally:
            process.send_signal(signal.SIGTERM)
    assert not runs.exists()


@pytest.fixture(scope="module")
def trained(tracking_store, tmp_path_factory) -> Path:
    """A real study of one trial; its runs folder holds a store."""
    home = tmp_path_factory.mktemp("trained")
    base = TINY["base"] | {"budget": {"discriminator_updates": 20}}
    smallest = TINY | {"base": base, "arms": {"a": {"loss": "hinge"}}, "design": {"configs": 1}}
    study = write_yaml(home / "study.yaml", smallest)
    copy_store(tracking_store, home / "runs")
    done = invoke("run", study, "--runs", home / "runs", "--in-process")
    assert done.exit_code == 0, done.output
    return home / "runs"


def test_a_study_gets_a_random_id_and_keeps_it(trained, tmp_path):
    runs = Path(shutil.copytree(trained, tmp_path / "runs"))
    study_id = read_json(runs / "tiny" / "provenance.json")["study_id"]
    assert uuid.UUID(study_id).version == 4
    assert read_json(runs / "tiny" / "tracking.json") == {"uri": "sqlite:///../mlflow.db"}
    os.rename(runs / "tiny", runs / "called")
    done = invoke("resume", runs / "called", "--in-process")
    assert done.exit_code == 0, done.output
    assert read_json(runs / "called" / "provenance.json")["study_id"] == study_id
    found = read_store(runs / "mlflow.db")
    assert {trial: len(own) for trial, own in found.items()} == dict.fromkeys(found, 1)
    assert {run["status"] for (run,) in found.values()} == {"FINISHED"}
    assert len(found) == 2


def test_resume_gives_an_older_study_an_id_and_records_a_new_store(
    trained, tmp_path, tracking_store
):
    runs = Path(shutil.copytree(trained, tmp_path / "runs"))
    provenance = runs / "tiny" / "provenance.json"
    origin = read_json(provenance)
    del origin["study_id"]
    provenance.write_text(json.dumps(origin))
    store = copy_store(tracking_store, tmp_path / "given")
    given = f"sqlite:///{store}"
    done = invoke("resume", runs / "tiny", "--in-process", "--tracking-uri", given)
    assert done.exit_code == 0, done.output
    study_id = read_json(provenance)["study_id"]
    assert uuid.UUID(study_id).version == 4
    # Outside the runs folder it stays as it was given: absolute.
    assert read_json(runs / "tiny" / "tracking.json") == {"uri": given}
    assert {run["tags"]["ganstudy.study_id"] for (run,) in read_store(store).values()} == {
        study_id
    }
    assert _tracking_of(runs / "tiny") == given
