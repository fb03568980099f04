"""Scores by nearest neighbours: how far two samples lie within one another."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from pydantic import Field
from scipy.spatial.distance import cdist, pdist

from ganstudy.measure.metrics.base import METRICS, Array, Metric, Sample, Score, pair
from ganstudy.registry import component

Neighbours = Annotated[int, Field(ge=1)]


def neighbour_radii(x: Array, k: int) -> Array:
    """Return each row's distance to its k-th nearest other row, (n,)."""
    if len(x) <= k:
        raise ValueError(f"k = {k} nearest neighbours need more than {k} rows, got {len(x)}")
    # Column 0 after partition is the row itself, at distance 0.
    return np.partition(cdist(x, x), k, axis=1)[:, k]


def inside_any_ball(points: Array, centres: Array, k: int) -> float:
    """Return the share of `points` within the k-th neighbour's radius of any of `centres`."""
    return float((cdist(points, centres) <= neighbour_radii(centres, k)).any(axis=1).mean())


def precision_recall(
    generated: Array | Sample, real: Array | Sample, k: int = 3
) -> tuple[float, float]:
    """Return improved precision and recall (Kynkaanniemi et al. 2019, arXiv:1904.06991).

    Precision is the share of generated samples inside the k-nearest-neighbour balls of the real
    ones, recall the share of real samples inside those of the generated ones.
    """
    made, there = pair(generated, real)
    return inside_any_ball(made.features, there.features, k), inside_any_ball(
        there.features, made.features, k
    )


def density_coverage(
    generated: Array | Sample, real: Array | Sample, k: int = 5
) -> tuple[float, float]:
    """Return density and coverage (Naeem et al. 2020, arXiv:2002.09797).

    Density is the mean number of real balls that hold a generated sample, over k; coverage the
    share of real balls that hold at least one. Two samples of one distribution of sizes n
    (generated) and m have an expected coverage of 1 - prod_{i=1..k} (m - i) / (n + m - i).
    """
    made, there = pair(generated, real)
    inside = cdist(made.features, there.features) <= neighbour_radii(there.features, k)
    return float(inside.sum(axis=1).mean() / k), float(inside.any(axis=0).mean())


def diversity(generated: Array | Sample, real: Array | Sample) -> float:
    """Return the mean pairwise distance of generated samples over that of real ones.

    1 where the generated features spread as the real ones do, 0 for a constant output. Data that
    is one point (dirac) has no spread to lose: 1 for a constant output, else infinite.
    """
    made, there = pair(generated, real)
    spread, wanted = float(pdist(made.features).mean()), float(pdist(there.features).mean())
    if wanted == 0:
        return 1.0 if spread == 0 else math.inf
    return spread / wanted


class NeighbourMetric(Metric):
    """A score of nearest-neighbour balls; every one of them has an option `k`."""

    direction = "maximize"
    identity_value = 1.0

    k: Neighbours
    """Nearest neighbours that span a ball."""

    def check_size(self, n: int, dimension: int) -> None:
        if n <= self.k:
            raise ValueError(f"needs more than {self.k} samples, the splits offer {n}")


@METRICS.register("precision", paper="Kynkaanniemi et al. 2019, arXiv:1904.06991")
@component
class Precision(NeighbourMetric):
    """Share of generated samples that lie among the real ones."""

    short = "precision"

    k: Neighbours = 3
    """Nearest neighbours that span a ball."""

    def __call__(self, generated: Array | Sample, real: Array | Sample) -> Score:
        return Score(precision_recall(generated, real, self.k)[0])


@METRICS.register("recall", paper="Kynkaanniemi et al. 2019, arXiv:1904.06991")
@component
class Recall(NeighbourMetric):
    """Share of real samples that lie among the generated ones."""

    short = "recall"

    k: Neighbours = 3
    """Nearest neighbours that span a ball."""

    def __call__(self, generated: Array | Sample, real: Array | Sample) -> Score:
        return Score(precision_recall(generated, real, self.k)[1])


@METRICS.register("coverage", paper="Naeem et al. 2020, arXiv:2002.09797")
@component
class Coverage(NeighbourMetric):
    """Share of real samples with a generated one in their neighbourhood."""

    short = "coverage"

    k: Neighbours = 5
    """Nearest neighbours that span a ball."""

    def __call__(self, generated: Array | Sample, real: Array | Sample) -> Score:
        return Score(density_coverage(generated, real, self.k)[1])


@METRICS.register("diversity")
@component
class Diversity(Metric):
    """Mean pairwise feature distance of generated samples over that of real ones."""

    direction = "maximize"
    identity_value = 1.0
    short = "diversity"

    def __call__(self, generated: Array | Sample, real: Array | Sample) -> Score:
        return Score(diversity(generated, real))
