"""How a study measures: which scores, on which features, of how many samples, against which split.

Evaluation noise and the real images are common to all trials of a study, so that scores differ by
their generators only. A stored score is named after metric, feature network (where it reads
features) and sample size.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ganstudy.gan.config import at, updates
from ganstudy.gan.datasets import Dataset, Split, normalize
from ganstudy.gan.seeding import stream
from ganstudy.limits import MOST_SAMPLES
from ganstudy.measure.events import names
from ganstudy.measure.features import (
    FEATURES,
    Extractor,
    FeatureNetwork,
    cached,
    content_hash,
)
from ganstudy.measure.metrics import (
    METRICS,
    Curve,
    Drawn,
    Latents,
    Metric,
    Reads,
    Sample,
    Score,
)
from ganstudy.measure.metrics.gaussian import frechet_distance
from ganstudy.measure.probe import Probe, ProbeConfig
from ganstudy.measure.readers import NETWORK_READERS, READERS, Source
from ganstudy.records import Point
from ganstudy.registry import StudyError, unknown, whole

DEFAULTS: dict[str, Any] = {
    "features": "small_cnn",
    "metrics": ["frechet_distance", "precision", "recall"],
    "final": [],
    "samples": 1000,
    "noise_seed": 0,
    "raw": False,
}
ALWAYS = ("diversity", "coverage")
"""Measured whether asked for or not: no other score tells of collapse and of lost modes alike."""
STANDARD_ERROR = "_se"
"""Ending of the stored name of a score's standard error."""
RAW = "_raw"
"""Ending of the scores of the generator as trained, where an average of it is sampled."""
HELD_OUT_AUC = "heldout_discriminator_auc"


class Primary(NamedTuple):
    """The study's primary score: its stored name, and whether lower is better."""

    name: str
    minimize: bool = True

    def loss(self, value: float) -> float:
        """Return a value so that lower is better, +inf where it is not finite."""
        return (value if self.minimize else -value) if math.isfinite(value) else math.inf

    def losses(self, points: Iterable[Point]) -> dict[int, float]:
        """Return discriminator updates -> loss of a trial's evaluations, the untrained's aside."""
        return {
            point.discriminator_updates: self.loss(point.value)
            for point in points
            if point.name == self.name and point.discriminator_updates > 0
        }


@dataclass(frozen=True)
class MeasureConfig:
    """What is measured; the first metric is the primary score, by which checkpoints are chosen."""

    features: FeatureNetwork
    metrics: tuple[Metric, ...]
    samples: int
    every: int
    """Discriminator updates between two evaluations."""
    noise_seed: int = 0
    final: tuple[Metric, ...] = ()
    """Metrics that are scored at the end of a trial only, since they cost too much before."""
    raw: bool = False
    """Whether the generator as trained is scored too where an average of it is sampled."""
    probe: ProbeConfig | None = None
    """What is measured between evaluations, for the detectors of failures."""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], budget: int) -> MeasureConfig:
        """Build from what a YAML holds; `every` is a sixth of `budget` unless given.

        Raises:
            StudyError: With the path of the wrong key, the rule and the nearest right name.
        """
        known = {*DEFAULTS, "every", "probe"}
        for key in data:
            if key not in known:
                raise StudyError(str(key), unknown("key", key, known))
        plain = {**DEFAULTS, "every": {"discriminator_updates": max(1, budget // 6)}, **data}
        metrics, final = placed(
            at("metrics", parse_metrics, plain["metrics"]),
            () if plain["final"] == [] else at("final", parse_metrics, plain["final"]),
        )
        return cls(
            features=at("features", FEATURES.parse, plain["features"]),
            metrics=metrics,
            samples=at("samples", whole, plain["samples"], least=10),
            every=at("every", updates, plain["every"]),
            noise_seed=at("noise_seed", whole, plain["noise_seed"], least=0),
            final=final,
            raw=at("raw", yes_or_no, plain["raw"]),
            probe=at("probe", ProbeConfig.from_dict, plain.get("probe", {}), budget),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data from which `from_dict` builds an equal config."""
        return {
            "features": self.features.to_dict(),
            "metrics": [metric.to_dict() for metric in self.metrics],
            "samples": self.samples,
            "every": {"discriminator_updates": self.every},
            "noise_seed": self.noise_seed,
            "final": [metric.to_dict() for metric in self.final],
            "raw": self.raw,
            "probe": None if self.probe is None else self.probe.to_dict(),
        }

    @functools.cached_property
    def as_json(self) -> str:
        """What changes a result, as text: made once for all trials of a study."""
        return json.dumps(self.to_dict() | {"features": self.features.identity()}, sort_keys=True)

    @property
    def primary(self) -> str:
        """Stored name of the primary score."""
        return score_name(self.metrics[0], self.features, self.samples)

    @property
    def primary_score(self) -> Primary:
        """The primary score with its direction."""
        return Primary(self.primary, self.metrics[0].direction == "minimize")

    @property
    def all_metrics(self) -> tuple[Metric, ...]:
        """Those of every evaluation, then those of the last one."""
        return (*self.metrics, *self.final)

    def size(self, dataset: Dataset) -> int:
        """Return the n that scores are of: `samples`, or a smaller split's images."""
        splits: tuple[Split, ...] = ("select", "report")
        return min(self.samples, *(len(dataset.images(split)) for split in splits))

    def check(self, dataset: Dataset) -> None:
        """Raise StudyError where these measures cannot be had or would mislead."""
        if self.samples > MOST_SAMPLES:
            raise StudyError("samples", f"must be at most {MOST_SAMPLES}, got {self.samples}")
        at("features", _asked, self.features.check, dataset)
        first = self.metrics[0]
        if not first.chooses:
            rule = f"{first.name} must not come first: checkpoints would be chosen by it"
            raise StudyError("metrics.0", f"{rule}, and its best value is no best generator")
        n, dimension = self.size(dataset), self.features.dimension(dataset)
        for key, metrics in (("metrics", self.metrics), ("final", self.final)):
            for metric in metrics:
                path = f"{key}.{metric.name}"
                at(path, _asked, metric.check, dataset)
                at(path, _asked, metric.check_size, n, dimension)
                if metric.reads in ("probabilities", "classified"):
                    at(path, _asked, self.features.check_head, metric.reads == "classified")
        names = [score_name(m, self.features, self.samples) for m in self.all_metrics]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise StudyError("metrics", f"two of them would be stored as {twice}; keep one")

    def remarks(self, dataset: Dataset) -> list[str]:
        """Return what a reader must know of scores that the study insisted on."""
        n, dimension = self.size(dataset), self.features.dimension(dataset)
        remarks = [metric.remark(n, dimension) for metric in self.all_metrics]
        if n < self.samples:
            remark = (
                f"{self.samples} generated images are scored against {n} real ones, all that a "
                f"split holds, and the floor is of {n} against {n}"
            )
            if any(metric.name == "frechet_distance" for metric in self.all_metrics):
                remark += f": a Fréchet distance is biased less at {self.samples}"
            remarks.append(remark)
        return [remark for remark in remarks if remark is not None]


def _asked(rule: Callable[..., None], *arguments: object) -> None:
    try:
        rule(*arguments)
    except ValueError as error:
        raise StudyError("", str(error)) from None


def yes_or_no(value: object) -> bool:
    """Return `value` if it is true or false, else raise StudyError."""
    if not isinstance(value, bool):
        raise StudyError("", f"must be true or false, got {value!r}")
    return value


def parse_metrics(value: object) -> tuple[Metric, ...]:
    """Build a list of metric names (or mappings with options)."""
    if not isinstance(value, list) or not value:
        raise StudyError("", f"a list of metrics is needed, got {value!r}")
    return tuple(at(str(i), METRICS.parse, item) for i, item in enumerate(value))


Metrics = tuple[Metric, ...]


def placed(metrics: Metrics, final: Metrics) -> tuple[Metrics, Metrics]:
    """Return what is scored at every evaluation, and what at the last one only.

    Those of `ALWAYS` are scored at every one, as the study writes them where it does, and those
    that must stand beside others with these.
    """
    mine = {m.name: m for m in (*final, *metrics)}
    always = tuple(mine.get(name) or METRICS.build(name) for name in ALWAYS)
    metrics = _once((*metrics, *always, *(other for m in metrics for other in m.beside())))
    final = _once((*final, *(other for m in final for other in m.beside())))
    return metrics, tuple(m for m in final if m not in metrics)


def _once(metrics: Metrics) -> Metrics:
    """Return `metrics` without those that another put there already."""
    return tuple(dict.fromkeys(metrics))


def score_name(metric: Metric, features: FeatureNetwork, samples: int) -> str:
    """Return the stored name: `fd_small_cnn_1k` for a Fréchet distance of 1,000 samples.

    A metric that reads no features carries no network: `modes_covered_1k`; nor does a score that
    the field has a name for on this network: `fid_10k`.
    """
    count = f"{samples // 1000}k" if samples % 1000 == 0 else str(samples)
    if metric.reads not in NETWORK_READERS:
        return f"{metric.short}_{count}"
    known = features.score_names.get(metric.short)
    return f"{known or f'{metric.short}_{features.name}'}_{count}"


class Evaluation(NamedTuple):
    """What came of one sample of images, each by the stored name of its score."""

    scores: dict[str, Score]
    curves: dict[str, list[Curve]]


class Evaluator:
    """Scores images against one split of a data set."""

    def __init__(
        self,
        config: MeasureConfig,
        dataset: Dataset,
        split: Split = "select",
        cache: Path | None = None,
    ) -> None:
        """Load (or train) the networks that metrics need and read the real images once."""
        self.config, self.dataset, self.split = config, dataset, split
        self.extractor: Extractor = config.features.extractor(dataset, cache)
        told = {
            "features": config.features.to_dict(),
            "features_hash": self.extractor.hash,
            "features_facts": self.extractor.facts,
            "dimension": config.features.dimension(dataset),
            "resize": config.features.resize,
        }
        source = Source(dataset, self.extractor, told, cache)
        asked = {metric.reads for metric in config.all_metrics}
        self._source = source
        self.readers = {reads: make(source) for reads, make in READERS.items() if reads in asked}
        self.real = self._reference(split, cache)
        self._real_read = self._read(self.real)

    def _reference(self, split: Split, cache: Path | None) -> Drawn:
        """Return real images with their features and the statistics that metrics need of them.

        Both are kept beside the network's weights, features under a hash of images and network,
        statistics of the metrics too.
        """
        images = self.dataset.images(split)[: self.config.samples]
        of_features = content_hash(images, self.extractor.hash, torch.__version__)
        made = cached(
            f"real-{of_features}.pt",
            cache,
            lambda: {"features": torch.from_numpy(self.extractor(images))},
        )
        sample = Sample(made["features"].numpy(), "real")
        metrics = [m for m in self.config.all_metrics if m.reads == "features"]
        asked = repr(sorted(map(repr, metrics)))
        name = content_hash(of_features, asked, STATISTICS)
        known = cached(f"statistics-{name}.pt", cache, lambda: _prepared(sample, metrics))
        sample.statistics = {
            statistic: {key: value.numpy() for key, value in arrays.items()}
            for statistic, arrays in known.items()
        }
        labels = self.dataset.labels(split)
        shown = None if labels is None else labels[: len(images)]
        return Drawn(normalize(images), sample, labels=shown)

    def _read(self, drawn: Drawn) -> dict[Reads, Any]:
        """Return all that the metrics read of one sample."""
        return {reads: reader.read(drawn) for reads, reader in self.readers.items()}

    def noise(self) -> torch.Generator:
        """Return the stream of evaluation noise, from its start: common to all trials."""
        return stream(self.config.noise_seed, "eval")

    def scores(self, images: Tensor, *, final: bool = True) -> dict[str, Score]:
        """Return stored name -> score; see `evaluate`."""
        return self.evaluate(images, final=final).scores

    def evaluate(
        self,
        images: Tensor,
        latents: Latents | None = None,
        labels: Tensor | None = None,
        *,
        final: bool = True,
        curves: bool = False,
    ) -> Evaluation:
        """Score `images`, (n, channels, height, width) in [-1, 1].

        Images that are not finite, or whose features or their squares are not (in float32), have
        no score: all are NaN. A score of finite images that is not finite is undefined, a ratio
        over a quantity of the real images that is 0 (the spread of images that are all the same,
        say): it is left out.

        Args:
            images: Of a generator.
            latents: The generator, where a metric searches its latents.
            labels: The classes that the images were asked for, (n,), if any.
            final: Whether to evaluate the metrics of a trial's end too.
            curves: Whether to return the lines that belong to the scores.
        """
        metrics = self.config.all_metrics if final else self.config.metrics
        # A trainer of one's own may hand out images that carry a gradient.
        plain = images.detach()
        features = self._features(plain)
        if features is None:
            return Evaluation({self.name(m): Score(float("nan")) for m in metrics}, {})
        drawn = Drawn(plain, Sample(features, "generated"), latents, labels)
        return self._evaluate(drawn, metrics, curves=curves)

    def _features(self, images: Tensor) -> NDArray[np.float32] | None:
        """Return the features of `images`, None where they, or their squares, are not finite."""
        if not images.isfinite().all():
            return None
        features = self.extractor(images)
        with np.errstate(over="ignore"):
            return features if np.isfinite(features * features).all() else None

    @functools.cached_property
    def probe(self) -> Probe | None:
        """What is measured between evaluations, None where the study switched it off."""
        if self.config.probe is None:
            return None
        samples = self.config.probe.samples
        network = self.config.features
        own_classes = network.own_classes and self.extractor.head is not None
        return Probe(samples, self._source, self.real, self._probe_floor(samples), own_classes)

    def _probe_floor(self, samples: int) -> float:
        """Return the probe's score of real images of another split."""
        other: Split = "report" if self.split != "report" else "select"
        features = self.extractor(self.dataset.images(other)[:samples])
        return frechet_distance(features, self.real.features)

    def probed(self, images: Tensor) -> dict[str, float]:
        """Return the probe's values of `images` by name; the score alone, NaN, where none is."""
        plain = images.detach()
        features = self._features(plain)
        if self.probe is None or features is None:
            return {names.SCORE: float("nan")}
        return self.probe(plain, features)

    def _evaluate(
        self, drawn: Drawn, metrics: tuple[Metric, ...], *, curves: bool = False
    ) -> Evaluation:
        metrics = tuple(
            m for m in metrics if m.needs is None or getattr(drawn, m.needs) is not None
        )
        asked = {metric.reads for metric in metrics}
        made = {r: reader.read(drawn) for r, reader in self.readers.items() if r in asked}
        real = self._real_read
        scores = {self.name(m): m(made[m.reads], real[m.reads]) for m in metrics}
        # A search of the latents may come to images that are not finite: that is the generator's.
        scores = {
            self.name(m): scores[self.name(m)]
            for m in metrics
            if m.needs == "latents" or math.isfinite(scores[self.name(m)].value)
        }
        if not curves:
            return Evaluation(scores, {})
        lines = {self.name(m): m.curves(made[m.reads], real[m.reads]) for m in metrics}
        return Evaluation(scores, {name: found for name, found in lines.items() if found})

    def floor(self) -> dict[str, float]:
        """Return stored name -> score of real images of another split against this one's.

        NaN where a score is of generators only, or undefined on these images.
        """
        return {name: score.value for name, score in self.floor_scores().items()}

    def floor_scores(self) -> dict[str, Score]:
        """Return the same with standard errors."""
        other: Split = "report" if self.split != "report" else "select"
        made = self._evaluate(self._reference(other, None), self.config.all_metrics)
        none = dict.fromkeys(map(self.name, self.config.all_metrics), Score(float("nan")))
        return none | made.scores

    def name(self, metric: Metric) -> str:
        """Return the stored name of `metric` under this protocol."""
        return score_name(metric, self.config.features, self.config.samples)

    def protocol(self) -> dict[str, dict[str, Any]]:
        """Return stored name -> everything that a reader needs to compare the score."""
        floor = self.floor_scores()
        dimension = self.config.features.dimension(self.dataset)
        return {
            self.name(m): {
                "metric": m.to_dict(),
                "direction": m.direction,
                "chooses": m.chooses,
                "reads": m.reads,
                "resize": "none",
                **self.readers[m.reads].told,
                "n_generated": self.config.samples,
                "n_real": len(self.real.features),
                "n_floor": self.config.size(self.dataset),
                "n_needed": m.samples_needed(dimension),
                "split": self.split,
                "noise_seed": self.config.noise_seed,
                "generator": "sampled",
                "evaluated": "at the end" if m in self.config.final else "at every evaluation",
                "floor": floor[self.name(m)].value,
                "floor_standard_error": floor[self.name(m)].standard_error,
            }
            for m in self.config.all_metrics
        }

    def raw_protocol(self, table: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Return `table` for the scores of generators as trained, empty unless they are asked."""
        asked = [m for m in self.config.metrics if self.config.raw and m.needs != "latents"]
        return {self.name(m) + RAW: table[self.name(m)] | {"generator": "raw"} for m in asked}


STATISTICS = "1"
"""To be raised when a statistic of real features is computed in another way."""


def _prepared(sample: Sample, metrics: list[Metric]) -> dict[str, Any]:
    """Return what `metrics` need of a real sample alone, as tensors."""
    for metric in metrics:
        metric.prepare(sample)
    return {
        statistic: {key: torch.from_numpy(np.asarray(value)) for key, value in arrays.items()}
        for statistic, arrays in sample.statistics.items()
    }


@functools.lru_cache(maxsize=2)
def evaluator(
    config: MeasureConfig, dataset: Dataset, split: Split, cache: Path | None = None
) -> Evaluator:
    """Return the evaluator of these settings, made once per process: trials share it."""
    return Evaluator(config, dataset, split, cache)
