"""What every statistic returns: a number with its interval and n."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95
Array: TypeAlias = NDArray[np.float64]


class Estimate(NamedTuple):
    """A number with its interval; `low` and `high` are None where no two-sided one exists."""

    value: float
    low: float | None
    high: float | None
    n: int

    @property
    def has_interval(self) -> bool:
        """Whether both ends exist."""
        return self.low is not None and self.high is not None


def checked_scores(values: ArrayLike) -> Array:
    """Return `values` as scores.

    Raises:
        ValueError: There are none, or one is NaN.
    """
    scores = np.asarray(values, dtype=np.float64)
    if np.isnan(scores).any():
        raise ValueError("scores hold NaN; a failed trial scores +inf")
    if not scores.size:
        raise ValueError("no scores")
    return scores


def checked_ratio_scale(values: ArrayLike) -> Array:
    """Return `values` as scores of which ratios can be taken: all above 0, +inf for a failure.

    Raises:
        ValueError: There are none, one is NaN, or one is not above 0.
    """
    scores = checked_scores(values)
    if (scores <= 0).any():
        raise ValueError(f"ratios need scores above 0, got {scores.min():g}")
    return scores


def checked_pairs(first: ArrayLike, second: ArrayLike) -> tuple[Array, Array]:
    """Return two arrays of scores that belong together one by one.

    Raises:
        ValueError: Their lengths differ, there are none, or one is NaN.
    """
    a, b = checked_scores(first), checked_scores(second)
    if a.shape != b.shape:
        raise ValueError(f"pairs need as many scores on both sides, got {a.size} and {b.size}")
    return a, b
