"""What a study will run, what it will cost on this machine, and what it can tell."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from analysis.statistics import largest_k_with_interval, seeds_for_difference
from ganstudy.gan.trainer import build_trainer
from ganstudy.study.arm import Arm
from ganstudy.study.outcomes import DEFAULT_CONFIG, describe_failure
from ganstudy.study.plan import Planned
from ganstudy.study.spec import StudySpec

WARM_UP, TIMED = 2, 8
"""Discriminator updates: thrown away, and timed, per arm."""
SHOWN = 200
"""Trials of a plan that a person is shown."""
SEED_SPREADS = (0.05, 0.1, 0.2)
"""Standard deviations over seeds, relative to the mean, that tuned GANs show."""


def preview(spec: StudySpec, trials: Sequence[Planned]) -> dict[str, Any]:
    """Return trials, cost and what the design tells, as plain data.

    Args:
        spec: The study.
        trials: Its plan, empty for an adaptive search.
    """
    total = len(trials) or spec.design.configs * len(spec.arms) * len(spec.design.seeds)
    configs = len({t.config_id for t in trials} - {DEFAULT_CONFIG}) or spec.design.configs
    return {
        "study": spec.study,
        "trials_total": total,
        "trials": [{"trial_id": t.trial_id, "params": dict(t.values)} for t in trials],
        "cost": _cost(spec, total),
        "tells": _tells(spec, configs),
    }


def shortened(trials: Sequence[dict[str, Any]]) -> list[dict[str, Any] | None]:
    """Return the first and the last trials of a long plan, with None for those between them."""
    if len(trials) <= SHOWN:
        return list(trials)
    return [*trials[: SHOWN // 2], None, *trials[-SHOWN // 2 :]]


def _cost(spec: StudySpec, trials: int) -> dict[str, Any]:
    """Time a few updates of every arm and extrapolate; evaluation is not in it."""
    seconds = {arm.name: _seconds_per_update(arm, spec.resources.cpu) for arm in spec.arms}
    per_arm = trials / len(spec.arms)
    work = sum(
        per_arm * seconds[arm.name] * arm.train({}, 0).discriminator_updates for arm in spec.arms
    )
    slots = max(1, len(os.sched_getaffinity(0)) // spec.resources.cpu)
    slots = min(slots, spec.resources.max_concurrent or slots)
    minutes = work / slots / 60
    shown = f"{minutes:.0f} min" if minutes >= 2 else f"{60 * minutes:.0f} s"
    return {
        "seconds_per_discriminator_update": seconds,
        "trial_seconds": work,
        "minutes": minutes,
        "text": f"about {shown} of training here, {slots} trials at a time, from "
        f"{TIMED} timed updates of each arm at its defaults; evaluation, and a minute or so "
        f"of start-up, scoring and report, add to it; early ends take from it",
    }


def _seconds_per_update(arm: Arm, threads: int) -> float:
    torch.set_num_threads(threads)
    trainer = build_trainer(arm.train({}, 0))
    trainer.advance(WARM_UP)
    begun = time.perf_counter()
    trainer.advance(TIMED)
    return (time.perf_counter() - begun) / TIMED


def _tells(spec: StudySpec, n: int) -> dict[str, Any]:
    k = largest_k_with_interval(n)
    seeds = {spread: seeds_for_difference(spread) for spread in SEED_SPREADS}
    if spec.replicate is not None:
        budget, k = "best-of-k curves: none, since chosen configs are repeated", 0
    elif spec.stopping is not None:
        budget, k = f"best-of-k curves: none, {spec.stopping.name} leaves trials unfinished", 0
    elif spec.design.sampler != "random":
        budget = f"best-of-k curves: none with an interval, the {spec.design.sampler} sampler "
        budget += "does not draw independently"
        k = 0
    elif k == 0:
        budget = f"best-of-k curves: no interval at any k with {n} configs an arm (12 give k = 2)"
    else:
        budget = f"best-of-k curves: an interval up to k = {k} of {n} configs an arm"
    smallest, units = 2 * 0.5**n, f"{n} paired configs"
    if spec.replicate is not None:  # arms are compared by ranks, over the seeds of one config each
        count = len(spec.design.seeds)
        smallest, units = 2 / math.comb(2 * count, count), f"{count} seeds each"
    arms = len(spec.arms) - len(spec.controls.all)
    pairs = arms * (arms - 1) // 2
    paired = (
        f"two arms on {units}: the smallest possible p is {min(1, smallest):.2g}, "
        f"{min(1, smallest * max(1, pairs)):.2g} after Holm over {pairs} pairs"
    )
    judged = _judged(spec, n, k)
    needs = ", ".join(f"{s:.0%} -> {count}" for s, count in seeds.items())
    seed_text = f"seeds per arm to show a 10 % difference, by the spread over seeds: {needs}"
    return {
        "largest_k_with_interval": k,
        "smallest_p": smallest,
        "seeds_for_10_percent": {str(spread): count for spread, count in seeds.items()},
        "judgement": spec.judged_by,
        "text": [budget, paired, seed_text, judged, *_controls(spec)],
    }


def _controls(spec: StudySpec) -> Iterator[str]:
    """Yield what each control of the study is for."""
    same, broken = spec.controls
    if same is not None:
        yield (
            f"control: {same.copy} is {same.arm} again, with other training seeds; what the study "
            f"tells of these two is noise"
        )
    if broken is not None:
        yield (
            f"control: {broken.copy} is {broken.arm} with its untrained generator sampled; a "
            f"study that does not see it lose would not see anything"
        )


def _judged(spec: StudySpec, n: int, largest: int) -> str:
    """Return how the arms will be judged, and whether that budget has an interval."""
    rule = spec.judgement
    budget = f"at the best of k = {rule.k} of {n} configs, "
    budget += "with an interval" if rule.k <= largest else "which has no interval"
    if spec.replicate is not None:
        budget = "over the seeds of their chosen configs"
    return (
        f"arms are judged {budget}, by the {rule.checkpoint} evaluation's "
        f"{spec.measure.primary}; within {100 * rule.margin:g} % they count as equivalent; a "
        f"trial failed if {describe_failure(rule.failures)}"
    )
