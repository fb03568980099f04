"""Local and Ray give the same rows; killed processes change nothing. Real Ray, real SIGKILL."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from ganstudy.cli import app
from ganstudy.provenance import code_hash
from ganstudy.records import CLOCK_COLUMNS, load_results
from ganstudy.storage import name_of, read_json, read_lines, write_json, write_lines
from ganstudy.study.checks import load_study
from ganstudy.study.plan import plan
from tests.conftest import ROOT, ganstudy
from tests.processes import descendants, trains, wait_for


def rows(folder: Path) -> dict[str, pd.DataFrame]:
    """Return the tables without their clock, attempt and node columns."""
    results = load_results(folder)
    keys = {"trials": ["trial_id"], "events": ["trial_id", "kind", "onset"]}
    keys["points"] = ["trial_id", "name", "discriminator_updates"]
    found = {}
    for name, key in keys.items():
        table = getattr(results, name).drop(columns=list(CLOCK_COLUMNS), errors="ignore")
        assert not table.duplicated(key).any(), f"{name} has doubled rows"
        found[name] = table.sort_values(key, ignore_index=True)
    return found


def assert_same(first: Path, second: Path) -> None:
    one, two = rows(first), rows(second)
    for name in one:
        # check_exact: bit for bit, NaN equal to NaN.
        pd.testing.assert_frame_equal(one[name], two[name], check_exact=True)


def process(*arguments: object, **options) -> subprocess.CompletedProcess:
    """Run the command line in a process of its own."""
    return subprocess.run(
        ganstudy(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=280, **options
    )


@pytest.fixture
def slow(tiny):
    """A study long enough to be caught in the middle."""
    tiny["base"]["architecture"] = {"name": "dcgan", "width": 8, "latent_dim": 8}
    tiny["base"]["budget"] = {"discriminator_updates": 900}
    tiny["measure"]["every"] = {"discriminator_updates": 50}
    return tiny


def midway(runs: Path, name: str) -> int:
    """Return how many trials have recorded two evaluations and have five still to go."""
    from ganstudy.store import StudyFolder

    folder = StudyFolder(runs / name)
    trials = {path.name for path in (folder.folder / "trials").glob("*")}
    records = [folder.trial(trial).latest() for trial in trials]
    return sum(r is not None and 100 <= r[1].result.discriminator_updates <= 650 for r in records)


def held_midway(driver: int, runs: Path, name: str) -> list[int]:
    """Stop the two trials that run at a time, and return them if both are midway.

    They are held still for a second look at their records: between a look and a kill, a trial of
    seconds could end, and the kill would hit a process that has nothing left to lose.
    """
    if midway(runs, name) != 2:
        return []
    actors = [pid for pid in descendants(driver) if trains(pid)]
    for actor in actors:
        os.kill(actor, signal.SIGSTOP)
    if len(actors) == 2 and midway(runs, name) == 2:
        return actors
    for actor in actors:
        os.kill(actor, signal.SIGCONT)
    return []


def test_processes_killed_at_every_level_change_no_row(slow, write_study, tmp_path, run):
    """One study, three times: undisturbed in this process, a trial killed, the driver killed."""
    study, runs = write_study(slow), tmp_path / "runs"
    local = run("run", study, "--runs", runs, "--name", "local")
    assert local.exit_code == 0, local.stderr

    # A trial's process is killed: it is retried from its last checkpoint.
    with subprocess.Popen(
        ganstudy("run", study, "--runs", runs, "--name", "trial"),
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as driver:  # fmt: skip
        victim, other = wait_for(lambda: held_midway(driver.pid, runs, "trial"))
        os.kill(victim, signal.SIGKILL)
        os.kill(other, signal.SIGCONT)
        output, _ = driver.communicate(timeout=200)
    assert driver.returncode == 0, output
    assert "tried again after" in output
    assert_same(runs / "local", runs / "trial")
    assert load_results(runs / "trial").trials["attempts"].max() == 2

    # The whole driver is killed: resume finishes, and runs no finished trial again.
    with subprocess.Popen(
        ganstudy("run", study, "--runs", runs, "--name", "driver"),
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as driver:  # fmt: skip
        finished = wait_for(lambda: "[2/4]" in read_line(driver))
        assert finished
        family = descendants(driver.pid)
        wait_for(lambda: midway(runs, "driver"))
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    assert family
    status = CliRunner().invoke(app, ["status", str(runs / "driver")])
    assert "interrupted" in status.stdout
    resumed = process("resume", runs / "driver")
    assert resumed.returncode == 0, resumed.stderr
    assert_same(runs / "local", runs / "driver")
    attempts = load_results(runs / "driver").trials["attempts"]
    assert (attempts == 1).sum() >= 2, "a finished trial was run again"
    again = CliRunner().invoke(app, ["resume", str(runs / "driver")])
    assert again.exit_code == 0, again.stderr
    assert_same(runs / "local", runs / "driver")
    check_tracking(f"sqlite:///{runs / 'mlflow.db'}", runs / "driver")


def read_line(process: subprocess.Popen) -> str:
    return process.stdout.readline()


def check_tracking(uri: str, folder: Path) -> None:
    """MLflow holds one parent and every trial once, none left running, every point once."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("tiny")
    tag = "ganstudy.folder"
    found = client.search_runs([experiment.experiment_id], f"tags.`{tag}` = '{name_of(folder)}'")
    parents = [r for r in found if "ganstudy.trial_id" not in r.data.tags]
    children = [r for r in found if "ganstudy.trial_id" in r.data.tags]
    assert len(parents) == 1
    results = load_results(folder)
    assert sorted(r.data.tags["ganstudy.trial_id"] for r in children) == sorted(
        results.trials["trial_id"]
    )
    assert {r.info.status for r in found} == {"FINISHED"}
    for child in children:
        assert child.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
        assert child.data.tags["status"] == "completed"
        assert child.data.params["generator_optimizer.lr"]
        own = results.points[results.points["trial_id"] == child.data.tags["ganstudy.trial_id"]]
        for signal_name in ("discriminator_loss", "kd_small_cnn_60"):
            expected = own[own["name"] == signal_name]
            history = client.get_metric_history(child.info.run_id, signal_name)
            assert [m.step for m in history] == expected["discriminator_updates"].tolist()
            assert [m.value for m in history] == expected["value"].tolist()
        assert child.data.metrics["param.generator_optimizer.lr"] > 0
        artifacts = {a.path for a in client.list_artifacts(child.info.run_id)}
        assert {"samples", "trial.json"} <= artifacts


def test_a_full_disk_is_told_and_leaves_what_was_written(tiny, write_study, tmp_path, run):
    """The kernel refuses files beyond 200 kB: no state can be saved, rows and tables can."""
    tiny["base"]["architecture"] = {"name": "dcgan", "width": 64}
    tiny["retries"], tiny["design"]["configs"] = 1, 1
    runs = tmp_path / "runs"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    done = process("run", write_study(tiny), "--runs", runs, "--in-process", preexec_fn=limit)
    assert done.returncode == 1, done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    trials = load_results(runs / "tiny").trials
    assert set(trials["status"]) == {"failed"}
    assert trials["reason"].str.contains("File too large").all()
    # With room again the failed trials can be tried again.
    again = run("resume", runs / "tiny", "--retry-failed")
    assert again.exit_code == 0, again.stderr
    assert set(load_results(runs / "tiny").trials["status"]) == {"completed"}


def test_extend_adds_and_reruns_nothing(tiny, write_study, tmp_path, run):
    study, runs = write_study(tiny), tmp_path / "runs"
    assert run("run", study, "--runs", runs).exit_code == 0
    before = load_results(runs / "tiny").trials.set_index("trial_id")
    tiny["design"]["configs"] = 3
    tiny["arms"]["hinge"] = {"loss": "hinge"}
    study = write_study(tiny)
    done = run("run", study, "--runs", runs, "--extend")
    assert done.exit_code == 0, done.stderr
    after = load_results(runs / "tiny").trials.set_index("trial_id")
    assert len(after) == 9
    assert after.loc[before.index, "started_at"].equals(before["started_at"])
    tiny["base"]["batch_size"] = 16
    refused = run("run", write_study(tiny), "--runs", runs, "--extend")
    assert refused.exit_code == 2
    assert "changes or drops the trial" in refused.stderr


def test_max_trials_stops_early_and_resume_goes_on(tiny, write_study, tmp_path, run):
    study, runs = write_study(tiny), tmp_path / "runs"
    done = run("run", study, "--runs", runs, "--max-trials", 1)
    assert done.exit_code == 0, done.stderr
    assert load_results(runs / "tiny").trials["status"].tolist() == [
        "completed", "pending", "pending", "pending",
    ]  # fmt: skip
    assert run("resume", runs / "tiny").exit_code == 0
    assert set(load_results(runs / "tiny").trials["status"]) == {"completed"}


def test_resume_refuses_a_study_of_other_code_unless_forced(tiny, write_study, tmp_path, run):
    study, runs = write_study(tiny), tmp_path / "runs"
    run("run", study, "--runs", runs, "--max-trials", 1)
    path = runs / "tiny" / "provenance.json"
    content = json.loads(path.read_text())
    assert content["code_hash"] == code_hash()
    write_json(path, content | {"code_hash": "0" * 16})
    refused = run("resume", runs / "tiny")
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert run("resume", runs / "tiny", "--force").exit_code == 0
    assert "mixed" in json.loads(path.read_text())


def test_trials_that_other_code_hashed_otherwise_are_no_edit_of_the_user(
    tiny, write_study, tmp_path, run
):
    runs = tmp_path / "runs"
    run("run", write_study(tiny), "--runs", runs, "--in-process", "--max-trials", 1)
    plan, origin = runs / "tiny" / "plan.jsonl", runs / "tiny" / "provenance.json"
    first, *rest = read_lines(plan)
    rows = [first | {"result_hash": "0" * 16}, *rest]
    write_lines(plan, rows)
    edited = run("resume", runs / "tiny", "--in-process")
    assert edited.exit_code == 2
    assert "study.yaml was edited" in edited.stderr
    write_json(origin, read_json(origin) | {"code_hash": "0" * 16})
    refused = run("resume", runs / "tiny", "--in-process")
    assert refused.exit_code == 2
    assert "edited" not in refused.stderr
    assert "since this study began there changed" in " ".join(refused.stderr.split())


def test_the_adaptive_search_goes_on_from_its_folders(tiny, write_study, tmp_path, run):
    tiny["design"] = {"sampler": "tpe", "configs": 3}
    tiny["space"]["n_critic"] = {"choice": [1, 2]}
    study, runs = write_study(tiny), tmp_path / "runs"
    first = run("run", study, "--runs", runs, "--max-trials", 3)
    assert first.exit_code == 0, first.stderr
    second = run("resume", runs / "tiny")
    assert second.exit_code == 0, second.stderr
    trials = load_results(runs / "tiny").trials
    assert sorted(trials["trial_id"]) == sorted(
        f"{arm}-c0{i}-s0" for arm in ("non_saturating", "wgan_gp") for i in range(3)
    )
    assert set(trials["status"]) == {"completed"}
    assert trials["param.generator_optimizer.lr"].nunique() == 6
    assert "searched adaptively" in second.stdout


def test_the_plan_of_a_study_file_is_what_runs(tiny, write_study, tmp_path, run):
    study, runs = write_study(tiny), tmp_path / "runs"
    run("run", study, "--runs", runs)
    planned = {t.trial_id: t.result_hash for t in plan(load_study(study))}
    trials = load_results(runs / "tiny").trials
    assert dict(zip(trials["trial_id"], trials["result_hash"], strict=True)) == planned


ONE_S_OWN_LOSS = """
from ganstudy.gan.losses import LOSSES, NonSaturating
from ganstudy.registry import component
from ganstudy.cli import main

@LOSSES.register("my_loss", paper="none")
@component
class MyLoss(NonSaturating):
    '''A loss that only the driver's process knows.'''

main()
"""


def test_a_study_error_of_a_worker_reaches_the_user(tiny, write_study, tmp_path):
    """A worker of Ray imports the package alone: it does not know what a script has registered."""
    tiny["base"]["dataset"], tiny["measure"]["features"] = "ring", "pixels"
    tiny["arms"] = {"mine": {"loss": "my_loss"}}
    tiny["design"], tiny["retries"] = {"configs": 1}, 1
    command = [sys.executable, "-c", ONE_S_OWN_LOSS, "run", str(write_study(tiny))]
    done = subprocess.run(
        [*command, "--runs", str(tmp_path / "runs")],
        cwd=ROOT, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    reason = "ganstudy.registry.StudyError: loss: unknown loss 'my_loss'"
    assert f"tried again after: {reason}" in done.stderr
    assert f"1 trials failed (0 allowed): {reason}" in done.stderr
    [trial] = load_results(tmp_path / "runs" / "tiny").trials.to_dict("records")
    assert trial["reason"].startswith(reason)
