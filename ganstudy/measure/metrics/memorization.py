"""Whether generated images are copies of training images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import sklearn
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.stats import rankdata
from sklearn.cluster import KMeans
from sklearn.metrics import pairwise_distances_argmin_min

from ganstudy.gan.datasets import Dataset
from ganstudy.measure.features import Extractor, cached, content_hash
from ganstudy.measure.metrics.base import METRICS, Array, Drawn, Metric, Reader, Reads, Score
from ganstudy.registry import component

CELLS = 10
"""Cells of the training features; the authors take 50 for 10,000 generated digits of MNIST."""
LEAST_GENERATED = 20
"""Generated samples that a cell needs to count (the authors' threshold)."""
LEAST_HELD_OUT = 2
"""Held-out samples that a cell needs to count: a standard error needs a spread."""


class Nearest(NamedTuple):
    """Where n images lie among the training images.

    Attributes:
        distances: Euclidean distance to the nearest training image's features, (n,).
        cells: Which cell of the training features each lies in, (n,) whole numbers from 0 on.
    """

    distances: Array
    cells: NDArray[np.integer]


def check_nearest(role: str, nearest: Nearest, least: int) -> None:
    """Raise ValueError unless distances are finite and not negative, each with its cell."""
    distances, cells = nearest
    if distances.ndim != 1 or len(distances) < least or distances.shape != cells.shape:
        raise ValueError(
            f"{role} distances and cells must be two arrays of one length n >= {least}, got "
            f"{distances.shape}, {cells.shape}"
        )
    if not np.isfinite(distances).all():
        bad = (~np.isfinite(distances)).sum()
        raise ValueError(f"{role} distances hold {bad} non-finite values")
    if distances.min() < 0:
        raise ValueError(f"{role} distances must not be negative, got {distances.min()}")


def placements(x: Array, y: Array) -> tuple[Array, Array]:
    """Return the share of y below each x, and of x below each y; a tie counts half.

    Args:
        x: (m,).
        y: (n,).

    Returns:
        Arrays of shapes (m,) and (n,).
    """
    m, n = len(x), len(y)
    ranks = rankdata(np.concatenate([x, y]))
    return (ranks[:m] - rankdata(x)) / n, (ranks[m:] - rankdata(y)) / m


def mann_whitney_z(x: Array, y: Array) -> Score:
    """Return the z score of the Mann-Whitney U of x over y: negative where x is smaller.

    Standardised by n m (n + m + 1) / 12 as without ties, which only shrinks it where there are
    some, and without correction for continuity, for which the authors' code adds 1 / 2 to U. Mean
    0 and variance 1 where x and y are of one continuous distribution.

    The standard error is DeLong's (1988), whatever the two distributions, of samples to which the
    lowest and the highest value are added, one of each, as Agresti & Caffo (2000,
    doi:10.1080/00031305.2000.10474560) add a success and a failure to either sample of a
    comparison of proportions. Of the samples alone it is 0 where they do not overlap. In
    simulations (20 to 100 draws against 5 to 60) 1.96 such errors cover the truth in at least 88 %
    of the repeats, whatever P(y < x) from 0.005 to 0.5; without the added values in as few as 3 %.
    The error is 0.8 to 1.5 times the spread of z where P(y < x) is 0.2 or 0.5, and 1.5 to 5 times
    at 0.02, where samples hardly overlap.

    Args:
        x: (m,), m >= 2.
        y: (n,), n >= 2.

    Returns:
        z and its standard error.
    """
    m, n = len(x), len(y)
    scale = math.sqrt(12 * n * m / (n + m + 1))
    ends = [-math.inf, math.inf]
    widened = placements(np.append(x, ends), np.append(y, ends))
    variance = sum(float(shares.var(ddof=1)) / len(shares) for shares in widened)
    mean = float(placements(x, y)[0].mean())
    return Score(scale * (mean - 0.5), scale * math.sqrt(variance))


def data_copying(generated: Nearest, held_out: Nearest) -> Score:
    """Return the three-sample statistic C_T (Meehan et al. 2020, arXiv:2004.05675).

    In each cell of the training features, the z score of the distances to the nearest training
    image, generated against held-out; their mean, weighted by the cells' shares of the held-out
    images. Cells with fewer than 20 generated images are left out, as by the authors, and those
    with fewer than 2 held-out ones. The nearest training image may lie in another cell, where the
    authors' code looks within the cell only.

    C_T has mean 0 for fresh draws of the data's distribution, and a standard deviation of 1 with
    one cell, less with more (about 1 over root k for k equal cells). Below -3 is copying; far
    above 0 are images unlike the training images.

    Args:
        generated: Of m generated images.
        held_out: Of n real images that were not trained on.

    Returns:
        C_T and its standard error over both samples, the cells being given. Where no cell holds
        enough of both, all images count as one cell: the authors' global test.
    """
    check_nearest("generated", generated, LEAST_GENERATED)
    check_nearest("held-out", held_out, LEAST_HELD_OUT)
    weights, scores = [], []
    for cell in np.unique(held_out.cells):
        x = generated.distances[generated.cells == cell]
        y = held_out.distances[held_out.cells == cell]
        if len(x) >= LEAST_GENERATED and len(y) >= LEAST_HELD_OUT:
            weights.append(len(y))
            scores.append(mann_whitney_z(x, y))
    if not scores:
        return mann_whitney_z(generated.distances, held_out.distances)
    share = np.array(weights) / sum(weights)
    values, errors = np.array(scores).T
    return Score(float(share @ values), math.hypot(*(share * errors)))


def training_cells(features: Array) -> Array:
    """Return the k-means centres of (n, d) training features, (k, d) with k at most 10."""
    different = len(np.unique(features, axis=0))
    k_means = KMeans(
        min(CELLS, different),
        init="k-means++",
        n_init=1,
        max_iter=300,
        tol=1e-4,
        algorithm="lloyd",
        random_state=0,
    )
    centres: Array = k_means.fit(features).cluster_centers_
    return centres


def nearest_training(features: Array, training: Array, centres: Array) -> Nearest:
    """Return distances of (n, d) features to the nearest of (N, d) training ones, and cells.

    Neighbours are found in blocks, in memory that does not grow with n N.
    """
    neighbours, _ = pairwise_distances_argmin_min(features, training)
    # Anew in float64: the search takes differences of squares, in which a small distance is lost.
    apart = features.astype(np.float64) - training[neighbours]
    return Nearest(np.linalg.norm(apart, axis=1), cdist(features, centres).argmin(axis=1))


def training_reader(
    dataset: Dataset, network: Extractor, told: dict[str, Any], cache: Path | None = None
) -> Reader:
    """Return what finds the training images nearest to others, by their features.

    The training split's features and cells are kept in `cache` under a hash of images and network.
    """
    images = dataset.images("train")

    def make() -> dict[str, Any]:
        features = network(images)
        centres = training_cells(features)
        return {"features": torch.from_numpy(features), "centres": torch.from_numpy(centres)}

    versions = (torch.__version__, sklearn.__version__)
    name = content_hash(images, network.hash, str(CELLS), *versions)
    known = cached(f"train-{name}.pt", cache, make)
    training, centres = known["features"].numpy(), known["centres"].numpy()

    def read(drawn: Drawn) -> Nearest:
        return nearest_training(drawn.features.features, training, centres)

    return Reader(read, {**told, "n_training": len(training), "cells": len(centres)})


@METRICS.register("memorization", paper="Meehan et al. 2020, arXiv:2004.05675")
@component
class Memorization(Metric):
    """Distances to the nearest training image against those of held-out images, as a z score.

    Below -3 the generator copies training images; around 0 its images are as near to them as
    held-out ones; far above 0 they are near to none, which is a bad fit and no merit. It is to be
    maximised up to 0 only: a test beside the scores, never the one that checkpoints are chosen
    by. Fresh draws stray by about 0.3 with its ten cells, so that -3 is strict. Over all of a
    cell: a few copies among many images go unseen.
    """

    reads: ClassVar[Reads] = "training"
    direction = "maximize"
    identity_value = 0.0
    short = "memorization"
    chooses = False

    def check(self, dataset: Dataset) -> None:
        images = dataset.images("train")
        if bool((images == images[0]).all()):
            raise ValueError(
                f"the training images of {dataset.name} are one and the same: to be right is to "
                f"copy; use kernel_distance"
            )

    def check_size(self, n: int, dimension: int) -> None:
        if n < LEAST_GENERATED:
            raise ValueError(f"needs at least {LEAST_GENERATED} samples, the splits offer {n}")

    def __call__(self, generated: Nearest, real: Nearest) -> Score:
        return data_copying(generated, real)
