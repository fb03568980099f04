"""A cheap look at the generator, often enough to tell of a failure while it can be stopped.

Evaluations are few and thorough; a probe takes 500 samples every twentieth of the budget. What it
writes is read by the detectors of `measure.events`, live and in replay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.stats import entropy
from torch import Tensor

from ganstudy.gan.config import at, updates
from ganstudy.gan.datasets import Dataset
from ganstudy.gan.datasets.polygons import ConvexPolygons
from ganstudy.gan.datasets.toys import Mixture
from ganstudy.measure.events import names
from ganstudy.measure.metrics import Drawn, Sample
from ganstudy.measure.metrics.gaussian import frechet_score
from ganstudy.measure.metrics.memorization import data_copying, training_cells, training_reader
from ganstudy.measure.metrics.modes import Modes, high_quality_fraction, nearest_centre
from ganstudy.measure.metrics.neighbours import diversity
from ganstudy.measure.metrics.spectrum import Lattice
from ganstudy.measure.readers import Source
from ganstudy.registry import StudyError, unknown, whole

PER_BUDGET = 20
"""Probes to a budget unless a study says otherwise."""
LEAST_EXPECTED = 12
"""Samples that a mode must be expected to have in a probe: then fewer than a tenth of them is no
chance (binomial p < 0.0001, and there are at most some forty such modes)."""
Groups = Callable[[Tensor, NDArray[np.floating]], NDArray[np.int64]]


@dataclass(frozen=True)
class ProbeConfig:
    """How large a probe is, and how often it comes."""

    samples: int
    every: int
    """Discriminator updates between two probes; each comes with the next read of signals."""

    @classmethod
    def from_dict(cls, data: object, budget: int) -> ProbeConfig | None:
        """Build from what a YAML holds; None switches probes off."""
        if data is None:
            return None
        if not isinstance(data, Mapping):
            raise StudyError("", f"a mapping with samples and every, or null, got {data!r}")
        for key in data:
            if key not in ("samples", "every"):
                raise StudyError(str(key), unknown("key", key, ["samples", "every"]))
        every = data.get("every", {"discriminator_updates": max(1, budget // PER_BUDGET)})
        return cls(
            at("samples", whole, data.get("samples", 500), least=50), at("every", updates, every)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data from which `from_dict` builds an equal config."""
        return asdict(self) | {"every": {"discriminator_updates": self.every}}


class Probe:
    """Measures few samples against one split of a data set.

    Attributes:
        samples: How many images a probe takes.
        floor: The score that real images of another split have, as many as a probe takes.
    """

    def __init__(
        self, samples: int, source: Source, real: Drawn, floor: float, own_classes: bool
    ) -> None:
        """Group the real images into modes and keep what of them is compared.

        Args:
            samples: Images of a probe.
            source: The data set with the study's feature network.
            real: The real images that scores compare with.
            floor: The score of real images.
            own_classes: Whether the network classifies the data's own classes.
        """
        self.samples, self.floor = samples, floor
        self._real = real.features
        self._modes_of = _known_modes(source.dataset)
        self._groups = _groups(source, real, own_classes, self._modes_of)
        self._wanted = _shares(self._groups(real.images, self._real.features))
        fits = Lattice.fits(*source.dataset.image_shape[1:])
        self._lattice = Lattice(real.images.numpy()) if fits else None
        self._training = self._copying(source, real)

    def _copying(self, source: Source, real: Drawn) -> Callable[[Drawn], float] | None:
        """Return what tells copies of training images, None where to be right is to copy.

        Points of the plane, and polygons, fill a space of few dimensions: a good generator comes
        as near to the training data as a copy.
        """
        points = max(source.dataset.image_shape[1:]) == 1
        if points or isinstance(source.dataset, ConvexPolygons):
            return None
        reader = training_reader(source.dataset, source.network, source.told, source.cache)
        held_out = reader.read(real)
        return lambda drawn: data_copying(reader.read(drawn), held_out).value

    def __call__(self, images: Tensor, features: NDArray[np.floating]) -> dict[str, float]:
        """Return the probe's values by name, the score last; those that are not finite are left.

        Args:
            images: Generated, (n, channels, height, width) in [-1, 1], finite.
            features: Of these images, (n, d), finite.
        """
        generated = Sample(features, "generated")
        share = _shares(self._groups(images, features))
        values = self._modes(share)
        values[names.DIVERSITY] = diversity(generated, self._real)
        if self._modes_of is not None:
            near = high_quality_fraction(self._modes_of(images))
            values[names.HIGH_QUALITY] = near.value
            values[names.HIGH_QUALITY_SE] = near.standard_error
        if self._lattice is not None:
            contrast = self._lattice.contrast(images.numpy())
            values[names.CHECKERBOARD] = contrast.value
            values[names.CHECKERBOARD_SE] = contrast.standard_error
        if self._training is not None:
            values[names.MEMORIZATION] = self._training(Drawn(images, generated))
        score = frechet_score(generated, self._real)
        values[names.SCORE_SE], values[names.SCORE] = score.standard_error, score.value
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def _modes(self, share: Mapping[int, float]) -> dict[str, float]:
        """Return how the samples spread over the data's modes."""
        values = {
            f"{names.SHARE}{mode}": share.get(mode, 0.0) / wanted
            for mode, wanted in sorted(self._wanted.items())
            if wanted * self.samples >= LEAST_EXPECTED
        }
        generated, real = (math.exp(entropy(list(s.values()))) for s in (share, self._wanted))
        values[names.EFFECTIVE_MODES] = generated / real
        return values


def _shares(groups: NDArray[np.int64]) -> dict[int, float]:
    """Return group -> its share, for the groups that occur."""
    found, counts = np.unique(groups, return_counts=True)
    return dict(zip(found.tolist(), (counts / len(groups)).tolist(), strict=True))


def _known_modes(dataset: Dataset) -> Callable[[Tensor], Modes] | None:
    """Return what finds the known modes of points, None where the data has no known ones."""
    if not isinstance(dataset, Mixture):
        return None
    read = nearest_centre(dataset).read
    return lambda images: read(Drawn(images, Sample(images.flatten(1).numpy())))


def _groups(
    source: Source, real: Drawn, own_classes: bool, modes_of: Callable[[Tensor], Modes] | None
) -> Groups:
    """Return what assigns samples to modes: known ones, classes, or cells of the real features."""
    if modes_of is not None:
        return lambda images, features: modes_of(images).nearest
    if own_classes:
        return lambda images, features: source.network.logits(features).argmax(axis=1)
    centres = training_cells(real.features.features)
    return lambda images, features: cdist(features, centres).argmin(axis=1)
