"""Arms that every honest study could have: one run twice, and one broken on purpose.

The same arm twice must not differ: what the study says of the two, it says of noise. A broken arm
must lose: a study that does not see it would not see anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from ganstudy.gan.config import at, merge
from ganstudy.registry import StudyError, only_text_keys, unknown
from ganstudy.study.arm import Arm, checked_name

SEED_OFFSET = 1_000_000
"""Training seeds of the arm that is run again lie so far above the design's: with the same ones
its paired configs would give the same rows, bit for bit."""
DEFECT = "average_never_updated"
"""The stabiliser that breaks an arm: it trains as ever, its untrained generator is sampled."""


class Control(NamedTuple):
    """An arm, and the name of the one made of it."""

    arm: str
    copy: str


class Controls(NamedTuple):
    """The controls of a study, None where it has none."""

    same: Control | None = None
    broken: Control | None = None

    @property
    def all(self) -> list[Control]:
        """Those that there are."""
        return [control for control in self if control is not None]

    def to_dict(self) -> dict[str, dict[str, str] | None]:
        """Return what a YAML holds."""
        plain: dict[str, dict[str, str] | None] = {}
        for kind, (word, _) in KINDS.items():
            control: Control | None = getattr(self, kind)
            plain[kind] = {"arm": control.arm, word: control.copy} if control else None
        return plain


def again(arm: Arm, name: str) -> Arm:
    """Return the same arm under another name, with training seeds of its own."""
    return replace(arm, name=name, seed_offset=SEED_OFFSET)


def broken(arm: Arm, name: str) -> Arm:
    """Return the arm with its one defect."""
    return replace(arm, name=name, settings=merge(arm.settings, {"stabilizers": {DEFECT: {}}}))


KINDS: dict[str, tuple[str, Callable[[Arm, str], Arm]]] = {
    "same": ("again", again),
    "broken": ("broken", broken),
}
"""Kind of control -> what its arm is called, and how it is made."""


def with_controls(value: object, arms: tuple[Arm, ...]) -> tuple[tuple[Arm, ...], Controls]:
    """Return the arms with those that a study's `controls` ask for, and which are which.

    Args:
        value: `{same: ARM, broken: ARM}`; true is the first arm. `{arm: ARM, again: NAME}`, as a
            resolved study says it, may name an arm that is there already.
        arms: The study's own.

    Raises:
        StudyError: For an unknown arm, or a name that is taken by another arm.
    """
    if not isinstance(value, Mapping | None):
        raise StudyError("", f"must be {{same: ARM, broken: ARM}}, got {value!r}")
    found: dict[str, Control | None] = {}
    for kind, asked in only_text_keys(value or {}).items():
        if kind not in KINDS:
            raise StudyError(kind, unknown("key", kind, KINDS))
        found[kind] = control = at(kind, _control, kind, asked, arms)
        if control is not None:
            arms = at(kind, _with, arms, control, kind, known=isinstance(asked, Mapping))
    return arms, Controls(**found)


def _control(kind: str, asked: object, arms: Sequence[Arm]) -> Control | None:
    word, _ = KINDS[kind]
    if asked is None or asked is False:
        return None
    if asked is True:
        asked = arms[0].name
    if isinstance(asked, Mapping):
        if set(asked) != {"arm", word}:
            raise StudyError("", f"must be {{arm: ARM, {word}: NAME}}, got {asked!r}")
        return Control(checked_name(asked["arm"]), checked_name(asked[word]))
    return Control(checked_name(asked), checked_name(f"{asked}_{word}"))


def _with(arms: tuple[Arm, ...], control: Control, kind: str, *, known: bool) -> tuple[Arm, ...]:
    """Return the arms with the control's own, in place of the same one where that is known."""
    by_name = {arm.name: arm for arm in arms}
    if control.arm not in by_name:
        raise StudyError("", unknown("arm", control.arm, by_name))
    _, make = KINDS[kind]
    made = make(by_name[control.arm], control.copy)
    made.train({}, 0)
    there = by_name.get(control.copy)
    if there is None:
        return (*arms, made)
    if not known:
        rule = f"would add the arm {control.copy}, which there is already: rename that one"
        raise StudyError("", rule)
    if there.name == control.arm or (there.settings, there.space) != (made.settings, made.space):
        raise StudyError("", f"{control.copy} is another arm than {control.arm} would give")
    return tuple(replace(made, shared=arm.shared) if arm is there else arm for arm in arms)


def check_seeds(controls: Controls, seeds: Sequence[int]) -> None:
    """Refuse seeds that the arm run again would share with its twin, or that are too large."""
    shifted = {seed + SEED_OFFSET for seed in seeds}
    if controls.same is not None and (shifted & set(seeds) or max(shifted) >= 2**63):
        rule = f"trains at seeds {SEED_OFFSET:,} above design.seeds, which are too large for that"
        raise StudyError("same", rule)
