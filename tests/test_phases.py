"""The three phases of "Are GANs Created Equal?", with its studies and real processes, in small."""

from __future__ import annotations

import subprocess

import pytest

from ganstudy.records import load_results
from tests.conftest import ROOT, ganstudy

SMALL = [
    "base.dataset=digits",
    "base.architecture.width=4",
    "base.budget.discriminator_updates=30",
    "base.batch_size=16",
    "measure.samples=100",
    "measure.metrics=[kernel_distance]",
    "measure.every.discriminator_updates=15",
]
MODELS = {"minimax", "non_saturating", "least_squares", "wgan", "wgan_gp", "dragan", "began"}
MODELS |= {"vae"}


def run(study: str, runs, *settings: str) -> None:
    sets = [part for setting in settings for part in ("--set", setting)]
    command = ganstudy("run", ROOT / "studies" / study, "--runs", runs, *sets)
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_wide_narrow_and_the_best_over_fresh_seeds(tmp_path):
    run("agce_wide.yaml", tmp_path, *SMALL, "design.configs=2")
    run("agce_narrow.yaml", tmp_path, *SMALL, "design.configs=1")
    wide = load_results(tmp_path / "agce_wide").trials
    assert set(wide["arm"]) == MODELS
    assert set(wide["config_id"]) == {"default", "c00", "c01"}
    run("agce_best.yaml", tmp_path, f"replicate.from={tmp_path}/agce_wide", "replicate.seeds=2")
    best = load_results(tmp_path / "agce_best").trials
    assert set(best["arm"]) == MODELS
    assert {tuple(sorted(seeds)) for _, seeds in best.groupby("arm")["seed"]} == {(1, 2)}
    assert (best.groupby("arm")["config_id"].nunique() == 1).all()
    page = (tmp_path / "agce_best" / "report.html").read_text(encoding="utf-8")
    assert "over seeds" in page
