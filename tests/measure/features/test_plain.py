from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d

from ganstudy.gan.datasets import DATASETS, SPLITS, Labelled, normalize
from ganstudy.gan.datasets.base import Dataset
from ganstudy.measure.features import FEATURES
from ganstudy.measure.features.plain import he_uniform
from ganstudy.measure.metrics import METRICS
from ganstudy.registry import component


@component
class Noise(Dataset):
    """Random images of any shape."""

    channels: int
    height: int
    width: int
    decoding_is_slow = False

    def load(self):
        rng = torch.Generator().manual_seed(0)
        shape = (20, self.channels, self.height, self.width)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=rng)
        return {split: Labelled(images, None) for split in SPLITS}


def test_the_features_of_points_are_the_points():
    ring = DATASETS.build("ring")
    points = ring.images("select")[:5]
    pixels = FEATURES.build("pixels")
    np.testing.assert_array_equal(pixels.extractor(ring)(points), points.flatten(1).numpy())
    assert pixels.dimension(ring) == 2


@pytest.mark.parametrize(
    "shape", [(1, 8, 8), (4, 8, 9), (2, 15, 31), (3, 32, 32), (1, 28, 28), (3, 128, 128)]
)
def test_random_conv_reads_any_image_and_keeps_its_scale(shape):
    noise = Noise(channels=shape[0], height=shape[1], width=shape[2])
    network = FEATURES.build("random_conv", units=256)
    network.check(noise)
    features = network.extractor(noise)(noise.images("train"))
    assert features.shape == (20, 256)
    # Weights of variance 2 / fan_in keep the second moment of what comes in, 1/3 of noise that
    # is uniform on [-1, 1]; every layer adds the chance of its own draw.
    energy = (features**2).mean() / (normalize(noise.images("train")) ** 2).mean()
    assert 0.5 < energy < 3
    assert len(np.unique(features, axis=0)) == 20


@pytest.mark.parametrize(
    ("shape", "rule"),
    [((1, 7, 28), "of 8 px and more, .* has 7x28; use pixels"),
     ((5, 16, 16), "of 1 or 2 or 3 or 4 channels, .* has 5; use pixels")],
)  # fmt: skip
def test_random_conv_refuses_what_it_cannot_read(shape, rule):
    noise = Noise(channels=shape[0], height=shape[1], width=shape[2])
    with pytest.raises(ValueError, match=rule):
        FEATURES.build("random_conv").check(noise)


def test_he_uniform_has_the_moments_that_it_tells():
    weights = he_uniform(torch.Size((200, 100, 4, 4)), seed=3).double()
    bound = (6 / 1600) ** 0.5
    assert weights.abs().max() <= bound
    assert weights.abs().max() > 0.999 * bound
    n = weights.numel()
    # Four standard errors of the mean, and of the variance of a uniform draw.
    assert abs(weights.mean()) < 4 * (2 / 1600 / n) ** 0.5
    assert weights.var() == pytest.approx(2 / 1600, rel=4 * (0.8 / n) ** 0.5)


def test_random_conv_is_the_same_network_everywhere():
    # Written down once: another machine, numpy or torch must draw the same bits.
    digits = Noise(channels=1, height=28, width=28)
    assert FEATURES.build("random_conv").extractor(digits).hash == "9f813fb6392e33ac"
    assert FEATURES.build("random_conv", seed=1).extractor(digits).hash == "c55ed40ff652a029"


FAULTS = {
    "blur": lambda x, labels: avg_pool2d(x, 3, 1, 1),
    "noise": lambda x, labels: x + 0.2 * torch.randn(x.shape, generator=_rng()),
    "half of the classes": lambda x, labels: x[labels < 5],
    "inverted": lambda x, labels: -x,
}


def _rng():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("seed", [0, 1])
def test_random_conv_ranks_faults_above_real_against_real(seed):
    mnist = DATASETS.build("mnist5k")
    extract = FEATURES.build("random_conv", seed=seed).extractor(mnist)
    metric = METRICS.build("kernel_distance")
    real = extract(mnist.images("select")[:1000])
    other = normalize(mnist.images("report")[:1000])
    floor = metric(extract(other), real)
    assert abs(floor.value) < 3 * floor.standard_error
    labels = mnist.labels("report")[:1000]
    scores = {
        name: metric(extract(fault(other, labels).clamp(-1, 1)), real)
        for name, fault in FAULTS.items()
    }
    for name, score in scores.items():
        # Half of the classes are half of the images, whose own error is the larger one.
        assert score.value > 3 * score.standard_error, name
        assert score.value > 5 * floor.standard_error, name
    assert scores["inverted"].value > 10 * scores["half of the classes"].value
