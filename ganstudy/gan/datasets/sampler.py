"""Batches of a data set, in an order that a stream of randomness decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ganstudy.gan.datasets.base import normalize


class BatchSampler:
    """Batches of a fixed size, each epoch in a new order; an epoch's rest is dropped."""

    def __init__(
        self,
        images: Tensor,
        batch_size: int,
        rng: torch.Generator,
        flips: torch.Generator | None = None,
    ) -> None:
        """Draw batches of `images` with `rng`, the stream "data".

        With `flips`, a stream of its own, each image of a batch is mirrored left to right with
        probability 1/2; the order of the images is the same with and without.
        """
        if batch_size > len(images):
            raise ValueError(f"batch_size {batch_size} is larger than the {len(images)} images")
        self.images, self.batch_size, self.rng = images, batch_size, rng
        self.flips = flips
        self.order, self.position = torch.empty(0, dtype=torch.long), 0
        self.latest = self.order
        """Which images made the latest batch, (batch,)."""

    def next(self, convert: Callable[[Tensor], Tensor] = normalize) -> Tensor:
        """Return the next batch as float32 in [-1, 1]."""
        if self.position + self.batch_size > len(self.order):
            self.order, self.position = torch.randperm(len(self.images), generator=self.rng), 0
        self.latest = self.order[self.position : self.position + self.batch_size]
        self.position += self.batch_size
        batch = self.images[self.latest]
        return convert(batch if self.flips is None else self._mirrored(batch))

    def _mirrored(self, batch: Tensor) -> Tensor:
        mirror = torch.rand(len(batch), generator=self.flips) < 0.5
        return torch.where(mirror.view(-1, 1, 1, 1), batch.flip(3), batch)

    def state_dict(self) -> dict[str, object]:
        """Return where in which epoch's order the sampler stands."""
        return {"order": self.order, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.order, self.position = state["order"], state["position"]
