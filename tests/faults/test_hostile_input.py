"""Files that ask for more than a machine has, or hold other content: one line, exit code 2.

Whoever makes a study can write the checksums too, so every file here fits its own.
"""

from __future__ import annotations

import gzip
import json
import shutil
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from ganstudy.cli import UNEXPECTED, app
from ganstudy.gan.datasets.arrays import Npz
from ganstudy.gan.datasets.folders import ImageFolder
from ganstudy.gan.datasets.idx import FILES, MNIST
from ganstudy.limits import MOST_TRIALS, NAME_LENGTH, YAML_NODES
from ganstudy.records import EVENTS, POINTS, TRIALS, TrialRecord, TrialResult, TrialStatus
from ganstudy.registry import StudyError
from ganstudy.storage import read_json, write_checked
from ganstudy.store import StudyFolder
from ganstudy.study.yaml_text import load_yaml
from tests.analysis.conftest import SCORE, writer

cli = CliRunner()
TRIAL = "a-c00-s0"
MEBIBYTE = 1024**2


def invoke(*arguments):
    return cli.invoke(app, [str(a) for a in arguments])


def refused(result, *names):
    """Assert that a command ended in one line that names each of `names`."""
    assert result.exit_code == 2, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert result.stderr.count("\n") == 1
    for name in names:
        assert str(name) in result.stderr


def aliases(first: str, step: str) -> str:
    """Return YAML whose last key stands for 9^12 values."""
    lines = [f"a0: &a0 {first}"]
    lines += [f"a{i}: &a{i} {step.format(', '.join([f'*a{i - 1}'] * 9))}" for i in range(1, 13)]
    return "\n".join(lines) + "\n"


YAML_BOMBS = {
    "aliases": (aliases("[x]", "[{}]"), "alias"),
    "merge keys": (aliases("{k: 1}", "{{<<: [{}]}}"), "alias"),
    "itself": ("study: &a [*a]\n", "alias"),
    "3,000 mappings": ("{a: " * 3000 + "1" + "}" * 3000 + "\n", "nested"),
    "3,000 lists": ("a: " + "[" * 3000 + "]" * 3000 + "\n", "nested"),
    "1,000 blocks": ("".join(f"{' ' * i}a:\n" for i in range(1000)), "nested"),
    "a number of 400 digits": (f"study: {'9' * 400}\n", "64 bits"),
    "a number of 9,000 digits": (f"study: {'9' * 9000}\n", "YAML"),
    "3 megabytes": (f"study: {'a' * 3 * MEBIBYTE}\n", "shorten"),
}


@pytest.mark.parametrize("name", YAML_BOMBS)
def test_yaml_that_expands_is_refused(name, tmp_path):
    text, word = YAML_BOMBS[name]
    path = tmp_path / "study.yaml"
    path.write_text(text, encoding="utf-8")
    refused(invoke("check", path), path, word)


def test_a_setting_that_expands_is_refused(tiny, write_study):
    setting = "design.seeds=" + "[" * 3000 + "]" * 3000
    refused(invoke("check", write_study(tiny), "--set", setting), "--set", "nested")


def test_yaml_of_usual_size_is_read():
    assert load_yaml("a: &x [1, {b: 2}]\nc: *x\nd: {<<: {e: 3}}\n") == {
        "a": [1, {"b": 2}], "c": [1, {"b": 2}], "d": {"e": 3},
    }  # fmt: skip
    assert load_yaml("") is None
    assert len(load_yaml("[" + "1, " * 20_000 + "]")) == 20_000
    with pytest.raises(StudyError):
        load_yaml("[" + "1, " * YAML_NODES + "]")


SIZES = {
    "configs": ({"design": {"configs": 10**12}}, "design.configs", str(MOST_TRIALS // 2)),
    "sobol": ({"design": {"sampler": "sobol", "configs": 10**12}}, "design.configs", "--name"),
    "tpe": ({"design": {"sampler": "tpe", "configs": 10**12}}, "design.configs", "--name"),
    "seeds": (
        {"design": {"configs": 1000, "seeds": list(range(51))}}, "design.configs", "lower it"
    ),
    "samples": ({"measure": {"samples": 10**12}}, "measure.samples", "at most"),
    "data": ({"base": {"dataset": {"name": "ring", "train": 10**12}}}, "train", "less than"),
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_a_study_that_is_too_large_is_told_what_to_write(name, tiny, write_study):
    changes, key, remedy = SIZES[name]
    for part, options in changes.items():
        tiny.setdefault(part, {}).update(options)
    refused(invoke("check", write_study(tiny)), key, remedy)


def test_a_grid_that_is_too_large_is_not_counted_out(tiny, write_study):
    choices = {"choice": [0.001 * (i + 1) for i in range(1000)]}
    keys = ("lr", "beta1", "beta2")
    tiny["space"] = {f"generator_optimizer.{key}": choices for key in keys}
    tiny["space"]["generator_optimizer.beta1"] = {"choice": [i / 1001 for i in range(1000)]}
    tiny["space"]["generator_optimizer.beta2"] = {"choice": [i / 1001 for i in range(1000)]}
    tiny["design"] = {"sampler": "grid"}
    refused(invoke("check", write_study(tiny)), "space", "choices")


def test_seeds_without_end_are_refused_before_they_are_counted(tiny, write_study, tmp_path):
    tiny["replicate"] = {"from": str(tmp_path), "seeds": 10**12}
    del tiny["design"]
    refused(invoke("check", write_study(tiny)), "replicate.seeds")


@pytest.mark.parametrize("place", ["arm", "study", "--name", "control"])
def test_a_name_that_no_folder_can_have_is_refused(place, tiny, write_study, tmp_path):
    long = "a" * 300
    extra = []
    if place == "arm":
        tiny["arms"][long] = {"loss": "hinge"}
    elif place == "study":
        tiny["study"] = long
    elif place == "control":
        tiny["arms"]["b" * NAME_LENGTH] = {"loss": "hinge"}
        tiny["controls"] = {"same": "b" * NAME_LENGTH}
    study, runs = write_study(tiny), tmp_path / "runs"
    if place == "--name":
        extra = ["--name", long]
    refused(invoke("run", study, "--runs", runs, *extra), str(NAME_LENGTH))
    assert not runs.exists()


def test_the_longest_name_leads_to_a_folder(tiny, write_study):
    tiny["arms"]["a" * NAME_LENGTH] = {"loss": "hinge"}
    tiny["design"]["seeds"] = [2**63 - 1]
    assert invoke("check", write_study(tiny)).exit_code == 0
    assert len(f"{'a' * NAME_LENGTH}-c{MOST_TRIALS}-s{2**63 - 1}") < 200


def write_npz(path, shape, zeros: int) -> None:
    """Write an npz file of `zeros` zero bytes whose header tells of `shape`."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    header = header.ljust(118 - 1) + "\n"
    archive = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with archive, archive.open("images.npy", "w") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
        for _ in range(zeros // MEBIBYTE):
            file.write(bytes(MEBIBYTE))


MEASURED = """
import resource, sys
from ganstudy.gan.datasets.arrays import Npz
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    Npz(path=sys.argv[1]).load()
except ValueError as error:
    print(error, file=sys.stderr)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_an_npz_of_zeros_takes_no_memory(tmp_path):
    path = tmp_path / "images.npz"
    write_npz(path, (512, 1024, 1024), 512 * MEBIBYTE)
    assert path.stat().st_size < 4 * MEBIBYTE
    ran = subprocess.run(
        [sys.executable, "-c", MEASURED, path], capture_output=True, text=True, check=True
    )
    assert str(path) in ran.stderr, "a rule was broken"
    assert int(ran.stdout) < 100, "mebibytes; the array has 512"


@pytest.mark.parametrize("shape", ["(500, 2**20, 2**20)", "(2**40, 8, 8)", "(5, -8, 8)"])
def test_an_npz_whose_header_lies_is_refused(shape, tmp_path):
    path = tmp_path / "images.npz"
    write_npz(path, eval(shape), MEBIBYTE)
    with pytest.raises(ValueError, match="images.npz"):
        Npz(path=str(path)).check()


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"\x93NUMPY", b"{}", zlib.compress(b"x" * 99)], ids=range(5)
)
def test_a_file_that_is_no_npz_is_refused(content, tiny, write_study, tmp_path):
    path = tmp_path / "images.npz"
    path.write_bytes(content)
    tiny["base"]["dataset"] = {"name": "npz", "path": str(path)}
    refused(invoke("check", write_study(tiny)), path)


def test_an_idx_file_is_read_no_further_than_its_header_tells(tmp_path):
    """A gzip file may decompress to any size, whatever its header tells."""
    for name in FILES:
        images = "images" in name
        shape, kind = ((6, 8, 8), 3) if images else ((6,), 1)
        head = bytes((0, 0, 8, kind)) + struct.pack(f">{len(shape)}I", *shape)
        with gzip.open(tmp_path / f"{name}.gz", "wb", compresslevel=1) as file:
            file.write(head)
            for _ in range(64):
                file.write(bytes(MEBIBYTE))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"train-images.*gz"):
            MNIST(path=str(tmp_path), verify=False).load()
        assert tracemalloc.get_traced_memory()[1] < 8 * MEBIBYTE
    finally:
        tracemalloc.stop()


def test_an_idx_header_asks_for_no_memory(tmp_path):
    for name in FILES:
        shape, kind = ((2**31, 999, 999), 3) if "images" in name else ((2**31,), 1)
        head = bytes((0, 0, 8, kind)) + struct.pack(f">{len(shape)}I", *shape)
        (tmp_path / name).write_bytes(head)
    with pytest.raises(ValueError, match="train-images"):
        MNIST(path=str(tmp_path), verify=False).load()


def test_a_picture_of_too_many_pixels_is_refused(tmp_path):
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", 12_000, 8_000, 8, 2, 0, 0, 0)
    picture = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b""))
    for i in range(5):
        (tmp_path / f"{i}.png").write_bytes(picture + chunk(b"IEND", b""))
    with pytest.raises(ValueError, match="pixels"):
        ImageFolder(path=str(tmp_path), size=8).load()


@pytest.fixture(scope="module")
def made_study(tmp_path_factory):
    scores = {"a": [1.0, 2.0, 3.0], "b": [4.0, float("inf"), 6.0]}
    return writer(tmp_path_factory.mktemp("made"))(scores)


@pytest.fixture
def study(made_study, tmp_path):
    shutil.copytree(made_study, tmp_path / "study")
    return tmp_path / "study"


def replaced(rows: pa.Table, name: str, column: pa.Array) -> pa.Table:
    if name not in rows.column_names:
        return rows.append_column(name, column)
    return rows.set_column(rows.column_names.index(name), name, column)


NESTED = "[" * 9999
N = 6
"""Trials of the study."""
TABLES = {
    "status of numbers": (TRIALS, lambda t: replaced(t, "status", pa.array(range(N)))),
    "counts of text": (TRIALS, lambda t: replaced(t, "best_at", pa.array(["x"] * N))),
    "scores of text": (TRIALS, lambda t: replaced(t, f"best.{SCORE}", pa.array(["x"] * N))),
    "parameters of lists": (TRIALS, lambda t: replaced(t, "param.x", pa.array([[1]] * N))),
    "no arm": (TRIALS, lambda t: t.drop_columns(["arm"])),
    "arms without value": (TRIALS, lambda t: replaced(t, "arm", pa.nulls(N, pa.string()))),
    "a text of megabytes": (TRIALS, lambda t: replaced(t, "reason", pa.array(["x" * 10**6] * N))),
    "times of text": (EVENTS, lambda t: replaced(t, "onset", pa.array(["x"] * len(t)))),
    "evidence of a list": (EVENTS, lambda t: replaced(t, "evidence", pa.array(["[1]"] * len(t)))),
    "evidence of lists": (EVENTS, lambda t: replaced(t, "evidence", pa.array([NESTED] * len(t)))),
    "points of text": (POINTS, lambda t: replaced(t, "value", pa.array(["x"] * len(t)))),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_other_content_is_refused(name, study):
    shutil.rmtree(study / "trials")  # else the report writes the tables anew
    file, change = TABLES[name]
    StudyFolder(study).write_table(file, change(pq.read_table(study / file)))
    refused(invoke("report", study), study, "" if name == "no arm" else file)
    assert not (study / "report.html").exists()


@pytest.mark.parametrize("file", [TRIALS, POINTS, EVENTS])
def test_a_file_that_is_no_parquet_is_refused(file, study):
    shutil.rmtree(study / "trials")
    write_checked(study / file, b"PAR1" + bytes(100) + b"PAR1")
    refused(invoke("report", study), study / file)


def test_a_table_of_countless_rows_takes_no_memory(study):
    """Fifty million equal rows are a quarter of a megabyte of parquet."""
    shutil.rmtree(study / "trials")
    rows = 50_000_000
    columns = {"arm": pa.nulls(rows), "trial_id": pa.nulls(rows), "best.x": pa.nulls(rows)}
    StudyFolder(study).write_table(TRIALS, pa.table(columns))
    assert (study / TRIALS).stat().st_size < 300_000
    before = pa.default_memory_pool().max_memory()
    refused(invoke("report", study), study / TRIALS, "rows")
    assert pa.default_memory_pool().max_memory() <= max(before, 100 * MEBIBYTE)


def test_one_text_in_countless_rows_takes_no_memory(study):
    shutil.rmtree(study / "trials")
    rows = 100_000
    text = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), ["x" * 90_000])
    noise = pa.array(np.random.default_rng(0).normal(size=rows))  # an honest size for the rows
    names = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), ["a"])
    table = {"arm": names, "trial_id": names, "config_id": names, "status": names}
    StudyFolder(study).write_table(TRIALS, pa.table(table | {"reason": text, "seconds": noise}))
    refused(invoke("report", study), study / TRIALS, "text")


DEEP = "[" * 100_000 + "]" * 100_000
JSON_FILES = {
    "a list": "[]",
    "lists in lists": f'{{"scores": {DEEP}}}',
    "half a file": '{"primary": ',
    "a byte that is no UTF-8": b"\xff{}",
    "a number": '{"primary": 3, "minimize": true, "scores": {}}',
    "scores of lists": '{"primary": "x", "minimize": true, "scores": {"x": []}}',
    "scores without parts": '{"primary": "x", "minimize": true, "scores": {"x": {}}}',
}


@pytest.mark.parametrize("name", JSON_FILES)
def test_a_protocol_of_other_content_is_refused(name, study):
    content = JSON_FILES[name]
    content = content if isinstance(content, bytes) else content.encode()
    write_checked(study / "protocol.json", content)
    refused(invoke("report", study), study / "protocol.json")


PLAN_LINES = ["[]", "3", "{}", "{", DEEP, '{"trial_id": "a", "params": []}', "null"]


@pytest.mark.parametrize("line", PLAN_LINES, ids=range(len(PLAN_LINES)))
def test_a_plan_of_other_content_is_refused(line, study):
    write_checked(study / "plan.jsonl", f"{line}\n".encode())
    for command in (("status",), ("why", TRIAL)):
        refused(invoke(command[0], study, *command[1:]), study / "plan.jsonl")


def altered(data: dict, *path: str, value: object) -> str:
    """Return a record's JSON with another value at `path`."""
    at = data
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return json.dumps(data)


RECORDS = {
    "empty": lambda d: "",
    "a list": lambda d: "[]",
    "lists in lists": lambda d: DEEP,
    "no points": lambda d: altered(d, "points", value={}),
    "points of text": lambda d: altered(d, "points", "value", value=["x"] * 3),
    "points of null": lambda d: altered(d, "points", "value", value=[None] * 3),
    "names of numbers": lambda d: altered(d, "points", "name", value=[1, 2, 3]),
    "counts without end": lambda d: altered(d, "result", "images_seen", value=10**30),
    "points without end": lambda d: altered(d, "points", "images_seen", value=[10**30] * 3),
    "an unknown status": lambda d: altered(d, "result", "status", value="fine"),
    "a reason of lists": lambda d: altered(d, "result", "reason", value=[[1]]),
    "files of numbers": lambda d: altered(d, "files", "samples", value=3),
    "files": lambda d: altered(d, "files", value=[1]),
    "events": lambda d: altered(d, "events", value=[{"kind": 3}]),
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_of_other_content_is_refused(name, study):
    path = next((study / "trials" / TRIAL).rglob("record.json"))
    write_checked(path, RECORDS[name](read_json(path)).encode())
    for command in (("status",), ("why", TRIAL), ("report",)):
        result = invoke(command[0], study, *command[1:])
        refused(result, path, f"ganstudy resume {study}")


def test_what_no_check_refuses_is_told_in_one_line(study, monkeypatch):
    """The components page reads parts that nothing has checked."""
    StudyFolder(study).write_json("components.json", {"arms": {"a": {"loss": [3]}}})
    refused(invoke("report", study), "ganstudy resume", "GANSTUDY_TRACEBACK")
    monkeypatch.setenv("GANSTUDY_TRACEBACK", "1")
    assert isinstance(invoke("report", study).exception, UNEXPECTED)


def test_a_record_that_is_as_it_should_be_is_read(study):
    attempt = StudyFolder(study).trial(TRIAL).attempts()[0]
    record = attempt.read()
    assert record is not None
    assert TrialRecord.from_json(record.to_json()) == record
    empty = TrialRecord(TrialResult(TrialStatus.PENDING))
    again = TrialRecord.from_json(empty.to_json())
    assert (again.points, again.files) == ([], {})
