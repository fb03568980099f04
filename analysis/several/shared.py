"""What studies have in common."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
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


WORDS = frozenset({"study", "question", "source", "recipe", "narrow", "judgement"})
"""Keys of a study, at any depth, that change no trial."""


def differing(studies: Mapping[str, Study]) -> dict[str, list[str]]:
    """Return path of a setting -> its value in every study, of those that are not the same.

    Of the arms only those that all studies have.
    """
    common = set.intersection(*(set(study.arms) for study in studies.values()))
    flat = [dict(_flat(study.settings, common)) for study in studies.values()]
    paths = sorted(set().union(*flat))
    values = {path: [settings.get(path, NONE) for settings in flat] for path in paths}
    return {path: told for path, told in values.items() if len(set(told)) > 1}


def _flat(value: Any, arms: set[str], path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Yield every setting as its path and its value as text."""
    if not isinstance(value, Mapping):
        yield ".".join(path), str(value)
        return
    for key, inner in value.items():
        known = path != ("arms",) or str(key) in arms
        if str(key) not in WORDS and known:
            yield from _flat(inner, arms, (*path, str(key)))
