from __future__ import annotations

import inspect

import pytest

from ganstudy.catalog import REGISTRIES, study_schema
from ganstudy.registry import StudyError

ALL = [(kind, name) for kind, registry in REGISTRIES.items() for name in registry.names()]
REQUIRED = {
    name: {"path": "anywhere"} for name in ("celeba", "cifar10", "image_folder", "mnist", "npz")
}


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_a_component_survives_its_own_dict(kind, name):
    registry = REGISTRIES[kind]
    built = registry.build(name, **REQUIRED.get(name, {}))
    assert built.name == name
    assert registry.parse(built.to_dict()) == built


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_a_component_explains_itself(kind, name):
    registry = REGISTRIES[kind]
    assert registry.get(name).__doc__.strip()
    for option in registry.options(name):
        assert option.help, f"{kind} {name}: the option {option.name} says nothing"


@pytest.mark.parametrize(
    ("kind", "name"),
    [c for c in ALL if c[0] in ("loss", "regularizer", "stabilizer", "optimizer", "schedule")],
)
def test_what_a_paper_argues_about_says_what_public_codes_do(kind, name):
    docstring = inspect.cleandoc(REGISTRIES[kind].get(name).__doc__)
    assert "\nElsewhere:\n    " in docstring
    assert REGISTRIES[kind].paper(name) or name == "constant"


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_an_unknown_option_is_refused(kind, name):
    with pytest.raises(StudyError, match="unknown option"):
        REGISTRIES[kind].build(name, **REQUIRED.get(name, {}), no_such_option=1)


def test_the_nearest_right_name_is_told():
    with pytest.raises(StudyError, match="did you mean 'wasserstein'"):
        REGISTRIES["loss"].build("wasserstien")
    with pytest.raises(StudyError, match="did you mean 'beta1'"):
        REGISTRIES["optimizer"].build("adam", beta_1=0.5)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"lr": "fast"}, "valid number"),
        ({"lr": 0.0}, "greater than 0"),
        ({"lr": True}, "valid number"),
        ({"lr": float("nan")}, "finite"),
        ({"beta1": 1.0}, "less than 1"),
    ],
)
def test_wrong_values_name_option_and_rule(options, rule):
    with pytest.raises(StudyError) as error:
        REGISTRIES["optimizer"].build("adam", **options)
    assert error.value.path == next(iter(options))
    assert rule in error.value.rule


def test_components_are_frozen():
    adam = REGISTRIES["optimizer"].build("adam")
    with pytest.raises(AttributeError):
        adam.lr = 1.0


def test_schema_knows_every_component():
    text = str(study_schema())
    for kind, name in ALL:
        assert repr(name) in text, f"the schema lacks {kind} {name}"
