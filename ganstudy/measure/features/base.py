"""What a feature network is, and how weights and statistics are kept between studies."""

from __future__ import annotations

import hashlib
import io
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ganstudy.gan.datasets import Dataset, normalize
from ganstudy.registry import Component, Registry
from ganstudy.store import cache_folder, write_atomically

BATCH = 250


@dataclass(frozen=True)
class Extractor:
    """A feature network that is ready to use.

    Attributes:
        embed: (n, channels, height, width) in [-1, 1] -> (n, d).
        hash: Of the weights; equal hashes give comparable scores.
        facts: What the report tells of the network, its accuracy say.
        head: (n, d) features -> (n, K) logits, where the network is a classifier.
    """

    embed: Callable[[Tensor], Tensor]
    hash: str
    facts: dict[str, Any] = field(default_factory=dict)
    head: Callable[[Tensor], Tensor] | None = None

    @torch.no_grad()
    def __call__(self, images: Tensor) -> NDArray[np.float32]:
        """Return the features of float images in [-1, 1], or of uint8 ones, (n, d) float32."""
        parts = []
        for part in images.split(BATCH):
            floats = normalize(part) if part.dtype == torch.uint8 else part
            parts.append(self.embed(floats).flatten(1).float().numpy())
        return np.concatenate(parts)

    @torch.no_grad()
    def logits(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return the logits of the classes, (n, K), of `features`, (n, d)."""
        assert self.head is not None  # check_head has refused a network without classes
        return self.head(torch.from_numpy(features).float()).numpy()


class FeatureNetwork(Component, ABC):
    """A way to turn images into features."""

    @abstractmethod
    def dimension(self, dataset: Dataset) -> int:
        """Return d, the number of features of an image of `dataset`."""

    classifies: ClassVar[bool] = False
    """Whether the features are those of a classifier, whose head reads them."""

    @property
    def resize(self) -> str:
        """What happens to the size of images before they are read."""
        return "none"

    def check(self, dataset: Dataset) -> None:
        """Raise ValueError where this network cannot serve `dataset`."""

    def check_head(self) -> None:
        """Raise ValueError where this network gives no probabilities of classes."""
        if not self.classifies:
            heads = [name for name in FEATURES.names() if FEATURES.get(name).classifies]
            raise ValueError(
                f"reads a classifier's probabilities, and {self.name} is none; "
                f"use the features {' or '.join(heads)}"
            )

    @abstractmethod
    def extractor(self, dataset: Dataset, cache: Path | None = None) -> Extractor:
        """Return the network, trained first where it must be; weights are kept in `cache`."""


FEATURES: Registry[FeatureNetwork] = Registry("feature network")


def write_torch(path: Path, content: object) -> None:
    """Write `content` by torch.save.

    By way of memory: on a full disk torch.save's own message says nothing of the disk.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path.write_bytes(buffer.getbuffer())


def content_hash(*parts: bytes | Tensor | str) -> str:
    """Return 16 hex digits that depend on every part."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(str((tuple(part.shape), part.dtype)).encode())
            part = part.contiguous().numpy().tobytes()
        digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def cached(name: str, folder: Path | None, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what `make` makes, from `folder` or the user's cache where it was made before.

    A study keeps its own copy in `folder`, so that every node reads the same weights.
    """
    shared = cache_folder() / "features" / name
    places = [place for place in (folder and folder / name, shared) if place]
    found = next((place for place in places if place.exists()), None)
    content: dict[str, Any] = torch.load(found, weights_only=True) if found else make()
    for place in places:
        if not place.exists():
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(place, partial(write_torch, content=content))
            except OSError:
                # A user's cache that cannot be written costs time, not the study.
                if place != shared:
                    raise
    return content
