"""Every component as one Markdown page, from the docstrings that `ganstudy describe` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ganstudy.catalog import REGISTRIES
from ganstudy.registry import Registry
from ganstudy.study.recipes import RECIPES, families

INTRODUCTION = """# Components

Written by `ganstudy list --markdown`; `make docs` writes it anew. Every name is an arm's choice,
and every option a key of a search space. "Elsewhere" says what public code bases compute under
the same name, or do differently.
"""


def markdown() -> str:
    """Return the page."""
    parts = [INTRODUCTION]
    for kind, registry in REGISTRIES.items():
        parts.append(f"## {kind}\n")
        for name in registry.names():
            parts += _component(registry, name)
    parts.append("## recipe\n")
    parts += _recipes()
    return "\n".join(parts)


def _component(registry: Registry[Any], name: str) -> Iterator[str]:
    yield f"### `{name}`\n"
    told = registry.explained(name)
    yield told.summary + "\n"
    if told.body:
        yield told.body + "\n"
    if told.formula:
        yield "\n".join(f"- {key}: `{text}`" for key, text in told.formula.items()) + "\n"
    if told.elsewhere:
        yield f"*Elsewhere*: {told.elsewhere}\n"
    if registry.paper(name):
        yield f"*Source*: {registry.paper(name)}\n"
    options = registry.options(name)
    if options:
        yield "| option | default | what it is |"
        yield "|---|---|---|"
        for option in options:
            values = f" One of {', '.join(map(str, option.choices))}." if option.choices else ""
            text = (" ".join(option.help.split()) + values).replace("|", "\\|")
            yield f"| `{option.name}` | `{option.default}` | {text} |"
        yield ""


def _recipes() -> Iterator[str]:
    for family, models in families().items():
        recipe = RECIPES[f"{family}/{models[0]}"]
        yield f"### `{family}`\n"
        yield f"{recipe.summary}.\n"
        yield f"*Source*: {recipe.source}\n"
        yield ", ".join(f"`{family}/{model}`" for model in models) + "\n"
