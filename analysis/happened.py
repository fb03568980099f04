"""Every event as a row."""

from __future__ import annotations

import json

import pandas as pd

from analysis.page import NONE, Section, Table
from analysis.tables import Study


def section(study: Study) -> Section | None:
    """Return the table of all events."""
    events = study.results.events
    if events.empty:
        return None
    shown = events.assign(
        ended=[NONE if pd.isna(e) else str(int(e)) for e in events["ended"]],
        severity=[f"{s:.2f}" for s in events["severity"]],
        evidence=[_told(text) for text in events["evidence"]],
    )
    reading = (
        "Counted in discriminator updates: onset is where the condition began to hold, detected "
        "is where it had held long enough."
    )
    return Section("events", "Events", [Table("events", "Events", reading, events, shown, True)])


def _told(evidence: str) -> str:
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, int | float) else f"{key} {value}"
        for key, value in json.loads(evidence or "{}").items()
    )
