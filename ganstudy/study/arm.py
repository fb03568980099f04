"""One way of training that a study compares."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ganstudy.gan.config import TrainConfig, merge
from ganstudy.limits import NAME_LENGTH
from ganstudy.registry import StudyError
from ganstudy.study.reading import nested
from ganstudy.study.space import Distribution, condition_of, draw, in_order

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
"""Names of studies and arms, which become those of folders."""


def checked_name(value: object) -> str:
    """Return `value` if it is a name of a study or an arm, else raise StudyError."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise StudyError("", f"a name of letters, digits, _ and - is needed, got {value!r:.200}")
    if len(value) > NAME_LENGTH:
        rule = f"a name of at most {NAME_LENGTH} letters is needed, since it names folders"
        raise StudyError("", f"{rule}; {value[:20]}... has {len(value)}")
    return value


@dataclass(frozen=True)
class Arm:
    """One way of training that is compared: its settings and its search space."""

    name: str
    settings: Mapping[str, Any]
    space: Mapping[str, Distribution]
    shared: frozenset[str] = frozenset()
    """Keys of `space` that stand in the study's space, not in the arm's own."""
    seed_offset: int = 0
    """What its training seeds are above those of the design: of an arm run again."""
    narrow: Mapping[str, Distribution] = field(default_factory=dict)
    """The part of `space` whose trials the report also tells of apart; it draws nothing."""

    def path_of(self, key: str) -> str:
        """Return where in the study a space key stands."""
        return f"space.{key}" if key in self.shared else f"arms.{self.name}.space.{key}"

    @functools.cached_property
    def order(self) -> list[str]:
        """The keys of `space`, each after those that its condition names."""
        return in_order(self.space)

    def draw(self, of: Callable[[str], Any]) -> dict[str, Any]:
        """Return key -> `of(key)` for the keys of one config, those whose condition holds."""
        return draw(self.space, self.order, of)

    def at(self, key: str, value: Any) -> dict[str, Any]:
        """Return what a space key needs to be drawn at all, and its value."""
        return {**condition_of(self.space, key), key: value}

    def train(self, values: Mapping[str, Any], seed: int) -> TrainConfig:
        """Return the config of this arm at the swept `values`, key path -> value."""
        settings = dict(self.settings)
        # A component first, then its options: naming another one would drop them.
        for key in sorted(values, key=lambda key: key.removesuffix(".name")):
            settings = merge(settings, nested(key, values[key]))
        budget = settings.pop("budget")
        settings["discriminator_updates"] = budget["discriminator_updates"]
        return TrainConfig.from_dict(settings | {"seed": seed})
