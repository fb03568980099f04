"""PatchGAN: a discriminator that judges patches."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from ganstudy.gan.architectures.base import ARCHITECTURES, Across, Count, Head, ImageShape, Maps
from ganstudy.gan.architectures.dcgan import DCGAN
from ganstudy.registry import component


@ARCHITECTURES.register("patch", paper="Isola et al. 2017, arXiv:1611.07004, section 3.2.2")
@component
class Patch(DCGAN):
    """DCGAN's generator against PatchGAN, which judges every patch of an image on its own.

    Discriminator: `halvings` 4x4 convolutions of stride 2 and a 3x3 one of stride 1, `width`
    channels doubling at each up to 8 `width`, then a 3x3 one to the logits; normalisation on all
    but the first and the last, leaky ReLU (0.2). The paper's last two are 4x4, which leave nothing
    of an 8x8 image.

    A patch, the receptive field of a logit, is 26x26 pixels with 2 halvings: it begins at 1, and
    each layer with kernel k adds (k - 1) x the product of the strides before it, 3 + 3 * 2 +
    2 * 4 + 2 * 4. With h halvings it is 7 * 2^h - 2: 12, 26, 54, against the paper's 16, 34, 70;
    `depth` widens it. Attention and instance or layer norm let a logit see the whole image.

    Elsewhere:
        pix2pix conditions on an input image, and feeds its generator no latent but dropout.
    """

    judges_whole_images: ClassVar[bool] = False

    halvings: Count = 2
    """Convolutions of stride 2 in the discriminator; one more about doubles a patch's side."""

    def discriminator_maps(self, image_shape: ImageShape) -> Maps:
        _, height, width = image_shape
        if min(height, width) >> self.halvings == 0:
            raise ValueError(
                f"patch halves the sides of an image {self.halvings} times, which leaves nothing "
                f"of {height}x{width}; use fewer halvings"
            )
        return [(height >> s, width >> s) for s in range(1, self.halvings + 1)]

    def from_images(self, image_shape: ImageShape, outputs: int, across: Across) -> nn.Module:
        if across:
            raise ValueError(
                "patch judges patches, not images: it has no features of an image for a layer "
                "across the batch; use another architecture, or leave that layer out"
            )
        norm, maps = self.discriminator_normalization, self.discriminator_maps(image_shape)
        widths = [self._judging_width << min(s, 3) for s in range(self.halvings + 1)]
        last = nn.Conv2d(widths[-1], outputs, 3, 1, 1)
        return nn.Sequential(
            *self.halving(image_shape[0], maps, widths[:-1]),
            nn.Conv2d(widths[-2], widths[-1], 3, 1, 1, bias=norm != "batch"),
            *[self.norm(norm, widths[-1]), nn.LeakyReLU(0.2)],
            Head(last, nn.Flatten(1 if outputs == 1 else 2)),
        )

    def decoder(self, image_shape: ImageShape) -> nn.Module:
        raise ValueError(
            "patch has no auto-encoder: its discriminator makes one number per patch, and no code "
            "of the image; use another loss or the architecture dcgan"
        )

    def encoder(self, image_shape: ImageShape, outputs: int) -> nn.Module:
        return self.decoder(image_shape)

    def auto_encoder(self, image_shape: ImageShape) -> nn.Module:
        return self.decoder(image_shape)
