"""Precision, recall and F1 on the convex polygons (Lucic et al. 2018, arXiv:1711.10337).

The data is a manifold that is known, so that a generator can be judged without features: how far
its images lie from the manifold, and how far held-out images lie from what it can make. Distances
are squared Euclidean ones over the pixels in [0, 1]. The paper's code for them was not published;
docs/polygons.md says what it leaves open and how that is decided here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.stats import qmc
from torch import Tensor

from ganstudy.gan.datasets import Dataset
from ganstudy.gan.datasets.polygons import GREYS, SIDE, ConvexPolygons, rasterize
from ganstudy.measure.metrics.base import METRICS, Curve, Drawn, Latents, Metric, Score
from ganstudy.registry import component

Floats = NDArray[np.float64]
Images = NDArray[np.floating[Any]]
FamilyName = Literal["published", "corrected", "free"]

RADIUS, CENTRE = SIDE * 0.75 / 2, SIDE / 2
"""Of the circle on which the vertices lie and of the mean of the vertices, in pixels."""
POOL = 2**14
"""Shapes among which the nearest one is looked for; Sobol sequences want a power of two."""
REFINEMENTS = 8
"""Steps from the nearest shape: three times as many change no share of generated images."""
BLOCK = 256
"""Images refined at a time: some tens of MiB."""
MEMORY, FIRST_STEP = 10, 0.1
"""Of L-BFGS: steps that are remembered, and the first one's length."""
THRESHOLDS: Floats = np.geomspace(0.05, 20, 53)
"""Squared distances at which the curves are told."""


class Family(NamedTuple):
    """Triangles by their parameters, (n, parameters).

    Attributes:
        draw: Points of the unit cube, (n, 4) -> parameters.
        vertices: Parameters -> vertices, (n, 3, 2) in pixels.
        restrict: Parameters -> ones of a shape of the family, which those of such a shape stay.
        stride: Change of a parameter that moves a vertex by about a third of a pixel: small for
            a pixel's grey, large for the sub-pixels of which it is made.
    """

    draw: Callable[[Floats], Floats]
    vertices: Callable[[Floats], Floats]
    restrict: Callable[[Floats], Floats]
    stride: float


def on_circle(angles: Floats) -> Floats:
    """Return the vertices of triangles (n, 3), in degrees on the circle, moved to the centre."""
    radians = np.radians(angles)
    corners = RADIUS * np.stack((np.cos(radians), np.sin(radians)), axis=-1)
    return corners + (CENTRE - corners.mean(axis=1, keepdims=True))


def inscribed(spread: float, turn: float, any_turn: bool = False) -> Family:
    """Return the triangles whose angles are 10, 130 and 250 degrees plus up to `spread` each.

    Args:
        spread: Range of each angle, in degrees.
        turn: Range of the rotation by which all three are then lessened, in degrees.
        any_turn: Whether rotations beyond it give shapes of the family too.
    """
    first = np.array([10.0, 130.0, 250.0])
    least, most = (-math.inf, math.inf) if any_turn else (0.0, turn)

    def draw(uniform: Floats) -> Floats:
        return first + uniform[:, :3] * spread - uniform[:, 3:] * turn

    def restrict(angles: Floats) -> Floats:
        # The least rotation that the three allow; what still is out of range is cut off.
        turned = np.clip((first - angles).max(axis=1, keepdims=True), least, most)
        return np.clip(angles + turned, first, first + spread) - turned

    return Family(draw, on_circle, restrict, 2.0)


PUBLISHED = inscribed(110.0, 2 * math.pi)
CORRECTED = inscribed(100.0, 360.0, any_turn=True)
FAMILIES: dict[FamilyName, Family] = {
    "published": PUBLISHED,
    "corrected": CORRECTED,
    "free": Family(
        lambda uniform: on_circle(CORRECTED.draw(uniform)).reshape(-1, 6),
        lambda corners: corners.reshape(-1, 3, 2),
        lambda corners: corners,
        0.4,
    ),
}
"""The data's shapes, as published or as described (see the data set's `variant`), and any."""


class Pool(NamedTuple):
    """Shapes of a family, spread evenly over its parameters.

    Attributes:
        parameters: (POOL, parameters)
        pixels: (POOL, 784) float32 in [0, 1].
        squares: Sum of each shape's squared pixels, (POOL,) float32.
    """

    parameters: Floats
    pixels: Tensor
    squares: Tensor


@lru_cache(maxsize=1)
def pool(name: FamilyName) -> Pool:
    """Return the pool of a family, drawn once per process in a second or two."""
    family = FAMILIES[name]
    parameters = family.draw(qmc.Sobol(4, rng=np.random.default_rng(0)).random(POOL))
    blocks = (parameters[start : start + BLOCK] for start in range(0, POOL, BLOCK))
    pixels = np.concatenate(
        [raster(family.vertices(block)).astype(np.float32) for block in blocks]
    )
    flat = torch.from_numpy(pixels)
    return Pool(parameters, flat, flat.square().sum(dim=1))


def raster(vertices: Floats) -> Floats:
    """Return the data set's images of triangles (n, 3, 2), flat: (n, 784) in [0, 1]."""
    return (GREYS[rasterize(vertices)] / 255.0).reshape(len(vertices), -1)


class Fitted(NamedTuple):
    """The shapes of a family found nearest to n images.

    Attributes:
        parameters: Of the refined shapes, (n, parameters).
        pooled: Squared distances to the nearest shapes of the pool, (n,).
        refined: Squared distances to the refined shapes, (n,), never above `pooled`.
    """

    parameters: Floats
    pooled: Floats
    refined: Floats


def fit(images: Images, family: FamilyName = "published") -> Fitted:
    """Return the triangles nearest to `images`: the nearest of a pool, then refined.

    Args:
        images: (n >= 1, 1, 28, 28) in [-1, 1], finite.
        family: Which triangles there are.

    Raises:
        ValueError: If the images are not as above.
    """
    if images.ndim != 4 or len(images) < 1 or images.shape[1:] != (1, SIDE, SIDE):
        raise ValueError(f"images must be (n >= 1, 1, {SIDE}, {SIDE}), got shape {images.shape}")
    if not np.isfinite(images).all():
        raise ValueError(f"images hold {(~np.isfinite(images)).sum()} non-finite values")
    shown = (images.astype(np.float64).reshape(len(images), -1) + 1) / 2
    parts = [_fit_block(shown[i : i + BLOCK], family) for i in range(0, len(shown), BLOCK)]
    return Fitted(*map(np.concatenate, zip(*parts, strict=True)))


def _fit_block(shown: Floats, name: FamilyName) -> Fitted:
    """Return what `fit` does for images that are flat and in [0, 1]."""
    shapes, family = pool(name), FAMILIES[name]
    # Less the image's own square, which is the same for all shapes.
    distances = shapes.squares - 2 * (torch.from_numpy(shown).float() @ shapes.pixels.T)
    parameters = shapes.parameters[distances.argmin(dim=1).numpy()]
    pooled = squared(family, parameters, shown)
    return Fitted(*refine(family, parameters, pooled, shown))


def squared(family: Family, parameters: Floats, shown: Floats) -> Floats:
    """Return the squared distances of shapes to flat images in [0, 1], row by row, (n,)."""
    return ((raster(family.vertices(parameters)) - shown) ** 2).sum(axis=1)


def refine(
    family: Family, parameters: Floats, distances: Floats, shown: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return refined parameters, `distances` and the refined ones.

    Levenberg's and Marquardt's damped least squares. The exact raster decides; its slopes are
    central differences over a stride that is halved after each step that led nowhere.
    """
    begun, best = distances, distances
    damping, stride = np.full(len(shown), 0.01), np.full(len(shown), family.stride)
    for _ in range(REFINEMENTS):
        step = _damped_step(family, parameters, shown, stride, damping)
        tried = family.restrict(parameters + step)
        found = squared(family, tried, shown)
        nearer = found < best
        parameters = np.where(nearer[:, None], tried, parameters)
        best = np.where(nearer, found, best)
        damping = damping * np.where(nearer, 0.25, 4.0)
        stride = stride * np.where(nearer, 1.0, 0.5)
    return parameters, begun, best


def _damped_step(
    family: Family, parameters: Floats, shown: Floats, stride: Floats, damping: Floats
) -> Floats:
    """Return the step (n, parameters) that least squares asks for, damped."""
    count = parameters.shape[1]
    slopes = np.empty((len(shown), count, shown.shape[1]))
    for index, unit in enumerate(np.eye(count)):
        moved = stride[:, None] * unit
        ahead, behind = (raster(family.vertices(parameters + m)) for m in (moved, -moved))
        slopes[:, index] = (ahead - behind) / (2 * stride[:, None])
    away = raster(family.vertices(parameters)) - shown
    normal = slopes @ slopes.transpose(0, 2, 1)
    scale = np.trace(normal, axis1=1, axis2=2) / count
    # A shape that covers no sub-pixel has no slopes: it stays where it is.
    ridge = (damping * scale + 1e-9)[:, None, None] * np.eye(count)
    return -np.linalg.solve(normal + ridge, slopes @ away[:, :, None])[..., 0]


class Search(NamedTuple):
    """How the latents of images are looked for.

    Attributes:
        draws: Latents drawn from the prior, of which the nearest ones are started from.
        restarts: How many of them, for each image.
        steps: Of L-BFGS, from each.
        clamp: Whether latents stay within the range of the draws, dimension by dimension.
        seed: Of the draws.
    """

    draws: int
    restarts: int
    steps: int
    clamp: bool
    seed: int


class Inverted(NamedTuple):
    """Squared distances of n images to a generator's nearest images that were found.

    Attributes:
        screened: Among the draws alone, (n,).
        half: After half of the steps, (n,).
        found: After all of them, (n,); never above `half`, nor that above `screened`.
    """

    screened: Floats
    half: Floats
    found: Floats


def invert(latents: Latents, images: Tensor, search: Search) -> Inverted:
    """Return how near a generator comes to each of `images`, by gradients on its latents.

    Each image's search begins at the nearest of many draws and goes only where it comes nearer, so
    that more steps or restarts never find less. A step does not know how many there are: the first
    half of a search is the search of half as many steps.

    Args:
        latents: The generator. Its weights collect no gradients.
        images: (n >= 1, channels, height, width) in [-1, 1].
        search: How to search.

    Returns:
        The distances; NaN where an image of a draw is not finite.
    """
    if len(images) < 1:
        raise ValueError(f"images must be (n >= 1, c, h, w), got shape {tuple(images.shape)}")
    drawn = latents.draw(search.draws, torch.Generator().manual_seed(search.seed))
    made = _images_of(latents, drawn)
    if made.shape[1] != images[0].numel():
        shape = tuple(images.shape[1:])
        raise ValueError(f"images of shape {shape} are not what the generator makes")
    if not made.isfinite().all():
        return Inverted(*np.full((3, len(images)), math.nan))
    # Less the image's own square, which is the same for all draws.
    distances = made.square().sum(dim=1) - 2 * images.flatten(1) @ made.T
    nearest = distances.topk(min(search.restarts, len(drawn)), dim=1, largest=False).indices
    generate, coordinates = (
        _within_draws(latents, drawn) if search.clamp else (latents.generate, drawn)
    )
    parts = []
    for part in torch.arange(len(images)).split(max(1, BLOCK // nearest.shape[1])):
        starts, wanted = coordinates[nearest[part]], images[part]
        wanted = wanted.repeat_interleave(starts.shape[1], dim=0)
        found = Descent(generate, starts.flatten(0, 1), wanted).run(search.steps)
        parts.append(found.view(3, *starts.shape[:2]).amin(dim=2).double().numpy())
    return Inverted(*np.concatenate(parts, axis=1))


def _within_draws(latents: Latents, drawn: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Return the generator in coordinates of which each is a latent's, and the draws in these.

    A latent is the sine of its coordinate, stretched to the range of the draws in its dimension:
    all coordinates are allowed, and no gradient is cut off. The range of n draws is widened by
    (n + 1) / (n - 1), which makes it an unbiased estimate of a uniform prior's and leaves no
    draw at its very end, where a sine has no slope.
    """
    least, most, n = drawn.amin(dim=0), drawn.amax(dim=0), len(drawn)
    middle, half = (least + most) / 2, (most - least) / 2 * (n + 1) / (n - 1)

    def generate(coordinates: Tensor) -> Tensor:
        m, h = middle.to(coordinates.device), half.to(coordinates.device)
        return latents.generate(m + h * coordinates.sin())

    # A dimension that is the same in all draws stays as it is.
    return generate, ((drawn - middle) / half.clamp(min=1e-30)).asin()


@torch.no_grad()
def _images_of(latents: Latents, drawn: Tensor) -> Tensor:
    return torch.cat([latents.generate(block).cpu().flatten(1) for block in drawn.split(BLOCK)])


class Descent:
    """L-BFGS on many points at once, each with steps and a memory of its own.

    A step that leads further away is not taken, and the next one is shortened; what it tells of
    the curvature is kept (Liu & Nocedal 1989, doi:10.1007/BF01589116).
    """

    def __init__(
        self, generate: Callable[[Tensor], Tensor], starts: Tensor, images: Tensor
    ) -> None:
        """Begin at `starts`, (n, ...), of which each looks for its own of `images`, (n, ...)."""
        self.generate, self.shape = generate, starts.shape
        with torch.no_grad():
            device = generate(starts[:1]).device
        self.wanted, self.z = images.to(device), starts.flatten(1).to(device)
        self.distances, self.slopes = self._judge(self.z)
        self.stride = torch.ones_like(self.distances)
        self.memory: list[tuple[Tensor, Tensor, Tensor]] = []

    def run(self, steps: int) -> Tensor:
        """Return the distances before the first step, after half of the steps and after all."""
        met = [self.distances]
        for _ in range(steps):
            self._step()
            met.append(self.distances)
        return torch.stack((met[0], met[steps // 2], met[-1])).cpu()

    def _judge(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return squared distances, (n,), and their gradients, (n, d)."""
        z = z.detach().requires_grad_()
        with torch.enable_grad():
            made = self.generate(z.view(self.shape))
            # Halves the range of [-1, 1] to that of [0, 1].
            distances = ((made - self.wanted) / 2).square().flatten(1).sum(dim=1)
            (slopes,) = torch.autograd.grad(distances.sum(), z)
        return distances.detach(), slopes

    def _step(self) -> None:
        """Take a step where it leads nearer, and remember the curvature on its way."""
        tried = self.z - self.stride[:, None] * self._direction()
        distances, slopes = self._judge(tried)
        self._remember(tried - self.z, slopes - self.slopes)
        nearer = distances < self.distances
        self.z = torch.where(nearer[:, None], tried, self.z)
        self.slopes = torch.where(nearer[:, None], slopes, self.slopes)
        self.distances = torch.where(nearer, distances, self.distances)
        self.stride = torch.where(nearer, 1.0, (0.4 * self.stride).clamp(min=1e-3))

    def _remember(self, moved: Tensor, turned: Tensor) -> None:
        """Keep a step and the change of slope along it, where the two agree."""
        product = (moved * turned).sum(dim=1)
        agree = product > 1e-8 * moved.norm(dim=1) * turned.norm(dim=1)
        kept = (
            torch.where(agree[:, None], moved, 0.0),
            torch.where(agree[:, None], turned, 0.0),
            torch.where(agree, 1 / product, 0.0),
        )
        self.memory = [*self.memory[1 - MEMORY :], kept]

    def _direction(self) -> Tensor:
        """Return the slopes times the inverse curvature, as far as it is remembered."""
        slopes = self.slopes
        plain = slopes * (FIRST_STEP / slopes.norm(dim=1, keepdim=True).clamp(min=1e-12))
        if not self.memory:
            return plain
        found, parts = slopes, []
        for moved, turned, weight in reversed(self.memory):
            parts.append(weight * (moved * found).sum(dim=1))
            found = found - parts[-1][:, None] * turned
        _, turned, weight = self.memory[-1]
        # Where the last step told nothing there is no scale to trust.
        told = weight > 0
        scale = torch.where(told, 1 / (weight * turned.square().sum(dim=1)), 0.0)
        found = found * scale[:, None]
        for (moved, turned, weight), part in zip(self.memory, reversed(parts), strict=True):
            found = found + (part - weight * (turned * found).sum(dim=1))[:, None] * moved
        downhill = told & ((found * slopes).sum(dim=1) > 0)
        return torch.where(downhill[:, None], found, plain)


def share_within(distances: Floats, delta: float) -> Score:
    """Return the share of squared distances up to `delta`, with its binomial standard error.

    One that is not a number makes the share none.
    """
    if not np.isfinite(distances).all():
        return Score(math.nan)
    share = float((distances <= delta).mean())
    return Score(share, math.sqrt(share * (1 - share) / len(distances)))


def harmonic_mean(precision: Score, recall: Score) -> Score:
    """Return F1, 0 where both are 0; its error takes the two as independent."""
    p, r = precision.value, recall.value
    if p + r == 0:
        return Score(0.0, 0.0)
    slopes = 2 * (r / (p + r)) ** 2, 2 * (p / (p + r)) ** 2
    errors = precision.standard_error, recall.standard_error
    return Score(
        2 * p * r / (p + r), math.hypot(*(s * e for s, e in zip(slopes, errors, strict=True)))
    )


@component
class PolygonMetric(Metric):
    """A score of the convex polygons."""

    reads: ClassVar[Literal["drawn"]] = "drawn"
    direction = "maximize"

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

    def inverted(self, generated: Drawn, real: Drawn) -> Inverted | None:
        """Return how near the generator comes, searched once for all metrics; None: unknown."""
        latents = generated.latents
        if latents is None:
            return None
        self.check_size(len(real.images), 0)
        search = Search(*(getattr(self, name) for name in Search._fields))
        key = f"polygons inverted {self.images} {search}"
        return generated.features.against(
            real.features, key, lambda: invert(latents, real.images[: self.images], search)
        )

    def recall(self, generated: Drawn, real: Drawn) -> Score:
        """Return the share of held-out images that the generator comes near."""
        found = self.inverted(generated, real)
        return Score(math.nan) if found is None else share_within(found.found, self.delta)

    def convergence(self, generated: Drawn, real: Drawn) -> float:
        """Return by how much the second half of the steps raised recall: small if converged."""
        found = self.inverted(generated, real)
        if found is None:
            return math.nan
        return (
            share_within(found.found, self.delta).value
            - share_within(found.half, self.delta).value
        )


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
        if found is None:
            return []
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
        if found is None:
            return []
        fitted = self.fitted(generated, real).refined
        precision, recall = self._shares("precision", fitted), self._shares("recall", found.found)
        both = zip(precision.y, recall.y, strict=True)
        f1 = np.array([harmonic_mean(Score(p, 0.0), Score(r, 0.0)).value for p, r in both])
        return [_curve("F1", f1), precision, recall]

    def __call__(self, generated: Drawn, real: Drawn) -> Score:
        return harmonic_mean(self.precision(generated, real), self.recall(generated, real))
