"""A synthetic study, written as the driver would write it: known scores, no training."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from PIL import Image
from ruamel.yaml import YAML

from ganstudy.records import Event, Point, TrialRecord, TrialResult, TrialStatus
from ganstudy.store import StudyFolder
from tests.conftest import seal

SCORE = "fd_small_cnn_1k"
SPACE = {"generator_optimizer.lr": {"uniform": [0, 1]}}


@pytest.fixture
def synthetic(tmp_path: Path) -> Callable[..., Path]:
    """Write a study of arm -> scores by config (inf: diverged), and return its folder, `at`."""
    return writer(tmp_path)


def writer(place: Path) -> Callable[..., Path]:
    """Return what writes synthetic studies into `place`."""

    def write(arms: Mapping[str, list[float]], /, at: str = "study", **settings: object) -> Path:
        folder = StudyFolder(place / at)
        folder.create()
        resolved = {
            "study": "synthetic",
            "question": "Is <b>it</b> escaped?",
            "source": "made up",
            "arms": {arm: {"space": SPACE} for arm in arms},
            "design": {"sampler": "random", "paired": True},
        } | settings  # fmt: skip
        with (folder.folder / "study.yaml").open("w") as file:
            YAML().dump(resolved, file)
        seal(folder.folder / "study.yaml")
        folder.write_json("provenance.json", PROVENANCE)
        score = {"metric": {"name": "frechet_distance"}, "direction": "minimize", "floor": 2.0}
        score |= {"features": {"name": "small_cnn"}, "features_hash": "abc", "dimension": 64}
        score |= {"features_facts": {}, "n_generated": 1000, "n_real": 1000, "split": "select"}
        folder.write_json(
            "protocol.json", {"primary": SCORE, "minimize": True, "scores": {SCORE: score}}
        )
        plan = []
        for arm, scores in arms.items():
            for i, value in enumerate(scores):
                plan.append(_trial(folder, arm, i, value))
        folder.write_plan(plan)
        folder.compact()
        return folder.folder

    return write


PROVENANCE = {
    "command": "ganstudy run <script>alert(1)</script>", "commit": "abc", "code_hash": "def",
    "ganstudy": "0.1.0", "python": "3.11", "packages": {"torch": "2.13"}, "processor": "p",
    "cores": 2, "platform": "Linux", "node": "n",
}  # fmt: skip


def _trial(folder: StudyFolder, arm: str, config: int, value: float) -> dict:
    trial_id = f"{arm}-c{config:02d}-s0"
    points = []
    for at, share in ((0, 4.0), (50, 2.0), (100, 1.0)):
        broken = math.isinf(value) and at > 0
        points.append(
            Point(SCORE, at, at, 64 * at, at / 10, math.nan if broken else value * share)
        )
    if math.isinf(value):
        points[0] = points[0]._replace(value=400.0)
    status = TrialStatus.DIVERGED if math.isinf(value) else TrialStatus.COMPLETED
    events = []
    if math.isinf(value):
        events.append(Event("divergence", 50, 50, 1.0, {"signal": "generator_loss"}))
    result = TrialResult(
        status, "", 100, 100, 6400, 1e9, 10.0, 8.0, 1.0, None if math.isinf(value) else 100
    )
    png = io.BytesIO()
    Image.new("L", (64, 64), 100).save(png, "PNG")
    files = {"samples": "last.png", "samples_best": "best.png"}
    folder.trial(trial_id).new_attempt().save(
        TrialRecord(result, points, events, files),
        {name: lambda path: path.write_bytes(png.getvalue()) for name in files.values()},
    )
    identity = {"study": "synthetic", "arm": arm, "trial_id": trial_id, "result_hash": trial_id}
    identity |= {"config_id": f"c{config:02d}", "seed": 0}
    return identity | {"params": {"generator_optimizer.lr": 0.1 * (config + 1)}}
