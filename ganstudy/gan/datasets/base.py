"""What a data set is, its registry and how its splits are made and held."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from ganstudy.checksums import DamagedFile
from ganstudy.gan.architectures import ImageShape
from ganstudy.gan.datasets.cache import Arrays, shared
from ganstudy.gan.seeding import derive
from ganstudy.registry import Component, Registry, component, path_options
from ganstudy.storage import read_checked_text, write_checked
from ganstudy.store import cache_folder

Split = Literal["train", "select", "report"]
SPLITS: tuple[Split, ...] = get_args(Split)
DECODING = 1
"""Part of every cache's key: raise it when a data set's `load` comes to return something else."""


class Labelled(NamedTuple):
    """Images (n, channels, height, width) uint8, and labels (n,) int64 or None.

    Points of the plane are no images: they are (n, 2, 1, 1) float32 in [-1, 1].
    """

    images: Tensor
    labels: Tensor | None


@component
class Dataset(Component, ABC):
    """A set of images with three disjoint splits."""

    decoding_is_slow: ClassVar[bool] = True
    """Whether decoded splits are kept in the user's cache, for all processes of a node."""

    @abstractmethod
    def load(self) -> dict[Split, Labelled]:
        """Read every split, each time anew; `images` and `labels` read once."""

    def check(self) -> None:
        """Raise ValueError if what the data is read from is not there; must be quick."""

    def identity(self) -> dict[str, Any]:
        """Return the options, with a hash of the content in place of where files lie."""
        if not path_options(type(self)):
            return super().identity()
        return super().identity() | {"content": content_hash(self)}

    def fingerprint(self) -> object:
        """Return what the data is read from, as JSON: a change of it empties the cache."""
        return None

    def images(self, split: Split) -> Tensor:
        """Return the images of `split`, (n, channels, height, width) uint8 (points: float32)."""
        return loaded(self)[split].images

    def labels(self, split: Split) -> Tensor | None:
        """Return the labels of `split`, (n,) int64, or None where the set has none."""
        return loaded(self)[split].labels

    @property
    def image_shape(self) -> ImageShape:
        """(channels, height, width)."""
        _, channels, height, width = self.images("train").shape
        return channels, height, width

    @property
    def classes(self) -> int | None:
        """How many classes the labels of train count, from 0 on, or None without labels."""
        labels = self.labels("train")
        return None if labels is None else int(labels.max()) + 1

    @property
    def modes(self) -> int | None:
        """How many modes the data is known to have, or None."""
        return None


DATASETS: Registry[Dataset] = Registry("dataset")


@functools.lru_cache(maxsize=4)
def loaded(dataset: Dataset) -> dict[Split, Labelled]:
    """Return all splits of `dataset`: decoded once per node, opened once per process.

    Decoded splits are kept in `datasets/<name>-<hash>` of the user's cache folder. The hash is of
    the options and of what the data is read from.
    """
    if not dataset.decoding_is_slow:
        return dataset.load()
    return _to_splits(shared(_cache_of(dataset), lambda: _to_arrays(dataset.load())))


def _cache_of(dataset: Dataset) -> Path:
    key = json.dumps([DECODING, dataset.to_dict(), dataset.fingerprint()], sort_keys=True)
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return cache_folder() / "datasets" / f"{dataset.name}-{digest}"


@functools.lru_cache(maxsize=4)
def content_hash(dataset: Dataset) -> str:
    """Return 16 hex digits of the images and labels of all splits.

    They are kept beside the decoded data.
    """
    kept = _cache_of(dataset) / "content" if dataset.decoding_is_slow else None
    try:
        found = "" if kept is None else read_checked_text(kept)
    except (OSError, DamagedFile):
        found = ""
    if found:
        return found
    digest = hashlib.sha256()
    for name, array in sorted(_to_arrays(loaded(dataset)).items()):
        digest.update(f"{name} {array.shape} {array.dtype}\0".encode())
        digest.update(np.ascontiguousarray(array).data)
    if kept is not None:
        with contextlib.suppress(OSError):  # a cache that cannot be written costs only time
            write_checked(kept, digest.hexdigest()[:16].encode())
    return digest.hexdigest()[:16]


def _to_arrays(splits: Mapping[Split, Labelled]) -> Arrays:
    arrays = {}
    for split, (images, labels) in splits.items():
        arrays[f"{split}.images"] = images.numpy()
        if labels is not None:
            arrays[f"{split}.labels"] = labels.numpy()
    return arrays


def _to_splits(arrays: Arrays) -> dict[Split, Labelled]:
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return {
        split: Labelled(tensors[f"{split}.images"], tensors.get(f"{split}.labels"))
        for split in SPLITS
    }


def normalize(images: Tensor) -> Tensor:
    """Return uint8 images as float32 in [-1, 1]; float32 points, which are, as they are."""
    if images.dtype == torch.float32:
        return images
    return images.to(torch.float32).div_(127.5).sub_(1)


def sixty_twenty_twenty(n: int) -> tuple[int, int, int]:
    """Return the sizes of train, select and report for `n` images."""
    held_out = n // 5
    return n - 2 * held_out, held_out, held_out


def split_order(sizes: tuple[int, int, int]) -> dict[Split, Tensor]:
    """Return which of the images make train, select and report, after one shuffle of all.

    The seed is fixed: a data set's splits are the same in every study and on every machine.
    """
    rng = np.random.default_rng(derive("splits"))
    order = torch.from_numpy(rng.permutation(sum(sizes)))
    return dict(zip(SPLITS, order.split(list(sizes)), strict=True))


def split_by_size(
    images: Tensor, labels: Tensor | None, sizes: tuple[int, int, int]
) -> dict[Split, Labelled]:
    """Shuffle once, with a seed of its own, and cut into train, select and report."""
    return {
        name: Labelled(images[part], None if labels is None else labels[part])
        for name, part in split_order(sizes).items()
    }
