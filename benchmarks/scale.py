"""What a sweep costs beside its trials: 2,000 of one second, a plan of 100,000, MLflow away.

    python benchmarks/scale.py [sweep [TRIALS ...] | plan | outage]

`sweep`: 200 and 2,000 trials whose trainer sleeps for a second in place of training, on 8 logical
slots; all else is real: Ray, actors, evaluation, records, tables, MLflow on sqlite, the report.
Goals: wall time at most 0.10 s a trial above trials / slots x 1 s; the driver's memory grows by at
most 100 KB a trial; first result and total grow no faster than the trials; MLflow and parquet hold
everything.

`plan`: `ganstudy plan` of 100,000 trials. Goals: 10 s, 1 GiB.

`outage`: the same real study twice, undisturbed and with MLflow's server stopped for a minute in
mid-study. Goals: the trials of that minute at most 5 % slower than the same trials undisturbed
(the median of the pairs; all other pairs tell the machine's own noise), nothing lost, caught up
while the study runs.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from ruamel.yaml import YAML

from ganstudy.display import Display
from ganstudy.gan.trainer import GanTrainer
from ganstudy.launch import launch
from ganstudy.records import load_results
from ganstudy.store import StudyFolder, TrialFolder
from ganstudy.study.spec import parse_study
from ganstudy.sweep import ray_tune
from ganstudy.sweep.driver import Run
from ganstudy.sweep.ending import graceful
from ganstudy.sweep.source import Source
from ganstudy.tracking import default_uri
from ganstudy.trial import Heartbeat, TrialSpec, trial_steps

SLOTS = 8
UPDATES = 100
TRIAL_SECONDS = 1.0
ABOVE_IDEAL = 0.10
GROWTH_KB = 100.0
SLEEPY = {
    "study": "scale",
    "base": {
        "dataset": "ring",
        "architecture": {"name": "mlp", "width": 16, "latent_dim": 2},
        "batch_size": 16,
        "budget": {"discriminator_updates": UPDATES},
    },
    "arms": {"non_saturating": {"loss": "non_saturating"}, "hinge": {"loss": "hinge"}},
    "space": {"generator_optimizer.lr": {"log_uniform": [1e-4, 1e-2]}},
    "measure": {
        "features": "pixels",
        "metrics": ["frechet_distance"],
        "samples": 100,
        "every": {"discriminator_updates": UPDATES // 2},
        "probe": {"samples": 100},  # what trials measure is theirs; the machine has few cores
    },
    "events": {"stop_on": []},
}
OUTAGE_SECONDS = 60.0
REAL: dict[str, Any] = {
    "study": "outage",
    "base": {
        "dataset": "digits",
        "architecture": {"name": "dcgan", "width": 8, "latent_dim": 8},
        "batch_size": 32,
        "budget": {"discriminator_updates": 300},
    },
    "arms": {"non_saturating": {"loss": "non_saturating"}, "hinge": {"loss": "hinge"}},
    "space": {"generator_optimizer.lr": {"log_uniform": [1e-4, 1e-3]}},
    "design": {"configs": 45},
    "measure": {
        "features": {"name": "small_cnn", "epochs": 1},
        "metrics": ["kernel_distance"],
        "samples": 100,
        "every": {"discriminator_updates": 100},
    },
    "events": {"stop_on": []},
}
"""Trials of seconds: the study has to outlast the outage."""


class SleepingTrainer(GanTrainer):
    """Makes one update of every window, for its signals, and sleeps through the others."""

    def advance(self, updates: int) -> dict[str, float]:
        """Take as long as the trial's length says."""
        until = time.monotonic() + TRIAL_SECONDS * updates / UPDATES
        signals = super().advance(1)
        self.state.discriminator_updates += updates - 1
        time.sleep(max(0.0, until - time.monotonic()))
        return signals


class SleepingActor(ray_tune.TrialActor):
    """The actor of a real study, but for the trainer."""

    def steps(self, spec: TrialSpec, folder: TrialFolder) -> Iterator[Heartbeat]:
        """Yield a heartbeat after every evaluation of the trial."""
        return trial_steps(spec, folder, SleepingTrainer(spec.train, spec.device))


class SleepingRun(Run):
    """A driver whose actors sleep, and who watches itself."""

    def _execute(self, display: Display, source: Source) -> None:
        self.begun = time.monotonic()
        self.first: float | None = None
        self.resident: list[int] = []
        watching = threading.Thread(target=self._watch, args=(display,), daemon=True)
        watching.start()
        ray_tune.execute(source, self.folder, display, self.spec, actor=SleepingActor)

    def _watch(self, display: Display) -> None:
        while True:
            if display.ended:
                self.first = self.first or time.monotonic() - self.begun
                self.resident.append(resident_bytes())
            time.sleep(0.1)


def resident_bytes() -> int:
    """Return this process's memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def sleepy_study(trials: int) -> dict[str, Any]:
    """Return a study of that many sleeping trials."""
    return SLEEPY | {"design": {"configs": trials // 2, "seeds": [0]}}


def write_study(study: dict[str, Any], folder: Path) -> Path:
    """Write a study's YAML."""
    path = folder / "study.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML().dump(study, file)
    return path


def one_sweep(trials: int, runs: Path) -> None:
    """Run one sleeping sweep in this process; leave its figures in `runs`."""
    os.sched_getaffinity = lambda pid: set(range(SLOTS))  # what a local Ray is started with
    begun = time.monotonic()
    folder = StudyFolder(runs / "scale")
    folder.create()
    run = SleepingRun(parse_study(sleepy_study(trials)), folder, default_uri(runs))
    with Path(os.devnull).open("w") as nowhere, graceful() as ending:
        launch(run, None, Console(file=nowhere, force_terminal=True), run.begin, ending)
    figures = {
        "wall": time.monotonic() - begun,
        "first": run.first,
        "growth": max(run.resident) - run.resident[0],
        "resident": run.resident[0],
        "phases": run.phases,
        "notes": run.notes,
    }
    (runs / "figures.json").write_text(json.dumps(figures), encoding="utf-8")


def sweep(sizes: list[int]) -> bool:
    """Run sleeping sweeps of several sizes, each in a process of its own."""
    figures = []
    good = True
    for trials in sizes:
        with tempfile.TemporaryDirectory() as runs:
            command = [sys.executable, __file__, "one-sweep", str(trials), runs]
            subprocess.run(command, check=True)
            text = (Path(runs) / "figures.json").read_text(encoding="utf-8")
            figures.append(json.loads(text))
            complete = missing(Path(runs), trials)
        found = figures[-1]
        print(f"\n{trials} trials of {TRIAL_SECONDS:g} s on {SLOTS} slots, {os.cpu_count()} cores")
        for name, seconds in sorted(found["phases"].items()):
            print(f"  {seconds:8.1f} s  {name}")
        above = found["wall"] / trials - TRIAL_SECONDS / SLOTS
        growth = found["growth"] / 1000 / trials
        print(f"  {found['first']:8.1f} s  to the first result")
        # Starting Ray and its actors and importing plotly are paid once: few trials cannot tell.
        reached = tell("seconds a trial above the ideal", above, ABOVE_IDEAL)
        reached &= tell(f"KB a trial, beside {found['resident'] / 1e6:.0f} MB", growth, GROWTH_KB)
        good &= reached or trials < sizes[-1]
        good &= tell("things that MLflow or parquet lack", len(complete), 0)
        for what in [*complete[:5], *found["notes"]]:
            print(f"           {what}")
    if len(sizes) > 1:
        more = sizes[-1] / sizes[0]
        for what, name in ("first", "time to the first result"), ("wall", "wall time"):
            ratio = figures[-1][what] / figures[0][what]
            good &= tell(f"times the {name} with {more:g} times the trials", ratio, more)
    return good


def missing(runs: Path, trials: int) -> list[str]:
    """Return in words what the tables or MLflow lack."""
    from mlflow.tracking import MlflowClient

    results = load_results(runs / "scale")
    wrong = [f"{len(results.trials)} rows in trials.parquet"] * (len(results.trials) != trials)
    ends = results.trials["status"].value_counts().to_dict()
    wrong += [f"trials ended as {ends}"] * (ends != {"completed": trials})
    per_trial = results.points.groupby("trial_id").size()
    wrong += ["points are missing"] * (len(per_trial) != trials or per_trial.nunique() > 2)
    client = MlflowClient(default_uri(runs))
    found = runs_of(client, "scale")
    children = {
        run.data.tags["ganstudy.trial_id"]: run
        for run in found
        if "ganstudy.trial_id" in run.data.tags
    }
    wrong += [f"{len(found)} runs in MLflow"] * (len(found) != trials + 1)
    for run in found:
        if run.info.status != "FINISHED":
            wrong.append(f"{run.info.run_name} is {run.info.status}")
    for trial in results.trials.to_dict("records"):
        run = children.get(trial["trial_id"])
        if run is None:
            wrong.append(f"MLflow has no {trial['trial_id']}")
        else:
            wrong += lacking(trial, run.data.metrics)
    for trial_id in list(children)[:: max(1, trials // 20)]:
        own = results.points[results.points["trial_id"] == trial_id]
        for name, points in own[np.isfinite(own["value"])].groupby("name"):
            history = client.get_metric_history(children[trial_id].info.run_id, name)
            wrong += [f"{trial_id}: history of {name}"] * (
                [m.value for m in history] != points["value"].tolist()
            )
    return wrong


def runs_of(client: Any, study: str) -> list[Any]:
    """Return every run of a study."""
    experiment = client.get_experiment_by_name(study)
    found, token = [], None
    while experiment is not None:
        page = client.search_runs([experiment.experiment_id], max_results=500, page_token=token)
        found += page
        token = page.token
        if not token:
            break
    return found


def lacking(trial: dict[str, Any], metrics: dict[str, float]) -> list[str]:
    """Return which last values of a trial its run has not."""
    last = {k.removeprefix("last."): v for k, v in trial.items() if k.startswith("last.")}
    return [
        f"{trial['trial_id']}: {name} is {metrics.get(name)} in MLflow, not {value}"
        for name, value in last.items()
        if value is not None and np.isfinite(value) and metrics.get(name) != value
    ]


def tell(what: str, found: float, goal: float) -> bool:
    """Print a figure with its goal; return whether it is reached."""
    good = found <= goal
    print(f"  {found:8.3f}  {what}, goal {goal:g}: {'reached' if good else 'MISSED'}", flush=True)
    return good


def plan() -> bool:
    """Plan 100,000 trials by the command line in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_study(sleepy_study(100_000), Path(folder))
        begun = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "ganstudy.cli", "plan", str(path)],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        seconds = time.monotonic() - begun
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print("\n`ganstudy plan` of 100,000 trials")
    return tell("seconds", seconds, 10) & tell("GiB", peak, 1)


def outage() -> bool:
    """Run a study undisturbed and with MLflow stopped for a minute, and compare its trials."""
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        path = write_study(REAL, runs)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        good, told = True, {}
        for name in "undisturbed", "disturbed":
            told[name] = tracked_run(path, runs, name, port)
        tables = {name: load_results(runs / name).trials.set_index("trial_id") for name in told}
        disturbed = tables["disturbed"]
        ratios = disturbed["seconds"] / tables["undisturbed"]["seconds"]
        ended = disturbed["started_at"] + disturbed["seconds"]
        away, back = told["disturbed"]["away"], told["disturbed"]["back"]
        within = (disturbed["started_at"] < back) & (ended > away)
        print(f"\n{len(disturbed)} trials, MLflow away for {back - away:.0f} s, in which "
              f"{within.sum()} of them ran")  # fmt: skip
        for which, some in (("that ran meanwhile", within), ("of the others", ~within)):
            low, middle, high = ratios[some].quantile([0.1, 0.5, 0.9])
            print(f"{middle:10.3f}  times as long as undisturbed, median of the trials {which} "
                  f"(tenths {low:.3f} to {high:.3f})")  # fmt: skip
        slower = float(ratios[within].median())
        good &= tell("times as long, median of those that ran meanwhile", slower, 1.05)
        good &= tell("trials that MLflow lacks at the end", told["disturbed"]["lacks"], 0)
        good &= tell("seconds until MLflow had caught up", told["disturbed"]["behind"], 30)
        return good


def tracked_run(path: Path, runs: Path, name: str, port: int) -> dict[str, float]:
    """Run the study at `path`, tracked by a server, which the run named "disturbed" loses."""
    uri = f"http://127.0.0.1:{port}"
    store = runs / f"store-{name}"
    store.mkdir()
    command = [sys.executable, "-m", "ganstudy.cli", "run", str(path), "--runs", str(runs)]
    command += ["--name", name, "--tracking-uri", uri]
    behind = away = back = 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as study:
        if name == "disturbed":
            with served(store, port):
                while finished_in(uri, REAL["study"]) < 2 and study.poll() is None:
                    time.sleep(0.5)
            away = time.time()
            time.sleep(OUTAGE_SECONDS)
            back = time.time()
        with served(store, port):
            if name == "disturbed":
                behind = catching_up(uri, runs / name, study)
            study.wait()
            trials = len(load_results(runs / name).trials)
            lacks = trials - finished_in(uri, REAL["study"])
    shutil.rmtree(store)
    return {"behind": behind, "lacks": lacks, "away": away, "back": back}


def catching_up(uri: str, folder: Path, study: subprocess.Popen[bytes]) -> float:
    """Return the seconds until MLflow holds the trials that had ended, inf if the study did."""
    begun = time.monotonic()
    ended = int((load_results(folder).trials["status"] == "completed").sum())
    while finished_in(uri, REAL["study"]) < ended:
        if study.poll() is not None:
            return float("inf")
        time.sleep(0.5)
    return time.monotonic() - begun


def finished_in(uri: str, study: str) -> int:
    """Return how many trials of a study have ended, as MLflow sees it."""
    from mlflow.tracking import MlflowClient

    runs = runs_of(MlflowClient(uri), study)
    return sum("ganstudy.trial_id" in r.data.tags and r.info.status == "FINISHED" for r in runs)


@contextmanager
def served(store: Path, port: int) -> Iterator[None]:
    """Serve MLflow on loopback for as long as the block lasts."""
    code = f"from ganstudy.tracking import serve; serve({default_uri(store)!r}, {port}, print)"
    with subprocess.Popen([sys.executable, "-uc", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)


def main() -> None:
    """Run what is asked for, all of it unless anything is."""
    chosen = sys.argv[1:2]
    if chosen == ["one-sweep"]:
        one_sweep(int(sys.argv[2]), Path(sys.argv[3]))
        return
    good = True
    if chosen in ([], ["sweep"]):
        good &= sweep([int(n) for n in sys.argv[2:]] or [200, 2000])
    if chosen in ([], ["plan"]):
        good &= plan()
    if chosen in ([], ["outage"]):
        good &= outage()
    sys.exit(not good)


if __name__ == "__main__":
    main()
