"""Trains the labelled runs and keeps their traces.

    python -m tests.labelled.make --part choose|publish [--processes N] [--only FAMILY]
                                  [--limit N] [--work DIR]

A run that is done is not trained again. The tables in this folder are written once every run of a
part is there.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from ganstudy.measure.protocol import HELD_OUT_AUC, MeasureConfig, score_name
from ganstudy.records import Point, TrialRecord
from ganstudy.store import TrialFolder
from ganstudy.trial import machine, run_trial
from tests.labelled import traces
from tests.labelled.fates import KINDS, established
from tests.labelled.faults import FaultyTrainer
from tests.labelled.interventions import fork_gains, fresh_auc, learns_later
from tests.labelled.outside import Look, Outside, outside
from tests.labelled.runs import PARTS, Part, Run, runs


class WatchedTrainer(FaultyTrainer):
    """A trainer that is looked at from outside as often as it is probed.

    Attributes:
        looks: The untrained generator's first.
        halfway: The state at half of the budget, for a fork.
    """

    def __init__(self, run: Run, watch: Outside, every: int) -> None:
        """Build the run's trainer and look at it for the first time."""
        super().__init__(run.spec().train, run.fault, watch.modes_of, watch.modes_count)
        self.watch, self.every, self.halfway = watch, every, {}
        self.looks: list[Look] = [watch.look(self)]

    def advance(self, updates: int) -> dict[str, float]:
        before, budget = self.discriminator_updates, self.config.discriminator_updates
        signals = super().advance(updates)
        now = self.discriminator_updates
        if now // self.every > before // self.every:
            self.looks.append(self.watch.look(self))
        if before < budget / 2 <= now:
            self.halfway = copy.deepcopy(self.state_dict())
        return signals


def trained(run: Run, folder: Path) -> tuple[TrialRecord, WatchedTrainer]:
    """Train one run as a trial in `folder`, where feature networks are kept too."""
    spec = run.spec()
    assert spec.measure.probe is not None
    # Apart by part and not only by name: two parts may be trained at once.
    trial = TrialFolder(folder / "trials" / f"{run.part}-{spec.trial_id}")
    shutil.rmtree(trial.folder, ignore_errors=True)
    trainer = WatchedTrainer(run, outside(spec.train.dataset), spec.measure.probe.every)
    record = run_trial(spec, trial, trainer=trainer)
    shutil.rmtree(trial.folder)
    return record, trainer


def kept(points: list[Point], measure: MeasureConfig) -> list[Point]:
    """Return the points that a trace keeps: not the two evaluations at its ends."""
    scores = {score_name(m, measure.features, measure.samples) for m in measure.all_metrics}
    scores |= {f"{name}_se" for name in scores} | {HELD_OUT_AUC}
    return [p for p in points if p.name not in scores]


def told(run: Run, record: TrialRecord, trainer: WatchedTrainer) -> dict[str, Any]:
    """Return the row of one run: what it was, what was seen and what is known."""
    spec, watch, fault = run.spec(), trainer.watch, run.fault
    copies = 0.0 if watch.points else watch.copies(trainer)
    checks = {
        "fork": lambda: fork_gains(trainer, trainer.halfway, watch),
        "fresh": lambda: fresh_auc(trainer),
        "longer": lambda: learns_later(trainer.config, watch),
    }
    checked = {name: checks[name]() for name in run.family.story.checks}
    fates = established(run, trainer.looks, record.points, copies, checked)
    final = watch.look(trainer, final=True)
    return {
        "run": run.name,
        "part": run.part,
        "family": run.family.name,
        "dataset": spec.train.dataset.name,
        "loss": spec.train.loss.name,
        "fault": None if fault is None else fault.name,
        "fault_at": None if fault is None else fault.at,
        "fault_until": None if fault is None else fault.until,
        "fault_size": None if fault is None else float(fault.size),
        "seed": run.seed,
        "budget": spec.train.discriminator_updates,
        "torch": torch.__version__,
        "cpu_capability": machine(spec)["cpu_capability"],
        "untrained_score": trainer.looks[0].score,
        "best_score": min(look.score for look in trainer.looks[1:]),
        "final_score": final.score,
        "final_effective_modes": final.effective_modes,
        "final_lost_modes": len(final.lost),
        "final_joint_modes": watch.joint_modes(trainer),
        "copies": copies,
        **{f"check.{name}": float(value) for name, value in checked.items()},
        **{f"fate.{kind}": fates[kind].value for kind in KINDS},
        **{f"onset.{kind}": fates[kind].onset for kind in KINDS},
    }


def make_one(run: Run, work: Path) -> float:
    """Train one run and leave its trace in `work`, unless it is there; return its seconds."""
    path = work / run.part / f"{run.name}.json"
    if path.exists():
        return 0.0
    torch.set_num_threads(1)
    begun = time.process_time()
    record, trainer = trained(run, work)
    row = told(run, record, trainer)
    seconds = time.process_time() - begun
    points = kept(list(record.points), run.spec().measure)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".aside")
    aside.write_text(json.dumps({"seconds": seconds, "row": row, "points": points}))
    aside.rename(path)
    return seconds


def write(part: Part, work: Path) -> None:
    """Join the traces of all runs of a part into the kept tables."""
    made = [json.loads((work / part / f"{run.name}.json").read_text()) for run in runs(part)]
    columns = list(dict.fromkeys(name for one in made for name in one["row"]))
    rows = [{name: one["row"].get(name) for name in columns} for one in made]
    traces.write(
        part, ((one["row"]["run"], [Point(*p) for p in one["points"]]) for one in made), rows
    )
    counts = {kind: Counter(row[f"fate.{kind}"] for row in rows) for kind in KINDS}
    print(f"{len(rows)} runs, {sum(one['seconds'] for one in made) / 60:.1f} core minutes")
    for kind, count in counts.items():
        print(f"{kind:28} {count[True]:4} true {count[False]:4} false {count[None]:4} unknown")


def main() -> None:
    """Train what is missing, and write the tables if nothing is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=list(PARTS), required=True)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", help="one family")
    parser.add_argument("--limit", type=int, help="so many runs of each family")
    parser.add_argument("--work", type=Path, default=Path("runs/labelled"))
    arguments = parser.parse_args()
    wanted = [
        (run, arguments.work)
        for run in runs(arguments.part)
        if arguments.only in (None, run.family.name)
        and (arguments.limit is None or run.index < arguments.limit)
    ]
    # So that a run that is cut short has made some of every family.
    wanted.sort(key=lambda task: task[0].index / task[0].family.count)
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        for i, (name, seconds) in enumerate(pool.imap_unordered(_make_one, wanted), start=1):
            print(f"{i}/{len(wanted)} {name} {seconds:.1f} s", flush=True)
    if all((arguments.work / r.part / f"{r.name}.json").exists() for r in runs(arguments.part)):
        write(arguments.part, arguments.work)


def _make_one(task: tuple[Run, Path]) -> tuple[str, float]:
    run, work = task
    return run.name, make_one(run, work)


if __name__ == "__main__":
    main()
