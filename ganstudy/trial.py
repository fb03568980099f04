"""One trial: train, measure, watch, record. Every executor runs the same `run_trial`."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import platform
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from threadpoolctl import threadpool_limits
from torch import Tensor

from ganstudy.checksums import add_checksum
from ganstudy.gan.config import TrainConfig
from ganstudy.gan.trainer import GanTrainer, NetworkTrainer, Trainer, build_trainer
from ganstudy.measure.events import EventLog, EventsConfig, names
from ganstudy.measure.features.cache import read_torch, write_torch
from ganstudy.measure.metrics import Latents
from ganstudy.measure.protocol import (
    HELD_OUT_AUC,
    RAW,
    STANDARD_ERROR,
    Evaluation,
    Evaluator,
    MeasureConfig,
    Primary,
    evaluator,
)
from ganstudy.paths import resolve_paths, store_paths
from ganstudy.records import (
    TIME_LIMIT,
    Event,
    Point,
    TrialRecord,
    TrialResult,
    TrialStatus,
)
from ganstudy.storage import DamagedFile, Writer, read_checked, read_json, store_errors
from ganstudy.store import Attempt, TrialFolder

READ_EVERY = 25
"""Discriminator updates between two reads of the training signals."""
GRID_SIDE = 8
"""Images per side of a sample grid."""
SCATTER_SIDE = 128
"""Pixels per side of a scatter of points."""
SHOWN = 500
"""Points of a probe that are kept for a picture."""
PROGRESS_SECONDS = 10.0
"""Least time between two notes of progress, which cost a request each in an object store."""
LOOKS = 8
"""Probes whose samples are kept: an event's onset lies a few probes before its detection."""


def trial_id(arm: str, config_id: str, seed: int) -> str:
    """Return the name of a trial: readable, and unique in its study."""
    return f"{arm}-{config_id}-s{seed}"


@dataclass(frozen=True)
class TrialSpec:
    """All that one trial is: who it is, how it trains, how it is measured and watched.

    Attributes:
        trial_id: Readable and unique in its study: `wgan_gp-c07-s0`.
        params: The swept values, by key path.
        cpu: Threads.
        gpu: Share of a GPU; above 0 the trial runs on "cuda".
        minutes: How long it may take, over all its attempts; without end if None.
    """

    study: str
    arm: str
    config_id: str
    train: TrainConfig
    measure: MeasureConfig
    events: EventsConfig
    params: Mapping[str, Any]
    cpu: int = 1
    gpu: float = 0.0
    minutes: float | None = None

    @property
    def seed(self) -> int:
        """The seed of the training run."""
        return self.train.seed

    @property
    def trial_id(self) -> str:
        """Arm, config and seed."""
        return trial_id(self.arm, self.config_id, self.seed)

    @property
    def device(self) -> str:
        """Where the trial trains."""
        return "cuda" if self.gpu > 0 else "cpu"

    @property
    def result_hash(self) -> str:
        """16 hex digits of all that changes the result: equal hash, equal rows.

        Data that are read from files enter by their content, wherever the files lie.
        """
        dataset = self.train.dataset.identity()
        train = json.dumps(self.train.to_dict() | {"dataset": dataset}, sort_keys=True)
        parts = [train, self.measure.as_json, self.events.as_json, str(self.cpu)]
        text = f'[{", ".join(parts)}, "{self.device}"]'
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def primary(self) -> Primary:
        """Name and direction of the score by which checkpoints are chosen."""
        return self.measure.primary_score

    def identity(self) -> dict[str, Any]:
        """Return the columns that say who the trial is."""
        return {
            "study": self.study,
            "arm": self.arm,
            "trial_id": self.trial_id,
            "config_id": self.config_id,
            "seed": self.seed,
            "result_hash": self.result_hash,
            "params": dict(self.params),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain data from which `from_dict` builds an equal spec."""
        return {
            "study": self.study,
            "arm": self.arm,
            "config_id": self.config_id,
            "train": self.train.to_dict(),
            "measure": self.measure.to_dict(),
            "events": self.events.to_dict(),
            "params": dict(self.params),
            "cpu": self.cpu,
            "gpu": self.gpu,
            "minutes": self.minutes,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrialSpec:
        """Build from what `to_dict` gave."""
        train = TrainConfig.from_dict(data["train"])
        built = {
            "train": train,
            "measure": MeasureConfig.from_dict(data["measure"], train.discriminator_updates),
            "events": EventsConfig.from_dict(data["events"]),
        }
        return cls(**{**data, **built})

    @classmethod
    def load(cls, path: Path) -> TrialSpec:
        """Read a `trial.json`: `runs/STUDY/trials/TRIAL/attempt-N/trial.json`.

        Raises:
            DamagedFile: If it does not fit its checksum, or has none.
        """
        study = TrialFolder(path.parent.parent).study
        config = read_json(path, Attempt(path.parent).remedy)
        return cls.from_dict(resolve_paths(config, study))


class Heartbeat(NamedTuple):
    """What an executor hears of a trial at every evaluation."""

    trial_id: str
    discriminator_updates: int
    budget: int
    score: float
    """The primary score, NaN where there is none."""
    status: TrialStatus
    reason: str = ""
    best: float = math.nan
    """The primary score at the best checkpoint of all attempts, NaN where there is none."""


def run_trial(
    spec: TrialSpec,
    folder: TrialFolder,
    heartbeat: Callable[[Heartbeat], object] = lambda beat: None,
    trainer: Trainer | None = None,
) -> TrialRecord:
    """Run (or go on with) one trial to its end; return its record.

    Args:
        spec: The trial.
        folder: Where it records; an unfinished attempt there is gone on with.
        heartbeat: Called at every evaluation.
        trainer: What trains; ours from `spec.train` unless given.
    """
    for beat in trial_steps(spec, folder, trainer):
        heartbeat(beat)
    latest = folder.latest()
    assert latest is not None  # the last step has recorded
    return latest[1]


def trial_steps(
    spec: TrialSpec, folder: TrialFolder, trainer: Trainer | None = None
) -> Iterator[Heartbeat]:
    """Yield a heartbeat after every evaluation, when all rows so far are on disk."""
    latest = folder.latest_whole()
    record = latest[1] if latest is not None else TrialRecord(TrialResult(TrialStatus.PENDING))
    status, _ = folder.standing(record.result, running=True)
    if status.finished:
        yield _beat(spec, record)._replace(status=status)
        return
    # Per thread in torch's OpenMP build, so it is set where the training runs. Scores are numpy's,
    # whose BLAS would start a thread for every core of the machine.
    torch.set_num_threads(max(1, spec.cpu))
    threadpool_limits(max(1, spec.cpu), user_api="blas")
    attempt = folder.new_attempt()
    try:
        run = _begin_run(spec, folder, attempt, trainer or build_trainer(spec.train, spec.device))
        while not run.record.result.status.finished:
            yield _beat(spec, run.step())
    except Exception:
        # On a full disk not even the traceback can be kept; the exception itself still tells.
        with contextlib.suppress(*store_errors()):
            attempt.note_error(traceback.format_exc())
        raise


def _begin_run(
    spec: TrialSpec, folder: TrialFolder, attempt: Attempt, trainer: Trainer
) -> TrialRun:
    """Take up the trial where its latest whole attempt left it.

    Results are deterministic: what a damaged attempt held comes out again, so the attempt is set
    aside, and an earlier one, or the beginning, takes its place.
    """
    while True:
        try:
            return TrialRun(spec, attempt, folder.latest(), trainer)
        except DamagedFile as damage:
            if folder.set_aside(damage) is None:
                raise


def _beat(spec: TrialSpec, record: TrialRecord) -> Heartbeat:
    at = record.result.discriminator_updates
    score = record.values_at(at).get(spec.primary.name, math.nan)
    budget = spec.train.discriminator_updates
    result = record.result
    best = record.values_at(result.best_at).get(spec.primary.name, math.nan)
    return Heartbeat(spec.trial_id, at, budget, score, result.status, result.reason, best)


class Look(NamedTuple):
    """What a probe saw."""

    at: int
    images: Tensor
    """The first of its samples; a grid shows 64, a scatter all."""


class TrialRun:
    """One attempt at a trial, from evaluation to evaluation."""

    def __init__(
        self,
        spec: TrialSpec,
        attempt: Attempt,
        latest: tuple[Attempt, TrialRecord] | None,
        trainer: Trainer,
    ) -> None:
        """Load the measures and, where an earlier attempt left one, the state."""
        self.spec, self.attempt, self.trainer = spec, attempt, trainer
        features = attempt.folder.parent.parent.parent / "features"
        self.evaluator = evaluator(spec.measure, spec.train.dataset, "select", features)
        self.log = EventLog(spec.events.detectors)
        self.record = TrialRecord(
            TrialResult(TrialStatus.RUNNING, started_at=time.time(), machine=machine(spec))
        )
        self._kept: dict[str, Writer] = {}
        self._seen: deque[Look] = deque(maxlen=LOOKS)
        self._evidence: dict[str, Look] = {}
        self._noted = -math.inf
        if latest is not None:
            self._continue(*latest)
        self._clock = time.monotonic() - self.record.result.seconds

    def _continue(self, attempt: Attempt, record: TrialRecord) -> None:
        """Take over rows, state and kept files of an earlier attempt."""
        self.record = record
        self.log.update(record.points)
        files = {role: attempt.file(name) for role, name in record.files.items()}
        state = attempt.read_file(files["state"], read_torch)
        for path in files.values():
            content = attempt.read_file(path, read_checked)  # what is damaged is not handed on
            self._kept[path.name] = partial(_write_bytes, content=content)
        # Last: a trainer with this state could not begin anew if another file was damaged.
        self.trainer.load_state_dict(state)

    def step(self) -> TrialRecord:
        """Train up to the next evaluation, evaluate, record; return the record."""
        begun, self._probe_seconds = time.monotonic(), 0.0
        budget = self.spec.train.discriminator_updates
        points, stop = self._train() if self.record.points else ([], None)
        trained = time.monotonic()
        self._note_progress("evaluating")
        images = self.trainer.sample(self.spec.measure.samples, self.evaluator.noise())
        done = self._at() >= budget and stop is None
        scores = [] if self.record.points else self._probed()
        scores += self._points(self._measure(images, final=done))
        also = self._stopping(scores)
        stop = also if also == "divergence" else stop or also
        status, reason = self._status(points + scores, stop, done=self._at() >= budget)
        self._save(status, reason, points + scores, images, begun, trained)
        return self.record

    def _train(self) -> tuple[list[Point], str | None]:
        """Train up to the next evaluation; return what was read, and the event that stops."""
        points: list[Point] = []
        due = min(self.spec.train.discriminator_updates, self._at() + self.spec.measure.every)
        stop = None
        while self._at() < due and stop is None:
            before = self._at()
            read = self._points(self.trainer.advance(min(READ_EVERY, due - before)))
            probe = self.spec.measure.probe
            if probe is not None and self._at() // probe.every > before // probe.every:
                begun = time.monotonic()
                read += self._probed()
                self._probe_seconds += time.monotonic() - begun
            points += read
            self._note_progress("training")
            stop = self._stopping(read) or self._late()
        return points, stop

    def _note_progress(self, what: str) -> None:
        """Show the driver that the trial goes on. A trainer that makes no update does not."""
        if time.monotonic() - self._noted > PROGRESS_SECONDS:
            self._noted = time.monotonic()
            self.attempt.note_progress(f"{what} at {self._at()}")

    def _late(self) -> str | None:
        """Return what stops the trial if it has had its time."""
        limit = math.inf if self.spec.minutes is None else 60 * self.spec.minutes
        return TIME_LIMIT if time.monotonic() - self._clock > limit else None

    def _probed(self) -> list[Point]:
        """Return what a probe tells, and keep what it saw in case it is of a failure."""
        probe = self.evaluator.probe
        if probe is None:
            return []
        images = self.trainer.sample(probe.samples, self.evaluator.noise())
        values = {} if self.record.points else {names.FLOOR: probe.floor}
        values |= self.evaluator.probed(images)
        score = {names.SCORE: values.pop(names.SCORE)}
        if isinstance(self.trainer, GanTrainer):
            values[names.AUC] = self._auc(images)
        shown = SHOWN if images.shape[2:] == (1, 1) else GRID_SIDE**2
        self._seen.append(Look(self._at(), images[:shown].clone()))
        return self._points(values | score)

    def _auc(self, images: Tensor) -> float:
        """Return how well the discriminator tells as many held-out images from `images`."""
        assert isinstance(self.trainer, GanTrainer)  # no other has a discriminator
        labels = labels_of(self.trainer, self.evaluator, len(images))
        real, of_real = self.evaluator.real.images[: len(images)], self._real_labels()
        shown = None if of_real is None else of_real[: len(images)]
        return self.trainer.held_out_auc(real, shown, images, labels)

    def _at(self) -> int:
        return self.trainer.discriminator_updates

    def _points(self, values: Mapping[str, float]) -> list[Point]:
        """Return values as points at the current update."""
        at, images = self._at(), self._at() * self.spec.train.batch_size
        clock = time.monotonic() - self._clock
        updates = self.trainer.generator_updates
        return [Point(name, updates, at, images, clock, v) for name, v in values.items()]

    def _stopping(self, points: list[Point]) -> str | None:
        """Feed the detectors; return the kind of an event that stops the trial."""
        events = self.log.update(points)
        for event in events:
            self._keep_evidence(event)
        begun = [e.kind for e in events if e.kind in self.spec.events.stop_on]
        # Of several at once divergence decides: it says how the trial ended.
        return "divergence" if "divergence" in begun else next(iter(begun), None)

    def _measure(self, images: Tensor, *, final: bool) -> dict[str, float]:
        """Return scores, their standard errors and the held-out AUC by stored name."""
        values: dict[str, float] = {}
        made = judged(self.evaluator, self.trainer, images, final=final)
        for name, score in made.scores.items():
            values[name] = score.value
            if math.isfinite(score.standard_error):
                values[name + STANDARD_ERROR] = score.standard_error
        if isinstance(self.trainer, GanTrainer):
            values[HELD_OUT_AUC] = self._auc(images)
        return values

    def _keep_evidence(self, event: Event) -> None:
        """Keep what was sampled before the event's onset and at its detection."""
        if not self._seen:
            return
        earlier = [look for look in self._seen if look.at < event.onset]
        self._evidence[f"samples_before_{event.kind}"] = (earlier or list(self._seen)[:1])[-1]
        self._evidence[f"samples_at_{event.kind}"] = self._seen[-1]

    def _real_labels(self) -> Tensor | None:
        """Return the labels of the real images that scores compare with, if the game has any."""
        if not self.spec.train.conditioning.uses_labels:
            return None
        labels = self.spec.train.dataset.labels(self.evaluator.split)
        return None if labels is None else labels[: len(self.evaluator.real.images)]

    def _status(
        self, points: list[Point], stop: str | None, done: bool
    ) -> tuple[TrialStatus, str]:
        """Return how the trial stands after `points`, the newest ones."""
        if stop == "divergence":
            divergences = (e for e in self.log.events if e.kind == "divergence")
            event = max(divergences, key=attrgetter("detected"))
            return TrialStatus.DIVERGED, "{signal} {rule}".format(**event.evidence)
        if stop is not None:
            return TrialStatus.STOPPED, stop
        if not done:
            return TrialStatus.RUNNING, ""
        broken = [p.name for p in points if p.discriminator_updates == self._at()
                  and not math.isfinite(p.value)]  # fmt: skip
        if broken:
            return TrialStatus.DIVERGED, f"{broken[0]} not finite at the end"
        return TrialStatus.COMPLETED, ""

    def _save(
        self,
        status: TrialStatus,
        reason: str,
        points: list[Point],
        images: Tensor,
        begun: float,
        trained: float,
    ) -> None:
        """Replace the attempt's record and files by the new ones, together."""
        at, spec = self._at(), self.spec
        all_points = [*self.record.points, *points]
        best_at = best_checkpoint(all_points, spec.primary)
        files = dict(self.record.files)
        new: dict[str, Writer] = {}
        grid = add_checksum("grid.png", sample_grid(images))
        files["config"] = "trial.json"
        stored = store_paths(spec.to_dict(), TrialFolder(self.attempt.folder.parent).study)
        config = json.dumps(stored, indent=1, sort_keys=True).encode()
        config = add_checksum(files["config"], config)
        new[files["config"]] = partial(_write_bytes, content=config)
        files["samples"] = f"samples-{at:07d}.png"
        new[files["samples"]] = partial(_write_bytes, content=grid)
        if isinstance(self.trainer, NetworkTrainer):
            files["generator_last"] = f"generator-{at:07d}.pt"
            weights = self.trainer.generator_state_dict()
            new[files["generator_last"]] = partial(write_torch, content=weights)
        for role, look in self._evidence.items():
            files[role] = f"{role}-{look.at:07d}.png"
            picture = add_checksum(files[role], sample_grid(look.images))
            new[files[role]] = partial(_write_bytes, content=picture)
        self._evidence = {}
        if best_at == at:
            files["samples_best"] = files["samples"]
            if "generator_last" in files:
                files["generator_best"] = files["generator_last"]
        files.pop("state", None)
        if not status.finished:
            files["state"] = f"state-{at:07d}.pt"
            new[files["state"]] = partial(write_torch, content=self.trainer.state_dict())
        now, old = time.monotonic(), self.record.result
        result = replace(
            old,
            status=status,
            reason=reason,
            generator_updates=self.trainer.generator_updates,
            discriminator_updates=at,
            images_seen=at * spec.train.batch_size,
            seconds=now - self._clock,
            train_seconds=old.train_seconds + (trained - begun) - self._probe_seconds,
            evaluate_seconds=old.evaluate_seconds + (now - trained) + self._probe_seconds,
            best_at=best_at,
        )
        self.record = TrialRecord(result, all_points, self.log.events, files)
        kept = {n: w for n, w in self._kept.items() if n in files.values() and n not in new}
        self.attempt.save(self.record, kept | new)
        self._kept = {}
        if status.finished and self.attempt.claim():
            self.attempt.drop_earlier()


def judged(judge: Evaluator, trainer: Trainer, images: Tensor, *, final: bool) -> Evaluation:
    """Return what came of `images`, which `trainer` has sampled.

    Where the study asks for it and the trainer samples an average of its generator, the generator
    as trained is scored beside it, on the same latents, under names that end in `_raw`.
    """
    if not isinstance(trainer, NetworkTrainer):
        return judge.evaluate(images, final=final)
    labels = labels_of(trainer, judge, len(images))
    made = judge.evaluate(images, latents_of(trainer), labels, final=final)
    if judge.config.raw and trainer.averages:
        raw = trainer.sample(len(images), judge.noise(), raw=True)
        also = judge.evaluate(raw, labels=labels, final=False).scores
        made.scores.update({name + RAW: score for name, score in also.items()})
    return made


def latents_of(trainer: NetworkTrainer) -> Latents | None:
    """Return the generator that `trainer` samples as a function of its latents.

    None where it is conditional: a latent alone has no image.
    """
    if trainer.config.conditioning.uses_labels:
        return None
    return Latents(trainer.generate, trainer.draw_latents)


def labels_of(trainer: NetworkTrainer, judge: Evaluator, count: int) -> Tensor | None:
    """Return the labels that `trainer.sample(count, judge.noise())` asks for, None without any."""
    return trainer.draw_labels(count, judge.noise())  # labels come first from the stream


def best_checkpoint(points: list[Point], primary: Primary) -> int | None:
    """Return the discriminator updates at which the primary score was best, None if never finite.

    The untrained generator's evaluation does not count; of equal scores the earlier one does.
    """
    scored = [(loss, at) for at, loss in primary.losses(points).items() if math.isfinite(loss)]
    return min(scored)[1] if scored else None


def sample_grid(images: Tensor) -> bytes:
    """Return the first 64 images as one PNG; pixels that are not finite come out black.

    Points (images of one pixel) come out as a scatter of all of them instead.
    """
    if images.shape[2:] == (1, 1):
        return _png(scatter(images.flatten(1)))
    count = min(len(images), GRID_SIDE**2) // GRID_SIDE * GRID_SIDE
    visible = images[:count].where(images[:count].isfinite(), -1.0).clamp(-1, 1)
    tiles = visible.add(1).mul(127.5).round().to(torch.uint8)
    n, channels, height, width = tiles.shape
    rows = tiles.view(n // GRID_SIDE, GRID_SIDE, channels, height, width)
    picture = rows.permute(0, 3, 1, 4, 2).reshape(
        n // GRID_SIDE * height, GRID_SIDE * width, channels
    )
    # Two channels, or more than three, have no colour: the first is shown.
    return _png(picture.numpy() if channels == 3 else picture[:, :, 0].numpy())


def scatter(points: Tensor) -> NDArray[np.uint8]:
    """Return points (n, 1 or 2) in [-1.5, 1.5] as white dots in a square, x right and y up."""
    x, y = points[:, 0].numpy(), points[:, -1].numpy() * (points.shape[1] > 1)
    seen = np.isfinite(x) & np.isfinite(y)
    edges = np.linspace(-1.5, 1.5, SCATTER_SIDE + 1)
    counts, _, _ = np.histogram2d(x[seen], y[seen], bins=(edges, edges))
    return np.where(counts.T[::-1] > 0, 255, 0).astype(np.uint8)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, "PNG", optimize=True)
    return out.getvalue()


def machine(spec: TrialSpec) -> dict[str, Any]:
    """Return what bit-equality of rows depends on, and where the trial ran."""
    return {
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "memory_format": spec.train.memory_format,
        "device": spec.device,
        "node": platform.node(),
    }


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)
