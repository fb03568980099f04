from __future__ import annotations

import pytest
import torch

from ganstudy.gan.architectures import ARCHITECTURES
from ganstudy.gan.architectures.base import Head


def count(network) -> int:
    return sum(p.numel() for p in network.parameters())


def conv(i, o, k, bias=True):
    return i * o * k * k + bias * o


def test_parameter_counts_by_hand():
    plain = ARCHITECTURES.build("patch", width=8, discriminator_normalization="none")
    expected = conv(3, 8, 4) + conv(8, 16, 4) + conv(16, 32, 3) + conv(32, 1, 3)
    assert count(plain.discriminator((3, 32, 32))) == expected
    # Batch norm has a scale and a shift, and takes the bias away; none on the first and the last.
    batch = ARCHITECTURES.build("patch", width=8)
    assert count(batch.discriminator((3, 32, 32))) == expected + 16 + 32
    # Five halvings: channels double up to eightfold.
    deep = ARCHITECTURES.build("patch", width=2, halvings=5, discriminator_normalization="none")
    widths = [2, 4, 8, 16, 16]
    assert count(deep.discriminator((1, 32, 32))) == (
        conv(1, 2, 4)
        + sum(conv(i, o, 4) for i, o in zip(widths[:-1], widths[1:], strict=True))
        + conv(16, 16, 3)
        + conv(16, 1, 3)
    )


def test_the_generator_is_dcgans():
    torch.manual_seed(0)
    ours = ARCHITECTURES.build("patch", width=4).generator((1, 16, 16)).state_dict()
    torch.manual_seed(0)
    theirs = ARCHITECTURES.build("dcgan", width=4).generator((1, 16, 16)).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize(("halvings", "side"), [(1, 12), (2, 26), (3, 54)])
def test_a_patch_is_judged_by_its_receptive_field(halvings, side):
    torch.manual_seed(0)
    architecture = ARCHITECTURES.build(
        "patch", width=4, halvings=halvings, discriminator_normalization="none"
    )
    images = torch.randn(1, 1, 64, 64, requires_grad=True)
    logits = architecture.discriminator((1, 64, 64))(images)
    places = 64 >> halvings
    stride, before = 1 << halvings, 3 * (1 << halvings) - 1  # padding at the image's own scale
    for row, column in ((places // 2, places // 2), (0, places - 1), (places - 1, 1)):
        (gradient,) = torch.autograd.grad(
            logits[0, row * places + column], images, retain_graph=True
        )
        seen = torch.zeros(64, 64, dtype=torch.bool)
        top, left = row * stride - before, column * stride - before
        seen[max(0, top) : top + side, max(0, left) : left + side] = True
        assert torch.equal(gradient[0, 0] != 0, seen)


@pytest.mark.parametrize(
    ("shape", "patches"), [((1, 8, 8), 4), ((3, 28, 28), 49), ((1, 14, 14), 9)]
)
def test_one_logit_per_patch(shape, patches):
    architecture = ARCHITECTURES.build("patch", width=2)
    images = torch.zeros(2, *shape)
    assert architecture.discriminator(shape)(images).shape == (2, patches)
    assert architecture.discriminator(shape, outputs=5)(images).shape == (2, 5, patches)


def test_the_head_reads_a_map_and_judges_each_place():
    torch.manual_seed(0)
    discriminator = ARCHITECTURES.build("patch", width=2).discriminator((1, 16, 16), outputs=3)
    (head,) = (m for m in discriminator.modules() if isinstance(m, Head))
    features = []
    head.register_forward_pre_hook(lambda _, read: features.append(read[0]))
    logits = discriminator(torch.randn(2, 1, 16, 16))
    assert features[0].shape == (2, 8, 4, 4)
    torch.testing.assert_close(head[0](features[0]).flatten(2), logits)


def test_what_needs_one_judgement_of_an_image_is_refused():
    architecture = ARCHITECTURES.build("patch")
    with pytest.raises(ValueError, match="judges patches, not images"):
        architecture.discriminator((1, 16, 16), across=(torch.nn.Identity,))
    for make in (architecture.auto_encoder, architecture.decoder):
        with pytest.raises(ValueError, match="no auto-encoder.*architecture dcgan"):
            make((1, 16, 16))
