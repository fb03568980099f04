"""A loss that never returns, and the actor of Ray's whose process knows it.

Only drivers of `tests.faults.driver` and their workers import this module: registered in the
tests' own process, the loss would block every test that runs over all losses.
"""

from __future__ import annotations

import collections
import itertools
import os
import time
from pathlib import Path
from typing import Literal

from torch import Tensor

from ganstudy.gan.losses import LOSSES, NonSaturating
from ganstudy.registry import component
from ganstudy.sweep.ray_tune import TrialActor


@LOSSES.register("blocks", paper="none")
@component
class Blocks(NonSaturating):
    """A loss that never returns. It writes its pid to a file, then makes the file `armed`."""

    how: Literal["sleep", "lock"] = "sleep"
    armed: str = ""

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        Path(f"{self.armed}.{self.how}").write_text(str(os.getpid()))
        Path(self.armed).touch()
        if self.how == "lock":  # a loop in C that keeps Python's lock and hears no signal
            collections.deque(itertools.repeat(0), maxlen=0)
        while True:
            time.sleep(1)


class Actor(TrialActor):
    """Runs trials of the loss `blocks`, too: a worker imports this module with it."""
