"""CIFAR-10 in its python version, read by an unpickler that runs nothing."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from ganstudy.gan.architectures import ImageShape
from ganstudy.gan.datasets.base import DATASETS, Dataset, Labelled, Split
from ganstudy.gan.datasets.files import AbsolutePath, marks, refused
from ganstudy.registry import component

CLASSES = 10
PIXELS = 3 * 32 * 32
BATCHES: Mapping[str, str] = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
"""The files with the md5 that is published for each."""
REMEDY = "`path` must be the folder cifar-10-batches-py of the published CIFAR-10 python version"


@DATASETS.register("cifar10", paper="Krizhevsky 2009")
@component
class CIFAR10(Dataset):
    """60,000 small photographs, 32x32, 10 classes: 40,000 train, 10,000 select, 10,000 report.

    Train is data_batch_1 to data_batch_4, select data_batch_5, report test_batch. The files are
    pickles; whatever they hold besides arrays of numbers, texts and lists is refused unread.
    """

    path: AbsolutePath
    """The folder cifar-10-batches-py; a relative path is relative to the YAML."""
    verify: bool = True
    """Whether the files must be the published ones, by their checksums."""

    def check(self) -> None:
        for path in self._files():
            if not path.is_file():
                raise ValueError(f"no such file: {path}; {REMEDY}")
            with path.open("rb") as file:
                if file.read(1) != pickle.PROTO:
                    raise refused(path, "is no pickle", REMEDY)

    def load(self) -> dict[Split, Labelled]:
        self.check()
        batches = [self._read(path) for path in self._files()]
        images, labels = zip(*batches[:4], strict=True)
        return {
            "train": Labelled(torch.cat(images), torch.cat(labels)),
            "select": batches[4],
            "report": batches[5],
        }

    def fingerprint(self) -> object:
        self.check()
        return marks(self._files())

    @property
    def image_shape(self) -> ImageShape:
        return 3, 32, 32

    def _files(self) -> list[Path]:
        return [Path(self.path, name) for name in BATCHES]

    def _read(self, path: Path) -> Labelled:
        content = path.read_bytes()
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if self.verify and md5 != BATCHES[path.name]:
            rule = "is not the published file, by its md5"
            raise refused(path, rule, f"{REMEDY}, or set verify: false")
        try:
            batch = _NumbersOnly(io.BytesIO(content), encoding="bytes").load()
        except Exception as error:  # a broken pickle may raise anything
            raise refused(path, f"is no CIFAR-10 batch ({error})", REMEDY) from error
        rule = _broken_rule(batch)
        if rule:
            raise refused(path, rule, REMEDY)
        images = torch.from_numpy(batch[b"data"].array.copy()).view(-1, 3, 32, 32)
        return Labelled(images, torch.tensor(batch[b"labels"]))


class _Bytes:
    """Stands in for `numpy.dtype` while a batch is read: of bytes, or refused."""

    def __init__(self, code: object, *_: object) -> None:
        if code not in (b"u1", "u1"):
            raise pickle.UnpicklingError(f"it holds an array of {code!r}, not of uint8")

    def __setstate__(self, state: object) -> None:
        """Nothing is left to be set."""


class _Array:
    """Stands in for an array of bytes while a batch is read.

    numpy's own `__setstate__` trusts what it is given, down to pointers.
    """

    def __init__(self, *_: object) -> None:
        self.array = np.empty(0, dtype=np.uint8)

    def __setstate__(self, state: tuple[object, tuple[int, ...], object, bool, bytes]) -> None:
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, _Bytes) or fortran:
            raise pickle.UnpicklingError("it holds an array in another layout")
        self.array = np.frombuffer(content, dtype=np.uint8).reshape(shape)


class _NumbersOnly(pickle.Unpickler):
    """An unpickler that knows of arrays of bytes and of nothing else, and runs nothing."""

    GLOBALS: ClassVar[Mapping[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): None,
        ("numpy", "dtype"): _Bytes,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a global, or refuse."""
        if (module, name) not in self.GLOBALS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not read")
        return self.GLOBALS[module, name]


def _broken_rule(batch: object) -> str:
    """Return which rule of a batch `batch` breaks, empty if none."""
    data = batch.get(b"data") if isinstance(batch, dict) else None
    labels = batch.get(b"labels") if isinstance(batch, dict) else None
    if not isinstance(data, _Array) or not isinstance(labels, list):
        return "must hold a dict with the array `data` and the list `labels`"
    shape = data.array.shape
    if len(shape) != 2 or shape[1] != PIXELS or not shape[0]:
        return f"`data` must be (n, {PIXELS}), got {shape}"
    if len(labels) != shape[0]:
        return f"holds {len(labels)} labels for {shape[0]} images"
    if not all(isinstance(label, int) and 0 <= label < CLASSES for label in labels):
        return f"labels must be whole numbers from 0 to {CLASSES - 1}"
    return ""
