"""Which failures a study watches for, and which of them stop a trial."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ganstudy.gan.config import at
from ganstudy.measure.events.base import DETECTORS, Detector
from ganstudy.records import RECOVERY
from ganstudy.registry import StudyError, only_text_keys, unknown

RETIRED: dict[str, dict[str, Any]] = {
    "oscillation": {"standard_errors": 3.0, "trough": 0.1, "probes": 20}
}
"""Options that no longer exist, with the defaults that older studies' folders hold."""


def _detector(kind: str, options: object) -> Detector:
    if not isinstance(options, Mapping):
        raise StudyError("", f"options are a mapping, null to remove, got {options!r}")
    retired = RETIRED.get(kind, {})
    named = only_text_keys(options)
    kept = {k: v for k, v in named.items() if k not in retired or v != retired[k]}
    return DETECTORS.build(kind, **kept)


@dataclass(frozen=True)
class EventsConfig:
    """Which detectors watch, and which kinds of event stop a trial."""

    detectors: tuple[Detector, ...]
    stop_on: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EventsConfig:
        """Build from what a YAML holds: every detector watches unless it is set to null."""
        known = {"stop_on", "detectors"}
        for key in data:
            if key not in known:
                raise StudyError(str(key), unknown("key", key, known))
        chosen = data.get("detectors", {})
        if not isinstance(chosen, Mapping):
            raise StudyError("detectors", f"a mapping kind -> options is needed, got {chosen!r}")
        for kind in chosen:
            at("detectors", DETECTORS.get, kind)
        detectors = tuple(
            at(
                f"detectors.{kind}",
                _detector,
                kind,
                chosen.get(kind, {}),
            )
            for kind in DETECTORS.names()
            if chosen.get(kind, {}) is not None
        )
        stop_on = data.get("stop_on", [])
        if not isinstance(stop_on, list):
            raise StudyError("stop_on", f"a list of event kinds is needed, got {stop_on!r}")
        watching = [d.name for d in detectors]
        for kind in stop_on:
            if kind not in watching:
                raise StudyError("stop_on", unknown("event that is watched for", kind, watching))
        if RECOVERY in stop_on:
            rule = f"{RECOVERY} is no failure: a trial that came back is not to be stopped for it"
            raise StudyError("stop_on", rule)
        return cls(detectors, tuple(stop_on))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data from which `from_dict` builds an equal config."""
        parts = [d.to_dict() for d in self.detectors]
        options: dict[str, Any] = {p.pop("name"): p for p in parts}
        removed = {kind: None for kind in DETECTORS.names() if kind not in options}
        return {"detectors": options | removed, "stop_on": list(self.stop_on)}

    @functools.cached_property
    def as_json(self) -> str:
        """What `to_dict` gives, as text: made once for all trials of a study."""
        return json.dumps(self.to_dict(), sort_keys=True)
