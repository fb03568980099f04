"""Scores of the images themselves: patterns that repeat every few pixels.

A transposed convolution of stride 2 whose kernel its stride does not divide draws a pattern of
period 2, the checkerboard (Odena et al. 2016, doi:10.23915/distill.00003); k of them in a row
can draw periods up to 2^k.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from pydantic import Field

from ganstudy.gan.datasets import Dataset, normalize
from ganstudy.measure.features import content_hash
from ganstudy.measure.metrics.base import METRICS, Drawn, Metric, Reader, Reads, Score
from ganstudy.registry import component

Images = NDArray[np.floating]
BLOCK = 1000
"""Real images that are looked at together when a study is checked."""


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
        The share and its standard error over images (a ratio of means). Constant images have no
        variance to share: 0, without an error.
    """
    n, c, h, w = images.shape
    x = images.astype(np.float64)
    x -= x.mean(axis=(2, 3), keepdims=True)
    tiles = x.reshape(n, c, h // period, period, w // period, period)
    patterns = (tiles.mean(axis=(2, 4)) ** 2).mean(axis=(1, 2, 3))
    variances = (x**2).mean(axis=(1, 2, 3))
    if not variances.any():
        return Score(0.0)
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


class Lattice:
    """Peaks of generated images' spectra at the frequencies of transposed convolutions.

    Two of stride 2 draw patterns of period 2 and 4: the 15 multiples of a quarter of the sampling
    frequency other than 0. Noise lifts all frequencies, so a peak is power over the median of the
    eight neighbouring frequencies; real images have peaks of their own, so it is told over theirs.
    And since faint images can be little else than pattern, power alone counts too: the smaller of
    the two is told.
    """

    GROUPS = 10
    """Groups of images, over which the standard error is taken."""

    def __init__(self, real: Images) -> None:
        """Keep the power of `real` images, (n, c, h, w), where it is needed."""
        self._real = _power(real).mean(axis=0)

    @staticmethod
    def fits(height: int, width: int) -> bool:
        """Whether images of these sides have such frequencies with neighbours between them."""
        return height % 4 == 0 and width % 4 == 0 and min(height, width) >= 8

    def contrast(self, generated: Images) -> Score:
        """Return the highest peak of (n, c, h, w) generated images over real ones, in dB.

        Its standard error is over groups of the generated images, the frequency held fixed. NaN
        where no frequency has power in both.
        """
        power = _power(generated)
        level = self._decibels(power.mean(axis=0))
        if np.isnan(level).all():
            return Score(math.nan)
        highest = int(np.nanargmax(level))
        groups = np.array_split(power, min(self.GROUPS, len(power)))
        parts = self._decibels(np.stack([group.mean(axis=0) for group in groups]))[:, highest]
        return Score(float(level[highest]), float(np.std(parts, ddof=1)) / math.sqrt(len(parts)))

    def _decibels(self, power: Images) -> NDArray[np.float64]:
        """Return how far each frequency stands out, in dB: power (..., 15, 9) -> (..., 15)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            over_neighbours = _peaks(power) / _peaks(self._real)
            ratios = np.minimum(over_neighbours, power[..., 0] / self._real[:, 0])
            decibels: NDArray[np.float64] = 10 * np.log10(ratios)
        return np.where(np.isfinite(decibels), decibels, np.nan)


def _power(images: Images) -> NDArray[np.float64]:
    """Return the power, summed over channels, at the lattice and around it: (n, 15, 9).

    The first of the nine is the frequency of the lattice itself, the others are its neighbours.
    """
    height, width = images.shape[2:]
    steps = range(-1, 2)
    around = sorted(((y, x) for y in steps for x in steps), key=lambda at: (at != (0, 0), at))
    lattice = [(y, x) for y in range(4) for x in range(4) if (y, x) != (0, 0)]
    rows = [[(y * height // 4 + dy) % height for dy, _ in around] for y, _ in lattice]
    columns = [[(x * width // 4 + dx) % width for _, dx in around] for _, x in lattice]
    spectra = scipy.fft.fft2(images.astype(np.float32))[:, :, rows, columns]
    power: NDArray[np.float64] = (np.abs(spectra) ** 2).sum(axis=1, dtype=np.float64)
    return power


def _peaks(power: Images) -> Images:
    """Return power (..., 15, 9) at each frequency of the lattice over its neighbours' median."""
    return power[..., 0] / np.median(power[..., 1:], axis=-1)


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
        blocks = (normalize(part).numpy() for part in dataset.images("select").split(BLOCK))
        if not any(pattern_share(block, self.period).value > 0 for block in blocks):
            raise ValueError(
                f"the images of {dataset.name} hold nothing that repeats every {self.period} "
                f"pixels, so that the ratio to theirs is undefined; leave it out"
            )

    def __call__(self, generated: Images, real: Images) -> Score:
        return checkerboard(generated, real, self.period)
