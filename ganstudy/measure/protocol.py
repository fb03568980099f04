"""How a study measures: which scores, on which features, of how many samples, against which split.

Evaluation noise and the real images are common to all trials of a study, so that scores differ by
their generators only. A stored score is named after metric, feature network (where it reads
features) and sample size.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganstudy.gan.config import at
from ganstudy.gan.datasets import Dataset, Split, normalize
from ganstudy.gan.seeding import stream
from ganstudy.measure.features import (
    FEATURES,
    Extractor,
    FeatureNetwork,
    cached,
    content_hash,
)
from ganstudy.measure.metrics import METRICS, Features, Metric, Reader, Reads, Score
from ganstudy.measure.modes import mode_reader
from ganstudy.measure.spectrum import image_reader
from ganstudy.registry import StudyError, unknown

DEFAULTS: dict[str, Any] = {
    "features": "small_cnn",
    "metrics": ["frechet_distance", "precision", "recall"],
    "samples": 1000,
    "noise_seed": 0,
}
ALWAYS = ("diversity", "coverage")
"""Measured whether asked for or not: the detectors of collapse read them."""


@dataclass(frozen=True)
class MeasureConfig:
    """What is measured; the first metric is the primary score, by which checkpoints are chosen."""

    features: FeatureNetwork
    metrics: tuple[Metric, ...]
    samples: int
    every: int
    """Discriminator updates between two evaluations."""
    noise_seed: int = 0

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], budget: int) -> MeasureConfig:
        """Build from what a YAML holds; `every` is a sixth of `budget` unless given.

        Raises:
            StudyError: With the path of the wrong key, the rule and the nearest right name.
        """
        known = {*DEFAULTS, "every"}
        for key in data:
            if key not in known:
                raise StudyError(str(key), unknown("key", key, known))
        plain = {**DEFAULTS, "every": {"discriminator_updates": max(1, budget // 6)}, **data}
        every = plain["every"]
        if not isinstance(every, Mapping) or set(every) != {"discriminator_updates"}:
            raise StudyError("every", f"must be {{discriminator_updates: N}}, got {every!r}")
        return cls(
            features=at("features", FEATURES.parse, plain["features"]),
            metrics=at("metrics", parse_metrics, plain["metrics"]),
            samples=at("samples", whole, plain["samples"], least=10),
            every=at("every.discriminator_updates", whole, every["discriminator_updates"]),
            noise_seed=at("noise_seed", whole, plain["noise_seed"], least=0),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data from which `from_dict` builds an equal config."""
        return {
            "features": self.features.to_dict(),
            "metrics": [metric.to_dict() for metric in self.metrics],
            "samples": self.samples,
            "every": {"discriminator_updates": self.every},
            "noise_seed": self.noise_seed,
        }

    @property
    def primary(self) -> str:
        """Stored name of the primary score."""
        return score_name(self.metrics[0], self.features, self.samples)

    def check(self, dataset: Dataset) -> None:
        """Raise StudyError where these measures cannot be had or would mislead."""
        at("features", _check, self.features, dataset)
        for metric in self.metrics:
            at(f"metrics.{metric.name}", _check, metric, dataset)
        names = [score_name(m, self.features, self.samples) for m in self.metrics]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise StudyError("metrics", f"two of them would be stored as {twice}; keep one")
        n = min(self.samples, len(dataset.images("select")), len(dataset.images("report")))
        for metric in self.metrics:
            needed = getattr(metric, "k", 2) + 1
            if n < needed:
                rule = f"needs more than {needed - 1} samples, the splits offer {n}"
                raise StudyError(f"metrics.{metric.name}", rule)
        dimension, n = (
            self.features.dimension(dataset),
            min(self.samples, len(dataset.images("select"))),
        )
        blind = [m for m in self.metrics if m.name == "frechet_distance" and n < 5 * dimension]
        if blind:
            raise StudyError(
                "metrics",
                f"frechet_distance is blind at n = {n} samples of {dimension} features "
                f"(it needs n >= {5 * dimension}); use kernel_distance, or features with fewer "
                f"dimensions",
            )


def _check(measure: FeatureNetwork | Metric, dataset: Dataset) -> None:
    try:
        measure.check(dataset)
    except ValueError as error:
        raise StudyError("", str(error)) from None


def whole(value: object, least: int = 1) -> int:
    """Return `value` if it is a whole number of at least `least`, else raise StudyError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise StudyError("", f"must be a whole number of at least {least}, got {value!r}")
    return value


def parse_metrics(value: object) -> tuple[Metric, ...]:
    """Build a list of metric names (or mappings with options)."""
    if not isinstance(value, list) or not value:
        raise StudyError("", f"a list of metrics is needed, got {value!r}")
    metrics = tuple(at(str(i), METRICS.parse, item) for i, item in enumerate(value))
    missing = [METRICS.build(name) for name in ALWAYS if name not in {m.name for m in metrics}]
    return (*metrics, *missing)


def score_name(metric: Metric, features: FeatureNetwork, samples: int) -> str:
    """Return the stored name: `fd_small_cnn_1k` for a Fréchet distance of 1,000 samples.

    A metric that reads no features carries no network: `modes_covered_1k`.
    """
    network = f"{features.name}_" if metric.reads == "features" else ""
    count = f"{samples // 1000}k" if samples % 1000 == 0 else str(samples)
    return f"{metric.short}_{network}{count}"


READERS: dict[Reads, Callable[[Dataset, Path | None], Reader]] = {
    "images": lambda dataset, cache: image_reader(dataset),
    "modes": mode_reader,
}
"""How to come by what a metric reads, features aside: data set, folder of weights -> Reader."""


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
        self.readers = {
            reads: make(dataset, cache)
            for reads, make in READERS.items()
            if reads in {m.reads for m in config.metrics}
        }
        self.real_floats = normalize(dataset.images(split)[: config.samples])
        self.real = self._embedded(split, cache)
        self._real_read = self._read(self.real_floats, self.real)

    def _embedded(self, split: Split, cache: Path | None = None) -> Features:
        """Return the features of real images, kept beside the network's weights."""
        images = self.dataset.images(split)[: self.config.samples]
        name = f"real-{content_hash(images, self.extractor.hash, torch.__version__)}.pt"
        made = cached(name, cache, lambda: {"real": torch.from_numpy(self.extractor(images))})
        return made["real"].numpy()

    def _read(self, images: Tensor, features: Features) -> dict[Reads, Any]:
        """Return all that the metrics read of `images`, whose features are known."""
        # A trainer of one's own may hand out images that carry a gradient.
        plain = images.detach()
        others = {reads: reader.read(plain) for reads, reader in self.readers.items()}
        return {"features": features, **others}

    def noise(self) -> torch.Generator:
        """Return the stream of evaluation noise, from its start: common to all trials."""
        return stream(self.config.noise_seed, "eval")

    def scores(self, images: Tensor) -> dict[str, Score]:
        """Return stored name -> score of `images`, (n, channels, height, width) in [-1, 1].

        Images that are not finite have no score: every value is NaN.
        """
        if not images.isfinite().all():
            return {self.name(m): Score(float("nan")) for m in self.config.metrics}
        return self._scores(self._read(images, self.extractor(images)))

    def _scores(self, generated: Mapping[Reads, Any]) -> dict[str, Score]:
        real = self._real_read
        return {self.name(m): m(generated[m.reads], real[m.reads]) for m in self.config.metrics}

    def floor(self) -> dict[str, float]:
        """Return stored name -> score of real images of another split against this one's."""
        other: Split = "report" if self.split != "report" else "select"
        images = normalize(self.dataset.images(other)[: self.config.samples])
        scores = self._scores(self._read(images, self._embedded(other)))
        return {name: score.value for name, score in scores.items()}

    def name(self, metric: Metric) -> str:
        """Return the stored name of `metric` under this protocol."""
        return score_name(metric, self.config.features, self.config.samples)

    def protocol(self) -> dict[str, dict[str, Any]]:
        """Return stored name -> everything that a reader needs to compare the score."""
        floor = self.floor()
        told = {reads: reader.told for reads, reader in self.readers.items()}
        told["features"] = {
            "features": self.config.features.to_dict(),
            "features_hash": self.extractor.hash,
            "features_facts": self.extractor.facts,
            "dimension": self.config.features.dimension(self.dataset),
        }
        return {
            self.name(m): {
                "metric": m.to_dict(),
                "direction": m.direction,
                "reads": m.reads,
                **told[m.reads],
                "n_generated": self.config.samples,
                "n_real": len(self.real),
                "split": self.split,
                "noise_seed": self.config.noise_seed,
                "floor": floor[self.name(m)],
            }
            for m in self.config.metrics
        }


@functools.lru_cache(maxsize=2)
def evaluator(
    config: MeasureConfig, dataset: Dataset, split: Split, cache: Path | None = None
) -> Evaluator:
    """Return the evaluator of these settings, made once per process: trials share it."""
    return Evaluator(config, dataset, split, cache)
