"""A tiny study that tests of faults copy and damage, and how they compare its rows."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from click.testing import Result
from typer.testing import CliRunner

from ganstudy.cli import app
from ganstudy.records import CLOCK_COLUMNS, load_results
from ganstudy.store import StudyFolder
from ganstudy.study.checks import load_study
from ganstudy.study.plan import plan
from ganstudy.sweep.recorder import Recorder, tracking_failed
from ganstudy.tracking import Tracker, load
from ganstudy.trial import trial_steps
from tests.conftest import TINY, write_yaml

KEYS = {
    "trials": ["trial_id"],
    "events": ["trial_id", "kind", "onset"],
    "points": ["trial_id", "name", "discriminator_updates"],
    "reported": ["arm", "name"],
    "curves": ["arm", "name", "line", "x"],
}


class RecorderHere(Recorder):
    """Tracks in this process, on a real store: a process of its own takes seconds to start."""

    def __enter__(self):
        self.folder.compact(running=True)
        self.catch_up()
        return self

    def rest(self) -> None:
        """Tables are written by the driver alone."""

    def catch_up(self) -> None:
        self._sync(running=True)

    def finish(self) -> None:
        self._sync(running=False)

    def _sync(self, running: bool) -> None:
        try:
            Tracker(self.folder.folder, self.uri).sync(running)
        except Exception as error:
            self._note(tracking_failed(self.uri, error, self.folder.folder))


class Studies(NamedTuple):
    """A study of two trials at two moments, and the store in which it is tracked."""

    midway: Path
    """The first trial has ended, the second was killed after its second evaluation."""
    finished: Path
    uri: str

    def copy(self, name: str, to: Path) -> Path:
        """Return a copy of `midway` or `finished` in a runs folder of its own."""
        return Path(shutil.copytree(getattr(self, name), to / "runs" / "tiny"))

    def resume(self, folder: Path, *options: object) -> Result:
        """Run `ganstudy resume` in this process."""
        arguments = ["resume", folder, "--in-process", "--tracking-uri", self.uri, *options]
        return CliRunner().invoke(app, [*map(str, arguments)])

    def running(self) -> list[Any]:
        """Return the runs that MLflow holds for running, and end them for the next test."""
        from mlflow.tracking import MlflowClient

        client = MlflowClient(self.uri)
        ids = [found.experiment_id for found in client.search_experiments()]
        found = list(client.search_runs(ids, "attributes.status = 'RUNNING'"))
        for run in found:
            client.set_terminated(run.info.run_id, "KILLED")
        return found


def tiny_study() -> dict[str, Any]:
    """Return a study of two short trials on points, each with four evaluations."""
    study = copy.deepcopy(TINY)
    study["base"] |= {
        "dataset": {"name": "ring", "train": 500, "test": 200},
        "architecture": {"name": "mlp", "width": 64, "latent_dim": 8},
        "budget": {"discriminator_updates": 30},
    }
    study["measure"] |= {
        "features": "pixels",
        "metrics": ["frechet_distance", "precision"],
        "every": {"discriminator_updates": 10},
    }
    study["design"]["configs"] = 1
    return study


def make_studies(place: Path, uri: str) -> Studies:
    """Run the tiny study up to its middle, and a copy of it to its end."""
    load()
    yaml = write_yaml(place / "tiny.yaml", tiny_study())
    runs = place / "runs"
    arguments = ["run", yaml, "--runs", runs, "--in-process", "--tracking-uri", uri]
    begun = CliRunner().invoke(app, [*map(str, arguments), "--max-trials", "1"])
    assert begun.exit_code in (0, 130), begun.output
    folder = StudyFolder(runs / "tiny")
    spec = load_study(runs / "tiny" / "study.yaml")
    (left,) = folder.unfinished([trial.trial_id for trial in plan(spec)])
    steps = trial_steps(next(t for t in plan(spec) if t.trial_id == left), folder.trial(left))
    next(steps)
    next(steps)
    steps.close()
    studies = Studies(runs / "tiny", place / "end" / "runs" / "tiny", uri)
    studies.copy("midway", place / "end")
    done = studies.resume(studies.finished)
    assert done.exit_code == 0, done.output
    assert not studies.running()
    return studies


def rows(folder: Path) -> dict[str, pd.DataFrame]:
    """Return the tables without clocks, in an order that does not depend on how they came."""
    results = load_results(folder)
    found = {}
    for name, key in KEYS.items():
        table = getattr(results, name).drop(columns=list(CLOCK_COLUMNS), errors="ignore")
        found[name] = table.sort_values(key, ignore_index=True)
    return found


def assert_same_rows(folder: Path, expected: Path) -> None:
    """Compare all tables bit for bit; NaN equals NaN."""
    own, other = rows(folder), rows(expected)
    assert not own["trials"].empty
    assert not own["reported"].empty
    for name in KEYS:
        pd.testing.assert_frame_equal(own[name], other[name], check_exact=True, obj=name)
