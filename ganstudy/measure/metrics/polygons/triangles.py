"""The triangles nearest to images: the nearest of a pool, and least squares from there."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import qmc
from torch import Tensor

from ganstudy.gan.datasets.polygons import GREYS, SIDE, rasterize

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
    sequence = qmc.Sobol(
        4, scramble=True, bits=30, optimization=None, rng=np.random.default_rng(0)
    )
    parameters = family.draw(sequence.random(POOL))
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
