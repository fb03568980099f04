"""Precision, recall and F1 on the convex polygons (Lucic et al. 2018, arXiv:1711.10337).

The data is a manifold that is known, so that a generator can be judged without features: how far
its images lie from the manifold, and how far held-out images lie from what it can make. Distances
are squared Euclidean ones over the pixels in [0, 1]. The paper's code for them was not published;
docs/polygons.md says what it leaves open and how that is decided here.
"""

from ganstudy.measure.metrics.polygons.inversion import Inverted, Search, invert
from ganstudy.measure.metrics.polygons.scores import (
    PolygonF1,
    PolygonPrecision,
    PolygonRecall,
    harmonic_mean,
    share_within,
)
from ganstudy.measure.metrics.polygons.triangles import FamilyName, Fitted, fit, pool

__all__ = [
    "FamilyName",
    "Fitted",
    "Inverted",
    "PolygonF1",
    "PolygonPrecision",
    "PolygonRecall",
    "Search",
    "fit",
    "harmonic_mean",
    "invert",
    "pool",
    "share_within",
]
