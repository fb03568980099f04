"""Every event as a row."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from analysis.page import NONE, Section, Table
from analysis.tables import Study
from ganstudy.checksums import DamagedFile
from ganstudy.records import EVENTS


def section(study: Study) -> Section | None:
    """Return the table of all events."""
    events = study.results.events
    if events.empty:
        return None
    shown = events.assign(
        ended=[NONE if pd.isna(e) else str(int(e)) for e in events["ended"]],
        severity=[f"{s:.2f}" for s in events["severity"]],
        evidence=[_told(study.folder / EVENTS, text) for text in events["evidence"]],
    )
    reading = (
        "Counted in discriminator updates: onset is where the condition began to hold, detected "
        "is where it had held long enough."
    )
    return Section("events", "Events", [Table("events", "Events", reading, events, shown, True)])


def _told(path: Path, evidence: str) -> str:
    try:
        found = dict(json.loads(evidence or "{}"))
    except (ValueError, TypeError, RecursionError):
        raise DamagedFile(path, problem="holds evidence that is no JSON object") from None
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, int | float) else f"{key} {value}"
        for key, value in found.items()
    )
