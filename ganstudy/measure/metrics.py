"""Scores of generated against real features: pure functions of numpy arrays, in that order.

`generated` is (n, d), `real` is (m, d), float64, one row an image; both must be finite with at
least two rows. A score whose input is not finite does not exist: ValueError, never a number.
Scores of modes are in modes.py, those of the images themselves in spectrum.py.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.spatial.distance import cdist, pdist

from ganstudy.registry import Component, Registry, component

if TYPE_CHECKING:  # arrays are scored without torch
    from torch import Tensor

    from ganstudy.gan.datasets import Dataset

Reads = Literal["features", "images", "modes"]
Features = NDArray[np.float64]
Neighbours = Annotated[int, Field(ge=1)]


class Score(NamedTuple):
    """A score and its standard error over generated (and, where stated, real) samples."""

    value: float
    standard_error: float = math.nan


def check_features(generated: Features, real: Features, rows: int = 2) -> None:
    """Raise ValueError unless both are finite (n, d) arrays of one d with enough rows."""
    for role, x in (("generated", generated), ("real", real)):
        if x.ndim != 2 or len(x) < rows:
            raise ValueError(f"{role} features must be (n >= {rows}, d), got shape {x.shape}")
        if not np.isfinite(x).all():
            raise ValueError(f"{role} features hold {(~np.isfinite(x)).sum()} non-finite values")
    if generated.shape[1] != real.shape[1]:
        raise ValueError(f"features differ in d: {generated.shape[1]} against {real.shape[1]}")


def frechet_distance(generated: Features, real: Features) -> float:
    """Return the squared Fréchet (2-Wasserstein) distance of two fitted Gaussians.

    |mu_g - mu_r|^2 + tr(C_g + C_r - 2 (C_g C_r)^(1/2)) with covariances over n - 1 (Dowson &
    Landau 1982; Heusel et al. 2017, arXiv:1706.08500). The root's trace is the sum of the singular
    values of R_g R_r', with R the matrix root of a covariance, so that near-singular covariances
    need no offset on the diagonal. Biased upwards, by about (d terms) / n: compare at equal n.
    """
    check_features(generated, real)
    roots, traces = [], 0.0
    for x in (generated, real):
        values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(x, rowvar=False)))
        # A covariance has no negative eigenvalue; what eigh returns below 0 is rounding.
        values = np.clip(values, 0.0, None)
        roots.append(vectors * np.sqrt(values))
        traces += values.sum()
    cross = np.linalg.svd(roots[0].T @ roots[1], compute_uv=False).sum()
    shift = generated.mean(axis=0) - real.mean(axis=0)
    return float(shift @ shift + traces - 2 * cross)


def kernel_distance(generated: Features, real: Features) -> Score:
    """Return the unbiased squared MMD under the kernel (x'y / d + 1)^3, with a standard error.

    The full U-statistic (Binkowski et al. 2018, arXiv:1801.01401, without its subsets). Slightly
    negative values are possible and right. The standard error is the delete-one jackknife's, over
    generated and real samples alike (Efron & Stein 1981).
    """
    check_features(generated, real, rows=3)
    n, m, d = len(generated), len(real), generated.shape[1]
    k_gg, k_rr, k_gr = (
        (a @ b.T / d + 1) ** 3
        for a, b in ((generated, generated), (real, real), (generated, real))
    )
    rows_g = k_gg.sum(axis=1) - k_gg.diagonal()
    rows_r = k_rr.sum(axis=1) - k_rr.diagonal()
    within_g, within_r, across = rows_g.sum(), rows_r.sum(), k_gr.sum()
    value = within_g / (n * (n - 1)) + within_r / (m * (m - 1)) - 2 * across / (n * m)
    without_g = (within_g - 2 * rows_g) / ((n - 1) * (n - 2)) - 2 * (across - k_gr.sum(axis=1)) / (
        (n - 1) * m
    )
    without_r = (within_r - 2 * rows_r) / ((m - 1) * (m - 2)) - 2 * (across - k_gr.sum(axis=0)) / (
        n * (m - 1)
    )
    variance = (n - 1) * without_g.var() + (m - 1) * without_r.var()
    return Score(float(value), math.sqrt(variance))


def neighbour_radii(x: Features, k: int) -> Features:
    """Return each row's distance to its k-th nearest other row, (n,)."""
    if len(x) <= k:
        raise ValueError(f"k = {k} nearest neighbours need more than {k} rows, got {len(x)}")
    # Column 0 after partition is the row itself, at distance 0.
    return np.partition(cdist(x, x), k, axis=1)[:, k]


def inside_any_ball(points: Features, centres: Features, k: int) -> float:
    """Return the share of `points` within the k-th neighbour's radius of any of `centres`."""
    return float((cdist(points, centres) <= neighbour_radii(centres, k)).any(axis=1).mean())


def precision_recall(generated: Features, real: Features, k: int = 3) -> tuple[float, float]:
    """Return improved precision and recall (Kynkaanniemi et al. 2019, arXiv:1904.06991).

    Precision is the share of generated samples inside the k-nearest-neighbour balls of the real
    ones, recall the share of real samples inside those of the generated ones.
    """
    check_features(generated, real)
    return inside_any_ball(generated, real, k), inside_any_ball(real, generated, k)


def density_coverage(generated: Features, real: Features, k: int = 5) -> tuple[float, float]:
    """Return density and coverage (Naeem et al. 2020, arXiv:2002.09797).

    Density is the mean number of real balls that hold a generated sample, over k; coverage the
    share of real balls that hold at least one. Two samples of one distribution of sizes n
    (generated) and m have an expected coverage of 1 - prod_{i=1..k} (m - i) / (n + m - i).
    """
    check_features(generated, real)
    inside = cdist(generated, real) <= neighbour_radii(real, k)
    return float(inside.sum(axis=1).mean() / k), float(inside.any(axis=0).mean())


def diversity(generated: Features, real: Features) -> float:
    """Return the mean pairwise distance of generated samples over that of real ones.

    1 where the generated features spread as the real ones do, 0 for a constant output. Data that
    is one point (dirac) has no spread to lose: 1 for a constant output, else infinite.
    """
    check_features(generated, real)
    made, there = float(pdist(generated).mean()), float(pdist(real).mean())
    if there == 0:
        return 1.0 if made == 0 else math.inf
    return made / there


class Reader(NamedTuple):
    """How metrics of one kind come by what they read.

    Attributes:
        read: (n, channels, height, width) in [-1, 1] -> what the metrics are called with.
        told: `features`, `features_hash`, `features_facts` and `dimension` of the protocol table.
    """

    read: Callable[[Tensor], Any]
    told: dict[str, Any]


class Metric(Component, ABC):
    """A named score of one pair of samples: of their features, unless `reads` says otherwise."""

    reads: ClassVar[Reads] = "features"
    """What is compared: features (n, d), images (n, c, h, w) in [-1, 1], or modes.Modes."""
    direction: ClassVar[Literal["minimize", "maximize"]]
    identity_value: ClassVar[float | None]
    """The score of a set against itself; None where an unbiased estimate has no fixed one."""
    short: ClassVar[str]
    """How the stored name begins: `fd` in `fd_small_cnn_1k`."""

    def check(self, dataset: Dataset) -> None:
        """Raise ValueError where this metric cannot be had of `dataset`."""

    @abstractmethod
    def __call__(self, generated: Any, real: Any) -> Score:
        """Return the score of n `generated` samples against m `real` ones."""


METRICS: Registry[Metric] = Registry("metric")

BLOCKS = 5
"""Disjoint blocks of generated samples for the standard error of a Fréchet distance."""


@METRICS.register("frechet_distance", paper="Heusel et al. 2017, arXiv:1706.08500")
@component
class FrechetDistance(Metric):
    """Distance of two fitted Gaussians; blind where n < 5 d.

    Its standard error is the spread over 5 disjoint blocks of the generated samples, over root 5.
    """

    direction = "minimize"
    identity_value = 0.0
    short = "fd"

    def __call__(self, generated: Features, real: Features) -> Score:
        value = frechet_distance(generated, real)
        blocks = np.array_split(generated, BLOCKS)
        if len(blocks[-1]) < 2:
            return Score(value)
        spread = np.std([frechet_distance(block, real) for block in blocks], ddof=1)
        return Score(value, float(spread) / math.sqrt(BLOCKS))


@METRICS.register("kernel_distance", paper="Binkowski et al. 2018, arXiv:1801.01401")
@component
class KernelDistance(Metric):
    """Unbiased squared MMD under a cubic kernel; trustworthy at any n, in any dimension."""

    direction = "minimize"
    identity_value = None
    short = "kd"

    def __call__(self, generated: Features, real: Features) -> Score:
        return kernel_distance(generated, real)


@METRICS.register("precision", paper="Kynkaanniemi et al. 2019, arXiv:1904.06991")
@component
class Precision(Metric):
    """Share of generated samples that lie among the real ones."""

    direction = "maximize"
    identity_value = 1.0
    short = "precision"

    k: Neighbours = 3
    """Nearest neighbours that span a ball."""

    def __call__(self, generated: Features, real: Features) -> Score:
        check_features(generated, real)
        return Score(inside_any_ball(generated, real, self.k))


@METRICS.register("recall", paper="Kynkaanniemi et al. 2019, arXiv:1904.06991")
@component
class Recall(Metric):
    """Share of real samples that lie among the generated ones."""

    direction = "maximize"
    identity_value = 1.0
    short = "recall"

    k: Neighbours = 3
    """Nearest neighbours that span a ball."""

    def __call__(self, generated: Features, real: Features) -> Score:
        check_features(generated, real)
        return Score(inside_any_ball(real, generated, self.k))


@METRICS.register("coverage", paper="Naeem et al. 2020, arXiv:2002.09797")
@component
class Coverage(Metric):
    """Share of real samples with a generated one in their neighbourhood."""

    direction = "maximize"
    identity_value = 1.0
    short = "coverage"

    k: Neighbours = 5
    """Nearest neighbours that span a ball."""

    def __call__(self, generated: Features, real: Features) -> Score:
        return Score(density_coverage(generated, real, self.k)[1])


@METRICS.register("diversity")
@component
class Diversity(Metric):
    """Mean pairwise feature distance of generated samples over that of real ones."""

    direction = "maximize"
    identity_value = 1.0
    short = "diversity"

    def __call__(self, generated: Features, real: Features) -> Score:
        return Score(diversity(generated, real))
