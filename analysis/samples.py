"""What the arms' generators draw: the best, the median and a failed trial of each."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from analysis.page import Gallery, Picture, Section
from analysis.tables import Study
from ganstudy.records import TrialStatus
from ganstudy.storage import read_bytes


class Pick(NamedTuple):
    """One trial whose samples are shown, and why."""

    why: str
    trial_id: str
    caption: str
    image: str
    """Path of the PNG within the study's folder."""


def sample_picks(study: Study, arm: str) -> list[Pick]:
    """Choose the best, the median and one failed trial of an arm."""
    trials = study.counted(arm)
    ranked = trials[np.isfinite(trials["score"])].sort_values("score")
    picks = []
    if len(ranked):
        picks.append(_pick("best", ranked.iloc[0], study, "samples_best"))
    middle = (len(trials) - 1) // 2  # of all trials, failures last
    if 0 < middle < len(ranked):
        picks.append(_pick("lower median", ranked.iloc[middle], study, "samples_best"))
    failed = trials[np.isinf(trials["score"])]
    if len(failed):
        picks.append(_pick("failed", failed.iloc[0], study, "samples"))
    else:
        events = study.results.events
        hurt = ranked[ranked["trial_id"].isin(events["trial_id"])]
        if len(hurt):
            picks.append(_pick("worst with an event", hurt.iloc[-1], study, "samples"))
    return [pick for pick in picks if pick is not None]


def _pick(why: str, row: Any, study: Study, column: str) -> Pick | None:
    if not isinstance(row[column], str):
        return None
    at = row["best_at"] if column == "samples_best" else row["discriminator_updates"]
    score = row[f"best.{study.primary}"] if column == "samples_best" else math.nan
    told = f", {study.primary} {score:.4g}" if math.isfinite(score) else ""
    state = "" if row["status"] == TrialStatus.COMPLETED else f", {row['status']}"
    events = study.results.events
    kinds = sorted(set(events.loc[events["trial_id"] == row["trial_id"], "kind"]))
    seen = f", {', '.join(kinds)}" if kinds and column == "samples" else ""
    caption = f"{row['trial_id']} at {int(at)} updates{told}{state}{seen}"
    return Pick(why, row["trial_id"], caption, row[column])


def section(study: Study) -> Section | None:
    """Return, per arm, the pictures that are there."""
    galleries = []
    for arm in study.arms:
        pictures = []
        for pick in sample_picks(study, arm):
            path = study.folder / pick.image
            if path.exists():
                pictures.append(Picture(pick.why, pick.caption, read_bytes(path)))
        galleries.append(Gallery(arm, pictures))
    if not any(gallery.pictures for gallery in galleries):
        return None
    how = (
        "The same latents for every trial. Best and median are by the score of the best "
        "checkpoint, and show it; a failed trial shows its last state."
    )
    return Section("samples", "Samples", [how, *galleries])
