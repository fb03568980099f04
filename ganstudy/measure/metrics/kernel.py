"""Distances of feature distributions by a kernel."""

from __future__ import annotations

import math

import numpy as np

from ganstudy.measure.metrics.base import METRICS, Array, Metric, Sample, Score, pair
from ganstudy.registry import component


def kernel_distance(generated: Array | Sample, real: Array | Sample) -> Score:
    """Return the unbiased squared MMD under the kernel (x'y / d + 1)^3, with a standard error.

    The full U-statistic (Binkowski et al. 2018, arXiv:1801.01401, without its subsets). Slightly
    negative values are possible and right. The standard error is the delete-one jackknife's, over
    generated and real samples alike (Efron & Stein 1981).
    """
    made, there = pair(generated, real, rows=3)
    n, m, d = len(made), len(there), made.dimension
    x, y = made.features.astype(np.float64), there.features.astype(np.float64)
    k_gg, k_rr, k_gr = ((a @ b.T / d + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
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


@METRICS.register("kernel_distance", paper="Binkowski et al. 2018, arXiv:1801.01401")
@component
class KernelDistance(Metric):
    """Unbiased squared MMD under a cubic kernel; trustworthy at any n, in any dimension."""

    direction = "minimize"
    identity_value = None
    short = "kd"

    def __call__(self, generated: Array | Sample, real: Array | Sample) -> Score:
        return kernel_distance(generated, real)
