"""Studies on a real S3 server: writing at once, one maker of a file, a lease for the driver."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ganstudy import lease
from ganstudy.cli import app
from ganstudy.lease import Lease
from ganstudy.storage import (
    create,
    is_remote,
    local_copy,
    location,
    names_in,
    read_text,
    write_text,
)
from ganstudy.store import StudyFolder
from tests.cluster.nodes import s3_server
from tests.processes import wait_for


@pytest.fixture(scope="module", autouse=True)
def server():
    with s3_server("127.0.0.1") as environment, pytest.MonkeyPatch.context() as patch:
        for key, value in environment.items():
            patch.setenv(key, value)
        yield


@pytest.fixture(params=["folder", "s3"])
def place(request, tmp_path) -> Path:
    if request.param == "folder":
        return tmp_path
    return location(f"s3://studies/{tmp_path.name}-{time.monotonic_ns()}")


def test_a_path_is_local_and_a_uri_is_not(tmp_path):
    assert location("runs") == Path("runs")
    assert not is_remote(location(str(tmp_path)))
    assert is_remote(location("s3://studies/x"))
    assert str(location("s3://studies/x") / "y") == "s3://studies/x/y"


def test_what_is_written_is_read_and_listed_at_once(place):
    for text in ("one", "two"):
        write_text(place / "a.txt", text)
        assert (place / "a.txt").read_text() == text
    assert names_in(place) == ["a.txt"]
    assert names_in(place / "nowhere") == []
    write_text(place / "b.txt", "")
    assert sorted(names_in(place)) == ["a.txt", "b.txt"]
    with local_copy(place / "a.txt") as copy:
        assert isinstance(copy, Path)
        assert copy.read_text() == "two"


def test_a_file_that_is_replaced_while_it_is_read_is_the_old_or_the_new_one(place):
    texts = ["a" * 5000, "b" * 9000]
    write_text(place / "record", texts[0])
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(
            lambda: [write_text(place / "record", texts[i % 2]) for i in range(100)]
        )
        while not writing.done():
            assert read_text(place / "record") in texts
        writing.result()


def test_of_many_makers_of_a_file_one_succeeds(place):
    def make(number: int) -> bool:
        try:
            create(place / "claim", str(number))
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(make, range(16)))
    assert sum(made) == 1
    assert (place / "claim").read_text() == str(made.index(True))


def test_a_lease_has_one_holder():
    path = location("s3://studies/one-holder/driver.lock")
    first, second = Lease(path), Lease(path)
    first.acquire()
    with pytest.raises(BlockingIOError, match="drives the study"):
        second.acquire()
    assert second.held()
    first.release()
    assert not second.held()
    second.acquire()
    second.release()


def test_a_dead_driver_loses_its_lease(monkeypatch):
    """At once if it was a process of this machine, else when it was silent for a minute."""
    path = location("s3://studies/dead/driver.lock")
    holder = {"node": "elsewhere", "machine": "its boot", "pid": 1, "started": "1", "owner": "x"}
    holder["renewed"] = time.time() - 20
    write_text(path, json.dumps(holder))
    with pytest.raises(BlockingIOError, match="elsewhere"):
        Lease(path).acquire()
    write_text(path, json.dumps(holder | {"renewed": time.time() - 70}))
    late = Lease(path)
    late.acquire()
    late.release()
    here = {"machine": lease.machine(), "pid": os.getpid(), "renewed": time.time()}
    alive = holder | here | {"started": lease.started(os.getpid())}
    write_text(path, json.dumps(alive))
    assert Lease(path).held()
    write_text(path, json.dumps(alive | {"started": "1"}))  # its number is another process's now
    assert not Lease(path).held()


def test_a_lease_is_renewed_while_it_is_held(monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.2)
    held = Lease(location("s3://studies/renewed/driver.lock"))
    held.acquire()
    before = json.loads(held.path.read_text())["renewed"]
    wait_for(lambda: json.loads(held.path.read_text())["renewed"] > before, "it is renewed")
    held.release()


def test_the_whole_command_line_works_on_a_bucket(tiny, write_study, tracking_store):
    def invoke(*arguments: object):
        return CliRunner().invoke(app, [*map(str, arguments)])

    runs, more = "s3://studies/runs", ["--tracking-uri", tracking_store, "--in-process"]
    study = write_study(tiny)
    refused = invoke("run", study, "--runs", runs, "--in-process")
    assert refused.exit_code == 2
    assert "--tracking-uri is needed" in refused.stderr
    part = invoke("run", study, "--runs", runs, "--max-trials", 2, *more)
    assert part.exit_code == 0, part.stderr
    again = invoke("run", study, "--runs", runs, *more)
    assert again.exit_code == 2
    assert "exists already" in again.stderr
    done = invoke("resume", f"{runs}/tiny", *more)
    assert done.exit_code == 0, done.stderr
    assert "4 of 4 trials done" in invoke("status", f"{runs}/tiny").stdout
    assert "onset" in invoke("why", f"{runs}/tiny", "wgan_gp-c00").stdout
    replayed = invoke("events", f"{runs}/tiny")
    assert replayed.exit_code == 0, replayed.stderr
    reported = invoke("report", f"{runs}/tiny")
    assert reported.exit_code == 0, reported.stderr
    names = set(names_in(location(f"{runs}/tiny")))
    tables = {"trials.parquet", "points.parquet", "events.parquet", "report.html"}
    assert tables | {"events-replayed.parquet", "study.yaml", "provenance.json"} <= names
    assert not StudyFolder(location(f"{runs}/tiny")).driven()
    assert b"</html>" in (location(f"{runs}/tiny") / "report.html").read_bytes()


@pytest.mark.parametrize(
    ("uri", "told"),
    [("s3://no-such-bucket/runs", "there is no bucket"), ("nfs://server/x", "nfs")],
)
def test_a_place_that_cannot_be_reached_is_refused(uri, told, tiny, write_study):
    arguments = ["run", str(write_study(tiny)), "--runs", uri, "--in-process"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2, done.output
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
