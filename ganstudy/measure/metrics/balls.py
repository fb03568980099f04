"""Nearest neighbours within a sample, and which rows of another sample lie within their reach.

A row's k-th ball reaches as far as its k-th nearest other row. All scores of neighbours are read
off two passes over all pairs: one within each sample, which finds the balls, and one across, which
counts who lies in which. Both look at tiles of pairs, so that memory does not grow with n * m.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ganstudy.measure.metrics.base import Array, Statistics
from ganstudy.measure.metrics.screening import (
    CROWDED,
    GROUPS,
    Block,
    Distinct,
    Indices,
    Screen,
    Tile,
    distinct,
    exact_squares,
    group_minima,
    hits,
)

PENDING = 2**20
"""Pairs that may be near neighbours beyond which they are settled before more are looked for."""


class Near(NamedTuple):
    """Pairs of a tile of one sample whose second may be among the first's nearest.

    Attributes:
        block: Of the first.
        limits: Upper bounds on the distances of its rows' k nearest, (b, k).
        i: (p,)
        j: (p,)
        lower: Lower bounds on the pairs' distances, (p,).
    """

    block: Block
    limits: Array
    i: Indices
    j: Indices
    lower: Array


class Nearest:
    """The k nearest other rows of each distinct row, found while tiles come in.

    Attributes:
        squares: Squared distances to the nearest rows so far, ascending, (u, k).
        groups: Into how many groups a tile's rows are put to narrow their neighbours down.
    """

    def __init__(self, own: Distinct, k: int) -> None:
        """Begin with a row's own repetitions, which are at distance 0."""
        self._own, self._k = own, k
        self.squares = np.full((len(own.rows), k), np.inf)
        self.squares[np.arange(k) < own.counts[:, None] - 1] = 0.0
        # In a tile's units: no row's k-th neighbour is beyond the largest of its limits.
        self._limits = self.squares.copy()
        self._pending: list[tuple[Indices, Indices, Array]] = []
        self.groups = max(GROUPS, 2 * k)

    def narrowed(self, block: Block, uppers: Array) -> Array:
        """Return limits of a block given upper bounds to different other rows, (b, any)."""
        both = np.concatenate([self._limits[block.range], uppers], axis=1)
        return np.partition(both, self._k - 1, axis=1)[:, : self._k]

    def take(self, near: Near) -> None:
        """Note pairs to be settled, now if they are many."""
        self._limits[near.block.range] = near.limits
        self._pending.append((near.i, near.j, near.lower))
        if sum(len(i) for i, _, _ in self._pending) > PENDING:
            self.settle()

    def settle(self) -> None:
        """Compute the distances of all pairs offered that are still within reach."""
        if not self._pending:
            return
        i, j, lower = (np.concatenate(part) for part in zip(*self._pending, strict=True))
        self._pending = []
        # Where too few rows were seen for a limit, a row itself is offered too.
        near = (lower <= self._limits[i, -1]) & (i != j)
        i, j = i[near], j[near]
        # Once for two rows that are near one another, and so sorted that rows are fetched once.
        pairs, place = np.unique(
            np.minimum(i, j) * len(self.squares) + np.maximum(i, j), return_inverse=True
        )
        rows = self._own.rows
        squares = exact_squares(rows, rows, *np.divmod(pairs, len(rows)))[place]
        times = np.minimum(self._own.counts[j], self._k)  # a row that repeats is many neighbours
        i, squares = np.repeat(i, times), np.repeat(squares, times)
        order = np.lexsort((squares, i))
        i, squares = i[order], squares[order]
        place = np.arange(len(i)) - np.searchsorted(i, i)
        kept = place < self._k
        found = np.full_like(self.squares, np.inf)
        found[i[kept], place[kept]] = squares[kept]
        both = np.concatenate([self.squares, found], axis=1)
        self.squares = np.sort(both, axis=1)[:, : self._k]


def neighbourhoods(x: Array, k: int) -> Statistics:
    """Return what scores need of a sample's own pairs, in one pass over half of them.

    Args:
        x: (n, d)
        k: Nearest other rows to tell of, below n.

    Returns:
        `squares`, the squared distances of each row to its k nearest other rows, ascending,
        (n, k), to the last digit those of `exact_squares`; `mean_distance` of all pairs, ().
    """
    own = distinct(x)
    screen = Screen(own.rows, own.rows)
    found, total = Nearest(own, k), 0.0
    for number, left in enumerate(screen.left):
        for right in screen.left[number:]:
            total += look(screen, left, right, own.counts, found)
    found.settle()
    mean = total / math.sqrt(screen.unit) / (len(x) * (len(x) - 1))
    return {"squares": found.squares[own.inverse], "mean_distance": np.array(mean)}


def look(screen: Screen, left: Block, right: Block, counts: Indices, found: Nearest) -> float:
    """Note the near pairs of two blocks of one sample; return the sum of all distances."""
    total = 0.0
    for tile in screen.tiles(left, right):
        total = distance_sum(tile, counts)
        sides = near_pairs(tile, found)
        if tile.last or sum(len(near.i) for near in sides) * CROWDED <= tile.lower.size:
            for near in sides:
                found.take(near)
            break
    return total


STRIP = 64
"""Rows of a tile whose distances are summed at a time, while they are in the nearest cache."""


def distance_sum(tile: Tile, counts: Indices) -> float:
    """Return the sum of distances (in roots of the tile's unit) over pairs in both orders."""
    lower, left, right = tile.lower, tile.left, tile.right
    weights = counts[right.range].astype(lower.dtype)
    by_row = np.empty(len(lower), lower.dtype)
    for start in range(0, len(lower), STRIP):
        strip = slice(start, start + STRIP)
        roots = lower[strip] + left.slack[strip, None]
        roots += right.slack
        np.maximum(roots, 0, out=roots)
        if tile.diagonal:
            np.fill_diagonal(roots[:, start:], 0)
        np.sqrt(roots, out=roots)
        by_row[strip] = roots @ weights
    return (1 if tile.diagonal else 2) * float(counts[left.range] @ by_row)


def near_pairs(tile: Tile, found: Nearest) -> list[Near]:
    """Return the near pairs from the rows' side, then from the columns'."""
    left, right, lower = tile.left, tile.right, tile.lower
    if tile.diagonal:
        np.fill_diagonal(lower, np.inf)
    sides = []
    for axis, block, other in ((1, left, right), (0, right, left))[: 1 if tile.diagonal else 2]:
        slack = 2 * (block.slack[:, None] + other.slack.max())
        limits = found.narrowed(block, group_minima(lower, axis, found.groups) + slack)
        i, j = hits(tile, limits[:, -1], axis)
        bounds = (lower if axis == 1 else lower.T)[i, j]
        sides.append(Near(block, limits, i + block.start, j + other.start, bounds))
    return sides


class Held(NamedTuple):
    """Which of n points lie in the balls of m others, by the neighbour 1 to k that spans a ball.

    Attributes:
        balls: How many balls hold each point, (n, k).
        points: How many points lie in each ball, (m, k).
    """

    balls: Array
    points: Array


class Inside(NamedTuple):
    """Pairs of a tile whose point lies or may lie in the ball of the other.

    Attributes:
        points: (p,)
        balls: (p,)
        levels: Neighbours 1 to k that are surely nearer to the ball's centre, (p,).
        doubtful: Which pairs may have more of them than that.
    """

    points: Indices
    balls: Indices
    levels: Indices
    doubtful: Indices


class Balls:
    """Counts which points lie in the balls of one sample while tiles come in."""

    def __init__(self, points: Distinct, centres: Distinct, squares: Array, axis: int) -> None:
        """Begin with no point seen; the centres are a tile's columns (axis 1) or rows (axis 0)."""
        self._points, self._centres, self._axis = points, centres, axis
        self._squares = squares[centres.first]
        k = squares.shape[1]
        self._balls = np.zeros((len(points.rows), k))
        self._inside = np.zeros((len(centres.rows), k))

    def inside(self, tile: Tile, unit: float) -> Inside:
        """Return the pairs of a tile whose point may lie in a ball."""
        lower = tile.lower
        centre, point = (tile.right, tile.left) if self._axis else (tile.left, tile.right)
        reach = self._squares[centre.range, -1] * unit
        j, i = hits(tile, reach, 1 - self._axis)
        least = (lower if self._axis else lower.T)[i, j].astype(np.float64)
        most = least + 2 * (point.slack[i].astype(np.float64) + centre.slack[j])
        i, j = i + point.start, j + centre.start
        squares = self._squares[j] * unit
        levels = (squares < least[:, None]).sum(axis=1)
        doubtful = np.flatnonzero(levels != (squares < most[:, None]).sum(axis=1))
        return Inside(i, j, levels, doubtful)

    def add(self, found: Inside) -> None:
        """Count pairs, having settled the doubtful ones."""
        i, j = found.points[found.doubtful], found.balls[found.doubtful]
        squares = exact_squares(self._points.rows, self._centres.rows, i, j)
        levels = found.levels
        levels[found.doubtful] = (self._squares[j] < squares[:, None]).sum(axis=1)
        inside = levels < self._squares.shape[1]
        i, j, levels = found.points[inside], found.balls[inside], levels[inside]
        k = self._squares.shape[1]
        np.add.at(self._balls.ravel(), i * k + levels, self._centres.counts[j].astype(float))
        np.add.at(self._inside.ravel(), j * k + levels, self._points.counts[i].astype(float))

    def held(self) -> Held:
        """Return the counts for all rows, those that repeat included."""
        balls, inside = np.cumsum(self._balls, axis=1), np.cumsum(self._inside, axis=1)
        return Held(balls[self._points.inverse], inside[self._centres.inverse])


def overlap(x: Array, y: Array, x_squares: Array, y_squares: Array) -> tuple[Held, Held]:
    """Return which rows of `x` lie in the balls of `y`, and the other way round.

    Rows on the rim are inside. The tiles only tell which pairs need not be looked at; what is
    within their error of a rim is decided by `exact_squares`.

    Args:
        x: (n, d)
        y: (m, d)
        x_squares: `squares` of `neighbourhoods(x, ...)`.
        y_squares: `squares` of `neighbourhoods(y, ...)`.
    """
    left, right = distinct(x), distinct(y)
    screen = Screen(left.rows, right.rows)
    both = Balls(left, right, y_squares, 1), Balls(right, left, x_squares, 0)
    for a in screen.left:
        for b in screen.right:
            for tile in screen.tiles(a, b):
                found = [balls.inside(tile, screen.unit) for balls in both]
                if tile.last or sum(len(f.doubtful) for f in found) * CROWDED <= tile.lower.size:
                    break
            for balls, pairs in zip(both, found, strict=True):
                balls.add(pairs)
    return both[0].held(), both[1].held()
