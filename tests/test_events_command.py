"""Replays of a real study and of foreign traces: the same detectors, and nothing touched."""

from __future__ import annotations

import copy
import gzip
import json
import random
import subprocess

import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from ganstudy import replaying
from ganstudy.cli import app
from ganstudy.measure.events import EventsConfig
from ganstudy.records import EVENTS_SCHEMA
from ganstudy.replaying import REPLAYED, SETTINGS, compared, configured, replayed
from ganstudy.store import StudyFolder
from ganstudy.study.plan import plan
from ganstudy.study.spec import parse_study
from ganstudy.traces import read_traces, run_events
from ganstudy.trial import run_trial
from tests.conftest import ROOT, TINY, ganstudy, seal

cli = CliRunner()
HEADER = "run,kind,onset,detected,ended,severity"


def invoke(*arguments):
    return cli.invoke(app, ["events", *map(str, arguments)])


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A real study: an arm that trains, one whose learning rate breaks it, one that stands still.

    Run and compacted as its driver would, without tracking and report.
    """
    folder = StudyFolder(tmp_path_factory.mktemp("replayed") / "tiny")
    folder.create()
    settings = copy.deepcopy(TINY)
    settings["base"]["budget"] = {"discriminator_updates": 400}
    settings["arms"] = {
        "plain": {"loss": "non_saturating"},
        "broken": {"loss": "wasserstein", "optimizer": {"name": "sgd", "lr": 50.0}},
        "stuck": {"generator_optimizer": {"lr": 1e-9}},
    }
    settings |= {"space": {}, "design": {"configs": 1}}
    settings["measure"] |= {"every": {"discriminator_updates": 200}, "probe": {"samples": 60}}
    settings["events"] = {
        "stop_on": ["divergence"],
        "detectors": {"checkerboard": None, "mode_collapse": {"patience": 2}},
    }
    spec = parse_study(settings)
    folder.write_plan(trial.identity() for trial in plan(spec))
    with (folder.folder / "study.yaml").open("w") as file:
        YAML().dump(spec.resolved(), file)
    seal(folder.folder / "study.yaml")
    for trial in plan(spec):
        run_trial(trial, folder.trial(trial.trial_id))
    folder.compact()
    return folder.folder


def contents(folder):
    """Return the content of every file of a study but the replay's."""
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (REPLAYED, "driver.lock")
    }


def test_a_replay_equals_the_record_row_for_row_and_touches_nothing(study):
    before = contents(study)
    done = invoke(study)
    assert done.exit_code == 0, done.output
    record, replay = pq.read_table(study / "events.parquet"), pq.read_table(study / REPLAYED)
    kinds = set(record["kind"].to_pylist())
    assert "divergence" in kinds, "an arm that breaks has events"
    assert len(kinds) > 1
    assert record.schema.equals(EVENTS_SCHEMA)
    assert replay.schema.equals(EVENTS_SCHEMA)
    assert [repr(row) for row in replay.to_pylist()] == [repr(row) for row in record.to_pylist()]
    assert "the replay tells what the record tells, row for row" in done.stdout
    assert contents(study) == before


def test_the_parameters_of_a_replay_stand_in_its_table(study):
    invoke(study, "--set", "mode_collapse.patience=1", "--set", "divergence=null")
    detectors = json.loads(pq.read_schema(study / REPLAYED).metadata[SETTINGS])
    assert detectors["mode_collapse"]["patience"] == 1
    assert detectors["mode_collapse"].keys() > {"patience"}, "defaults too"
    assert detectors["divergence"] is None
    assert detectors["checkerboard"] is None, "as the study has it"
    assert EventsConfig.from_dict({"detectors": detectors}) == configured(detectors)


def test_other_parameters_change_events_and_the_table_says_where(study, tmp_path):
    output = tmp_path / "other.parquet"
    done = invoke(study, "--set", "divergence=null", "--set", "mode_collapse.patience=1",
                  "-o", output)  # fmt: skip
    assert done.exit_code == 0, done.output
    replay = pq.read_table(output).to_pylist()
    assert "divergence" not in {row["kind"] for row in replay}
    (line,) = (line for line in done.stdout.splitlines() if "divergence" in line)
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    assert cells == ["broken", "divergence", "1", "0", "gone: c00-s0"]
    assert "row for row" not in done.stdout


def test_a_kind_that_the_study_removed_can_be_replayed(study):
    done = invoke(study, "--set", "checkerboard.decibels=0.1")
    assert done.exit_code == 0, done.output
    detectors = json.loads(pq.read_schema(study / REPLAYED).metadata[SETTINGS])
    assert detectors["checkerboard"]["decibels"] == 0.1


def test_a_small_batch_changes_nothing(study, monkeypatch):
    config = configured(replaying.own_detectors(StudyFolder(study)))
    whole = replayed(study / "points.parquet", config)
    monkeypatch.setattr(replaying, "ROWS_AT_ONCE", 7)
    assert replayed(study / "points.parquet", config) == whole


WRONG = [
    ("mode_colapse.patience=5", "unknown detector 'mode_colapse'; did you mean 'mode_collapse'?"),
    ("mode_collapse.patiense=5", "did you mean 'patience'?"),
    ("mode_collapse.patience=0", "--set mode_collapse.patience: must be greater"),
    ("mode_collapse.patience=soon", "--set mode_collapse.patience: must be a valid integer"),
    ("mode_collapse=5", "a mapping, null to remove, got 5"),
    ("mode_collapse", "must be KEY=VALUE"),
]


@pytest.mark.parametrize(("setting", "told"), WRONG)
def test_a_wrong_setting_exits_2_with_one_message_and_writes_nothing(
    study, tmp_path, setting, told
):
    output, traces = tmp_path / "out.parquet", written(tmp_path, "a,1,fid,1")
    for where in ([study, "-o", output], ["--traces", traces]):
        done = invoke(*where, "--set", setting)
        assert (done.exit_code, done.stdout) == (2, "")
        assert told in done.stderr
        assert done.stderr.count("\n") == 1
    assert not output.exists()


@pytest.mark.parametrize("name", ["events.parquet", "points.parquet", "study.yaml", "."])
def test_no_file_but_a_replay_is_written_over(study, name):
    before = contents(study)
    done = invoke(study, "-o", study / name)
    assert done.exit_code == 2
    assert "stays as it is" in done.stderr
    assert contents(study) == before


def test_a_study_without_tables_or_a_folder_that_is_none(study, tmp_path):
    assert "is not a study's folder" in invoke(tmp_path).stderr
    (tmp_path / "study.yaml").write_text("study: new\n")
    done = invoke(tmp_path)
    assert done.exit_code == 2
    assert "holds no points.parquet yet" in done.stderr
    assert invoke(study, "-o", tmp_path / "none" / "x.parquet").exit_code == 2
    assert invoke().exit_code == 2
    assert invoke(study, "--traces", "x.csv").exit_code == 2


def row(trial_id, kind="mode_collapse", onset=1, detected=3, ended=None, evidence="{}"):
    return {"trial_id": trial_id, "kind": kind, "onset": onset, "detected": detected,
            "ended": ended, "severity": 0.5, "evidence": evidence}  # fmt: skip


def test_changes_are_counted_in_trials_by_arm_and_kind():
    arms = {f"{arm}-c0{i}-s0": arm for arm in ("z", "a") for i in range(6)}
    record = [row("z-c00-s0"), row("z-c00-s0", onset=9), row("z-c01-s0"), row("z-c02-s0"),
              row("z-c03-s0"), row("z-c04-s0", evidence='{"v": NaN}'), row("a-c00-s0", "recovery"),
              row("a-c01-s0", onset=2)]  # fmt: skip
    replay = [row("z-c00-s0"), row("z-c02-s0", detected=2), row("z-c03-s0", evidence="{1}"),
              row("z-c04-s0", evidence='{"v": NaN}'), row("z-c05-s0"),
              row("a-c00-s0", "recovery"), row("a-c01-s0", onset=2)]  # fmt: skip
    changes = compared(record, replay, arms)
    assert [(c.arm, c.kind) for c in changes] == [
        ("z", "mode_collapse"), ("a", "mode_collapse"), ("a", "recovery"),
    ]  # fmt: skip
    first = changes[0]
    assert (first.recorded, first.replayed) == (5, 5)
    assert (first.new, first.gone) == (["z-c05-s0"], ["z-c01-s0"])
    assert first.moved == ["z-c00-s0", "z-c02-s0", "z-c03-s0"]
    assert first.told() == (
        "new: c05-s0; gone: c01-s0; other number, detected, evidence: c00-s0, c02-s0, c03-s0"
    )
    assert [change.nothing for change in changes] == [False, True, True]


def written(folder, *rows, header="run,step,signal,value"):
    path = folder / "traces.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def falling(run, scores, step=2000):
    return [f'"{run}",{step * (i + 1)},fid,{score}' for i, score in enumerate(scores)]


DROPPED = [300, 90, 40, 20, 19, 60, 70, 80, 90, 95]


def test_traces_give_one_row_an_event_and_always_a_header(tmp_path):
    path = written(tmp_path, *falling("a,b", DROPPED), *falling("good", sorted(DROPPED)[::-1]))
    done = invoke("--traces", path, "--set", "quality_drop.patience=3")
    assert done.exit_code == 0
    header, *events = done.stdout.splitlines()
    assert header == HEADER
    (event,) = events
    assert event.startswith('"a,b",quality_drop,12000,16000,,0.')
    empty = invoke("--traces", written(tmp_path))
    assert (empty.exit_code, empty.stdout) == (0, HEADER + "\n")


def test_set_holds_for_traces_too(tmp_path):
    path = written(tmp_path, *falling("a", DROPPED))
    patient = invoke("--traces", path, "--set", "quality_drop.patience=5").stdout
    assert "quality_drop,12000,20000,," in patient
    assert invoke("--traces", path, "--set", "quality_drop=null").stdout == HEADER + "\n"


@pytest.mark.parametrize("value", ["nan", "NaN", "inf", "-inf"])
def test_what_is_not_finite_is_a_divergence_in_any_signal(tmp_path, value):
    path = written(tmp_path, "a,5,fid,3", f"a,10,some_loss,{value}", "a,15,fid,2", "b,5,fid,")
    done = invoke("--traces", path)
    assert done.stdout.splitlines()[1:] == ["a,divergence,10,10,,1.0"]
    assert "no detector reads some_loss" in done.stderr
    assert "1 rows have no value" in done.stderr


def test_a_known_signal_is_read_and_not_told_as_unknown(tmp_path):
    losses = [f"a,{i},generator_loss,{5.0 * 2.1**i}" for i in range(10)]
    done = invoke("--traces", written(tmp_path, *losses), "--set", "divergence.doublings=6")
    assert "a,divergence,1,6,," in done.stdout
    assert "no detector reads" not in done.stderr


def test_the_order_of_rows_says_nothing(tmp_path):
    rows = [*falling("a", DROPPED), *falling("b", [5, *DROPPED])]
    rows += [f"a,{100 * i},{name},{i % 7}" for i in range(200)
             for name in ("generator_loss", "discriminator_loss", "probe/diversity")]  # fmt: skip
    config = configured({})
    ordered = sorted(run_events(read_traces(written(tmp_path, *rows)), config))
    assert len(ordered) == 2
    random.Random(0).shuffle(rows)
    assert sorted(run_events(read_traces(written(tmp_path, *rows)), config)) == ordered


def test_the_score_closes_its_step(tmp_path):
    """Values of a probe are read before its score, though their names and rows come after it."""
    values = {"probe/frechet_distance": 50, "probe/memorization": -10}
    path = written(tmp_path, *(
        f"a,{100 * i},{name},{value}" for i in range(1, 6) for name, value in values.items()
    ))  # fmt: skip
    done = invoke("--traces", path, "--set", "memorization.patience=3")
    assert "a,memorization,100,300,," in done.stdout


def test_of_values_given_twice_the_last_counts_but_nan_stays(tmp_path):
    rows = ["a,1,fid,9", "a,1,fid,3", "a,2,fid,nan", "a,2,fid,3"]
    traces = read_traces(written(tmp_path, *rows))
    assert traces.runs["a"][1, "fid"] == 3
    assert str(traces.runs["a"][2, "fid"]) == "nan"
    assert traces.repeated == 2


def test_compressed_files_marks_and_standard_input(tmp_path):
    text = "\ufeff" + written(tmp_path, *falling("ü", DROPPED)).read_text(encoding="utf-8")
    plain = invoke("--traces", tmp_path / "traces.csv").stdout
    packed = tmp_path / "traces.csv.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    assert invoke("--traces", packed).stdout == plain
    assert "ü,quality_drop" in plain
    done = subprocess.run(
        ganstudy("events", "--traces", "-"),
        cwd=ROOT, input=gzip.compress(text.encode()), capture_output=True, timeout=250, check=True,
    )  # fmt: skip
    assert done.stdout.decode() == plain


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "line 1: needs the columns run,step,signal,value, got an empty file"),
        (b"run,step,signal\na,1,fid\n", "line 1: needs the columns"),
        (b"run,step,signal,value\na,1,fid,1\na,x,fid,1\n", "line 3: step must be a whole number"),
        (b"run,step,signal,value\na,1.5,fid,1\n", "line 2: step must be a whole number"),
        (b"run,step,signal,value\na,-1,fid,1\n", "line 2: step must be a whole number"),
        (b"run,step,signal,value\na,nan,fid,1\n", "line 2: step must be a whole number"),
        (b"run,step,signal,value\n\na,1,fid,good\n", "line 3: value must be a number"),
        (b"run,step,signal,value\na,1,fid\n", "line 2: must have as many cells"),
        (b"run,step,signal,value\na,1,fid,1,2\n", "line 2: must have as many cells"),
        (b"run,step,signal,value\na,1,\xff,1\n", "line 2: must be UTF-8 text"),
        (b"run,step,signal,value\na,1,\"fid,1\n", "must be CSV"),
        (gzip.compress(b"run,step,signal,value\n", mtime=0)[:-9], "cannot be read"),
    ],
)  # fmt: skip
def test_what_are_no_traces_is_refused_with_file_line_and_rule(tmp_path, text, told):
    path = tmp_path / "t.csv"
    path.write_bytes(text)
    done = invoke("--traces", path)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(str(path))
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_file_that_is_not_there_and_an_output_for_traces(tmp_path):
    assert "cannot be read" in invoke("--traces", tmp_path / "none.csv").stderr
    path = written(tmp_path)
    assert "-o goes with DIR" in invoke("--traces", path, "-o", tmp_path / "x").stderr
