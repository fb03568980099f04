"""A study's folder -> its report: a list of sections, each made by one module."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from analysis import (
    arms,
    budget,
    comparisons,
    distribution,
    happened,
    html,
    made,
    reported,
    samples,
    sanity,
    savings,
    training,
    trials,
)
from analysis.arms import Summary, summarize_study
from analysis.page import Section
from analysis.tables import Study
from analysis.verdict import verdict
from ganstudy.storage import is_remote, write_text

SECTIONS: list[Callable[[Study], Section | None]] = [
    arms.section,
    distribution.section,
    budget.section,
    comparisons.section,
    training.section,
    samples.section,
    reported.section,
    savings.section,
    sanity.section,
    trials.section,
    happened.section,
    made.searched,
    made.measured,
    made.made,
]
"""In reading order. To add a topic: a module with `section`, and a line here."""


def summarize(folder: Path) -> Summary:
    """Return the table of arms: n, failures, events, scores, with intervals where they exist."""
    return summarize_study(Study.load(folder))


def compose(study: Study) -> tuple[html.Front, list[Section]]:
    """Return a study's report: how it opens, and its sections."""
    mixed = study.provenance.get("mixed")
    changed = "Mixed: the study was gone on with although there had changed: {}."
    front = html.Front(
        name=study.name,
        question=study.settings.get("question") or "",
        answer=[verdict(study)],
        source=study.settings.get("source") or "",
        warnings=[changed.format("; ".join(mixed))] if mixed else [],
    )
    return front, [made for make in SECTIONS if (made := make(study)) is not None]


def render(study: Study, base: str = "") -> str:
    """Return the page. The same tables give the same page, byte for byte."""
    return html.render(*compose(study), base)


def write_report(folder: Path, target: Path) -> None:
    """Write the report of the study in `folder` to `target`, all of it or nothing.

    Raises:
        FileNotFoundError: If `folder` is no study's folder.
        OSError: If `target` cannot be written.
    """
    study = Study.load(folder)
    base = "" if is_remote(target) else html.relative(str(study.folder), str(target))
    page = render(study, base)
    if not is_remote(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, page)
