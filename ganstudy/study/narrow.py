"""The narrow space of a study: a part of what its arms draw from, told apart afterwards.

A wide study's trials that lie in it are what a second, narrow study would have drawn, so the
report tells of them at no further training. It changes no trial: it may be changed at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ganstudy.gan.config import at
from ganstudy.registry import StudyError, unknown
from ganstudy.study import recipes
from ganstudy.study.arm import Arm
from ganstudy.study.recipes import Template
from ganstudy.study.space import Choice, Distribution, IntUniform, Space, parse_space, same


def with_narrow(
    arms: tuple[Arm, ...],
    data: Mapping[str, Any],
    templates: Mapping[str, Template],
) -> tuple[Arm, ...]:
    """Return the arms with their narrow spaces: a recipe's < the study's < the arm's own.

    Args:
        arms: As they are without.
        data: What the study's YAML holds.
        templates: Arm -> what lies under it.

    Raises:
        StudyError: For a key that is not drawn, or a range that is not within the space's.
    """
    shared = at("narrow", parse_space, data.get("narrow", {}))
    drawn = {key for arm in arms for key in arm.space}
    for key, distribution in shared.items():
        if distribution is not None and key not in drawn:
            raise StudyError(f"narrow.{key}", unknown("key of any arm's space", key, drawn))
    written = data.get("arms") or {}
    return tuple(
        replace(arm, narrow=_narrow(arm, written.get(arm.name) or {}, templates, shared))
        for arm in arms
    )


def _narrow(
    arm: Arm, written: Mapping[str, Any], templates: Mapping[str, Template], shared: Space
) -> dict[str, Distribution]:
    """Return the narrow space of one arm, of which `written` stands in the YAML."""
    own = at(f"arms.{arm.name}.narrow", parse_space, written.get("narrow", {}))
    for key, distribution in own.items():
        if distribution is not None and key not in arm.space:
            rule = unknown("key of this arm's space", key, arm.space)
            raise StudyError(f"arms.{arm.name}.narrow.{key}", rule)
    asked = {key: d for key, d in {**shared, **own}.items() if key in arm.space}
    for key, distribution in asked.items():
        if distribution is not None:
            place = f"arms.{arm.name}.narrow" if key in own else "narrow"
            at(f"{place}.{key}", _check, arm, key, distribution)
    template = templates.get(arm.name)
    if "recipe" in written:
        template = recipes.template(written["recipe"])
    offered = {**_brought(arm, template), **asked}
    return {key: replace(d, when={}) for key, d in offered.items() if d is not None}


def _brought(arm: Arm, template: Template | None) -> dict[str, Distribution]:
    """Return a recipe's narrow ranges, as far as they narrow what the arm draws.

    What a recipe fixes at one value of a range is left out: no draw would lie in it.
    """
    found = parse_space(template.narrow if template else {})
    return {
        key: d
        for key, d in found.items()
        if d is not None
        and key in arm.space
        and within(d, arm.space[key])
        and not within(arm.space[key], d)
    }


def _check(arm: Arm, key: str, narrow: Distribution) -> None:
    space = arm.space[key]
    if narrow.when and dict(narrow.when) != dict(space.when):
        raise StudyError("when", f"is for {arm.path_of(key)} to say: leave it out")
    if not within(narrow, space):
        kind = next(iter(space.drawn()))
        remedy = "some of its values" if isinstance(space, Choice) else f"a narrower {kind}"
        raise StudyError(
            "",
            f"{_told(narrow)} does not lie within {_told(space)}, from which {arm.path_of(key)} "
            f"draws: give {remedy}",
        )


def _told(distribution: Distribution) -> str:
    [(kind, values)] = distribution.drawn().items()
    return f"{kind} {values}"


def within(narrow: Distribution, space: Distribution) -> bool:
    """Whether draws from `space` that lie in `narrow` are draws from `narrow`.

    So both must be ranges of one kind, or choices; whole numbers may be chosen from a range.
    """
    if isinstance(narrow, Choice) and isinstance(space, Choice):
        return all(any(same(v, choice) for choice in space.values) for v in narrow.values)
    if isinstance(narrow, Choice) and isinstance(space, IntUniform):
        return all(type(v) is int and space.low <= v <= space.high for v in narrow.values)
    if isinstance(narrow, Choice) or type(narrow) is not type(space):
        return False
    [(low, high)], [(least, most)] = narrow.drawn().values(), space.drawn().values()
    return bool(least <= low and high <= most)
