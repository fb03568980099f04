from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ganstudy.gan.datasets import DATASETS, SPLITS
from tests.gan import datafiles
from tests.gan.datafiles import cifar_bytes, idx_bytes, noise, short_bytes

FASHION = Path("/usr/share/datasets/fashion-mnist")


def complaint(name, options) -> str:
    """Return the one line that loading ends with."""
    with pytest.raises(ValueError) as error:  # noqa: PT011
        DATASETS.build(name, **options).load()
    message = str(error.value)
    assert "\n" not in message
    assert message.count("; ") >= 1, "the remedy stands behind a semicolon"
    return message


# Folders of pictures


def test_image_folder_labels_by_folder(tmp_path):
    options = datafiles.image_folder(tmp_path)
    dataset = DATASETS.build("image_folder", **options, size=16, channels=1)
    assert dataset.image_shape == (1, 16, 16)
    assert set(dataset.labels("train").tolist()) == {0, 1}


def test_a_missing_folder_and_a_broken_image_are_told(tmp_path):
    missing = {"path": str(tmp_path / "none")}
    for name in ("image_folder", "celeba"):
        with pytest.raises(ValueError, match="no such folder: .*none"):
            DATASETS.build(name, **missing).check()
    options = datafiles.image_folder(tmp_path)
    (tmp_path / "cats" / "3.png").write_bytes(b"not a picture")
    assert "3.png" in complaint("image_folder", options)


def test_a_truncated_picture_is_told(tmp_path):
    options = datafiles.celeba(tmp_path)
    path = tmp_path / "img_align_celeba" / "000007.jpg"
    path.write_bytes(path.read_bytes()[:2000])
    assert f"cannot read the image {path}: " in complaint("celeba", options)


def test_too_few_pictures_are_told(tmp_path):
    options = datafiles.celeba(tmp_path, pictures=4)
    assert "holds 4 images; three splits need at least 5" in complaint("celeba", options)


def test_celeba_is_cropped_at_the_centre_and_resized(tmp_path):
    (tmp_path / "img_align_celeba").mkdir()
    pixels = np.zeros((218, 178, 3), np.uint8)
    pixels[29:189, 9:169] = (200, 100, 50)
    for i in range(5):
        Image.fromarray(pixels).save(tmp_path / "img_align_celeba" / f"{i}.jpg", quality=100)
    images = DATASETS.build("celeba", path=str(tmp_path)).images("train")
    # JPEG shifts a flat colour by at most a level or two, and rings for 8 pixels at the edge.
    inner = images[:, :, 4:-4, 4:-4].float()
    expected = torch.tensor([200.0, 100.0, 50.0]).view(1, 3, 1, 1).expand_as(inner)
    assert torch.allclose(inner, expected, rtol=0, atol=3)
    assert images.float().mean((0, 2, 3)).sub(expected[0, :, 0, 0]).abs().max() < 5


def test_celeba_follows_the_published_partition(tmp_path):
    options = datafiles.celeba(tmp_path, pictures=10)
    datafiles.celeba_partition(tmp_path, "0000001122")
    dataset = DATASETS.build("celeba", **options)
    assert [len(dataset.images(split)) for split in SPLITS] == [6, 2, 2]
    alone = tmp_path / "alone"
    alone.mkdir()
    for i in range(5):
        name = "000007.jpg"
        content = (tmp_path / "img_align_celeba" / name).read_bytes()
        (alone / f"{i}.jpg").write_bytes(content)
    seventh = DATASETS.build("celeba", path=str(alone)).images("train")[0]
    assert torch.equal(dataset.images("select")[0], seventh)


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ("000000112", "does not name 000010.jpg"),
        ("0000001123", "line 10 must be a name and 0, 1 or 2"),
        ("0000000001", "leaves no picture for report"),
    ],
)
def test_a_wrong_partition_is_told(tmp_path, parts, told):
    options = datafiles.celeba(tmp_path, pictures=10)
    listing = datafiles.celeba_partition(tmp_path, parts)
    message = complaint("celeba", options)
    assert told in message
    assert str(listing) in message


def test_celeba_takes_a_subset_and_refuses_a_crop_beyond_the_picture(tmp_path):
    options = datafiles.celeba(tmp_path)
    limited = DATASETS.build("celeba", **options, limit=10, size=16)
    assert [len(limited.images(split)) for split in SPLITS] == [6, 2, 2]
    Image.new("RGB", (100, 100)).save(tmp_path / "img_align_celeba" / "000005.jpg")
    assert "it is 100x100, crop is 160" in complaint("celeba", options)


# IDX


@pytest.mark.skipif(not FASHION.exists(), reason="the package dataset-fashion-mnist is missing")
def test_the_packaged_fashion_mnist_is_the_published_one():
    dataset = DATASETS.build("fashion_mnist")
    assert [len(dataset.images(split)) for split in SPLITS] == [50_000, 10_000, 10_000]
    assert torch.bincount(dataset.labels("report")).tolist() == [1000] * 10
    both = torch.cat([dataset.labels("train"), dataset.labels("select")])
    assert torch.bincount(both).tolist() == [6000] * 10


def test_missing_files_are_told_with_where_to_get_them(tmp_path):
    fashion = complaint("fashion_mnist", {"path": str(tmp_path)})
    assert str(tmp_path / "train-images-idx3-ubyte") in fashion
    assert "apt install dataset-fashion-mnist" in fashion
    assert "four published IDX files" in complaint("mnist", {"path": str(tmp_path)})


def test_zipped_and_plain_files_give_the_same_in_the_published_order(tmp_path):
    (tmp_path / "plain").mkdir()
    (tmp_path / "zipped").mkdir()
    plain = DATASETS.build("mnist", **datafiles.idx(tmp_path / "plain"))
    zipped = DATASETS.build("mnist", **datafiles.idx(tmp_path / "zipped", zipped=True))
    for split in SPLITS:
        assert torch.equal(plain.images(split), zipped.images(split))
    published = torch.from_numpy(noise(60, 28, 28)).unsqueeze(1)
    assert torch.equal(plain.images("train"), published[:50])
    assert torch.equal(plain.images("select"), published[50:])
    assert plain.labels("report").tolist() == list(range(10))


def test_files_that_are_not_the_published_ones_are_refused(tmp_path):
    options = datafiles.idx(tmp_path)
    for name in ("mnist", "fashion_mnist"):
        message = complaint(name, options | {"verify": True})
        assert "train-images-idx3-ubyte: is not the published file" in message
        assert "verify: false" in message


TRAIN = noise(60, 28, 28)
BROKEN_IDX = [
    ("train-images-idx3-ubyte", b"", "begins with nothing"),
    ("train-images-idx3-ubyte", idx_bytes(TRAIN)[:10], "begins with 00000803"),
    ("train-images-idx3-ubyte", b"PK\3\4" + idx_bytes(TRAIN)[4:], "begins with 504b0304"),
    ("train-images-idx3-ubyte", idx_bytes(TRAIN)[:-1], "holds 47039 bytes .* tells 47040"),
    ("train-images-idx3-ubyte", idx_bytes(TRAIN) + b"0", "holds 47041 bytes"),
    ("train-images-idx3-ubyte", idx_bytes(TRAIN[:5]), "labels for 5 images"),
    ("t10k-images-idx3-ubyte", idx_bytes(noise(10, 20, 20)), "training images are"),
    ("t10k-images-idx3-ubyte", idx_bytes(TRAIN[:0]), "is empty"),
    ("t10k-labels-idx1-ubyte", idx_bytes(np.arange(9, dtype=np.uint8)), "holds 9 labels"),
    ("t10k-labels-idx1-ubyte", idx_bytes(np.arange(1, 11, dtype=np.uint8)), "the label 10"),
    ("t10k-labels-idx1-ubyte", idx_bytes(TRAIN[:10]), "begins with 00000803"),
]


@pytest.mark.parametrize(("name", "content", "told"), BROKEN_IDX)
def test_a_broken_idx_file_is_told(tmp_path, name, content, told):
    options = datafiles.idx(tmp_path)
    (tmp_path / name).write_bytes(content)
    message = complaint("mnist", options)
    assert str(tmp_path / name.split("-")[0]) in message
    with pytest.raises(ValueError, match=told):
        raise ValueError(message)


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-50], lambda content: b"no gzip", lambda content: b""]
)
def test_a_broken_gzip_file_is_told(tmp_path, damage):
    options = datafiles.idx(tmp_path, zipped=True)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    assert str(path) in complaint("mnist", options)


def test_a_flipped_bit_in_a_gzip_file_is_told(tmp_path):
    options = datafiles.idx(tmp_path, zipped=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 8
    path.write_bytes(content)
    assert str(path) in complaint("mnist", options)
    gzip.open(path).close()  # the header alone is whole


# CIFAR-10


def test_cifar10_takes_the_batches_in_order(tmp_path):
    dataset = DATASETS.build("cifar10", **datafiles.cifar10(tmp_path))
    assert [len(dataset.images(split)) for split in SPLITS] == [40, 10, 10]
    fourth = torch.from_numpy(noise(10, 3072, seed=3)).view(-1, 3, 32, 32)
    assert torch.equal(dataset.images("train")[30:], fourth)
    test = torch.from_numpy(noise(10, 3072, seed=5)).view(-1, 3, 32, 32)
    assert torch.equal(dataset.images("report"), test)
    assert dataset.labels("report").tolist() == list(range(10))


def test_the_example_is_a_pickle_as_python_2_wrote_them():
    batch = noise(2, 3072)
    read = pickle.loads(
        cifar_bytes(batch, [3, 7]).replace(b"numpy.core.", b"numpy._core."), encoding="bytes"
    )
    assert np.array_equal(read[b"data"], batch)
    assert read[b"labels"] == [3, 7]


def test_other_batches_than_the_published_are_refused(tmp_path):
    message = complaint("cifar10", datafiles.cifar10(tmp_path) | {"verify": True})
    assert "data_batch_1: is not the published file" in message
    assert "verify: false" in message


@pytest.mark.parametrize(
    ("module", "name", "argument"),
    [
        ("posix", "system", "touch '{proof}'"),
        ("builtins", "exec", "open('{proof}', 'w').close()"),
        ("numpy", "load", "{proof}"),
        ("numpy.core.multiarray", "fromfile", "{proof}"),
    ],
)
def test_a_pickle_that_runs_something_is_refused_unrun(tmp_path, module, name, argument):
    options, proof = datafiles.cifar10(tmp_path), tmp_path / "ran"
    called = f"c{module}\n{name}\n(".encode()
    harm = called + short_bytes(argument.format(proof=proof).encode()) + b"tR"
    content = b"\x80\x02}(" + short_bytes(b"data") + harm + b"u."
    (tmp_path / "data_batch_3").write_bytes(content)
    message = complaint("cifar10", options)
    assert f"data_batch_3: is no CIFAR-10 batch (it asks for {module}.{name}, " in message
    assert not proof.exists()


BROKEN_BATCHES = [
    (b"", "is no pickle"),
    (b"no pickle", "is no pickle"),
    (cifar_bytes(noise(10, 3072), list(range(10)))[:-40], "is no CIFAR-10 batch"),
    (pickle.dumps([1, 2], protocol=2), "must hold a dict"),
    (cifar_bytes(noise(10, 3071), list(range(10))), r"`data` must be \(n, 3072\), got \(10, 3071"),
    (cifar_bytes(noise(10, 3072), []).replace(b"u1", b"f8"), "an array of b'f8', not of uint8"),
    (cifar_bytes(noise(10, 3072), []).replace(b"u1", b"O8"), "an array of b'O8', not of uint8"),
    (cifar_bytes(noise(10, 3072), []).replace(b"I00\n", b"I01\n"), "in another layout"),
    (cifar_bytes(noise(10, 3072), list(range(9))), "holds 9 labels for 10 images"),
    (cifar_bytes(noise(10, 3072), list(range(1, 11))), "whole numbers from 0 to 9"),
]


@pytest.mark.parametrize(("content", "told"), BROKEN_BATCHES)
def test_a_broken_batch_is_told(tmp_path, content, told):
    options = datafiles.cifar10(tmp_path)
    (tmp_path / "test_batch").write_bytes(content)
    message = complaint("cifar10", options)
    assert message.startswith(str(tmp_path / "test_batch"))
    with pytest.raises(ValueError, match=told):
        raise ValueError(message)


def test_a_missing_batch_is_told(tmp_path):
    options = datafiles.cifar10(tmp_path)
    (tmp_path / "data_batch_4").unlink()
    assert "no such file: " + str(tmp_path / "data_batch_4") in complaint("cifar10", options)


# npz


PIXELS = noise(20, 8, 6)


@pytest.mark.parametrize(
    ("images", "shape"),
    [
        (PIXELS, (1, 8, 6)),
        (PIXELS[..., None], (1, 8, 6)),
        (PIXELS[:, None], (1, 8, 6)),
        (PIXELS / 255, (1, 8, 6)),
        ((PIXELS / 255).astype(np.float32), (1, 8, 6)),
        (noise(20, 8, 6, 3), (3, 8, 6)),
        (noise(20, 3, 8, 6), (3, 8, 6)),
        (np.asfortranarray(noise(20, 3, 8, 6)), (3, 8, 6)),
    ],
)
def test_npz_takes_what_it_says(tmp_path, images, shape):
    dataset = DATASETS.build("npz", **datafiles.npz(tmp_path, images=images))
    assert dataset.image_shape == shape
    assert [len(dataset.images(split)) for split in SPLITS] == [12, 4, 4]
    held = torch.cat([dataset.images(split) for split in SPLITS]).numpy()
    # Floats are k / 255 here: rounding gives back k.
    given = images if images.dtype == np.uint8 else PIXELS
    assert sorted(image.tobytes() for image in held) == sorted(
        np.ascontiguousarray(image.transpose(2, 0, 1) if image.shape[-1] == 3 else image).tobytes()
        for image in given
    )


def test_npz_labels_stay_with_their_images(tmp_path):
    options = datafiles.npz(tmp_path, images=PIXELS, labels=PIXELS[:, 0, 0].astype(np.uint16))
    dataset = DATASETS.build("npz", **options)
    for split in SPLITS:
        assert torch.equal(dataset.labels(split), dataset.images(split)[:, 0, 0, 0].long())


def with_value(value: float) -> np.ndarray:
    images = np.full((20, 8, 6), 0.5)
    images[7, 3, 2] = value
    return images


BROKEN_NPZ = [
    ({"images": with_value(np.nan)}, "holds floats from nan"),
    ({"images": with_value(np.inf)}, "holds floats from 0.5 to inf"),
    ({"images": with_value(1.5)}, "holds floats from 0.5 to 1.5; floats must lie in"),
    ({"images": with_value(-0.1)}, "holds floats from -0.1"),
    ({"images": PIXELS.astype(np.int32)}, "is int32; store uint8"),
    ({"images": PIXELS[0]}, r"has the shape \(8, 6\)"),
    ({"images": noise(20, 8, 6, 2)}, r"has the shape \(20, 8, 6, 2\); store"),
    ({"images": noise(20, 3, 6, 3)}, "and not both"),
    ({"images": PIXELS[:4]}, "three splits need at least 5 images"),
    ({"images": PIXELS[:, :0]}, "three splits need at least 5 images"),
    ({"pictures": PIXELS}, "array 'images' is not in it; it holds pictures"),
    ({"images": np.array([[[None]]] * 20)}, "is object; store uint8"),
    ({"images": PIXELS, "labels": np.array([None] * 20)}, r"is \(20,\) object"),
    ({"images": PIXELS, "labels": np.arange(19)}, r"is \(19,\) int64 for 20 images"),
    ({"images": PIXELS, "labels": np.arange(20) / 2}, "one whole number for each"),
    ({"images": PIXELS, "labels": np.arange(20) - 1}, "holds the label -1"),
]


@pytest.mark.parametrize(("arrays", "told"), BROKEN_NPZ)
def test_wrong_arrays_are_told(tmp_path, arrays, told):
    options = datafiles.npz(tmp_path, **arrays)
    message = complaint("npz", options)
    assert message.startswith(options["path"])
    with pytest.raises(ValueError, match=told):
        raise ValueError(message)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: b"no archive" * 9,
        lambda content: content[:900] + bytes(50) + content[950:],
    ],
)
def test_a_broken_npz_is_told(tmp_path, damage):
    options = datafiles.npz(tmp_path)
    path = Path(options["path"])
    path.write_bytes(damage(path.read_bytes()))
    assert f"{path}: cannot be read (" in complaint("npz", options)


def test_a_missing_npz_is_told(tmp_path):
    assert "no such file: " in complaint("npz", {"path": str(tmp_path / "set.npz")})
