"""The command line, as a driver whose limits of silence a test arms.

    python -m tests.faults.driver ARMED ARGUMENTS ...

While the file ARMED exists, a silence of one second is too long; otherwise none is. A test makes
the file when a trial is blocked for sure, so that a slow machine's trials are never taken for
blocked ones. The driver deletes it when it ends a trial from outside.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ganstudy import cli
from ganstudy.sweep import ray_tune, watch
from ganstudy.sweep.ray_tune import cluster
from ganstudy.sweep.source import ClusterError
from tests.faults.components import Actor

LIMITS = ("SILENT_SECONDS", "UNMEASURED_SECONDS", "GRACE_SECONDS")


def set_limits(seconds: float) -> None:
    for name in LIMITS:
        setattr(watch, name, seconds)


def follow(armed: Path) -> None:
    while True:
        set_limits(1.0 if armed.exists() else math.inf)
        time.sleep(0.05)


def connect_patiently(address: str | None, connect: Callable[[str | None], None]) -> None:
    """Start Ray, which gives up after 30 s on a busy machine, as often as it takes."""
    while True:
        try:
            return connect(address)
        except ClusterError:
            ray_tune.executor.ray.shutdown()


def main() -> None:
    armed = Path(sys.argv[1])
    sys.argv[1:] = sys.argv[2:]
    look = watch.Watch.look

    def look_and_disarm(self: watch.Watch) -> list[watch.Overdue]:
        if overdue := look(self):
            armed.unlink()
            set_limits(math.inf)
        return overdue

    watch.Watch.look = look_and_disarm
    cluster._connect = partial(connect_patiently, connect=cluster._connect)
    watch.READ_SECONDS = watch.SILENT_GAPS = watch.GRACE_GAPS = 0.0
    set_limits(math.inf)
    threading.Thread(target=follow, args=(armed,), daemon=True).start()
    ray_tune.execute = partial(ray_tune.execute, actor=Actor)
    cli.main()


if __name__ == "__main__":
    main()
