"""Samples whose truth is known."""

from __future__ import annotations

import numpy as np

MODES = 10


def sample(n: int, d: int = 4, seed: int = 0, shift: float = 0.0, scale: float = 1.0):
    return np.random.default_rng(seed).normal(size=(n, d)) * scale + shift


def modes_kept(n: int, kept: int, seed: int = 0):
    """Rows of the first `kept` of 10 modes, as many of each: (n, 10).

    Each mode is as far from one of the others as from the next, so that which ones are lost is
    nothing: only how many.
    """
    return 10 * np.eye(MODES)[np.arange(n) % kept] + sample(n, MODES, seed, scale=0.5)
