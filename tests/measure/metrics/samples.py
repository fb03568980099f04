"""Samples whose truth is known."""

from __future__ import annotations

import numpy as np


def sample(n: int, d: int = 4, seed: int = 0, shift: float = 0.0, scale: float = 1.0):
    return np.random.default_rng(seed).normal(size=(n, d)) * scale + shift
