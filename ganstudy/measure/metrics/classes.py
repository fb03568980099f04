"""Scores of what a classifier says of the generated images alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import xlogy

from ganstudy.measure.metrics.base import (
    METRICS,
    Array,
    Metric,
    Reads,
    Score,
    share_score,
)
from ganstudy.registry import component

if TYPE_CHECKING:
    from ganstudy.gan.datasets import Dataset


class Classified(NamedTuple):
    """What a classifier says of n images, and what they should show.

    Attributes:
        probabilities: Of the classes, (n, K).
        labels: The classes, (n,) whole numbers in [0, K).
    """

    probabilities: Array
    labels: NDArray[np.integer]


ROUNDING = 1e-5
"""How far from 1 the probabilities of an image may add up: float32 softmax of 1,000 classes."""


def check_probabilities(probabilities: Array) -> None:
    """Raise ValueError unless each row of (n >= 2, K) is a distribution over K classes."""
    x = probabilities
    if x.ndim != 2 or len(x) < 2 or x.shape[1] < 1:
        raise ValueError(f"probabilities must be (n >= 2, K), got shape {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(f"probabilities hold {(~np.isfinite(x)).sum()} non-finite values")
    if x.min() < 0:
        raise ValueError(f"probabilities must not be negative, got {x.min()}")
    sums = x.sum(axis=1)
    worst = sums[np.abs(sums - 1).argmax()]
    if abs(worst - 1) > ROUNDING:
        raise ValueError(f"probabilities of an image must add up to 1, got {worst}")


def inception_score(probabilities: Array, splits: int = 1) -> Score:
    """Return exp of the mean KL(p(y|x) || p(y)) over images (Salimans et al. 2016).

    arXiv:1606.03498. Between 1 (all images alike to the classifier) and K (each certain, all K
    classes equally often). p(y) is the mean of a split's rows; splits are consecutive rows, and
    the score is their mean, which is smaller the fewer rows a split has.

    Args:
        probabilities: (n, K) class probabilities p(y|x), rows that add up to 1.
        splits: Parts of at least two rows; the published codes take 10 of 50,000.

    Returns:
        The score and its standard error. With several splits that is their standard deviation
        over root `splits` (published codes print the deviation itself). With one it is by the
        delta method: the score times the deviation of KL(p(y|x) || p(y)) over root n.

    Raises:
        ValueError: Where rows are no distributions or too few.
    """
    check_probabilities(probabilities)
    n = len(probabilities)
    if not 1 <= splits <= n // 2:
        raise ValueError(f"splits must lie in [1, n // 2 = {n // 2}], got {splits}")
    scores, divergences = [], np.zeros(0)
    for part in np.array_split(probabilities.astype(np.float64), splits):
        # x log x - x log y and not x log (x / y): a class that no image is of has y = 0.
        divergences = (xlogy(part, part) - xlogy(part, part.mean(axis=0))).sum(axis=1)
        scores.append(math.exp(divergences.mean()))
    value = float(np.mean(scores))
    if splits == 1:
        # d log IS / d(weight of x) is KL(p(y|x) || p(y)) less its mean: that p(y) is estimated
        # from the same rows adds nothing in first order.
        return Score(value, value * float(np.std(divergences, ddof=1)) / math.sqrt(n))
    return Score(value, float(np.std(scores, ddof=1)) / math.sqrt(splits))


@METRICS.register("inception_score", paper="Salimans et al. 2016, arXiv:1606.03498")
@component
class InceptionScore(Metric):
    """How certain a classifier is of each generated image, and how evenly it uses its classes.

    The stored name carries the classifier's; only the Inception network's is the score that
    papers print. It never looks at the real data, and sees neither memorised images nor missing
    variety within a class (Barratt & Sharma 2018, arXiv:1801.01973): read it beside recall.
    """

    reads: ClassVar[Reads] = "probabilities"
    direction = "maximize"
    identity_value = None
    short = "is"

    splits: Annotated[int, Field(ge=1)] = 1
    """Parts of consecutive images whose scores are averaged."""

    def check_size(self, n: int, dimension: int) -> None:
        if n < 2 * self.splits:
            raise ValueError(
                f"needs two samples for each of {self.splits} splits, the splits of the data "
                f"offer {n}"
            )

    def __call__(self, generated: Array, real: Array) -> Score:
        return inception_score(generated, self.splits)


def class_accuracy(classified: Classified) -> Score:
    """Return the share of images in which the classifier sees their class.

    Its standard error is the binomial one (`share_score`).

    Raises:
        ValueError: Where rows are no distributions, or labels are not one class an image.
    """
    probabilities, labels = classified
    check_probabilities(probabilities)
    n, classes = probabilities.shape
    if labels.shape != (n,) or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels must be ({n},) in [0, {classes}), got shape {labels.shape} from "
            f"{labels.min(initial=0)} to {labels.max(initial=0)}"
        )
    return share_score(probabilities.argmax(axis=1) == labels)


@METRICS.register("class_accuracy", paper="Ravuri & Vinyals 2019, arXiv:1905.10887")
@component
class ClassAccuracy(Metric):
    """Share of conditional samples in which the study's classifier sees the class asked for.

    Only a conditional generator has it. Its floor is the classifier's accuracy on real images; a
    generator can pass it, by drawing only what is easily told.

    Elsewhere:
        The paper trains a classifier on generated images and tests it on real ones (the
        classification accuracy score); this is the reverse, which costs no training.
    """

    reads: ClassVar[Reads] = "classified"
    needs = "labels"
    direction = "maximize"
    identity_value = None
    short = "class_accuracy"

    def check(self, dataset: Dataset) -> None:
        if dataset.labels("train") is None:
            raise ValueError(f"reads labels, and {dataset.name} has none; use precision")

    def __call__(self, generated: Classified, real: Classified) -> Score:
        return class_accuracy(generated)
