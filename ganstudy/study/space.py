"""Search spaces: a number in [0, 1) -> a value of one hyper-parameter. No Optuna in here."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ganstudy.registry import StudyError, unknown

LARGEST = 1 - 2**-53
"""The largest u below 1."""


class Distribution(ABC):
    """How one hyper-parameter is drawn."""

    @abstractmethod
    def at(self, u: float) -> Any:
        """Return the value at quantile `u` in [0, 1)."""

    @abstractmethod
    def ends(self) -> list[Any]:
        """Return values that a check must build: both ends of a range, every choice."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return what a YAML holds."""


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

    def to_dict(self) -> dict[str, Any]:
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

    def to_dict(self) -> dict[str, Any]:
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

    def to_dict(self) -> dict[str, Any]:
        return {"int_uniform": [self.low, self.high]}


@dataclass(frozen=True)
class Choice(Distribution):
    """One of a list, equally likely."""

    values: tuple[Any, ...]

    def at(self, u: float) -> Any:
        return self.values[int(u * len(self.values))]

    def ends(self) -> list[Any]:
        return list(self.values)

    def to_dict(self) -> dict[str, Any]:
        return {"choice": list(self.values)}


RANGES: dict[str, Callable[[Any, Any], Distribution]] = {
    "uniform": Uniform,
    "log_uniform": LogUniform,
    "int_uniform": IntUniform,
}
KINDS = (*RANGES, "choice")


def parse_distribution(value: object) -> Distribution:
    """Build from what a YAML holds: `{log_uniform: [1e-5, 1e-2]}`, `{choice: [1, 5]}`, ...

    Raises:
        StudyError: For an unknown kind, an empty or inverted range, a log range that reaches 0.
    """
    if not isinstance(value, Mapping) or len(value) != 1:
        listed = ", ".join(KINDS)
        raise StudyError("", f"a mapping with one of {listed} is needed, got {value!r}")
    [(kind, arguments)] = value.items()
    if kind not in KINDS:
        raise StudyError("", unknown("distribution", kind, KINDS))
    if not isinstance(arguments, list):
        raise StudyError(kind, f"a list is needed, got {arguments!r}")
    if kind == "choice":
        return _choice(arguments)
    return _range(kind, arguments)


def _choice(values: list[Any]) -> Choice:
    if not values:
        raise StudyError("choice", "is empty; name at least one value")
    distinct = {json.dumps(v, sort_keys=True, default=str) for v in values}
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
