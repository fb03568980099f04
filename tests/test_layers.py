"""Imports point down, and each big dependency has one door."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT

LAYERS = [
    {
        "exits",
        "registry",
        "records",
        "provenance",
        "storage",
        "limits",
        "study_files",
        "checksums",
        "table_checks",
        "tracking_store",
    },
    {"lease", "store", "tracking", "known_stores"},
    {"gan"},
    {"measure"},
    {"paths"},
    {"trial"},
    {"study"},
    {"display", "telling", "replaying", "traces", "why"},
    {"sweep"},
    {"catalog", "reference", "doctor", "preview", "launch", "cli"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
TORCH_FREE = {
    "ganstudy.records",
    "ganstudy.storage",
    "ganstudy.study_files",
    "ganstudy.limits",
    "ganstudy.checksums",
    "ganstudy.table_checks",
    "ganstudy.study.yaml_text",
    "ganstudy.registry",
    "ganstudy.study.outcomes",
    "ganstudy.study.score_validity",
}
"""What the analysis may import of the package."""
DOORS = {
    "ray": {"ganstudy/sweep/ray_tune"},
    "optuna": {"ganstudy/sweep/search.py", "analysis/sensitivity/importance.py"},
    "mlflow": {"ganstudy/tracking.py"},
}
FILES = sorted((ROOT / "ganstudy").rglob("*.py")) + sorted((ROOT / "analysis").rglob("*.py"))


def imports(path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    for module in imports(path):
        target = module.split(".")
        if parts[0] == "analysis":
            assert target[0] != "torch"
            assert target[0] != "ganstudy" or module in TORCH_FREE
        elif target[0] == "ganstudy" and len(target) > 1 and parts[1] != "__init__":
            assert RANK[target[1]] <= RANK[parts[1]], f"{parts[1]} imports {module} from above"
        elif target[0] == "analysis":
            assert RANK[parts[1]] == len(LAYERS) - 1, "only the top layer calls the analysis"


@pytest.mark.parametrize(("library", "doors"), DOORS.items())
def test_one_door_per_big_dependency(library, doors):
    users = {
        str(path.relative_to(ROOT))
        for path in FILES
        if any(module.split(".")[0] == library for module in imports(path))
    }
    assert all(user.startswith(tuple(doors)) for user in users), users
    assert users, f"nothing imports {library}: drop the dependency"


def test_every_file_of_ours_has_a_rank():
    ours = {path.stem for path in (ROOT / "ganstudy").iterdir() if path.suffix == ".py"}
    packages = {p.name for p in (ROOT / "ganstudy").iterdir() if (p / "__init__.py").exists()}
    assert (ours | packages) - {"__init__"} == set(RANK)
