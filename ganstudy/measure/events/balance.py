"""The balance of the two networks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from ganstudy.measure.events import names
from ganstudy.measure.events.base import (
    DETECTORS,
    Best,
    Count,
    Detector,
    ProbeWatcher,
    Share,
    Watcher,
)
from ganstudy.records import Event
from ganstudy.registry import component


@DETECTORS.register("discriminator_overpowering")
@component
class DiscriminatorOverpowering(Detector):
    """The discriminator tells held-out real from generated while the score gains nothing.

    Separation alone misleads: it is normal while a generator learns. So both are needed: AUC on
    held-out images, and no gain over the best score so far beyond its standard errors, while the
    score is far from that of real images.
    """

    auc: Annotated[float, Field(gt=0.5, le=1)] = 0.99
    """Held-out AUC from which on the discriminator separates."""
    standard_errors: Annotated[float, Field(ge=0)] = 2.0
    """Gain over the best score so far, in standard errors of the difference, that counts."""
    floors: Annotated[float, Field(ge=1)] = 2.0
    """Score over that of real images up to which there is nothing left to gain."""
    patience: Count = 4
    """Probes running: on labelled runs three were too few to tell a lead from a stall."""

    reads = (names.PROBE,)

    def start(self) -> Watcher:
        return DiscriminatorOverpoweringWatcher(self)


class DiscriminatorOverpoweringWatcher(ProbeWatcher[DiscriminatorOverpowering]):
    """Judges held-out AUC against the gain in score."""

    needs = (names.AUC,)

    def __init__(self, detector: DiscriminatorOverpowering) -> None:
        """Start with nothing seen."""
        super().__init__(detector, detector.patience)
        self._best = Best()

    def judge(self, at: int, values: Mapping[str, float]) -> Event | None:
        gained = self._best.gain(values, self.detector.standard_errors)
        auc, score = values[names.AUC], values[names.SCORE]
        limit = self.detector.floors * self.floor
        evidence = {
            "signal": names.AUC,
            "value": auc,
            "limit": self.detector.auc,
            names.SCORE: score,
            "best_so_far": self._best.value,
            "rule": f"without a gain in score at {self.detector.patience} probes running",
        }
        holds = at > 0 and auc >= self.detector.auc and score > limit and not gained
        severity = 1 - limit / score if holds else 0.0
        return self.episode.update(at, holds, severity, evidence)


@DETECTORS.register("generator_overpowering")
@component
class GeneratorOverpowering(Detector):
    """The discriminator cannot tell generated from real images that are far from alike.

    Short-lived by nature where the discriminator learns on; it lasts where the discriminator is
    too weak, starved or frozen.
    """

    auc: Share = 0.55
    """Held-out AUC up to which the discriminator only guesses."""
    floors: Annotated[float, Field(ge=1)] = 2.0
    """Score over that of real images from which on samples are far from real ones: at the floor
    to guess is all that a discriminator can do."""
    untrained: Share = 0.1
    """Share of the untrained generator's score above which it must be too: where data is simple
    the floor is far below what anyone would call far."""
    patience: Count = 3
    """Probes running."""

    reads = (names.PROBE,)

    def start(self) -> Watcher:
        return GeneratorOverpoweringWatcher(self)


class GeneratorOverpoweringWatcher(ProbeWatcher[GeneratorOverpowering]):
    """Judges held-out AUC against the distance from real images."""

    needs = (names.AUC,)

    def __init__(self, detector: GeneratorOverpowering) -> None:
        """Start with nothing seen."""
        super().__init__(detector, detector.patience)
        # Without a floor nothing is known to be far; without an untrained score the floor decides.
        self.floor, self.untrained = math.inf, 0.0

    def judge(self, at: int, values: Mapping[str, float]) -> Event | None:
        auc, score = values[names.AUC], values[names.SCORE]
        far = self.detector.untrained * self.untrained
        limit = max(self.detector.floors * self.floor, far)
        evidence = {
            "signal": names.AUC,
            "value": auc,
            "limit": self.detector.auc,
            names.SCORE: score,
            names.FLOOR: self.floor,
            "rule": f"with a score above {limit:.4g} at {self.detector.patience} probes running",
        }
        holds = at > 0 and auc <= self.detector.auc and score > limit
        severity = 1 - limit / score if score > 0 else 0.0
        return self.episode.update(at, holds, severity, evidence)
