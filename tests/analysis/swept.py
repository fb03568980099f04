"""Studies of many trials, made as tables: hyper-parameters at random, outcomes as told."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.tables import Study, Tables
from tests.analysis.conftest import SCORE

SPACE = {
    "generator_optimizer.lr": {"log_uniform": [1e-5, 1e-2]},
    "ttur_ratio": {"log_uniform": [0.1, 10]},
    "optimizer.beta1": {"uniform": [0, 1]},
    "n_critic": {"choice": [1, 2, 5]},
}
BUDGET = 600
Outcomes = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""Positions (n, p) and a generator -> n scores, inf where the trial diverges."""


def drawn(space: Mapping[str, Any], u: np.ndarray) -> pd.DataFrame:
    """Return values at positions, written down apart from the code under test."""
    columns = {}
    for (key, what), at in zip(space.items(), u.T, strict=True):
        [(kind, values)] = ((k, v) for k, v in what.items() if k != "when")
        if kind == "choice":
            picked = [values[int(i)] for i in at * len(values)]
            text = any(isinstance(v, str | bool) for v in values)
            columns[f"param.{key}"] = [str(v) if text else float(v) for v in picked]
        elif kind == "log_uniform":
            columns[f"param.{key}"] = values[0] * (values[1] / values[0]) ** at
        elif kind == "int_uniform":
            columns[f"param.{key}"] = values[0] + np.floor(at * (values[1] - values[0] + 1))
        else:
            columns[f"param.{key}"] = values[0] + at * (values[1] - values[0])
    return pd.DataFrame(columns)


def arm_trials(
    arm: str, n: int, scores: Outcomes, space: Mapping[str, Any] = SPACE, seed: int = 0
) -> pd.DataFrame:
    """Return n trials of an arm; a trial that diverges does so at a random update."""
    rng = np.random.default_rng([seed, *arm.encode()])
    u = rng.random((n, len(space)))
    trials, values = drawn(space, u), scores(u, rng)
    failed = np.isinf(values)
    ids = [f"c{i:04d}" for i in range(n)]
    fixed = {
        "arm": arm, "config_id": ids, "trial_id": [f"{arm}-{c}-s0" for c in ids], "seed": 0,
        "result_hash": [f"{arm}-{c}" for c in ids], "reason": "",
        "status": np.where(failed, "diverged", "completed"), "seconds": 1.0,
        "discriminator_updates": np.where(failed, rng.integers(1, BUDGET, n), BUDGET),
        f"best.{SCORE}": np.where(failed, np.nan, values),
    }  # fmt: skip
    return trials.assign(**fixed)


def events_of(trials: pd.DataFrame, kind: str, onset: Sequence[int] | None = None) -> pd.DataFrame:
    """Return one event a trial, at its last update unless told."""
    at = trials["discriminator_updates"].to_numpy() if onset is None else onset
    return pd.DataFrame(
        {"trial_id": trials["trial_id"], "kind": kind, "onset": at, "detected": at,
         "ended": math.nan, "severity": 1.0, "evidence": "{}"}
    )  # fmt: skip


def study_of(
    synthetic: Callable[..., Path],
    arms: Mapping[str, pd.DataFrame],
    events: Sequence[pd.DataFrame] = (),
    spaces: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Study:
    """Return a study of these trials; every arm has `SPACE` unless `spaces` says otherwise."""
    folder = synthetic({arm: [1.0] for arm in arms}, **settings)
    study = Study.load(folder)
    resolved = study.settings | {
        "arms": {
            arm: {
                "space": (spaces or {}).get(arm, SPACE),
                "budget": {"discriminator_updates": BUDGET},
            }
            for arm in arms
        }
    }
    happened = pd.concat(events, ignore_index=True) if events else study.results.events.iloc[:0]
    trials = pd.concat(arms.values(), ignore_index=True)
    results = Tables.of(trials, events=happened)
    return dataclasses.replace(study, results=results, settings=resolved)
