from __future__ import annotations

import pytest

from ganstudy.gan.config import TrainConfig, merge
from ganstudy.registry import StudyError


def test_a_config_survives_its_own_dict():
    config = TrainConfig.from_dict(
        {"loss": "hinge", "regularizers": {"r1": {"weight": 1.0}}, "stabilizers": {"ema": {}}}
    )
    assert TrainConfig.from_dict(config.to_dict()) == config
    assert TrainConfig.from_dict(config.to_dict()).canonical_json() == config.canonical_json()


def test_optimizer_sets_both_and_a_networks_own_wins():
    config = TrainConfig.from_dict(
        {"optimizer": {"beta1": 0.1, "lr": 1e-3}, "discriminator_optimizer": {"beta1": 0.7}}
    )
    assert (config.generator_optimizer.beta1, config.generator_optimizer.lr) == (0.1, 1e-3)
    assert (config.discriminator_optimizer.beta1, config.discriminator_optimizer.lr) == (0.7, 1e-3)


def test_ttur_ratio_is_discriminator_over_generator():
    config = TrainConfig.from_dict({"generator_optimizer": {"lr": 1e-3}, "ttur_ratio": 4})
    assert config.discriminator_optimizer.lr == pytest.approx(4e-3)


def test_ttur_ratio_excludes_the_discriminators_own_rate():
    with pytest.raises(StudyError, match="excludes discriminator_optimizer.lr"):
        TrainConfig.from_dict({"ttur_ratio": 2, "discriminator_optimizer": {"lr": 1e-3}})


def test_another_component_drops_the_options_of_the_first():
    base = {"architecture": {"name": "dcgan", "discriminator_normalization": "none", "width": 8}}
    assert merge(base, {"architecture": "mlp"})["architecture"] == {"name": "mlp"}
    kept = merge(base, {"architecture": {"width": 4}})["architecture"]
    assert kept == {"name": "dcgan", "discriminator_normalization": "none", "width": 4}


def test_regularizers_merge_by_name_and_null_removes():
    base = {"regularizers": {"r1": {"weight": 1.0}, "weight_clip": {}}}
    merged = merge(base, {"regularizers": {"weight_clip": None, "gradient_penalty": {}}})
    assert merged["regularizers"] == {"r1": {"weight": 1.0}, "gradient_penalty": {}}


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"los": "hinge"}, "los"),
        ({"loss": "hing"}, "loss"),
        ({"regularizers": {"r2d2": {}}}, "regularizers"),
        ({"regularizers": {"r1": {"weigth": 1.0}}}, "regularizers.r1.weigth"),
        ({"n_critic": 0}, "n_critic"),
        ({"n_critic": 1.5}, "n_critic"),
        ({"memory_format": "nhwc"}, "memory_format"),
        ({"optimizer": {"momentum": 0.9}}, "optimizer.momentum"),
        ({"generator_optimizer": {"momentum": 0.9}}, "generator_optimizer.momentum"),
    ],
)
def test_errors_name_the_path(settings, path):
    with pytest.raises(StudyError) as error:
        TrainConfig.from_dict(settings)
    assert error.value.path == path


def test_options_without_a_name_are_those_of_the_default():
    config = TrainConfig.from_dict({"architecture": {"width": 8}, "schedule": {}, "loss": {}})
    assert (config.architecture.name, config.architecture.width) == ("dcgan", 8)
    assert (config.schedule.name, config.loss.name) == ("constant", "non_saturating")
