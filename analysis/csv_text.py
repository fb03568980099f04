"""Tables as CSV that a spreadsheet reads as text, whatever names a study holds."""

from __future__ import annotations

import pandas as pd

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet takes for a formula."""


def to_csv(data: pd.DataFrame) -> str:
    """Return a table as CSV; an apostrophe stands before text that would be a formula.

    Numbers stay what they are, text that is a number too.
    """
    safe = data.copy()
    for at, kind in enumerate(data.dtypes):
        if not pd.api.types.is_numeric_dtype(kind):
            safe.isetitem(at, [_plain(cell) for cell in data.iloc[:, at]])
    return str(safe.set_axis([_plain(name) for name in data.columns], axis=1).to_csv(index=False))


def _plain(cell: object) -> object:
    if not isinstance(cell, str) or not cell.startswith(FORMULA) or _is_number(cell):
        return cell
    return f"'{cell}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
