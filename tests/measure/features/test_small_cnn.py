from __future__ import annotations

import os

import numpy as np
import pytest

from ganstudy.gan.datasets import DATASETS
from ganstudy.measure.features import FEATURES, SmallCNN


@pytest.fixture(scope="module")
def digits():
    return DATASETS.build("digits")


def test_it_learns_is_cached_and_tells_its_accuracy(digits, tmp_path):
    network = FEATURES.build("small_cnn", epochs=3)
    first = network.extractor(digits, tmp_path)
    assert first.facts["accuracy_report"] > 0.8
    kept = sorted(tmp_path.glob("small_cnn-*.pt"))
    assert len(kept) == 1
    stamp = kept[0].stat().st_mtime_ns
    second = network.extractor(digits, tmp_path)
    assert kept[0].stat().st_mtime_ns == stamp
    assert first.hash == second.hash
    assert FEATURES.build("small_cnn", epochs=4).extractor(digits, tmp_path).hash != first.hash


def test_its_accuracy_is_that_of_its_head_on_its_features(digits):
    network = SmallCNN(epochs=1)
    extract = network.extractor(digits)
    logits = extract.logits(extract(digits.images("report")))
    right = logits.argmax(1) == digits.labels("report").numpy()
    # One image of 359 may change sides: the whole network is run with other batches.
    assert right.mean() == pytest.approx(extract.facts["accuracy_report"], abs=1.01 / len(right))
    whole = network.classifier(digits)(digits.images("report"))
    np.testing.assert_allclose(logits, whole, rtol=1e-4, atol=1e-4)


def test_an_unwritable_cache_costs_time_not_the_study(digits, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setitem(os.environ, "GANSTUDY_CACHE", str(tmp_path / "file"))
    own = tmp_path / "study"
    FEATURES.build("small_cnn", epochs=1, seed=7).extractor(digits, own)
    assert list(own.glob("small_cnn-*.pt"))


def test_data_without_labels_is_refused_and_the_others_are_offered(tmp_path):
    from PIL import Image

    for i in range(10):
        Image.new("RGB", (8, 8), (i, i, i)).save(tmp_path / f"{i}.png")
    flat = DATASETS.build("image_folder", path=str(tmp_path), size=8)
    with pytest.raises(ValueError, match="trains on labels and image_folder has none; use") as no:
        FEATURES.build("small_cnn").check(flat)
    offered = [name for name in ("random_conv", "lite0", "pixels") if name in str(no.value)]
    assert len(offered) == 3
    for name in offered:
        FEATURES.build(name).check(flat)
