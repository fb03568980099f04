"""What watching for failures costs a trial: reading signals, probing, detecting.

    python benchmarks/signals.py [--rounds N]

Signals: the same trainer (a DCGAN of width 16 on 28x28 digits) in windows of 25 discriminator
updates with one read each, against the same updates without any read; both on one thread, in
turns within one run, the ratio is the median over rounds. Probes: 500 samples with everything
that a probe tells, against the updates between two of them, at a budget of 700 and of 3,000.
Detectors: all kinds over all points of a trial of 700 updates, against its training.
Goals: reading signals under 2 % of training time, detectors under 0.1 %.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from ganstudy.gan.trainer import GanTrainer
from ganstudy.measure.events import replay
from ganstudy.store import TrialFolder
from ganstudy.study.checks import load_study
from ganstudy.study.plan import plan
from ganstudy.trial import READ_EVERY, TrialRun, TrialSpec, run_trial

SIGNALS_GOAL, DETECTORS_GOAL = 0.02, 0.001
STUDY = Path(__file__).parent.parent / "studies" / "quickstart.yaml"
BUDGETS = (700, 3000)
PROBES = 20
WINDOWS = 3


class Unread(GanTrainer):
    """Ours, but no update is a read."""

    def _update(self, end: int) -> None:
        super()._update(end + 10**9)


def seconds(call: Callable[[], object]) -> float:
    """Return how much processor time `call` takes: other processes do not count."""
    begun = time.process_time()
    call()
    return time.process_time() - begun


def windows(trainer: GanTrainer) -> None:
    """Train over some windows between reads."""
    for _ in range(WINDOWS):
        trainer.advance(READ_EVERY)


def quartiles(values: list[float]) -> str:
    """Return the median with its quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.4f} (quartiles {low:.4f} to {high:.4f}, n = {len(values)})"


def verdict(value: float, goal: float) -> str:
    """Return whether `value` reached its goal."""
    return f"goal {goal}: {'reached' if value < goal else 'not reached'}"


def signals(trial: TrialSpec, rounds: int) -> None:
    """Print the share of training time that reading signals takes."""
    read, unread = GanTrainer(trial.train), Unread(trial.train)
    for trainer in (read, unread):
        trainer.advance(READ_EVERY)
    ratios = []
    for number in range(rounds):
        # Whichever comes first in a round is slower by chance as often.
        pair = [(read, "read"), (unread, "unread")][:: 1 if number % 2 else -1]
        taken = {name: seconds(lambda t=t: windows(t)) for t, name in pair}  # type: ignore[misc]
        ratios.append(taken["read"] / taken["unread"] - 1)
    middle = statistics.median(ratios)
    print(f"reading signals / training {quartiles(ratios)}, {verdict(middle, SIGNALS_GOAL)}")


def probes(trial: TrialSpec, folder: Path, rounds: int) -> None:
    """Print the share of training time that probes take."""
    run = TrialRun(trial, TrialFolder(folder / "a").new_attempt(), None, GanTrainer(trial.train))
    run.step()
    ratios = [
        seconds(run._probed) / seconds(lambda: run.trainer.advance(READ_EVERY))
        for _ in range(rounds)
    ]
    for budget in BUDGETS:
        share = [ratio * READ_EVERY / (budget / PROBES) for ratio in ratios]
        print(f"probing / training at a budget of {budget} updates {quartiles(share)}")


def detectors(trial: TrialSpec, folder: Path) -> None:
    """Print the share of training time that detectors take."""
    record = run_trial(trial, TrialFolder(folder / "b"))
    trainer = GanTrainer(trial.train)
    taken = [seconds(lambda: replay(record.points)) for _ in range(5)]
    updates = trial.train.discriminator_updates
    trained = [seconds(lambda: trainer.advance(READ_EVERY)) for _ in range(5)]
    share = statistics.median(taken) / (statistics.median(trained) * updates / READ_EVERY)
    print(
        f"detecting / training {share:.5f} ({len(record.points)} points, "
        f"{statistics.median(taken) * 1000:.0f} ms), {verdict(share, DETECTORS_GOAL)}"
    )


def main() -> None:
    """Time all three."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    threadpool_limits(1, user_api="blas")
    trial = plan(load_study(STUDY, ["events.stop_on=[]"]))[0]
    print(f"{trial.trial_id}: {trial.train.loss.name}, one thread")
    with tempfile.TemporaryDirectory() as folder:
        signals(trial, rounds)
        probes(trial, Path(folder), rounds)
        detectors(trial, Path(folder))


if __name__ == "__main__":
    main()
