"""Metrics by name; to add one is to add a class to one of these files.

The functions behind them are pure: arrays (or samples) in, numbers out.
"""

from ganstudy.measure.metrics import (
    classes,
    gaussian,
    kernel,
    memorization,
    modes,
    neighbours,
    polygons,
    prd,
    spectrum,
    structure,
)
from ganstudy.measure.metrics.base import (
    METRICS,
    Array,
    Curve,
    Drawn,
    Latents,
    Metric,
    Reader,
    Reads,
    Sample,
    Score,
)
from ganstudy.measure.metrics.classes import inception_score
from ganstudy.measure.metrics.gaussian import frechet_distance, frechet_infinity
from ganstudy.measure.metrics.kernel import kernel_distance, kernel_distance_subsets
from ganstudy.measure.metrics.memorization import data_copying
from ganstudy.measure.metrics.neighbours import (
    density_coverage,
    diversity,
    prdc,
    precision_recall,
)
from ganstudy.measure.metrics.prd import prd_curve
from ganstudy.measure.metrics.structure import ms_ssim

__all__ = [
    "METRICS",
    "Array",
    "Curve",
    "Drawn",
    "Latents",
    "Metric",
    "Reader",
    "Reads",
    "Sample",
    "Score",
    "classes",
    "data_copying",
    "density_coverage",
    "diversity",
    "frechet_distance",
    "frechet_infinity",
    "gaussian",
    "inception_score",
    "kernel",
    "kernel_distance",
    "kernel_distance_subsets",
    "memorization",
    "modes",
    "ms_ssim",
    "neighbours",
    "polygons",
    "prd",
    "prd_curve",
    "prdc",
    "precision_recall",
    "spectrum",
    "structure",
]
