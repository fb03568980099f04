"""A small study folder with its records, made without training, and what MLflow holds of it."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from ganstudy.records import Point, TrialRecord, TrialResult, TrialStatus
from ganstudy.store import StudyFolder
from ganstudy.tracking import Tracker

STUDY_ID = "0b8f6a3e-5d0c-4c1e-9a55-1f2e3d4c5b6a"


def make_study(
    folder: Path, study: str = "planned", study_id: str | None = STUDY_ID, trials: int = 2
) -> StudyFolder:
    """Make the folder of a finished study, tracked in the file beside it."""
    made = StudyFolder(folder)
    made.create()
    plan = [
        {"study": study, "arm": "a", "trial_id": f"a-c0{n}-s0", "config_id": f"c0{n}", "seed": 0,
         "result_hash": f"hash{n}", "params": {"lr": 0.1 + n}}
        for n in range(trials)
    ]  # fmt: skip
    made.write_plan(plan)
    made.write_json("provenance.json", {} if study_id is None else {"study_id": study_id})
    made.write_json("tracking.json", {"uri": "sqlite:///../mlflow.db"})
    (folder / "study.yaml").write_text(f"study: {study}\n")
    for identity in plan:
        attempt = made.trial(identity["trial_id"]).new_attempt()
        attempt.save(record(), {"samples.png": lambda path: path.write_bytes(b"picture")})
    made.compact()
    return made


def record() -> TrialRecord:
    """Return the record of a trial that has completed five updates."""
    points = [Point("fd", u, u, u, u / 8, 1.0 + u) for u in range(6)]
    result = TrialResult(
        TrialStatus.COMPLETED, "", 5, 5, 5, 1.7e9, 5.0, 4.0, 1.0, None, {"threads": 1}
    )
    return TrialRecord(result, points, [], {"samples": "samples.png"})


def sync(folder: Path, running: bool = False) -> list[str]:
    """Bring the file beside the study up to date; return what a person is told."""
    notes: list[str] = []
    Tracker(
        folder,
        f"sqlite:///{folder.resolve().parent / 'mlflow.db'}",
        lambda kind, text: notes.append(text) if kind == "note" else None,
    ).sync(running)
    return notes


def read_store(path: Path) -> dict[str, Any]:
    """Return what a store holds: its active runs by trial ("" is the study's own)."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT r.run_uuid, r.name, r.status, r.artifact_uri, e.name FROM runs r "
            "JOIN experiments e USING (experiment_id) WHERE r.lifecycle_stage = 'active'"
        ).fetchall()
        runs: dict[str, Any] = {}
        for run_id, name, status, artifacts, experiment in rows:
            tags = dict(
                connection.execute("SELECT key, value FROM tags WHERE run_uuid = ?", (run_id,))
            )
            points = connection.execute(
                "SELECT step, value FROM metrics WHERE run_uuid = ? AND key = 'fd' ORDER BY step",
                (run_id,),
            ).fetchall()
            runs.setdefault(tags.get("ganstudy.trial_id", ""), []).append(
                {"id": run_id, "name": name, "status": status, "artifacts": artifacts,
                 "experiment": experiment, "tags": tags, "points": points}
            )  # fmt: skip
    return runs


POINTS = [(u, 1.0 + u) for u in range(6)]


def assert_whole(path: Path, trials: int = 2) -> dict[str, Any]:
    """Assert that a store holds the study once: every run ended, every point once."""
    runs = read_store(path)
    assert sorted(runs) == ["", *(f"a-c0{n}-s0" for n in range(trials))]
    assert {trial: len(found) for trial, found in runs.items()} == dict.fromkeys(runs, 1)
    for trial, (run,) in runs.items():
        assert run["status"] == "FINISHED"
        assert run["points"] == (POINTS if trial else [])
    return {trial: run for trial, (run,) in runs.items()}


def texts_below(folder: Path, word: str) -> list[str]:
    """Return the files below a folder that hold a word."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in found if word.encode() in path.read_bytes()]


def copy_store(uri: str, runs: Path) -> Path:
    """Put a copy of an empty store into a runs folder: creating one takes seconds."""
    runs.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(uri.removeprefix("sqlite:///"), runs / "mlflow.db"))


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())
