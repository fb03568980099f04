"""Splits and subsets of samples that do not depend on the order of their rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ganstudy.measure.metrics.base import Array


def canonical_order(rows: Array) -> NDArray[np.intp]:
    """Return the indices that sort (n, ...) rows by their bytes.

    A seeded method sees the same sequence in whatever order the rows came.
    """
    flat = np.ascontiguousarray(rows + 0.0).reshape(len(rows), -1)  # -0.0 and 0.0 are one value
    return flat.view(f"V{flat.itemsize * flat.shape[1]}")[:, 0].argsort(kind="stable")


def shuffled(x: Array) -> Array:
    """Return the rows of `x` in an order that depends on their values only.

    They are sorted and then permuted, always alike for equal n, so that blocks of them are as
    good as random: equal rows in another order give equal blocks.
    """
    return x[canonical_order(x)[np.random.default_rng(0).permutation(len(x))]]
