"""Weights and statistics on disk: several processes at once, damaged files, killed writers."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from ganstudy.gan.datasets import DATASETS
from ganstudy.measure.features import cached, write_torch
from ganstudy.measure.protocol import Evaluator, MeasureConfig

PROCESSES = multiprocessing.get_context("forkserver")
# Each test starts processes, which need not import torch one by one.
PROCESSES.set_forkserver_preload([__name__])


def ask(folder: Path, seconds: float) -> None:
    """Ask for the entry as soon as the file `go` is there; tell who made it and its sum."""
    os.environ["GANSTUDY_CACHE"] = str(folder / "users")
    torch.set_num_threads(1)

    def make():
        (folder / f"made-{os.getpid()}").touch()
        time.sleep(seconds)
        # Random: only content that was handed on is equal.
        rng = torch.Generator().manual_seed(os.getpid())
        return {"x": torch.rand(250_000, generator=rng), "who": os.getpid()}

    (folder / f"ready-{os.getpid()}").touch()
    wait_for(folder, "go", 1)
    tell(folder, summary(cached("entry.pt", folder / "study", make)))


def evaluate(folder: Path) -> None:
    """Make an evaluator and tell the hashes of its weights and of its reference statistics."""
    os.environ["GANSTUDY_CACHE"] = str(folder / "users")
    torch.set_num_threads(1)
    asked = {
        "features": {"name": "small_cnn", "epochs": 1},
        "metrics": ["kernel_distance", "precision"],
        "samples": 200,
    }
    config = MeasureConfig.from_dict(asked, budget=100)
    judge = Evaluator(config, DATASETS.build("digits"), "select", folder / "study")
    real = judge.real.features
    digest = hashlib.sha256(real.features.tobytes())
    for name, arrays in sorted(real.statistics.items()):
        for key, array in sorted(arrays.items()):
            digest.update(f"{name} {key}".encode() + array.tobytes())
    tell(folder, [judge.extractor.hash, digest.hexdigest()])


def summary(content):
    return [content["who"], content["x"].double().sum().item()]


def tell(folder: Path, answer: object) -> None:
    (folder / f"told-{os.getpid()}").write_text(json.dumps(answer))


def start(target, *arguments) -> BaseProcess:
    process = PROCESSES.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def wait_for(folder: Path, pattern: str, count: int) -> None:
    deadline = time.monotonic() + 120
    while len(list(folder.glob(pattern))) < count:
        assert time.monotonic() < deadline, f"no {count} files {pattern}"
        time.sleep(0.01)


def watched(folder: Path, processes: list[BaseProcess]) -> int:
    """Read both files again and again until all processes have ended; return how often."""
    places = (folder / "study" / "entry.pt", folder / "users" / "features" / "entry.pt")
    reads = 0
    while any(process.is_alive() for process in processes):
        for place in places:
            if place.exists():
                assert torch.load(place, weights_only=True)["x"].shape == (250_000,)
                reads += 1
    return reads


def answers(folder: Path, processes: list[BaseProcess]) -> list[list[object]]:
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * len(processes)
    return [json.loads((folder / f"told-{p.pid}").read_text()) for p in processes]


@pytest.mark.parametrize("locks", [True, False], ids=["with locks", "where no lock can be had"])
def test_processes_that_ask_at_once_end_with_one_whole_file(tmp_path, locks):
    if not locks:
        # A folder where the lock would be: it cannot be opened, as on some network drives.
        (tmp_path / "study" / ".entry.pt.lock").mkdir(parents=True)
        (tmp_path / "users" / "features" / ".entry.pt.lock").mkdir(parents=True)
    processes = [start(ask, tmp_path, 0.5) for _ in range(4)]
    wait_for(tmp_path, "ready-*", 4)
    (tmp_path / "go").touch()
    watched(tmp_path, processes)
    told = answers(tmp_path, processes)
    kept = torch.load(tmp_path / "study" / "entry.pt", weights_only=True)
    made = len(list(tmp_path.glob("made-*")))
    if locks:
        assert made == 1
        assert told == [summary(kept)] * 4
    else:
        assert 1 <= made <= 4
        assert summary(kept) in told
    left = {path.name for path in (tmp_path / "study").iterdir()}
    assert left == {"entry.pt", ".entry.pt.lock"}, "nothing half written stays"


def test_a_killed_maker_lets_the_next_one_make(tmp_path):
    (tmp_path / "go").touch()
    first = start(ask, tmp_path, 600)
    wait_for(tmp_path, "made-*", 1)
    first.kill()
    first.join(120)
    assert first.exitcode == -signal.SIGKILL
    assert not (tmp_path / "study" / "entry.pt").exists()
    second = start(ask, tmp_path, 0)
    assert answers(tmp_path, [second])[0][0] == second.pid


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other(path: Path) -> None:
    path.write_bytes(b"no archive at all" * 100)


def zeros(path: Path) -> None:
    """Leave the file's ends and its length: what a crash leaves of blocks not yet written."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4096] = bytes(4096)
    path.write_bytes(content)


def a_list(path: Path) -> None:
    torch.save([1, 2], path)


def a_pickle_that_runs_code(path: Path) -> None:
    torch.save({"x": Path("/")}, path)


@pytest.mark.parametrize("damage", [cut, empty, other, zeros, a_list, a_pickle_that_runs_code])
@pytest.mark.parametrize("where", ["study", "users"])
def test_a_damaged_file_is_made_anew(damage, where, tmp_path, monkeypatch):
    monkeypatch.setenv("GANSTUDY_CACHE", str(tmp_path / "users"))
    good = {"x": torch.arange(10_000.0) + 1}
    made = []

    def make():
        made.append(1)
        return good

    folder = tmp_path / "study"
    shared = tmp_path / "users" / "features" / "entry.pt"
    cached("entry.pt", folder, make)
    damaged = folder / "entry.pt" if where == "study" else shared
    if where == "users":
        (folder / "entry.pt").unlink()
    damage(damaged)
    found = cached("entry.pt", folder, make)
    assert torch.equal(found["x"], good["x"])
    # The study's copy comes back from the user's cache; only the last one is made anew.
    assert len(made) == (1 if where == "study" else 2)
    assert torch.equal(torch.load(damaged, weights_only=True)["x"], good["x"])


def test_a_study_that_cannot_be_written_says_so_and_a_cache_need_not(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GANSTUDY_CACHE", str(tmp_path / "file"))
    assert cached("entry.pt", None, lambda: {"x": 1}) == {"x": 1}
    assert cached("entry.pt", tmp_path / "study", lambda: {"x": 1}) == {"x": 1}
    assert cached("entry.pt", tmp_path / "study", lambda: {"x": 2}) == {"x": 1}
    with pytest.raises(OSError, match="file"):
        cached("entry.pt", tmp_path / "file", lambda: {"x": 1})


def test_a_folder_that_is_the_users_cache_waits_for_no_one(tmp_path, monkeypatch):
    monkeypatch.setenv("GANSTUDY_CACHE", str(tmp_path))
    assert cached("entry.pt", tmp_path / "features", lambda: {"x": 1}) == {"x": 1}


def test_an_entry_of_before_checksums_were_read_is_taken(tmp_path):
    # Files that an earlier version wrote are whole archives too.
    write_torch(tmp_path / "entry.pt", {"x": torch.ones(3)})
    assert cached("entry.pt", tmp_path, dict)["x"].sum() == 3


def test_trials_that_start_at_once_share_weights_and_reference_statistics(tmp_path):
    processes = [start(evaluate, tmp_path) for _ in range(3)]
    told = answers(tmp_path, processes)
    assert told[1:] == told[:1] * 2
    kept = sorted(path.name for path in (tmp_path / "study").glob("*.pt"))
    assert [name.split("-")[0] for name in kept] == ["real", "small_cnn", "statistics"]
