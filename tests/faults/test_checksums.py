"""Damaged files: what is read is what was written, or the file is named; never another number."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import shutil
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image

from analysis.tables import Study
from ganstudy.checksums import is_intact
from ganstudy.measure.events import EventsConfig
from ganstudy.measure.features.cache import cached, read_torch, write_torch
from ganstudy.records import EVENTS, POINTS, TRIALS, load_results, read_table
from ganstudy.replaying import replay_study
from ganstudy.storage import (
    EDITED,
    DamagedFile,
    location,
    read_checked,
    read_checked_text,
    read_json,
    write_json,
)
from ganstudy.store import StudyFolder
from ganstudy.study.plan import plan
from ganstudy.study.reading import read_yaml
from ganstudy.study.spec import StudySpec, parse_study
from ganstudy.sweep.driver import Reported, Run, _report_trial, prepare
from ganstudy.sweep.sanity import best_images
from ganstudy.trial import run_trial, trial_steps
from tests.conftest import TINY

POSITIONS = 4
"""Bytes of each file that are damaged, one after another, beside its first and last ones."""
UNCHECKED = {"begun", "driver.lock", "phases.json", "progress"}
"""Files that no result comes from: mostly only their names count."""


def spec_of() -> StudySpec:
    return parse_study(TINY | {"arms": {"wgan_gp": TINY["arms"]["wgan_gp"]}})


@pytest.fixture(scope="module")
def studies(tmp_path_factory) -> dict[str, StudyFolder]:
    """A finished study, and one whose trials have half their evaluations."""
    made = {}
    for name in ("finished", "half"):
        folder = StudyFolder(tmp_path_factory.mktemp(name) / "tiny")
        folder.create()
        run = Run(spec_of(), folder, f"sqlite:///{folder.folder.parent}/mlflow.db")
        run.begin()
        prepare(run.spec, folder)
        for trial in plan(run.spec):
            steps = trial_steps(trial, folder.trial(trial.trial_id))
            for _, _ in zip(range(2 if name == "half" else 100), steps, strict=False):
                pass
        rows = folder.compact()
        if name == "finished":
            who = {"arm": "wgan_gp", "trial_id": rows[0]["trial_id"], "name": "kd", "value": 0.1}
            folder.write_reported([who], [who])
            folder.write_sanity([])
        else:
            folder.trial(plan(run.spec)[1].trial_id).stop("asha")
        made[name] = folder
    return made


@pytest.fixture
def copies(studies, tmp_path):
    """Copies that a test may damage."""
    return {
        name: StudyFolder(shutil.copytree(study.folder, tmp_path / name / "tiny"))
        for name, study in studies.items()
    }


def checked_files(folder: Path) -> list[Path]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(f for f in files if f.name not in UNCHECKED and not f.name.startswith("."))


def content_of(path: Path) -> object:
    """Return what the product reads of a file, comparable by `==`, NaN included."""
    if path.suffix == ".pt":
        loaded = io.BytesIO()
        torch.save(read_torch(path), loaded)
        return loaded.getvalue()
    if path.suffix == ".parquet":
        return repr(read_table(path).to_pydict())
    if path.suffix == ".jsonl":
        return StudyFolder(path.parent).read_plan()
    if path.suffix == ".json":
        return repr(read_json(path))
    if path.suffix == ".yaml":
        return read_yaml(path)
    return read_checked_text(path) if not path.suffix else read_checked(path)


def damages(content: bytes) -> list[bytes]:
    """Return damaged copies: flipped bits and bytes, missing ends, blocks of zeros, other text."""
    rng, size = random.Random(0), len(content)
    places = {0, 1, size - 1, size - 2, size - 40, size - 90, *rng.sample(range(size), POSITIONS)}
    flipped = []
    for place in sorted(p for p in places if 0 <= p < size):
        for mask in (1, 0xFF):
            other = bytearray(content)
            other[place] ^= mask
            flipped.append(bytes(other))
    cut = [content[:length] for length in (0, size // 2, size - 1)]
    zeros = content[: size // 3] + bytes(size // 3) + content[2 * (size // 3) :]
    return [*flipped, *cut, zeros, content + b"\n", b"{}", b"null", b"garbage\n" * 40]


@pytest.mark.parametrize("which", ["finished", "half"])
def test_no_damaged_file_is_read(which, copies):
    files = checked_files(copies[which].folder)
    for path in files:
        content = path.read_bytes()
        before = content_of(path)
        for damaged in damages(content):
            path.write_bytes(damaged)
            with pytest.raises(DamagedFile) as refused:
                content_of(path)
            assert refused.value.path == path
            assert refused.value.remedy
            assert str(path) in str(refused.value)
            assert "\n" not in str(refused.value)
        path.write_bytes(content)
        assert content_of(path) == before


def test_every_kind_of_file_is_among_them(studies):
    names = {name: {f.name for f in checked_files(s.folder)} for name, s in studies.items()}
    study = {"study.yaml", "plan.jsonl", "provenance.json", "protocol.json", "tracking.json"}
    study |= {"components.json", "record.json", "trial.json", TRIALS, POINTS, EVENTS}
    assert study | {"stopped.json"} <= names["half"]
    tables = {"reported.parquet", "curves.parquet", "sanity.parquet"}
    assert study | tables | {"finished_by"} <= names["finished"]
    starts = {name.partition("-")[0] for name in names["half"]}
    assert {"state", "generator", "samples", "small_cnn", "real"} <= starts


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0x40
    path.write_bytes(content)


def weight_byte(path: Path) -> int:
    """Return where the largest array of a file of tensors lies: torch reads it as it is."""
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    return largest.header_offset + 200 + largest.file_size // 2


def test_torch_itself_reads_a_flipped_weight(copies):
    """What the checksum is for; where torch verifies its archives one day, this says so."""
    (path, *_) = copies["half"].folder.rglob("state-*.pt")
    before = path.read_bytes()
    flip(path, weight_byte(path))
    states = []
    for content in (before, path.read_bytes()):
        text = io.BytesIO()
        torch.save(torch.load(io.BytesIO(content), weights_only=True), text)
        states.append(text.getvalue())
    assert states[0] != states[1]


@pytest.mark.parametrize("role", ["state", "generator_best", "samples", "config"])
def test_a_trial_does_not_go_on_from_a_damaged_file(role, copies, studies):
    trial = plan(spec_of())[0]
    folder = copies["half"].trial(trial.trial_id)
    attempt, record = folder.latest()
    path = attempt.folder / record.files[role]
    flip(path, weight_byte(path) if path.suffix == ".pt" else path.stat().st_size // 2)
    whole = studies["finished"].trial(trial.trial_id).latest()[1]
    refusal, ended = None, None
    try:
        ended = run_trial(trial, folder)
    except DamagedFile as damage:
        refusal = damage
    if ended is not None:  # the damaged attempt was set aside, and the trial run again
        assert rows_of(ended) == rows_of(whole)
        return
    assert refusal is not None
    assert refusal.path == path
    assert f"ganstudy resume {copies['half'].folder}" in refusal.remedy
    assert folder.latest()[1] == record


def rows_of(record) -> list[str]:
    return [repr((p.name, p.discriminator_updates, p.value)) for p in record.points]


def test_the_report_split_is_not_scored_by_a_damaged_generator(copies):
    folder = copies["finished"]
    for path in folder.folder.rglob("generator-*.pt"):
        flip(path, weight_byte(path))
    (row, *_) = folder.trial_rows()
    readers = (
        lambda: best_images(folder, row, 4, torch.Generator()),
        lambda: _report_trial(spec_of(), folder, row, [], Reported([], [], {})),
    )
    for read in readers:
        with pytest.raises(DamagedFile) as damage:
            read()
        assert damage.value.path.name.startswith("generator-")
        assert "ganstudy resume" in damage.value.remedy


@pytest.mark.parametrize("name", [TRIALS, POINTS, EVENTS, "reported.parquet", "protocol.json",
                                  "provenance.json", "components.json", "study.yaml"])  # fmt: skip
def test_no_report_is_written_from_a_damaged_file(name, copies):
    folder = copies["finished"].folder
    flip(folder / name, (folder / name).stat().st_size // 2)

    def read_all() -> None:
        study = Study.load(folder)
        for table in ("trials", "points", "events", "reported", "curves", "sanity"):
            getattr(study.results, table)

    with pytest.raises(DamagedFile) as damage:
        read_all()
    assert damage.value.path == folder / name
    if name.endswith(".parquet"):
        assert "ganstudy resume" in damage.value.remedy
        with pytest.raises(DamagedFile):
            load_results(folder)


@pytest.mark.parametrize("name", [POINTS, EVENTS])
def test_no_replay_reads_a_damaged_table(name, copies, tmp_path):
    folder = copies["finished"]
    flip(folder.folder / name, 200)
    config = EventsConfig.from_dict({})
    with pytest.raises(DamagedFile):
        replay_study(folder, config, tmp_path / "out.parquet")


def test_a_damaged_cache_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("GANSTUDY_CACHE", str(tmp_path / "users"))
    good = {"x": torch.arange(1000.0)}
    place = tmp_path / "users" / "features" / "entry.pt"
    cached("entry.pt", None, lambda: good)
    flip(place, weight_byte(place))
    assert torch.equal(cached("entry.pt", None, lambda: good)["x"], good["x"])
    assert torch.equal(read_torch(place)["x"], good["x"])
    write_torch(place, [1, 2])  # whole, and of something else
    assert torch.equal(cached("entry.pt", None, lambda: good)["x"], good["x"])


def test_files_stay_what_other_programs_read(studies):
    folder = studies["finished"].folder
    for path in checked_files(folder):
        if path.suffix == ".pt":
            torch.load(path, weights_only=True)
            with zipfile.ZipFile(path) as archive:
                assert archive.testzip() is None
        elif path.suffix == ".parquet":
            pd.read_parquet(path)
        elif path.suffix == ".json":
            assert isinstance(json.loads(path.read_text()), dict)
        elif path.suffix == ".png":
            with Image.open(path) as picture:
                picture.verify()


def test_an_edited_study_says_so_in_its_last_line(copies):
    path = copies["half"].folder / "study.yaml"
    text = path.read_text().replace("margin: 0.1", "margin: 0.3")
    path.write_text(text)
    for read in (read_yaml, lambda p: Study.load(p.parent)):
        with pytest.raises(DamagedFile) as damage:
            read(path)
        assert EDITED in damage.value.remedy
    lines = text.splitlines()[:-1]
    path.write_text("\n".join([*lines, EDITED]))
    assert read_yaml(path)["judgement"]["margin"] == 0.3
    path.write_text("\n".join(lines[: len(lines) // 2]))  # without its end it cannot say so
    with pytest.raises(DamagedFile):
        read_yaml(path)


def test_a_file_without_a_checksum_is_refused(copies):
    folder = copies["finished"].folder
    pd.read_parquet(folder / TRIALS).to_parquet(folder / TRIALS)
    with pytest.raises(DamagedFile):
        Study.load(folder)
    (folder / "protocol.json").write_text('{"primary": "x"}')
    with pytest.raises(DamagedFile):
        StudyFolder(folder).read_json("protocol.json")


def test_a_table_that_a_user_brings_needs_no_checksum_and_a_damaged_one_of_ours_is_refused(
    copies, tmp_path
):
    ours = copies["finished"].folder / TRIALS
    theirs = tmp_path / "theirs.parquet"
    pd.read_parquet(ours).to_parquet(theirs)
    assert len(Study.load(theirs).results.trials) == 2
    alone = tmp_path / "alone.parquet"
    shutil.copy(ours, alone)
    assert len(Study.load(alone).results.trials) == 2
    flip(alone, 100)
    with pytest.raises(DamagedFile):
        Study.load(alone)


def test_a_damaged_record_is_no_missing_one(copies):
    trial = plan(spec_of())[0]
    folder = copies["finished"].trial(trial.trial_id)
    attempt, _ = folder.latest()
    write_json(attempt.folder / "record.json", {"of": "another program"})
    with pytest.raises(DamagedFile) as damage:
        folder.latest()
    assert damage.value.path == attempt.folder / "record.json"


def test_the_exception_crosses_processes():
    sent = DamagedFile(Path("runs/x/plan.jsonl"), "restore it", "is cut short")
    heard = pickle.loads(pickle.dumps(sent))
    assert (heard.path, heard.remedy, str(heard)) == (sent.path, sent.remedy, str(sent))


def test_files_in_an_object_store_are_read_at_once_and_verified(studies, monkeypatch):
    store = location("memory://bucket/tiny")
    for path in checked_files(studies["finished"].folder):
        target = store / str(path.relative_to(studies["finished"].folder))
        target.write_bytes(path.read_bytes())
        requests, fetch = [], type(store.fs).cat_file

        def counted(self, *arguments, requests=requests, fetch=fetch, **more):
            requests.append(arguments)
            return fetch(self, *arguments, **more)

        with monkeypatch.context() as patch:
            patch.setattr(type(store.fs), "cat_file", counted)
            if path.suffix == ".yaml":
                continue
            assert content_of(target) == content_of(path)
            assert len(requests) == 1
            flipped = bytearray(path.read_bytes())
            flipped[len(flipped) // 2] ^= 1
            target.write_bytes(bytes(flipped))
            with pytest.raises(DamagedFile):
                content_of(target)


def test_files_are_on_the_disk_before_they_get_their_names(tmp_path, monkeypatch):
    """A power failure after any call leaves the old record with its files, or the new one."""
    calls: list[tuple[str, str]] = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(descriptor: int) -> None:
        calls.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
        real_sync(descriptor)

    def replace(source: Path, target: Path) -> None:
        assert ("sync", Path(source).name) in calls
        calls.append(("rename", Path(target).name))
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    folder = StudyFolder(tmp_path / "tiny")
    folder.create()
    folder.write_plan(trial.identity() for trial in plan(spec_of()))
    assert calls[-2:] == [("rename", "plan.jsonl"), ("sync", "tiny")]
    trial = plan(spec_of())[0]
    steps = trial_steps(trial, folder.trial(trial.trial_id))
    calls.clear()
    next(steps)
    made = [call for call in calls if call[1] in ("begun", "attempt-1", trial.trial_id, "trials")]
    assert {name for _, name in made[:4]} == {"begun", "attempt-1", trial.trial_id, "trials"}
    end = calls.index(("rename", "record.json"))
    assert calls[end + 1] == ("sync", "attempt-1")
    named = folder.trial(trial.trial_id).latest()[1].files
    before = calls[:end]
    last_file = max(before.index(("rename", name)) for name in set(named.values()))
    assert ("sync", "attempt-1") in before[last_file:], "the record comes after its files' names"


@pytest.mark.parametrize(
    "name", ["x.json", "x.jsonl", "x.yaml", "x.pt", "x.png", "x.parquet", "x"]
)
def test_nothing_is_no_file(name):
    assert not is_intact(name, b"")
    assert not is_intact(name, b"\n")
    assert not is_intact(name, b"PAR1")
