"""Which of the data's modes samples belong to, and the scores of that.

Only data made of known modes has them: Gaussians with known centres, and stacked digits, which a
classifier reads one by one.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from scipy.special import xlogy

from ganstudy.gan.datasets import Dataset
from ganstudy.gan.datasets.packaged import MNIST5k, StackedMNIST
from ganstudy.gan.datasets.toys import Mixture
from ganstudy.measure.features import SmallCNN, content_hash
from ganstudy.measure.metrics.base import (
    METRICS,
    Drawn,
    Metric,
    Reader,
    Reads,
    Score,
    share_score,
)
from ganstudy.registry import component

WITHIN = 3
"""Standard deviations from a centre within which a point counts as of its mode (VEEGAN)."""


class Modes(NamedTuple):
    """Which of the data's modes n samples belong to.

    Attributes:
        nearest: Each sample's mode, or the nearest to it, (n,) int64 in [0, known).
        inside: Whether the sample is near enough to be of that mode, (n,) bool.
        known: How many modes the data has; by construction all are equally likely.
    """

    nearest: NDArray[np.int64]
    inside: NDArray[np.bool_]
    known: int


def check_modes(modes: Modes) -> None:
    """Raise ValueError unless there is at least one sample and every mode is a known one."""
    nearest, inside, known = modes
    if nearest.ndim != 1 or len(nearest) < 1 or nearest.shape != inside.shape:
        raise ValueError(
            f"modes must be two arrays of one length n >= 1, got {nearest.shape}, {inside.shape}"
        )
    if nearest.min() < 0 or nearest.max() >= known:
        raise ValueError(f"modes must lie in [0, {known}), got {nearest.min()} to {nearest.max()}")


def modes_covered(modes: Modes) -> int:
    """Return how many modes at least one sample is of (Metz et al. 2017, arXiv:1611.02163)."""
    check_modes(modes)
    return len(np.unique(modes.nearest[modes.inside]))


def high_quality_fraction(modes: Modes) -> Score:
    """Return the share of samples that are of a mode (Srivastava et al. 2017, arXiv:1705.07761).

    Its standard error is the binomial one (`share_score`).
    """
    check_modes(modes)
    return share_score(modes.inside)


def reverse_kl(modes: Modes) -> float:
    """Return KL(generated || data) of the frequencies of modes, in nats.

    Every sample counts for its nearest mode, near enough or not, so that the value is finite even
    where no sample is of high quality. The data's frequencies are the uniform ones it is drawn
    with, not those of a sample: log K less the entropy of the generated frequencies, between 0
    and log K for K modes.
    """
    check_modes(modes)
    share = np.bincount(modes.nearest, minlength=modes.known) / len(modes.nearest)
    return float(xlogy(share, share * modes.known).sum())


def check_known(dataset: Dataset) -> None:
    """Raise ValueError where no rule says to which mode of `dataset` a sample belongs."""
    if not isinstance(dataset, Mixture | StackedMNIST):
        known = "are not known" if dataset.modes is None else "have no rule that assigns samples"
        raise ValueError(
            f"the modes of {dataset.name} {known}; use recall or coverage, or one of the data "
            f"sets grid, ring and stacked_mnist"
        )


def mode_reader(dataset: Dataset, cache: Path | None = None) -> Reader:
    """Return what finds the modes of images of `dataset`; its weights are kept in `cache`."""
    check_known(dataset)
    if isinstance(dataset, Mixture):
        return nearest_centre(dataset)
    assert isinstance(dataset, StackedMNIST)  # no other has passed the check
    return stacked_digits(dataset, cache)


def nearest_centre(dataset: Mixture) -> Reader:
    """Return what assigns points to the nearest centre: of its mode within 3 standard deviations.

    The distance is Euclidean. Of real points in the plane 1 - exp(-9 / 2), or 98.9 %, are inside.
    """
    centers = dataset.centers()
    tree = KDTree(centers.double().numpy())

    def read(drawn: Drawn) -> Modes:
        distances, nearest = map(np.asarray, tree.query(drawn.images.flatten(1).double().numpy()))
        return Modes(nearest, distances <= WITHIN * dataset.std, len(centers))

    told = {
        "features": {"name": "nearest_centre", "within_std": WITHIN, "std": dataset.std},
        "features_hash": content_hash("nearest_centre", centers),
        "features_facts": {},
        "dimension": len(centers),
    }
    return Reader(read, told)


def stacked_digits(dataset: StackedMNIST, cache: Path | None = None) -> Reader:
    """Return what reads the three digits a, b and c of an image: mode 100 a + 10 b + c.

    The classifier is `small_cnn` trained on mnist5k's train split, of which the other splits hold
    no digit. It puts every image into a mode, as Metz et al. and PacGAN do (arXiv:1611.02163,
    arXiv:1712.04086), so all are inside.
    """
    network = SmallCNN()
    logits = network.classifier(MNIST5k(), cache)

    def read(drawn: Drawn) -> Modes:
        height, width = drawn.images.shape[2:]
        digits = logits(drawn.images.reshape(-1, 1, height, width)).argmax(axis=1).reshape(-1, 3)
        nearest = digits @ np.array([100, 10, 1])
        return Modes(nearest, np.ones(len(nearest), dtype=bool), dataset.modes)

    told = {
        "features": {**network.to_dict(), "name": "small_cnn on mnist5k"},
        "features_hash": logits.hash,
        "features_facts": logits.facts,
        "dimension": dataset.modes,
    }
    return Reader(read, told)


class ModeMetric(Metric):
    """A score of modes."""

    reads: ClassVar[Reads] = "modes"
    identity_value = None

    def check(self, dataset: Dataset) -> None:
        check_known(dataset)


@METRICS.register("modes_covered", paper="Metz et al. 2017, arXiv:1611.02163")
@component
class ModesCovered(ModeMetric):
    """How many of the data's modes at least one generated sample is of.

    n samples bound it: of K equally likely modes they are expected to meet
    K (1 - (1 - 1 / K)^n), 632 of stacked_mnist's 1,000 at n = 1,000. The floor, real data's own
    count at that n, stands beside it.
    """

    direction = "maximize"
    short = "modes_covered"

    def __call__(self, generated: Modes, real: Modes) -> Score:
        return Score(float(modes_covered(generated)))


@METRICS.register(
    "high_quality_fraction", paper="Srivastava et al. 2017 (VEEGAN), arXiv:1705.07761"
)
@component
class HighQualityFraction(ModeMetric):
    """Share of generated points within 3 standard deviations of a centre: 0.989 for real ones."""

    direction = "maximize"
    short = "high_quality_fraction"

    def check(self, dataset: Dataset) -> None:
        super().check(dataset)
        if isinstance(dataset, StackedMNIST):
            raise ValueError(
                "is 1 for every generator of stacked_mnist, whose classifier puts any image into "
                "a mode; use precision or kernel_distance"
            )

    def __call__(self, generated: Modes, real: Modes) -> Score:
        return high_quality_fraction(generated)


@METRICS.register("reverse_kl", paper="Lin et al. 2018 (PacGAN), arXiv:1712.04086")
@component
class ReverseKL(ModeMetric):
    """KL(generated || data) of the frequencies of modes, in nats; log K where all are one mode.

    Each sample counts for the mode nearest to it; the data's modes are equally likely. Biased
    upwards by about (K - 1) / 2n where n samples are many more than the K modes, and by 0.57 at
    n = K = 1,000: compare with the floor.
    """

    direction = "minimize"
    short = "reverse_kl"

    def __call__(self, generated: Modes, real: Modes) -> Score:
        return Score(reverse_kl(generated))
