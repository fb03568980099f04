"""A study's file -> plain data: safe YAML, and single keys set over it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml.constructor import ConstructorError, DuplicateKeyError
from ruamel.yaml.error import YAMLError

from ganstudy.checksums import DamagedFile
from ganstudy.registry import StudyError, unknown
from ganstudy.storage import read_settings
from ganstudy.study.yaml_text import load_yaml


def nested(path: str, value: Any) -> dict[str, Any]:
    """Return `{a: {b: value}}` for the path `a.b`."""
    for part in reversed(path.split(".")):
        value = {part: value}
    return value


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML 1.2 mapping safely: tags are refused, never executed.

    Raises:
        DamagedFile: If it is that of a study's folder and was changed: see `read_settings`.
        StudyError: For a file that cannot be read, is not UTF-8 or is not a YAML mapping.
    """
    data: object
    try:
        data = load_yaml(_text_of(path))
    except (StudyError, DamagedFile):
        raise
    except OSError as error:
        raise StudyError("", f"cannot read the file: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise StudyError("", f"not UTF-8 text (byte {error.start})") from None
    except DuplicateKeyError as error:
        problem = str(error.problem).partition(" with value")[0]
        raise StudyError("", f"{problem}{_line(error)}") from None
    except ConstructorError as error:
        raise StudyError("", f"YAML tags are not allowed: {error.problem}{_line(error)}") from None
    except (YAMLError, ValueError) as error:
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise StudyError("", f"not valid YAML: {problem}{_line(error)}") from None
    if not isinstance(data, dict):
        raise StudyError("", "a study is a mapping that begins with `study: NAME`")
    return data


def _text_of(path: Path) -> str:
    """Return the file's text; that of a study's folder has to fit its checksum."""
    own = ("provenance.json", "plan.jsonl")
    if path.name == "study.yaml" and any((path.parent / name).exists() for name in own):
        return read_settings(path)
    return path.read_text(encoding="utf-8")


def _line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f" (line {mark.line + 1})" if mark is not None else ""


def set_keys(
    data: Mapping[str, Any],
    overrides: Iterable[str],
    known_arms: Iterable[str] = (),
    resolve: Callable[[Any], Any] = dict,
) -> dict[str, Any]:
    """Return `data` with `KEY=VALUE` settings laid on it, KEY a dotted path and VALUE YAML.

    Args:
        data: The study.
        overrides: The settings.
        known_arms: Arms that the study has without writing them, a recipe's say.
        resolve: Makes the paths in a setting absolute.

    Raises:
        StudyError: For a setting that is none, or an arm that is not there.
    """
    changed = dict(data)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise StudyError("--set", f"must be KEY=VALUE, got {override!r}")
        try:
            value = load_yaml(text)
        except StudyError as error:
            raise StudyError("--set", f"the value of {key} {error.rule}") from None
        except (YAMLError, ValueError):
            raise StudyError("--set", f"the value of {key} is not valid YAML: {text!r}") from None
        root, _, rest = key.partition(".")
        arms = {**changed.get("arms", {}), **dict.fromkeys(known_arms)}
        if root == "arms" and arms and rest.partition(".")[0] not in arms:
            # A slip would silently make one more arm.
            raise StudyError("--set", unknown("arm", rest.partition(".")[0], arms))
        changed = merge_plain(changed, resolve(nested(key, value)))
    return changed


def merge_plain(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `over` laid on `base`, mapping by mapping; a name becomes a mapping where needed."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, str) and key != "study":
            old = {"name": old}
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            merged[key] = merge_plain(old, value)
        else:
            merged[key] = value
    return merged
