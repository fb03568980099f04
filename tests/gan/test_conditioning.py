"""Conditional games: by definition, and that labels are used."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from ganstudy.gan.architectures import ARCHITECTURES
from ganstudy.gan.conditioning import CONDITIONINGS, ClassLogits, inputs_of
from ganstudy.gan.config import TrainConfig
from ganstudy.gan.datasets import DATASETS
from ganstudy.gan.losses import LOSSES
from ganstudy.gan.regularizers import REGULARIZERS
from ganstudy.gan.trainer import GanTrainer, build_trainer
from ganstudy.measure.features import SmallCNN
from ganstudy.registry import StudyError

CONDITIONAL = [name for name in CONDITIONINGS.names() if name != "unconditional"]
SHAPE = (1, 8, 8)
SMALL = {
    "dataset": "digits",
    "architecture": {"name": "dcgan", "width": 4, "latent_dim": 4},
    "batch_size": 16,
}


def trainer(**settings) -> GanTrainer:
    built = build_trainer(TrainConfig.from_dict(SMALL | settings))
    assert isinstance(built, GanTrainer)
    return built


def networks(name: str, architecture: str):
    torch.manual_seed(0)
    built = ARCHITECTURES.build(architecture, width=8, latent_dim=6)
    conditioning = CONDITIONINGS.build(name)
    generator = conditioning.generator(built, SHAPE, 10)
    return built, generator, conditioning.discriminator(built, SHAPE, 10, ())


@pytest.mark.parametrize("architecture", [n for n in ARCHITECTURES.names() if n != "dirac"])
@pytest.mark.parametrize("name", CONDITIONAL)
def test_swapping_labels_changes_the_output_and_every_parameter_learns(name, architecture):
    built, generator, discriminator = networks(name, architecture)
    latents = built.latents(10, torch.Generator().manual_seed(0), SHAPE)
    labels = torch.arange(10)
    images = generator(latents, labels)
    assert images.shape == (10, *SHAPE)
    swapped = generator(latents, labels.flip(0))
    assert (images - swapped).abs().amax(dim=(1, 2, 3)).min() > 0
    discriminator.eval()  # in train mode spectral norm moves from pass to pass
    with inputs_of(discriminator, ClassLogits) as classes:
        logits = discriminator(images, labels)
        other = discriminator(images.detach(), labels.flip(0))
    assert logits.shape[0] == 10
    assert logits.dim() == 2
    if name == "auxiliary_classifier":
        assert torch.equal(logits.detach(), other.detach()), "AC-GAN's logit knows no label"
        assert classes[0].shape[:2] == (10, 10)
        logits = logits.sum() + CONDITIONINGS.build(name).class_loss(classes[:1], labels)
    else:
        assert classes == []
        assert (logits - other).abs().flatten(1).amax(dim=1).min() > 0
    logits.sum().backward()
    if not built.grows:  # some of a growing network's layers only fade in and out
        for network in (generator, discriminator):
            for parameter, value in network.named_parameters():
                assert value.grad is not None, parameter
                assert value.grad.isfinite().all(), parameter


def test_projection_is_psi_plus_the_inner_product_with_the_labels_vector():
    _, _, discriminator = networks("projection", "mlp")
    images, labels = torch.rand(10, *SHAPE), torch.arange(10)
    body, linear = discriminator.network[:-1], discriminator.network[-1][-1]
    h = body(images)
    v, bias = linear.weight, linear.bias
    expected = h @ v[0] + bias[0] + (h * v[1:]).sum(1) + bias[1:]
    torch.testing.assert_close(discriminator(images, labels)[:, 0], expected)


def test_the_embedding_reaches_the_discriminator_as_a_plane():
    _, _, discriminator = networks("embedding", "mlp")
    images, labels = torch.rand(3, *SHAPE), torch.tensor([2, 2, 7])
    planes = discriminator.embedding.weight[labels].view(3, 1, 8, 8)
    expected = discriminator.network(torch.cat([images, planes], dim=1))
    torch.testing.assert_close(discriminator(images, labels), expected)


def test_the_auxiliary_classifiers_loss_is_the_cross_entropy_of_every_pass():
    classifier = CONDITIONINGS.build("auxiliary_classifier", weight=3.0)
    labels, logits = torch.tensor([1, 0, 2]), torch.randn(2, 3, 4)
    parts = [cross_entropy(part, labels) for part in logits]
    value = classifier.class_loss(list(logits), labels)
    torch.testing.assert_close(value, 3 * (parts[0] + parts[1]))
    # Judged in several places, every place is to know the class.
    places = torch.randn(3, 4, 5)
    expected = torch.stack([cross_entropy(places[:, :, p], labels) for p in range(5)]).mean()
    torch.testing.assert_close(classifier.class_loss([places], labels), 3 * expected)


@pytest.mark.parametrize("loss", LOSSES.names())
@pytest.mark.parametrize("name", CONDITIONAL)
def test_every_conditioning_trains_with_every_loss_or_is_refused_with_a_reason(name, loss):
    if loss in ("vae", "energy_based", "boundary_equilibrium"):
        with pytest.raises(StudyError, match=r"^conditioning: .*judges without labels"):
            trainer(loss=loss, conditioning=name)
        return
    signals = trainer(loss=loss, conditioning=name).advance(3)
    assert all(math.isfinite(value) for value in signals.values())
    assert ("class_loss" in signals) == (name == "auxiliary_classifier")
    assert ("generator_class_loss" in signals) == (name == "auxiliary_classifier")


@pytest.mark.parametrize("name", CONDITIONAL)
def test_all_regularisers_go_with_labels(name):
    signals = trainer(conditioning=name, regularizers={n: {} for n in REGULARIZERS.names()})
    assert all(math.isfinite(value) for value in signals.advance(2).values())


def test_fakes_are_made_for_the_labels_of_the_real_batch():
    t = trainer(conditioning="projection")
    seen = []
    for network in (t.state.generator, t.state.discriminator):
        network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    t.advance(1)
    expected = DATASETS.build("digits").labels("train")[t.state.batches.latest]
    assert len(seen) >= 4
    assert all(torch.equal(labels, expected) for labels in seen)


def test_labels_that_are_drawn_are_as_frequent_as_in_the_data():
    t = trainer(conditioning="embedding")
    labels = t.draw_labels(20_000, torch.Generator().manual_seed(0))
    data = t.config.dataset.labels("train")
    found, expected = (torch.bincount(x, minlength=10) / len(x) for x in (labels, data))
    # 20,000 draws: a share of a tenth has an error of 0.002.
    torch.testing.assert_close(found, expected, atol=0.009, rtol=0)
    assert trainer().draw_labels(5, torch.Generator()) is None


def test_samples_are_of_the_labels_that_are_given_or_drawn_first():
    t = trainer(conditioning="embedding")
    rng = torch.Generator().manual_seed(3)
    labels = t.draw_labels(300, rng)
    given = t.sample(300, rng, labels)
    drawn = t.sample(300, torch.Generator().manual_seed(3))
    assert torch.equal(given, drawn)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"dataset": "photo_patches"}, "has no labels"),
        ({"loss": "vae"}, "judges without labels"),
        ({"loss": "energy_based"}, "judges without labels"),
    ],
    ids=str,
)
def test_what_has_no_place_for_labels_is_refused(settings, reason):
    with pytest.raises(StudyError) as error:
        TrainConfig.from_dict(SMALL | {"conditioning": "projection"} | settings)
    assert error.value.path == "conditioning"
    assert reason in error.value.rule


def test_each_of_several_classifiers_learns_as_one_alone_would():
    t = trainer(
        conditioning="auxiliary_classifier",
        stabilizers={"several_discriminators": {"count": 2}},
        architecture={"name": "mlp", "width": 8, "latent_dim": 4},
    )
    real, latents = t._next_real(), t._latents()
    t._discriminator_loss(t._play(real, latents)).backward()
    fake = t.state.generator(latents, t._labels).detach()
    for member in t.state.discriminator.members:
        found = [p.grad.clone() for p in member.parameters()]
        member.zero_grad()
        total = 0.0
        with inputs_of(member, ClassLogits) as classes:
            logits = member(real, t._labels), member(fake, t._labels)
        total = LOSSES.build("non_saturating").discriminator(*logits)
        total = total + sum(cross_entropy(c, t._labels) for c in classes)
        total.backward()
        for one, other in zip(found, member.parameters(), strict=True):
            torch.testing.assert_close(one, other.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONDITIONAL)
def test_samples_are_of_the_class_that_was_asked_for(name):
    """A short real run on mnist5k; a classifier that never saw the game judges 1,000 samples."""
    torch.set_num_threads(1)
    settings = {
        "dataset": "mnist5k",
        "conditioning": name,
        "architecture": {"name": "dcgan", "width": 16, "discriminator_normalization": "none"},
        "optimizer": {"lr": 1e-3, "beta1": 0.5},
        "batch_size": 64,
        "discriminator_updates": 600,
    }
    t = build_trainer(TrainConfig.from_dict(settings))
    t.advance(600)
    labels = torch.arange(1000) % 10
    images = t.sample(1000, torch.Generator().manual_seed(0), labels)
    accuracy = classified(images).eq(labels).double().mean().item()
    # Chance is 0.1 with a standard error of 0.01.
    assert accuracy > 0.5, accuracy


def classified(images: torch.Tensor) -> torch.Tensor:
    logits = SmallCNN().classifier(DATASETS.build("mnist5k"))(images)
    return torch.from_numpy(logits).argmax(1)
