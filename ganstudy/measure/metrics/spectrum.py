"""Scores of the images themselves: patterns that repeat every few pixels.

A transposed convolution of stride 2 whose kernel its stride does not divide draws a pattern of
period 2, the checkerboard (Odena et al. 2016, doi:10.23915/distill.00003); k of them in a row
can draw periods up to 2^k.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ganstudy.gan.datasets import Dataset
from ganstudy.measure.features import content_hash
from ganstudy.measure.metrics.base import METRICS, Drawn, Metric, Reader, Reads, Score
from ganstudy.registry import component

Images = NDArray[np.floating]


def check_sides(height: int, width: int, period: int) -> None:
    """Raise ValueError unless both sides are multiples of `period`, and more than one."""
    if max(height, width) == 1:
        raise ValueError("points hold no pattern; use precision or kernel_distance")
    if height % period or width % period or min(height, width) < 2 * period:
        raise ValueError(
            f"a pattern of period {period} needs sides that are multiples of {period} from "
            f"{2 * period} on, got {height}x{width}; use another period or size of images"
        )


def check_image_pair(generated: Images, real: Images) -> None:
    """Raise ValueError unless both are finite (n >= 2, c, h, w) arrays of one image shape."""
    for role, x in (("generated", generated), ("real", real)):
        if x.ndim != 4 or len(x) < 2:
            raise ValueError(f"{role} images must be (n >= 2, c, h, w), got shape {x.shape}")
        if not np.isfinite(x).all():
            raise ValueError(f"{role} images hold {(~np.isfinite(x)).sum()} non-finite values")
    if generated.shape[1:] != real.shape[1:]:
        raise ValueError(f"images differ: {generated.shape[1:]} against {real.shape[1:]}")


def pattern_share(images: Images, period: int = 2) -> Score:
    """Return the share of the images' variance that repeats every `period` pixels.

    An image's pattern is the mean of its tiles of period x period pixels. The share is the
    variance of the patterns over that of the images, each channel about its image's mean, summed
    over images and channels. By Parseval it is the share of the Fourier power (without the mean)
    at the multiples of h / period and w / period: for period 2, at the three Nyquist frequencies.
    White noise has (period^2 - 1) / (h w - 1).

    Args:
        images: (n, c, h, w), h and w multiples of `period`.
        period: In pixels.

    Returns:
        The share, 0 for constant images, and its standard error over images (a ratio of means).
    """
    n, c, h, w = images.shape
    x = images.astype(np.float64)
    x -= x.mean(axis=(2, 3), keepdims=True)
    tiles = x.reshape(n, c, h // period, period, w // period, period)
    patterns = (tiles.mean(axis=(2, 4)) ** 2).mean(axis=(1, 2, 3))
    variances = (x**2).mean(axis=(1, 2, 3))
    if not variances.any():
        return Score(0.0, 0.0)
    share = patterns.mean() / variances.mean()
    spread = np.std(patterns - share * variances, ddof=1)
    return Score(float(share), float(spread / variances.mean()) / math.sqrt(n))


def checkerboard(generated: Images, real: Images, period: int = 2) -> Score:
    """Return the generated images' share of pattern over the real images' one.

    Its standard error takes generated and real images as independent draws. Real images without
    any pattern give 1 for generated ones without it, else infinity.
    """
    check_image_pair(generated, real)
    height, width = generated.shape[2:]
    check_sides(height, width, period)
    made, there = pattern_share(generated, period), pattern_share(real, period)
    if there.value == 0:
        return Score(1.0 if made.value == 0 else math.inf)
    ratio = made.value / there.value
    error = math.hypot(made.standard_error, ratio * there.standard_error) / there.value
    return Score(ratio, error)


def image_reader(dataset: Dataset) -> Reader:
    """Return what hands images on as they are, (n, c, h, w) in [-1, 1]."""

    def read(drawn: Drawn) -> Images:
        pixels: Images = drawn.images.numpy()
        return pixels

    told = {
        "features": {"name": "images"},
        "features_hash": content_hash("images"),
        "features_facts": {},
        "dimension": math.prod(dataset.image_shape),
    }
    return Reader(read, told)


@METRICS.register("checkerboard", paper="Odena et al. 2016, doi:10.23915/distill.00003")
@component
class Checkerboard(Metric):
    """Share of variance in a pattern that repeats every 2 pixels: times that of real images.

    1 is as in real images, more is checkerboard; less is no better, but smoother than real
    images are. Of trained generators only: the faint images of an untrained one can be little
    else than pattern.
    """

    reads: ClassVar[Reads] = "images"
    direction = "minimize"
    identity_value = 1.0

    period: Annotated[int, Field(ge=2)] = 2
    """Pixels after which the pattern repeats; 4 holds the patterns of period 2 too."""

    @property
    def short(self) -> str:  # type: ignore[override]
        """How the stored name begins; another period than 2 is part of it."""
        return "checkerboard" if self.period == 2 else f"checkerboard_p{self.period}"

    def check(self, dataset: Dataset) -> None:
        check_sides(*dataset.image_shape[1:], self.period)

    def __call__(self, generated: Images, real: Images) -> Score:
        return checkerboard(generated, real, self.period)
