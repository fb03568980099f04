"""What a report is made of, whatever writes it: sections of text, figures, tables and pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

NONE = "–"
"""Stands where there is no number."""


@dataclass(frozen=True)
class Figure:
    """A drawing with what it shows.

    Attributes:
        key: Names its files and its place on the page; unique in a report.
        title: What it shows.
        reading: How to read it, in a sentence or two; failures and n where they are not drawn.
        plot: The drawing.
        data: All that it shows, also where the drawing is thinned; one row a mark.
    """

    key: str
    title: str
    reading: str
    plot: go.Figure
    data: pd.DataFrame


@dataclass(frozen=True)
class Table:
    """Rows with how to read them.

    Attributes:
        data: The numbers, for other programs.
        shown: What the cells say to a person, one string each; `data` as it is if None.
        browse: Whether it is long: shown page by page, to be sorted and filtered.
        link: Column whose cells are paths within the study's folder, shown as links.
    """

    key: str
    title: str
    reading: str
    data: pd.DataFrame
    shown: pd.DataFrame | None = None
    browse: bool = False
    link: str = ""

    @property
    def cells(self) -> pd.DataFrame:
        """What the cells say, as text."""
        shown = self.data if self.shown is None else self.shown
        return shown.astype(object).map(_said)


@dataclass(frozen=True)
class Picture:
    """A grid of samples: a PNG as bytes."""

    why: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side."""

    title: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Section:
    """A headed part of a report; strings among the parts are paragraphs of plain text.

    Attributes:
        key: Unique in a report: the place on the page.
        grid: Whether figures that follow each other stand side by side.
        folded: Whether a section within another is closed until a reader opens it.
    """

    key: str
    title: str
    parts: Sequence[Part]
    grid: bool = False
    folded: bool = False


Part = str | Figure | Table | Gallery | Section


def percent(share: float) -> str:
    """Return a share that somebody wrote, such as a margin, without rounding it away."""
    return f"{100 * share:.4g}%"


def _said(value: object) -> str:
    """Return what a cell says."""
    if value is None or isinstance(value, float):
        return number(value)
    return NONE if value is pd.NA else str(value)


def walk(parts: Sequence[Part]) -> Iterator[Part]:
    """Yield every part, those of sections within sections too, in reading order."""
    for part in parts:
        yield part
        if isinstance(part, Section):
            yield from walk(part.parts)


def number(value: float | None) -> str:
    """Return a number as a person reads it; a dash for nothing, `failed` for +inf."""
    if value is None or math.isnan(value):
        return NONE
    if math.isinf(value):
        return "failed"
    return f"{value:.4g}"
