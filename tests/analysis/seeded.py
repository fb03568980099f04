"""Studies of several seeds a configuration, made as tables: scores as told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from analysis.tables import Study, Tables, completed
from tests.analysis.conftest import SCORE

SPACE = {"generator_optimizer.lr": {"log_uniform": [1e-5, 1e-2]}}


def trials(arm: str, scores: np.ndarray, se: float | None = None) -> pd.DataFrame:
    """Return trials of an arm from (configs, seeds) scores, inf where one diverged."""
    configs, count = scores.shape
    config = np.repeat(np.arange(configs), count)
    values, seed = scores.ravel(), np.tile(np.arange(count), configs)
    ids = [f"{arm}-c{c:03d}-s{s}" for c, s in zip(config, seed, strict=True)]
    failed = np.isinf(values)
    table = pd.DataFrame(
        {"arm": arm, "config_id": [f"c{c:03d}" for c in config], "seed": seed, "trial_id": ids,
         "result_hash": ids, "status": np.where(failed, "diverged", "completed"),
         "param.generator_optimizer.lr": 1e-4 * (1.0 + config),
         f"best.{SCORE}": np.where(failed, np.nan, values),
         f"last.{SCORE}": np.where(failed, np.nan, 1.5 * values)}
    )  # fmt: skip
    return table if se is None else table.assign(**{f"best.{SCORE}_se": se * np.abs(values)})


def study_of(
    arms: dict[str, pd.DataFrame], sign: int = 1, reported: pd.DataFrame | None = None, **settings
) -> Study:
    table, _ = completed(pd.concat(arms.values(), ignore_index=True), "here")
    points = [
        pd.DataFrame(
            {"trial_id": table["trial_id"], "name": SCORE, "generator_updates": at,
             "discriminator_updates": at, "images_seen": at, "wall_seconds": 1.0,
             "value": table[f"last.{SCORE}"]}
        )
        for at in (0, 50, 100)
    ]  # fmt: skip
    tables = {"points": pd.concat(points, ignore_index=True)}
    tables |= {} if reported is None else {"reported": reported}
    design = {"design": {"sampler": "random", "paired": False}}
    resolved = {"arms": {arm: {"space": SPACE} for arm in arms}} | design | settings
    return Study(
        Path("x"), Tables.of(table, **tables), resolved, {}, {}, {}, [], SCORE, sign
    )  # fmt: skip


def replicate(arms: dict[str, pd.DataFrame], **more) -> Study:
    """Return a study that repeats every configuration of the tables, in their order."""
    configs = {arm: dict.fromkeys(table["config_id"].unique(), {}) for arm, table in arms.items()}
    return study_of(arms, design={"sampler": "replicate"}, replicate={"configs": configs}, **more)
