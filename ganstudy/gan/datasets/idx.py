"""MNIST and what comes in its format: four IDX files in a folder."""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from pathlib import Path
from typing import IO, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ganstudy.gan.architectures import ImageShape
from ganstudy.gan.datasets.base import DATASETS, Dataset, Labelled, Split
from ganstudy.gan.datasets.files import AbsolutePath, marks, refused
from ganstudy.limits import explain_excess
from ganstudy.registry import component

CLASSES = 10
TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
FILES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)


@component
class IdxFolder(Dataset):
    """The four files of MNIST's format, plain or gzipped.

    Train is the first five sixths of the training files, select their last sixth, report the
    test files.
    """

    sha256: ClassVar[tuple[str, ...]]
    """Of the published `FILES`, uncompressed: packagers change the gzip header."""
    remedy: ClassVar[str]
    """Where to get the files."""

    path: AbsolutePath
    """Folder with the four IDX files, gzipped or not."""
    verify: bool = True
    """Whether the files must be the published ones, by their checksums."""

    def check(self) -> None:
        for images, labels in ((TRAIN_IMAGES, TRAIN_LABELS), (TEST_IMAGES, TEST_LABELS)):
            (n_images, *_), (n_labels,) = self._shape(images), self._shape(labels)
            if n_images != n_labels:
                rule = f"holds {n_labels} labels for {n_images} images"
                raise refused(self._find(labels), rule, self.remedy)
        sides, test_sides = self._shape(TRAIN_IMAGES)[1:], self._shape(TEST_IMAGES)[1:]
        if sides != test_sides:
            rule = f"holds images of {test_sides}, the training images are {sides}"
            raise refused(self._find(TEST_IMAGES), rule, self.remedy)
        if self._shape(TRAIN_IMAGES)[0] < 6:
            path = self._find(TRAIN_IMAGES)
            raise refused(path, "holds fewer than 6 images, too few to split", self.remedy)

    def load(self) -> dict[Split, Labelled]:
        self.check()
        images, labels = self._read(TRAIN_IMAGES, TRAIN_LABELS)
        held_out = len(images) // 6
        return {
            "train": Labelled(images[:-held_out], labels[:-held_out]),
            "select": Labelled(images[-held_out:], labels[-held_out:]),
            "report": Labelled(*self._read(TEST_IMAGES, TEST_LABELS)),
        }

    def fingerprint(self) -> object:
        return marks([self._find(name) for name in FILES])

    @property
    def image_shape(self) -> ImageShape:
        _, height, width = self._shape(TRAIN_IMAGES)
        return 1, height, width

    def _find(self, name: str) -> Path:
        for path in (Path(self.path, name), Path(self.path, f"{name}.gz")):
            if path.is_file():
                return path
        raise ValueError(f"no such file: {Path(self.path, name)} (or .gz); {self.remedy}")

    def _shape(self, name: str) -> tuple[int, ...]:
        path = self._find(name)
        try:
            with _opened(path) as file:
                return _header(file, path, self.remedy)
        except (OSError, EOFError, zlib.error) as error:
            raise refused(path, f"cannot be read ({error})", self.remedy) from error

    def _read(self, images_name: str, labels_name: str) -> tuple[Tensor, Tensor]:
        images = torch.from_numpy(self._array(images_name)).unsqueeze(1)
        labels = self._array(labels_name)
        if labels.max() >= CLASSES:
            rule = f"holds the label {labels.max()}, beyond {CLASSES - 1}"
            raise refused(self._find(labels_name), rule, self.remedy)
        return images, torch.from_numpy(labels.astype(np.int64))

    def _array(self, name: str) -> NDArray[np.uint8]:
        path = self._find(name)
        try:
            with _opened(path) as file:
                shape = _header(file, path, self.remedy)
                header_size, told = file.tell(), math.prod(shape)
                rule = explain_excess(told, path.stat().st_size)
                if rule:
                    raise refused(path, rule, self.remedy)
                file.seek(0)
                # No more than one byte too many of what may decompress to any size.
                content = bytearray(file.read(header_size + told + 1))
        except (OSError, EOFError, zlib.error) as error:
            raise refused(path, f"cannot be read ({error})", self.remedy) from error
        held = len(content) - header_size
        if held != told:
            rule = f"holds {held} bytes of data where its header tells {told}"
            raise refused(path, rule, self.remedy)
        published = dict(zip(FILES, self.sha256, strict=True))[name]
        if self.verify and hashlib.sha256(content).hexdigest() != published:
            rule = f"is not the published file of {self.name}, by its sha256"
            raise refused(path, rule, f"{self.remedy}, or set verify: false")
        # A bytearray may be written to, as torch asks of what it wraps.
        return np.frombuffer(content, np.uint8, offset=header_size).reshape(shape)


def _opened(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast("IO[bytes]", gzip.open(path))
    return path.open("rb")


def _header(file: IO[bytes], path: Path, remedy: str) -> tuple[int, ...]:
    """Read the header of an IDX file of bytes and return the shape that it tells."""
    dimensions = 3 if "idx3" in path.name else 1
    magic = bytes((0, 0, 8, dimensions))
    head = file.read(4 + 4 * dimensions)
    if not head.startswith(magic) or len(head) < 4 + 4 * dimensions:
        rule = f"begins with {head[:4].hex() or 'nothing'}, IDX asks for {magic.hex()}"
        raise refused(path, rule, remedy)
    shape = tuple(int(size) for size in np.frombuffer(head, ">u4", offset=4))
    if not all(shape):
        raise refused(path, f"is empty: its header tells the shape {shape}", remedy)
    return shape


@DATASETS.register("fashion_mnist", paper="Xiao et al. 2017, arXiv:1708.07747")
@component
class FashionMNIST(IdxFolder):
    """70,000 pieces of clothing, 28x28, 10 classes: 50,000 train, 10,000 select, 10,000 report.

    Train is the first 50,000 of the published training images, select their last 10,000, report
    the published test images. Debian's package dataset-fashion-mnist carries the files.
    """

    sha256: ClassVar[tuple[str, ...]] = (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    )
    remedy: ClassVar[str] = (
        "`apt install dataset-fashion-mnist`, or give `path`, a folder with the published files"
    )

    path: AbsolutePath = "/usr/share/datasets/fashion-mnist"
    """Folder with the four IDX files, gzipped or not; by default that of Debian's package."""


@DATASETS.register("mnist", paper="LeCun et al. 1998")
@component
class MNIST(IdxFolder):
    """70,000 handwritten digits, 28x28: 50,000 train, 10,000 select, 10,000 report.

    Train is the first 50,000 of the published training images, select their last 10,000, report
    the published test images. Without `verify`, anything in the same format.
    """

    sha256: ClassVar[tuple[str, ...]] = (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    )
    remedy: ClassVar[str] = "`path` must be a folder with the four published IDX files"
