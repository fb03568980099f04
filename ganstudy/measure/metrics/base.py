"""What a metric is, and the samples that metrics compare.

A score compares generated with real samples, in that order. One whose input is not finite does
not exist: ValueError, never a number.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ganstudy.registry import Component, Registry

if TYPE_CHECKING:  # arrays are scored without torch
    from torch import Generator, Tensor

    from ganstudy.gan.datasets import Dataset

Reads = Literal["features", "probabilities", "classified", "images", "modes", "training", "drawn"]
Array = NDArray[np.floating]
Statistics = dict[str, Array]
T = TypeVar("T")


class Score(NamedTuple):
    """A score and its standard error over generated (and, where stated, real) samples."""

    value: float
    standard_error: float = float("nan")


def share_score(hits: NDArray[np.bool_]) -> Score:
    """Compute the share of true values and its binomial standard error.

    The error is sqrt(p (1 - p) / n). That is 0 for p of 0 or 1, whatever n; there the error is
    1 / (n + 1), the far end of Wilson's score interval of one standard error (Wilson 1927).

    Args:
        hits: One truth value per draw, (n,), n >= 1.
    """
    n, share = len(hits), float(hits.mean())
    error = math.sqrt(share * (1 - share) / n) if 0 < share < 1 else 1 / (n + 1)
    return Score(share, error)


class Sample:
    """Features of n images, and what several metrics compute of them, each thing once.

    Attributes:
        features: (n, d), finite, n >= 2, of the float type that they came in.
        statistics: Name -> arrays that depend on these features only. Those of real images are
            kept between studies.
    """

    def __init__(self, features: Array, role: str = "the") -> None:
        """Raise ValueError unless `features` is a finite (n >= 2, d >= 1) array of floats."""
        features = np.asarray(features)
        if features.ndim != 2 or len(features) < 2 or features.shape[1] < 1:
            raise ValueError(f"{role} features must be (n >= 2, d), got shape {features.shape}")
        if not np.issubdtype(features.dtype, np.floating):
            raise ValueError(f"{role} features must be floats, got {features.dtype}")
        if not np.isfinite(features).all():
            bad = (~np.isfinite(features)).sum()
            raise ValueError(f"{role} features hold {bad} non-finite values")
        self.features = features
        self.statistics: dict[str, Statistics] = {}
        self._against: dict[str, tuple[Sample, Any]] = {}

    @classmethod
    def of(cls, features: Array | Sample, role: str = "the") -> Sample:
        """Return `features` as a sample; one that is a sample already keeps what it knows."""
        return features if isinstance(features, Sample) else cls(features, role)

    def __len__(self) -> int:
        """Return n."""
        return len(self.features)

    @property
    def dimension(self) -> int:
        """The number d of features."""
        return int(self.features.shape[1])

    def statistic(self, name: str, compute: Callable[[Array], Statistics]) -> Statistics:
        """Return what `compute` makes of the features, computed at the first call by this name."""
        if name not in self.statistics:
            self.statistics[name] = compute(self.features)
        return self.statistics[name]

    def against(self, real: Sample, name: str, compute: Callable[[], T]) -> T:
        """Return what `compute` makes of this sample and `real`, computed once for the two."""
        known = self._against.get(name)
        if known is None or known[0] is not real:
            known = self._against[name] = (real, compute())
        return known[1]


def pair(generated: Array | Sample, real: Array | Sample, rows: int = 2) -> tuple[Sample, Sample]:
    """Return both as samples; raise ValueError unless they share d and have `rows` rows each."""
    made, there = Sample.of(generated, "generated"), Sample.of(real, "real")
    for role, sample in (("generated", made), ("real", there)):
        if len(sample) < rows:
            shape = sample.features.shape
            raise ValueError(f"{role} features must be (n >= {rows}, d), got shape {shape}")
    if made.dimension != there.dimension:
        raise ValueError(f"features differ in d: {made.dimension} against {there.dimension}")
    return made, there


class Curve(NamedTuple):
    """A line that belongs to a score: what it is at other thresholds or trade-offs, say.

    Attributes:
        line: What this line is, in a few words: lines of one metric are drawn together.
        x_name: Of the x axis, with its unit.
        y_name: Of the y axis, with its unit.
        x: (points,)
        y: (points,)
    """

    line: str
    x_name: str
    y_name: str
    x: Array
    y: Array


class Latents(NamedTuple):
    """A generator as a function of its latents, for metrics that search them.

    Attributes:
        generate: (n, ...) latents -> (n, channels, height, width) in [-1, 1], in eval mode and
            differentiable in the latents.
        draw: Number of latents and a stream -> that many from the prior.
    """

    generate: Callable[[Tensor], Tensor]
    draw: Callable[[int, Generator], Tensor]


class Drawn(NamedTuple):
    """What is known of one sample of images.

    Attributes:
        images: (n, channels, height, width) in [-1, 1].
        features: Of these images.
        latents: Of the generator that made them; None of real images and conditional generators.
        labels: The classes that the images show, or were asked for, (n,), where there are any.
    """

    images: Tensor
    features: Sample
    latents: Latents | None = None
    labels: Tensor | None = None


class Reader(NamedTuple):
    """How metrics of one kind come by what they read.

    Attributes:
        read: A sample of images -> what the metrics are called with.
        told: `features`, `features_hash`, `features_facts` and `dimension` of the protocol table.
    """

    read: Callable[[Drawn], Any]
    told: dict[str, Any]


class Metric(Component, ABC):
    """A named score of one pair of samples: of their features, unless `reads` says otherwise."""

    reads: ClassVar[Reads] = "features"
    """What is compared: features (Sample), class probabilities (n, K), the same with the labels
    (classes.Classified), images (n, c, h, w) in [-1, 1], modes.Modes, memorization.Nearest
    training images, or all that is known (Drawn)."""
    needs: ClassVar[Literal["latents", "labels"] | None] = None
    """What of a Drawn the generated sample must have; one without it has no such score."""
    direction: ClassVar[Literal["minimize", "maximize"]]
    identity_value: ClassVar[float | None]
    """The score of a set against itself; None where an unbiased estimate has no fixed one."""
    chooses: ClassVar[bool] = True
    """Whether the best score is of the best generator, so that checkpoints can be chosen by it."""
    short: ClassVar[str]
    """How the stored name begins: `fd` in `fd_small_cnn_1k`."""

    def check(self, dataset: Dataset) -> None:
        """Raise ValueError where this metric cannot be had of `dataset`."""

    def check_size(self, n: int, dimension: int) -> None:
        """Raise ValueError where n samples of `dimension` features are too few to be told of."""

    def samples_needed(self, dimension: int) -> int | None:
        """Return the fewest samples that carry a score of `dimension` features, None if any do."""
        return None

    def remark(self, n: int, dimension: int) -> str | None:
        """Return what a reader must know of a score that was insisted on, None if nothing."""
        return None

    def beside(self) -> tuple[Metric, ...]:
        """Return metrics without which this one should not be read: they are scored with it."""
        return ()

    def prepare(self, real: Any) -> None:
        """Compute the statistics of `real` that every score against it needs."""

    def curves(self, generated: Any, real: Any) -> list[Curve]:
        """Return the lines that belong to the score of these samples."""
        return []

    @abstractmethod
    def __call__(self, generated: Any, real: Any) -> Score:
        """Return the score of n `generated` samples against m `real` ones.

        One that is undefined, since something of the real samples that it divides by is 0, is
        infinite or NaN: the evaluator leaves it out.
        """


METRICS: Registry[Metric] = Registry("metric")
