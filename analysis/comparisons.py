"""Every pair of arms, compared."""

from __future__ import annotations

import pandas as pd

from analysis.page import Section, Table
from analysis.tables import Study
from analysis.verdict import comparisons


def section(study: Study) -> Section | None:
    """Return the table of all pairs."""
    found = comparisons(study)
    title = "Every pair of arms"
    if not found:
        return Section("pairs", title, ["Nothing to test: one arm, or no independent draws."])
    rows = pd.DataFrame(found)
    shown = pd.DataFrame(
        {
            "arms": [f"{c.first} against {c.second}" for c in found],
            "first better": [c.wins for c in found],
            "second better": [c.losses for c in found],
            "pairs": [c.pairs for c in found],
            "p (Holm)": [f"{c.p:.2g}" for c in found],
        }
    )
    return Section("pairs", title, [Table("pairs", title, "", rows, shown)])
