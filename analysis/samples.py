"""What the arms' generators draw: the best, the median and a failed trial of each."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.page import Gallery, Picture, Section
from analysis.tables import Study
from ganstudy.records import TrialStatus
from ganstudy.study_files import read_png, resolve_inside


class Pick(NamedTuple):
    """One trial whose samples are shown, and why."""

    why: str
    trial_id: str
    caption: str
    image: str
    """Path of the PNG within the study's folder."""


def best_and_median(trials: pd.DataFrame) -> tuple[Any, Any]:
    """Return the index labels of an arm's best trial and of its lower median.

    Args:
        trials: All counted ones, with `score`: failures are the last of them.

    Returns:
        Each None where there is none: all failed, the median did, or it is the best.
    """
    ranked = trials["score"].sort_values(kind="stable")
    finite, middle = int(np.isfinite(ranked).sum()), (len(ranked) - 1) // 2
    best = ranked.index[0] if finite else None
    return best, ranked.index[middle] if 0 < middle < finite else None


def sample_picks(study: Study, arm: str) -> list[Pick]:
    """Choose the best, the median and one failed trial of an arm."""
    trials = study.counted(arm)
    last = study.score_rule.checkpoint == "last"
    picks = [
        _pick(why, trials.loc[at], study, "samples" if last else "samples_best")
        for why, at in zip(("best", "lower median"), best_and_median(trials), strict=True)
        if at is not None
    ]
    failed = trials[np.isinf(trials["score"])]
    if len(failed):
        picks.append(_pick("failed", failed.iloc[0], study, "samples"))
    else:
        events = study.results.events
        ranked = trials[np.isfinite(trials["score"])].sort_values("score", kind="stable")
        hurt = ranked[ranked["trial_id"].isin(events["trial_id"])]
        if len(hurt):
            picks.append(_pick("worst with an event", hurt.iloc[-1], study, "samples"))
    return [pick for pick in picks if pick is not None]


def _pick(why: str, row: pd.Series[Any], study: Study, column: str) -> Pick | None:
    if not isinstance(row[column], str):
        return None
    best = column == "samples_best"
    at = row["best_at"] if best else row["discriminator_updates"]
    when = f" at {int(at)} updates" if math.isfinite(at) else ""
    score = row.get(f"{'best' if best else 'last'}.{study.primary}", math.nan)
    ranked = math.isfinite(row["score"])
    told = f", {study.primary} {score:.4g}" if ranked and math.isfinite(score) else ""
    state = "" if row["status"] == TrialStatus.COMPLETED else f", {row['status']}"
    events = study.results.events
    kinds = sorted(set(events.loc[events["trial_id"] == row["trial_id"], "kind"]))
    seen = f", {', '.join(kinds)}" if kinds and not best else ""
    caption = f"{row['trial_id']}{when}{told}{state}{seen}"
    return Pick(why, row["trial_id"], caption, row[column])


def section(study: Study) -> Section | None:
    """Return, per arm, the pictures that are there."""
    galleries, broken = [], []
    for arm in study.arms:
        pictures = []
        for pick in sample_picks(study, arm):
            path = resolve_inside(study.folder, pick.image, study.results.file)
            content = read_png(path)
            if content is not None:
                pictures.append(Picture(pick.why, pick.caption, content))
            elif path.exists():
                broken.append(f"{pick.image} is not a PNG picture and is left out.")
        galleries.append(Gallery(arm, pictures))
    if not broken and not any(gallery.pictures for gallery in galleries):
        return None
    how = (
        f"The same latents for every trial. Best and lower median are single trials, ranked by "
        f"the score of the {study.score_rule.checkpoint} checkpoint, and show it; any other trial "
        "shows its last state. Where configurations have several seeds, the best trial need not "
        "be of the arm's best configuration."
    )
    return Section("samples", "Samples", [how, *broken, *galleries])
