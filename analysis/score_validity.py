"""What is known against a study's primary score, from its tables: the report's warning."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.sanity import agreement_data, panels
from analysis.tables import Study
from ganstudy.study.score_validity import (
    Measured,
    ScoreFacts,
    find_doubts,
    recorded_facts,
    warning_text,
)

DAMAGE = {"classes": "classes missing", "blur": "blur", "noise": "noise"}
"""Series of `ganstudy sanity` that spoil any images. Negatives do not: of shapes in random
colours they are as good as the others."""


def score_facts(study: Study) -> ScoreFacts:
    """Collect what the study has recorded of its primary score."""
    reported, how = study.results.reported, study.reported_protocol
    protocol = {"primary": study.primary, "minimize": study.sign == 1, "scores": study.protocol}
    facts = recorded_facts(protocol)
    floor = how.get(study.primary, {}).get("floor_standard_error")
    own = reported[reported["name"] == study.primary]
    arms = _best_on_select(study)
    if len(own):  # its floor is on the same split
        error = math.nan if floor is None else float(floor)
        facts = replace(facts, floor=Measured(float(own["floor"].iloc[0]), error))
        arms = _measured(own, study)
    others = [name for name in dict.fromkeys(reported["name"]) if name not in study.protocol]
    judge = str(others[0]) if others else ""
    return replace(
        facts,
        arms=arms,
        judge=judge,
        judge_minimize=how.get(judge, {}).get("direction", "minimize") == "minimize",
        judged=_measured(reported[reported["name"] == judge], study),
        sight=_sight(study),
        agreement=_agreement(study),
    )


def _best_on_select(study: Study) -> dict[str, Measured]:
    """Return arm -> its best score so far, for a study that was not scored on report."""
    scores = {arm: study.unit_scores(arm) for arm in study.contenders}
    return {arm: Measured(study.sign * s.min()) for arm, s in scores.items() if len(s)}


def _measured(rows: pd.DataFrame, study: Study) -> dict[str, Measured]:
    """Return arm -> score; copies that controls added, which are meant to be bad, left out."""
    return {
        str(row["arm"]): Measured(float(row["value"]), float(row["standard_error"]))
        for _, row in rows.iterrows()
        if row["arm"] in study.contenders
    }


def _bare(study: Study) -> str:
    """Return the primary score's name less its n, as sanity.parquet has it."""
    return study.primary.rpartition("_")[0]


def _sight(study: Study) -> dict[str, float]:
    """Return way of spoiling -> mean rho of the primary score; one level shows nothing."""
    found = study.results.sanity
    lines = [
        line
        for experiment in ("classes_kept", "ladders")
        for panel in panels(found, experiment)
        if panel.name == _bare(study)
        for line in panel.lines
        if line.label in DAMAGE and len(line.x) > 1
    ]
    return {DAMAGE[line.label]: float(np.mean(line.rho)) for line in lines}


def _agreement(study: Study) -> dict[str, tuple[float, int]]:
    """Return score on other features -> rho with the primary over generators, and their n."""
    own, network = _bare(study), _network(study.protocol.get(study.primary, {}))
    found = {}
    for pair in agreement_data(study.results.sanity):
        if own not in (pair.first, pair.second) or math.isnan(pair.all.value):
            continue
        other = pair.second if pair.first == own else pair.first
        if not other.endswith(f"_{network}"):
            found[other] = (pair.all.value, pair.all.n)
    return found


def _network(how: dict[str, Any]) -> str:
    return str(how.get("features", {}).get("name", ""))


def score_warning(study: Study) -> str:
    """Return the warning on the study's primary score, empty where nothing is known against it."""
    return warning_text(study.primary, find_doubts(score_facts(study)))


def load_score_warning(folder: Path) -> str:
    """Return the warning on the study in `folder`, or on a bare table of trials."""
    return score_warning(Study.load(folder))
