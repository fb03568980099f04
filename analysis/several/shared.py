"""What studies have in common."""

from __future__ import annotations

import itertools
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
    return ", ".join(sorted(_datasets(study)))


def _datasets(study: Study) -> set[str]:
    found = {
        json.dumps(arm.get("dataset"), sort_keys=True) for arm in study.settings["arms"].values()
    }
    return {_dataset_name(json.loads(text)) for text in found}


def no_sample(studies: Mapping[str, Study]) -> str:
    """Return why these studies are no sample of data sets, empty where they may be one.

    Those that ran the same trials are on one data set, and so are none either.
    """
    for (first, one), (second, other) in itertools.combinations(studies.items(), 2):
        common = sorted(_datasets(one) & _datasets(other))
        if NONE in common:
            return f"the data sets of {first} and {second} are not known"
        if common:
            return f"{first} and {second} are on the same data set, {', '.join(common)}"
    return ""


def _dataset_name(said: Any) -> str:
    if not isinstance(said, Mapping):
        return str(said or NONE)
    options = ", ".join(f"{k} {v}" for k, v in said.items() if k != "name")
    return str(said.get("name", NONE)) + (f" ({options})" if options else "")
