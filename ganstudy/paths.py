"""Paths of a study: absolute in memory, in a file relative to the folder of that file.

A YAML's relative paths are relative to the YAML, those of `--set` to the working directory. A
study's folder stores a path inside its runs folder relative to the study's folder, so that the
runs folder can be moved with the data in it; all other paths are stored as absolute ones.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ganstudy.gan.datasets import DATASETS
from ganstudy.gan.datasets.files import absolute
from ganstudy.measure.features import FEATURES
from ganstudy.provenance import read_study_id
from ganstudy.registry import Registry, path_options
from ganstudy.storage import is_remote
from ganstudy.tracking_store import OWN_STORE, SQLITE, store_path

KINDS: Mapping[str, Registry[Any]] = {"dataset": DATASETS, "features": FEATURES}
"""Keys that hold a component some of whose options are paths."""


@functools.cache
def path_keys() -> set[tuple[str, ...]]:
    """Return the last two parts of every key that holds a path."""
    return {("replicate", "from")} | {
        (key, option)
        for key, registry in KINDS.items()
        for name in registry.names()
        for option in path_options(registry.get(name))  # type: ignore[arg-type]
    }


def map_paths(data: Any, change: Callable[[str], str], key: tuple[str, ...] = ()) -> Any:
    """Return a study's plain data with `change` applied to each path; URIs stay as they are.

    Args:
        data: A study, or what stands under `key`.
        change: Path -> path.
        key: The parts of the key of `data`.
    """
    if isinstance(data, Mapping):
        return {
            name: map_paths(inner, change, (*key, *str(name).split(".")))
            for name, inner in data.items()
        }
    if isinstance(data, list):
        return [map_paths(inner, change, key) for inner in data]
    named = tuple(part for part in key if part != "choice")[-2:]
    if isinstance(data, str) and named in path_keys() and "://" not in data:
        return change(data)
    return data


def resolve_paths(data: Any, folder: Path) -> Any:
    """Return a study's plain data with every path absolute.

    Args:
        data: What a file holds.
        folder: The folder of that file. A file in an object store holds absolute paths alone.
    """
    if is_remote(folder):
        return data
    return map_paths(data, lambda path: absolute(path, folder))


def store_paths(data: Any, study: Path) -> Any:
    """Return a study's plain data as the files of the folder `study` store it."""
    return map_paths(data, lambda path: stored_path(path, study))


def stored_path(path: str, study: Path) -> str:
    """Return an absolute path as a study's folder stores it.

    Args:
        path: The absolute path.
        study: The study's folder; the one above it is the runs folder.

    Returns:
        The path relative to `study` where it lies in the runs folder, else `path`.
    """
    if is_remote(study):
        return path
    # A link may lead into the runs folder, or out of it: what is stored must lead to `path`.
    for spelled in (os.path.abspath, os.path.realpath):
        there, here = spelled(path), spelled(study)
        if Path(there).is_relative_to(Path(here).parent):
            relative = os.path.relpath(there, here)
            if os.path.realpath(Path(study, relative)) == os.path.realpath(path):
                return relative
    return path


def relative_paths(data: Any) -> list[str]:
    """Return the relative paths among a study's plain data, as they are written."""
    found: list[str] = []

    def note(path: str) -> str:
        found.append(path)
        return path

    map_paths(data, note)
    return [path for path in found if not Path(path).expanduser().is_absolute()]


def stored_uri(uri: str, study: Path) -> str:
    """Return a tracking URI as a study's folder stores it: a file's path as `stored_path` does."""
    if not uri.startswith(SQLITE):
        return uri
    return SQLITE + stored_path(uri.removeprefix(SQLITE), study)


def resolve_uri(uri: str, folder: Path) -> str:
    """Return a tracking URI with the path of a file made absolute, from `folder` on."""
    if not uri.startswith(SQLITE) or is_remote(folder):
        return uri
    return SQLITE + absolute(uri.removeprefix(SQLITE), folder)


def find_store(stored: str, study: Path) -> str:
    """Return the tracking URI of a study from what its folder stores.

    A ganstudy that gave studies no id stored the path of the runs folder's own file as an absolute
    one. Where such a folder was moved or copied, that path leads to the original.

    Args:
        stored: What tracking.json holds.
        study: The study's folder.
    """
    uri = resolve_uri(stored, study)
    path = store_path(stored)
    if path is None or is_remote(study) or read_study_id(study):
        return uri
    own = study.resolve().parent / OWN_STORE
    if path.name == OWN_STORE and (own.exists() or not path.exists()):
        return f"{SQLITE}{own}"
    return uri
