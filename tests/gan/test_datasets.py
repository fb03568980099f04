from __future__ import annotations

import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from ganstudy.gan.datasets import DATASETS, SPLITS, BatchSampler, Labelled, loaded, normalize
from ganstudy.gan.datasets.base import Dataset
from ganstudy.gan.datasets.cache import INDEX, shared
from ganstudy.registry import StudyError, component
from tests.gan.datafiles import EXAMPLES, noise

POINTS = {"dirac", "ring", "grid"}


@pytest.fixture(params=DATASETS.names())
def dataset(request, tmp_path):
    example = EXAMPLES.get(request.param)
    return DATASETS.build(request.param, **(example(tmp_path) if example else {}))


def test_what_every_data_set_holds(dataset):
    dataset.check()
    for split in SPLITS:
        images, labels = dataset.images(split), dataset.labels(split)
        assert images.dtype == (torch.float32 if dataset.name in POINTS else torch.uint8)
        assert images.shape[1:] == dataset.image_shape
        assert len(images) > 0
        values = normalize(images)
        assert values.dtype == torch.float32
        assert values.abs().max() <= 1
        if labels is not None:
            assert labels.dtype == torch.int64
            assert len(labels) == len(images)
            assert labels.min() >= 0
            assert dataset.modes is None or labels.max() < dataset.modes


def test_splits_are_disjoint(dataset):
    if dataset.name == "dirac":  # its splits are one point, by definition
        assert not any(dataset.images(split).any() for split in SPLITS)
        return
    seen: set[bytes] = set()
    for split in SPLITS:
        own = {image.numpy().tobytes() for image in dataset.images(split)}
        assert not own & seen, "an image stands in two splits"
        seen |= own


def test_loading_twice_gives_the_same_and_so_does_the_cache(dataset):
    loaded.cache_clear()
    first, second, held = dataset.load(), dataset.load(), loaded(dataset)
    loaded.cache_clear()
    for other in (second, held, loaded(dataset)):
        for split in SPLITS:
            assert torch.equal(first[split].images, other[split].images)
            if first[split].labels is None:
                assert other[split].labels is None
            else:
                assert torch.equal(first[split].labels, other[split].labels)


def test_the_global_seeds_neither_matter_nor_change(dataset):
    first = dataset.load()["train"].images
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    states = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    assert torch.equal(dataset.load()["train"].images, first)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002


def test_a_relative_path_is_kept_as_the_absolute_one(dataset, tmp_path, monkeypatch):
    if not hasattr(dataset, "path"):  # reads no files: no option may be a path in disguise
        assert not any("path" in option.name for option in DATASETS.options(dataset.name))
        return
    monkeypatch.chdir(tmp_path.parent)
    options = dataset.to_dict() | {"path": dataset.path.replace(str(tmp_path), tmp_path.name)}
    assert DATASETS.parse(options) == dataset


def test_normalize_maps_to_minus_one_to_one_and_leaves_points_alone():
    values = normalize(torch.tensor([0, 255], dtype=torch.uint8))
    assert values.tolist() == [-1.0, 1.0]
    points = torch.tensor([0.3, -0.7])
    assert normalize(points) is points


# Packaged data


def test_mnist5k_splits_hold_the_sizes_and_every_digit():
    dataset = DATASETS.build("mnist5k")
    assert [len(dataset.images(s)) for s in SPLITS] == [3000, 1000, 1000]
    counts = torch.bincount(torch.cat([dataset.labels(s) for s in SPLITS]))
    assert counts.tolist() == [500] * 10
    assert dataset.images("train").max() == 255


def test_a_stacked_image_is_made_of_three_digits_of_its_own_split():
    digits = DATASETS.build("mnist5k")
    stacked = DATASETS.build("stacked_mnist", train=200, test=100)
    for split in SPLITS:
        pairs = zip(digits.images(split), digits.labels(split).tolist(), strict=True)
        known = {image.numpy().tobytes(): label for image, label in pairs}
        images, labels = stacked.images(split), stacked.labels(split)
        for image, label in zip(images, labels.tolist(), strict=True):
            a, b, c = (known[channel.numpy().tobytes()] for channel in image)
            assert label == 100 * a + 10 * b + c
    assert stacked.modes == 1000


def test_stacked_digits_reach_nearly_all_modes():
    # 20,000 draws miss a mode with probability (1 - 1/1000)^20000 = 2e-9.
    labels = DATASETS.build("stacked_mnist").labels("train")
    assert len(labels.unique()) == 1000


def test_no_pixel_of_a_photograph_is_in_two_splits(monkeypatch):
    rows, columns = np.mgrid[0:427, 0:640]
    coded = np.stack((columns % 256, columns // 256, rows % 256), axis=-1).astype(np.uint8)
    bunch = type("Bunch", (), {"images": [coded]})
    monkeypatch.setattr("sklearn.datasets.load_sample_images", lambda: bunch)
    splits = DATASETS.build("photo_patches").load()
    seen: set[int] = set()
    for split in SPLITS:
        patches = splits[split].images.long()
        own = set((patches[:, 0] + 256 * patches[:, 1]).unique().tolist())
        assert not own & seen
        seen |= own
    assert seen == set(range(640)), "stripes of all splits fill the photograph"


def test_photo_patches_are_as_many_as_told():
    dataset = DATASETS.build("photo_patches")
    assert [len(dataset.images(s)) for s in SPLITS] == [3400, 1400, 1400]


# Points


@pytest.mark.parametrize("name", ["ring", "grid"])
def test_a_mixture_has_its_centres_and_its_spread(name):
    dataset = DATASETS.build(name)
    points, labels = dataset.images("train").flatten(1), dataset.labels("train")
    for mode, center in enumerate(dataset.centers()):
        own = points[labels == mode]
        # About 400 points or more a mode: 5 standard errors of the mean and of the spread.
        assert len(own) > 300
        assert torch.allclose(own.mean(0), center, rtol=0, atol=5 * dataset.std / len(own) ** 0.5)
        assert torch.allclose(own.std(0), torch.tensor(dataset.std), rtol=5 / (2 * 300) ** 0.5)
    assert dataset.modes == len(dataset.centers())


def test_the_ring_is_the_papers_scaled():
    ring = DATASETS.build("ring")
    assert torch.allclose(ring.centers().norm(dim=1), torch.full((8,), 0.7))
    assert ring.radius / ring.std == pytest.approx(2 / 0.02)
    assert torch.allclose(ring.centers()[0], torch.tensor([0.7, 0.0]))


def test_the_grid_spans_and_is_spaced_as_told():
    grid = DATASETS.build("grid")
    ticks = grid.centers()[:, 0].unique()
    assert torch.allclose(ticks, torch.tensor([-0.8, -0.4, 0.0, 0.4, 0.8]), atol=1e-6)
    assert 0.4 / grid.std == pytest.approx(2 / 0.05)
    assert len({tuple(center.tolist()) for center in grid.centers()}) == 25


def test_a_mixture_beyond_the_range_is_refused():
    with pytest.raises(StudyError, match=r"must lie within \[-1, 1\].*lower std"):
        DATASETS.build("ring", radius=0.9, std=0.05)
    DATASETS.build("ring", radius=0.9, std=0.01)


# The sampler


def test_an_epoch_shows_every_image_once():
    images = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1)
    sampler = BatchSampler(images, 5, torch.Generator().manual_seed(0))
    epochs = [
        torch.cat([sampler.next(lambda x: x), sampler.next(lambda x: x)]).flatten().tolist()
        for _ in range(3)
    ]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_without_flips_only_the_order_is_drawn():
    rng, reference = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    sampler = BatchSampler(torch.zeros(10, 1, 2, 2, dtype=torch.uint8), 5, rng)
    sampler.next(), sampler.next()
    torch.randperm(10, generator=reference)
    assert torch.equal(rng.get_state(), reference.get_state())


def test_flips_change_no_order():
    images = torch.from_numpy(noise(20, 1, 4, 4))
    plain = BatchSampler(images, 5, torch.Generator().manual_seed(0))
    flipped = BatchSampler(images, 5, torch.Generator().manual_seed(0), torch.Generator())
    for _ in range(9):
        one, other = plain.next(lambda x: x), flipped.next(lambda x: x)
        assert ((one == other) | (one == other.flip(3))).flatten(1).all()


def test_flips_mirror_about_half_of_the_images_left_to_right():
    images = torch.from_numpy(noise(1000, 1, 4, 4))
    sampler = BatchSampler(images, 1000, torch.Generator(), torch.Generator().manual_seed(0))
    batch = sampler.next(lambda x: x)
    shown = images[sampler.order]
    same = (batch == shown).flatten(1).all(1)
    mirrored = (batch == shown.flip(3)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    # 5 standard deviations of 1,000 fair coins.
    assert abs(int(mirrored.sum()) - 500) < 80


def test_a_sampler_goes_on_where_its_state_says():
    images = torch.from_numpy(noise(10, 1, 4, 4))
    sampler = BatchSampler(images, 4, torch.Generator().manual_seed(0), torch.Generator())
    sampler.next()
    other = BatchSampler(images, 4, torch.Generator(), torch.Generator())
    other.load_state_dict(sampler.state_dict())
    other.rng.set_state(sampler.rng.get_state())
    other.flips.set_state(sampler.flips.get_state())
    for _ in range(5):
        assert torch.equal(sampler.next(), other.next())


def test_a_batch_larger_than_the_set_is_refused():
    with pytest.raises(ValueError, match="batch_size 11 is larger than the 10 images"):
        BatchSampler(torch.zeros(10, 1, 1, 1), 11, torch.Generator())


# Held once per node


@component
class Counted(Dataset):
    """Noise that counts how often it is decoded."""

    seed: int = 0
    """Of the noise."""
    source: str = ""
    """What it claims to be read from."""

    def load(self):
        DECODED.append(self.seed)
        images = torch.from_numpy(noise(30, 1, 4, 4, seed=self.seed))
        return {
            "train": Labelled(images[:10], torch.arange(10)),
            "select": Labelled(images[10:20], None),
            "report": Labelled(images[20:], torch.arange(10)),
        }

    def fingerprint(self):
        return SOURCES.get(self.source)


DECODED: list[int] = []
SOURCES: dict[str, object] = {}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of this test's own; reading twice stands for a second process."""
    monkeypatch.setenv("GANSTUDY_CACHE", str(tmp_path / "cache"))
    loaded.cache_clear()
    DECODED.clear()
    return tmp_path / "cache" / "datasets"


def open_anew(dataset):
    loaded.cache_clear()
    return loaded(dataset)


def test_a_second_process_decodes_nothing(cache):
    first, second = open_anew(Counted()), open_anew(Counted())
    assert DECODED == [0]
    for split in SPLITS:
        assert torch.equal(first[split].images, second[split].images)
    assert second["select"].labels is None
    assert second["report"].labels.tolist() == list(range(10))


def test_other_options_and_another_source_are_decoded_anew(cache):
    open_anew(Counted())
    open_anew(Counted(seed=1))
    SOURCES["file"] = ["name", 1]
    open_anew(Counted(source="file"))
    SOURCES["file"] = ["name", 2]
    open_anew(Counted(source="file"))
    assert len(DECODED) == 4
    assert len(list(cache.iterdir())) == 4


def test_a_changed_file_is_read_anew(cache, tmp_path):
    options = EXAMPLES["npz"](tmp_path)
    before = open_anew(DATASETS.build("npz", **options))["train"].images
    time.sleep(0.02)  # a tick of the file system's clock
    np.savez(tmp_path / "set.npz", images=noise(20, 8, 8, 3, seed=9), labels=np.zeros(20, int))
    after = open_anew(DATASETS.build("npz", **options))["train"].images
    assert not torch.equal(before, after)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    content = bytearray(path.read_bytes())
    content[-20] ^= 1  # in an array it is of a pixel or a label
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["train.images.npy", "report.labels.npy", INDEX])
@pytest.mark.parametrize("damage", [truncate, empty, flip, lambda path: path.unlink()])
def test_a_damaged_cache_is_made_anew(cache, name, damage):
    open_anew(Counted())
    (folder,) = cache.iterdir()
    damage(folder / name)
    for _ in range(2):
        splits = open_anew(Counted())
        assert torch.equal(splits["train"].images, Counted().load()["train"].images)
        DECODED.pop()
    assert len(DECODED) == 2, "once at first, once for the damage, and kept again"


def test_a_cache_that_cannot_be_written_costs_time_only(cache):
    cache.parent.write_text("a file where the folder should be")
    assert torch.equal(open_anew(Counted())["train"].images, Counted().load()["train"].images)
    assert cache.parent.is_file()


def test_of_processes_that_start_at_once_one_decodes(tmp_path):
    expected = {"images": noise(300, 1, 28, 28), "labels": np.arange(300)}
    ready, made, seen = threading.Barrier(8), [], []

    def make():
        made.append(threading.get_ident())
        time.sleep(0.1)
        return dict(expected)

    def work() -> None:
        ready.wait()
        found = shared(tmp_path / "set", make)
        seen.append(all(np.array_equal(found[name], expected[name]) for name in expected))

    together(work)
    assert seen == [True] * 8
    assert len(made) == 1


def test_writers_without_a_lock_do_not_harm_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr("filelock.FileLock.acquire", no_lock)
    expected = {"images": noise(300, 1, 28, 28), "labels": np.arange(300)}
    ready, seen = threading.Barrier(8), []

    def work() -> None:
        ready.wait()
        for _ in range(5):
            found = shared(tmp_path / "set", lambda: dict(expected))
            seen.append(all(np.array_equal(found[name], expected[name]) for name in expected))

    together(work)
    assert seen == [True] * 40
    names = sorted(path.name for path in (tmp_path / "set").iterdir())
    assert names == ["images.npy", INDEX, "labels.npy"]


def no_lock(*_) -> None:
    raise NotImplementedError("a file system without locks")


def together(work) -> None:
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_processes_share_pages_and_none_writes_to_the_others(cache):
    images = open_anew(Counted())["train"].images
    (folder,) = cache.iterdir()
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(folder) in maps.read_text(), "the images are not mapped from the cache"
    images.zero_()
    assert open_anew(Counted())["train"].images.any()


def test_opening_the_cache_warns_of_nothing(cache):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written, mapped = open_anew(Counted()), open_anew(Counted())
    assert torch.equal(written["train"].images, mapped["train"].images)


def test_points_are_drawn_and_not_kept(cache):
    open_anew(DATASETS.build("ring"))
    assert not cache.exists()
