"""What a run is like as seen by nothing that a detector reads.

Other latents, other real images (the split report, and more of them), exact modes where the data
has them, else a classifier of another seed that was trained on the split select: the detectors'
network was trained on train.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.stats import entropy
from torch import Tensor

from ganstudy.gan.architectures import ImageShape
from ganstudy.gan.datasets import Dataset, Split, normalize
from ganstudy.gan.datasets.base import Labelled
from ganstudy.gan.datasets.packaged import MNIST5k, StackedMNIST
from ganstudy.gan.datasets.toys import Mixture
from ganstudy.gan.seeding import stream
from ganstudy.gan.trainer import NetworkTrainer
from ganstudy.measure.features import FEATURES, SmallCNN
from ganstudy.measure.features.base import Extractor
from ganstudy.measure.metrics import Drawn, Sample
from ganstudy.measure.metrics.gaussian import frechet_score
from ganstudy.measure.metrics.modes import nearest_centre
from ganstudy.registry import component

NOISE_SEED = 20_481
"""Seed of the latents that only these looks draw."""
LOOK, LOOK_OF_IMAGES, LOOK_OF_DIGITS = 2000, 500, 2000
"""Samples of a look while a run trains: points, images, stacked digits with their 30 modes."""
FINAL, FINAL_OF_IMAGES = 10_000, 2000
"""Samples of the look at its end."""
COPY = 0.2
"""Distance to the nearest training image, over the median one of real images of another split,
below which an image is a copy."""


class Look(NamedTuple):
    """What was seen of a generator at one discriminator update; NaN where it is not finite."""

    update: int
    score: float
    """Fréchet distance."""
    error: float
    """Its standard error."""
    effective_modes: float
    """exp(entropy) of the modes' shares, over that of the real images."""
    lost: frozenset[int]
    """Modes whose share is below a tenth of their share among the real images."""

    @property
    def finite(self) -> bool:
        """Whether the samples were."""
        return bool(np.isfinite(self.score))


@component
class SelectOnly(Dataset):
    """A data set whose split train is the split select of another."""

    decoding_is_slow: ClassVar[bool] = False
    of: Dataset

    def load(self) -> dict[Split, Labelled]:
        def taken(split: Split) -> Labelled:
            return Labelled(self.of.images(split), self.of.labels(split))

        return {"train": taken("select"), "select": taken("report"), "report": taken("report")}

    @property
    def image_shape(self) -> ImageShape:
        return self.of.image_shape


class Outside:
    """Looks at generators of one data set."""

    def __init__(self, dataset: Dataset) -> None:
        """Learn to tell the data's modes, and keep real images to compare with."""
        self.dataset = dataset
        self.points = max(dataset.image_shape[1:]) == 1
        self._features, self.modes_of = _senses(dataset)
        self._real = Sample(self._features(normalize(dataset.images("report"))), "real")
        modes = self.modes_of(normalize(dataset.images("report")))
        self.modes_count = int(modes.max()) + 1
        self._wanted = np.bincount(modes) / len(modes)

    def look(self, trainer: NetworkTrainer, *, final: bool = False) -> Look:
        """Sample and judge; with `final`, many samples."""
        at = trainer.discriminator_updates
        images = trainer.sample(self._count(final), stream(NOISE_SEED, "eval"))
        features = self._features(images) if images.isfinite().all() else np.array(np.nan)
        if not np.isfinite(features.astype(np.float64) ** 2).all() or features.max() > 1e15:
            return Look(at, np.nan, np.nan, np.nan, frozenset())
        score = frechet_score(Sample(features), self._real)
        share = np.bincount(self.modes_of(images), minlength=self.modes_count) / len(images)
        effective = np.exp(entropy(share) - entropy(self._wanted))
        lost = np.flatnonzero(share < 0.1 * self._wanted).tolist()
        return Look(at, score.value, score.standard_error, float(effective), frozenset(lost))

    def copies(self, trainer: NetworkTrainer) -> float:
        """Return the share of samples whose pixels are those of a training image, or nearly."""
        images = trainer.sample(LOOK_OF_IMAGES, stream(NOISE_SEED, "copies"))
        if not images.isfinite().all():
            return 0.0
        return float((_to_training(self.dataset, images) < COPY * self._usual_distance).mean())

    def joint_modes(self, trainer: NetworkTrainer) -> float:
        """Return how many triples of digits samples show over how many as many real images do.

        NaN for other data than stacked digits.
        """
        if not isinstance(self.dataset, StackedMNIST):
            return float("nan")
        network = _classifier(MNIST5k())
        shown = [
            len(np.unique(stacked_digits_of(network, images), axis=0))
            for images in (
                trainer.sample(FINAL_OF_IMAGES, stream(NOISE_SEED, "joint")),
                normalize(self.dataset.images("report")[:FINAL_OF_IMAGES]),
            )
        ]
        return shown[0] / shown[1]

    @functools.cached_property
    def _usual_distance(self) -> float:
        held_out = normalize(self.dataset.images("report"))
        return float(np.median(_to_training(self.dataset, held_out)))

    def _count(self, final: bool) -> int:
        if self.points:
            return FINAL if final else LOOK
        if isinstance(self.dataset, StackedMNIST):
            return LOOK_OF_DIGITS
        return FINAL_OF_IMAGES if final else LOOK_OF_IMAGES


@functools.lru_cache(maxsize=8)
def outside(dataset: Dataset) -> Outside:
    """Return what looks at generators of `dataset`, made once per process."""
    return Outside(dataset)


def _to_training(dataset: Dataset, images: Tensor) -> NDArray[np.float64]:
    """Return the distance in pixels of each image to the nearest training image."""
    training = normalize(dataset.images("train")).flatten(1).numpy()
    return cdist(images.flatten(1).numpy(), training).min(axis=1)


Features = Callable[[Tensor], NDArray[np.floating]]
Modes = Callable[[Tensor], NDArray[np.int64]]


def _senses(dataset: Dataset) -> tuple[Features, Modes]:
    """Return what turns images into features, and what tells their modes."""
    if isinstance(dataset, Mixture):
        read = nearest_centre(dataset).read
        pixels = FEATURES.build("pixels").extractor(dataset)
        return pixels, lambda images: read(Drawn(images, Sample(np.zeros((2, 1))))).nearest
    if isinstance(dataset, StackedMNIST):
        return _stacked_senses(dataset)
    if max(dataset.image_shape[1:]) == 1:  # one point: it has one mode
        pixels = FEATURES.build("pixels").extractor(dataset)
        return pixels, lambda images: np.zeros(len(images), dtype=np.int64)
    network = _classifier(dataset)
    return network, lambda images: network.logits(network(images)).argmax(axis=1)


@functools.lru_cache(maxsize=4)
def _classifier(dataset: Dataset) -> Extractor:
    """Return a classifier of another seed and another split than the detectors' network."""
    with torch.random.fork_rng(devices=[]):
        return SmallCNN(seed=1, epochs=40).extractor(SelectOnly(of=dataset))


def _stacked_senses(dataset: StackedMNIST) -> tuple[Features, Modes]:
    """Return the features of all three digits, and a mode of each image by one of its digits.

    A look cannot count 1,000 triples. It counts 30 modes, each image for the digit
    of one of its channels in turn; `joint_modes` counts the triples at the end of a run.
    """
    network = _classifier(MNIST5k())

    def features(images: Tensor) -> NDArray[np.floating]:
        flat = images.reshape(-1, 1, *images.shape[2:])
        # The classifier's logits of the three digits: 30 numbers to an image, for which 500
        # images are enough to fit a Gaussian.
        return network.logits(network(flat)).reshape(len(images), -1)

    def modes(images: Tensor) -> NDArray[np.int64]:
        channel = np.arange(len(images)) % 3
        digits = stacked_digits_of(network, images)
        return 10 * channel + digits[np.arange(len(images)), channel]

    return features, modes


def stacked_digits_of(network: Extractor, images: Tensor) -> NDArray[np.int64]:
    """Return the digits of stacked images, (n, 3)."""
    flat = images.reshape(-1, 1, *images.shape[2:])
    return network.logits(network(flat)).argmax(axis=1).reshape(-1, 3)
