"""How metrics come by what they read of a sample of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax

from ganstudy.gan.datasets import Dataset
from ganstudy.measure.features import Extractor
from ganstudy.measure.metrics import Drawn, Reader, Reads
from ganstudy.measure.metrics.classes import Classified
from ganstudy.measure.metrics.memorization import training_reader
from ganstudy.measure.metrics.modes import mode_reader
from ganstudy.measure.metrics.spectrum import image_reader

NETWORK_READERS = {"features", "probabilities", "classified", "training"}
"""What is read through the study's feature network, which the stored name then carries."""


class Source(NamedTuple):
    """What readers are made of.

    Attributes:
        network: The study's feature network, ready to use, and what is `told` of it.
        cache: The study's folder of weights and reference statistics, if it has one.
    """

    dataset: Dataset
    network: Extractor
    told: dict[str, Any]
    cache: Path | None


def feature_reader(source: Source) -> Reader:
    """Return what hands on the features of images."""
    return Reader(lambda drawn: drawn.features, source.told)


def probability_reader(source: Source) -> Reader:
    """Return what classifies images by the network's head: (n, K) probabilities, float64."""

    def read(drawn: Drawn) -> Any:
        logits = source.network.logits(drawn.features.features)
        return softmax(logits.astype(np.float64), axis=1)

    return Reader(read, source.told)


def classified_reader(source: Source) -> Reader:
    """Return what classifies images and tells which classes they were asked to show."""
    probabilities = probability_reader(source)

    def read(drawn: Drawn) -> Classified:
        assert drawn.labels is not None  # the metrics that read this need labels
        return Classified(probabilities.read(drawn), drawn.labels.numpy())

    return Reader(read, source.told)


READERS: dict[Reads, Callable[[Source], Reader]] = {
    "features": feature_reader,
    "probabilities": probability_reader,
    "classified": classified_reader,
    "images": lambda source: image_reader(source.dataset),
    "modes": lambda source: mode_reader(source.dataset, source.cache),
    "training": lambda source: training_reader(
        source.dataset, source.network, source.told, source.cache
    ),
    "drawn": lambda source: Reader(lambda drawn: drawn, image_reader(source.dataset).told),
}
"""How to come by what a metric reads."""
