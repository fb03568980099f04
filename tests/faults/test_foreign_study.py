"""A study from somebody else: no file outside its folder is read, and nothing is sent anywhere."""

from __future__ import annotations

import base64
import io
import os
import shutil
import socket
import threading
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.table import Table
from rich.text import Text
from typer.testing import CliRunner

from analysis.csv_text import to_csv
from ganstudy.checksums import DamagedFile, strip_checksum
from ganstudy.cli import Careful, app
from ganstudy.gan.datasets.folders import ImageFolder
from ganstudy.known_stores import is_known_store, remember_store
from ganstudy.records import TRIALS, TrialRecord, TrialResult, TrialStatus
from ganstudy.registry import StudyError
from ganstudy.storage import write_settings
from ganstudy.store import StudyFolder
from ganstudy.study.checks import load_study
from ganstudy.study.replicate import parse_replicate
from ganstudy.study_files import is_inside, resolve_inside
from ganstudy.tracking import Tracker
from tests.analysis.conftest import writer
from tests.conftest import write_yaml

cli = CliRunner()
TRIAL = "a-c00-s0"


def invoke(*arguments):
    return cli.invoke(app, [str(a) for a in arguments])


def refused(result, *names):
    """Assert that a command ended in one line that names each of `names`."""
    assert result.exit_code == 2, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert result.stderr.count("\n") == 1
    for name in names:
        assert str(name) in result.stderr


def png(side: int) -> bytes:
    out = io.BytesIO()
    Image.new("L", (side, side), 7).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def made_study(tmp_path_factory):
    return writer(tmp_path_factory.mktemp("made"))({"a": [1.0, 2.0, 3.0], "b": [4.0, 5.0, 6.0]})


@pytest.fixture
def study(made_study, tmp_path):
    """A study's folder, with a picture of its user beside it."""
    (tmp_path / "private.png").write_bytes(png(9))
    shutil.copytree(made_study, tmp_path / "study")
    return tmp_path / "study"


def rename_in_table(study: Path, column: str, name: str) -> None:
    """Let every row of the table of trials name another file, and remove the trials."""
    rows = pq.read_table(study / TRIALS)
    at = rows.column_names.index(column)
    names = pa.array([name] * len(rows), pa.string())
    StudyFolder(study).write_table(TRIALS, rows.set_column(at, column, names))
    shutil.rmtree(study / "trials")


def rename_in_records(study: Path, name: str) -> None:
    """Let every record name another picture."""
    for trial in (study / "trials").iterdir():
        attempt = StudyFolder(study).trial(trial.name).attempts()[0]
        record = attempt.read()
        roles = dict.fromkeys(("samples", "samples_best"), name)
        changed = TrialRecord(record.result, record.points, record.events, roles)
        (attempt.folder / "last.png").unlink()
        (attempt.folder / "best.png").unlink()
        attempt.save(changed, {})


@pytest.mark.parametrize("name", ["/private.png", "../private.png", "trials/../../private.png"])
def test_a_report_embeds_no_file_that_a_table_names_outside(name, study, tmp_path):
    name = name if name[0] != "/" else str(tmp_path / "private.png")
    rename_in_table(study, "samples_best", name)
    refused(invoke("report", study), study / TRIALS, "private.png")
    assert not (study / "report.html").exists()


@pytest.mark.parametrize("command", [("report",), ("why", TRIAL), ("status",)])
def test_no_file_is_read_that_a_record_names_outside(command, study, tmp_path):
    rename_in_records(study, "../../../../private.png")
    page = tmp_path / "page.html"
    name, *rest = command
    extra = {"why": ["--html", page], "report": ["-o", page], "status": []}[name]
    refused(invoke(name, study, *rest, *extra), "record.json", f"ganstudy resume {study}")
    assert not page.exists()


@pytest.mark.parametrize("command", [("report",), ("why", TRIAL)])
def test_a_link_out_of_the_folder_is_not_followed(command, study, tmp_path):
    for picture in study.glob("trials/*/*/*.png"):
        picture.unlink()
        picture.symlink_to(tmp_path / "private.png")
    page = tmp_path / "page.html"
    name, *rest = command
    flag = "--html" if name == "why" else "-o"
    refused(invoke(name, study, *rest, flag, page), "best.png")
    assert not page.exists()


def test_only_pictures_are_embedded(study):
    for picture in study.glob("trials/*/*/*.png"):
        picture.write_text("a private key")
    assert invoke("report", study).exit_code == 0
    page = (study / "report.html").read_text(encoding="utf-8")
    assert base64.b64encode(b"a private key").decode() not in page
    assert "best.png is not a PNG" in page
    page = study / "why.html"
    assert invoke("why", study, TRIAL, "--html", page).exit_code == 0
    assert "base64" not in page.read_text(encoding="utf-8")


def test_names_inside_a_folder():
    good = ["samples.png", "trials/a/attempt-1/x.png", "a..b/c"]
    bad = [
        "",
        "/etc/passwd",
        "..",
        "a/../../b",
        "~/x",
        "//host/x",
        "http://x/y",
        "a\\..\\b",
        "a\0b",
    ]
    assert [name for name in [*good, *bad, None, 3.5] if is_inside(name)] == good


def test_a_link_within_the_folder_is_followed(tmp_path):
    (tmp_path / "study" / "here").mkdir(parents=True)
    (tmp_path / "linked").symlink_to(tmp_path / "study")
    (tmp_path / "study" / "there").symlink_to("here")
    for folder in ("study", "linked"):
        path = resolve_inside(tmp_path / folder, "there/x.png")
        assert path == tmp_path / folder / "there" / "x.png"


def test_nothing_from_outside_is_uploaded(study, tmp_path, tracking_store):
    rename_in_table(study, "samples_best", "../private.png")
    with pytest.raises(DamagedFile, match=TRIALS):
        Tracker(study, tracking_store).sync(running=False)
    uploaded = Path(tracking_store.removeprefix("sqlite:///")).parent
    assert not list(uploaded.rglob("private.png"))


def test_a_store_that_came_with_a_runs_folder_chooses_no_place_to_write(
    study, tmp_path, tracking_store
):
    from mlflow.tracking import MlflowClient

    shutil.copyfile(tracking_store.removeprefix("sqlite:///"), tmp_path / "mlflow.db")
    uri, outside = f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path.parent / f"{tmp_path.name}-out"
    name = pd.read_parquet(study / TRIALS)["study"].iloc[0]
    client = MlflowClient(uri)
    for experiment in client.search_experiments():
        if experiment.name == name:
            client.rename_experiment(experiment.experiment_id, "another")
    client.create_experiment(name, artifact_location=outside.as_uri())
    with pytest.raises(DamagedFile, match="mlflow.db"):
        Tracker(study, uri).sync(running=False)
    assert not outside.exists()


class Server:
    """A server that counts who connects."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.visits = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                self.socket.accept()[0].close()
            except OSError:
                return
            self.visits += 1

    @property
    def uri(self) -> str:
        return "http://{}:{}".format(*self.socket.getsockname())


@pytest.fixture
def server():
    running = Server()
    yield running
    running.socket.close()


def test_reading_a_study_sends_nothing(study, server):
    StudyFolder(study).write_json("tracking.json", {"uri": server.uri})
    for command in (("status",), ("why", TRIAL), ("report",), ("events",), ("ui", "--no-open")):
        assert invoke(command[0], study, *command[1:]).exit_code == 0
    assert server.visits == 0


@pytest.fixture(scope="module")
def real_study(tmp_path_factory):
    """A study as it stands when its driver was killed before its first trial."""
    from ganstudy.sweep.driver import Run
    from tests.conftest import TINY

    place = tmp_path_factory.mktemp("real")
    spec = load_study(write_yaml(place / "study.yaml", TINY))
    folder = StudyFolder(place / "runs" / "tiny")
    folder.create()
    Run(spec, folder, "http://127.0.0.1:9").begin()
    return folder.folder


def test_a_server_that_came_with_a_folder_must_be_confirmed(real_study, tmp_path, server):
    study = tmp_path / "tiny"
    shutil.copytree(real_study, study)
    StudyFolder(study).write_json("tracking.json", {"uri": server.uri})
    refused(
        invoke("resume", study, "--in-process"),
        study / "tracking.json", f"--tracking-uri {server.uri}",
    )  # fmt: skip
    assert server.visits == 0
    assert not list((study / "trials").iterdir())


@pytest.mark.parametrize("place", ["elsewhere/mlflow.db", "../mlflow.db"])
def test_ui_opens_no_store_outside_the_runs_folder(place, real_study, tmp_path):
    study = tmp_path / "runs" / "tiny"
    shutil.copytree(real_study, study)
    target = tmp_path / place if place[0] != "." else tmp_path.parent / f"{tmp_path.name}.db"
    StudyFolder(study).write_json("tracking.json", {"uri": f"sqlite:///{target}"})
    refused(invoke("ui", study, "--no-open"), study / "tracking.json", "--tracking-uri")
    assert not target.exists()


def test_a_store_is_known_where_its_user_named_it(tmp_path):
    study, other = tmp_path / "runs" / "one", tmp_path / "copied" / "one"
    own = f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}"
    assert is_known_store(study, own)
    assert not is_known_store(other, own)
    for uri in ("http://server:5000", "postgresql://user:word@server/db", own):
        remember_store(study, uri)
        assert is_known_store(study, uri)
        assert not is_known_store(other, uri)
    assert is_known_store(study, "postgresql://server/db"), "what is recorded has no password"
    assert not is_known_store(study, "http://other:5000")


@pytest.mark.parametrize("key", ["trial_id", "config_id", "arm"])
@pytest.mark.parametrize("command", [("report",), ("why", TRIAL), ("status",)])
def test_a_name_in_the_plan_leads_to_no_other_folder(key, command, study):
    folder = StudyFolder(study)
    rows = folder.read_plan()
    rows[0][key] = "../../x"
    folder.write_plan(rows)
    refused(invoke(command[0], study, *command[1:]), study / "plan.jsonl", "ganstudy resume")


def test_a_configuration_that_is_repeated_has_a_plain_name():
    value = {"from": "/x", "configs": {"a": {"../../x": {}}}}
    with pytest.raises(StudyError, match="name"):
        parse_replicate(value)


def test_the_study_of_a_folder_reads_no_other_study(real_study, tmp_path):
    study = tmp_path / "tiny"
    shutil.copytree(real_study, study)
    added = "replicate: {from: 's3://bucket/study', seeds: 2}\n"
    text = strip_checksum("study.yaml", (study / "study.yaml").read_bytes()).decode()
    write_settings(study / "study.yaml", added + text)
    result = invoke("resume", study, "--in-process")
    refused(result, "study.yaml")
    assert "s3" not in result.stderr, "the store was not asked"


@pytest.mark.parametrize("place", ["features", "trials", f"trials/{TRIAL}"])
def test_a_folder_that_links_elsewhere_is_not_written(place, study, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if (study / place).exists():
        shutil.rmtree(study / place)
    (study / place).symlink_to(elsewhere)
    refused(invoke("status", study), study / place)
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("name", ["record.json", "plan.jsonl"])
def test_a_pipe_is_no_file(name, study):
    path = next(study.rglob(name))
    path.unlink()
    os.mkfifo(path)
    refused(invoke("status", study), path)


def test_cells_of_a_csv_are_no_formulas():
    data = pd.DataFrame({
        "arm": ["=HYPERLINK(1)", "+x", "-x", "@x", "plain", None],
        "text": ["-1.5", "+inf", "\t=x", "a=b", "", "x"],
        "=header": [-1.0, 2.0, float("nan"), 4.0, 5.0, 6.0],
    })  # fmt: skip
    assert to_csv(data).splitlines() == [
        "arm,text,'=header", "'=HYPERLINK(1),-1.5,-1.0", "'+x,+inf,2.0", "'-x,'\t=x,",
        "'@x,a=b,4.0", "plain,,5.0", ",x,6.0",
    ]  # fmt: skip


def test_text_of_a_study_moves_no_cursor():
    shown = io.StringIO()
    table = Table("arm")
    table.add_row(Text("a\x1b[2J\x9b1m"))
    console = Careful(file=shown, width=40, force_terminal=True)
    console.print(table)
    console.print(Text("\x1b]52;c;eA==\x07 \u202egnp.exe", style="red"), soft_wrap=True)
    text = shown.getvalue()
    assert "\x1b[2J" not in text
    assert not set("\x9b\x07\u202e") & set(text)
    assert "\x1b]52" not in text
    assert "\x1b[31m" in text, "its own colours stay"


def test_a_state_file_runs_no_code(tmp_path):
    import pickle

    import torch

    from ganstudy.measure.features.cache import read_torch, write_torch

    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harmed"),)

    write_torch(tmp_path / "state.pt", {"x": Harmful()})
    with pytest.raises((pickle.UnpicklingError, DamagedFile)):
        read_torch(tmp_path / "state.pt")
    assert not (tmp_path / "harmed").exists()
    write_torch(tmp_path / "state.pt", {"x": torch.ones(2)})
    assert read_torch(tmp_path / "state.pt")["x"].tolist() == [1, 1]


def test_postscript_that_is_named_a_picture_is_not_run(tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(ValueError, match=r"cannot read the image .*png"):
        ImageFolder(path=str(tmp_path), size=8).load()


def test_a_record_overwrites_no_column(study):
    attempt = StudyFolder(study).trial(TRIAL).attempts()[0]
    result = TrialResult(TrialStatus.COMPLETED, machine={"samples": "/etc/passwd"})
    attempt.save(TrialRecord(result), {})
    refused(invoke("status", study), "record.json", "ganstudy resume")
