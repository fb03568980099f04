"""Small files in the formats of the published data sets, and the options that read them."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Options = dict[str, Any]


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def image_folder(folder: Path) -> Options:
    for seed, label in enumerate(("cats", "dogs")):
        (folder / label).mkdir()
        for i in range(10):
            pixels = noise(40, 50, 3, seed=100 * seed + i)
            Image.fromarray(pixels).save(folder / label / f"{i}.png")
    return {"path": str(folder)}


def celeba(folder: Path, pictures: int = 20) -> Options:
    images = folder / "img_align_celeba"
    images.mkdir()
    for i in range(pictures):
        # Blocks, not noise: a JPEG of noise is all ringing.
        blocks = np.kron(noise(14, 12, 3, seed=i), np.ones((16, 16, 1), np.uint8))[:218, :178]
        Image.fromarray(blocks).save(images / f"{i + 1:06}.jpg", quality=95)
    return {"path": str(folder)}


def celeba_partition(folder: Path, parts: str) -> Path:
    """Give the pictures in turn the parts whose digits `parts` holds."""
    lines = [f"{i:06}.jpg {part}" for i, part in enumerate(parts, 1)]
    listing = folder / "list_eval_partition.txt"
    listing.write_text("\n".join(lines) + "\n")
    return listing


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def idx(folder: Path, zipped: bool = False) -> Options:
    for seed, (part, n) in enumerate({"train": 60, "t10k": 10}.items()):
        labels = np.arange(n, dtype=np.uint8) % 10
        arrays = {"images-idx3": noise(n, 28, 28, seed=seed), "labels-idx1": labels}
        for kind, array in arrays.items():
            content = idx_bytes(array)
            path = folder / f"{part}-{kind}-ubyte{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(content) if zipped else content)
    return {"path": str(folder), "verify": False}


def short_bytes(text: bytes) -> bytes:
    """Return the opcode by which Python 2 pickled a short `str`."""
    return b"U" + bytes((len(text),)) + text


def cifar_bytes(data: np.ndarray, labels: list[int]) -> bytes:
    """Return a batch as Python 2 pickled it (protocol 2), opcode by opcode."""
    dtype = (
        b"cnumpy\ndtype\n(" + short_bytes(b"u1") + b"K\x00K\x01tR"
        b"(K\x03" + short_bytes(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    shape = b"(" + b"".join(b"J" + struct.pack("<i", size) for size in data.shape) + b"t"
    content = b"T" + struct.pack("<i", data.nbytes) + data.tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t"
        + short_bytes(b"b") + b"tR(K\x01" + shape + dtype + b"I00\n" + content + b"tb"
    )  # fmt: skip
    whole = b"](" + b"".join(b"J" + struct.pack("<i", label) for label in labels) + b"e"
    items = short_bytes(b"data") + array + short_bytes(b"labels") + whole
    return b"\x80\x02}(" + items + short_bytes(b"batch_label") + short_bytes(b"a batch") + b"u."


def cifar10(folder: Path) -> Options:
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for seed, name in enumerate(names):
        content = cifar_bytes(noise(10, 3072, seed=seed), list(range(10)))
        (folder / name).write_bytes(content)
    return {"path": str(folder), "verify": False}


def npz(folder: Path, **arrays: np.ndarray) -> Options:
    arrays = arrays or {"images": noise(20, 8, 8, 3), "labels": np.arange(20) % 4}
    np.savez_compressed(folder / "set.npz", **arrays)
    labels = {"labels_key": "labels"} if "labels" in arrays else {}
    return {"path": str(folder / "set.npz"), **labels}


def small(**options: Any) -> Callable[[Path], Options]:
    return lambda _: options


EXAMPLES: dict[str, Callable[[Path], Options]] = {
    "celeba": celeba,
    "cifar10": cifar10,
    "fashion_mnist": lambda folder: idx(folder, zipped=True),
    "image_folder": image_folder,
    "mnist": idx,
    "npz": npz,
    "polygons": small(train=200, test=50),
    "ring": small(train=300, test=100),
    "stacked_mnist": small(train=300, test=100),
}
"""Name -> what writes a small example and returns its options; none where defaults will do."""
