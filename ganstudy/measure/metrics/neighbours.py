"""Scores by nearest neighbours: how far two samples lie within one another."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, NamedTuple

from pydantic import Field

from ganstudy.measure.metrics.balls import Held, neighbourhoods, overlap
from ganstudy.measure.metrics.base import (
    METRICS,
    Array,
    Metric,
    Sample,
    Score,
    Statistics,
    pair,
    share_score,
)
from ganstudy.registry import component

Neighbours = Annotated[int, Field(ge=1)]

SHARED_K = 5
"""Neighbours that are looked for at least, so that scores of fewer share one pass."""


def own_pairs(sample: Sample, k: int) -> Statistics:
    """Return `neighbourhoods` of a sample for k neighbours, or as many as it has."""
    wanted = max(k, SHARED_K)

    def compute(features: Array) -> Statistics:
        return neighbourhoods(features, min(wanted, len(features) - 1))

    return sample.statistic(f"neighbours_{wanted}", compute)


class Overlap(NamedTuple):
    """Which generated rows lie in real balls, and which real ones in generated balls."""

    generated: Held
    real: Held


def both_ways(generated: Array | Sample, real: Array | Sample, k: int) -> Overlap:
    """Return who lies in whose balls, for all neighbours up to k.

    Raises:
        ValueError: Unless both samples have more than k >= 1 rows of equal dimension.
    """
    made, there = pair(generated, real)
    least = min(len(made), len(there))
    if not 1 <= k < least:
        raise ValueError(f"k = {k} nearest neighbours need 1 <= k < {least} rows")

    def compute() -> Overlap:
        squares = (own_pairs(sample, k)["squares"] for sample in (made, there))
        return Overlap(*overlap(made.features, there.features, *squares))

    return made.against(there, f"neighbours_{max(k, SHARED_K)}", compute)


def share(counts: Array) -> float:
    """Return the share of counts that are not 0."""
    return float((counts > 0).mean())


class PRDC(NamedTuple):
    """Precision, recall, density and coverage with one k."""

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(generated: Array | Sample, real: Array | Sample, k: int = 5) -> PRDC:
    """Return improved precision and recall, density and coverage in one pass over all pairs.

    As `precision_recall` and `density_coverage`, with one k for all four.
    """
    samples = pair(generated, real)
    return PRDC(*precision_recall(*samples, k), *density_coverage(*samples, k))


def precision_recall(
    generated: Array | Sample, real: Array | Sample, k: int = 3
) -> tuple[float, float]:
    """Return improved precision and recall (Kynkaanniemi et al. 2019, arXiv:1904.06991).

    Precision is the share of generated samples inside the k-nearest-neighbour balls of the real
    ones, recall the share of real samples inside those of the generated ones: one is the other
    with the samples exchanged. A sample on a ball's rim is inside (equation 1 of the paper); the
    package prdc leaves it out, and differs where distances tie: repeated or lattice-valued rows.
    """
    found = both_ways(generated, real, k)
    return share(found.generated.balls[:, k - 1]), share(found.real.balls[:, k - 1])


def density_coverage(
    generated: Array | Sample, real: Array | Sample, k: int = 5
) -> tuple[float, float]:
    """Return density and coverage (Naeem et al. 2020, arXiv:2002.09797).

    Density is the mean number of real balls that hold a generated sample, over k; coverage the
    share of real balls that hold at least one. Rims are inside, as in `precision_recall`. Two
    samples of one continuous distribution of sizes n (generated) and m have an expected density
    of 1 and an expected coverage of 1 - prod_{i=1..k} (m - i) / (n + m - i). A sample against
    itself has a density of (k + 1) / k without ties: each ball holds its centre and k neighbours.
    """
    held = both_ways(generated, real, k).generated
    return float(held.balls[:, k - 1].mean() / k), share(held.points[:, k - 1])


def diversity(generated: Array | Sample, real: Array | Sample) -> float:
    """Return the mean pairwise distance of generated samples over that of real ones.

    1 where the generated features spread as the real ones do, 0 for a constant output. Data that
    is one point (dirac) has no spread to lose: 1 for a constant output, else infinite. Large
    samples are summed in float32: good to six digits.
    """
    spread, wanted = (
        float(own_pairs(sample, SHARED_K)["mean_distance"]) for sample in pair(generated, real)
    )
    if wanted == 0:
        return 1.0 if spread == 0 else math.inf
    return spread / wanted


class NeighbourMetric(Metric):
    """A score of nearest-neighbour balls; every one of them has an option `k`."""

    direction = "maximize"
    identity_value: ClassVar[float | None] = 1.0

    k: Neighbours
    """Nearest neighbours that span a ball."""

    def check_size(self, n: int, dimension: int) -> None:
        if n <= self.k:
            raise ValueError(f"needs more than {self.k} samples, the splits offer {n}")

    def prepare(self, real: Sample) -> None:
        own_pairs(real, self.k)


@METRICS.register("precision", paper="Kynkaanniemi et al. 2019, arXiv:1904.06991")
@component
class Precision(NeighbourMetric):
    """Share of generated samples that lie among the real ones.

    Its standard error is the binomial one over generated samples, given the real balls
    (`share_score`).
    """

    short = "precision"

    k: Neighbours = 3
    """Nearest neighbours that span a ball."""

    def __call__(self, generated: Array | Sample, real: Array | Sample) -> Score:
        held = both_ways(generated, real, self.k).generated
        return share_score(held.balls[:, self.k - 1] > 0)


@METRICS.register("recall", paper="Kynkaanniemi et al. 2019, arXiv:1904.06991")
@component
class Recall(NeighbourMetric):
    """Share of real samples that lie among the generated ones.

    No standard error: each generated sample moves the balls of its neighbours.
    """

    short = "recall"

    k: Neighbours = 3
    """Nearest neighbours that span a ball."""

    def __call__(self, generated: Array | Sample, real: Array | Sample) -> Score:
        return Score(precision_recall(generated, real, self.k)[1])


@METRICS.register("density", paper="Naeem et al. 2020, arXiv:2002.09797")
@component
class Density(NeighbourMetric):
    """Real neighbourhoods that hold a generated sample, on average, over k.

    1 on average for two samples of one distribution, (k + 1) / k for a sample against itself
    (more with ties), and without bound where generated samples crowd in the midst of the real
    ones. Its standard error is the one of a mean over generated samples, given the real balls.
    """

    identity_value = None
    short = "density"

    k: Neighbours = 5
    """Nearest neighbours that span a ball."""

    def __call__(self, generated: Array | Sample, real: Array | Sample) -> Score:
        counts = both_ways(generated, real, self.k).generated.balls[:, self.k - 1] / self.k
        return Score(float(counts.mean()), float(counts.std(ddof=1)) / math.sqrt(len(counts)))


@METRICS.register("coverage", paper="Naeem et al. 2020, arXiv:2002.09797")
@component
class Coverage(NeighbourMetric):
    """Share of real samples with a generated one in their neighbourhood.

    No standard error: one sample may be alone in many balls, and the jackknife's proved 1.1 to
    1.6 times too large in simulations.
    """

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

    def prepare(self, real: Sample) -> None:
        own_pairs(real, SHARED_K)

    def __call__(self, generated: Array | Sample, real: Array | Sample) -> Score:
        return Score(diversity(generated, real))
