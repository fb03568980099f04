"""Stabilisers by name; to add one is to add a class to one of these files."""

from ganstudy.gan.stabilizers import (
    adaptive,
    augmentation,
    averages,
    balance,
    judges,
    objectives,
    presented,
)
from ganstudy.gan.stabilizers.base import STABILIZERS, Features, Stabilizer, Turn

__all__ = [
    "STABILIZERS",
    "Features",
    "Stabilizer",
    "Turn",
    "adaptive",
    "augmentation",
    "averages",
    "balance",
    "judges",
    "objectives",
    "presented",
]
