"""A report for other programs: Markdown, a CSV per table and figure, PNG and SVG."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
import plotly.io

from analysis.csv_text import to_csv
from analysis.html import Front, drawing, slug
from analysis.page import Figure, Gallery, Section, Table, walk
from ganstudy.storage import is_remote, write_atomically, write_text

FORMATS = ("html", "md", "csv", "png", "svg")
MOST_ROWS = 200
"""Rows of a table in Markdown; the CSV has all."""
WIDTH, SCALE = 1000, 2


def markdown(front: Front, sections: Sequence[Section]) -> str:
    """Return the report's text and tables as Markdown; figures are named, with their CSV."""
    lines = [f"# {_plain(front.name)}", ""]
    if front.question:
        lines += [f"*{_plain(front.question)}*", ""]
    for sentence in (*front.warnings, *front.answer):
        lines += [f"> {_plain(sentence)}", ">"]
    lines.append("")
    if front.source:
        lines += [f"Design: {_plain(front.source)}", ""]
    for section in sections:
        lines += _section(section, 2)
    return "\n".join(lines)


def _section(section: Section, depth: int) -> Iterator[str]:
    yield f"{'#' * depth} {_plain(section.title)}"
    yield ""
    for part in section.parts:
        if isinstance(part, Section):
            yield from _section(part, min(depth + 1, 6))
        elif isinstance(part, Table):
            yield from _table(part)
        elif isinstance(part, Figure):
            yield f"**{_plain(part.title)}** ({slug(part.key)}.csv, .png): {_plain(part.reading)}"
            yield ""
        elif isinstance(part, Gallery):
            told = "; ".join(f"{p.why}: {p.caption}" for p in part.pictures) or "no samples"
            yield f"{_plain(part.title)}: {_plain(told)}"
            yield ""
        else:
            yield _plain(part)
            yield ""


def _table(table: Table) -> Iterator[str]:
    cells = table.cells
    if table.reading:
        yield _plain(table.reading)
        yield ""
    yield _row(cells.columns)
    yield "|" + " --- |" * len(cells.columns)
    for row in cells.head(MOST_ROWS).itertuples(index=False):
        yield _row(row)
    yield ""
    if len(cells) > MOST_ROWS:
        yield f"{len(cells) - MOST_ROWS} more rows are in table-{slug(table.key)}.csv."
        yield ""


def _row(cells: Iterable[object]) -> str:
    return "| " + " | ".join(_plain(str(cell)).replace("|", "\\|") for cell in cells) + " |"


def _plain(text: str) -> str:
    """Return text of which Markdown makes nothing but text."""
    flat = " ".join(str(text).split()).replace("&", "&amp;")
    for mark in "\\`*_[]<>#":
        flat = flat.replace(mark, "\\" + mark)
    return flat


def write_csv(sections: Sequence[Section], folder: Path) -> list[Path]:
    """Write the data of every table and figure to a file of its own; return the files."""
    _make(folder)
    written = []
    for name, data in _data(sections):
        written.append(folder / f"{name}.csv")
        write_text(written[-1], to_csv(data))
    return written


def _make(folder: Path) -> None:
    if not is_remote(folder):
        folder.mkdir(parents=True, exist_ok=True)


def _data(sections: Sequence[Section]) -> Iterator[tuple[str, pd.DataFrame]]:
    for part in walk(sections):
        if isinstance(part, Table):
            yield f"table-{slug(part.key)}", part.data
        elif isinstance(part, Figure):
            yield slug(part.key), part.data


class NoBrowserError(RuntimeError):
    """Pictures of figures are drawn by a browser, and there is none."""


def write_images(
    sections: Sequence[Section],
    folder: Path,
    kind: str,
    say: Callable[[str], None] = lambda message: None,
) -> list[Path]:
    """Draw every figure to a file of its own; return the files.

    Args:
        sections: What the report holds.
        folder: Where the files go.
        kind: "png" or "svg".
        say: Told how many there are before the browser starts.

    Raises:
        NoBrowserError: If no browser is installed, or it cannot be started.
    """
    figures = [part for part in walk(sections) if isinstance(part, Figure)]
    browser = os.environ.get("BROWSER_PATH") or next(
        filter(
            None, map(shutil.which, ("chromium", "google-chrome", "chrome", "chromium-browser"))
        ),
        None,
    )
    if browser is None:
        raise NoBrowserError(
            "no Chromium or Chrome was found to draw figures with: install one (Debian: "
            "apt install chromium) or set BROWSER_PATH"
        )
    _make(folder)
    files = [folder / f"{slug(figure.key)}.{kind}" for figure in figures]
    say(f"drawing {len(files)} figures with {browser}")
    with tempfile.TemporaryDirectory() as aside:
        drawn = [Path(aside) / file.name for file in files]
        try:
            plotly.io.write_images(
                [drawing(figure) for figure in figures], [str(file) for file in drawn],
                format=kind, width=WIDTH, scale=SCALE if kind == "png" else 1,
            )  # fmt: skip
        except Exception as error:  # whatever the browser's driver raises
            raise NoBrowserError(f"{browser} could not draw the figures: {error}") from error
        for source, file in zip(drawn, files, strict=True):
            write_atomically(file, partial(shutil.copyfile, source))
    return files
