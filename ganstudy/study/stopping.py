"""Rules that stop trials before their end by comparing them within their arm: options only.

The rules themselves are Ray Tune's (`sweep/ray_tune/schedulers.py`). They are told the primary
score at every evaluation, and count evaluations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from ganstudy.gan.config import at
from ganstudy.registry import Component, Registry, StudyError, component, only_text_keys

STOPPING: Registry[Stopping] = Registry("stopping rule")


class Stopping(Component):
    """Base of all stopping rules."""

    grace: float

    def first(self, budget: int, every: int) -> int:
        """Return the number of the first evaluation at which a trial may be stopped.

        Args:
            budget: Discriminator updates of a whole trial.
            every: Discriminator updates between two evaluations.
        """
        # A share that falls on an evaluation must not miss it by rounding.
        return max(1, math.ceil(self.grace * budget / every - 1e-9))


Grace = Annotated[float, Field(gt=0, lt=1)]


@STOPPING.register("asha", paper="Li et al. 2018, arXiv:1810.05934")
@component
class Asha(Stopping):
    """Asynchronous successive halving: at each rung only the best of an arm's trials go on.

    Rungs lie at the first evaluation after `grace` and at `reduction_factor` times as many
    evaluations each. At a rung a trial goes on if its score is among the best
    1 / `reduction_factor` of those that reached the rung before it, within its arm; the first
    one always does.

    Elsewhere:
        Ray's default is a first rung at the first report. With GANs that costs arms their best:
        the score of the first tenth of a budget says little of the last.
    """

    grace: Grace = 0.25
    """Share of the budget before the first rung."""
    reduction_factor: Annotated[int, Field(ge=2)] = 4
    """Of the trials that reach a rung one in so many goes on."""


@STOPPING.register("median_stopping", paper="Golovin et al. 2017, Google Vizier")
@component
class MedianStopping(Stopping):
    """A trial is stopped where its best score is worse than the arm's median mean score.

    At every evaluation from `grace` on, the best score of the trial so far is compared with the
    median, over the arm's other trials that came as far, of their mean score up to there.
    """

    grace: Grace = 0.25
    """Share of the budget before the first decision; scores before it enter no mean."""
    fewest: Annotated[int, Field(ge=1)] = 3
    """Other trials with a finite mean without which no trial is stopped."""


def parse_stopping(value: object) -> Stopping | None:
    """Build from what a YAML holds: `asha`, `{asha: {grace: 0.2}}`, or null for none.

    Raises:
        StudyError: With the path of the wrong key, the rule and the nearest right name.
    """
    if value is None:
        return None
    named = {value: {}} if isinstance(value, str) else value
    if not isinstance(named, Mapping) or len(named) != 1:
        listed = ", ".join(STOPPING.names())
        raise StudyError("", f"one of {listed} with its options is needed, got {value!r}")
    [(name, options)] = named.items()
    STOPPING.get(name)
    if not isinstance(options, Mapping):
        rule = f"options are a mapping, {{}} for the defaults, got {options!r}"
        raise StudyError(str(name), rule)
    return at(str(name), _build, name, options)


def _build(name: str, options: Mapping[Any, Any]) -> Stopping:
    return STOPPING.build(name, **only_text_keys(options))
