"""A study's folder -> its report: a list of sections, each made by one module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from analysis import (
    arms,
    budget,
    comparisons,
    distribution,
    exports,
    failing,
    happened,
    html,
    made,
    networks,
    paper,
    reported,
    samples,
    sanity,
    savings,
    sceptic,
    seeds,
    sensitivity,
    several,
    trade_offs,
    training,
    trials,
)
from analysis.answer import answer, warnings
from analysis.arms import Summary, summarize_study
from analysis.page import Section
from analysis.tables import Study
from ganstudy.storage import is_remote, write_text

SECTIONS: list[Callable[[Study], Section | None]] = [
    arms.section,
    distribution.section,
    budget.section,
    seeds.section,
    paper.section,
    comparisons.section,
    failing.section,
    sensitivity.section,
    training.section,
    samples.section,
    reported.section,
    trade_offs.section,
    networks.section,
    savings.section,
    sceptic.section,
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
        answer=answer(study),
        source=study.settings.get("source") or "",
        warnings=([changed.format("; ".join(mixed))] if mixed else []) + warnings(study),
    )
    return front, [made for make in SECTIONS if (made := make(study)) is not None]


def composed(studies: Sequence[Study]) -> tuple[html.Front, list[Section]]:
    """Return the report on one study, or on several side by side."""
    return compose(studies[0]) if len(studies) == 1 else several.compose(studies)


def render(study: Study, base: str = "") -> str:
    """Return the page. The same tables give the same page, byte for byte."""
    return html.render(*compose(study), base)


def write_report(folder: Path, target: Path) -> None:
    """Write the page on the study in `folder` to `target`, all of it or nothing.

    Raises:
        FileNotFoundError: If `folder` is no study's folder.
        OSError: If `target` cannot be written.
    """
    write_reports([folder], target, ["html"])


def write_reports(
    folders: Sequence[Path],
    target: Path,
    kinds: Sequence[str],
    say: Callable[[str], None] = lambda message: None,
) -> list[Path]:
    """Write the report on the studies in `folders`, in all of `kinds`; return what was written.

    Args:
        folders: One study's folder, or several to compare.
        target: The page. Markdown goes beside it (`.md`), the files of other kinds into folders
            beside it (`<name>-csv`, `<name>-png`, `<name>-svg`).
        kinds: Of `exports.FORMATS`.
        say: Told what takes long before it begins.

    Raises:
        FileNotFoundError: If a folder is no study's.
        TableError: If a table of trials cannot be read as one.
        OSError: If something cannot be written.
        exports.NoBrowserError: If pictures are wanted and there is no browser.
    """
    studies = [Study.load(folder) for folder in folders]
    front, sections = composed(studies)
    if not is_remote(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for kind in kinds:
        beside = target.with_name(f"{target.stem}-{kind}")
        if kind == "html":
            here = len(studies) == 1 and not is_remote(target)
            base = html.relative(str(studies[0].folder), str(target)) if here else ""
            write_text(target, html.render(front, sections, base))
            written.append(target)
        elif kind == "md":
            written.append(target.with_suffix(".md"))
            write_text(written[-1], exports.markdown(front, sections))
        elif kind == "csv":
            written.append(beside)
            exports.write_csv(sections, beside)
        else:
            written.append(beside)
            exports.write_images(sections, beside, kind, say)
    return written
