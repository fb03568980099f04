"""Whether a kind of failure befell a run: yes, no, or not known, by truths from outside.

What a detector reads decides nothing here. Three sources: what was planted, what `outside` saw
while the run trained, and interventions after it. Where none tells, a fate is None, and the run
counts neither for nor against that kind's detector.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from ganstudy.records import Point
from tests.labelled.faults import Fault, Pattern, Rotate
from tests.labelled.outside import Look
from tests.labelled.runs import Check, Run

KINDS = (
    "divergence",
    "mode_collapse",
    "mode_dropping",
    "vanishing_gradient",
    "exploding_gradient",
    "discriminator_overpowering",
    "generator_overpowering",
    "oscillation",
    "quality_drop",
    "no_learning",
    "checkerboard",
    "memorization",
    "recovery",
)
RUNNING = 3
"""Looks in a row at which a condition must hold (the P of the definitions)."""
LONG = 4
"""Looks in a row after which there was a failure even if it has ended."""
COLLAPSED, NEARLY_COLLAPSED = 0.25, 0.33
WORSE, NEARLY_WORSE = 1.5, 1.35
LEARNT = 0.85
"""Best score by half of the budget over the untrained generator's, below which much is learnt."""
HALF = 0.5
"""Best score over the untrained generator's up to which it has come to something."""
TELLS = 0.9
"""Held-out AUC of a fresh discriminator from which on it tells what the run's own should."""
FEW_COPIES = 0.01
STILL = 0.05
"""Step over the median one before, below which a generator stands still."""
JUDGED = ("divergence", "mode_collapse", "mode_dropping", "quality_drop", "no_learning")
"""Kinds that looks decide."""


class Fate(NamedTuple):
    """What is known of one kind in one run."""

    value: bool | None
    onset: int | None = None
    """Discriminator update at which it was planted."""


def judged(looks: Sequence[Look]) -> dict[str, bool | None]:
    """Return the fates that the looks at a run decide; the first look is of the untrained one."""
    finite = all(look.finite for look in looks)
    if not finite:
        return {"divergence": True}
    first, trained = looks[0], looks[1:]
    collapsed = [look.effective_modes <= COLLAPSED for look in trained]
    nearly = [look.effective_modes <= NEARLY_COLLAPSED for look in trained]
    # A bad score of collapsed samples is the collapse's.
    away = [
        look.score > WORSE * first.score and look.effective_modes > NEARLY_COLLAPSED
        for look in trained
    ]
    not_better = [
        look.score > first.score and look.effective_modes > COLLAPSED for look in trained
    ]
    return {
        "divergence": _ending(away, not_better),
        "mode_collapse": _episode(collapsed, nearly),
        "mode_dropping": _learnt(first, trained) and _dropping(trained),
        "quality_drop": _episode(_dropped(trained, WORSE), _dropped(trained, NEARLY_WORSE)),
        "no_learning": _learning(first, trained),
    }


def without_collapse(row: Mapping[str, Any]) -> bool | None:
    """Return a kept run's fate of divergence, where a collapse was counted as one before.

    The looks at kept runs are not kept. So a run that ended collapsed is none for certain only if
    the collapse was planted, in a game that was healthy until then; else nobody knows.
    """
    fate, modes = row["fate.divergence"], row["final_effective_modes"]
    if fate is not True or not math.isfinite(row["final_score"]) or modes > NEARLY_COLLAPSED:
        return fate
    collapsed = row["onset.mode_collapse"] is not None and modes <= COLLAPSED
    return False if collapsed else None


def _learnt(first: Look, trained: Sequence[Look]) -> bool:
    """Whether the generator ever came to something: who has not has no modes to drop."""
    return min(look.score for look in trained) <= HALF * first.score


def ends_well(looks: Sequence[Look]) -> bool:
    """Whether the last generator is one that nobody would complain about."""
    first, last = looks[0], looks[-1]
    return (
        last.finite
        and last.score < 0.25 * first.score
        and last.effective_modes > 0.5
        and not last.lost
    )


def _runs(holds: Sequence[bool]) -> int:
    """Return the length of the longest unbroken row of True."""
    longest = row = 0
    for held in holds:
        row = row + 1 if held else 0
        longest = max(longest, row)
    return longest


def _after_first_good(holds: Sequence[bool]) -> Sequence[bool]:
    """Return what follows the first False: what a run has not learnt yet it has not lost."""
    return holds[holds.index(False) :] if False in holds else holds


def _ending(sure: Sequence[bool], perhaps: Sequence[bool]) -> bool | None:
    """Return whether a condition holds to the end; None where it is not clear."""
    if all(sure[-RUNNING:]):
        return True
    clear = _runs(_after_first_good(perhaps)) < RUNNING and False in perhaps
    return False if clear else None


def _episode(sure: Sequence[bool], perhaps: Sequence[bool]) -> bool | None:
    """Return whether a condition holds to the end, or held for long after it once did not."""
    lasted = False in sure and _runs(_after_first_good(sure)) >= LONG
    return True if lasted else _ending(sure, perhaps)


def _dropping(trained: Sequence[Look]) -> bool | None:
    """Return whether the same mode is lost to the end while most of the data is not."""
    last = trained[-RUNNING:]
    most = all(look.effective_modes > COLLAPSED for look in last)
    if frozenset.intersection(*(look.lost for look in last)):
        return True if most else None
    begun = next((i for i, look in enumerate(trained) if not look.lost), None)
    if begun is None:
        return None
    later = trained[begun:]
    windows = zip(*(later[i:] for i in range(RUNNING)), strict=False)
    again = any(frozenset.intersection(*(look.lost for look in window)) for window in windows)
    return None if again else False


def _dropped(trained: Sequence[Look], times: float) -> list[bool]:
    """Return at which looks the score was so many times its best before, and surely worse."""
    best, dropped = trained[0], []
    for look in trained:
        noise = 3 * math.hypot(look.error, best.error)
        dropped.append(look.score >= max(times * best.score, best.score + noise))
        best = min(best, look, key=lambda seen: seen.score)
    return dropped


def _learning(first: Look, trained: Sequence[Look]) -> bool | None:
    """Return False where much is learnt by half of the budget, else None: a longer run says."""
    half = [look.score for look in trained if look.update <= trained[-1].update / 2]
    return False if min(half) < LEARNT * first.score else None


def recovered(looks: Sequence[Look], at: int, until: int) -> bool | None:
    """Return whether the score came back to its best before a planted failure; None if nearly."""
    before = [look.score for look in looks[1:] if look.update < at]
    after = [look.score for look in looks if look.update >= until][-RUNNING:]
    if not before or not all(map(math.isfinite, after)):
        return None
    times = median(after) / min(before)
    if times <= 1.2:
        return True
    return None if times < WORSE else False


def established(
    run: Run,
    looks: Sequence[Look],
    points: Sequence[Point],
    copies: float,
    checked: Mapping[Check, Any],
) -> dict[str, Fate]:
    """Return what is known of every kind in a run.

    Args:
        run: What was played and planted.
        looks: From outside, the untrained generator's first.
        points: What was recorded; of them only how far the generator stepped is looked at.
        copies: Share of the last samples that are training images.
        checked: What interventions found, by their names.
    """
    known: dict[str, bool | None] = dict.fromkeys(KINDS) | judged(looks)
    well = ends_well(looks) and not any(known[kind] for kind in JUDGED)
    known |= _of_the_game(run, well) | _of_images(run, copies)
    if "fork" in checked:
        known["discriminator_overpowering"] = checked["fork"]
    if "fresh" in checked:
        known["generator_overpowering"] = False if checked["fresh"] < TELLS else None
    if known["no_learning"] is None and "longer" in checked:
        known["no_learning"] = not checked["longer"]
    known |= dict.fromkeys(run.family.story.false, False)
    planted = _planted(run, looks, known, checked)
    if "vanishing_gradient" in planted:
        assert run.fault is not None
        planted["vanishing_gradient"] = True if stands_still(points, run.fault) else None
    onset = None if run.fault is None else run.fault.at
    found = {kind: Fate(value) for kind, value in (known | planted).items()}
    return found | {k: Fate(v, onset) for k, v in planted.items() if v}


def _of_the_game(run: Run, well: bool) -> dict[str, bool | None]:
    """Return what the rules of the game decide, and a good end."""
    steady = run.game.steady and not run.faulty_networks
    undisturbed = run.fault is None and well
    return {
        "vanishing_gradient": False if steady else None,
        "exploding_gradient": False if steady else None,
        "oscillation": False if steady and not isinstance(run.fault, Rotate) else None,
        # What is sampled is not what the discriminator was trained on where samples are spoilt.
        "discriminator_overpowering": False if undisturbed else None,
        "recovery": False if undisturbed else None,
    }


def _of_images(run: Run, copies: float) -> dict[str, bool | None]:
    """Return what the images themselves decide."""
    # Kernels of 4 at stride 2 overlap evenly, and other networks have none.
    even = not run.faulty_networks or run.game.settings["architecture"]["name"] == "mlp"
    return {
        "checkerboard": False if even and not isinstance(run.fault, Pattern) else None,
        "memorization": False if copies < FEW_COPIES else None,
    }


def _planted(
    run: Run,
    looks: Sequence[Look],
    known: Mapping[str, bool | None],
    checked: Mapping[Check, Any],
) -> dict[str, bool | None]:
    """Return what the planted fault decides; where it does not work as it should, nothing."""
    fault = run.fault
    planted: dict[str, bool | None] = dict.fromkeys(run.family.story.true, True)
    if "generator_overpowering" in planted:
        planted["generator_overpowering"] = True if checked["fresh"] >= TELLS else None
    if "discriminator_overpowering" in planted:
        planted["discriminator_overpowering"] = checked["fork"]
    if "no_learning" in planted and known["no_learning"] is False:
        planted["no_learning"] = None
    if fault is None:
        return planted
    if fault.until is None:
        return {"recovery": False} | planted
    failed = any(planted.values()) or any(known[kind] for kind in JUDGED)
    back = recovered(looks, fault.at, fault.until) if failed else False
    return planted | {"recovery": back}


def stands_still(points: Sequence[Point], fault: Fault) -> bool:
    """Return whether the generator steps far less since the fault than before it.

    Its step over its weights, which no detector reads, by gradient descent: Adam divides the sizes
    of gradients out. Where it hardly stepped before either, the discriminator had won by itself:
    an event of that time counts as an early alarm.
    """
    steps = [p for p in points if p.name == "update_ratio"]
    before = [p.value for p in steps if p.discriminator_updates <= fault.at]
    after = [p.value for p in steps if p.discriminator_updates > fault.at]
    usual = median(before)
    return _runs([value < STILL * usual for value in after]) >= RUNNING
