"""Failures as data: what each kind is, and the detectors that tell of it."""

from ganstudy.measure.events import balance, gradients, modes, quality
from ganstudy.measure.events.base import DETECTORS, Detector, EventLog, Watcher, replay
from ganstudy.measure.events.config import EventsConfig

WORTHLESS = ("mode_collapse", "memorization")
"""Kinds whose score may be good nevertheless: while one lasts, a search takes it for nothing."""

__all__ = [
    "DETECTORS",
    "WORTHLESS",
    "Detector",
    "EventLog",
    "EventsConfig",
    "Watcher",
    "balance",
    "gradients",
    "modes",
    "quality",
    "replay",
]
