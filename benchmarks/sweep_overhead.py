"""Which share of the quickstart's wall time the cores spend training or evaluating.

    python benchmarks/sweep_overhead.py [STUDY.yaml]

Runs the study by the command line in a fresh folder, with the user's cache of feature networks as
it is, and sets the seconds that trials spent training and evaluating (and that the driver spent
scoring each arm's best generator) against cores x wall seconds. Goal: 0.80.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ganstudy.records import load_results

GOAL = 0.80


def main() -> None:
    """Run, and print where the time went."""
    study = sys.argv[1] if len(sys.argv) > 1 else "studies/quickstart.yaml"
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as runs:
        begun = time.time()
        subprocess.run(
            [sys.executable, "-m", "ganstudy.cli", "run", study, "--runs", runs, "--name", "run"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        ended = time.time()
        folder = Path(runs) / "run"
        trials = load_results(folder).trials
        phases = json.loads((folder / "phases.json").read_text(encoding="utf-8"))
    wall = ended - begun
    whole = cores * wall
    first, last = trials["started_at"].min(), (trials["started_at"] + trials["seconds"]).max()
    train, evaluate = trials["train_seconds"].sum(), trials["evaluate_seconds"].sum()
    # Two threads of one process score the best generators: count the cores that they kept busy.
    judged = phases["reported_cpu_seconds"]
    rest = cores * (last - first) - train - evaluate
    rows = [
        ("training", train),
        ("evaluating in trials", evaluate),
        ("scoring each arm's best generator", judged),
        ("before the first trial: imports, features, Ray", cores * (first - begun)),
        ("between and beside trials: start-up of actors, records, idle cores", rest),
        ("after the last trial: tables, report, MLflow", cores * (ended - last) - judged),
    ]
    print(f"{len(trials)} trials, {wall:.0f} s wall, {cores} cores")
    for what, seconds in rows:
        print(f"{seconds / whole:7.1%}  {seconds:7.1f} core seconds  {what}")
    for name, seconds in sorted(phases.items()):
        print(f"         {seconds:7.1f} s in the driver: {name}")
    share = (train + evaluate + judged) / whole
    print(f"share in training or evaluation: {share:.3f}, goal {GOAL}: "
          f"{'reached' if share >= GOAL else 'MISSED'}")  # fmt: skip


if __name__ == "__main__":
    main()
