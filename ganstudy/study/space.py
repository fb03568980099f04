"""Search spaces: a number in [0, 1) -> a value of one hyper-parameter. No Optuna in here."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ganstudy.registry import StudyError, only_text_keys, unknown

LARGEST = 1 - 2**-53
"""The largest u below 1."""


@dataclass(frozen=True)
class Distribution(ABC):
    """How one hyper-parameter is drawn, and under which condition.

    Attributes:
        when: Key path -> value of other parameters of the space; this one is drawn only where
            they all have these values.
    """

    when: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    @abstractmethod
    def at(self, u: float) -> Any:
        """Return the value at quantile `u` in [0, 1)."""

    @abstractmethod
    def ends(self) -> list[Any]:
        """Return values that a check must build: both ends of a range, every choice."""

    @abstractmethod
    def drawn(self) -> dict[str, Any]:
        """Return what a YAML holds of it, without its condition."""

    def to_dict(self) -> dict[str, Any]:
        """Return what a YAML holds."""
        return self.drawn() | ({"when": dict(self.when)} if self.when else {})

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether its condition holds at `values`, which lack the keys that are not drawn."""
        return all(key in values and same(values[key], v) for key, v in self.when.items())


@dataclass(frozen=True)
class Uniform(Distribution):
    """Uniform on [low, high]."""

    low: float
    high: float

    def at(self, u: float) -> float:
        return self.low + u * (self.high - self.low)

    def ends(self) -> list[Any]:
        # The highest value is never drawn: [0, 1] is fine for a decay that must stay below 1.
        return [self.low, self.at(LARGEST)]

    def drawn(self) -> dict[str, Any]:
        return {"uniform": [self.low, self.high]}


@dataclass(frozen=True)
class LogUniform(Distribution):
    """Uniform in the logarithm on [low, high], low > 0."""

    low: float
    high: float

    def at(self, u: float) -> float:
        return math.exp(math.log(self.low) + u * (math.log(self.high) - math.log(self.low)))

    def ends(self) -> list[Any]:
        return [self.low, self.high]

    def drawn(self) -> dict[str, Any]:
        return {"log_uniform": [self.low, self.high]}


@dataclass(frozen=True)
class IntUniform(Distribution):
    """Whole numbers from low to high, both included, equally likely."""

    low: int
    high: int

    def at(self, u: float) -> int:
        return self.low + int(u * (self.high - self.low + 1))

    def ends(self) -> list[Any]:
        return [self.low, self.high]

    def drawn(self) -> dict[str, Any]:
        return {"int_uniform": [self.low, self.high]}


@dataclass(frozen=True)
class Choice(Distribution):
    """One of a list, equally likely."""

    values: tuple[Any, ...]

    def at(self, u: float) -> Any:
        return self.values[int(u * len(self.values))]

    def ends(self) -> list[Any]:
        return list(self.values)

    def drawn(self) -> dict[str, Any]:
        return {"choice": list(self.values)}


RANGES: dict[str, Callable[[Any, Any], Distribution]] = {
    "uniform": Uniform,
    "log_uniform": LogUniform,
    "int_uniform": IntUniform,
}
KINDS = (*RANGES, "choice")
Space = Mapping[str, Distribution | None]
"""Key path -> how it is drawn; None takes a key away that something else brings."""


def same(one: object, other: object) -> bool:
    """Whether two values are written alike in a study: 1, 1.0 and true are three values."""
    return one is other or _text(one) == _text(other)


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def parse_distribution(value: object) -> Distribution:
    """Build from what a YAML holds: `{log_uniform: [1e-5, 1e-2]}`, `{choice: [1, 5]}`, ...

    Beside it may stand its condition, `when: {OTHER_KEY: VALUE}`.

    Raises:
        StudyError: For an unknown kind, an empty or inverted range, a log range that reaches 0.
    """
    plain = dict(value) if isinstance(value, Mapping) else {}
    when = plain.pop("when", {})
    if len(plain) != 1:
        listed = ", ".join(KINDS)
        raise StudyError("", f"a mapping with one of {listed} is needed, got {value!r}")
    [(kind, arguments)] = plain.items()
    return replace(_unconditional(kind, arguments), when=_condition(when))


def parse_space(value: object) -> Space:
    """Read what a YAML holds under `space`, in which null takes away what is inherited."""
    if not isinstance(value, Mapping):
        raise StudyError("", f"a mapping is needed, got {value!r}")
    space: dict[str, Distribution | None] = {}
    for key, distribution in only_text_keys(value).items():
        try:
            space[key] = None if distribution is None else parse_distribution(distribution)
        except StudyError as error:
            raise error.under(key) from None
    return space


def _condition(when: object) -> dict[str, Any]:
    if not isinstance(when, Mapping):
        raise StudyError("when", f"must be {{OTHER_KEY: VALUE}}, got {when!r}")
    return {str(key): value for key, value in when.items()}


def _unconditional(kind: object, arguments: object) -> Distribution:
    if kind not in KINDS:
        raise StudyError("", unknown("distribution", kind, KINDS))
    if not isinstance(arguments, list):
        raise StudyError(kind, f"a list is needed, got {arguments!r}")
    if kind == "choice":
        return _choice(arguments)
    return _range(str(kind), arguments)


def _choice(values: list[Any]) -> Choice:
    if not values:
        raise StudyError("choice", "is empty; name at least one value")
    distinct = {_text(v) for v in values}
    if len(distinct) < len(values):
        raise StudyError("choice", f"names a value twice: {values!r}")
    return Choice(tuple(values))


def _range(kind: str, arguments: list[Any]) -> Distribution:
    number = int if kind == "int_uniform" else (int, float)
    plain = [v for v in arguments if isinstance(v, number) and not isinstance(v, bool)]
    if len(arguments) != 2 or len(plain) != 2 or not all(math.isfinite(v) for v in plain):
        word = "whole numbers" if kind == "int_uniform" else "numbers"
        raise StudyError(kind, f"must be [low, high], two {word}, got {arguments!r}")
    low, high = plain
    if low >= high:
        shape = "inverted" if low > high else "empty"
        raise StudyError(kind, f"range is {shape}: low {low!r} must be below high {high!r}")
    if kind == "log_uniform" and low <= 0:
        raise StudyError(kind, f"low must be greater than 0 on a log scale, got {low!r}")
    return RANGES[kind](low, high)


def in_order(space: Mapping[str, Distribution]) -> list[str]:
    """Return the keys of a space, each after those that its condition names, else by name.

    Raises:
        StudyError: If conditions go round in a circle.
    """
    order: list[str] = []

    def place(key: str, waiting: tuple[str, ...]) -> None:
        if key in waiting:
            circle = " -> ".join([*waiting[waiting.index(key) :], key])
            raise StudyError(f"{key}.when", f"goes round in a circle: {circle}")
        if key in space and key not in order:
            for other in sorted(space[key].when):
                place(other, (*waiting, key))
            order.append(key)

    for key in sorted(space):
        place(key, ())
    return order


def condition_of(space: Mapping[str, Distribution], key: str) -> dict[str, Any]:
    """Return the values that all keys must have for `key` to be drawn, along the whole chain.

    Raises:
        StudyError: If it can never be drawn, since two conditions ask for different values, or
            a condition names what is no choice of the space.
    """
    needed: dict[str, Any] = {}
    for other, value in space[key].when.items():
        at_value = {other: _checked(space, key, other, value)}
        for name, wanted in (at_value | condition_of(space, other)).items():
            if name in needed and not same(needed[name], wanted):
                rule = f"can never hold: {name} would be {needed[name]!r} and {wanted!r} at once"
                raise StudyError(f"{key}.when", rule)
            needed[name] = wanted
    return needed


def _checked(space: Mapping[str, Distribution], key: str, other: str, value: object) -> object:
    """Return a condition's value if `other` is a choice of the space that has it."""
    path = f"{key}.when"
    if other not in space:
        raise StudyError(path, unknown("key of this space", other, set(space) - {key}))
    distribution = space[other]
    if not isinstance(distribution, Choice):
        raise StudyError(f"{path}.{other}", "is a range: a condition needs a choice")
    if not any(same(value, choice) for choice in distribution.values):
        texts = [v if isinstance(v, str) else _text(v) for v in distribution.values]
        shown = value if isinstance(value, str) else _text(value)
        raise StudyError(f"{path}.{other}", unknown("choice", shown, texts))
    return value


def draw(
    space: Mapping[str, Distribution], order: Iterable[str], of: Callable[[str], Any]
) -> dict[str, Any]:
    """Return key -> `of(key)` for the keys that are drawn, by name.

    Args:
        space: What is drawn from.
        order: Its keys as of `in_order`.
        of: Called for a key once all that its condition names are known.
    """
    values: dict[str, Any] = {}
    for key in order:
        if space[key].holds(values):
            values[key] = of(key)
    return dict(sorted(values.items()))
