"""The quickstart as a newcomer runs it: real digits, real Ray, real MLflow, minutes."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from ganstudy.records import load_results
from tests.conftest import ROOT, ganstudy

ARMS = {"non_saturating", "wgan_clip", "wgan_gp", "hinge_sn"}
SCORE = "fd_small_cnn_1k"


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_quickstart_keeps_its_promises(tmp_path):
    begun = time.monotonic()
    done = subprocess.run(
        ganstudy("run", ROOT / "studies" / "quickstart.yaml", "--runs", tmp_path),
        cwd=tmp_path, capture_output=True, text=True, timeout=1200,
    )  # fmt: skip
    seconds = time.monotonic() - begun
    assert done.returncode == 0, done.stderr
    print(f"quickstart: {seconds:.0f} s")

    folder = tmp_path / "quickstart"
    trials, points, events, reported, *_ = load_results(folder)
    assert trials.groupby("arm").size().to_dict() == dict.fromkeys(ARMS, 4)
    assert set(trials["status"]) <= {"completed", "stopped", "diverged"}
    assert not points.duplicated(["trial_id", "name", "discriminator_updates"]).any()
    # The same design in every arm.
    assert trials.groupby("config_id")["param.generator_optimizer.lr"].nunique().max() == 1

    # Some configurations learn the digits, and some fail.
    untrained = points[(points["name"] == SCORE) & (points["discriminator_updates"] == 0)]
    assert trials[f"best.{SCORE}"].min() < untrained["value"].min() / 10
    assert len(events) > 0
    evidence = [json.loads(text) for text in events["evidence"]]
    assert all(evidence)
    assert (events["onset"] <= events["detected"]).all()

    protocol = json.loads((folder / "protocol.json").read_text())
    facts = protocol["scores"][SCORE]["features_facts"]
    assert facts["accuracy_report"] > 0.9
    assert 0 < protocol["scores"][SCORE]["floor"] < 20

    judged = reported[reported["name"] == "kd_lite0_1k"]
    assert set(judged["arm"]) == ARMS
    assert (judged["value"] > 5 * judged["standard_error"]).all()
    assert not (reported["name"].str.contains("fid")).any()

    # Nothing speaks against the score of a healthy study.
    page = (folder / "report.html").read_text()
    assert "may rank the arms wrongly" not in done.stderr + page

    assert "This study cannot tell its 4 arms apart" in done.stdout
    assert "cannot tell its 4 arms apart" in (folder / "report.html").read_text()
