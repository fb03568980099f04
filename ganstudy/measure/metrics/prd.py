"""Precision and recall as a curve: of distributions that share only a part of their mass."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field
from sklearn.cluster import MiniBatchKMeans

from ganstudy.measure.metrics.base import METRICS, Array, Curve, Metric, Sample, Score, pair
from ganstudy.measure.metrics.order import canonical_order
from ganstudy.registry import component

EDGE = 1e-10
"""Distance of the first and last angle from 0 and pi / 2, whose slopes are 0 and infinite."""
BATCH = 100
"""Rows of a k-means step: scikit-learn's own number when the authors' code was written."""


def histogram_prd(generated: Array, real: Array, angles: int = 1001) -> tuple[Array, Array]:
    """Return the PRD curve of two discrete distributions (Sajjadi et al. 2018, arXiv:1806.00035).

    At slope l the precision is sum_i min(l real_i, generated_i) and the recall the same over l;
    the slopes are the tangents of angles that are equally spaced between 0 and pi / 2.

    Args:
        generated: (K,) probabilities.
        real: (K,) probabilities.
        angles: Points of the curve, at least 3; an odd number has slope 1 among them.

    Returns:
        Precision and recall, each (angles,) in [0, 1]; precision rises along the curve.
    """
    if angles < 3:
        raise ValueError(f"a PRD curve needs at least 3 angles, got {angles}")
    slopes = np.tan(np.linspace(EDGE, math.pi / 2 - EDGE, angles))
    shared = np.minimum(slopes[:, None] * real, generated).sum(axis=1)
    # Probabilities add up to 1 but for rounding, which would show as a precision above 1.
    return np.minimum(shared, 1.0), np.minimum(shared / slopes, 1.0)


def prd_curve(
    generated: Array | Sample,
    real: Array | Sample,
    clusters: int = 20,
    angles: int = 1001,
    runs: int = 10,
) -> tuple[Array, Array]:
    """Return the PRD curve of two samples of features (Sajjadi et al. 2018, arXiv:1806.00035).

    k-means of the union makes a histogram of each sample over the clusters; the curve is the mean
    over `runs` clusterings, seeded 0, 1, ..., of the histograms' curves. The rows' order has no
    influence. The authors refuse samples of unequal size, whose clusters follow the larger one;
    here the rows of the smaller one weigh more, so that both samples weigh the same.

    Args:
        generated: (n, d).
        real: (m, d).
        clusters: Fewer than n and than m.
        angles: Points of the curve.
        runs: Clusterings.

    Returns:
        Precision and recall, each (angles,) in [0, 1]; precision rises along the curve.

    Raises:
        ValueError: Where a sample is no larger than the number of clusters.
    """
    made, there = pair(generated, real)
    if clusters >= min(len(made), len(there)):
        raise ValueError(
            f"{clusters} clusters need more rows than that in each sample, got {len(made)} "
            f"generated and {len(there)} real"
        )
    return made.against(
        there,
        f"prd {clusters} {angles} {runs}",
        lambda: _mean_curve(made, there, clusters, angles, runs),
    )


def _mean_curve(
    made: Sample, there: Sample, clusters: int, angles: int, runs: int
) -> tuple[Array, Array]:
    rows = np.concatenate([made.features, there.features]).astype(np.float64)
    is_real = np.arange(len(rows)) >= len(made)
    order = canonical_order(rows)
    rows, is_real = rows[order], is_real[order]
    # 1 for each row where the sizes are equal.
    weights = len(rows) / 2 / np.where(is_real, len(there), len(made))
    curves = []
    for seed in range(runs):
        k_means = MiniBatchKMeans(
            clusters,
            init="k-means++",
            n_init=10,
            init_size=None,
            batch_size=BATCH,
            max_iter=100,
            max_no_improvement=10,
            tol=0.0,
            reassignment_ratio=0.01,
            random_state=seed,
        )
        labels = k_means.fit(rows, sample_weight=weights).labels_
        generated, real = (
            np.bincount(labels[part], minlength=clusters) / part.sum()
            for part in (~is_real, is_real)
        )
        curves.append(histogram_prd(generated, real, angles))
    precision, recall = np.mean(curves, axis=0)
    return precision, recall


def max_f_beta(precision: Array, recall: Array, beta: float) -> float:
    """Return the largest F_beta = (1 + beta^2) p r / (beta^2 p + r) on a curve, 0 at p = r = 0.

    beta > 1 weighs recall, beta < 1 precision.
    """
    bottom = beta**2 * precision + recall
    top = (1 + beta**2) * precision * recall
    return float(np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0).max())


@component
class PRDMetric(Metric):
    """The largest F_beta on the PRD curve.

    Metrics of the same clusters and runs share the clusterings, which take seconds: a case for a
    study's `final` metrics.
    """

    direction = "maximize"
    identity_value = 1.0
    beta: ClassVar[float]

    clusters: Annotated[int, Field(ge=2)] = 20
    """Clusters of the union of generated and real samples."""
    runs: Annotated[int, Field(ge=1)] = 10
    """Clusterings that the curve is the mean of."""

    def check_size(self, n: int, dimension: int) -> None:
        if n <= self.clusters:
            raise ValueError(
                f"needs more samples than its {self.clusters} clusters, the splits offer {n}"
            )

    def curves(self, generated: Any, real: Any) -> list[Curve]:
        precision, recall = prd_curve(generated, real, self.clusters, runs=self.runs)
        line = f"{self.clusters} clusters, mean of {self.runs} runs"
        return [Curve(line, "recall (PRD)", "precision (PRD)", recall, precision)]

    def __call__(self, generated: Array | Sample, real: Array | Sample) -> Score:
        curve = prd_curve(generated, real, self.clusters, runs=self.runs)
        return Score(max_f_beta(*curve, self.beta))


@METRICS.register("prd_f8", paper="Sajjadi et al. 2018, arXiv:1806.00035")
@component
class PRDF8(PRDMetric):
    """Largest F_8 on the PRD curve: recall, the share of the real mass that is generated.

    Of histograms over k-means clusters of both samples, so that it sees which clusters are met
    and how often, not what happens within one.
    """

    short = "prd_f8"
    beta: ClassVar[float] = 8.0


@METRICS.register("prd_f1_8", paper="Sajjadi et al. 2018, arXiv:1806.00035")
@component
class PRDF1Over8(PRDMetric):
    """Largest F_1/8 on the PRD curve: precision, the share of the generated mass that is real.

    Of histograms over k-means clusters of both samples, so that it sees which clusters are met
    and how often, not what happens within one.
    """

    short = "prd_f1_8"
    beta: ClassVar[float] = 1 / 8
