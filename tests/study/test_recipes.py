"""Recipes against the published settings, and how a study lays its own over them."""

from __future__ import annotations

import pytest
import torch

from ganstudy.gan.trainer import build_trainer
from ganstudy.registry import StudyError
from ganstudy.study.checks import load_study
from ganstudy.study.plan import plan
from ganstudy.study.recipes import RECIPES
from ganstudy.study.spec import parse_study

# Lucic et al.'s public code, params.py: lr, beta1, discriminator updates, batch norm in D.
AGCE_DEFAULTS = {
    "minimax": (5e-5, 0.0, 1, "batch"),
    "non_saturating": (5e-5, 0.0, 1, "batch"),
    "least_squares": (2e-4, 0.5, 1, "batch"),
    "wgan": (5e-5, 0.5, 5, "batch"),
    "wgan_gp": (1e-4, 0.5, 5, "none"),
    "dragan": (1e-4, 0.5, 1, "batch"),
    "began": (1e-4, 0.5, 5, "none"),
    "vae": (5e-5, 0.5, 1, "batch"),
}
# Model -> its own keys: wide range, narrow range.
AGCE_RANGES = {
    "wgan": {"regularizers.weight_clip.limit": ((1e-3, 1), (1e-2, 1))},
    "wgan_gp": {"regularizers.gradient_penalty.weight": ((0.1, 100), (0.1, 10))},
    "dragan": {"regularizers.dragan.weight": ((0.1, 100), (0.1, 10))},
    "began": {"loss.gamma": ((0, 1), (0.6, 0.9)), "loss.k_rate": ((1e-4, 1e-2), (1e-3,))},
}


def study(**keys):
    return parse_study({"study": "s", "base": {"dataset": "digits"}, **keys})


def ends(distribution) -> tuple:
    return tuple(pytest.approx(v, abs=1e-9) for v in distribution.ends())


@pytest.mark.parametrize("model", AGCE_DEFAULTS)
def test_agces_models_have_their_authors_defaults(model):
    config = study(recipe=f"agce/{model}").arms[0].train({}, 0)
    lr, beta1, n_critic, norm = AGCE_DEFAULTS[model]
    for optimizer in (config.generator_optimizer, config.discriminator_optimizer):
        assert (optimizer.name, optimizer.lr, optimizer.beta1) == ("adam", lr, beta1)
        assert optimizer.beta2 == 0.999
    assert config.n_critic == n_critic
    assert config.architecture.discriminator_normalization == norm
    assert (config.architecture.name, config.architecture.width) == ("infogan", 64)
    assert config.architecture.prior == ("normal" if model == "vae" else "uniform")
    assert (config.batch_size, config.data_seed) == (64, 547)
    assert config.discriminator_updates == 15_625


@pytest.mark.parametrize("model", AGCE_DEFAULTS)
def test_agces_wide_and_narrow_spaces(model):
    norms = "architecture.discriminator_normalization"
    shared = {
        "optimizer.lr": ((1e-5, 1e-2), (1e-4, 1e-3)),
        "optimizer.beta1": ((0, 1), (0.5,)),
        "n_critic": ((1, 5), (1,)),
        norms: (("batch", "none"),
                ("none",) if model in ("wgan_gp", "dragan") else ("batch", "none")),
    }  # fmt: skip
    if model == "vae":
        del shared["n_critic"]  # the paper drew it, and it changed nothing
    expected = shared | AGCE_RANGES.get(model, {})
    for index, width in enumerate(("wide", "narrow")):
        space = study(recipe={"name": f"agce/{model}", "space": width}).arms[0].space
        assert set(space) == set(expected)
        for key, ranges in expected.items():
            assert ends(space[key]) == ranges[index], (key, width)
    assert study(recipe={"name": f"agce/{model}", "space": "none"}).arms[0].space == {}


def test_the_public_codes_variants_are_asked_for_by_name():
    both = {
        variant: {
            arm.name: arm.train({}, 0)
            for arm in study(recipe={"name": "agce", "variant": variant}).arms
        }
        for variant in ("reference", "agce_code")
    }
    for variant, configs in both.items():
        assert set(configs) == set(AGCE_DEFAULTS)
        for model in ("least_squares", "began", "vae"):
            assert configs[model].loss.variant == variant
        for model in ("wgan_gp", "dragan"):
            assert configs[model].regularizers[0].variant == variant


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_at_both_ends_of_its_spaces(name):
    for space in RECIPES[name].spaces:
        (arm,) = study(
            recipe={"name": name, "space": space},
            base={"dataset": "digits", "architecture": {"width": 2}, "batch_size": 8},
        ).arms
        for end in (0, -1):
            values = {key: d.ends()[end] for key, d in arm.space.items()}
            signals = build_trainer(arm.train(values, 0)).advance(1)
            assert torch.tensor(list(signals.values())).isfinite().all()


def test_kurachs_grid_is_complete():
    names = [name for name in RECIPES if name.startswith("kurach/")]
    assert len(names) == 4 * 4 * 4
    arms = study(recipe="kurach").arms
    assert len({repr(arm.train({}, 0)) for arm in arms}) == 64
    spectral = study(recipe="kurach/hinge-gradient_penalty-spectral").arms[0].train({}, 0)
    assert spectral.architecture.spectral_norm
    assert spectral.architecture.latent_dim == 128


def test_a_study_lies_over_its_recipe():
    spec = study(
        recipe={"name": "agce", "space": "wide"},
        base={"dataset": "digits", "architecture": {"width": 8},
              "budget": {"discriminator_updates": 50}},
        space={"optimizer.lr": {"log_uniform": [1e-4, 1e-3]}, "n_critic": None},
        arms={
            "vae": None,
            "minimax": {"optimizer": {"lr": 1.0}},
            "mine": {"recipe": "agce/wgan", "regularizers": {"weight_clip": None, "r1": {}}},
        },
    )  # fmt: skip
    arms = {arm.name: arm for arm in spec.arms}
    assert list(arms) == ["minimax", "non_saturating", "least_squares", "wgan", "wgan_gp",
                          "dragan", "began", "mine"]  # fmt: skip
    for arm in spec.arms:
        config = arm.train({}, 0)
        assert (config.architecture.name, config.architecture.width) == ("infogan", 8)
        assert config.discriminator_updates == 50
        assert "n_critic" not in arm.space
        assert arm.space["optimizer.lr"].low == 1e-4
    assert arms["minimax"].train({}, 0).generator_optimizer.lr == 1.0
    mine = arms["mine"].train({}, 0)
    assert [r.name for r in mine.regularizers] == ["r1"]
    # What the arm no longer has is no longer drawn.
    assert "regularizers.weight_clip.limit" not in arms["mine"].space


def test_the_resolved_study_stands_without_its_recipe():
    spec = study(recipe="agce", arms={"vae": None}, design={"configs": 2})
    again = parse_study(spec.resolved())
    assert "recipe" not in spec.resolved()
    assert [t.result_hash for t in plan(again)] == [t.result_hash for t in plan(spec)]


def test_a_config_id_is_the_same_draw_on_every_data_set():
    draws = []
    for dataset in ("digits", "mnist5k"):
        spec = study(recipe="agce", base={"dataset": dataset}, design={"configs": 3})
        draws.append({trial.trial_id: trial.params for trial in plan(spec)})
    assert draws[0] == draws[1]


@pytest.mark.parametrize(
    ("keys", "path", "rule"),
    [
        ({"recipe": "agce/wgangp"}, "recipe", "did you mean 'agce/wgan_gp'"),
        ({"recipe": "acge"}, "recipe", "did you mean 'agce'"),
        ({"recipe": {"name": "agce", "spaces": "wide"}}, "recipe.spaces", "did you mean 'space'"),
        ({"recipe": {"name": "agce", "space": "wider"}}, "recipe.space", "did you mean 'wide'"),
        ({"recipe": {"name": "kurach", "space": "narrow"}}, "recipe.space", "unknown space"),
        ({"recipe": 3}, "recipe", "a recipe is a name"),
        ({"arms": {"a": {"recipe": "agce"}}}, "arms.a.recipe", "is a family of recipes"),
        ({"recipe": "agce/vae", "arms": {"vae": None}}, "arms", "at least one arm must be left"),
    ],
    ids=str,
)
def test_wrong_recipes_name_path_and_nearest(keys, path, rule):
    with pytest.raises(StudyError) as error:
        study(**keys)
    assert error.value.path == path
    assert rule in error.value.rule


def test_a_slip_in_set_makes_no_arm_beside_a_recipes(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("study: s\nrecipe: agce\nbase: {dataset: digits}\n")
    with pytest.raises(StudyError, match="did you mean 'wgan_gp'"):
        load_study(path, ["arms.wgangp.n_critic=2"])
