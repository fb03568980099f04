"""Damaged files of a study: rebuilt, run again, or refused in one line. Real MLflow store."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ganstudy.cli import app
from ganstudy.store import FAILURE, STOP, StudyFolder
from ganstudy.study.plan import plan
from ganstudy.study.spec import parse_study
from ganstudy.sweep.repair import Repair
from tests.conftest import ROOT, ganstudy
from tests.faults.studies import Studies, assert_same_rows

pytestmark = pytest.mark.usefixtures("recorder_here")
DONE, OPEN = "non_saturating-c00-s0", "wgan_gp-c00-s0"


def cut(path: Path) -> None:
    """Truncate a file to its half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def state(folder: Path) -> Path:
    """Return the state file of the trial that was interrupted."""
    (found,) = (folder / "trials" / OPEN / "attempt-1").glob("state-*.pt")
    return found


def assert_refused(studies: Studies, result, *named: str) -> None:
    """Expect exit code 2, one line with each of `named`, and no run of MLflow left open."""
    assert result.exit_code == 2, result.output
    last = result.stderr.strip().splitlines()[-1]
    assert all(text in last for text in named), result.stderr
    assert "Traceback" not in result.output
    assert not studies.running()


def assert_repaired(studies: Studies, folder: Path, result) -> None:
    """Expect the rows of the undisturbed study, and no run of MLflow left open."""
    assert result.exit_code == 0, result.output
    assert "Traceback" not in result.output
    assert_same_rows(folder, studies.finished)
    assert not studies.running()


@pytest.mark.parametrize("trial", [DONE, OPEN])
@pytest.mark.parametrize("content", [b"", b'{"result": {}', b'{"result": 1}'])
def test_a_trial_with_a_malformed_record_is_run_again(studies, tmp_path, trial, content):
    folder = studies.copy("midway", tmp_path)
    record = folder / "trials" / trial / "attempt-1" / "record.json"
    record.write_bytes(content)
    result = studies.resume(folder)
    assert_repaired(studies, folder, result)
    assert "record.json" in result.stderr
    kept = folder / "trials" / trial / "attempt-1.damaged"
    assert (kept / "record.json").read_bytes() == content
    assert "record.json" in (kept / "damage.txt").read_text()


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
def test_a_damaged_state_costs_one_attempt_and_changes_no_row(studies, tmp_path, damage):
    folder = studies.copy("midway", tmp_path)
    damage(state(folder))
    result = studies.resume(folder)
    assert_repaired(studies, folder, result)
    assert "state-" in result.stderr
    names = sorted(path.name for path in (folder / "trials" / OPEN).glob("attempt-*"))
    assert names == ["attempt-1.damaged", "attempt-2"], "one new attempt, and no retry"


@pytest.mark.parametrize("pattern", ["generator-*.pt", "samples-*.png", "trial.json"])
def test_a_damaged_file_beside_a_whole_state_changes_no_row(studies, tmp_path, pattern):
    """The trainer must not begin anew with the state that it has loaded already."""
    folder = studies.copy("midway", tmp_path)
    for path in (folder / "trials" / OPEN / "attempt-1").glob(pattern):
        cut(path)
    assert_repaired(studies, folder, studies.resume(folder))
    assert (folder / "trials" / OPEN / "attempt-1.damaged").exists()


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
@pytest.mark.parametrize("moment", ["midway", "finished"])
def test_a_trial_whose_best_generator_is_damaged_is_run_again(studies, tmp_path, moment, damage):
    folder = studies.copy(moment, tmp_path)
    generators = list((folder / "trials" / DONE / "attempt-1").glob("generator-*.pt"))
    assert generators
    for generator in generators:
        damage(generator)
    result = studies.resume(folder)
    assert_repaired(studies, folder, result)
    assert "generator-" in result.stderr
    assert (folder / "trials" / DONE / "attempt-1.damaged").exists()


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink, lambda path: path.write_text("")])
def test_a_damaged_plan_is_rebuilt(studies, tmp_path, damage):
    folder = studies.copy("midway", tmp_path)
    content = (folder / "plan.jsonl").read_bytes()
    damage(folder / "plan.jsonl")
    result = studies.resume(folder)
    assert_repaired(studies, folder, result)
    assert "plan.jsonl" in result.stderr
    assert (folder / "plan.jsonl").read_bytes() == content


def test_a_plan_is_not_rebuilt_from_another_study_file(studies, tmp_path):
    folder = studies.copy("midway", tmp_path)
    (folder / "plan.jsonl").unlink()
    study = folder / "study.yaml"
    lines = study.read_text().replace("batch_size: 32", "batch_size: 16").splitlines()
    study.write_text("\n".join([*lines[:-1], "# edited by hand", ""]))
    remedy = f"ganstudy resume {folder}"
    assert_refused(studies, studies.resume(folder), "plan.jsonl", "study.yaml", remedy)


def test_a_study_file_with_more_trials_than_the_plan_is_refused(studies, tmp_path):
    folder = studies.copy("midway", tmp_path)
    study = folder / "study.yaml"
    lines = study.read_text().replace("configs: 1", "configs: 2").splitlines()
    study.write_text("\n".join([*lines[:-1], "# edited by hand", ""]))
    assert_refused(studies, studies.resume(folder), "study.yaml", "--extend")


def test_an_unfinished_study_of_unknown_code_is_continued_by_force_alone(studies, tmp_path):
    folder = studies.copy("midway", tmp_path)
    (folder / "provenance.json").unlink()
    remedy = f"ganstudy resume {folder} --force"
    assert_refused(studies, studies.resume(folder), "provenance.json", remedy)
    assert_repaired(studies, folder, studies.resume(folder, "--force"))
    origin = json.loads((folder / "provenance.json").read_text())
    assert "not known" in " ".join(origin["mixed"])
    assert "not known" in (folder / "report.html").read_text()


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
def test_the_provenance_of_a_finished_study_is_rebuilt_and_marked(studies, tmp_path, damage):
    folder = studies.copy("finished", tmp_path)
    damage(folder / "provenance.json")
    result = studies.resume(folder)
    assert_repaired(studies, folder, result)
    assert "provenance.json" in result.stderr
    assert json.loads((folder / "provenance.json").read_text())["mixed"]


@pytest.mark.parametrize("name", ["protocol.json", "components.json"])
@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
def test_descriptions_are_written_anew(studies, tmp_path, name, damage):
    folder = studies.copy("finished", tmp_path)
    damage(folder / name)
    assert_repaired(studies, folder, studies.resume(folder))
    expected = json.loads((studies.finished / name).read_text())
    assert json.loads((folder / name).read_text()) == expected


def test_tables_are_written_anew(studies, tmp_path):
    folder = studies.copy("finished", tmp_path)
    for path in folder.glob("*.parquet"):
        cut(path)
    assert_repaired(studies, folder, studies.resume(folder))


@pytest.mark.parametrize("content", ["", "- 1\n", "\0"])
@pytest.mark.parametrize("command", ["resume", "report", "status"])
def test_a_damaged_study_file_is_refused(studies, tmp_path, content, command):
    folder = studies.copy("midway", tmp_path)
    (folder / "study.yaml").write_text(content)
    result = CliRunner().invoke(app, [command, str(folder)])
    if command == "status":  # it reads the plan alone
        assert result.exit_code == 0, result.output
        return
    assert_refused(studies, result, "study.yaml")


def test_where_a_study_is_tracked_is_asked_for(studies, tmp_path):
    folder = studies.copy("midway", tmp_path)
    cut(folder / "tracking.json")
    result = CliRunner().invoke(app, ["resume", str(folder), "--in-process"])
    assert_refused(studies, result, "tracking.json", "ganstudy resume", "--tracking-uri")
    assert_repaired(studies, folder, studies.resume(folder))
    assert json.loads((folder / "tracking.json").read_text())["uri"] == studies.uri


def test_a_damaged_note_of_a_failure_is_set_aside(studies, tmp_path):
    folder = studies.copy("midway", tmp_path)
    trial = StudyFolder(folder).trial(OPEN)
    trial.fail("for the test")
    cut(trial.folder / FAILURE)
    result = studies.resume(folder)
    assert_repaired(studies, folder, result)
    assert FAILURE in result.stderr
    assert (trial.folder / f"{FAILURE}.damaged").exists()


def test_a_trial_that_a_scheduler_stopped_stays_stopped(tiny, tmp_path):
    spec = parse_study(tiny | {"stopping": "asha"})
    folder = StudyFolder(tmp_path / "study")
    folder.create()
    trial = folder.trial(plan(spec)[0].trial_id)
    trial.new_attempt()
    trial.stop("asha")
    cut(trial.folder / STOP)
    messages: list[str] = []
    Repair(spec, folder, messages.append).trials()
    assert trial.read_reason(STOP) == "asha"
    assert STOP in messages[0]
    assert (trial.folder / f"{STOP}.damaged").exists()


def test_a_missing_picture_leaves_no_run_open(studies, tmp_path):
    folder = studies.copy("finished", tmp_path)
    for path in folder.rglob("samples*.png"):
        path.unlink()
    assert_repaired(studies, folder, studies.resume(folder))


def test_commands_that_only_read_name_the_file_and_the_remedy(studies, tmp_path):
    folder = studies.copy("midway", tmp_path)
    cut(folder / "trials" / DONE / "attempt-1" / "record.json")
    result = CliRunner().invoke(app, ["status", str(folder)])
    assert_refused(studies, result, "record.json", f"ganstudy resume {folder}")
    (folder / "plan.jsonl").unlink()
    result = CliRunner().invoke(app, ["status", str(folder)])
    assert_refused(studies, result, "plan.jsonl", f"ganstudy resume {folder}")


def test_an_error_after_the_trials_leaves_no_run_open(studies, tmp_path):
    folder = studies.copy("midway", tmp_path)
    (folder / "report.html").unlink(missing_ok=True)
    (folder / "report.html").mkdir()
    result = studies.resume(folder)
    assert result.exit_code == 1, result.output
    assert "report.html" in result.stderr
    assert "Traceback" not in result.output
    assert not studies.running()


def test_the_number_of_a_damaged_attempt_is_not_used_again(tmp_path):
    trial = StudyFolder(tmp_path / "study").trial("a-c00-s0")
    for attempt in (trial.new_attempt(), trial.new_attempt()):
        attempt.set_aside("for the test")
    assert trial.attempts() == []
    assert trial.new_attempt().folder.name == "attempt-3"
    assert list(trial.damages()) == ["attempt-1.damaged", "attempt-2.damaged"]


@pytest.mark.slow
def test_damages_are_repaired_by_processes_of_their_own(studies, tmp_path):
    """Ray runs the trials, the recorder tracks them, both as a user has them."""
    folder = studies.copy("midway", tmp_path)
    cut(state(folder))
    for generator in (folder / "trials" / DONE / "attempt-1").glob("generator-*.pt"):
        flip(generator)
    command = ganstudy("resume", folder, "--tracking-uri", studies.uri)
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=1000, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "state-" in done.stderr
    assert "generator-" in done.stderr
    assert_same_rows(folder, studies.finished)
    assert not studies.running()
    names = sorted(path.name for path in (folder / "trials" / OPEN).glob("attempt-*"))
    assert names == ["attempt-1.damaged", "attempt-2"]
