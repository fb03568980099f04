"""What a feature network is: images -> (n, d)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ganstudy.gan.datasets import Dataset, normalize
from ganstudy.registry import Component, Registry

BATCH = 250


@dataclass(frozen=True)
class Extractor:
    """A feature network that is ready to use.

    Attributes:
        embed: (n, channels, height, width) in [-1, 1] -> (n, d).
        hash: Of the weights; equal hashes give comparable scores.
        facts: What the report tells of the network, its accuracy say.
        head: (n, d) features -> (n, K) logits, where the network is a classifier.
        batch: Images that are embedded at once, and so held with all that they become within.
    """

    embed: Callable[[Tensor], Tensor]
    hash: str
    facts: dict[str, Any] = field(default_factory=dict)
    head: Callable[[Tensor], Tensor] | None = None
    batch: int = BATCH

    @torch.no_grad()
    def __call__(self, images: Tensor) -> NDArray[np.float32]:
        """Return the features of float images in [-1, 1], or of uint8 ones, (n, d) float32."""
        features = np.empty((0, 0), np.float32)
        for i, part in enumerate(images.split(self.batch)):
            floats = normalize(part) if part.dtype == torch.uint8 else part
            rows = self.embed(floats).flatten(1).float().numpy()
            if i == 0:  # joined at the end, the parts would be held twice
                features = np.empty((len(images), rows.shape[1]), np.float32)
            features[i * self.batch : i * self.batch + len(rows)] = rows
        return features

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
    own_classes: ClassVar[bool] = False
    """Whether that classifier's classes are those of the data's own labels."""
    score_names: ClassVar[Mapping[str, str]] = {}
    """What scores on this network are called in the field, by the `short` name of their metric."""

    @property
    def resize(self) -> str:
        """What happens to the size of images before they are read."""
        return "none"

    def check(self, dataset: Dataset) -> None:
        """Raise ValueError where this network cannot serve `dataset`."""

    def check_head(self, own_classes: bool = False) -> None:
        """Raise ValueError where this network gives no probabilities of (the data's) classes."""
        asked = "own_classes" if own_classes else "classifies"
        if not getattr(self, asked):
            heads = [name for name in FEATURES.names() if getattr(FEATURES.get(name), asked)]
            whose = "of the data's own classes" if own_classes else "of classes"
            raise ValueError(
                f"reads probabilities {whose}, which {self.name} does not give; "
                f"use the features {' or '.join(heads)}"
            )

    def known_facts(self, dataset: Dataset) -> dict[str, Any]:
        """Return an extractor's `facts` as far as they are known without training anything."""
        return {}

    def training_updates(self, dataset: Dataset) -> int | None:
        """Return how many updates train this network on `dataset`, None where none does."""
        return None

    @abstractmethod
    def extractor(self, dataset: Dataset, cache: Path | None = None) -> Extractor:
        """Return the network, trained first where it must be; weights are kept in `cache`."""


FEATURES: Registry[FeatureNetwork] = Registry("feature network")


def check_images(name: str, dataset: Dataset, side: int, channels: tuple[int, ...]) -> None:
    """Raise ValueError where `dataset` holds no images that the network `name` reads.

    Args:
        name: Of the network.
        dataset: Points of the plane are no images.
        side: Least height and width of an image, in pixels.
        channels: The numbers of channels that the network reads.
    """
    found, height, width = dataset.image_shape
    if max(height, width) == 1:
        raise ValueError(f"{name} reads images, and {dataset.name} holds points; use pixels")
    if min(height, width) < side:
        raise ValueError(
            f"{name} reads images of {side} px and more, {dataset.name} has {height}x{width}; "
            f"use pixels"
        )
    if found not in channels:
        others = "pixels" if name == "random_conv" else "random_conv or pixels"
        listed = " or ".join(map(str, channels))
        raise ValueError(
            f"{name} reads images of {listed} channels, {dataset.name} has {found}; use {others}"
        )
