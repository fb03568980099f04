"""Features that need no training: the pixels themselves."""

from __future__ import annotations

import math
from pathlib import Path

from ganstudy.gan.datasets import Dataset
from ganstudy.measure.features.base import FEATURES, Extractor, FeatureNetwork, content_hash
from ganstudy.registry import component


@FEATURES.register("pixels")
@component
class Pixels(FeatureNetwork):
    """The images themselves, flattened: the features of points (dirac, ring, grid).

    For photographs a distance of pixels says little of what people see.
    """

    def dimension(self, dataset: Dataset) -> int:
        return math.prod(dataset.image_shape)

    def extractor(self, dataset: Dataset, cache: Path | None = None) -> Extractor:
        return Extractor(lambda images: images, content_hash("pixels"))
