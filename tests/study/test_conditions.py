"""Keys of a space that are drawn only where another key has a certain value."""

from __future__ import annotations

import json

import jsonschema
import pytest

from ganstudy.catalog import study_schema
from ganstudy.registry import StudyError
from ganstudy.study.checks import check, notes
from ganstudy.study.plan import plan, planned
from ganstudy.study.spec import parse_study

PENALTIES = {"choice": [{"r1": {}}, {"gradient_penalty": {}}]}
WEIGHT = {"log_uniform": [0.1, 100], "when": {"regularizers": {"r1": {}}}}
CHAIN = {
    "architecture": {"choice": ["mlp", "dcgan"]},
    "architecture.width": {"choice": [4, 8], "when": {"architecture": "dcgan"}},
    "n_critic": {"choice": [1, 2], "when": {"architecture.width": 8}},
}


def one_arm(tiny, space, **design):
    tiny["arms"], tiny["space"] = {"a": {"loss": "hinge", "space": space}}, {}
    tiny["design"] = {"configs": 24} | design
    return tiny


@pytest.mark.parametrize("sampler", ["random", "sobol"])
def test_a_key_is_drawn_where_its_condition_holds_and_only_there(tiny, sampler):
    space = {"regularizers": PENALTIES, "regularizers.r1.weight": WEIGHT}
    drawn = [p.values for p in planned(parse_study(one_arm(tiny, space, sampler=sampler)))]
    kinds = {tuple(values["regularizers"]) for values in drawn}
    assert kinds == {("r1",), ("gradient_penalty",)}
    for values in drawn:
        assert ("regularizers.r1.weight" in values) == ("r1" in values["regularizers"])


def test_what_is_drawn_is_what_trains(tiny):
    space = {"regularizers": PENALTIES, "regularizers.r1.weight": WEIGHT}
    for trial in plan(parse_study(one_arm(tiny, space))):
        (regularizer,) = trial.train.regularizers
        assert regularizer.name == next(iter(trial.params["regularizers"]))
        if regularizer.name == "r1":
            assert regularizer.weight == trial.params["regularizers.r1.weight"]


def test_an_option_is_kept_although_its_key_sorts_before_that_of_its_component(tiny):
    space = {
        "architecture.name": {"choice": ["mlp", "dcgan"]},
        "architecture.depth": {"choice": [1, 2], "when": {"architecture.name": "dcgan"}},
    }
    for trial in plan(parse_study(one_arm(tiny, space))):
        if "architecture.depth" in trial.params:
            assert trial.train.architecture.depth == trial.params["architecture.depth"]


def test_a_condition_moves_no_draw(tiny):
    """Draws stay paired with those of an arm that has the key without a condition."""
    tiny["space"] = {"batch_size": {"choice": [16, 32]}}
    rate = {"log_uniform": [1e-4, 1e-2]}
    tiny["arms"] = {
        "free": {"space": {"generator_optimizer.lr": rate}},
        "bound": {"space": {"generator_optimizer.lr": rate | {"when": {"batch_size": 16}}}},
    }
    tiny["design"] = {"configs": 16}
    drawn = {(p.arm.name, p.config_id): p.values for p in planned(parse_study(tiny))}
    shared = 0
    for (arm, config), values in drawn.items():
        if arm == "bound" and "generator_optimizer.lr" in values:
            assert values == drawn["free", config]
            shared += 1
    assert 0 < shared < 16


def test_a_grid_repeats_nothing_for_keys_that_are_not_drawn(tiny):
    spec = parse_study(one_arm(tiny, CHAIN, sampler="grid"))
    assert [dict(p.values) for p in planned(spec)] == [
        {"architecture": "mlp"},
        {"architecture": "dcgan", "architecture.width": 4},
        {"architecture": "dcgan", "architecture.width": 8, "n_critic": 1},
        {"architecture": "dcgan", "architecture.width": 8, "n_critic": 2},
    ]
    check(spec)
    assert not list(notes(spec))


def test_a_resolved_study_draws_the_same(tiny):
    spec = parse_study(one_arm(tiny, CHAIN))
    again = parse_study(json.loads(json.dumps(spec.resolved())))
    assert again == spec
    assert plan(again) == plan(spec)
    jsonschema.validate(spec.resolved(), study_schema())


def test_the_ends_of_a_range_are_built_under_its_condition(tiny):
    space = {
        "regularizers": PENALTIES,
        "regularizers.r1.weight": {"uniform": [-1, 1], "when": {"regularizers": {"r1": {}}}},
    }
    with pytest.raises(StudyError, match="greater than or equal to 0 .at the value -1") as error:
        check(parse_study(one_arm(tiny, space)))
    assert error.value.path == "arms.a.space.regularizers.r1.weight"


def test_keys_that_are_never_drawn_together_need_not_fit_together(tiny):
    alone = {
        "batch_size": {"choice": [16, 32]},
        "n_critic": {"choice": [1, 2], "when": {"batch_size": 16}},
        "generator_steps": {"choice": [1, 2], "when": {"batch_size": 32}},
    }
    check(parse_study(one_arm(tiny, alone)))
    together = alone | {"generator_steps": {"choice": [1, 2], "when": {"batch_size": 16}}}
    with pytest.raises(StudyError, match="excludes n_critic"):
        check(parse_study(one_arm(tiny, together)))


def test_a_condition_in_the_studys_space_applies_to_the_arms_that_have_its_key(tiny):
    tiny["space"] = {"regularizers": PENALTIES, "regularizers.r1.weight": WEIGHT}
    tiny["arms"] = {"both": {}, "neither": {"space": {"regularizers": None}}}
    spaces = {arm.name: set(arm.space) for arm in parse_study(tiny).arms}
    assert spaces == {"both": {"regularizers", "regularizers.r1.weight"}, "neither": set()}


CRITIC = {"choice": [1, 2]}


@pytest.mark.parametrize(
    ("space", "path", "rule"),
    [
        ({"n_critic": CRITIC | {"when": {"batch_sise": 16}}},
         "n_critic.when", "did you mean 'batch_size'"),
        ({"n_critic": CRITIC | {"when": {"batch_size": 64}}},
         "n_critic.when.batch_size", "unknown choice '64'.*.known: 16, 32"),
        ({"n_critic": CRITIC | {"when": {"batch_size": 16.0}}},
         "n_critic.when.batch_size", "unknown choice '16.0'"),
        ({"n_critic": CRITIC | {"when": {"generator_optimizer.lr": 0.1}},
          "generator_optimizer.lr": {"uniform": [0.1, 1]}},
         "n_critic.when.generator_optimizer.lr", "needs a choice"),
        ({"n_critic": CRITIC | {"when": {"n_critic": 1}}},
         "n_critic.when", "circle: n_critic -> n_critic"),
        ({"n_critic": CRITIC | {"when": {"flips": True}},
          "flips": {"choice": [True, False], "when": {"n_critic": 1}}},
         "flips.when", "circle: flips -> n_critic -> flips"),
        ({"n_critic": CRITIC | {"when": [1]}}, "n_critic.when", "OTHER_KEY: VALUE"),
        ({"regularizers": PENALTIES, "regularizers.r1.weight": {"uniform": [0, 1]}},
         "regularizers.r1.weight", "needs when: {regularizers: VALUE}"),
        ({"regularizers": PENALTIES, "regularizers.r1.wieght": WEIGHT},
         "regularizers.r1.wieght", "did you mean 'regularizers.r1.weight'"),
        ({"n_critic": CRITIC | {"when": {"batch_size": 16}},
          "generator_steps": CRITIC | {"when": {"n_critic": 1, "batch_size": 32}}},
         "generator_steps.when", "can never hold: batch_size"),
    ],
)  # fmt: skip
def test_wrong_conditions_are_refused_with_place_and_rule(tiny, space, path, rule):
    space = {"batch_size": {"choice": [16, 32]}} | space
    with pytest.raises(StudyError, match=rule) as error:
        parse_study(one_arm(tiny, space))
    assert error.value.path == f"arms.a.space.{path}"
