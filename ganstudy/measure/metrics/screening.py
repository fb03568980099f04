"""All pairs of rows by matrix products, with proven bounds, so that few are computed one by one.

A pair's squared distance is |a|^2 + |b|^2 - 2 a'b: a matrix product gives all of them, but not to
the last digit, and a neighbour that is nearest by a hair decides a score. So products in float32
only tell which pairs can matter. What a pair's distance *is* says `exact_squares` alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ganstudy.measure.metrics.base import Array

Indices = NDArray[np.integer]

TILE = 2048
"""Rows of a block: long enough for fast products, short enough for a tile to stay in a cache.

Half as many within a sample, where of a tile on the diagonal all pairs are computed twice."""
CROWDED = 32
"""A tile with more than this part of its pairs in doubt is worth a product in float64."""
FLOAT32_FROM = 2**24
"""Products of two entries from which float32 is worth its rounding."""
EXACT_ENTRIES = 2**15
"""Entries of the rows whose exact distances are computed at a time."""


def exact_squares(x: Array, y: Array, i: Indices, j: Indices) -> Array:
    """Return the squared distances of rows x[i] and y[j], (pairs,), in float64.

    The same for a pair wherever and in whichever order it is asked for: a tie is a tie.
    """
    squares = np.empty(len(i))
    step = max(1, EXACT_ENTRIES // x.shape[1])
    for start in range(0, len(i), step):
        chunk = slice(start, start + step)
        difference = x[i[chunk]].astype(np.float64)
        difference -= y[j[chunk]]
        np.square(difference, out=difference)
        # A sum along the last axis adds each row in one order, whatever else the chunk holds.
        squares[chunk] = difference.sum(axis=1)
    return squares


class Distinct(NamedTuple):
    """The different rows of a sample.

    Attributes:
        rows: (u, d)
        counts: How often each of them occurs, (u,).
        first: Where in the sample each of them is found, (u,).
        inverse: Which of them each row of the sample is, (n,).
    """

    rows: Array
    counts: Indices
    first: Indices
    inverse: Indices


def distinct(x: Array) -> Distinct:
    """Return the different rows of (n, d) `x`.

    Rows that repeat, as those of a collapsed generator, would be pairs in doubt without end.
    """
    each = np.arange(len(x))
    alone = Distinct(x, np.ones_like(each), each, each)
    if len(np.unique(x.sum(axis=1, dtype=np.float64))) == len(x):  # equal rows have equal sums
        return alone
    rows = np.ascontiguousarray(x)
    raw = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).ravel()
    _, first, inverse, counts = np.unique(
        raw, return_index=True, return_inverse=True, return_counts=True
    )
    return alone if len(first) == len(x) else Distinct(x[first], counts, first, inverse)


class Scratch:
    """Memory that all tiles use in turn: fresh pages cost as much as a look at what is on them."""

    def __init__(self) -> None:
        """Begin with none."""
        self._held: dict[tuple[str, Any], NDArray[Any]] = {}

    def __call__(self, use: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return an array of any content, which the next call for this use may overwrite."""
        size = math.prod(shape)
        held = self._held.get((use, dtype))
        if held is None or held.size < size:
            held = self._held[use, dtype] = np.empty(size, dtype)
        return held[:size].reshape(shape)


class Block(NamedTuple):
    """Some rows of a sample, centred and scaled so that no entry exceeds 1.

    Attributes:
        start: Index of the first row.
        rows: [x, 1, h] with h half the squared lengths less `slack`, (b, d + 2).
        slack: Their part in the bound on a pair's error, (b,).
    """

    start: int
    rows: Array
    slack: Array

    @property
    def range(self) -> slice:
        """Where in the sample these rows are."""
        return slice(self.start, self.start + len(self.rows))

    def turned(self) -> Array:
        """Return [-x, h, 1]: times another block's rows, that is h + h' - x'y."""
        rows = -self.rows
        rows[:, -2:] = self.rows[:, :-3:-1]
        return rows


class Tile(NamedTuple):
    """Half the squared distances of all pairs of two blocks, scaled.

    Attributes:
        lower: Lower bounds on them, (b, c); upper bounds are higher by twice both rows' slack.
        left: Block of the rows.
        right: Block of the columns.
        last: Whether no tile of these blocks is more precise.
        scratch: For what is made of this tile, before another one takes its place.
    """

    lower: Array
    left: Block
    right: Block
    last: bool
    scratch: Scratch

    @property
    def diagonal(self) -> bool:
        """Whether this is a block of a sample against itself."""
        return self.left is self.right


class Screen:
    """All pairs of rows of two samples, tile by tile.

    With unit roundoff u, entries centred on any c have a relative error of u, and a sum of d + 2
    products one of (d + 2) u times the sum of their sizes, in any order of summation (Higham 2002,
    section 3.1): at most twice (|a|^2 + |b|^2) / 2. All that is done besides (centring, lengths,
    bounds, comparisons) adds less than 32 u times that, and the float64 sums that decide 6 d of
    their roundoff. What underflows is below 2^26 times the smallest normal number.

    Attributes:
        unit: What a squared distance is multiplied by to compare with a tile's entries.
    """

    def __init__(self, x: Array, y: Array) -> None:
        """Centre and scale (n, d) `x` and (m, d) `y`, which may be the same array.

        Raises:
            ValueError: Where squared distances leave the range of float64.
        """
        self._x, self._y = x, y
        # The median of few rows: constant features become exactly 0, and outliers do not matter.
        self._centre = np.median(y[:: max(1, len(y) // 101)], axis=0).astype(y.dtype)
        size = max(self._size(x), 0.0 if y is x else self._size(y))
        if size and not 1e-100 <= size <= 1e100:
            raise ValueError(f"features must spread over 1e-100 to 1e100, got {size:.3g}")
        # A power of two scales without rounding.
        self._scale = 2.0 ** -math.ceil(math.log2(size)) if size else 1.0
        self.unit = self._scale**2 / 2
        d = x.shape[1]
        single = len(x) * len(y) * d >= FLOAT32_FROM and d <= 50_000
        # Beyond these sizes the scale, or what it scales, is no normal float32.
        fits = size == 0 or 1e-30 <= size <= 1e30
        self._type: Any = np.float32 if single and fits else np.float64
        self._tile = TILE // 2 if y is x else TILE
        self.left = self._blocks(x)
        self.right = self.left if y is x else self._blocks(y)
        self._scratch = Scratch()
        self._turned = self.left[0], self.left[0].turned()

    def _size(self, x: Array) -> float:
        ends = np.stack([x.min(axis=0), x.max(axis=0)]).astype(np.float64)
        return float(np.abs(ends - self._centre).max())

    def _blocks(self, x: Array) -> list[Block]:
        return [self._block(x, start, self._type) for start in range(0, len(x), self._tile)]

    def _block(self, x: Array, start: int, dtype: Any) -> Block:
        chunk = x[start : start + self._tile]
        rows = np.empty((len(chunk), chunk.shape[1] + 2), dtype)
        rows[:, -2] = 1
        # In the wider of both types: a difference is rounded once, or twice to that of the screen.
        centred = np.subtract(chunk, self._centre, dtype=np.result_type(x.dtype, dtype))
        scaled = np.multiply(centred, self._scale, out=rows[:, :-2], casting="same_kind")
        halves = np.einsum("ij,ij->i", scaled, scaled) / 2
        u, fine, d = np.finfo(dtype).eps / 2, np.finfo(np.float64).eps / 2, chunk.shape[1]
        steps, fine_steps = (3 * d + 36) * u, (6 * d + 36) * fine
        error = steps / (1 - steps) + fine_steps
        slack = error * halves + np.finfo(dtype).tiny * 2.0**26
        rows[:, -1] = halves - slack
        return Block(start, rows, slack.astype(dtype))

    def tiles(self, left: Block, right: Block) -> Iterator[Tile]:
        """Yield the pairs of two blocks, then again in float64 if that was not their type."""
        final = self._type is np.float64
        if self._turned[0] is not left:
            self._turned = left, left.turned()
        yield Tile(self._product(self._turned[1], right), left, right, final, self._scratch)
        if not final:
            fine = self._block(self._x, left.start, np.float64)
            other = fine if right is left else self._block(self._y, right.start, np.float64)
            product = self._product(fine.turned(), other)
            yield Tile(product, fine, other, True, self._scratch)

    def _product(self, turned: Array, right: Block) -> Array:
        shape = len(turned), len(right.rows)
        out = self._scratch("tile", shape, turned.dtype)
        return np.matmul(turned, right.rows.T, out=out)


GROUPS = 64
"""Groups of a tile's rows or columns whose smallest entries stand for them."""


def group_minima(tile: Array, axis: int, groups: int) -> Array:
    """Return the smallest entries of at least `groups` groups along an axis, (other axis, groups).

    The k-th smallest of them is an upper bound on the k-th smallest of all, at the price of one
    look at each entry.
    """
    cut = tile.shape[axis] - tile.shape[axis] % groups
    whole, rest = np.split(tile, [cut], axis=axis)
    if cut:
        shape = (-1, groups, tile.shape[1]) if axis == 0 else (tile.shape[0], -1, groups)
        rest = np.concatenate([whole.reshape(shape).min(axis=axis), rest], axis=axis)
    return rest.T if axis == 0 else rest


def hits(tile: Tile, limits: Array, axis: int) -> tuple[Indices, Indices]:
    """Return the places of entries that do not exceed the limit of their row or column.

    Args:
        tile: Of (b, c) pairs.
        limits: Of each row (axis 1) or of each column (axis 0).
        axis: That along which entries share a limit.

    Returns:
        Indices along the limits and along the other axis.
    """
    lower = tile.lower
    fitting = limits.astype(lower.dtype)
    near = tile.scratch("near", lower.shape, np.bool_)
    np.less_equal(lower, fitting[:, None] if axis == 1 else fitting, out=near)
    # The places of true ones are found much faster in one dimension than in two.
    rows, columns = np.divmod(np.flatnonzero(near), lower.shape[1])
    return (rows, columns) if axis == 1 else (columns, rows)
