"""Several studies side by side: data sets, machines, before and after."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.answer import answer, warnings
from analysis.bare import TableError
from analysis.html import Front
from analysis.page import NONE, Part, Section, Table
from analysis.several.across import (
    aggregate_rows,
    arms_in_common,
    ratio_rows,
    ratio_text,
    why_no_ratios,
)
from analysis.several.again import changes, narrow, repeated, repeated_sentence
from analysis.several.shared import common_arms, dataset, differing, no_sample
from analysis.tables import Study
from ganstudy.storage import name_of

COUNTED = (
    "Counted are the trials that a study's own table of arms counts, copies that controls added "
    "aside; failed are those of them that failed by the study's comparison rule."
)


def compose(studies: Sequence[Study]) -> tuple[Front, list[Section]]:
    """Return the report on several studies: how it opens, and its sections."""
    named = names(studies)
    found = [make(named) for make in SECTIONS]
    front = Front(
        name=f"{len(studies)} studies side by side",
        question="; ".join(dict.fromkeys(s.settings.get("question") or "" for s in studies)),
        answer=_answer(named),
    )
    return front, [section for section in found if section is not None]


def names(studies: Sequence[Study]) -> dict[str, Study]:
    """Return name -> study: its place, with as much of the path as makes names differ.

    Raises:
        TableError: If two are the same one.
    """
    paths = [Path(name_of(study.place)) for study in studies]
    twice = sorted({str(path) for path in paths if paths.count(path) > 1})
    if twice:
        raise TableError(f"the same study is given twice: {', '.join(twice)}")
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths) and depth < 20:
        depth += 1
    return {
        "/".join(path.parts[-depth:]): study for path, study in zip(paths, studies, strict=True)
    }


def _answer(studies: Mapping[str, Study]) -> list[str]:
    told = []
    ratios = ratio_rows(studies)
    if len(ratios):
        reference, k = ratios["reference"].iloc[0], ratios["k"].iloc[0]
        entered = {name: studies[name] for name in ratios["study"].unique()}
        n, why = len(entered), no_sample(entered)
        aggregate = aggregate_rows(ratios, why)
        spans = zip(*(aggregate[c] for c in ("arm", "ratio", "low", "high")), strict=True)
        parts = [f"{arm} {ratio_text(*span)}" for arm, *span in spans]
        vary = f"An interval over {n} studies says how such studies vary"
        left = f" of {len(studies)}" if n < len(studies) else ""
        told.append(
            f"Over {n}{left} studies the median best of k = {k} as a multiple of {reference}'s "
            f"(geometric mean; below 1 is better): {'; '.join(parts)}. "
            f"{f'There is no interval over them: {why}' if why else vary}; "
            f"no test is made over so few."
        )
    for first, second in itertools.combinations(studies, 2):
        pairs = repeated(studies[first], studies[second])
        if len(pairs):
            told.append(repeated_sentence(first, second, pairs))
    if ratios.empty:
        told += _shared_arms(studies)
    if not told:
        told.append("These studies share no arm with results and no trial: nothing compares.")
    return told


def _shared_arms(studies: Mapping[str, Study]) -> list[str]:
    """Return which arms studies without ratios share, and why there are no ratios."""
    common = common_arms(studies)
    if common:
        some = "the arm" if len(common) == 1 else "the arms"
        return [
            f"These studies share {some} {', '.join(common)}, whose medians stand below. There "
            f"are no ratios: {why_no_ratios(studies)}."
        ]
    first, *others = studies.values()
    named = [a for a in first.contenders if all(a in other.contenders for other in others)]
    if named:
        return [
            f"These studies share {', '.join(named)} by name, but not every study has results of "
            f"such an arm."
        ]
    return []


def overview(studies: Mapping[str, Study]) -> Section:
    """Return what the studies are and what each of them says."""
    rows = []
    for name, study in studies.items():
        scores = [study.counted(arm)["score"] for arm in study.contenders]
        rows.append(
            {
                "study": name,
                "data set": dataset(study),
                "arms": ", ".join(study.arms),
                "trials": len(study.results.trials),
                "counted": sum(map(len, scores)),
                "failed": sum(int(np.isinf(mine).sum()) for mine in scores),
                "score": study.primary,
                "sampler": study.sampler,
            }
        )
    parts: list[Part] = [
        Table("studies", "The studies", COUNTED, pd.DataFrame(rows)),
        _settings(studies),
    ]
    said = [
        Section(f"study-{i}", name, [*warnings(study), *answer(study)])
        for i, (name, study) in enumerate(studies.items())
    ]
    return Section("studies", "The studies", [*parts, *said])


def _settings(studies: Mapping[str, Study]) -> Part:
    """Return the settings in which the studies differ."""
    found = differing(studies)
    if not found:
        return "The studies have the same settings: what differs is how they were made, below."
    rows = [(path, *values) for path, values in found.items()]
    frame = pd.DataFrame(rows, columns=["setting", *studies])
    reading = "As resolved, of the arms that all have; questions and rules of judging aside."
    return Table("settings", "Settings that differ", reading, frame, browse=True)


def made(studies: Mapping[str, Study]) -> Section:
    """Return how the studies were made, and in what they differ."""
    keys = ("commit", "code_hash", "ganstudy", "python", "packages", "processor", "cores",
            "platform", "node", "command")  # fmt: skip
    columns = {
        name: [_provenance(study.provenance.get(key)) for key in keys]
        for name, study in studies.items()
    }
    frame = pd.DataFrame({"": keys} | columns)
    differs = [len(set(values)) > 1 for values in zip(*columns.values(), strict=True)]
    frame["differs"] = ["yes" if d else "" for d in differs]
    return Section("made", "How they were made", [Table("made", "How they were made", "", frame)])


def _provenance(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return NONE if value is None else str(value)


SECTIONS = (overview, arms_in_common, changes, narrow, made)
