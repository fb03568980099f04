"""A report as one HTML page that needs no network."""

from __future__ import annotations

import base64
import gzip
import json
import os.path
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import jinja2
import numpy as np
import pandas as pd
import plotly.io
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from analysis.csv_text import to_csv
from analysis.page import Figure, Part, Picture, Section, Table

CONFIG = {"displaylogo": False, "responsive": True}


@dataclass(frozen=True)
class Front:
    """What a page opens with.

    Attributes:
        answer: Sentences, the first of which answers the question.
    """

    name: str
    question: str
    answer: Sequence[str]
    source: str = ""
    warnings: Sequence[str] = ()


def render(front: Front, sections: Sequence[Section], base: str = "") -> str:
    """Return the page; the same parts give the same page, byte for byte.

    Args:
        front: How it opens.
        sections: What it holds.
        base: Where the study's folder lies as seen from the page, for links to samples.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("analysis", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "plot": plot,
        "packed": packed,
        "rows": lambda table: table.cells.to_numpy().tolist(),
        "png": _png,
        "kind": lambda part: type(part).__name__,
        "slug": slug,
        "runs": runs,
        "link": lambda table: list(table.cells.columns).index(table.link) if table.link else -1,
        "browsed": _browsed,
    }
    template = environment.get_template("report.html.j2")
    return template.render(
        front=front, sections=sections, base=base, plotlyjs=Markup(get_plotlyjs())
    )


def plot(figure: Figure) -> Markup:
    """Return a figure's drawing as HTML whose ids depend on its key alone."""
    return Markup(
        plotly.io.to_html(
            drawing(figure),
            include_plotlyjs=False,
            full_html=False,
            div_id=f"figure-{slug(figure.key)}",
            config=CONFIG,
            validate=False,
        )
    )


def drawing(figure: Figure) -> dict[str, Any]:
    """Return a figure's drawing as plotly takes it, with no HTML but what our own code makes.

    Plotly reads names, labels and hover texts as HTML, links and images among it, and arms,
    parameters and values are named by users. All that it is to take for HTML are line breaks and
    the box beside a hover text.
    """
    return {name: _neutral(part) for name, part in figure.plot.to_dict().items()}


_FOREIGN = re.compile("<(?!(?:br|extra|/extra)>)")


def _neutral(part: Any) -> Any:
    if isinstance(part, str):
        return _FOREIGN.sub("&lt;", part.replace("&", "&amp;"))
    if isinstance(part, dict):
        return {key: _neutral(inner) for key, inner in part.items()}
    if isinstance(part, np.ndarray) and part.dtype.kind in "OUS":
        part = part.tolist()
    return [_neutral(inner) for inner in part] if isinstance(part, list | tuple) else part


def slug(key: str) -> str:
    """Return a key as part of an id or of a file's name; different keys stay different."""
    return re.sub(r"[^A-Za-z0-9_-]", lambda match: f"_{ord(match[0]):x}_", key)


def packed(data: pd.DataFrame | str) -> str:
    """Return text, or a table as CSV, compressed and as base64: pages hold a lot of them."""
    text = data if isinstance(data, str) else to_csv(data)
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()


def _browsed(table: Table) -> str:
    """Return a long table for the page's script: columns, cells, and the numbers to sort by."""
    cells, data = table.cells, table.data
    columns = [
        {
            "name": str(name),
            "cells": cells[name].tolist(),
            "keys": _keys(data[name]) if name in data else None,
        }
        for name in cells
    ]
    return packed(json.dumps(columns, separators=(",", ":")))


def _keys(values: pd.Series[Any]) -> list[float | None] | None:
    if not pd.api.types.is_numeric_dtype(values):
        return None
    return [None if v != v or abs(v) == float("inf") else v for v in values.tolist()]


def _png(picture: Picture) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.png).decode()}"


def runs(section: Section) -> list[list[Part]]:
    """Return the parts, figures that follow each other side by side in one list."""
    found: list[list[Part]] = []
    for part in section.parts:
        together = section.grid and isinstance(part, Figure) and found
        if together and isinstance(found[-1][-1], Figure):
            found[-1].append(part)
        else:
            found.append([part])
    return found


def relative(folder: str, page: str) -> str:
    """Return where `folder` lies as seen from the folder of `page`, as part of an URL."""
    found = os.path.relpath(folder, os.path.dirname(page) or ".")
    return "" if found == "." else quote(found.replace(os.sep, "/")) + "/"
