"""What networks are put together from: normalisation, doubling, self-attention, scales."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d

Normalization = Literal["batch", "layer", "instance", "group", "none"]
FlatNormalization = Literal["batch", "layer", "group", "none"]
"""Of fully connected layers, whose units have no places to take an instance's statistics of."""
Upsampling = Literal["transposed", "resize_conv", "sub_pixel"]


def normalization(
    kind: Normalization,
    channels: int,
    *,
    flat: bool = False,
    epsilon: float = 1e-5,
    momentum: float = 0.1,
) -> nn.Module:
    """Return a normalisation with a scale and a shift per channel.

    Args:
        kind: "layer" is one group over all channels, "group" gcd(8, channels) groups (Wu & He
            2018, arXiv:1803.08494), "instance" one per channel; all three are safe under a
            gradient penalty.
        channels: Channels of a feature map, or units of a fully connected layer.
        flat: Whether the input is (batch, channels), and not a map.
        epsilon: Added to the variance.
        momentum: Share of a batch in batch norm's running statistics.
    """
    if kind == "batch":
        norm = nn.BatchNorm1d if flat else nn.BatchNorm2d
        return norm(channels, epsilon, momentum)
    if kind == "instance":
        return nn.InstanceNorm2d(channels, epsilon, affine=True)
    if kind == "none":
        return nn.Identity()
    groups = 1 if kind == "layer" else math.gcd(8, channels)
    if flat and groups == channels:
        raise ValueError(
            f"{kind} normalisation of {channels} units in {groups} groups makes each a constant; "
            f"take a width above 8 or the normalisation none"
        )
    return nn.GroupNorm(groups, channels, epsilon)


def doubling(
    kind: Upsampling, inputs: int, outputs: int, kernel: int, bias: bool = True
) -> list[nn.Module]:
    """Return layers (batch, inputs, h, w) -> (batch, outputs, 2 h, 2 w).

    Args:
        kind: "transposed", a transposed convolution of stride 2, whose kernel covers the map
            unevenly where its side is odd; "resize_conv", the nearest neighbour and a convolution
            (Odena et al. 2016, distill.pub/2016/deconv-checkerboard); "sub_pixel", a convolution
            to 4 x outputs channels, laid out in 2x2 (Shi et al. 2016, arXiv:1609.05158).
        inputs: Channels before.
        outputs: Channels after.
        kernel: Side of the convolution's kernel, in pixels of the map that it reads or, where it
            is transposed, makes.
        bias: Whether the convolution has one.
    """
    if kind == "transposed":
        padding, odd = (kernel - 1) // 2, kernel % 2
        return [nn.ConvTranspose2d(inputs, outputs, kernel, 2, padding, odd, bias=bias)]
    if kind == "resize_conv":
        nearest = nn.Upsample(scale_factor=2, mode="nearest")
        return [nearest, *_same(inputs, outputs, kernel, bias)]
    return [*_same(inputs, 4 * outputs, kernel, bias), nn.PixelShuffle(2)]


def _same(inputs: int, outputs: int, kernel: int, bias: bool) -> list[nn.Module]:
    """Return a convolution that keeps the side; an even kernel reaches further right and down."""
    before, after = (kernel - 1) // 2, kernel // 2
    if before == after:
        return [nn.Conv2d(inputs, outputs, kernel, padding=before, bias=bias)]
    # Not padding="same", of which torch warns where the kernel is even.
    pad = nn.ZeroPad2d((before, after, before, after))
    return [pad, nn.Conv2d(inputs, outputs, kernel, bias=bias)]


class SelfAttention(nn.Module):
    """Self-attention of SAGAN (Zhang et al. 2019, arXiv:1805.08318): x + gamma attended(x).

    As in the authors' code, queries and keys have an eighth of the channels, values half, keys
    and values are max-pooled over 2x2 (here only where more than one place is left, as a softmax
    over one place would look at nothing), and logits are not scaled. gamma begins at 0.
    """

    def __init__(self, channels: int) -> None:
        """Build the block for maps with `channels` channels."""
        super().__init__()
        few, half = max(1, channels // 8), max(1, channels // 2)
        # Without biases, as in the authors' code; that of the keys would change no softmax.
        self.query = nn.Conv2d(channels, few, 1, bias=False)
        self.key = nn.Conv2d(channels, few, 1, bias=False)
        self.value = nn.Conv2d(channels, half, 1, bias=False)
        self.output = nn.Conv2d(half, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, channels, height, width), the shape of `x`."""
        key, value = self.key(x), self.value(x)
        height, width = x.shape[2:]
        if height % 2 == 0 and width % 2 == 0 and height * width > 4:
            key, value = max_pool2d(key, 2), max_pool2d(value, 2)
        # By hand: torch's scaled_dot_product_attention has no second derivative on the CPU.
        logits = self.query(x).flatten(2).transpose(1, 2) @ key.flatten(2)
        attended = value.flatten(2) @ logits.softmax(dim=-1).transpose(1, 2)
        return x + self.gamma * self.output(attended.unflatten(2, (height, width)))


class MultiScale(nn.Module):
    """Discriminators of one image at several scales (Wang et al. 2018, arXiv:1711.11585).

    The s-th reads the image averaged over 2x2 s times; pix2pixHD's code averages over 3x3 with
    stride 2.
    """

    def __init__(self, networks: Sequence[nn.Module], outputs: int) -> None:
        """Judge by `networks`, that of the whole image first, each with `outputs` outputs."""
        super().__init__()
        self.networks, self.outputs = nn.ModuleList(networks), outputs

    def forward(self, images: Tensor) -> Tensor:
        """Return (batch, judgements), or (batch, outputs, judgements) for outputs > 1."""
        judgements = []
        for scale, network in enumerate(self.networks):
            images = avg_pool2d(images, 2) if scale else images
            judgements.append(network(images).reshape(len(images), self.outputs, -1))
        return torch.cat(judgements, dim=2).squeeze(1)
