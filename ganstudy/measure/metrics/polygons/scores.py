"""The scores of the convex polygons."""

from __future__ import annotations

import math
import operator
from dataclasses import fields
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ganstudy.gan.datasets import Dataset
from ganstudy.gan.datasets.polygons import ConvexPolygons
from ganstudy.measure.metrics.base import METRICS, Curve, Drawn, Metric, Score, share_score
from ganstudy.measure.metrics.polygons.inversion import Inverted, Search, invert
from ganstudy.measure.metrics.polygons.triangles import FamilyName, Fitted, fit
from ganstudy.registry import component

Floats = NDArray[np.float64]
THRESHOLDS: Floats = np.geomspace(0.05, 20, 53)
"""Squared distances at which the curves are told."""


def share_within(distances: Floats, delta: float) -> Score:
    """Return the share of squared distances up to `delta`, with its binomial standard error.

    One that is not a number makes the share none.
    """
    if not np.isfinite(distances).all():
        return Score(math.nan)
    return share_score(distances <= delta)


def harmonic_mean(precision: Score, recall: Score) -> Score:
    """Return F1, 0 where both are 0; its error takes the two as independent.

    Where both are 0, F1 has no derivative; there its error is the F1 of the two errors.
    """
    p, r = precision.value, recall.value
    errors = precision.standard_error, recall.standard_error
    if p + r == 0:
        total = sum(errors)
        return Score(0.0, 2 * errors[0] * errors[1] / total if total else 0.0)
    slopes = 2 * (r / (p + r)) ** 2, 2 * (p / (p + r)) ** 2
    return Score(
        2 * p * r / (p + r), math.hypot(*(s * e for s, e in zip(slopes, errors, strict=True)))
    )


@component
class PolygonMetric(Metric):
    """A score of the convex polygons."""

    reads: ClassVar[Literal["drawn"]] = "drawn"
    direction: ClassVar[Literal["minimize", "maximize"]] = "maximize"

    delta: Annotated[float, Field(gt=0)] = 0.75
    """Largest squared distance, over the pixels in [0, 1], at which an image counts as met."""

    def check(self, dataset: Dataset) -> None:
        if not isinstance(dataset, ConvexPolygons):
            raise ValueError(
                f"is known of the data set polygons only, got {dataset.name}; use precision, "
                f"recall, density or coverage"
            )

    def _shares(self, line: str, distances: Floats) -> Curve:
        """Return the share within each threshold."""
        shares = np.array([share_within(distances, delta).value for delta in THRESHOLDS])
        return _curve(line, shares)


def _curve(line: str, values: Floats) -> Curve:
    return Curve(line, "squared distance, pixels in [0, 1]", "share of images", THRESHOLDS, values)


@component
class OfImages(PolygonMetric):
    """A score that fits triangles to generated images."""

    family: FamilyName = "published"
    """Which triangles there are: the data's own, `published` or `corrected` as the data set's
    variant is, or `free`, any three vertices."""

    def check(self, dataset: Dataset) -> None:
        super().check(dataset)
        assert isinstance(dataset, ConvexPolygons)  # no other has passed the check
        if self.family not in ("free", dataset.variant):
            raise ValueError(f"family must be {dataset.variant} or free, as the data's variant is")

    def fitted(self, generated: Drawn, real: Drawn) -> Fitted:
        """Return the triangles nearest to the generated images, fitted once for all metrics."""
        key = f"polygons fitted {self.family}"
        images = generated.images
        return generated.features.against(
            real.features, key, lambda: fit(images.cpu().numpy(), self.family)
        )

    def precision(self, generated: Drawn, real: Drawn) -> Score:
        """Return the share of generated images near a triangle."""
        return share_within(self.fitted(generated, real).refined, self.delta)


@component
class OfLatents(PolygonMetric):
    """A score that looks for held-out images among what a generator can make.

    There is none where the generator is not known as a function of its latents alone: of real
    images, and so of the floor, and of conditional generators.
    """

    needs = "latents"

    images: Annotated[int, Field(ge=1)] = 256
    """Held-out images that are looked for, the first of the split's."""
    draws: Annotated[int, Field(ge=100)] = 2000
    """Latents drawn, of which those with the nearest images are started from."""
    restarts: Annotated[int, Field(ge=1)] = 1
    """Latents from which each image is looked for."""
    steps: Annotated[int, Field(ge=0)] = 300
    """Steps of L-BFGS from each of them."""
    clamp: bool = True
    """Whether latents stay within the range that the draws tell, a uniform prior's own."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the draws."""

    def check_size(self, n: int, dimension: int) -> None:
        if n < self.images:
            raise ValueError(f"looks for {self.images} held-out images, got {n}; lower `images`")

    def beside(self) -> tuple[Metric, ...]:
        options = {f.name: getattr(self, f.name) for f in fields(PolygonConvergence)}
        return (PolygonConvergence(**options),)

    def inverted(self, generated: Drawn, real: Drawn) -> Inverted:
        """Return how near the generator comes, searched once for all metrics."""
        latents = generated.latents
        assert latents is not None  # samples without latents have no such score
        self.check_size(len(real.images), 0)
        search = Search(*(getattr(self, name) for name in Search._fields))
        key = f"polygons inverted {self.images} {search}"
        return generated.features.against(
            real.features, key, lambda: invert(latents, real.images[: self.images], search)
        )

    def recall(self, generated: Drawn, real: Drawn) -> Score:
        """Return the share of held-out images that the generator comes near."""
        return share_within(self.inverted(generated, real).found, self.delta)


@METRICS.register("polygon_precision", paper="Lucic et al. 2018, arXiv:1711.10337")
@component
class PolygonPrecision(OfImages):
    """Share of generated images near a triangle of the data's family."""

    identity_value = 1.0
    short = "polygon_precision"

    def curves(self, generated: Drawn, real: Drawn) -> list[Curve]:
        found = self.fitted(generated, real)
        return [
            self._shares("precision", found.refined),
            self._shares("precision, without refinement", found.pooled),
        ]

    def __call__(self, generated: Drawn, real: Drawn) -> Score:
        return self.precision(generated, real)


@METRICS.register("polygon_recall", paper="Lucic et al. 2018, arXiv:1711.10337")
@component
class PolygonRecall(OfLatents):
    """Share of held-out polygons that some latent's image is near to."""

    identity_value = None
    short = "polygon_recall"

    def curves(self, generated: Drawn, real: Drawn) -> list[Curve]:
        found = self.inverted(generated, real)
        return [
            self._shares("recall", found.found),
            self._shares("recall, half of the steps", found.half),
            self._shares("recall, draws alone", found.screened),
        ]

    def __call__(self, generated: Drawn, real: Drawn) -> Score:
        return self.recall(generated, real)


@METRICS.register("polygon_f1", paper="Lucic et al. 2018, arXiv:1711.10337")
@component
class PolygonF1(OfImages, OfLatents):
    """Harmonic mean of polygon_precision and polygon_recall."""

    identity_value = None
    short = "polygon_f1"

    def curves(self, generated: Drawn, real: Drawn) -> list[Curve]:
        found = self.inverted(generated, real)
        fitted = self.fitted(generated, real).refined
        precision, recall = self._shares("precision", fitted), self._shares("recall", found.found)
        both = zip(precision.y, recall.y, strict=True)
        f1 = np.array([harmonic_mean(Score(p, 0.0), Score(r, 0.0)).value for p, r in both])
        return [_curve("F1", f1), precision, recall]

    def __call__(self, generated: Drawn, real: Drawn) -> Score:
        return harmonic_mean(self.precision(generated, real), self.recall(generated, real))


@METRICS.register("polygon_convergence", paper="Lucic et al. 2018, arXiv:1711.10337")
@component
class PolygonConvergence(OfLatents):
    """By how much the second half of the search's steps raised polygon_recall.

    Scored wherever polygon_recall or polygon_f1 is: beyond 0.01, give them more `steps`.
    """

    direction = "minimize"
    identity_value = None
    chooses = False
    short = "polygon_convergence"

    def beside(self) -> tuple[Metric, ...]:
        return ()

    def __call__(self, generated: Drawn, real: Drawn) -> Score:
        found = self.inverted(generated, real)
        after = (share_within(part, self.delta).value for part in (found.found, found.half))
        return Score(operator.sub(*after))
