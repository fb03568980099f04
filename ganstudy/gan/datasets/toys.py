"""Points whose modes are known: data for closed forms and for counting modes."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ganstudy.gan.architectures import ImageShape
from ganstudy.gan.datasets.base import DATASETS, SPLITS, Dataset, Labelled, Split
from ganstudy.gan.seeding import stream
from ganstudy.limits import MOST_SAMPLES
from ganstudy.registry import component

Count = Annotated[int, Field(ge=1, le=MOST_SAMPLES)]
WITHIN = 6
"""Standard deviations that must fit between a centre and the edge of [-1, 1]."""


@DATASETS.register("dirac", paper="Mescheder et al. 2018, arXiv:1801.04406 (the Dirac-GAN)")
@component
class Dirac(Dataset):
    """One point at 0, the data of the Dirac-GAN.

    Every split holds the same `count` copies of it, (count, 1, 1, 1) float32.
    """

    decoding_is_slow: ClassVar[bool] = False

    count: Count = 1024
    """Copies of the point in each split; a batch can be no larger."""

    def load(self) -> dict[Split, Labelled]:
        points = torch.zeros(self.count, *self.image_shape)
        labels = torch.zeros(self.count, dtype=torch.int64)
        return {split: Labelled(points.clone(), labels.clone()) for split in SPLITS}

    @property
    def image_shape(self) -> ImageShape:
        return 1, 1, 1

    @property
    def modes(self) -> int:
        return 1


@component
class Mixture(Dataset):
    """Gaussians of one spread in the plane, all equally likely; the label is the component.

    Each split is a draw of its own with a fixed seed, (n, 2, 1, 1) float32.
    """

    decoding_is_slow: ClassVar[bool] = False

    std: Annotated[float, Field(gt=0)] = 0.01
    """Standard deviation of every component in both directions."""
    train: Count = 10_000
    """Points in train."""
    test: Count = 2_000
    """Points in select, and as many in report."""

    def __post_init__(self) -> None:
        """Refuse components that reach beyond [-1, 1]."""
        reach = float(self.centers().abs().max()) + WITHIN * self.std
        if reach > 1:
            raise ValueError(
                f"the data must lie within [-1, 1]: the outermost centre and {WITHIN} std reach "
                f"{reach:.3g}; move the centres inwards or lower std"
            )

    @abstractmethod
    def centers(self) -> Tensor:
        """Return the means of the components, (modes, 2) float32; row k has label k."""

    def load(self) -> dict[Split, Labelled]:
        sizes = {"train": self.train, "select": self.test, "report": self.test}
        return {split: self._draw(split, sizes[split]) for split in SPLITS}

    def _draw(self, split: Split, n: int) -> Labelled:
        rng, centers = stream(0, f"datasets/{self.name}/{split}"), self.centers()
        labels = torch.randint(len(centers), (n,), generator=rng)
        points = centers[labels] + self.std * torch.randn(n, 2, generator=rng)
        return Labelled(points.view(n, 2, 1, 1), labels)

    @property
    def image_shape(self) -> ImageShape:
        return 2, 1, 1

    @property
    def modes(self) -> int:
        return len(self.centers())


@DATASETS.register("ring", paper="Metz et al. 2017, arXiv:1611.02163")
@component
class Ring(Mixture):
    """Gaussians on a circle: 10,000 points train, 2,000 select, 2,000 report.

    The paper's 8 components lie at radius 2 and have a standard deviation of 0.02; here all is
    scaled by 0.35 into [-1, 1], so that the ratio of the two is the paper's.
    """

    components: Annotated[int, Field(ge=2, le=1000)] = 8
    """Gaussians on the circle, at equal angles."""
    radius: Annotated[float, Field(gt=0, lt=1)] = 0.7
    """Radius of the circle of centres."""
    std: Annotated[float, Field(gt=0)] = 0.007
    """Standard deviation of every component in both directions."""

    def centers(self) -> Tensor:
        angles = torch.arange(self.components) * (2 * math.pi / self.components)
        return self.radius * torch.stack((angles.cos(), angles.sin()), dim=1)


@DATASETS.register(
    "grid", paper="Dumoulin et al. 2017, arXiv:1606.00704; VEEGAN, arXiv:1705.07761"
)
@component
class Grid(Mixture):
    """Gaussians on a square grid: 10,000 points train, 2,000 select, 2,000 report.

    The literature's 5 x 5 components lie 2 apart and have a standard deviation of 0.05; here all
    is scaled by 0.2, so that the centres span [-0.8, 0.8].
    """

    side: Annotated[int, Field(ge=2, le=100)] = 5
    """Gaussians along each side of the grid, which spans [-0.8, 0.8]."""

    def centers(self) -> Tensor:
        ticks = torch.linspace(-0.8, 0.8, self.side)
        return torch.cartesian_prod(ticks, ticks)
