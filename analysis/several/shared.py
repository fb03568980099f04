"""What studies have in common."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from analysis.page import NONE
from analysis.tables import Study


def common_arms(studies: Mapping[str, Study]) -> list[str]:
    """Return the arms that every study has and has results of, in the first one's order."""
    first, *others = studies.values()
    return [
        arm
        for arm in first.contenders
        if all(arm in other.contenders for other in others)
        and all(len(study.unit_scores(arm)) for study in studies.values())
    ]


def dataset(study: Study) -> str:
    """Return the data set of a study, all of them if its arms differ."""
    found = {
        json.dumps(arm.get("dataset"), sort_keys=True) for arm in study.settings["arms"].values()
    }
    return ", ".join(sorted(_dataset_name(json.loads(text)) for text in found))


def _dataset_name(said: Any) -> str:
    if not isinstance(said, Mapping):
        return str(said or NONE)
    options = ", ".join(f"{k} {v}" for k, v in said.items() if k != "name")
    return str(said.get("name", NONE)) + (f" ({options})" if options else "")
