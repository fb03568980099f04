"""What every feature network must hold; inception, which needs a file, has tests of its own."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from ganstudy.gan.datasets import DATASETS, normalize
from ganstudy.measure.features import FEATURES, Extractor

NAMES = [name for name in FEATURES.names() if name != "inception"]


@pytest.fixture(scope="module")
def digits():
    return DATASETS.build("digits")


@pytest.mark.parametrize("name", NAMES)
def test_features_are_finite_float32_of_the_dimension(name, digits):
    network = FEATURES.build(name)
    features = network.extractor(digits)(digits.images("select")[:12])
    assert features.shape == (12, network.dimension(digits))
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


@pytest.mark.parametrize("name", [n for n in FEATURES.names() if n != "pixels"])
def test_networks_that_read_images_refuse_points_and_name_what_reads_them(name):
    with pytest.raises(ValueError, match=f"^{name} reads images, and ring holds points; use pix"):
        FEATURES.build(name).check(DATASETS.build("ring"))


@pytest.mark.parametrize("name", NAMES)
def test_features_do_not_depend_on_the_batch(name, digits):
    extract = FEATURES.build(name).extractor(digits)
    images = normalize(digits.images("select")[:6])
    together, alone = extract(images), extract(images[2:3])
    # Other batch sizes take other kernels: float32 rounding, relative to features of order 1.
    np.testing.assert_allclose(together[2:3], alone, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_global_seed_neither_matters_nor_changes(name, digits, tmp_path, monkeypatch):
    monkeypatch.setenv("GANSTUDY_CACHE", str(tmp_path))  # small_cnn is trained, not found
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = FEATURES.build(name).extractor(digits)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    monkeypatch.setenv("GANSTUDY_CACHE", str(tmp_path / "other"))
    assert FEATURES.build(name).extractor(digits).hash == first.hash


@pytest.mark.parametrize("name", NAMES)
def test_networks_are_in_eval_mode_and_leave_no_gradient(name, digits):
    extractor = FEATURES.build(name).extractor(digits)
    if isinstance(extractor.embed, torch.nn.Module):
        assert not any(module.training for module in extractor.embed.modules())
    images = normalize(digits.images("select")[:3]).requires_grad_()
    extractor(images)  # a tensor with a gradient would not become an array


@pytest.mark.parametrize("n", [1, 7, 8, 9, 20])
def test_batches_are_put_together_in_order(n):
    images = torch.arange(n, dtype=torch.float32).view(n, 1, 1, 1)
    sizes = []

    def embed(part):
        sizes.append(len(part))
        return torch.cat([part, -part], 1)

    features = Extractor(embed, "", batch=8)(images)
    np.testing.assert_array_equal(features, np.stack([np.arange(n), -np.arange(n)], 1))
    assert sum(sizes) == n
    assert max(sizes) <= 8


PEAK = """
from pathlib import Path
import torch
from ganstudy.measure.features import Extractor

torch.set_num_threads(1)

def peak():
    # Not by getrusage, whose maximum a new process takes over from the one that started it.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))

images = torch.zeros(50_000, 1, 8, 8, dtype=torch.uint8)
extractor = Extractor(lambda x: x.flatten(1).repeat(1, 16), "")
extractor(images[:500])
before = peak()
features = extractor(images)
print(features.nbytes / 2**20, peak() - before)
"""


def test_fifty_thousand_images_cost_their_features_and_one_batch():
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    features, grown = map(float, done.stdout.split())
    assert features == pytest.approx(195.3, abs=0.1)  # 50,000 x 1,024 x 4 bytes
    # A second copy, as by joining parts, would be another 195 MiB; a batch is 1 MiB.
    assert 0.9 * features < grown < features + 30
