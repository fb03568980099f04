"""Every trial as a row, and as the text that shows where a mouse points at it."""

from __future__ import annotations

import math

import pandas as pd

from analysis.page import NONE, Section, Table, number
from analysis.style import evenly
from analysis.tables import Study
from ganstudy.study_files import is_inside

PARAMETER = "param."
MOST_LISTED = 20_000
"""Rows on the page; beyond, a browser takes long and the file grows large."""


def swept(trials: pd.DataFrame) -> list[str]:
    """Return the columns of swept values that any of `trials` has."""
    columns = [name for name in trials.columns if str(name).startswith(PARAMETER)]
    return [name for name in columns if trials[name].notna().any()]


def parameter_texts(trials: pd.DataFrame, between: str) -> list[str]:
    """Return each trial's swept values, `key value` one after the other."""
    texts: list[list[str]] = [[] for _ in range(len(trials))]
    for column in swept(trials):
        values, key = trials[column], column.removeprefix(PARAMETER)
        numeric = pd.api.types.is_numeric_dtype(values)
        for text, value, known in zip(texts, values, values.notna(), strict=True):
            if known:
                text.append(f"{key} {value:.3g}" if numeric else f"{key} {value}")
    return [between.join(text) for text in texts]


def event_kinds(study: Study, trials: pd.DataFrame) -> list[str]:
    """Return, for each of `trials`, the kinds of event that it had, `a, b`."""
    events = study.results.events.drop_duplicates(["trial_id", "kind"]).sort_values("kind")
    return _joined(events["kind"].astype(str), events["trial_id"], trials["trial_id"])


def _joined(texts: pd.Series[str], of: pd.Series[str], wanted: pd.Series[str]) -> list[str]:
    known = texts.groupby(of).agg(", ".join).to_dict()
    return [known.get(name, "") for name in wanted]


def hover_texts(study: Study) -> pd.Series[str]:
    """Return trial_id -> what a figure says of it, lines apart by <br>."""
    trials = study.outcomes
    had = event_kinds(study, trials)
    columns = (trials["trial_id"], trials["status"], parameter_texts(trials, "<br>"), had)
    texts = [
        "<br>".join([name, status, values]) + (f"<br>events: {kinds}" if kinds else "")
        for name, status, values, kinds in zip(*columns, strict=True)
    ]
    return pd.Series(texts, index=trials["trial_id"], dtype=object)


def section(study: Study) -> Section | None:
    """Return the table of every trial."""
    trials = study.results.trials
    if trials.empty:
        return None
    reading = (
        "Every trial, whatever became of it. Best and last are the primary score at the best "
        "checkpoint and at the end. Sort by a column's head, filter by any word."
    )
    if len(trials) > MOST_LISTED:
        reading += (
            f" Listed are {MOST_LISTED} of {len(trials)}, evenly over the plan; all are in the "
            f"CSV of `ganstudy report --format csv` and in trials.parquet."
        )
        trials = trials.iloc[evenly(len(trials), MOST_LISTED)]
    data = trial_rows(study, trials)
    shown = data.assign(
        best=data["best"].map(number), last=data["last"].map(number),
        **{
            name: [NONE if math.isnan(value) else f"{value:.0f}" for value in data[name]]
            for name in ("updates", "seconds")
        },
    )  # fmt: skip
    table = Table("trials", "All trials", reading, data, shown, browse=True, link="samples")
    return Section("trials", "All trials", [table])


def trial_rows(study: Study, trials: pd.DataFrame) -> pd.DataFrame:
    """Return trial, status, best, last, updates, seconds, events, parameters and samples."""
    events = study.results.events
    onsets = events["onset"].astype(float).map(" at {:.0f}".format).replace(" at nan", "")
    marks = events["kind"].astype(str) + onsets.astype(str)
    reasons = trials["reason"].fillna("").astype(str)
    status = trials["status"].astype(str)
    empty = pd.Series(math.nan, index=trials.index)
    return pd.DataFrame(
        {
            "trial": trials["trial_id"],
            "arm": trials["arm"],
            "status": status.where(reasons == "", status + ": " + reasons),
            "best": trials.get(f"best.{study.primary}", empty),
            "last": trials.get(f"last.{study.primary}", empty),
            "updates": trials["discriminator_updates"].astype(float),
            "seconds": trials["seconds"].astype(float),
            "events": _joined(marks, events["trial_id"], trials["trial_id"]),
            "parameters": parameter_texts(trials, ", "),
            "samples": [_link(name) for name in trials["samples"]],
        }
    )


def _link(name: object) -> str:
    """Return a path within the study's folder, empty where there is none to link to."""
    return str(name) if is_inside(name) else ""
