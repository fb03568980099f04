"""What was swept, on the scale it was drawn on, and where in its range each configuration lies."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.tables import Study
from ganstudy.study.outcomes import score_configs

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
NEAR = 0.05
"""Share of a range within which a value sits on its edge."""


@dataclass(frozen=True)
class Parameter:
    """One swept hyper-parameter of an arm.

    Attributes:
        key: Its key in the arm's space.
        low: Lower end of its range; 0 of a choice.
        high: Upper end.
        log: Whether it was drawn uniformly in the logarithm.
        whole: Whether only whole numbers are drawn.
        choices: The values of a choice as text, empty of a range.
    """

    key: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    whole: bool = False
    choices: tuple[str, ...] = ()

    @property
    def column(self) -> str:
        """Its column among the trials."""
        return f"param.{self.key}"

    @property
    def span(self) -> float:
        """Length of the range as drawn; of whole numbers how many there are."""
        if self.log:
            return math.log(self.high / self.low)
        return self.high - self.low + self.whole

    def positions(self, values: pd.Series[Any]) -> Floats:
        """Return where `values` lie: 0 to 1 in a range, the index of a choice; NaN if not drawn.

        Whole numbers are cells of equal width, and lie at their middles.
        """
        if self.choices:
            texts = values.map(_label, na_action="ignore")
            index = {choice: float(i) for i, choice in enumerate(self.choices)}
            return np.asarray(texts.map(index), dtype=float)
        numbers = np.asarray(pd.to_numeric(values, errors="coerce"), dtype=float)
        if self.log:
            with np.errstate(invalid="ignore", divide="ignore"):
                return np.log(numbers / self.low) / self.span
        return (numbers - self.low + 0.5 * self.whole) / self.span

    def value(self, position: float) -> float:
        """Return the value at a position of a range."""
        if self.log:
            return self.low * math.exp(position * self.span)
        return self.low + position * self.span - 0.5 * self.whole

    def levels(self, bins: int) -> int:
        """Return into how many levels at most `bins` cut it: its choices as they are."""
        if self.choices:
            return len(self.choices)
        return min(bins, int(self.span)) if self.whole else bins

    def level(self, positions: Floats, bins: int) -> Ints:
        """Return the level of each position, -1 where there is none."""
        count = self.levels(bins)
        scaled = positions if self.choices else positions * count
        known = np.isfinite(scaled)
        index = np.floor(np.where(known, scaled, 0)).clip(0, count - 1).astype(np.int64)
        return np.where(known, index, -1)

    def center(self, level: int, bins: int) -> float:
        """Return the value in the middle of a level on the drawn scale; a choice's index."""
        return float(level) if self.choices else self.value((level + 0.5) / self.levels(bins))

    def label(self, level: int, bins: int) -> str:
        """Return a level's name: a choice, a whole number, or from where to where."""
        if self.choices:
            return self.choices[level]
        count = self.levels(bins)
        if not self.whole:
            return f"{self.value(level / count):.2g} to {self.value((level + 1) / count):.2g}"
        first, last = (math.ceil(self.value((level + end) / count)) for end in (0, 1))
        return str(first) if last - first == 1 else f"{first} to {last - 1}"


def _label(value: object) -> str:
    """Return a value as trials.parquet holds it; 5.0 and 5 are one number there."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value)


def parse(key: str, drawn: Mapping[str, Any]) -> Parameter | None:
    """Return what a space says of one key, None if it leaves it no freedom."""
    kinds = {kind: value for kind, value in drawn.items() if kind != "when"}
    [(kind, values)] = kinds.items()
    if kind == "choice":
        texts = tuple(_label(float(v) if type(v) in (int, float) else v) for v in values)
        return Parameter(key, choices=texts) if len(texts) > 1 else None
    low, high = values
    return Parameter(key, float(low), float(high), kind == "log_uniform", kind == "int_uniform")


class Sample(NamedTuple):
    """What an arm was tried at and how it went, one row a configuration.

    Attributes:
        configs: Names of the n configurations.
        parameters: What was swept, by key.
        positions: Key -> n positions, NaN where a condition left it out.
        scores: n medians over the seeds, lower is better; +inf where half of them failed.
    """

    arm: str
    configs: list[str]
    parameters: list[Parameter]
    positions: dict[str, Floats]
    scores: Floats

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Which configurations failed."""
        return np.isinf(self.scores)

    @property
    def common(self) -> list[Parameter]:
        """The parameters that every configuration has a value of."""
        return [p for p in self.parameters if np.isfinite(self.positions[p.key]).all()]


def sample(study: Study, arm: str) -> Sample:
    """Return the drawn configurations of an arm; none where configurations are repeated."""
    trials = study.counted(arm)
    if study.unit == "seed":
        trials = trials.iloc[:0]
    space = study.settings["arms"][arm].get("space") or {}
    parsed = [parse(key, drawn) for key, drawn in sorted(space.items())]
    parameters = [p for p in parsed if p is not None and p.column in trials]
    first = trials.drop_duplicates("config_id").sort_values("config_id")
    scores = score_configs(trials["config_id"], trials["score"])
    positions = {p.key: p.positions(first[p.column]) for p in parameters}
    swept = [p for p in parameters if np.isfinite(positions[p.key]).any()]
    return Sample(arm, list(scores.index), swept, positions, np.asarray(scores, np.float64))


def samples(study: Study) -> dict[str, Sample]:
    """Return arm -> its sample, of the contenders with a space and trials."""
    every = {arm: sample(study, arm) for arm in study.contenders}
    return {arm: of for arm, of in every.items() if of.configs and of.parameters}


EDGE_COLUMNS = [
    "arm", "n", "config_id", "parameter", "value", "low", "high", "position", "edge", "chance",
]  # fmt: skip


def edges(study: Study) -> pd.DataFrame:
    """Return where in every range the best configuration of every arm sits.

    A value is on an edge within 5 % of an end, on the scale it was drawn on. Of d ranges one has
    its best on an edge by chance alone with probability 1 - 0.9^d, nearly a half at d = 6.

    Returns:
        One row a range (choices have no edge): `n` configurations; the best one's `value`, its
        `position` from 0 to 1 between `low` and `high`, `edge` (`low`, `high` or empty), and
        `chance`, the probability that a configuration drawn blindly sits on an edge of at least
        one of the arm's ranges; NaN of an adaptive sampler, whose draws are not blind.
    """
    rows = []
    for arm in study.contenders:
        of = sample(study, arm)
        if not np.isfinite(of.scores).any():
            continue
        best = int(of.scores.argmin())
        ranges = [
            p for p in of.parameters if not p.choices and np.isfinite(of.positions[p.key][best])
        ]
        clear = math.prod(1 - _on_edge_by_chance(p) for p in ranges)
        chance = math.nan if study.settings["design"]["sampler"] == "tpe" else 1 - clear
        for p in ranges:
            value = p.value(float(of.positions[p.key][best]))
            position = _position(p, value)
            edge = "low" if position <= NEAR else "high" if position >= 1 - NEAR else ""
            row = (arm, len(of.scores), of.configs[best], p.key)
            rows.append((*row, value, p.low, p.high, position, edge, chance))
    return pd.DataFrame(rows, columns=EDGE_COLUMNS)


def _position(parameter: Parameter, value: float) -> float:
    """Return where between the ends of a range a value lies: of a whole number 0 at the lowest."""
    low, high = parameter.low, parameter.high
    if parameter.log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def _on_edge_by_chance(parameter: Parameter) -> float:
    if not parameter.whole:
        return 2 * NEAR
    numbers = np.arange(parameter.span) / (parameter.span - 1)
    return float(((numbers <= NEAR) | (numbers >= 1 - NEAR)).mean())
