"""What the scores say of real images that were spoilt to a known degree.

A score can be trusted where it worsens as classes go missing and as images are blurred, and where
real images score near its best value at the study's n. Each experiment here is a list of steps:
which sample is compared with which; all are scored alike, by the study's own metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from ganstudy.gan.datasets import Dataset, Split, normalize
from ganstudy.gan.seeding import stream
from ganstudy.measure.features import FeatureNetwork
from ganstudy.measure.metrics import Drawn, Metric, Reads, Sample
from ganstudy.measure.protocol import Evaluator, MeasureConfig, score_name

SCORED: tuple[Reads, ...] = ("features", "probabilities", "images", "modes")
"""What metrics of real images may read: no generator's latents, and not whether they are the
training images, which these are."""
TRAIN_POOL, HELD_OUT_POOL = 5000, 2000
"""Images of train, and of select and report each, that samples are drawn from."""
SIZES = (50, 100, 200, 500, 1000, 2000)
"""Sample sizes at which real images are scored against real ones."""
LEAST = 200
"""Images below which no sample of few classes is scored, unless the study's n is smaller."""
LEVELS = 10
"""Numbers of classes that are kept, where there are more than `FEW_CLASSES`."""
FEW_CLASSES = 12


class Unavailable(ValueError):
    """This study cannot have that experiment; the message says why."""


class Reading(NamedTuple):
    """One score of one sample; a row of sanity.parquet.

    Attributes:
        name: Stored name of the score less its n: `fd_small_cnn`.
        series: What is varied: `blur`, the split that stands in for a generator, or a trial.
        x: How far: a level, a number of classes or of samples, or a trial's rank.
        repeat: Which of the independent draws.
    """

    experiment: str
    name: str
    direction: str
    series: str
    x: float
    repeat: int
    n_generated: int
    n_real: int
    value: float
    standard_error: float


class Step(NamedTuple):
    """One comparison of an experiment; `samples` makes both of them, None for the study's own."""

    series: str
    x: float
    repeat: int
    samples: Callable[[], tuple[Drawn, Drawn | None]]


def bare_name(metric: Metric, features: FeatureNetwork) -> str:
    """Return the stored name of a score less its n, which varies here."""
    return score_name(metric, features, 1).removesuffix("_1")


class Pool:
    """Images of one split with their features, from which samples are drawn."""

    def __init__(self, judge: Evaluator, split: Split, most: int) -> None:
        """Read `most` images of `split`, or all, in a seeded order."""
        images, labels = judge.dataset.images(split), judge.dataset.labels(split)
        rows = torch.randperm(len(images), generator=stream(0, f"sanity/{split}"))[:most]
        self.images = normalize(images[rows])
        self.labels = None if labels is None else labels[rows]
        self.features = judge.extractor(self.images)

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.images)

    def take(self, rows: Tensor) -> Drawn:
        """Return the sample of these rows."""
        return Drawn(self.images[rows], Sample(self.features[rows.numpy()]))

    def draw(self, n: int, rng: torch.Generator) -> Drawn:
        """Return n images, none of them twice."""
        return self.take(torch.randperm(len(self), generator=rng)[:n])


class Bench:
    """Scores any two samples of a study's data with its feature network and metrics."""

    def __init__(
        self, config: MeasureConfig, dataset: Dataset, cache: Path | None, repeats: int
    ) -> None:
        """Load the network and read the images that samples are drawn from."""
        metrics = tuple(m for m in config.metrics if m.reads in SCORED)
        self.dataset, self.repeats = dataset, repeats
        asked = replace(config, metrics=metrics, final=(), raw=False)
        self.judge = Evaluator(asked, dataset, "select", cache)
        self.train = Pool(self.judge, "train", TRAIN_POOL)
        self.select = Pool(self.judge, "select", HELD_OUT_POOL)
        self.report = Pool(self.judge, "report", HELD_OUT_POOL)
        self.refused: dict[str, str] = {}
        """Name of a score -> why some sample has none."""
        self._real = self._read(self.judge.real)

    @property
    def n(self) -> int:
        """The study's n, as far as the splits reach."""
        return min(self.judge.config.samples, len(self.train))

    def features(self, images: Tensor) -> Sample:
        """Return features of `images` in [-1, 1]."""
        return Sample(self.judge.extractor(images), "generated")

    def _read(self, drawn: Drawn) -> dict[Reads, Any]:
        return {reads: reader.read(drawn) for reads, reader in self.judge.readers.items()}

    def readings(self, experiment: str, step: Step) -> Iterator[Reading]:
        """Score one step by every metric that its samples are enough for."""
        generated, real = step.samples()
        made = self._read(generated)
        there = self._real if real is None else self._read(real)
        n_real = len((real or self.judge.real).images)
        for metric in self.judge.config.metrics:
            name = bare_name(metric, self.judge.config.features)
            try:
                score = metric(made[metric.reads], there[metric.reads])
            except ValueError as error:
                self.refused[name] = str(error)
                continue
            yield Reading(
                experiment, name, metric.direction, step.series, step.x, step.repeat,
                len(generated.images), n_real, score.value, score.standard_error,
            )  # fmt: skip


def kept_levels(classes: int) -> list[int]:
    """Return how many classes to keep: each number from 1 on, or ten in even ratios."""
    if classes <= FEW_CLASSES:
        return list(range(1, classes + 1))
    return sorted({round(k) for k in np.geomspace(1, classes, LEVELS)})


def classes_kept(bench: Bench) -> list[Step]:
    """Real images of k of the K classes against the study's own real ones.

    A repeat drops classes in an order of its own, so that its samples are nested. All samples are
    of one size, and no image is in one twice: with few images a class, n is smaller than the
    study's, and the levels at which it would be tiny are left out.
    """
    labels = bench.train.labels
    if labels is None:
        raise Unavailable(f"{bench.dataset.name} has no labels")
    classes = labels.unique()
    if len(classes) < 2:
        raise Unavailable(f"{bench.dataset.name} has one class")
    rows: dict[tuple[int, int], Tensor] = {}
    for repeat in range(bench.repeats):
        rng = stream(repeat, "sanity/classes_kept")
        order = classes[torch.randperm(len(classes), generator=rng)]
        for k in kept_levels(len(classes)):
            found = torch.isin(labels, order[:k]).nonzero().flatten()
            rows[k, repeat] = found[torch.randperm(len(found), generator=rng)]
    enough = {k for k, _ in rows} - {
        k for (k, _), found in rows.items() if len(found) < min(bench.n, LEAST)
    }
    if len(enough) < 2:
        fewest = min(bench.n, LEAST)
        raise Unavailable(f"without one of its classes, train has fewer than {fewest} images")
    rows = {key: found for key, found in rows.items() if key[0] in enough}
    n = min(bench.n, *(len(found) for found in rows.values()))
    return [
        Step("classes", k, repeat, partial(_against_study, bench.train, found[:n]))
        for (k, repeat), found in rows.items()
    ]


def _against_study(pool: Pool, rows: Tensor) -> tuple[Drawn, None]:
    return pool.take(rows), None


def floor_by_n(bench: Bench) -> list[Step]:
    """Real images of train, and of report, against as many of select, by their number.

    A feature network that was trained on train's labels may tell train from select; report is
    as new to it as select.
    """
    steps = []
    for series, pool in (("train", bench.train), ("report", bench.report)):
        most = min(len(pool), len(bench.select))
        for n in sorted({n for n in (*SIZES, bench.n) if n <= most}):
            for repeat in range(bench.repeats):
                make = partial(_two_splits, pool, bench.select, n, repeat)
                steps.append(Step(series, n, repeat, make))
    return steps


def _two_splits(pool: Pool, select: Pool, n: int, repeat: int) -> tuple[Drawn, Drawn]:
    rng = stream(repeat, f"sanity/floor_by_n/{n}")
    return pool.draw(n, rng), select.draw(n, rng)


def blurred(images: Tensor, sigma: float, rng: torch.Generator) -> Tensor:
    """Return `images`, (n, c, h, w), under a Gaussian of standard deviation `sigma` in pixels."""
    smooth: NDArray[np.float32] = gaussian_filter(
        images.numpy(), (0, 0, sigma, sigma), mode="nearest"
    )
    return torch.from_numpy(smooth)


def noisy(images: Tensor, sd: float, rng: torch.Generator) -> Tensor:
    """Return `images` in [-1, 1] under white noise of standard deviation `sd`.

    Images are cut off at -1 and 1, as a generator's are; points of the plane are not.
    """
    spoilt = images + sd * torch.randn(images.shape, generator=rng)
    return spoilt if images.shape[2:] == (1, 1) else spoilt.clamp(-1, 1)


def partly_inverted(images: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Return `images` in [-1, 1], this share of them as negatives."""
    spoilt = images.clone()
    spoilt[: round(share * len(images))] *= -1
    return spoilt


class Ladder(NamedTuple):
    """A way to spoil images, by degrees; 0 leaves them as they are.

    Attributes:
        points: The degrees for points of the plane; none where that makes no sense.
    """

    spoil: Callable[[Tensor, float, torch.Generator], Tensor]
    images: Sequence[float]
    points: Sequence[float] = ()


LADDERS: Mapping[str, Ladder] = {
    "blur": Ladder(blurred, (0.5, 1, 1.5, 2, 3)),
    "noise": Ladder(noisy, (0.1, 0.2, 0.3, 0.5, 0.8), points=(0.01, 0.02, 0.05, 0.1, 0.2)),
    "invert": Ladder(partly_inverted, (0.1, 0.25, 0.5, 0.75, 1)),
}


def ladders(bench: Bench) -> list[Step]:
    """Real images of train, spoilt by degrees, against the study's own real ones.

    A repeat spoils the same images at every degree.
    """
    points = bench.dataset.image_shape[1:] == (1, 1)
    return [
        Step(name, degree, repeat, partial(_spoilt, bench, ladder, degree, repeat))
        for name, ladder in LADDERS.items()
        for degree in _degrees(ladder, points)
        for repeat in range(bench.repeats)
    ]


def _degrees(ladder: Ladder, points: bool) -> tuple[float, ...]:
    chosen = ladder.points if points else ladder.images
    return (0, *chosen) if chosen else ()


def _spoilt(bench: Bench, ladder: Ladder, degree: float, repeat: int) -> tuple[Drawn, None]:
    drawn = bench.train.draw(bench.n, stream(repeat, "sanity/ladders"))
    if degree == 0:
        return drawn, None
    images = ladder.spoil(drawn.images, degree, stream(repeat, "sanity/ladders/noise"))
    return Drawn(images, bench.features(images)), None


EXPERIMENTS: Mapping[str, Callable[[Bench], list[Step]]] = {
    "classes_kept": classes_kept,
    "floor_by_n": floor_by_n,
    "ladders": ladders,
}
"""What can be measured without any trial."""
