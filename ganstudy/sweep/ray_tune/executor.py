"""Trials on Ray Tune: the actor that runs them, what feeds Tune, and what hears of it."""

from __future__ import annotations

import pickle
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import pyarrow.fs
import ray
from ray import tune
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.tune.search import Searcher

from ganstudy.provenance import code_hash
from ganstudy.records import TIME_LIMIT, TrialStatus
from ganstudy.storage import (
    full_disk,
    has_no_space,
    is_remote,
    location,
    name_of,
    store_errors,
)
from ganstudy.store import StudyFolder, TrialFolder, reason_of
from ganstudy.study.spec import StudySpec
from ganstudy.sweep.ray_tune.cluster import (
    Watchdog,
    connected,
    fitting,
    offers,
    request,
    started,
)
from ganstudy.sweep.ray_tune.schedulers import scheduler
from ganstudy.sweep.source import ClusterError, Observer, Source
from ganstudy.sweep.temporary import LONGEST_BYTES, find_base, private_folder
from ganstudy.sweep.watch import Watch
from ganstudy.trial import Heartbeat, TrialSpec, trial_steps

GROWTH = 64
"""Trials beyond those that fit at first, so that nodes which join later find work."""


class TrialActor(tune.Trainable):
    """Runs one trial after another; one step is one evaluation."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take the next trial. The work begins with the first step, where Tune can retry it."""
        self._steps = self._checked(config)

    def _checked(self, config: dict[str, Any]) -> Iterator[Heartbeat]:
        """Run the trial, unless this node joined without what the others were checked for."""
        folder = TrialFolder(location(config["folder"]))
        if not (folder.study / "study.yaml").exists():
            raise FileNotFoundError(f"the node {platform.node()} does not see {folder.study}")
        if config["code"] != code_hash():
            raise RuntimeError(f"the node {platform.node()} has another ganstudy than the driver")
        self._spec = TrialSpec.from_dict(config["spec"])
        yield from self.steps(self._spec, folder)

    def steps(self, spec: TrialSpec, folder: TrialFolder) -> Iterator[Heartbeat]:
        """Yield a heartbeat after every evaluation of the trial."""
        return trial_steps(spec, folder)

    def step(self) -> dict[str, Any]:
        """Train up to the next evaluation; return what executor, schedulers and people hear."""
        try:
            beat = next(self._steps)
        except Exception as error:
            if (instead := portable(error)) is error:
                raise
            raise instead from error
        return {
            "beat": beat,
            "done": beat.status.finished,
            "discriminator_updates": beat.discriminator_updates,
            "score": self._spec.primary.loss(beat.score),
        }

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another trial in the same process."""
        self.setup(new_config)
        return True


def portable(error: Exception) -> Exception:
    """Return the error, or one with its message if it cannot be unpickled in the driver.

    Many libraries' exceptions can be pickled and not unpickled. Ray then gives the driver an
    UnserializableException, which Tune neither retries nor writes down.
    """
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # pickling runs the exception's own code
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


class ProcessLost(ray.exceptions.RayActorError):
    """A trial's process that Ray ended for the node's memory, as an error that Tune can recover.

    Ray 2.60 raises OutOfMemoryError, which is no RayActorError: Tune takes that for a bug of its
    own and ends the whole sweep.
    """

    def __init__(self, reason: str) -> None:
        """Keep what Ray said."""
        super().__init__(error_msg=reason)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the reason: Tune writes errors down."""
        return ProcessLost, (self.error_msg,), vars(self)


def recover_from_lost_memory() -> None:
    """Let Tune recover a trial whose process Ray ended because the node's memory ran out."""
    fails = RayActorManager._actor_task_failed
    if fails.__name__ == "failed":
        return

    def failed(self: Any, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, ray.exceptions.OutOfMemoryError):
            exception = ProcessLost(str(exception))
        fails(self, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = failed


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
        self._code = code_hash()
        self.given: dict[str, TrialSpec] = {}
        """Tune's id of a trial that has not ended -> the trial."""

    def suggest(self, trial_id: str) -> Any:
        """Return the config of the next trial."""
        trial = self._source.next()
        if trial is None:
            return Searcher.FINISHED
        self.given[trial_id] = trial
        folder = name_of(self._folder.trial(trial.trial_id).folder)
        return {"spec": trial.to_dict(), "folder": folder, "code": self._code}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Pass on that a trial has ended."""
        self._source.tell(self.given.pop(trial_id))

    def save(self, checkpoint_path: str) -> None:
        """Tune's snapshots are not the record."""

    def restore(self, checkpoint_path: str) -> None:
        """Tune's snapshots are not the record."""


class ObserverCallback(NotPickled, tune.Callback):
    """Tells the observer what Tune does, and decides which failures count.

    Tune starts a trial again however often it fails: that of a node that left is nobody's fault.
    A trial that failed of itself more than `retries` times is noted as failed; Tune has set its
    next start in motion by then, and that ends at once. The same holds for a trial whose process
    was ended because its time was up.
    """

    def __init__(
        self, observer: Observer, folder: StudyFolder, searcher: SourceSearcher, retries: int
    ) -> None:
        """Listen on behalf of `observer`."""
        self._observer, self._folder, self._searcher = observer, folder, searcher
        self._retries = retries
        self._failures: dict[str, int] = {}
        self.full_disk: OSError | None = None
        """Why the sweep has to stop: every attempt would fail for want of space."""
        self._watch = Watch(folder)
        self._started: dict[str, Any] = {}
        """Trial -> Tune's object of it."""
        self._ended: dict[str, str] = {}
        """Why a trial's process was ended by `_end`."""

    def on_step_begin(self, iteration: int, trials: Any, **info: Any) -> None:
        """Some tenths of a second have passed: end trials that make no progress."""
        for trial, reason in self._watch.look():
            self._end(trial, reason)
        if self._watch.idle():
            self._observer.say(f"no trial runs, and some are left: the cluster offers {offers()}; "
                               f"they wait for nodes with room to join")  # fmt: skip

    def _end(self, trial: TrialSpec, reason: str) -> None:
        """End a trial's process from outside, whatever it is at; `on_trial_recover` follows."""
        if reason == TIME_LIMIT:
            try:
                self._folder.trial(trial.trial_id).stop(TIME_LIMIT)
            except store_errors() as away:
                reason = f"the time limit could not be noted: {away}"
        self._ended[trial.trial_id] = reason
        # Not `ray.cancel`: a process that is stopped, or that holds Python's lock, heeds nobody.
        if (actor := self._started[trial.trial_id].temporary_state.ray_actor) is not None:
            ray.kill(actor)

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial begins, or begins again."""
        spec = self._searcher.given[trial.trial_id]
        self._started[spec.trial_id] = trial
        self._watch.start(spec)
        self._observer.started(spec)

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
    ) -> None:
        """A trial was evaluated."""
        self._watch.note(result["beat"].trial_id)
        self._observer.beat(result["beat"])

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial has ended; one that has not said so itself was stopped by the scheduler."""
        beat = trial.last_result["beat"]
        self._watch.end(beat.trial_id)
        if not beat.status.finished:
            self._observer.beat(beat._replace(status=TrialStatus.STOPPED))

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial's process failed; Tune starts it again."""
        spec, error = self._searcher.given[trial.trial_id], error_of(trial)
        self._watch.end(spec.trial_id)
        ended = self._ended.pop(spec.trial_id, None)
        if ended == TIME_LIMIT:  # its next start finds it stopped
            return
        if ended is None and node_left(error):
            self._observer.retried(spec, "its node left the cluster")
            return
        if has_no_space(error):
            self.full_disk = full_disk(self._folder.folder, cast(Exception, error))
            return
        failures = self._failures[spec.trial_id] = self._failures.get(spec.trial_id, 0) + 1
        folder = self._folder.trial(spec.trial_id)
        reason = ended or died(error, text_of(trial))
        try:
            if failures <= self._retries:
                self._observer.retried(spec, ended or reason_of(folder.error()) or reason)
                return
            reason = folder.fail(reason)
        except store_errors() as away:  # an exception in here would end the whole sweep
            reason = f"{reason} ({away})"
        trial.max_failures = 0  # should its next start fail, too, it is the last
        self._observer.failed(spec, reason)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """The next start of a trial that had failed for good has failed, too."""
        self._watch.end(Path(trial.config["folder"]).name)  # the searcher has forgotten it


class FullDisk(NotPickled, tune.Stopper):
    """Stops the sweep once a disk is full."""

    def __init__(self, observer: ObserverCallback) -> None:
        """Ask `observer`, which hears why trials fail."""
        self._observer = observer

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial is stopped alone."""
        return False

    def stop_all(self) -> bool:
        """Whether no trial can record any more."""
        return self._observer.full_disk is not None


def error_of(trial: Any) -> Exception | None:
    """Return what ended a trial's process, as Tune has just written it down on this machine.

    `Trial.get_error` looks in the storage, where it comes only later. None if Tune wrote nothing
    that can be read.
    """
    try:
        return cast(Exception, pickle.loads(Path(trial.pickled_error_file).read_bytes()))
    except Exception:  # unpickling runs the exception's own code
        return None


def text_of(trial: Any) -> str:
    """Return the text of what ended a trial's process, empty if Tune wrote none."""
    try:
        return Path(trial.error_file).read_text(encoding="utf-8")
    except (TypeError, OSError):
        return ""


def node_left(error: Exception | None) -> bool:
    """Whether a trial's process died with its node, was sent away from it, or is out of reach."""
    if isinstance(error, ray.exceptions.NodeDiedError | ray.exceptions.ActorUnavailableError):
        return True
    if not isinstance(error, ray.exceptions.RayActorError):
        return False
    return error.preempted or "node has died" in str(error)


def died(error: Exception | None, text: str = "") -> str:
    """Return in one line why a trial's process is no more.

    Args:
        error: What ended it, None if that cannot be unpickled.
        text: What Tune wrote down of it.
    """
    if error is None:
        return reason_of(text) or "the trial's process ended without a word"
    if isinstance(error, ProcessLost):
        return "out of memory (host): Ray ended the process, as the node had hardly any left"
    if isinstance(error, ray.exceptions.RayActorError):
        return "the trial's process was killed (by the kernel, if the node ran out of memory)"
    return reason_of(str(error))  # the last line of the worker's traceback


def execute(
    source: Source,
    folder: StudyFolder,
    observer: Observer,
    spec: StudySpec,
    address: str | None = None,
    lost: Callable[[str], None] = lambda what: None,
    actor: type[TrialActor] = TrialActor,
) -> None:
    """Run every trial of `source` on Ray: a local one that ends with this call, or `address`.

    Args:
        source: The trials.
        folder: Where they record.
        observer: Hears what happens.
        spec: The study: its resources, retries and stopping.
        address: A Ray cluster.
        lost: Called, in a thread, with what is lost of the cluster: this call may not return then.
        actor: What runs the trials.
    """
    searcher = SourceSearcher(source, folder)
    callback = ObserverCallback(observer, folder, searcher, spec.retries)
    recover_from_lost_memory()
    with session(folder, address) as storage, Watchdog(lost):
        tuner = tune.Tuner(
            tune.with_resources(actor, tune.PlacementGroupFactory([request(spec.resources)])),
            tune_config=tune.TuneConfig(
                num_samples=len(source),
                max_concurrent_trials=concurrency(spec, address),
                reuse_actors=True,
                search_alg=searcher,
                scheduler=scheduler(spec, folder),
            ),
            run_config=tune.RunConfig(
                name="tune",
                verbose=0,
                callbacks=[callback],
                stop=FullDisk(callback),
                failure_config=tune.FailureConfig(max_failures=-1),  # ObserverCallback decides
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                **storage,
            ),
        )
        try:
            tuner.fit()
        except (tune.TuneError, ray.exceptions.RayError) as error:
            raise ClusterError(f"Ray ended the sweep: {error}") from error
    if callback.full_disk is not None:
        raise callback.full_disk


def concurrency(spec: StudySpec, address: str | None) -> int:
    """Return how many trials are asked for at a time.

    On a cluster more than fit, for it may grow; an adaptive search asks for no more than fit,
    since it learns nothing from trials that wait.
    """
    fit = fitting(spec.resources)
    if spec.resources.max_concurrent is not None:
        return spec.resources.max_concurrent
    return fit if address is None or spec.design.sampler == "tpe" else fit + GROWTH


@contextmanager
def session(folder: StudyFolder, address: str | None) -> Iterator[dict[str, Any]]:
    """Be on Ray for the block, and give Tune a place for files that all nodes must see.

    Nobody reads them later: nothing of a local Ray is left after the block.

    Raises:
        ClusterError: If Ray cannot be started or reached.
    """
    with ExitStack() as stack:
        if address is None:
            try:
                own = stack.enter_context(private_folder(find_base(longest=LONGEST_BYTES)))
            except OSError as error:
                raise ClusterError(f"Ray does not start on this machine: {error}") from error
            stack.enter_context(started(own))
            yield {"storage_path": str(own / "tune")}
        else:
            stack.enter_context(connected(address))
            yield stack.enter_context(scratch(folder))


@contextmanager
def scratch(folder: StudyFolder) -> Iterator[dict[str, Any]]:
    """Give Tune a place on a cluster, beside the trials, and remove it after the block."""
    place = location(name_of(folder.folder)) / "ray"
    remove(place)  # a driver that was killed left its own
    try:
        if is_remote(place):
            remote: Any = place
            handler = pyarrow.fs.FSSpecHandler(remote.fs)
            yield {"storage_path": remote.path,
                   "storage_filesystem": pyarrow.fs.PyFileSystem(handler)}  # fmt: skip
        else:
            yield {"storage_path": str(place)}
    finally:
        remove(place)


def remove(place: Path) -> None:
    """Delete a folder and what is in it, as far as that can be done."""
    if not is_remote(place):
        shutil.rmtree(place, ignore_errors=True)
        return
    remote: Any = place
    try:
        remote.fs.rm(remote.path, recursive=True)
    except store_errors():  # left behind, it costs a few bytes
        return
