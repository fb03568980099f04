"""Likeness of generated images to one another, by the structure that people see."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ganstudy.gan.datasets import Dataset
from ganstudy.measure.metrics.base import METRICS, Metric, Reads, Score
from ganstudy.measure.metrics.order import canonical_order
from ganstudy.measure.metrics.spectrum import check_image_pair
from ganstudy.registry import component

Images = NDArray[np.floating]

WINDOW = 11
"""Side of the Gaussian window, in pixels."""
SIGMA = 1.5
"""Its standard deviation, in pixels."""
C1, C2 = 0.01**2, 0.03**2
"""(K_1 L)^2 and (K_2 L)^2 for intensities in [0, 1]."""
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales, the finest first (Wang et al. 2003)."""
BLOCK = 50
"""Pairs that are compared at a time, which bounds the memory."""


def most_scales(height: int, width: int) -> int:
    """Return the number of scales, at most 5, whose coarsest side still holds the window.

    side / 2^(scales - 1) >= 11: one scale from 11 pixels on, two from 22, five from 176.
    """
    side = min(height, width)
    if max(height, width) == 1:
        raise ValueError("points have no structure; use diversity or recall")
    if side < WINDOW:
        raise ValueError(
            f"a window of {WINDOW} pixels needs sides of at least {WINDOW}, got "
            f"{height}x{width}; use diversity or recall"
        )
    return min(len(WEIGHTS), (side // WINDOW).bit_length())


def window_matrix(side: int) -> NDArray[np.float64]:
    """Return the (side - 10, side) matrix that takes the Gaussian mean wherever it fits."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(offsets**2) / (2 * SIGMA**2))
    matrix = np.zeros((side - WINDOW + 1, side))
    for row in range(len(matrix)):
        matrix[row, row : row + WINDOW] = weights / weights.sum()
    return matrix


def similarity(a: Images, b: Images) -> tuple[Images, Images]:
    """Return SSIM and its contrast-structure term of pairs (Wang et al. 2004), each (n, c).

    Means over the places where the window lies within the image, of each channel by itself.

    Args:
        a: (n, c, h, w) in [0, 1].
        b: The images to compare, of the same shape.
    """
    rows, columns = window_matrix(a.shape[2]), window_matrix(a.shape[3]).T

    def local_mean(x: Images) -> Images:
        return rows @ x @ columns

    mean_a, mean_b = local_mean(a), local_mean(b)
    variances = local_mean(a * a) - mean_a**2 + local_mean(b * b) - mean_b**2
    covariance = local_mean(a * b) - mean_a * mean_b
    contrast = (2 * covariance + C2) / (variances + C2)
    luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    return (luminance * contrast).mean(axis=(2, 3)), contrast.mean(axis=(2, 3))


def halve(x: Images) -> Images:
    """Return the means of tiles of 2 x 2 pixels; an odd side loses its last one."""
    n, c, h, w = x.shape
    even = x[..., : h // 2 * 2, : w // 2 * 2]
    return even.reshape(n, c, h // 2, 2, w // 2, 2).mean(axis=(3, 5))


def check_pairs(a: Images, b: Images) -> None:
    """Raise ValueError unless both are finite (n, c, h, w) arrays of one shape."""
    if a.ndim != 4 or a.shape != b.shape or not len(a):
        raise ValueError(
            f"pairs of images must be (n >= 1, c, h, w) twice, got {a.shape} and {b.shape}"
        )
    bad = (~np.isfinite(a)).sum() + (~np.isfinite(b)).sum()
    if bad:
        raise ValueError(f"pairs of images hold {bad} non-finite values")


def ms_ssim(a: Images, b: Images, scales: int | None = None) -> NDArray[np.float64]:
    """Return the multi-scale structural similarity of pairs of images (Wang et al. 2003).

    Contrast-structure terms of all scales but the coarsest, whose whole SSIM it takes, each to
    the power of its weight (doi:10.1109/ACSSC.2003.1292216). The paper's images are grey; a colour
    image has the mean of its channels' similarities, as in TensorFlow, pytorch-msssim and
    compare_gan. Departures: fewer scales than five have the weights of the finest ones, divided by
    their sum; a negative term counts as 0, since it has no power. Images are shifted to [0, 1]
    first: the luminance term is of intensities from 0 on. torchmetrics averages the terms over
    channels before it takes their powers, and pads the coarsest scale by reflection, where this
    takes, as on the others, only whole windows.

    Args:
        a: (n, c, h, w) in [-1, 1].
        b: The images to compare, of the same shape.
        scales: As many as the sides allow unless given (see `most_scales`).

    Returns:
        (n,) in [0, 1]; 1 for equal images.
    """
    check_pairs(a, b)
    most = most_scales(*a.shape[2:])
    scales = most if scales is None else scales
    if not 1 <= scales <= most:
        raise ValueError(
            f"scales must lie in [1, {most}] at {a.shape[2]}x{a.shape[3]}, got {scales}"
        )
    weights = np.array(WEIGHTS[:scales]) / sum(WEIGHTS[:scales])
    x: Images = (a.astype(np.float64) + 1) / 2
    y: Images = (b.astype(np.float64) + 1) / 2
    product = np.ones(x.shape[:2])
    for scale, weight in enumerate(weights):
        whole, contrast = similarity(x, y)
        term = whole if scale == scales - 1 else contrast
        product *= np.maximum(term, 0) ** weight
        x, y = halve(x), halve(y)
    return product.mean(axis=1)


def mean_pair_similarity(images: Images, pairs: int = 500) -> Score:
    """Return the mean MS-SSIM of disjoint pairs of images (Odena et al. 2017, arXiv:1610.09585).

    The pairs are fixed by the set of images, whatever their order: rows in order of their bytes
    are dealt out by one seeded permutation. Sorted neighbours would be too much alike.

    Args:
        images: (n >= 4, c, h, w) in [-1, 1].
        pairs: At most; n // 2 where there are fewer.

    Returns:
        The mean and its standard error over pairs.
    """
    count = min(pairs, len(images) // 2)
    if count < 2:
        raise ValueError(f"a mean over pairs needs at least 4 images, got {len(images)}")
    order = canonical_order(images)[np.random.default_rng(0).permutation(len(images))]
    dealt = images[order[: 2 * count]]
    blocks = np.array_split(np.arange(count), math.ceil(count / BLOCK))
    found = np.concatenate([ms_ssim(dealt[2 * i], dealt[2 * i + 1]) for i in blocks])
    return Score(float(found.mean()), float(found.std(ddof=1)) / math.sqrt(count))


@METRICS.register("ms_ssim", paper="Odena et al. 2017, arXiv:1610.09585")
@component
class MSSSIM(Metric):
    """Mean structural similarity of pairs of generated images: 1 where all are alike.

    Over all classes, where the paper compares within each. Less is more diverse, down to the
    real images' own value, which stands beside it as the floor; noise is below that, so that it
    tells of variety only where other scores tell of quality. As many scales as the sides allow:
    two at 28 or 32 pixels. Colour images have the mean of their channels' similarities.
    """

    reads: ClassVar[Reads] = "images"
    direction = "minimize"
    identity_value = None
    short = "ms_ssim"
    chooses = False

    pairs: Annotated[int, Field(ge=2)] = 500
    """Disjoint pairs at most; half the samples where those are fewer."""

    def check(self, dataset: Dataset) -> None:
        most_scales(*dataset.image_shape[1:])

    def check_size(self, n: int, dimension: int) -> None:
        if n < 4:
            raise ValueError(f"needs at least 4 samples, the splits offer {n}")

    def __call__(self, generated: Images, real: Images) -> Score:
        check_image_pair(generated, real)
        return mean_pair_similarity(generated, self.pairs)
