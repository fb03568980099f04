"""What each stopping rule would have saved of a real random sweep, and what it would have cost.

    python benchmarks/compute_saved.py [DIR]

DIR is the folder of a finished study in which nothing was stopped; without it, or where it holds
none yet, studies/stopping_mnist5k.yaml is run (a quarter of an hour on two idle cores). Events are
found anew by replaying the recorded points, so the table is of the detectors as they are now. What
the columns mean stands in docs/stopping.md.

Goals, of the recommended rule: 25 % of all seconds and 70 % of the savable ones saved, and no
arm's best any worse.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.arms import interval
from analysis.savings import Saving, Savings, duration, saving, savings_data
from analysis.stopping import (
    EAGER,
    EAGER_RULE,
    GAIN,
    RECOMMENDED,
    RECOMMENDED_RULE,
    FirstEvent,
    Rule,
    Run,
    Scheduler,
    asha,
    recorded_runs,
    stopping_rules,
)
from analysis.tables import Study
from ganstudy.measure.events import replay
from ganstudy.records import PROBE_SCORE, Point

STUDY = Path(__file__).parents[1] / "studies" / "stopping_mnist5k.yaml"
OF_ALL, OF_SAVABLE = 0.25, 0.70
ORDERS = 100


def run(folder: Path) -> None:
    """Run the study into `folder`."""
    print(f"running {STUDY.name} into {folder}", file=sys.stderr)
    subprocess.run(
        [sys.executable, "-m", "ganstudy.cli", "run", str(STUDY),
         "--runs", str(folder.parent), "--name", folder.name],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def replayed(study: Study) -> Study:
    """Return the study with the events that the detectors of today find in its points."""
    rows = []
    for trial_id, points in study.results.points.groupby("trial_id", sort=False):
        trace = [Point(*row) for row in points[list(Point._fields)].itertuples(index=False)]
        rows += [(trial_id, e.kind, e.onset, e.detected) for e in replay(trace)]
    events = pd.DataFrame(rows, columns=["trial_id", "kind", "onset", "detected"])
    return dataclasses.replace(study, results=study.results._replace(events=events))


def probe_seconds(study: Study) -> float:
    """Return the seconds that probes took: from the read at the same update to the probe's end."""
    points = study.results.points[study.results.points["discriminator_updates"] > 0]
    keys = ["trial_id", "discriminator_updates"]
    ends = points[points["name"] == PROBE_SCORE].set_index(keys)["wall_seconds"]
    reads = points.groupby(keys)["wall_seconds"].min()
    return float((ends - reads[ends.index]).sum())


def line(found: Saving, data: Savings) -> str:
    """Return one row of the table."""
    worse = ", ".join(
        f"{arm} {data.best[arm]:.4g} to {found.best[arm]:.4g}" for arm in found.worse
    )
    return (
        f"| {found.rule} | {found.stopped} | {found.lost} | {found.wrongly} "
        f"| {duration(found.seconds)} | {interval(found.share, share=True)} "
        f"| {interval(found.share_of_savable, share=True)} | {worse or 'none'} "
        f"| {', '.join(found.discarded) or 'none'} | {found.tau:.2f} |"
    )


def table(study: Study) -> None:
    """Print every rule, and the goals of the two that are offered."""
    runs, data = recorded_runs(study), savings_data(study)
    if data is None:
        sys.exit("no trial of this study ran to its end with two evaluations")
    print(f"{data.n} trials, {duration(data.seconds)} in all ({data.left_out} left out); "
          f"probes took {probe_seconds(study) / data.seconds:.1%}")  # fmt: skip
    print(f"{data.lost} never recover; {duration(data.savable)} "
          f"({data.savable / data.seconds:.0%}) could have been saved")  # fmt: skip
    print("| rule | stopped | lost | wrongly | saved | of all | of the savable | best worse "
          "| best discarded | tau |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|")
    asha_3 = Scheduler(partial(asha, reduction_factor=3))
    for found in (*data.rules, saving("ASHA, factor 3", asha_3, runs, study.sign)):
        print(line(found, data))
    orders(runs, {**stopping_rules(runs), "ASHA, factor 3": asha_3})
    for name, kinds in ((RECOMMENDED_RULE, RECOMMENDED), (EAGER_RULE, EAGER)):
        narrow = saving("", FirstEvent(kinds), runs, study.sign, little=1 - GAIN)
        print(f"{name}: {interval(narrow.share_of_savable, share=True)} of the savable "
              f"where only trials count as stuck that learned nothing at all")  # fmt: skip
    for found in data.rules[:2]:
        goals(found)


def orders(runs: list[Run], rules: Mapping[str, Rule]) -> None:
    """Print how schedulers fare over orders of the trials, one of which the plan's is."""
    rng = np.random.default_rng(0)
    for name, rule in rules.items():
        if not isinstance(rule, Scheduler):
            continue
        found = []
        for _ in range(ORDERS):
            shuffled = [runs[i] for i in rng.permutation(len(runs))]
            found.append(saving(name, rule, sorted(shuffled, key=lambda run: run.arm), 1))
        low, middle, high = np.quantile([one.share.value for one in found], (0.025, 0.5, 0.975))
        worse = sum(bool(one.worse) for one in found)
        print(f"{name}, {ORDERS} random orders of the trials: {middle:.0%} of all "
              f"({low:.0%} to {high:.0%}); an arm's best worse in {worse}")  # fmt: skip


def goals(found: Saving) -> None:
    """Print which goals are reached."""
    for share, what, goal in (
        (found.share.value, "of all", OF_ALL),
        (found.share_of_savable.value, "of the savable", OF_SAVABLE),
    ):
        said = "reached" if share >= goal else "NOT REACHED"
        print(f"{found.rule}: {share:.0%} {what}, goal {goal:.0%}: {said}")
    said = "NOT REACHED" if found.worse else "reached"
    print(f"{found.rule}: best worse in {len(found.worse)} arms, goal 0: {said}")


def main() -> None:
    """Run the study unless it is there, and print the table."""
    parser = argparse.ArgumentParser(description="What stopping rules would have saved.")
    parser.add_argument("folder", nargs="?", type=Path, metavar="DIR")
    folder = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as runs:
        folder = folder or Path(runs) / "stopping"
        if not (folder / "trials.parquet").exists():
            run(folder)
        table(replayed(Study.load(folder)))


if __name__ == "__main__":
    main()
