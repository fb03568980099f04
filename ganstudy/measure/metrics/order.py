"""Splits and subsets of samples that do not depend on the order of their rows."""

from __future__ import annotations

import numpy as np

from ganstudy.measure.metrics.base import Array


def shuffled(x: Array) -> Array:
    """Return the rows of `x` in an order that depends on their values only.

    Rows are sorted by their bytes and then permuted, always alike for equal n, so that blocks of
    them are as good as random: equal rows in another order give equal blocks.
    """
    keys = [row.tobytes() for row in x + 0.0]  # -0.0 and 0.0 are one value
    order = sorted(range(len(x)), key=keys.__getitem__)
    return x[np.asarray(order)[np.random.default_rng(0).permutation(len(x))]]
