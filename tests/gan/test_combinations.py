"""Every loss with every regulariser and normalisation trains three updates, or is refused."""

from __future__ import annotations

import itertools
import math

import pytest

from ganstudy.gan.config import TrainConfig
from ganstudy.gan.losses import LOSSES, Loss
from ganstudy.gan.optimizers import OPTIMIZERS
from ganstudy.gan.regularizers import REGULARIZERS
from ganstudy.gan.trainer import build_trainer
from ganstudy.registry import StudyError

NORMALIZATIONS = {
    "batch": {"discriminator_normalization": "batch"},
    "layer": {"discriminator_normalization": "layer"},
    "none": {"discriminator_normalization": "none"},
    "spectral": {"discriminator_normalization": "none", "spectral_norm": True},
}


def trained(loss: str, regularizers, normalization: str, **settings) -> dict[str, float]:
    config = {
        "dataset": "digits",
        "architecture": {"name": "dcgan", "width": 2, "latent_dim": 4}
        | NORMALIZATIONS[normalization],
        "loss": loss,
        "regularizers": {name: {} for name in regularizers},
        "batch_size": 8,
    }
    return build_trainer(TrainConfig.from_dict(config | settings)).advance(3)


@pytest.mark.parametrize("loss", LOSSES.names())
def test_every_combination_trains_or_is_refused_with_a_reason(loss):
    for regularizer, normalization in itertools.product(REGULARIZERS.names(), NORMALIZATIONS):
        if not issubclass(LOSSES.get(loss), Loss):
            with pytest.raises(StudyError, match="has no discriminator to regularise"):
                trained(loss, [regularizer], normalization)
            continue
        signals = trained(loss, [regularizer], normalization)
        broken = [name for name, value in signals.items() if not math.isfinite(value)]
        assert not broken, (regularizer, normalization)


def test_all_regularisers_together_train():
    signals = trained("hinge", REGULARIZERS.names(), "layer")
    assert all(math.isfinite(value) for value in signals.values())
    noted = {name for name in signals if name.startswith("penalty/")}
    assert len(noted) == len(REGULARIZERS.names()) - 2  # the two clips are no penalty


@pytest.mark.parametrize(
    ("settings", "path", "reason"),
    [
        ({"compile": True, "regularizers": {"r1": {}}}, "compile", "no double backward"),
        ({"n_critic": 2, "generator_steps": 2}, "generator_steps", "excludes n_critic"),
        ({"generator_optimizer": "extragradient_sgd"}, "optimizer", "name it for both"),
        ({"optimizer": "extragradient_adam", "n_critic": 5}, "n_critic", "must be 1"),
        ({"optimizer": "extragradient_adam", "generator_steps": 5}, "generator_steps", "be 1"),
        ({"simultaneous": True, "n_critic": 5}, "n_critic", "a simultaneous game moves both"),
        ({"simultaneous": 1}, "simultaneous", "true or false"),
        ({"loss": "vae", "regularizers": {"r1": {}}}, "regularizers.r1", "no discriminator"),
        ({"loss": "vae", "stabilizers": {"instance_noise": {}}}, "stabilizers.instance_noise",
         "no discriminator"),
        ({"loss": "vae", "optimizer": "extragradient_sgd"}, "optimizer", "a game of two"),
        ({"loss": "vae", "architecture": {"name": "infogan"}}, "architecture.prior", "normal"),
        ({"loss": "vae", "compile": True}, "compile", "is for games"),
        ({"flips": 1}, "flips", "true or false"),
        ({"data_seed": -1}, "data_seed", "at least 0"),
        ({"precision": "float16"}, "precision", "did you mean"),
        ({"schedule": "linaer"}, "schedule", "did you mean 'linear'"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_go_together_is_refused_with_the_reason(settings, path, reason):
    with pytest.raises(StudyError) as error:
        TrainConfig.from_dict({"dataset": "digits"} | settings)
    assert error.value.path == path
    assert reason in error.value.rule


def test_averages_of_the_generator_go_with_a_vae():
    assert math.isfinite(trained("vae", [], "none", stabilizers={"ema": {}})["generator_loss"])


@pytest.mark.parametrize("optimizer", OPTIMIZERS.names())
@pytest.mark.parametrize("architecture", ["mlp", "dcgan", "infogan", "sndcgan", "resnet"])
@pytest.mark.parametrize("loss", ["hinge", "boundary_equilibrium", "relativistic_average"])
def test_every_optimiser_moves_every_architecture(optimizer, architecture, loss):
    config = {
        "dataset": "digits",
        "architecture": {"name": architecture, "width": 2, "latent_dim": 4},
        "loss": loss,
        "optimizer": {"name": optimizer, "lr": 1e-3},
        "batch_size": 8,
    }
    trainer = build_trainer(TrainConfig.from_dict(config))
    before = [p.detach().clone() for p in trainer.state.generator.parameters()]
    assert all(math.isfinite(value) for value in trainer.advance(2).values())
    after = trainer.state.generator.parameters()
    assert any((a - b).abs().max() > 0 for a, b in zip(after, before, strict=True))
