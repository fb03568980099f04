"""Exceptions cross processes: Ray pickles what a worker raises, and the driver shows it."""

from __future__ import annotations

import importlib
import inspect
import math
import pickle
import pkgutil

import pytest
from ray import cloudpickle

import analysis
import ganstudy
from ganstudy.records import TrialStatus
from ganstudy.sweep.ray_tune.cluster import NodeCheck
from ganstudy.sweep.ray_tune.executor import portable
from ganstudy.trial import Heartbeat


def exceptions() -> list[type[Exception]]:
    """Return every exception class that the packages define, whichever module it is in."""
    found = {}
    for package in (ganstudy, analysis):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.endswith("__main__"):
                continue
            for name, cls in vars(importlib.import_module(module.name)).items():
                ours = getattr(cls, "__module__", "").split(".")[0] in ("ganstudy", "analysis")
                if ours and inspect.isclass(cls) and issubclass(cls, BaseException):
                    found[f"{cls.__module__}.{name}"] = cls
    return [found[name] for name in sorted(found)]


def built(cls: type[Exception]) -> Exception:
    """Return an exception with a text of its own for every argument that it needs."""
    if "__init__" not in vars(cls):
        return cls("what is wrong")
    names = list(inspect.signature(cls).parameters)
    return cls(*(f"the {name}" for name in names))


@pytest.mark.parametrize("pickler", [pickle, cloudpickle], ids=["pickle", "cloudpickle"])
@pytest.mark.parametrize("cls", exceptions(), ids=lambda cls: cls.__name__)
def test_every_exception_survives_pickling(cls, pickler):
    error = built(cls)
    error.add_note("beside it")
    again = pickler.loads(pickler.dumps(error))
    assert type(again) is cls
    assert str(again) == str(error) != ""
    assert vars(again) == vars(error)


def test_exceptions_are_found():
    assert {"StudyError", "ClusterError", "TableError"} <= {cls.__name__ for cls in exceptions()}


class TwoParts(Exception):
    """An exception as libraries write them: it is pickled, and cannot be unpickled."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}")


def test_a_library_s_exception_reaches_the_driver_with_its_message():
    error = TwoParts("line 3", "no such device")
    with pytest.raises(TypeError):
        pickle.loads(pickle.dumps(error))
    again = pickle.loads(pickle.dumps(portable(error)))
    assert str(again) == "TwoParts: line 3: no such device"
    kept = KeyError("k")
    assert portable(kept) is kept


@pytest.mark.parametrize(
    "crossing",
    [
        Heartbeat("ns-c00-s0", 20, 60, math.inf, TrialStatus.STOPPED, "time_limit", 1.5),
        NodeCheck("node", {"torch": "2"}, True),
    ],
)
def test_what_a_worker_returns_survives_pickling(crossing):
    again = pickle.loads(pickle.dumps(crossing))
    assert again == crossing
    assert type(again) is type(crossing)
