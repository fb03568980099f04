"""Distances of Gaussians fitted to features."""

from __future__ import annotations

import math

import numpy as np

from ganstudy.measure.metrics.base import METRICS, Array, Metric, Sample, Score, pair
from ganstudy.registry import component


def frechet_distance(generated: Array | Sample, real: Array | Sample) -> float:
    """Return the squared Fréchet (2-Wasserstein) distance of two fitted Gaussians.

    |mu_g - mu_r|^2 + tr(C_g + C_r - 2 (C_g C_r)^(1/2)) with covariances over n - 1 (Dowson &
    Landau 1982; Heusel et al. 2017, arXiv:1706.08500). The root's trace is the sum of the singular
    values of R_g R_r', with R the matrix root of a covariance, so that near-singular covariances
    need no offset on the diagonal. Biased upwards, by about (d terms) / n: compare at equal n.
    """
    samples = pair(generated, real)
    roots, means, traces = [], [], 0.0
    for sample in samples:
        x = sample.features.astype(np.float64)
        values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(x, rowvar=False)))
        # A covariance has no negative eigenvalue; what eigh returns below 0 is rounding.
        values = np.clip(values, 0.0, None)
        roots.append(vectors * np.sqrt(values))
        means.append(x.mean(axis=0))
        traces += values.sum()
    cross = np.linalg.svd(roots[0].T @ roots[1], compute_uv=False).sum()
    shift = means[0] - means[1]
    return float(shift @ shift + traces - 2 * cross)


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

    insist: bool = False
    """Score even where n < 5 d, where shrunken features can score better than real ones."""

    def check_size(self, n: int, dimension: int) -> None:
        if n < 5 * dimension and not self.insist:
            raise ValueError(
                f"is blind at n = {n} samples of {dimension} features (it needs n >= "
                f"{5 * dimension}); use kernel_distance, or features with fewer dimensions, or "
                f"say insist: true"
            )

    def remark(self, n: int, dimension: int) -> str | None:
        if n >= 5 * dimension:
            return None
        return (
            f"a Fréchet distance of {n} samples of {dimension} features is blind (n < 5 d): "
            f"shrunken features can score better than real ones; believe kernel_distance"
        )

    def __call__(self, generated: Array | Sample, real: Array | Sample) -> Score:
        value = frechet_distance(generated, real)
        blocks = np.array_split(Sample.of(generated).features, BLOCKS)
        if len(blocks[-1]) < 2:
            return Score(value)
        spread = np.std([frechet_distance(block, real) for block in blocks], ddof=1)
        return Score(value, float(spread) / math.sqrt(BLOCKS))
