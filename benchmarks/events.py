"""How often the detectors are right, on short real runs whose fate is known from outside.

    python benchmarks/events.py [--part publish|choose] [--set KIND.OPTION=VALUE]... [--wrong]
    python benchmarks/events.py --part long           # false alarms by length of the run
    python benchmarks/events.py --part PART --keep    # the list that tests compare with

Replays the kept traces of tests/labelled through the detectors: seconds, nothing is trained. Each
run counts once for each kind, by the first event of that kind; one that comes before the planted
failure is a false alarm, and the failure is missed. Where a kind's truth is not known for a run,
the run is left out of that kind's figures. Bounds are one-sided, 95 %, Clopper and Pearson. Goals:
precision 0.95 and recall 0.90 for divergence, mode_collapse, vanishing_gradient and quality_drop,
0.85 and 0.80 for the rest, fewer than 1 in 50 healthy runs with any false alarm. A goal is reached
if the bound reaches it.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from ganstudy.measure.events import EventsConfig  # noqa: E402
from ganstudy.registry import StudyError  # noqa: E402
from tests.labelled import traces  # noqa: E402
from tests.labelled.scoring import (  # noqa: E402
    Decision,
    Replayed,
    Share,
    Tally,
    false_alarms,
    replayed,
    tallies,
)

STRICT = ("divergence", "mode_collapse", "vanishing_gradient", "quality_drop")
GOALS = {True: (0.95, 0.90), False: (0.85, 0.80)}
"""Precision and recall, of the strict kinds and of the rest."""
ALARMS = 1 / 50
WRONG = (Decision.MISSED, Decision.FALSE, Decision.EARLY)


def options(given: list[str]) -> dict[str, Any]:
    """Return `kind.option=value` texts as the options of detectors."""
    found: dict[str, Any] = defaultdict(dict)
    for text in given:
        key, _, value = text.partition("=")
        kind, _, option = key.partition(".")
        if not option or not value:
            raise StudyError("--set", f"must be KIND.OPTION=VALUE, got {text!r}")
        found[kind][option] = json.loads(value)
    return dict(found)


def judged(share: Share, goal: float) -> str:
    """Return a share with its lower bound, and whether that reaches the goal."""
    verdict = "reached" if share.lower >= goal else "NOT reached"
    return f"{share.count:4}/{share.of:<4} {share.value:5.3f} [{share.lower:5.3f} {verdict:11}]"


def quartiles(values: list[int]) -> str:
    """Return the median and the quartiles."""
    if not values:
        return "-"
    low, middle, high = np.percentile(values, (25, 50, 75))
    return f"{middle:g} ({low:g} to {high:g})"


def print_kind(kind: str, tally: Tally) -> None:
    """Print the line of one kind."""
    precision, recall = GOALS[kind in STRICT]
    updates, probes = ([d[i] for d in tally.delays] for i in (0, 1))
    print(
        f"{kind:27}{tally.positives:4}{tally.count(Decision.UNKNOWN):5}  "
        f"{judged(tally.precision, precision)}  {judged(tally.recall, recall)}  "
        f"{quartiles(updates):22} {quartiles(probes)}"
    )


def print_alarms(runs: list[Replayed]) -> None:
    """Print how many healthy runs were called ill, and by which kinds."""
    told = false_alarms(runs)
    share = Share(sum(bool(kinds) for _, kinds in told), len(told))
    verdict = "reached" if share.upper < ALARMS else "NOT reached"
    by_kind = Counter(kind for _, kinds in told for kind in kinds)
    where = ", ".join(f"{kind} {count}" for kind, count in by_kind.most_common()) or "none"
    print(
        f"\nhealthy runs with a false alarm: {share.count}/{share.of} = {share.value:.3f}, "
        f"at most {share.upper:.3f}; goal below {ALARMS:.3f}: {verdict}\n  by kind: {where}"
    )
    unknown = false_alarms(runs, lambda fate: fate is None)
    beside = Counter(kind for _, kinds in unknown for kind in kinds)
    if beside:
        listed = ", ".join(f"{kind} {count}" for kind, count in beside.most_common())
        print(f"  not counted, since the kind's truth is not known there: {listed}")


def print_lengths(runs: list[Replayed]) -> None:
    """Print, for healthy runs of each family, how many have any event and of which kinds.

    An event counts unless its kind is known to have befallen the run.
    """
    print(f"{'family':22}{'updates':>8}{'runs':>6}{'healthy':>9}{'with an event':>15}   kinds")
    for family in dict.fromkeys(run.row["family"] for run in runs):
        own = [run for run in runs if run.row["family"] == family]
        alarms = false_alarms(own, lambda fate: fate is not True)
        share = Share(sum(bool(kinds) for _, kinds in alarms), len(alarms))
        by_kind = Counter(kind for _, kinds in alarms for kind in kinds)
        kinds = ", ".join(f"{kind} {count}" for kind, count in by_kind.most_common()) or "none"
        print(
            f"{family:22}{own[0].row['budget']:8}{len(own):6}{share.of:9}"
            f"{share.count:6} [{share.upper:.3f}]   {kinds}"
        )


def keep_alarms(runs: list[Replayed]) -> None:
    """Write the alarms of the long healthy runs, with which a test compares."""
    with (traces.FOLDER / "long_wrong.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(
            (kind, row["run"])
            for row, kinds in false_alarms(runs, lambda fate: fate is not True)
            for kind in kinds
        )


def print_wrong(found: dict[str, Tally]) -> None:
    """List the runs that were missed or falsely called."""
    for kind, tally in found.items():
        for row, call in tally.calls:
            if call.decision in WRONG:
                fault = f"{row['fault']} {row['fault_size']} at {row['fault_at']}"
                print(
                    f"{kind:27}{call.decision:17}{row['run']:22}{row['dataset']:9}"
                    f"{row['loss']:21}{fault if row['fault'] else ''}"
                )


def keep_wrong(part: str, found: dict[str, Tally]) -> None:
    """Write the list of what was got wrong, which a test holds the detectors to."""
    with (traces.FOLDER / f"{part}_wrong.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(
            (kind, row["run"], str(call.decision))
            for kind, tally in found.items()
            for row, call in tally.calls
            if call.decision in WRONG
        )


def main() -> None:
    """Replay a part and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("choose", "publish", "long"), default="publish")
    parser.add_argument("--set", action="append", default=[], metavar="KIND.OPTION=VALUE")
    parser.add_argument("--wrong", action="store_true", help="list the runs that were got wrong")
    parser.add_argument("--keep", action="store_true", help="keep that list for the tests")
    arguments = parser.parse_args()
    begun = time.monotonic()
    config = EventsConfig.from_dict({"detectors": options(arguments.set)})
    rows = traces.read_fates(arguments.part)
    runs = list(replayed(rows, traces.read_traces(arguments.part), config.detectors))
    points = sum(len(run.points) for run in runs)
    print(f"{len(runs)} runs of the part {arguments.part}, {points:,} points")
    if arguments.part == "long":
        print_lengths(runs)
        if arguments.keep:
            keep_alarms(runs)
        return
    print_faults(runs, arguments)
    print(f"\n{time.monotonic() - begun:.0f} s", file=sys.stderr)


def print_faults(runs: list[Replayed], arguments: argparse.Namespace) -> None:
    """Print precision, recall and delays of each kind, and the false alarms of healthy runs."""
    found = tallies(runs)
    print(
        f"{'':27}{'':4}{'not':>5}  {'precision':34}{'recall':34}delay: median (quartiles)\n"
        f"{'kind':27}{'true':>4}{'known':>5}  {'':4} of   share [bound]{'':18}"
        f"of   share [bound]{'':17}in updates{'':13}in probes"
    )
    for kind, tally in found.items():
        print_kind(kind, tally)
    print_alarms(runs)
    if arguments.keep:
        keep_wrong(arguments.part, found)
    if arguments.wrong:
        print()
        print_wrong(found)


if __name__ == "__main__":
    main()
