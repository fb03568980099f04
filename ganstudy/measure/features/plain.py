"""Features that are learnt from nothing: the pixels, and a network of random weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from ganstudy.gan.architectures import ImageShape
from ganstudy.gan.datasets import Dataset
from ganstudy.gan.seeding import derive
from ganstudy.measure.features.base import FEATURES, Extractor, FeatureNetwork, check_images
from ganstudy.measure.features.cache import content_hash
from ganstudy.registry import component


@FEATURES.register("pixels")
@component
class Pixels(FeatureNetwork):
    """The images themselves, flattened: the features of points (dirac, ring, grid).

    For photographs a distance of pixels says little of what people see.
    """

    def dimension(self, dataset: Dataset) -> int:
        return math.prod(dataset.image_shape)

    def extractor(self, dataset: Dataset, cache: Path | None = None) -> Extractor:
        return Extractor(lambda images: images, content_hash("pixels"))


@FEATURES.register("random_conv", paper="Naeem et al. 2020, arXiv:2002.09797 (random embeddings)")
@component
class RandomConv(FeatureNetwork):
    """Convolutions of random weights; needs no training and no labels.

    For data without labels and far from ImageNet. Of 1,000 digits it sees blur, noise, inversion
    and the loss of half of the classes (10 standard errors of real against real and more); the
    loss of one class of ten it does not, which small_cnn does. It knows patterns and where they
    are, not what they mean. Another seed is another network, whose scores do not compare.

    Convolutions of 4x4 at stride 2 with ReLU, 32, 64 and then 128 maps, halve the sides down to
    4 to 7 px; a random projection of all that remains gives the features. No biases.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    """Which random weights: the same ones on every machine."""
    units: Annotated[int, Field(ge=1, le=4096)] = 64
    """Number of features."""

    def dimension(self, dataset: Dataset) -> int:
        return self.units

    def check(self, dataset: Dataset) -> None:
        check_images(self.name, dataset, 8, (1, 2, 3, 4))

    def extractor(self, dataset: Dataset, cache: Path | None = None) -> Extractor:
        network = self._network(dataset.image_shape)
        return Extractor(network, content_hash(*network.state_dict().values()))

    def _network(self, shape: ImageShape) -> nn.Sequential:
        """Return convolutions that halve the sides down to 4 to 7 px, and a projection."""
        channels, height, width = shape
        layers: list[nn.Module] = []
        maps = 32
        with torch.device("meta"):  # torch's own initial weights are not drawn
            while min(height, width) >= 8:
                layers += [nn.Conv2d(channels, maps, 4, 2, 1, bias=False), nn.ReLU()]
                channels, height, width = maps, height // 2, width // 2
                maps = min(2 * maps, 128)
            project = nn.Linear(channels * height * width, self.units, bias=False)
            network = nn.Sequential(*layers, nn.Flatten(), project)
        network.to_empty(device="cpu").eval().requires_grad_(False)
        for name, weight in network.named_parameters():
            weight.copy_(he_uniform(weight.shape, derive(self.seed, "random_conv", name)))
        return network


def he_uniform(shape: torch.Size, seed: int) -> Tensor:
    """Return weights of mean 0 and variance 2 / fan_in (He et al. 2015, arXiv:1502.01852).

    Uniform and from the raw words of PCG64, whose stream numpy promises to keep: no rounding of a
    logarithm, no version and no processor makes other weights.

    Args:
        shape: (outputs, ...); the rest multiplies to fan_in.
        seed: Of a stream of its own.
    """
    words = np.random.PCG64(seed).random_raw(math.prod(shape))
    uniform = (words >> np.uint64(11)) * 2.0**-53
    bound = math.sqrt(6 / math.prod(shape[1:]))
    return torch.from_numpy(((2 * uniform - 1) * bound).astype(np.float32)).view(shape)
