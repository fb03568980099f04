"""What TPE and ASHA reach for the same compute against random search, on recorded trials.

    python benchmarks/search.py                 # the table of docs/search.md, about a minute
    python benchmarks/search.py --record DIR    # keep a run of search_digits.yaml instead

search_digits.parquet holds every trial of a random sweep (search_digits.yaml, beside it), each
trained to its end: its configuration, the score that a search is told of it, and the scores of its
probes on the way. Searches are replayed on it and train nothing:

- **random** draws recorded trials without replacement.
- **TPE** is the product's own search of an arm. A point that it asks for is answered by the
  nearest recorded trial not yet used (in the unit cube of the space; choices that differ are 1
  apart), and that trial with its own configuration is what it is told of. So it sees no made-up
  number, but cannot place a trial as finely as it would, and once the good ones are used up it has
  to take others: what it brings is underestimated, the more the larger the share of the table that
  it has used. Its first 10 trials, which it draws at random anyway, are those of random search.
- **ASHA** and **median stopping** are Ray's rules (analysis/stopping.py) on the recorded probes,
  with the product's defaults; ASHA with Ray's first rung, the first report, too. A trial costs the
  updates up to its stop. Stopped trials count for nothing: a search has reached the best score of
  those that ran to their end.

Trials run one after another. Repeat i of every search begins with the same trials, so repeats are
pairs. Medians are over repeats, with their order-statistic intervals (95 %, exact); they tell of
the luck of the order, not of other tables: all repeats share this one.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent.parent))

from analysis.statistics import median_best_of_k, quantile_interval  # noqa: E402
from analysis.stopping import asha, median_stopping, recorded_runs  # noqa: E402
from analysis.tables import Study  # noqa: E402
from ganstudy.measure.events import WORTHLESS  # noqa: E402
from ganstudy.study.arm import Arm  # noqa: E402
from ganstudy.study.reading import read_yaml  # noqa: E402
from ganstudy.study.space import Choice, Distribution, LogUniform  # noqa: E402
from ganstudy.study.spec import parse_study  # noqa: E402
from ganstudy.study.stopping import Asha, MedianStopping  # noqa: E402
from ganstudy.sweep.search import (  # noqa: E402
    STARTUP,
    TPE_OPTIONS,
    ArmSearch,
    Outcome,
    TrialState,
)

STUDY = Path(__file__).with_suffix(".yaml").with_stem("search_digits")
TABLE = STUDY.with_suffix(".parquet")
REPEATS = 20
BUDGETS = (10, 15, 20, 30, 40, 60)
"""Compute, in whole trials. Beyond a quarter of the table every search has used most of it up."""
PARAM = "param."
Rule = Callable[[Sequence[Sequence[float]]], list[int | None]]
"""Reports by trial -> the number of the report, from 1, at which each is stopped."""


def never(reports: Sequence[Sequence[float]]) -> list[int | None]:
    """Stop nothing."""
    return [None] * len(reports)


@dataclass(frozen=True)
class Table:
    """Recorded trials of one arm.

    Attributes:
        arm: Whose space they were drawn from.
        params: By trial its configuration.
        points: The same in the unit cube, (trials, keys); of a choice the number of the value.
        scores: By trial what a search is told of it, +inf where it is worth nothing.
        errors: Standard errors of the scores.
        reports: By trial the scores of its probes, equally far apart, the last at its end.
    """

    arm: Arm
    params: Sequence[Mapping[str, Any]]
    points: NDArray[np.float64]
    scores: NDArray[np.float64]
    errors: NDArray[np.float64]
    reports: Sequence[Sequence[float]]

    @classmethod
    def load(cls, path: Path = TABLE) -> Table:
        """Read the kept table."""
        frame, arm = pd.read_parquet(path), parse_study(read_yaml(STUDY)).arms[0]
        keys = list(arm.space)
        params = [
            {key: _value(arm.space[key], row[PARAM + key]) for key in keys}
            for row in frame.to_dict("records")
        ]
        points = [[unit(arm.space[key], p[key]) for key in keys] for p in params]
        return cls(
            arm,
            params,
            np.array(points),
            frame["score"].to_numpy(),
            frame["standard_error"].to_numpy(),
            [list(map(float, reports)) for reports in frame["reports"]],
        )

    def __len__(self) -> int:
        return len(self.params)

    def cost(self, stop: int | None) -> float:
        """Return the compute of a trial that is stopped at a report, in whole trials."""
        return 1.0 if stop is None else stop / len(self.reports[0])

    def nearest(self, values: Mapping[str, Any], unused: Sequence[int]) -> int:
        """Return the unused trial nearest to `values`; two choices that differ are 1 apart."""
        space = self.arm.space
        choices = np.array([isinstance(d, Choice) for d in space.values()])
        apart = self.points[list(unused)] - [unit(d, values[key]) for key, d in space.items()]
        apart = np.where(choices, apart != 0, apart)
        return unused[int((apart**2).sum(axis=1).argmin())]


def _value(distribution: Distribution, value: Any) -> Any:
    """Return a recorded value as the space has it: whole numbers may come back as others."""
    if not isinstance(distribution, Choice):
        return value
    return next(choice for choice in distribution.values if choice == value)


def unit(distribution: Distribution, value: Any) -> float:
    """Return the quantile of `value`; of a choice its number."""
    if isinstance(distribution, Choice):
        return float(distribution.values.index(value))
    low, high = distribution.ends()
    if isinstance(distribution, LogUniform):
        low, high, value = math.log(low), math.log(high), math.log(value)
    return float((value - low) / (high - low))


class Step(NamedTuple):
    """One trial of a replayed search."""

    trial: int
    stop: int | None


def random_search(table: Table, rule: Rule, repeat: int, budget: float) -> Iterator[Step]:
    """Draw trials without replacement."""
    order = np.random.default_rng(repeat).permutation(len(table)).tolist()
    stops = rule([table.reports[trial] for trial in order])
    for trial, stop in zip(order, stops, strict=True):
        if budget <= 0:
            return
        budget -= table.cost(stop)
        yield Step(trial, stop)


def tpe(
    table: Table,
    rule: Rule,
    repeat: int,
    budget: float,
    workers: int = 1,
    options: Mapping[str, Any] = TPE_OPTIONS,
) -> Iterator[Step]:
    """Let the product's TPE ask, and answer with the nearest trial that is left.

    Args:
        table: The recorded trials.
        rule: What stops a trial.
        repeat: Seed of the order and of the sampler.
        budget: Compute, in whole trials.
        workers: Trials that run at a time: the search asks for the next one before it hears of
            the `workers - 1` begun last.
        options: Of Optuna's sampler.
    """
    search = ArmSearch(table.arm, repeat, 0, options)
    order = np.random.default_rng(repeat).permutation(len(table)).tolist()
    unused, seen = set(range(len(table))), list[int]()
    running: list[tuple[str, Step]] = []
    while unused and budget > 0:
        asked = f"asked-{len(seen)}"
        values = search.ask(asked)
        startup = len(seen) < STARTUP
        trial = order[len(seen)] if startup else table.nearest(values, sorted(unused))
        unused.remove(trial)
        seen.append(trial)
        step = Step(trial, rule([table.reports[i] for i in seen])[-1])
        running.append((asked, step))
        if len(running) == workers:
            ended, done = running.pop(0)
            # What was asked for was never tried.
            search.tell(ended, {}, Outcome(TrialState.FAIL))
            search.tell(f"tried-{ended}", table.params[done.trial], outcome(table, done))
        budget -= table.cost(step.stop)
        yield step


def outcome(table: Table, step: Step) -> Outcome:
    """Return what the search is told of a trial."""
    reports = dict(enumerate(table.reports[step.trial][: step.stop], start=1))
    if step.stop is not None:
        return Outcome(TrialState.PRUNED, reports=reports)
    return Outcome(TrialState.COMPLETE, float(table.scores[step.trial]), reports)


def reached(table: Table, steps: Sequence[Step], budgets: Sequence[float]) -> list[float]:
    """Return by budget the best score of the trials that had run to their end within it."""
    spent = np.cumsum([table.cost(step.stop) for step in steps])
    ended = np.array([step.stop is None for step in steps])
    scores = table.scores[[step.trial for step in steps]]
    # Fractions of trials add up to a whole one only nearly.
    return [
        float(scores[ended & (spent <= budget + 1e-9)].min(initial=math.inf)) for budget in budgets
    ]


def searches(reports: int) -> dict[str, Callable[..., Iterator[Step]]]:
    """Return the searches by name.

    Args:
        reports: How many a whole trial makes.
    """
    halving, median = Asha(), MedianStopping()
    ours = partial(
        asha, grace=halving.first(reports, 1), reduction_factor=halving.reduction_factor
    )
    median_rule = partial(median_stopping, grace=median.first(reports, 1), fewest=median.fewest)
    return {
        "random": partial(random_search, rule=never),
        "random + ASHA": partial(random_search, rule=ours),
        "random + ASHA from the first report": partial(random_search, rule=asha),
        "random + median stopping": partial(random_search, rule=median_rule),
        "TPE": partial(tpe, rule=never),
        "TPE + ASHA": partial(tpe, rule=ours),
    }


def spread(values: Sequence[float] | NDArray[np.float64], form: str = ".4g") -> str:
    """Return the median with its order-statistic interval."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    low, high = quantile_interval(ordered, 0.5)
    ends = ", ".join("none" if end is None else format(end, form) for end in (low, high))
    return f"{np.median(ordered):{form}} [{ends}]"


def compare(table: Table, repeats: int = REPEATS) -> None:
    """Print what every search reaches at every budget."""
    budgets = [budget for budget in BUDGETS if 4 * budget <= len(table)]
    best, finite = table.scores.min(), np.isfinite(table.scores)
    top = np.argsort(table.scores)[:10]
    print(f"{len(table)} trials of {len(table.arm.space)} keys, {(~finite).sum()} worth nothing; "
          f"best {best:.4g}, median {np.median(table.scores):.4g}; standard error of the ten "
          f"best {np.median(table.errors[top]):.2g}")  # fmt: skip
    exact = [f"{k}: {median_best_of_k(table.scores, k).value:.4g}" for k in budgets]
    print(f"median best of so many draws over all orders: {', '.join(exact)}")
    print("| search | compute, trials | configurations | best score | regret | better than random "
          "| difference |\n|---|---|---|---|---|---|---|")  # fmt: skip
    random: NDArray[np.float64] | None = None
    for name, search in searches(len(table.reports[0])).items():
        runs = [list(search(table, repeat=i, budget=max(budgets))) for i in range(repeats)]
        found = np.array([reached(table, steps, budgets) for steps in runs])
        random = found if random is None else random
        for column, budget in enumerate(budgets):
            print(f"| {name} | {budget} | {begun(table, runs, budget):.0f} "
                  f"| {spread(found[:, column])} | {np.median(found[:, column]) - best:.3g} "
                  f"| {paired(found[:, column], random[:, column])} |")  # fmt: skip


def begun(table: Table, runs: Sequence[Sequence[Step]], budget: float) -> float:
    """Return how many trials a search had begun within the budget, the median over repeats."""
    spent = [np.cumsum([table.cost(step.stop) for step in steps]) for steps in runs]
    return float(np.median([(costs <= budget + 1e-9).sum() for costs in spent]))


def paired(found: NDArray[np.float64], random: NDArray[np.float64]) -> str:
    """Return in how many repeats a search is better and worse than random, and by how much."""
    if found is random or (found == random).all():
        return "- | -"
    better, worse = (found < random).sum(), (found > random).sum()
    return f"{better}, worse {worse} of {len(found)} | {spread(found - random, '+.3g')}"


def record(folder: Path) -> None:
    """Keep a finished run of the study as the table."""
    study = Study.load(folder)
    runs = {run.trial_id: run for run in recorded_runs(study)}
    events = study.results.events
    lasting = set(events[events["kind"].isin(WORTHLESS) & events["ended"].isna()]["trial_id"])
    trials = study.trials(study.arms[0])
    kept = trials[trials["trial_id"].isin(runs)]
    worthless = kept["trial_id"].isin(lasting)
    table = kept[[name for name in kept if name.startswith(PARAM)]].assign(
        score=kept["score"].mask(worthless, math.inf),
        standard_error=kept[f"best.{study.primary}_se"],
        reports=[list(runs[trial].reports.values()) for trial in kept["trial_id"]],
    )
    table.to_parquet(TABLE, index=False)
    print(f"{TABLE}: {len(table)} of {len(trials)} trials, {TABLE.stat().st_size / 1024:.0f} KB")


def main() -> None:
    """Print the comparison, or keep another table."""
    parser = argparse.ArgumentParser(description="What searches reach for the same compute.")
    parser.add_argument("--record", type=Path, metavar="DIR", help="a finished run of the study")
    folder = parser.parse_args().record
    if folder is None:
        compare(Table.load())
    else:
        record(folder)


if __name__ == "__main__":
    main()
