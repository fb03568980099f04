"""What the options of Optuna's TPE bring: a joint model of the keys, and keeping trials apart.

    python benchmarks/samplers.py                # the tables of docs/search.md; half an hour

Two objectives, each searched by one trial at a time and by eight at a time:

- **recorded**: the replay of benchmarks/search.py on its recorded sweep, without stopping.
- **conditional**: a made-up function of a space with conditions: one of three regularisers, each
  with a weight of its own, beside a learning rate and beta1. In each of them the best learning
  rate falls with the weight, and each repeat places the optima anew. No GAN is trained.

Repeats are pairs. Better and worse are counted against the product's own options.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.search import Table, never, reached, spread, tpe  # noqa: E402
from ganstudy.study.arm import Arm  # noqa: E402
from ganstudy.study.spec import parse_study  # noqa: E402
from ganstudy.sweep.search import TPE_OPTIONS, ArmSearch, Outcome, TrialState  # noqa: E402

SETTINGS: dict[str, dict[str, bool]] = {
    "each key, apart": {},
    "each key": {"constant_liar": False},
    "joint, apart": {"multivariate": True},
    "joint": {"multivariate": True, "constant_liar": False},
    "joint by group, apart": {"multivariate": True, "group": True},
    "joint by group": {"multivariate": True, "group": True, "constant_liar": False},
}
"""Options that differ from the product's, which come first."""
WORKERS = (1, 8)
BUDGETS = (20, 30, 40)
PENALTIES = ("r1", "gradient_penalty", "dragan")


def conditional_arm() -> Arm:
    """Build an arm whose space has three conditional keys."""
    weights = {
        f"regularizers.{name}.weight": {
            "log_uniform": [0.01, 100],
            "when": {"regularizers": {name: {}}},
        }
        for name in PENALTIES
    }
    space = {
        "regularizers": {"choice": [{name: {}} for name in PENALTIES]},
        **weights,
        "optimizer.lr": {"log_uniform": [1e-5, 1e-1]},
        "optimizer.beta1": {"uniform": [0, 0.9]},
    }
    arms = {"a": {"loss": "hinge", "space": space}}
    return parse_study({"study": "made_up", "base": {"dataset": "digits"}, "arms": arms}).arms[0]


def conditional_score(values: Mapping[str, Any], optima: Mapping[str, Sequence[float]]) -> float:
    """Compute the made-up score, 0 at best: a valley of learning rate and weight."""
    (name,) = values["regularizers"]
    offset, rate_at, weight_at, beta_at = optima[name]
    weight = (math.log10(values[f"regularizers.{name}.weight"]) + 2) / 4
    rate = (math.log10(values["optimizer.lr"]) + 5) / 4
    beta = values["optimizer.beta1"] / 0.9
    valley = 4 * (rate + 0.5 * weight - rate_at) ** 2
    return float(offset + valley + (weight - weight_at) ** 2 + 0.5 * (beta - beta_at) ** 2)


def search_conditional(
    arm: Arm, repeat: int, workers: int, options: Mapping[str, Any]
) -> list[float]:
    """Return the best score within each budget."""
    rng = np.random.default_rng(repeat)
    order = rng.permutation(PENALTIES)
    optima = {
        str(name): (offset, *rng.uniform(0.2, 0.9, 3))
        for name, offset in zip(order, (0.0, 0.1, 0.2), strict=True)
    }
    search, scores, running = ArmSearch(arm, repeat, 0, options), list[float](), list[str]()
    for i in range(max(BUDGETS)):
        scores.append(conditional_score(search.ask(str(i)), optima))
        running.append(str(i))
        if len(running) == workers:
            ended = running.pop(0)
            search.tell(ended, {}, Outcome(TrialState.COMPLETE, scores[int(ended)]))
    return [min(scores[:budget]) for budget in BUDGETS]


def compare(name: str, found: Mapping[str, NDArray[np.float64]]) -> None:
    """Print one table: a row a setting, a column a budget."""
    own = found[next(iter(SETTINGS))]
    print(f"\n{name}, {len(own)} repeats\n| model | {' | '.join(map(str, BUDGETS))} |")
    for setting, scores in found.items():
        better, worse = (scores < own).sum(axis=0), (scores > own).sum(axis=0)
        cells = [
            f"{spread(scores[:, i])}, {better[i]} better, {worse[i]} worse"
            for i in range(len(BUDGETS))
        ]
        print(f"| {setting} | {' | '.join(cells)} |")


def main() -> None:
    """Print both objectives' tables."""
    parser = argparse.ArgumentParser(description="What the options of TPE bring.")
    parser.add_argument("--repeats", type=int, default=100)
    repeats = parser.parse_args().repeats
    table, arm = Table.load(), conditional_arm()
    for workers in WORKERS:
        recorded, made_up = {}, {}
        for setting, options in SETTINGS.items():
            chosen = {**TPE_OPTIONS, **options}
            recorded[setting] = np.array([
                reached(table, list(tpe(table, never, i, max(BUDGETS), workers, chosen)), BUDGETS)
                for i in range(repeats)
            ])  # fmt: skip
            made_up[setting] = np.array(
                [search_conditional(arm, i, workers, chosen) for i in range(repeats)]
            )
        compare(f"recorded, {workers} at a time", recorded)
        compare(f"conditional, {workers} at a time", made_up)


if __name__ == "__main__":
    main()
