"""How a study's arms will be judged, fixed before its first trial.

Whoever chooses budget, margin and what counts as a failure after seeing the scores can have any
result; so the choice stands in the YAML, and its hash with its time in `provenance.json`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import pydantic
from pydantic import AfterValidator, Field

from ganstudy.measure.events import EventsConfig
from ganstudy.records import RECOVERY, judgement_hash
from ganstudy.registry import STRICT, StudyError, only_text_keys, translate, unknown


def _distinct(kinds: list[str]) -> list[str]:
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"name a kind once: {kinds}")
    return kinds


class Judgement(pydantic.BaseModel):
    """The budget, the margin and the rules by which arms are compared."""

    model_config = STRICT | {"frozen": True}

    k: Annotated[int, Field(ge=1)] = 1
    """Configurations of budget at which arms are compared: the best of k of each; unless given,
    the largest k whose median best of k has a two-sided interval in this design, at least 1."""
    margin: Annotated[float, Field(gt=0)] = 0.1
    """Relative difference below which two arms count as equivalent."""
    checkpoint: Literal["best", "last"] = "best"
    """The evaluation a trial is scored by: its best one, or the last, where a failure is +inf."""
    failures: Annotated[list[str], AfterValidator(_distinct)] = []
    """Kinds of event that make a trial a failure if they last at the end of training; trials that
    diverged or were stopped always are."""


def largest_k(n: int) -> int:
    """Return the largest k at which the median best of k of n scores has a 95 % interval.

    The lower end of the interval of the quantile p = 1 - 2^(-1/k) exists while
    (1 - p)^n = 2^(-n/k) <= 0.025; the upper end then does too. 0 if there is none.
    """
    return int(n / math.log2(40))


def parse_judgement(
    value: object, events: EventsConfig, n: int | None, *, independent: bool
) -> Judgement:
    """Read what a study writes under `judgement`, k filled in.

    Args:
        value: A mapping; None for all defaults.
        events: What the study watches for.
        n: Configurations per arm; None of a grid, whose arms have as many as they have products.
        independent: Whether they are drawn independently and all run to their end, without which
            no best of k has an interval.

    Raises:
        StudyError: With the path of the wrong key, the rule and the nearest right name.
    """
    if not isinstance(value, Mapping | None):
        raise StudyError("", f"must be {{k: 3, margin: 0.1}}, got {value!r}")
    default = max(1, largest_k(n)) if independent and n is not None else 1
    written = only_text_keys(value or {})
    try:
        judgement = Judgement(**{"k": default, **written})
    except pydantic.ValidationError as error:
        raise translate(error, "key", Judgement.model_fields) from None
    if n is not None and judgement.k > n:
        raise StudyError("k", f"is {judgement.k}, an arm has {n} configs to take the best of")
    watched = [d.name for d in events.detectors if d.name != RECOVERY]
    for kind in judgement.failures:
        if kind not in watched:
            raise StudyError("failures", unknown("failure that is watched for", kind, watched))
    return judgement


def fixed(rule: Mapping[str, Any], configs: int | None, seeds: int) -> dict[str, Any]:
    """Return what provenance.json tells of the judgement: when it was fixed, and as what.

    Args:
        rule: Primary score, its direction and all of `Judgement`.
        configs: Configurations per arm, which may be extended later.
        seeds: Seeds per configuration, likewise.
    """
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    design = {"configs": configs, "seeds": seeds}
    return {"fixed_at": now, "hash": judgement_hash(rule), "rule": dict(rule), **design}


def rejudged(origin: Mapping[str, Any], rule: Mapping[str, Any]) -> list[str]:
    """Return in words what of the rule is no longer as it was last fixed.

    Args:
        origin: What provenance.json holds; of a study from before there were such rules nothing
            can have changed.
        rule: As it is now.
    """
    if "judgement" not in origin:
        return []
    latest = [origin["judgement"], *origin["judgement"].get("changed", [])][-1]
    if latest["hash"] == judgement_hash(rule):
        return []
    old = latest["rule"]
    return [f"judgement.{key} {old.get(key)} -> {new}" for key, new in rule.items()
            if old.get(key) != new]  # fmt: skip
