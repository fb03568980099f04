from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ganstudy.gan.datasets import DATASETS, SPLITS, BatchSampler, normalize


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for label in ("cats", "dogs"):
        (tmp_path / label).mkdir()
        for i in range(10):
            pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / label / f"{i}.png")
    return tmp_path


@pytest.fixture(params=DATASETS.names())
def dataset(request, folder):
    options = {"path": str(folder)} if request.param == "image_folder" else {}
    return DATASETS.build(request.param, **options)


def test_images_are_uint8_of_one_shape_and_splits_are_disjoint(dataset):
    seen: set[bytes] = set()
    for split in SPLITS:
        images, labels = dataset.images(split), dataset.labels(split)
        assert images.dtype == torch.uint8
        assert images.shape[1:] == dataset.image_shape
        assert len(images) > 0
        assert labels is None or len(labels) == len(images)
        own = {image.numpy().tobytes() for image in images}
        assert not own & seen, "an image stands in two splits"
        seen |= own


def test_loading_twice_gives_the_same(dataset):
    first, second = dataset.load(), dataset.load()
    for split in SPLITS:
        assert torch.equal(first[split].images, second[split].images)


def test_normalize_maps_to_minus_one_to_one():
    values = normalize(torch.tensor([0, 255], dtype=torch.uint8))
    assert values.tolist() == [-1.0, 1.0]


def test_mnist5k_splits_hold_the_sizes_and_every_digit():
    dataset = DATASETS.build("mnist5k")
    assert [len(dataset.images(s)) for s in SPLITS] == [3000, 1000, 1000]
    counts = torch.bincount(torch.cat([dataset.labels(s) for s in SPLITS]))
    assert counts.tolist() == [500] * 10
    assert dataset.images("train").max() == 255


def test_image_folder_labels_by_folder(folder):
    dataset = DATASETS.build("image_folder", path=str(folder), size=16, channels=1)
    assert dataset.image_shape == (1, 16, 16)
    assert set(dataset.labels("train").tolist()) == {0, 1}


def test_a_missing_folder_and_a_broken_image_are_told(tmp_path, folder):
    with pytest.raises(ValueError, match="no such folder"):
        DATASETS.build("image_folder", path=str(tmp_path / "none")).check()
    (folder / "cats" / "3.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"cannot read the image .*3\.png"):
        DATASETS.build("image_folder", path=str(folder)).load()


def test_an_epoch_shows_every_image_once():
    images = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1)
    sampler = BatchSampler(images, 5, torch.Generator().manual_seed(0))
    epochs = [
        torch.cat([sampler.next(lambda x: x), sampler.next(lambda x: x)]).flatten().tolist()
        for _ in range(3)
    ]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1]
