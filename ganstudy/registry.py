"""Names -> components: frozen dataclasses whose fields are their options.

A component is declared once, where it lives:

    @LOSSES.register("hinge", paper="Lim & Ye 2017, arXiv:1705.02894")
    @component
    class Hinge(Loss):
        \"\"\"One line that says what it is.\"\"\"

Everything else (the YAML grammar, `ganstudy list`, `describe`, the JSON schema, the contract
tests) follows from the registry.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar, dataclass_transform

import pydantic
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_core import PydanticUndefined

STRICT = pydantic.ConfigDict(
    strict=True,
    extra="forbid",
    allow_inf_nan=False,
    use_attribute_docstrings=True,
    # Options are named as the field names them ("model", "schema" included).
    protected_namespaces=(),
)


class StudyError(ValueError):
    """What a user wrote is wrong: the key's path, the rule it breaks and the remedy.

    Attributes:
        path: Dotted path of the wrong key, `arms.wgan.loss` say; empty for the whole file.
        rule: The rule with the offending value and, where there is one, the nearest right name.
    """

    def __init__(self, path: str, rule: str) -> None:
        """Keep both parts."""
        self.path, self.rule = path, rule
        super().__init__(path, rule)  # unpickling calls the class with these

    def __str__(self) -> str:
        """Return the one-line message `path: rule`."""
        return f"{self.path}: {self.rule}" if self.path else self.rule

    def under(self, prefix: str) -> StudyError:
        """Return the same error with `prefix` put before its path."""
        return StudyError(".".join(part for part in (prefix, self.path) if part), self.rule)


class Component:
    """Base of everything registered; `name` is the key in its registry."""

    name: ClassVar[str] = ""

    def to_dict(self) -> dict[str, Any]:
        """Return `{"name": ..., option: value, ...}`: what `Registry.parse` reads back."""
        options = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return {"name": self.name, **options}

    def identity(self) -> dict[str, Any]:
        """Return `to_dict()` without the options that only say where files lie."""
        places = path_options(type(self))  # type: ignore[arg-type]  # a class is hashable
        return {key: value for key, value in self.to_dict().items() if key not in places}


@functools.cache
def path_options(cls: type[Component]) -> frozenset[str]:
    """Return the options of a component that are paths: their schema has the format `path`."""
    options = pydantic.TypeAdapter(cls).json_schema().get("properties", {})
    return frozenset(
        option
        for option, schema in options.items()
        if any(part.get("format") == "path" for part in (schema, *schema.get("anyOf", ())))
    )


class Explained(NamedTuple):
    """What a component's docstring says, by its parts.

    Attributes:
        summary: Its first line.
        body: What follows, up to its sections.
        formula: The lines of its section `Formula:`, written `KEY: TEXT`. One written
            `KEY (CASE): TEXT` stands for KEY where CASE holds: the name of an option that is
            true, or the value of one; several with commas between them, all of which must hold.
        elsewhere: Its section `Elsewhere:`: what public code bases do.
    """

    summary: str
    body: str
    formula: dict[str, str]
    elsewhere: str

    def formula_of(self, component: Component) -> dict[str, str]:
        """Return key -> text at the options of `component`; the last line that holds counts."""
        options = component.to_dict().items()
        holding = {name for name, value in options if value is True}
        holding |= {value for _, value in options if isinstance(value, str)}
        found = {}
        for line, text in self.formula.items():
            key, _, cases = line.removesuffix(")").partition(" (")
            if not cases or set(cases.split(", ")) <= holding:
                found[key] = text
        return found


def explained(docstring: str) -> Explained:
    """Split the docstring of a component."""
    summary, _, rest = inspect.cleandoc(docstring).partition("\n")
    rest, _, elsewhere = rest.partition("\nElsewhere:\n")
    body, _, lines = rest.partition("\nFormula:\n")
    formula: dict[str, str] = {}
    key = ""
    for line in lines.rstrip().splitlines():
        if line.startswith("     "):  # further in: a line goes on
            formula[key] += f" {line.strip()}"
            continue
        key, _, text = line.strip().partition(": ")
        formula[key] = text
    return Explained(summary, body.strip(), formula, " ".join(elsewhere.split()))


C = TypeVar("C", bound=Component)


@dataclass_transform(frozen_default=True, kw_only_default=True)
def component(cls: type[C]) -> type[C]:
    """Make `cls` a frozen, keyword-only dataclass that checks its options at construction."""
    return pydantic_dataclass(frozen=True, kw_only=True, config=STRICT)(cls)  # type: ignore[return-value]


@dataclass(frozen=True)
class Option:
    """One option of a component, for people: `describe` prints it."""

    name: str
    type: str
    default: Any
    help: str
    choices: tuple[Any, ...] = ()
    """The values it can take, where they are listed."""


MANY = 12
"""Known names beyond which a list drowns the nearest one."""


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """Return the rule for an unknown name, with the nearest right one first."""
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    if near and len(known) > MANY:
        return f"unknown {kind} {name!r}{hint}"
    listed = ", ".join(known) or "none"
    return f"unknown {kind} {name!r}{hint} (known: {listed})"


def only_text_keys(options: Mapping[Any, Any]) -> Mapping[str, Any]:
    """Return `options` if all its keys are text, which YAML does not ask for."""
    for key in options:
        if not isinstance(key, str):
            raise StudyError("", f"keys are names, got {key!r}")
    return options


class Registry(Generic[C]):
    """All components of one kind by name."""

    def __init__(self, kind: str) -> None:
        """Make an empty registry; `kind` is the word users read ("loss")."""
        self.kind = kind
        self._classes: dict[str, type[C]] = {}
        self._papers: dict[str, str] = {}

    def register(self, name: str, paper: str = "") -> Callable[[type[C]], type[C]]:
        """Return the class decorator that enrols a component under `name`."""

        def enrol(cls: type[C]) -> type[C]:
            if name in self._classes:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            cls.name = name
            self._classes[name], self._papers[name] = cls, paper
            return cls

        return enrol

    def names(self) -> list[str]:
        """Return every registered name, sorted."""
        return sorted(self._classes)

    def get(self, name: object) -> type[C]:
        """Return the class registered as `name`, or raise `StudyError` with the nearest one."""
        if not isinstance(name, str) or name not in self._classes:
            raise StudyError("", unknown(self.kind, name, self._classes))
        return self._classes[name]

    def build(self, name: str, /, **options: Any) -> C:
        """Build a component; wrong names, types and ranges raise `StudyError` with their path."""
        cls = self.get(name)
        only_text_keys(options)
        try:
            return cls(**options)
        except pydantic.ValidationError as error:
            option_names = [f.name for f in fields(cls)]  # type: ignore[arg-type]
            raise translate(error, f"option of {self.kind} {name!r}", option_names) from None

    def parse(self, value: object) -> C:
        """Build from what a YAML holds: a name, or a mapping with `name` and options."""
        if isinstance(value, str):
            return self.build(value)
        if isinstance(value, Mapping):
            options = {str(key): option for key, option in value.items()}
            if "name" not in options:
                raise StudyError("name", f"the {self.kind} needs a name (known: {self._listed()})")
            return self.build(options.pop("name"), **options)
        raise StudyError(
            "", f"a {self.kind} is a name or {{name: ..., option: ...}}, got {value!r}"
        )

    def options(self, name: str) -> list[Option]:
        """Return the options of `name` with type, default and one sentence each."""
        found = []
        for field in fields(self.get(name)):  # type: ignore[arg-type]
            default, text = field.default, ""
            if isinstance(default, pydantic.fields.FieldInfo):
                default, text = default.default, default.description or ""
            if default is MISSING or default is PydanticUndefined:
                default = "required"
            found.append(Option(field.name, str(field.type), default, text))
        helps, schema = _helps(self.get(name)), self.schema(name).get("properties", {})
        return [
            Option(
                o.name,
                o.type,
                o.default,
                helps.get(o.name) or o.help,
                tuple(schema.get(o.name, {}).get("enum", ())),
            )
            for o in found
        ]

    def paper(self, name: str) -> str:
        """Return the source of `name`: authors, year, arXiv id."""
        return self._papers[name]

    def explained(self, name: str) -> Explained:
        """Return what the docstring of `name` says, by its parts."""
        return explained(self.get(name).__doc__ or "")

    def schema(self, name: str) -> dict[str, Any]:
        """Return the JSON schema of the options of `name`."""
        return pydantic.TypeAdapter(self.get(name)).json_schema()

    def _listed(self) -> str:
        return ", ".join(self.names())


def _helps(cls: type[Component]) -> dict[str, str]:
    """Return option -> its sentence, inherited ones included (pydantic forgets those)."""
    helps: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        for name, field in vars(base).get("__pydantic_fields__", {}).items():
            if field.description:
                helps[name] = field.description
    return helps


def translate(error: pydantic.ValidationError, kind: str, known: Iterable[str]) -> StudyError:
    """Turn pydantic's first complaint into one `StudyError` with path, rule and value."""
    first = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
        return StudyError(path, unknown(kind, first["loc"][-1], known))
    if first["type"] in {"missing", "missing_argument", "missing_keyword_only_argument"}:
        return StudyError(path, f"required {kind} is missing")
    if first["type"] == "literal_error":
        choices = re.findall(r"'([^']+)'", first["ctx"]["expected"])
        return StudyError(path, unknown("value", first["input"], choices))
    rule = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    shown = json.dumps(first["input"], default=repr)
    return StudyError(path, f"{rule}, got {shown}")


def whole(value: object, least: int = 1) -> int:
    """Return `value` if it is a whole number of at least `least`, else raise StudyError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise StudyError("", f"must be a whole number of at least {least}, got {value!r}")
    return value
