"""The command line as a user's process runs it: exit codes, messages, and nothing written."""

from __future__ import annotations

import json
import subprocess
import threading

import jsonschema
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from ganstudy.catalog import REGISTRIES
from ganstudy.cli import app
from ganstudy.records import load_results
from ganstudy.study.recipes import RECIPES
from tests.conftest import ROOT, ganstudy

cli = CliRunner()


def invoke(*arguments):
    return cli.invoke(app, [str(a) for a in arguments])


@pytest.mark.parametrize("command", ["run", "check", "plan"])
def test_wrong_input_exits_2_with_one_message_and_writes_nothing(
    command, tiny, write_study, tmp_path
):
    tiny["arms"]["wgan_gp"]["loss"] = "wasserstien"
    study, runs = write_study(tiny), tmp_path / "runs"
    extra = ["--runs", runs] if command == "run" else []
    result = invoke(command, study, *extra)
    assert result.exit_code == 2
    message = (
        f"{study}: arms.wgan_gp.loss: unknown loss 'wasserstien'; did you mean 'wasserstein'?"
    )
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert not runs.exists()


def test_an_existing_study_is_not_touched_and_both_ways_out_are_named(tiny, write_study, tmp_path):
    runs = tmp_path / "runs"
    (runs / "tiny").mkdir(parents=True)
    (runs / "tiny" / "study.yaml").write_text("study: tiny\n")
    result = invoke("run", write_study(tiny), "--runs", runs)
    assert result.exit_code == 2
    assert "ganstudy resume" in result.stderr
    assert "--name" in result.stderr
    assert [path.name for path in (runs / "tiny").iterdir()] == ["study.yaml"]


@pytest.mark.parametrize(
    ("setting", "rule"), [("resources.cpu=4096", "4096 cores"), ("resources.gpu=99", "99 GPUs")]
)
def test_a_trial_that_fits_nowhere_is_refused(setting, rule, tiny, write_study, tmp_path):
    runs = tmp_path / "runs"
    result = invoke("run", write_study(tiny), "--runs", runs, "--set", setting)
    assert result.exit_code == 2
    assert rule in result.stderr
    assert not runs.exists()


def test_a_cluster_that_is_not_there_is_refused(tiny, write_study, tmp_path):
    runs = tmp_path / "runs"
    result = invoke("run", write_study(tiny), "--runs", runs, "--address", "127.0.0.1:1")
    assert result.exit_code == 2
    assert "no Ray cluster at 127.0.0.1:1" in result.stderr
    assert not runs.exists()


def test_an_unwritable_folder_exits_2(tiny, write_study, tmp_path):
    (tmp_path / "file").write_text("")
    result = invoke("run", write_study(tiny), "--runs", tmp_path / "file" / "runs")
    assert result.exit_code == 2
    assert "cannot be made" in result.stderr


@pytest.mark.parametrize("command", ["resume", "status", "report", "ui"])
def test_a_folder_that_is_no_study_exits_2(command, tmp_path):
    result = invoke(command, tmp_path)
    assert result.exit_code == 2
    assert "is not a study's folder" in result.stderr


def test_a_study_runs_in_the_default_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text("study: nothing\n")
    result = invoke("run", "study.yaml")
    assert result.exit_code == 2, result.exception
    assert "arms: at least one arm is needed" in result.stderr


def test_python_tags_are_never_executed(tmp_path):
    witness = tmp_path / "executed"
    study = tmp_path / "study.yaml"
    study.write_text(f"study: !!python/object/apply:os.system ['touch {witness}']\n")
    result = invoke("run", study, "--runs", tmp_path / "runs")
    assert result.exit_code == 2
    assert "tags are not allowed" in result.stderr
    assert not witness.exists()


def test_check_and_plan(tiny, write_study):
    study = write_study(tiny)
    assert "2 arms (non_saturating, wgan_gp), 4 trials" in invoke("check", study).stdout
    plan = json.loads(invoke("plan", study, "--json").stdout)
    assert plan["trials_total"] == 4
    assert plan["tells"]["largest_k_with_interval"] == 0
    assert plan["tells"]["smallest_p"] == 0.5
    assert plan["cost"]["minutes"] > 0
    assert "no interval at any k with 2 configs" in invoke("plan", study).stdout


def test_list_and_describe_show_every_component():
    listed = invoke("list").stdout
    for registry in REGISTRIES.values():
        for name in registry.names():
            assert name[:10] in listed
            described = invoke("describe", name)
            assert described.exit_code == 0
            for option in registry.options(name):
                assert option.name in described.stdout
    every = invoke("list", "recipe").stdout
    for name in RECIPES:
        assert name[:12] in every
    assert "agce/wgan_gp" in listed
    assert "one model" not in listed
    assert "kurach/hinge" not in listed, "64 cells would drown the rest"
    assert "kurach/hinge-l2-layer" in invoke("describe", "kurach").stdout
    assert "corrected" in invoke("describe", "polygons").stdout
    described = invoke("describe", "agce/wgan_gp").stdout
    for fact in ("Lucic et al. 2018", "log_uniform", "narrow", "gradient_penalty", "agce_code"):
        assert fact in described
    assert "did you mean 'agce/wgan_gp'" in invoke("describe", "agce/wgan-gp").stderr
    assert invoke("list", "losss").exit_code == 2
    assert "did you mean 'hinge'" in invoke("describe", "hing").stderr


def test_the_components_page_is_the_docstrings():
    page = (ROOT / "docs" / "components.md").read_text(encoding="utf-8")
    assert invoke("list", "--markdown").stdout == page, "write it anew by `make docs`"


def test_of_a_long_plan_the_first_and_last_trials_are_shown(tiny, write_study):
    study = write_study(tiny)
    long = ["plan", study, "--set", "design.configs=200"]
    lines = invoke(*long).stdout.splitlines()
    trials = [line for line in lines if "-s0" in line]
    assert len(trials) == 200
    assert "non_saturating-c00-s0" in trials[0]
    assert "wgan_gp-c199-s0" in trials[-1]
    assert any("200 more" in line for line in lines)
    assert len(json.loads(invoke(*long, "--json").stdout)["trials"]) == 400


def test_notes_of_a_study_are_told_by_check_and_by_plan(tiny, write_study):
    tiny["arms"]["vae"] = {"loss": "vae"}
    tiny["base"]["architecture"] = {"name": "infogan", "width": 2, "prior": "normal"}
    study = write_study(tiny)
    for command in ("check", "plan"):
        told = " ".join(invoke(command, study).stderr.split())
        assert "note: wgan_gp: gradient_penalty with batch norm in the discriminator" in told
        assert "note: vae: vae has no discriminator" in told
        assert "non_saturating" not in told


def test_schema_accepts_our_studies_and_refuses_typos():
    schema = json.loads(invoke("schema").stdout)
    validator = jsonschema.Draft202012Validator(schema)
    for path in (ROOT / "studies").glob("*.yaml"):
        study = YAML(typ="safe", pure=True).load(path.read_text())
        validator.validate(study)
        assert not validator.is_valid(study | {"desing": {}})
        assert not validator.is_valid(study | {"base": {"loss": "hing"}})


def test_doctor_looks_at_everything():
    result = invoke("doctor")
    assert result.exit_code == 0
    for what in ("Python", "packages", "processor", "memory", "disk", "torch", "data"):
        assert what in result.stdout


def test_machine_output_is_clean(tiny, write_study):
    """Nothing but JSON on stdout, in a fresh process."""
    done = subprocess.run(
        ganstudy("schema"), cwd=ROOT, capture_output=True, text=True, timeout=250, check=True
    )
    assert json.loads(done.stdout)["title"] == "ganstudy study"
    assert done.stderr == ""


@pytest.fixture
def dying_server():
    """A real HTTP server that answers nothing but errors, as a proxy before a dead MLflow does."""
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(503)

        do_POST = do_GET

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_mlflow_away_is_told_and_fails_no_trial(
    tiny, write_study, tmp_path, dying_server, tracking_store
):
    tiny["study"] = "late"
    runs = tmp_path / "runs"
    result = invoke(
        "run", write_study(tiny), "--runs", runs, "--in-process", "--tracking-uri", dying_server
    )
    assert result.exit_code == 0, result.output
    assert f"MLflow at {dying_server} cannot be written" in result.stderr
    assert "every row is in" in " ".join(result.stderr.split())
    assert set(load_results(runs / "late").trials["status"]) == {"completed"}
    # It catches up as soon as there is a store that answers.
    caught_up = invoke("resume", runs / "late", "--in-process", "--tracking-uri", tracking_store)
    assert caught_up.exit_code == 0, caught_up.output
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_store)
    experiment = client.get_experiment_by_name("late")
    assert len(client.search_runs([experiment.experiment_id])) == 5


def test_status_and_report_of_a_finished_study(tiny, write_study, tmp_path, tracking_store):
    runs, store = tmp_path / "runs", ["--tracking-uri", tracking_store]
    done = invoke("run", write_study(tiny), "--runs", runs, "--in-process", *store)
    assert done.exit_code == 0, done.output
    assert "cannot tell its 2 arms apart" in done.stdout
    assert "report.html" in done.stdout
    assert "mlflow.db" in done.stdout
    status = invoke("status", runs / "tiny").stdout
    assert "4 of 4 trials done" in status
    page = tmp_path / "elsewhere" / "page.html"
    assert invoke("report", runs / "tiny", "-o", page).exit_code == 0
    assert page.stat().st_size > 1e6
    own = {path.name for path in (runs / "tiny").iterdir()}
    assert {"study.yaml", "provenance.json", "trials.parquet", "points.parquet"} <= own
    assert {"events.parquet", "reported.parquet", "protocol.json", "report.html"} <= own
