"""The Ray Tune executor, and the only importer of ray.

Tune places trials, shares out resources and retries what crashed. The record is ours: a trial that
is retried goes on from its own folder, and Tune's snapshots are never read.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # with the new engine Tune prints two banners in spite of verbose=0
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # its loggers import torch into the driver
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # snapshots that nobody reads
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths mean the same in every process
}
for _name, _value in ENVIRONMENT.items():  # ray reads some of these while it is imported
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402
from ray import tune  # noqa: E402
from ray.tune.search import Searcher  # noqa: E402

from ganstudy.store import StudyFolder, TrialFolder, last_line  # noqa: E402
from ganstudy.study.spec import Resources  # noqa: E402
from ganstudy.sweep.source import ClusterError, Observer, Source  # noqa: E402
from ganstudy.trial import TrialSpec, trial_steps  # noqa: E402

OBJECT_STORE_BYTES = 80 * 1024**2
"""Trials exchange nothing through Ray's object store; this is close to its minimum."""


class TrialActor(tune.Trainable):
    """Runs one trial after another; one step is one evaluation."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take the next trial. The work begins with the first step, where Tune can retry it."""
        self._spec = TrialSpec.from_dict(config["spec"])
        self._steps: Iterator[Any] = iter(
            trial_steps(self._spec, TrialFolder(Path(config["folder"])))
        )

    def step(self) -> dict[str, Any]:
        """Train up to the next evaluation."""
        beat = next(self._steps)
        return {"beat": beat, "done": beat.status.finished}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another trial in the same process."""
        self.setup(new_config)
        return True


class NotPickled:
    """Tune pickles searcher and callbacks into snapshots that we never restore."""

    def __getstate__(self) -> dict[str, Any]:
        """Leave out everything, locks and terminals included."""
        return {}


class SourceSearcher(NotPickled, Searcher):
    """Feeds Tune from a Source: a list of configs as a grid would take quadratic time."""

    def __init__(self, source: Source, folder: StudyFolder) -> None:
        """Hand out the trials of `source`."""
        super().__init__()
        self._source, self._folder = source, folder
        self._given: dict[str, TrialSpec] = {}

    def suggest(self, trial_id: str) -> Any:
        """Return the config of the next trial."""
        trial = self._source.next()
        if trial is None:
            return Searcher.FINISHED
        self._given[trial_id] = trial
        folder = self._folder.trial(trial.trial_id).folder.resolve()
        return {"spec": trial.to_dict(), "folder": str(folder)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Pass on that a trial has ended."""
        self._source.tell(self._given.pop(trial_id))

    def save(self, checkpoint_path: str) -> None:
        """Tune's snapshots are not the record."""

    def restore(self, checkpoint_path: str) -> None:
        """Tune's snapshots are not the record."""


class ObserverCallback(NotPickled, tune.Callback):
    """Tells the observer what Tune does; notes trials that failed for good."""

    def __init__(self, observer: Observer, folder: StudyFolder) -> None:
        """Listen on behalf of `observer`."""
        self._observer, self._folder = observer, folder

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial begins, or begins again."""
        self._observer.started(TrialSpec.from_dict(trial.config["spec"]))

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
    ) -> None:
        """A trial was evaluated."""
        self._observer.beat(result["beat"])

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial's process failed; Tune tries again."""
        spec = TrialSpec.from_dict(trial.config["spec"])
        told = last_line(self._folder.trial(spec.trial_id).error())
        self._observer.retried(spec, told or died(trial))

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial has failed for good."""
        spec = TrialSpec.from_dict(trial.config["spec"])
        reason = died(trial)
        try:
            reason = self._folder.trial(spec.trial_id).fail(reason)
        except OSError as full:  # an exception in here would end the whole sweep
            reason = f"{reason} ({full})"
        self._observer.failed(spec, reason)


def died(trial: Any) -> str:
    """Return in one line what Ray says of a failed trial's process."""
    error = trial.get_error()
    if error is None:
        return "the trial's process ended without a word"
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"


def execute(
    source: Source,
    folder: StudyFolder,
    observer: Observer,
    retries: int,
    resources: Resources,
    address: str | None = None,
) -> None:
    """Run every trial of `source` on Ray: a local one that ends with this call, or `address`."""
    with connected(address):
        slots = resources.max_concurrent or fitting(resources)
        # Tune's own files, which nobody reads; all nodes of a cluster must see where they are.
        scratch = Path(tempfile.mkdtemp()) if address is None else folder.folder.resolve() / "ray"
        tuner = tune.Tuner(
            tune.with_resources(TrialActor, {"cpu": resources.cpu, "gpu": resources.gpu}),
            tune_config=tune.TuneConfig(
                num_samples=len(source),
                max_concurrent_trials=slots,
                reuse_actors=True,
                search_alg=SourceSearcher(source, folder),
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(scratch),
                verbose=0,
                callbacks=[ObserverCallback(observer, folder)],
                failure_config=tune.FailureConfig(max_failures=retries),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        try:
            tuner.fit()
        except (tune.TuneError, ray.exceptions.RayError) as error:
            raise ClusterError(f"Ray ended the sweep: {error}") from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def fitting(resources: Resources) -> int:
    """Return how many trials fit on the cluster at a time.

    Raises:
        ClusterError: If not even one does; Tune would wait for ever.
    """
    total = ray.cluster_resources()
    slots = int(total.get("CPU", 1) // resources.cpu)
    if resources.gpu > 0:
        slots = min(slots, int(total.get("GPU", 0) / resources.gpu))
    if slots < 1:
        asked = f"{resources.cpu} CPUs and {resources.gpu} GPUs"
        raise ClusterError(
            f"no trial fits: one asks for {asked}, the cluster offers {offer(total)}"
        )
    return slots


def offer(total: dict[str, float]) -> str:
    """Return a cluster's resources in words."""
    return f"{total.get('CPU', 0):.0f} CPUs and {total.get('GPU', 0):.0f} GPUs"


def reach(address: str) -> None:
    """Raise OSError if nothing listens at host:port, which Ray itself finds out in minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=5).close()


def check_cluster(resources: Resources, address: str) -> None:
    """Raise ClusterError unless there is a cluster at `address` on which a trial fits."""
    with connected(address):
        fitting(resources)


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Start a local Ray that ends with the block, or connect to the cluster at `address`.

    Raises:
        ClusterError: If there is none at `address`.
    """
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if address is None:
            ray.init(
                address="local",
                num_cpus=len(os.sched_getaffinity(0)),
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                **quiet,
            )
        else:
            try:
                reach(address)
                ray.init(address=address, **quiet)
            except (OSError, RuntimeError, ValueError) as error:
                raise ClusterError(f"no Ray cluster at {address}: {error}") from error
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    try:
        with sigterm_as_interrupt():
            yield
    finally:
        ray.shutdown()


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """End gracefully on SIGTERM, which docker, Kubernetes and SLURM send.

    Tune ends gracefully on SIGINT and SIGUSR1, but SIGTERM would abort it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGUSR1))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
