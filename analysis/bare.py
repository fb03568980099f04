"""Tables of trials that are not quite ours: columns that lack, ranges that nobody stated."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ganstudy.records import TRIAL_COLUMNS, TrialStatus


class TableError(ValueError):
    """A table of trials, or what stands beside it, cannot be read as a study."""


NEEDED = ("arm",)
"""Columns without which a table tells nothing; others are filled in, and said to be."""
DEFAULTS: Mapping[str, Any] = {
    "seed": 0, "reason": "", "attempts": 1,
}  # fmt: skip


def completed(trials: pd.DataFrame, place: str) -> tuple[pd.DataFrame, list[str]]:
    """Fill in the columns that a table of another version, or of another system, lacks.

    Returns:
        The table, and what a reader has to know of what was missing.

    Raises:
        TableError: If a column is missing without which no report can be.
    """
    for name in NEEDED:
        if name not in trials:
            raise TableError(f"{place}: the table of trials has no column {name!r}")
    lacking = [name for name, _ in TRIAL_COLUMNS if name not in trials]
    if not lacking:
        return trials, []
    trials = trials.copy()
    numbers = pd.Series(np.arange(len(trials)), index=trials.index).astype(str)
    for name, kind in TRIAL_COLUMNS:
        if name in trials:
            continue
        if name in ("trial_id", "config_id", "result_hash"):
            trials[name] = trials["arm"].astype(str) + "-" + numbers
        elif name == "status":
            trials[name] = str(TrialStatus.COMPLETED)
        else:
            empty = None if pa.types.is_string(kind) else math.nan
            trials[name] = DEFAULTS.get(name, empty)
    return trials, [f"The table of trials has no column {', '.join(lacking)}"]


def lacking(names: Collection[str], schema: pa.Schema) -> list[str]:
    """Return the columns of `schema` that a table with columns `names` lacks."""
    return [name for name in schema.names if name not in names]


def filled(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with the columns of `schema` that it lacks: without values, text empty."""
    for name in lacking(table.column_names, schema):
        kind = schema.field(name).type
        empty = pa.scalar("" if pa.types.is_string(kind) else None, kind)
        table = table.append_column(schema.field(name), pa.repeat(empty, len(table)))
    return table


FEWEST_OF_RANGE = 6
"""Different numbers from which on a column is taken for draws from a range."""
LOGARITHMIC = 100
"""Largest over smallest value from which on they are taken to be drawn on a logarithmic scale."""


LOWER_IS_BETTER = ("fid", "kid", "fd_", "kd_")
"""How names of scores begin of which lower ones are known to be better."""


def deciding_score(trials: pd.DataFrame, place: str) -> str:
    """Return the score by which a bare table is judged: the first of which lower is better.

    Raises:
        TableError: If there is none, if it is not of numbers, or if which decides is a guess.
    """
    names = [str(name)[5:] for name in trials if str(name).startswith("best.")]
    names = [name for name in names if not name.endswith("_se")]
    known = [name for name in names if name.startswith(LOWER_IS_BETTER)]
    if not names:
        raise TableError(f"{place}: the table of trials has no column best.<score>")
    if not known and len(names) > 1:
        raise TableError(
            f"{place}: which of {', '.join(names)} decides, and whether lower is better, is not "
            f"known: keep the one best.<score> of which lower is better"
        )
    name = (known or names)[0]
    if not pd.api.types.is_numeric_dtype(trials[f"best.{name}"]):
        raise TableError(f"{place}: the column best.{name} must hold numbers")
    return name


def seen_space(trials: pd.DataFrame) -> dict[str, Any]:
    """Return the ranges that the values of a bare table span, as a study would state them."""
    space: dict[str, Any] = {}
    for column in trials:
        values = trials[column].dropna()
        if not str(column).startswith("param.") or values.empty:
            continue
        space[str(column).removeprefix("param.")] = _spanned(values)
    return space


def _spanned(values: pd.Series[Any]) -> dict[str, list[Any]]:
    if not pd.api.types.is_numeric_dtype(values) or values.nunique() < FEWEST_OF_RANGE:
        return {"choice": sorted(values.unique().tolist())}
    low, high = float(values.min()), float(values.max())
    return {"log_uniform" if low > 0 and high / low >= LOGARITHMIC else "uniform": [low, high]}
