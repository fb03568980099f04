"""Shared by all tests: a cache of their own, one thread, and the smallest real study."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML

from ganstudy.checksums import add_checksum

ROOT = Path(__file__).parent.parent
TINY: dict[str, Any] = {
    "study": "tiny",
    "question": "Does the pipeline run?",
    "base": {
        "dataset": "digits",
        "architecture": {"name": "mlp", "width": 16, "latent_dim": 8},
        "batch_size": 32,
        "budget": {"discriminator_updates": 60},
    },
    "arms": {
        "non_saturating": {"loss": "non_saturating"},
        "wgan_gp": {"loss": "wasserstein", "regularizers": {"gradient_penalty": {}}},
    },
    "space": {"generator_optimizer.lr": {"log_uniform": [1e-4, 1e-2]}},
    "design": {"configs": 2},
    "measure": {
        "features": {"name": "small_cnn", "epochs": 1},
        "metrics": ["kernel_distance", "precision"],
        "samples": 60,
        "every": {"discriminator_updates": 20},
    },
}


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the user's cache out of the tests, and the tests out of it."""
    os.environ["GANSTUDY_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture(scope="session")
def tracking_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A real MLflow store, made once: its tables take seconds to create."""
    from ganstudy.tracking import load

    load()
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path_factory.mktemp('tracking') / 'mlflow.db'}"
    MlflowClient(uri).search_experiments()
    return uri


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def tiny() -> dict[str, Any]:
    """The smallest study, as plain data that a test may change."""
    return copy.deepcopy(TINY)


@pytest.fixture
def write_study(tmp_path: Path) -> Callable[[Mapping[str, Any]], Path]:
    """Write a study's YAML and return its path."""

    def write(study: Mapping[str, Any]) -> Path:
        return write_yaml(tmp_path / "study.yaml", study)

    return write


def write_yaml(path: Path, content: Mapping[str, Any]) -> Path:
    """Write a YAML file and return its path."""
    with path.open("w", encoding="utf-8") as file:
        YAML().dump(dict(content), file)
    return path


def seal(path: Path) -> None:
    """Give a file of a study that a test wrote the checksum that it lacks."""
    path.write_bytes(add_checksum(path.name, path.read_bytes()))


def ganstudy(*arguments: object) -> list[str]:
    """Return the command line of the product, as a user's process would run it."""
    return [sys.executable, "-m", "ganstudy.cli", *map(str, arguments)]
