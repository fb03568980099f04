"""The convex triangles of Lucic et al. 2018, bit-equal to their published generator."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from ganstudy.gan.architectures import ImageShape
from ganstudy.gan.datasets.base import DATASETS, Dataset, Labelled, Split
from ganstudy.limits import MOST_SAMPLES
from ganstudy.registry import component

SIDE, SUBPIXELS = 28, 8
GRID = SIDE * SUBPIXELS
LEVELS = SUBPIXELS * SUBPIXELS
"""The exact grey levels are 0, 1/64, ... 1."""
BEFORE = 3
"""Sub-pixels before a pixel's own first one that its box takes in; the box ends 4 after it."""
CHUNK = 250
GREYS = (np.arange(LEVELS + 1) * (255 / LEVELS)).round().astype(np.uint8)
"""Level -> uint8."""
Variant = Literal["published", "corrected"]
Floats = NDArray[np.float64]


class Polygons(NamedTuple):
    """Triangles in the order of the published set.

    Attributes:
        levels: Exact images in 64ths, (n, 28, 28) uint8 in 0..64: `levels / 64` is the published
            float64 image, 0 in the triangle and 1 outside.
        vertices: (n, 3, 2) in pixels, (row, column) of each vertex.
    """

    levels: NDArray[np.uint8]
    vertices: Floats


def draw_polygons(n: int, variant: Variant = "published", seed: int = 0) -> Polygons:
    """Draw `n` triangles as the published generator does.

    Three points on a circle, 120 degrees apart before each is moved at random, are rotated, scaled
    to a radius of 10.5 pixels and moved so that their mean is the image's centre; 8 x 8 sub-pixels
    are tested against the triangle and averaged. Two things that the published code does and its
    description does not say are kept by `published` and mended by `corrected`: the rotation is by
    0 to 6.28 degrees only, and the least angle between two points is 10 degrees, not 20.

    Args:
        n: How many; another `n` shuffles the same triangles in another order.
        variant: The published code as it is, or as it is described.
        seed: Of numpy's legacy generator, 0 in the published set.
    """
    rng = np.random.RandomState(seed)
    uniform = rng.rand(n, 4)
    order = rng.permutation(n)
    vertices = _vertices(uniform, variant)
    levels = np.empty((n, SIDE, SIDE), dtype=np.uint8)
    for begin in range(0, n, CHUNK):
        part = slice(begin, begin + CHUNK)
        levels[part] = rasterize(vertices[part])
    return Polygons(levels[order], vertices[order])


def _vertices(uniform: Floats, variant: Variant) -> Floats:
    """Return the vertices, (n, 3, 2) in pixels, of draws (n, 4) in [0, 1)."""
    segment, min_angle = 360.0 / 3, 20
    published = variant == "published"
    max_offset = segment - (min_angle / 2.0 if published else min_angle)
    angles = np.arange(3) * segment + min_angle / 2.0 + uniform[:, :3] * max_offset
    radians = angles * np.pi / 180.0
    unit = (np.stack((np.cos(radians), np.sin(radians)), axis=-1) + 1.0) / 2.0
    turn = uniform[:, 3:] * 2 * np.pi
    theta = np.radians(turn) if published else turn
    cos, sin = np.cos(theta), np.sin(theta)
    x, y = unit[..., 0], unit[..., 1]
    turned = np.stack((x * cos + y * sin, y * cos - x * sin), axis=-1)
    vertices = turned * (SIDE * 0.75)
    return vertices + (SIDE / 2.0 - vertices.mean(axis=1, keepdims=True))


def rasterize(vertices: Floats) -> NDArray[np.uint8]:
    """Return the grey levels, (n, 28, 28) in 0..64, of triangles (n, 3, 2) in pixels.

    A sub-pixel is inside where matplotlib's `Path.contains_points` says so: where a ray from it
    towards higher rows crosses an odd number of edges, by the very inequality that it evaluates.
    For one column of sub-pixels and one edge that inequality holds up to some row, so that each
    edge is met once a column and not once a sub-pixel.
    """
    first, last = _inside_rows(vertices * SUBPIXELS)
    rows = np.arange(GRID + 1)[:, None] - (np.arange(SIDE) * SUBPIXELS - BEFORE)
    # below[h, i]: how many of the first h rows of sub-pixels are in the box of pixel row i.
    below = rows.clip(0, SUBPIXELS).astype(np.uint8)
    covered = (below[last] - below[first]).reshape(-1, SIDE, SUBPIXELS, SIDE)
    # A box sum is at most 64.
    return LEVELS - covered.sum(axis=2, dtype=np.uint8).transpose(0, 2, 1)


def _inside_rows(vertices: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return for each column the first row inside and the first one after, (n, 224) each.

    Columns begin at -3, as the box of pixel 0 does. Outside of the grid nothing is inside.
    """
    columns = np.arange(-BEFORE, GRID - BEFORE, dtype=np.float64)
    fewer = np.zeros((len(vertices), GRID), dtype=np.intp)
    more = np.zeros_like(fewer)
    for edge in range(3):
        counts = _rows_hit(vertices[:, edge - 1], vertices[:, edge], columns)
        # A column meets no edge or two; both rays are crossed below the smaller count.
        np.maximum(fewer, np.minimum(more, counts), out=fewer)
        np.maximum(more, counts, out=more)
    return fewer, more


def _rows_hit(start: Floats, end: Floats, columns: Floats) -> NDArray[np.intp]:
    """Return (n, columns): from how many rows a ray crosses the edges `start` to `end`, (n, 2)."""
    (x0, y0), (x1, y1) = start.T[..., None], end.T[..., None]
    ends_after = y1 >= columns
    meets = ((y0 >= columns) != ends_after) & (columns >= 0)
    left = (y1 - columns) * (x0 - x1)
    dy = np.where(y0 == y1, 1.0, y0 - y1)
    near = np.floor(x1 - left / dy).clip(-2, GRID + 1)
    # The division only says where to look: a row counts where the inequality itself holds.
    counts = near - 1
    for row in (near - 1, near, near + 1):
        counts += (left >= (x1 - row) * dy) == ends_after
    return np.where(meets, counts.clip(0, GRID), 0).astype(np.intp)


@DATASETS.register("polygons", paper="Lucic et al. 2018, arXiv:1711.10337")
@component
class ConvexPolygons(Dataset):
    """80,000 convex triangles, 28x28, black on white: 60,000 train, 10,000 select, 10,000 report.

    By default the published set to the bit, which is drawn and not read: its first 60,000 images
    are train, the next 10,000, its test images, are report and its last 10,000, held out, are
    select. The exact images have 65 grey levels k / 64; here they are rounded to the uint8 nearest
    to 255 k / 64, at most half a step of 1/255 away, and stay 65 different ones.
    """

    train: Annotated[int, Field(ge=1, le=MOST_SAMPLES)] = 60_000
    """Images in train."""
    test: Annotated[int, Field(ge=1, le=MOST_SAMPLES)] = 10_000
    """Images in select, and as many in report; all sizes together decide the shuffle."""
    variant: Variant = "published"
    """The published generator as it is, or with the rotation and the least angle it describes."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the generator, 0 in the published set."""

    def load(self) -> dict[Split, Labelled]:
        drawn = draw_polygons(self.train + 2 * self.test, self.variant, self.seed)
        images = torch.from_numpy(GREYS[drawn.levels]).unsqueeze(1)
        train, report, select = images.split([self.train, self.test, self.test])
        return {
            "train": Labelled(train, None),
            "select": Labelled(select, None),
            "report": Labelled(report, None),
        }

    @property
    def image_shape(self) -> ImageShape:
        return 1, SIDE, SIDE
