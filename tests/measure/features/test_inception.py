"""The FID network, run with random weights: the published ones are nobody's to ship.

What needs torch-fidelity is skipped where it cannot be imported; it is no development extra, since
its torchvision breaks torchmetrics where it was built for another torch. `make test` has it in a
folder of its own, without torchvision, and runs this file a second time with that on PYTHONPATH.
"""

from __future__ import annotations

import importlib.util
import sys
import types

import numpy as np
import pytest
import torch

from ganstudy.gan.datasets import DATASETS, normalize
from ganstudy.measure.features import FEATURES, inception
from ganstudy.measure.metrics import METRICS
from ganstudy.measure.protocol import MeasureConfig, score_name
from ganstudy.registry import StudyError

HERE = importlib.util.find_spec("torch_fidelity") is not None
needs_the_package = pytest.mark.skipif(not HERE, reason="torch-fidelity is not installed")


@pytest.fixture(scope="module")
def digits():
    return DATASETS.build("digits")


def accept(monkeypatch, path):
    """Take the file at `path` for the published one."""
    stat = path.stat()
    sha256 = inception.file_sha256(path, stat.st_size, stat.st_mtime_ns)
    monkeypatch.setattr(inception, "PUBLISHED", sha256)
    return sha256


def test_a_missing_file_is_refused_with_where_to_put_it(digits, tmp_path, monkeypatch):
    monkeypatch.setenv("GANSTUDY_CACHE", str(tmp_path))
    place = tmp_path / "weights" / "pt_inception-2015-12-05-6726825d.pth"
    with pytest.raises(ValueError, match=f"there is no file {place}; put "):
        FEATURES.build("inception").check(digits)
    with pytest.raises(ValueError, match=f"no file {tmp_path}/mine.pth.* give its path as `wei"):
        FEATURES.build("inception", weights=str(tmp_path / "mine.pth")).check(digits)


def test_a_study_is_refused_before_anything_starts(digits, tmp_path, monkeypatch):
    monkeypatch.setenv("GANSTUDY_CACHE", str(tmp_path))
    config = MeasureConfig.from_dict(
        {"features": "inception", "metrics": ["kernel_distance"], "samples": 100}, 100
    )
    with pytest.raises(StudyError, match="features: inception needs its weights"):
        config.check(digits)


def test_another_file_is_refused_since_its_scores_would_be_no_fid(digits, tmp_path):
    path = tmp_path / inception.FILE
    path.write_bytes(b"other weights")
    network = FEATURES.build("inception", weights=str(path))
    with pytest.raises(ValueError, match="SHA-256 begins 53959fa1, not 6726825d, .* no FID"):
        network.check(digits)
    with pytest.raises(ValueError, match="no FID"):
        network.extractor(digits)


def test_a_missing_package_is_refused_with_what_to_install(digits, tmp_path, monkeypatch):
    path = tmp_path / inception.FILE
    path.write_bytes(b"weights")
    accept(monkeypatch, path)
    # Nothing can be imported but what is imported already.
    monkeypatch.setattr(sys, "path", [])
    forget(monkeypatch, "torch_fidelity")
    with pytest.raises(ValueError, match=r"needs the package torch-fidelity; pip install 'ganst"):
        FEATURES.build("inception", weights=str(path)).check(digits)


@pytest.mark.parametrize(
    ("torchvision", "rule"),
    [('raise RuntimeError("operator torchvision::nms does not exist")',
      "its torchvision fails .operator torchvision::nms does not exist.; install the torchvision"),
     (None, "its torchvision fails .No module named 'torchvision'.; install the torchvision")],
    ids=["of another torch", "missing"],
)  # fmt: skip
def test_a_torchvision_that_fails_is_named(torchvision, rule, digits, tmp_path, monkeypatch):
    path = tmp_path / inception.FILE
    path.write_bytes(b"weights")
    accept(monkeypatch, path)
    for package, text in {
        "torch_fidelity": "import torchvision",
        "torchvision": torchvision,
    }.items():
        forget(monkeypatch, package)
        if text is not None:
            (tmp_path / package).mkdir()
            (tmp_path / package / "__init__.py").write_text(text)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(ValueError, match=rule):
        FEATURES.build("inception", weights=str(path)).check(digits)


def forget(monkeypatch, package):
    """Undo the import of `package` until the test ends."""
    for name in [n for n in sys.modules if n == package or n.startswith(package + ".")]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize(
    ("metric", "name"),
    [("frechet_distance", "fid_10k"), ("kernel_distance_subsets", "kid_10k"),
     ("inception_score", "is_10k"),
     ("kernel_distance", "kd_inception_10k"), ("precision", "precision_inception_10k")],
)  # fmt: skip
def test_only_scores_on_this_network_carry_the_names_of_the_field(metric, name):
    built = METRICS.build(metric)
    assert score_name(built, FEATURES.build("inception"), 10_000) == name
    for other in set(FEATURES.names()) - {"inception"}:
        assert score_name(built, FEATURES.build(other), 10_000) == f"{built.short}_{other}_10k"


def test_levels_give_back_the_256_of_a_picture_and_tile_grey():
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    found = inception.levels(normalize(every))
    assert found.shape == (1, 3, 16, 16)
    assert torch.equal(found, every.expand(1, 3, 16, 16))


def test_levels_round_to_the_nearest_and_end_at_black_and_white():
    step = 2 / 255
    floats = torch.tensor([-1.0, -1 + 0.49 * step, -1 + 0.51 * step, 1 - 0.49 * step, 1, 1.5, -9])
    found = inception.levels(floats.view(1, 1, 1, 7).expand(1, 3, 1, 7))
    assert found[0, 2, 0].tolist() == [0, 0, 1, 255, 255, 255, 0]


def resized_as_tensorflow_1(image, side):
    """ResizeBilinear of TensorFlow 1 without aligned corners, pixel by pixel in float32.

    The source of an output pixel is its index times in / out: corners meet at 0 only, and no
    more than four pixels are read, however much the image shrinks.
    """
    height, width = image.shape
    scale = np.float32(height / side), np.float32(width / side)
    out = np.empty((side, side), np.float32)
    for i in range(side):
        y = np.float32(i) * scale[0]
        top, bottom = int(y), min(int(y) + 1, height - 1)
        for j in range(side):
            x = np.float32(j) * scale[1]
            left, right = int(x), min(int(x) + 1, width - 1)
            above = image[top, left] + (image[top, right] - image[top, left]) * (x - left)
            below = image[bottom, left] + (image[bottom, right] - image[bottom, left]) * (x - left)
            out[i, j] = above + (below - above) * (y - top)
    return out


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory):
    """A file of the published form: the network's own state dict, weights as He et al. draw."""
    if not HERE:
        pytest.skip("torch-fidelity is not installed")
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch)
        kind = inception.network_class()

        class Unread(kind):
            def load_state_dict(self, weights):
                assert weights == {}

        file = tmp_path_factory.mktemp("weights") / inception.FILE
        torch.save({}, file)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = Unread("inception", ["2048"], str(file))
            for weight in network.parameters():
                if weight.ndim == 4:
                    torch.nn.init.kaiming_normal_(weight)
        torch.save(network.state_dict(), file)
    return file


def stand_in(patch):
    """Put an empty torchvision where the real one fails; the network does not use it."""
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError):
        names = ["", ".datasets", ".transforms", ".transforms.functional", ".models"]
        for name in names:
            module = types.ModuleType(f"torchvision{name}")
            module.__dict__.update(CIFAR10=object, CIFAR100=object, STL10=object)
            patch.setitem(sys.modules, module.__name__, module)


@pytest.fixture
def network(random_weights, monkeypatch):
    stand_in(monkeypatch)
    accept(monkeypatch, random_weights)
    return FEATURES.build("inception", weights=str(random_weights))


@needs_the_package
def test_features_are_2048_finite_float32_and_of_the_file(network, digits, monkeypatch):
    network.check(digits)
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    extract = network.extractor(digits)
    assert torch.equal(torch.random.get_rng_state(), state)
    images = digits.images("select")[:3]
    features = extract(images)
    assert features.shape == (3, network.dimension(digits)) == (3, 2048)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    assert features.std(axis=0).max() > 1e-3
    np.testing.assert_array_equal(extract(normalize(images)), features)
    assert extract.facts["experimental"]
    assert extract.facts["weights_sha256"] == inception.PUBLISHED


@needs_the_package
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 48), (3, 400, 320)])
def test_images_are_resized_as_tensorflow_1_does_it(shape, random_weights, network):
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (1, *shape), dtype=torch.uint8, generator=rng)
    module, seen = inception.loaded(random_weights), []
    module.Conv2d_1a_3x3.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    module(inception.levels(normalize(images)))
    assert seen[0].shape == (1, 3, 299, 299)
    for channel in range(3):
        pixels = images[0, min(channel, shape[0] - 1)].numpy().astype(np.float32)
        expected = (resized_as_tensorflow_1(pixels, 299) - 128) / 128
        # Of float32 sums of up to 255, over 128.
        np.testing.assert_allclose(seen[0][0, channel].numpy(), expected, atol=1e-6)


@needs_the_package
def test_the_head_gives_the_logits_without_bias(random_weights, network, digits):
    extract = network.extractor(digits)
    images = digits.images("select")[:2]
    kind = inception.network_class()
    both = kind("inception", ["2048", "logits_unbiased"], str(random_weights))
    features, logits = both(inception.levels(normalize(images)))
    np.testing.assert_allclose(extract(images), features.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(extract.logits(features.numpy()), logits.numpy(), rtol=1e-4,
                               atol=1e-4)  # fmt: skip
    network.check_head()


@needs_the_package
def test_other_weights_are_another_hash(random_weights, network, digits, tmp_path, monkeypatch):
    first = network.extractor(digits).hash
    weights = torch.load(random_weights, weights_only=True)
    weights["fc.bias"][0] += 1
    other = tmp_path / inception.FILE
    torch.save(weights, other)
    accept(monkeypatch, other)
    assert FEATURES.build("inception", weights=str(other)).extractor(digits).hash != first


@needs_the_package
def test_a_file_that_would_run_code_is_not_read(network, digits, tmp_path, monkeypatch):
    path = tmp_path / inception.FILE
    torch.save({"fc.bias": types.SimpleNamespace()}, path)
    accept(monkeypatch, path)
    with pytest.raises(Exception, match="Weights only load failed"):
        FEATURES.build("inception", weights=str(path)).extractor(digits)
