"""Folders of picture files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from pydantic import Field
from torch import Tensor

from ganstudy.gan.architectures import ImageShape
from ganstudy.gan.datasets.base import (
    DATASETS,
    SPLITS,
    Dataset,
    Labelled,
    Split,
    sixty_twenty_twenty,
    split_order,
)
from ganstudy.gan.datasets.files import AbsolutePath, marks, refused
from ganstudy.limits import MOST_PIXELS
from ganstudy.registry import component

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".pgm", ".ppm"})
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM")
"""What is decoded, whatever a file's name says: Pillow would run Ghostscript on PostScript."""
Picture = Image.Image


def decoded(
    paths: Sequence[Path], shape: ImageShape, square: Callable[[Picture], Picture]
) -> Tensor:
    """Return the pictures of `paths`, each made square by `square`, as uint8 of `shape`.

    One picture at a time goes into its place: what is in memory is the result.
    """
    channels, height, width = shape
    images = np.empty((len(paths), *shape), dtype=np.uint8)
    for image, path in zip(images, paths, strict=True):
        try:
            with Image.open(path, formats=FORMATS) as picture:
                if picture.width * picture.height > MOST_PIXELS:
                    raise ValueError(f"it has more than {MOST_PIXELS} pixels")
                pixels = square(picture.convert("L" if channels == 1 else "RGB"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(
                f"cannot read the image {path}: {error}; replace or remove it"
            ) from error
        image[:] = np.asarray(pixels).reshape(height, width, channels).transpose(2, 0, 1)
    return torch.from_numpy(images)


@DATASETS.register("image_folder")
@component
class ImageFolder(Dataset):
    """Every image below a folder, resized to a square; the first folder's name is the label.

    60 % train, 20 % select, 20 % report, cut after a fixed shuffle of the sorted paths. Images
    are resized so that the shorter side fits and then cropped at the centre.
    """

    path: AbsolutePath
    """Folder that holds the images; a relative path is relative to the YAML."""
    size: Annotated[int, Field(ge=8, le=128)] = 32
    """Side of the square images, in pixels."""
    channels: Literal[1, 3] = 3
    """1 for grey, 3 for colour."""

    def check(self) -> None:
        self._files()

    def load(self) -> dict[Split, Labelled]:
        paths = self._files()
        labels = self._labels(paths)
        order = split_order(sixty_twenty_twenty(len(paths)))
        return {
            split: Labelled(
                decoded([paths[i] for i in order[split]], self.image_shape, self._fit),
                None if labels is None else labels[order[split]],
            )
            for split in SPLITS
        }

    def fingerprint(self) -> object:
        return version("pillow"), marks(self._files())

    @property
    def image_shape(self) -> ImageShape:
        return self.channels, self.size, self.size

    def _files(self) -> list[Path]:
        folder = existing(self.path)
        paths = sorted(f for f in folder.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES)
        return enough(paths, folder)

    def _labels(self, paths: Sequence[Path]) -> Tensor | None:
        if any(path.parent == Path(self.path) for path in paths):
            return None
        folders = [path.relative_to(self.path).parts[0] for path in paths]
        named = sorted(set(folders))
        return torch.tensor([named.index(folder) for folder in folders])

    def _fit(self, picture: Picture) -> Picture:
        return ImageOps.fit(picture, (self.size, self.size))


def existing(path: str) -> Path:
    """Return the folder `path`, which must be there."""
    if not Path(path).is_dir():
        raise ValueError(f"no such folder: {path}; give `path`, the folder that holds the images")
    return Path(path)


def enough(paths: list[Path], folder: Path) -> list[Path]:
    """Return `paths` if they are enough for three splits."""
    if len(paths) < 5:
        raise ValueError(
            f"{folder} holds {len(paths)} images; three splits need at least 5 "
            f"({', '.join(sorted(IMAGE_SUFFIXES))})"
        )
    return paths


PARTITION = "list_eval_partition.txt"
PARTITION_REMEDY = "put the published list there, or remove it for a split by name"


@DATASETS.register("celeba", paper="Liu et al. 2015, arXiv:1411.7766")
@component
class CelebA(Dataset):
    """Faces of celebrities, aligned, 64x64: about 162,770 train, 19,867 select, 19,962 report.

    The aligned pictures (178x218) are cropped at the centre and resized with antialiasing. Train,
    select and report are the training, validation and test part of the published partition
    `list_eval_partition.txt` where that file lies in the folder, else 60 %, 20 % and 20 % after a
    fixed shuffle of the sorted names. Lucic et al. 2018 (arXiv:1711.10337) evaluate on the
    validation part, our select, and resize without antialiasing.
    """

    path: AbsolutePath
    """Folder with the pictures, or with the folder img_align_celeba that holds them."""
    crop: Annotated[int, Field(ge=16, le=178)] = 160
    """Side of the square that is cut out at the centre, in pixels."""
    size: Annotated[int, Field(ge=8, le=128)] = 64
    """Side of the images, in pixels."""
    limit: Annotated[int | None, Field(ge=5)] = None
    """Only so many pictures, picked by a fixed shuffle; null for all."""

    def check(self) -> None:
        self._parts()

    def load(self) -> dict[Split, Labelled]:
        parts = self._parts()
        return {
            split: Labelled(decoded(parts[split], self.image_shape, self._centre), None)
            for split in SPLITS
        }

    def fingerprint(self) -> object:
        parts = self._parts()
        return version("pillow"), {split: marks(paths) for split, paths in parts.items()}

    @property
    def image_shape(self) -> ImageShape:
        return 3, self.size, self.size

    def _parts(self) -> dict[Split, list[Path]]:
        """Return the pictures of every split."""
        folder = existing(self.path)
        nested = folder / "img_align_celeba"
        images = nested if nested.is_dir() else folder
        paths = enough(sorted(images.glob("*.jpg")), images)
        if self.limit is not None and self.limit < len(paths):
            rest = len(paths) - self.limit
            picked = split_order((self.limit, rest, 0))["train"]
            paths = [paths[i] for i in sorted(picked.tolist())]
        listing = folder / PARTITION
        if listing.is_file():
            return _by_listing(paths, listing)
        order = split_order(sixty_twenty_twenty(len(paths)))
        return {split: [paths[i] for i in order[split]] for split in SPLITS}

    def _centre(self, picture: Picture) -> Picture:
        if min(picture.size) < self.crop:
            raise ValueError(f"it is {picture.width}x{picture.height}, crop is {self.crop}")
        left, top = (picture.width - self.crop) // 2, (picture.height - self.crop) // 2
        box = (left, top, left + self.crop, top + self.crop)
        return picture.resize((self.size, self.size), Image.Resampling.BILINEAR, box)


def _by_listing(paths: Sequence[Path], listing: Path) -> dict[Split, list[Path]]:
    """Return `paths` by the split that each line of `listing`, "name number", gives them."""
    splits: dict[str, Split] = {}
    text = listing.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        name, _, part = line.partition(" ")
        if part.strip() not in {"0", "1", "2"}:
            rule = f"line {number} must be a name and 0, 1 or 2, got {line[:80]!r}"
            raise refused(listing, rule, PARTITION_REMEDY)
        splits[name] = SPLITS[int(part)]
    parts: dict[Split, list[Path]] = {split: [] for split in SPLITS}
    for path in paths:
        if path.name not in splits:
            raise refused(listing, f"does not name {path.name}", PARTITION_REMEDY)
        parts[splits[path.name]].append(path)
    for split, found in parts.items():
        if not found:
            raise refused(listing, f"leaves no picture for {split}", PARTITION_REMEDY)
    return parts
