"""What choosing adds: by one seed, by one split, by the best of many checkpoints."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis import statistics
from analysis.arms import honest, interval, with_error
from analysis.page import NONE, Part, Section, Table, number
from analysis.statistics import Estimate
from analysis.tables import Study
from analysis.variability import STANDARD_ERROR, runs

TOLD_K = (2, 5, 10, 20, 50, 100)
"""Budgets in configurations at which a choice by one seed is told, besides all of them."""


class SeedChoice(NamedTuple):
    """The best of k configurations by one seed; scores as they are told."""

    arm: str
    configs: int
    seeds: int
    k: int
    chosen_by: float
    """Its expected score by the seed that chose it."""
    told_by: float
    """Its expected score by another seed at which it does not fail; NaN where it always does."""
    fails: float
    """Probability that it fails at another seed."""


def seed_choices(study: Study) -> list[SeedChoice]:
    """Return what a choice by one seed is worth on the others, for arms with 2 configs by 2 seeds.

    Of configurations that have all of the arm's seeds. Where the search was adaptive only the
    choice among all of them is told, since fewer are no random draw of them.
    """
    found = []
    for arm in study.arms:
        trials = runs(study, arm)
        grid = trials.pivot_table(index="config_id", columns="seed", values="score", aggfunc="min")
        scores = grid.dropna().to_numpy()
        configs, seeds = scores.shape
        if configs < 2 or seeds < 2 or not np.isfinite(scores).any():
            continue
        ks = [configs] if study.adaptive else [k for k in TOLD_K if k < configs] + [configs]
        by, told, fails = told_by_others(scores, ks)
        found += [
            SeedChoice(arm, configs, seeds, k, *row)
            for k, *row in zip(ks, study.sign * by, study.sign * told, fails, strict=True)
        ]
    return found


def told_by_others(scores: np.ndarray, ks: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return how the best of k by one seed does by the others, where it does not fail.

    Without failures it is `statistics.seed_optimism`, which they make infinite as soon as the
    chosen one may fail; here their share stands apart.

    Args:
        scores: (configs, seeds), lower is better, +inf for a failure; one is finite.
        ks: Budgets in configurations.

    Returns:
        By k: expected score by the seed that chose, expected score by another seed at which there
        is one, and the probability that there is none.
    """
    by, total, lost = [], [], []
    for seed in range(scores.shape[1]):
        chosen, others = scores[:, seed], np.delete(scores, seed, axis=1)
        if not np.isfinite(chosen).any():
            continue
        finite = np.isfinite(others)
        # A choice's expected score is that of its sum over that of its count.
        sums = np.where(finite, others, 0.0).mean(axis=1)
        first = statistics.optimism_of_choosing(chosen, sums, ks)
        by.append(first.chosen_on)
        total.append(first.told_on)
        lost.append(statistics.optimism_of_choosing(chosen, 1.0 - finite.mean(axis=1), ks).told_on)
    fails = np.mean(lost, axis=0)
    known = np.where(fails < 1, 1 - fails, np.nan)
    return np.mean(by, axis=0), np.mean(total, axis=0) / known, fails


def _ratio(above: float, below: float) -> float:
    """Return the ratio of two scores above 0, NaN of others: it would say nothing."""
    return above / below if above > 0 and below > 0 and math.isfinite(below) else math.nan


def _seed_table(study: Study) -> Table | str:
    found = seed_choices(study)
    if not found:
        return ("What a choice by one seed is worth on another is not known: no arm has 2 "
                "configurations or more with the same 2 seeds or more.")  # fmt: skip
    data = pd.DataFrame(found, columns=SeedChoice._fields)
    data["difference"] = data["told_by"] - data["chosen_by"]
    data["ratio"] = [_ratio(c.told_by, c.chosen_by) for c in found]
    shown = data.assign(
        **{name: data[name].map(number) for name in ("chosen_by", "told_by", "difference")},
        ratio=data["ratio"].map(number),
        fails=[f"{share:.1%}" if share else NONE for share in data["fails"]],
    ).rename(
        columns={"chosen_by": "by the seed that chose", "told_by": "by another seed",
                 "fails": "fails there"}
    )  # fmt: skip
    reading = (
        "The best of k configurations by one seed, and the same configuration by the mean of the "
        "others at which it does not fail, with how often it fails there: exact, over all choices "
        "of k that hold a success, and every seed as the one that chooses."
    )
    return Table("optimism-seed", "Chosen by one seed, told by the others", reading, data, shown)


def split_choices(study: Study) -> pd.DataFrame:
    """Return, by arm, its best generator's primary score on select and on report.

    On select by the checkpoint that the study's rule names, whose generator the driver scores on
    report.

    Columns: arm, trial_id, select, select_se, report, report_se, difference, ratio; errors NaN
    where they are not known. Empty where nothing was told on report.
    """
    reported = study.results.reported
    told = reported[reported["name"] == study.primary]
    column = f"{study.score_rule.checkpoint}.{study.primary}"
    trials = study.results.trials.drop_duplicates("trial_id").set_index("trial_id")
    if column not in trials:
        told = told.iloc[:0]
    rows = pd.DataFrame(
        {"arm": told["arm"].astype(str), "trial_id": told["trial_id"], "report": told["value"],
         "report_se": told["standard_error"]}
    )  # fmt: skip
    for name, source in (("select", column), ("select_se", column + STANDARD_ERROR)):
        values = trials[source].astype(float) if source in trials else pd.Series(dtype=float)
        rows[name] = values.reindex(rows["trial_id"]).to_numpy(dtype=float)
    rows = rows[np.isfinite(rows["select"]) & np.isfinite(rows["report"])]
    rows["difference"] = rows["report"] - rows["select"]
    ratios = [_ratio(a, b) for a, b in zip(rows["report"], rows["select"], strict=True)]
    return rows.assign(ratio=ratios).reset_index(drop=True)


def _split_table(study: Study) -> Table | str:
    data = split_choices(study)
    if data.empty:
        return ("No generator was measured on the report split, so what choosing on select adds "
                "is not known.")  # fmt: skip
    columns = (data[name] for name in ("select", "select_se", "report", "report_se"))
    told = [(with_error(a, b), with_error(c, d)) for a, b, c, d in zip(*columns, strict=True)]
    shown = pd.DataFrame(
        {"arm": data["arm"], "on select": [select for select, _ in told],
         "on report": [report for _, report in told],
         "difference": data["difference"].map(number), "ratio": data["ratio"].map(number)}
    )  # fmt: skip
    reading = (
        f"{study.primary} of each arm's best generator on the split that chose its trial and "
        f"checkpoint, and against images that chose nothing. One generator an arm, and other real "
        f"images, so part of a difference is theirs. ±: one standard error over samples."
    )
    return Table("optimism-split", "Chosen on select, told on report", reading, data, shown)


class CheckpointChoice(NamedTuple):
    """Last checkpoint against best, over what of an arm has both.

    Attributes:
        ratio: Median of last over best, one value a configuration (the median over its seeds; a
            value a seed where configurations are repeated); of last less best where not all
            scores are above 0.
        evaluations: Median number of evaluations that the best was chosen from; NaN if unknown.
        left_out: Trials that failed, or have no score at their end.
    """

    arm: str
    ratio: Estimate
    evaluations: float
    left_out: int


def checkpoint_choices(study: Study) -> tuple[list[CheckpointChoice], bool]:
    """Return every arm's gain by its best checkpoint, and whether it is told as a ratio."""
    best, last = (f"{which}.{study.primary}" for which in ("best", "last"))
    tables = {arm: study.counted(arm) for arm in study.arms}
    if any(column not in table for table in tables.values() for column in (best, last)):
        return [], True
    kept = {arm: _ended(table, best, last) for arm, table in tables.items()}
    scores = pd.concat([table[[best, last]] for table in kept.values()])
    ratio = bool((scores > 0).all().all())
    # Finite ones only: a point without a value is no checkpoint to choose.
    points = study.primary_points
    counts = points[np.isfinite(points["value"])].groupby("trial_id").size()
    found = []
    for arm, table in kept.items():
        if table.empty:
            continue
        gains = table[last] / table[best] if ratio else table[last] - table[best]
        unit = table["seed" if study.unit == "seed" else "config_id"]
        gains = gains.groupby(unit).median()
        evaluations = counts.reindex(table["trial_id"]).median()
        found.append(
            CheckpointChoice(
                arm,
                honest(statistics.median_best_of_k(gains.to_numpy(), 1), study),
                float(evaluations),
                len(tables[arm]) - len(table),
            )
        )
    return found, ratio


def _ended(trials: pd.DataFrame, best: str, last: str) -> pd.DataFrame:
    scored = np.isfinite(trials["score"]) & np.isfinite(trials[[best, last]].astype(float)).all(
        axis=1
    )
    return trials[scored].astype({best: float, last: float})


def _checkpoint_table(study: Study) -> Table | str:
    found, ratio = checkpoint_choices(study)
    if not found:
        return "No trial has a score both at its best checkpoint and at its end."
    data = pd.DataFrame(
        {"arm": c.arm, "n": c.ratio.n, "left_out": c.left_out, "evaluations": c.evaluations,
         "ratio" if ratio else "difference": c.ratio.value, "low": c.ratio.low,
         "high": c.ratio.high}
        for c in found
    )  # fmt: skip
    head = "last / best [95 %]" if ratio else "last - best [95 %]"
    shown = pd.DataFrame(
        {"arm": c.arm, f"{study.unit}s": str(c.ratio.n), "trials left out": str(c.left_out),
         "chosen from": NONE if math.isnan(c.evaluations) else f"{c.evaluations:g} evaluations",
         head: interval(c.ratio)}
        for c in found
    )  # fmt: skip
    exact = " with its exact interval" if study.independent else ""
    reading = (
        f"{study.primary} at the end of training against the best checkpoint, by the median over "
        f"{study.unit}s{exact}. The best of many noisy evaluations looks good by chance "
        f"too, the more the more there were. Left out: trials that failed, or have no score at "
        f"one of the two."
    )
    return Table("optimism-checkpoint", "Best checkpoint, last checkpoint", reading, data, shown)


def section(study: Study, repeated: bool = True) -> Section:
    """Return what choosing by split and checkpoint adds, and by seed where any is `repeated`."""
    parts: list[Part] = [_seed_table(study)] if repeated else []
    parts += [_split_table(study), _checkpoint_table(study)]
    return Section("optimism", "What choosing adds", parts)
