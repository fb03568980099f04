from __future__ import annotations

from multiprocessing.pool import ThreadPool

import pytest

from ganstudy.records import Point, TrialRecord, TrialResult, TrialStatus, load_results
from ganstudy.store import StudyFolder


def record(status: TrialStatus, updates: int, **files: str) -> TrialRecord:
    points = [Point("fd", u, u, u, 0.0, float(u)) for u in range(updates + 1)]
    result = TrialResult(status, "", 0, updates, started_at=0.0, best_at=updates)
    return TrialRecord(result, points, [], files)


@pytest.fixture
def folder(tmp_path):
    study = StudyFolder(tmp_path / "study")
    study.create()
    identity = {"study": "s", "arm": "a", "trial_id": "a-c00-s0", "config_id": "c00", "seed": 0}
    study.write_plan([identity | {"result_hash": "x", "params": {"lr": 0.1}}])
    return study


def test_an_existing_folder_is_never_taken(folder, tmp_path):
    (folder.folder / "study.yaml").write_text("study: s")
    foreign = tmp_path / "photos"
    foreign.mkdir()
    for taken in (folder.folder, foreign):
        with pytest.raises(FileExistsError):
            StudyFolder(taken).create()


def test_a_study_that_was_killed_before_it_began_is_taken_over(folder):
    (folder.folder / "plan.jsonl").touch()
    (folder.folder / ".study.yaml-17-ab").touch()
    with ThreadPool(1) as pool:  # a lock is another's in another thread, as in another process
        first = StudyFolder(folder.folder)
        pool.apply(first.lock)
        with pytest.raises(BlockingIOError, match="another process"):
            StudyFolder(folder.folder).create()
        assert (folder.folder / "plan.jsonl").exists(), "its driver is about to begin it"
        pool.apply(first.unlock)
    StudyFolder(folder.folder).create()
    left = {path.name for path in folder.folder.iterdir() if not path.name.startswith(".")}
    assert left == {"trials", "driver.lock"}


def test_attempts_never_share_a_folder(folder):
    trial = folder.trial("a-c00-s0")
    with ThreadPool(8) as pool:
        made = pool.map(lambda _: trial.new_attempt().folder.name, range(16))
    assert len(set(made)) == 16


def test_save_keeps_only_what_the_record_names(folder):
    attempt = folder.trial("a-c00-s0").new_attempt()
    attempt.save(record(TrialStatus.RUNNING, 1, state="s1"), {"s1": lambda p: p.write_text("1")})
    attempt.save(record(TrialStatus.RUNNING, 2, state="s2"), {"s2": lambda p: p.write_text("2")})
    assert {p.name for p in attempt.folder.iterdir()} == {"begun", "record.json", "s2"}


def test_a_save_that_fails_leaves_the_old_record_with_its_files(folder):
    attempt = folder.trial("a-c00-s0").new_attempt()
    attempt.save(record(TrialStatus.RUNNING, 1, state="s1"), {"s1": lambda p: p.write_text("1")})

    def full(path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        attempt.save(record(TrialStatus.RUNNING, 2, state="s2"), {"s2": full})
    assert attempt.read() == record(TrialStatus.RUNNING, 1, state="s1")
    assert (attempt.folder / "s1").read_text() == "1"
    assert {p.name for p in attempt.folder.iterdir()} == {"begun", "record.json", "s1"}


def test_the_first_finished_attempt_counts_else_the_newest(folder):
    trial = folder.trial("a-c00-s0")
    first, second, third = (trial.new_attempt() for _ in range(3))
    first.save(record(TrialStatus.RUNNING, 5), {})
    second.save(record(TrialStatus.RUNNING, 3), {})
    assert trial.latest()[0].folder == second.folder
    third.save(record(TrialStatus.COMPLETED, 9), {})
    first.save(record(TrialStatus.RUNNING, 7), {})
    assert trial.latest()[0].folder == third.folder


def test_an_orphans_late_end_never_replaces_what_was_told(folder):
    trial = folder.trial("a-c00-s0")
    orphan, second = trial.new_attempt(), trial.new_attempt()
    for attempt, updates in ((second, 9), (orphan, 8)):
        names = {"samples": "s.png"}
        attempt.save(
            record(TrialStatus.COMPLETED, updates, **names), {"s.png": lambda p: p.write_text("")}
        )
        if attempt.claim():
            attempt.drop_earlier()
    assert trial.latest()[0].folder == second.folder
    assert (second.folder / "s.png").exists()


def test_compact_tells_pending_running_interrupted_and_failed(folder):
    trial = folder.trial("a-c00-s0")
    assert folder.compact()[0]["status"] is TrialStatus.PENDING
    trial.new_attempt().save(record(TrialStatus.RUNNING, 2), {})
    assert folder.compact(running=True)[0]["status"] is TrialStatus.RUNNING
    assert folder.compact()[0]["status"] is TrialStatus.INTERRUPTED
    trial.fail("it broke")
    assert trial.finished()
    row = folder.compact()[0]
    assert (row["status"], row["reason"]) == (TrialStatus.FAILED, "it broke")
    trial.forgive()
    assert not trial.finished()
    results = load_results(folder.folder)
    assert results.points["value"].tolist() == [0.0, 1.0, 2.0]
    assert results.trials["param.lr"].tolist() == [0.1]


def test_failure_reason_is_the_last_line_of_the_traceback(folder):
    trial = folder.trial("a-c00-s0")
    trial.new_attempt().note_error("Traceback ...\n  File ...\nValueError: no\n")
    assert trial.fail("otherwise") == "ValueError: no"


def test_one_driver_at_a_time(folder):
    folder.lock()
    other = StudyFolder(folder.folder)
    assert other.driven()
    with pytest.raises(BlockingIOError, match="another process"):
        other.lock()
    folder.unlock()
    assert not other.driven()


def test_the_plan_grows_whole(folder):
    second = folder.read_plan()[0] | {"trial_id": "a-c01-s0"}
    folder.append_plan([second])
    assert [line["trial_id"] for line in folder.read_plan()] == ["a-c00-s0", "a-c01-s0"]
