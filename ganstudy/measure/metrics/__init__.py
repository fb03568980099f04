"""Metrics by name; to add one is to add a class to one of these files.

The functions behind them are pure: arrays (or samples) in, numbers out.
"""

from ganstudy.measure.metrics import gaussian, kernel, modes, neighbours, spectrum
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
from ganstudy.measure.metrics.gaussian import frechet_distance
from ganstudy.measure.metrics.kernel import kernel_distance
from ganstudy.measure.metrics.neighbours import density_coverage, diversity, precision_recall

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
    "density_coverage",
    "diversity",
    "frechet_distance",
    "gaussian",
    "kernel",
    "kernel_distance",
    "modes",
    "neighbours",
    "precision_recall",
    "spectrum",
]
