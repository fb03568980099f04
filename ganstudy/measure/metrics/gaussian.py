"""Distances of Gaussians fitted to features.

What takes time at d = 2048 are products of matrices, of which only half are formed where the
result is symmetric. Eigenvalues are torch's, whose LAPACK needs a third of numpy's time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from scipy.linalg import blas, qr

from ganstudy.measure.metrics.base import METRICS, Array, Metric, Sample, Score, Statistics, pair
from ganstudy.measure.metrics.order import shuffled
from ganstudy.registry import component

ROWS = 1024
"""Rows that are read at a time: bounds the memory of a large sample."""
COLUMNS = 256
"""Width of the blocks by which half of a symmetric product is formed."""
DROPPED = 1e-10
"""Share of a factor's norm up to which its last directions count as rounding.

It changes the distance by at most this share of the root of tr C_g tr C_r.
"""
CERTAIN = 3e-7
"""Share of the traces by which rounding may move a root's trace before the slower way is taken.

Features of networks reach 1e-7 by the bound, and differ by 1e-10 of the traces.
"""


def _mean(x: Array) -> Array:
    return np.asarray(x.mean(axis=0, dtype=np.float64))


def _centred(x: Array, mean: Array, rows: int = ROWS) -> Iterator[Array]:
    """Yield the rows of `x` less `mean` in float64, `rows` at a time."""
    for start in range(0, len(x), rows):
        yield x[start : start + rows] - mean


def covariance(x: Array, mean: Array) -> Array:
    """Return the covariance of the rows of `x` over n - 1, (d, d) float64."""
    d = x.shape[1]
    lower = np.zeros((d, d), order="F")
    for rows in _centred(x, mean):
        lower = blas.dsyrk(1.0, rows.T, beta=1.0, c=lower, overwrite_c=1, lower=1)
    lower /= len(x) - 1
    return np.asarray(lower + np.tril(lower, -1).T)


def _triangle(rows: Array) -> Array:
    """Return R of rows = Q R."""
    return np.asarray(np.linalg.qr(rows, mode="r"))


def gaussian(x: Array) -> Statistics:
    """Return mean, trace, norm and a factor of the covariance of the rows of `x`.

    The factor F, (d, rank) and lower trapezoidal, has F F' = C. It comes from the centred rows by
    QR, never from their squares: its singular values are right to rounding of the largest one,
    where roots of the eigenvalues of C are right to the square root of that only. Directions
    without variance are dropped by pivoted QR, up to `DROPPED` of the norm.
    """
    mean, d = _mean(x), x.shape[1]
    root: Array = np.zeros((0, d))
    for rows in _centred(x, mean, max(ROWS, 4 * d)):
        root = _triangle(np.concatenate([root, rows]))
    root /= math.sqrt(len(x) - 1)
    pivoted, order = qr(root, mode="r", pivoting=True)
    tails = np.sqrt(np.cumsum((pivoted[::-1] ** 2).sum(axis=1)))[::-1]
    kept = int((tails > DROPPED * np.linalg.norm(root)).sum())
    if kept < len(root):
        root = _triangle(pivoted[:kept, np.argsort(order)])
    return {
        "mean": mean,
        "trace": np.asarray((root**2).sum()),
        "norm": np.asarray(np.linalg.norm(root @ root.T)),
        "factor": np.ascontiguousarray(root.T),
    }


def _congruence(c: Array, f: Array) -> Array:
    """Return the lower triangle of F' C F, of a symmetric `c` and a lower trapezoidal `f`."""
    rank = f.shape[1]
    product = np.zeros((rank, rank))
    for left in range(0, rank, COLUMNS):
        columns = slice(left, left + COLUMNS)
        below = c[left:, left:] @ f[left:, columns]
        for top in range(left, rank, COLUMNS):
            rows = slice(top, top + COLUMNS)
            product[rows, columns] = f[top:, rows].T @ below[top - left :]
    return product


class Crossed(NamedTuple):
    """Two Gaussians, and a product of their covariances.

    Attributes:
        x: Generated features, (n, d).
        mean: Of the generated features, (d,).
        real: `gaussian` of the real ones.
        traces: tr C_g + tr C_r.
        product: Symmetric, lower triangle only, with the eigenvalues of C_g C_r: F' C_g F, or
            Y F F' Y' of the centred rows Y over sqrt(n - 1) where n is less than the rank of F.
        rounding: About the most by which rounding moves an eigenvalue of `product`.
    """

    x: Array
    mean: Array
    real: Statistics
    traces: float
    product: Array
    rounding: float

    @property
    def by_rows(self) -> bool:
        """Whether `product` is over rows rather than over directions of the real features."""
        return len(self.x) < self.real["factor"].shape[1]


def _cross(x: Array, real: Statistics) -> Crossed:
    n, mean, f = len(x), _mean(x), real["factor"]
    product: Array
    if n < f.shape[1]:
        y = (x - mean) / math.sqrt(n - 1)
        across, trace = y @ f, float((y**2).sum())
        product = np.asarray(across @ across.T)
        size = float(np.linalg.norm(product))
    else:
        c = covariance(x, mean)
        product, trace = _congruence(c, f), float(np.trace(c))
        size = float(np.linalg.norm(c) * real["norm"])
    traces, eps = trace + float(real["trace"]), float(np.finfo(np.float64).eps)
    return Crossed(x, mean, real, traces, product, eps * size)


def _root_trace(crossed: Crossed) -> float:
    """Return tr (C_g C_r)^(1/2).

    Rounding moves an eigenvalue v by at most r, its root by r / sqrt(max(v, r)): one that is truly
    0 by as much as sqrt(r). Where these sum up to more than `CERTAIN` of the traces, as with
    collapsed features, the root's trace is the sum of the singular values of F_g' F_r.
    """
    values = torch.linalg.eigvalsh(torch.from_numpy(crossed.product)).numpy()
    values = values[1:] if crossed.by_rows else values  # centred rows sum to 0: so does one value
    rounding = crossed.rounding
    if rounding == 0:
        return 0.0
    moved = (rounding / np.sqrt(np.maximum(values, rounding))).sum()
    if moved <= CERTAIN * crossed.traces:
        return float(np.sqrt(np.maximum(values, 0.0)).sum())
    across = gaussian(crossed.x)["factor"].T @ crossed.real["factor"]
    return float(np.linalg.svd(across, compute_uv=False).sum())


def _distance(crossed: Crossed) -> float:
    shift = crossed.mean - crossed.real["mean"]
    return float(shift @ shift + crossed.traces - 2 * _root_trace(crossed))


def _pulls(crossed: Crossed) -> Array:
    """Return (x - mu)' T (x - mu) of every generated row, (n,).

    T = F (F' C_g F)^(-1/2) F' carries N(mu_g, C_g) to N(mu_r, C_r).
    """
    values, vectors = (a.numpy() for a in torch.linalg.eigh(torch.from_numpy(crossed.product)))
    # Directions without generated variance carry nothing; rounding must not divide by nothing.
    roots = np.sqrt(np.maximum(values, max(crossed.rounding, np.finfo(np.float64).tiny)))
    if crossed.by_rows:
        return np.asarray((len(crossed.x) - 1) * (vectors**2 @ roots))
    weighted = crossed.real["factor"] @ (vectors / np.sqrt(roots))
    rows = _centred(crossed.x, crossed.mean)
    return np.concatenate([((part @ weighted) ** 2).sum(axis=1) for part in rows])


def _influence(crossed: Crossed) -> Array:
    """Return by how much each generated sample moves the distance, times n, less a constant.

    2 (mu_g - mu_r)'(x - mu_g) + (x - mu_g)'(I - T)(x - mu_g), (n,): the derivative of the distance
    with respect to the generated distribution.
    """
    shift = crossed.mean - crossed.real["mean"]
    parts = _centred(crossed.x, crossed.mean)
    own = [2 * part @ shift + (part**2).sum(axis=1) for part in parts]
    return np.concatenate(own) - _pulls(crossed)


def _fitted(real: Sample) -> Statistics:
    return real.statistic("gaussian", gaussian)


def frechet_distance(generated: Array | Sample, real: Array | Sample) -> float:
    """Return the squared Fréchet (2-Wasserstein) distance of two fitted Gaussians.

    |mu_g - mu_r|^2 + tr(C_g + C_r - 2 (C_g C_r)^(1/2)) with covariances over n - 1 (Dowson &
    Landau 1982; Heusel et al. 2017, arXiv:1706.08500). The root's trace is the sum of the roots of
    the eigenvalues of F' C_g F with C_r = F F', which needs no matrix root, and no offset on the
    diagonal where covariances are near-singular. Right to 1e-6 of the traces of any covariances.
    Biased upwards, by about (d terms) / n: compare at equal n. Not clipped: equal samples give 0
    up to 1e-9 of the traces, either side.
    """
    made, there = pair(generated, real)
    return _distance(_cross(made.features, _fitted(there)))


def _spread(influence: Array) -> float:
    """Return the standard error that samples of such an influence give."""
    return float(np.std(influence, ddof=1)) / math.sqrt(len(influence))


def frechet_score(generated: Array | Sample, real: Array | Sample) -> Score:
    """Return `frechet_distance` with its standard error over draws of the generated sample.

    By the delta method: the standard deviation of the influence of a sample, over root n. The real
    sample is held fixed, since all that is compared is compared with the same one.
    """
    made, there = pair(generated, real)
    crossed = _cross(made.features, _fitted(there))
    return Score(_distance(crossed), _spread(_influence(crossed)))


BLOCKS = {1: 1.0, 2: 0.5, 4: -0.5}
"""Into how many blocks samples are split -> weight of the mean distance of such blocks.

The weights are those of the intercept of a straight line, by least squares, over 1, 2 and 4.
"""


def _block_gaussians(x: Array) -> Statistics:
    """Return `gaussian` of every block of `x`: "blocks.block.name" -> array."""
    rows = shuffled(x)
    return {
        f"{blocks}.{i}.{name}": value
        for blocks in BLOCKS
        for i, block in enumerate(np.array_split(rows, blocks))
        for name, value in gaussian(block).items()
    }


def _block_statistics(real: Sample) -> Statistics:
    return real.statistic("gaussian_blocks", _block_gaussians)


def _chosen(statistics: Statistics, prefix: str) -> Statistics:
    return {k.removeprefix(prefix): v for k, v in statistics.items() if k.startswith(prefix)}


def frechet_infinity(generated: Array | Sample, real: Array | Sample) -> Score:
    """Return the squared Fréchet distance, extrapolated to infinitely many samples of both.

    The distance of n samples is larger than the true one by about c / n (Chong & Forsyth 2020,
    arXiv:1911.07023). Both samples are split into 1, 2 and 4 blocks at random, the mean distances
    of blocks are regressed on 1 over the size of a block, and the intercept is returned: it can
    be negative where the truth is near 0. Departure from the paper, which shrinks the generated
    sample only, in 15 steps: here the real sample's own bias goes too. The split depends on the
    values of the rows, never on their order.

    Of Gaussians in 8 to 64 dimensions it has some 3 % of the bias of the plain distance at
    n = 10 d (10 % in 8 dimensions), less than its own spread, and 1.0 to 1.5 times its spread. The
    standard error is that of the delta method, with the real sample held fixed.

    Raises:
        ValueError: Where either sample has fewer than 8 rows, 2 a block.
    """
    made, there = pair(generated, real, rows=2 * max(BLOCKS))
    statistics, rows = _block_statistics(there), shuffled(made.features)
    value, influence = 0.0, np.zeros(len(rows))
    for blocks, weight in BLOCKS.items():
        crossed = [
            _cross(block, _chosen(statistics, f"{blocks}.{i}."))
            for i, block in enumerate(np.array_split(rows, blocks))
        ]
        value += weight * float(np.mean([_distance(c) for c in crossed]))
        influence += weight * np.concatenate([_influence(c) for c in crossed])
    return Score(value, _spread(influence))


@component
class GaussianMetric(Metric):
    """A distance of fitted Gaussians: it needs many samples for each dimension.

    Attributes:
        times: Samples a dimension below which it is refused.
        fault: What it is below them, for the error.
        doubt: Why it is not to be believed there, for the report.
    """

    direction = "minimize"
    identity_value = 0.0
    times: ClassVar[int]
    fault: ClassVar[str]
    doubt: ClassVar[str]

    insist: bool = False
    """Score even where samples are too few for their dimension, which the report then says."""

    def samples_needed(self, dimension: int) -> int:
        return self.times * dimension

    def check_size(self, n: int, dimension: int) -> None:
        needed = self.samples_needed(dimension)
        if n < needed and not self.insist:
            raise ValueError(
                f"{self.fault} at n = {n} samples of {dimension} features (it needs n >= "
                f"{needed}); use kernel_distance, or features with fewer dimensions, or say "
                f"insist: true"
            )

    def remark(self, n: int, dimension: int) -> str | None:
        if n >= self.samples_needed(dimension):
            return None
        return (
            f"{self.name} of {n} samples of {dimension} features {self.fault} "
            f"(n < {self.times} d): {self.doubt}; believe kernel_distance"
        )


@METRICS.register("frechet_distance", paper="Heusel et al. 2017, arXiv:1706.08500")
@component
class FrechetDistance(GaussianMetric):
    """Distance of two fitted Gaussians; blind where n < 5 d.

    Its standard error is over draws of the generated samples, the real ones held fixed: all trials
    of a study are compared with the same. In simulation it is 0.9 to 1.25 times the spread over
    draws (Gaussians in 4 to 200 dimensions, n >= 5 d), and up to 1.35 times with heavy tails.
    """

    short = "fd"
    times = 5
    fault = "is blind"
    doubt = "shrunken features can score better than real ones"

    def prepare(self, real: Sample) -> None:
        _fitted(real)

    def __call__(self, generated: Array | Sample, real: Array | Sample) -> Score:
        return frechet_score(generated, real)


@METRICS.register("frechet_infinity", paper="Chong & Forsyth 2020, arXiv:1911.07023")
@component
class FrechetInfinity(GaussianMetric):
    """Fréchet distance without its bias: extrapolated to infinitely many samples.

    Can be negative where generated and real samples are nearly alike. From n = 10 d on.
    """

    short = "fd_inf"
    times = 10
    fault = "is no extrapolation"
    doubt = "it may keep much of its bias"

    def check_size(self, n: int, dimension: int) -> None:
        if n < 2 * max(BLOCKS):
            raise ValueError(f"needs at least {2 * max(BLOCKS)} samples, the splits offer {n}")
        super().check_size(n, dimension)

    def prepare(self, real: Sample) -> None:
        if len(real) >= 2 * max(BLOCKS):
            _block_statistics(real)

    def __call__(self, generated: Array | Sample, real: Array | Sample) -> Score:
        return frechet_infinity(generated, real)
