"""Arrays in a numpy file."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray

from ganstudy.gan.architectures import ImageShape
from ganstudy.gan.datasets.base import (
    DATASETS,
    Dataset,
    Labelled,
    Split,
    sixty_twenty_twenty,
    split_by_size,
)
from ganstudy.gan.datasets.files import AbsolutePath, marks, refused
from ganstudy.limits import explain_excess
from ganstudy.registry import component

Header = tuple[tuple[int, ...], np.dtype[Any]]
T = TypeVar("T")
BROKEN = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError, MemoryError)
"""What reading a damaged or foreign file may raise."""


@DATASETS.register("npz")
@component
class Npz(Dataset):
    """Images, and labels where there are any, of a numpy .npz file.

    60 % train, 20 % select, 20 % report, cut after a fixed shuffle. Images are (n, h, w), or have
    1 or 3 channels last or first; uint8, or floats in [0, 1], which are rounded to uint8 of
    255 x. Labels are n whole numbers from 0. Nothing in the file is unpickled.
    """

    path: AbsolutePath
    """The .npz file; a relative path is relative to the YAML."""
    images_key: str = "images"
    """Name of the array of images in the file."""
    labels_key: str | None = None
    """Name of the array of labels in the file; null for a set without labels."""

    def check(self) -> None:
        shape, dtype = self._header(self.images_key)
        self._layout(shape)
        if dtype != np.uint8 and dtype.kind != "f":
            raise self._refused(self.images_key, f"is {dtype}", "store uint8, or floats in [0, 1]")
        if shape[0] < 5 or min(shape) < 1:
            rule = f"has the shape {shape}"
            raise self._refused(self.images_key, rule, "three splits need at least 5 images")
        # Floats are scaled and rounded on their way to bytes.
        self._check_size(self.images_key, 3 if dtype == np.uint8 else 5)
        if self.labels_key is None:
            return
        labels_shape, labels_dtype = self._header(self.labels_key)
        if labels_shape != shape[:1] or labels_dtype.kind not in "iu":
            rule = f"is {labels_shape} {labels_dtype} for {shape[0]} images"
            raise self._refused(self.labels_key, rule, "store one whole number for each image")
        self._check_size(self.labels_key, 3)

    def load(self) -> dict[Split, Labelled]:
        self.check()
        images = self._bytes(self._array(self.images_key))
        layout = self._layout(images.shape)
        placed = np.ascontiguousarray(layout(images))
        sizes = sixty_twenty_twenty(len(placed))
        return split_by_size(torch.from_numpy(placed), self._labels(), sizes)

    def fingerprint(self) -> object:
        self.check()
        return marks([Path(self.path)])

    @property
    def image_shape(self) -> ImageShape:
        shape, _ = self._header(self.images_key)
        _, channels, height, width = self._layout(shape)(np.broadcast_to(np.uint8(0), shape)).shape
        return channels, height, width

    def _layout(self, shape: tuple[int, ...]) -> Callable[[NDArray[Any]], NDArray[Any]]:
        """Return what turns an array of `shape` into (n, channels, height, width)."""
        if len(shape) == 3:
            return lambda images: images[:, None]
        first, last = (len(shape) == 4 and shape[axis] in (1, 3) for axis in (1, 3))
        if first == last:
            rule, remedy = f"has the shape {shape}", "store (n, h, w), or 1 or 3 channels last"
            raise self._refused(self.images_key, rule, f"{remedy} or first, and not both")
        return (lambda images: images) if first else (lambda images: images.transpose(0, 3, 1, 2))

    def _bytes(self, images: NDArray[Any]) -> NDArray[np.uint8]:
        if images.dtype == np.uint8:
            return images
        # A NaN fails either comparison.
        if not (images.min() >= 0 and images.max() <= 1):
            rule = f"holds floats from {images.min():g} to {images.max():g}"
            raise self._refused(self.images_key, rule, "floats must lie in [0, 1]; or store uint8")
        return (images * 255).round().astype(np.uint8)

    def _labels(self) -> torch.Tensor | None:
        if self.labels_key is None:
            return None
        labels = self._array(self.labels_key)
        if labels.min() < 0:
            rule = f"holds the label {labels.min()}"
            raise self._refused(self.labels_key, rule, "store whole numbers from 0")
        return torch.from_numpy(labels.astype(np.int64))

    def _check_size(self, key: str, copies: int) -> None:
        """Refuse an array whose header asks for more than the file holds, or than memory does."""
        shape, dtype = self._header(key)
        size = math.prod(shape) * dtype.itemsize
        with zipfile.ZipFile(self.path) as archive:
            member = archive.getinfo(f"{key}.npy")
        if size > member.file_size:
            rule = f"has {member.file_size} bytes where its header tells {size}"
            raise self._refused(key, rule, "save it by numpy.savez")
        rule = explain_excess(size, member.compress_size, copies)
        if rule:
            raise self._refused(key, rule, "store fewer or smaller images, by numpy.savez")

    def _header(self, key: str) -> Header:
        """Return shape and dtype of an array without reading it."""
        return self._member(key, _npy_header)

    def _array(self, key: str) -> NDArray[Any]:
        return self._member(key, lambda file: npy.read_array(file, allow_pickle=False))

    def _member(self, key: str, read: Callable[[IO[bytes]], T]) -> T:
        """Return what `read` makes of the array `key`, or name what is wrong with the file."""
        if not Path(self.path).is_file():
            raise ValueError(f"no such file: {self.path}; `path` must be a numpy .npz file")
        try:
            with zipfile.ZipFile(self.path) as archive:
                known = [name.removesuffix(".npy") for name in archive.namelist()]
                if key in known:
                    with archive.open(f"{key}.npy") as file:
                        return read(file)
        except BROKEN as error:
            rule = f"cannot be read ({error})"
            raise refused(self.path, rule, "save it by numpy.savez, without objects") from error
        raise self._refused(key, "is not in it", f"it holds {', '.join(known) or 'nothing'}")

    def _refused(self, key: str, rule: str, remedy: str) -> ValueError:
        return refused(self.path, f"the array {key!r} {rule}", remedy)


def _npy_header(file: IO[bytes]) -> Header:
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype
