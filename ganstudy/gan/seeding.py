"""One seed -> named, independent streams of randomness."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch

STREAMS = ("latent", "data", "flips", "penalty", "stabilizers")
"""The streams a trainer draws from while it trains; their states are part of its state."""


def derive(*parts: object) -> int:
    """Return a 63-bit integer that depends on every part and on nothing else."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def stream(seed: int, name: str) -> torch.Generator:
    """Return the CPU generator of the stream `name` under `seed`."""
    return torch.Generator().manual_seed(derive(seed, name))


@contextmanager
def seeded_init(seed: int, name: str) -> Iterator[None]:
    """Run a block whose modules draw their weights from the stream `name`.

    torch's modules initialise from the global generator; it is forked here and put back, so that
    the global seed neither matters nor changes.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, name))
        yield
