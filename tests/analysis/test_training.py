"""Training curves and samples: which trial is the best, which the median, by which checkpoint."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from analysis import optimism, samples, training
from analysis.tables import Study
from ganstudy.study.outcomes import DEFAULT_CONFIG
from tests.analysis import seeded
from tests.analysis.conftest import SCORE

CURVE = (0.2, 0.9, 0.4)


def with_curves(study: Study, values=CURVE) -> Study:
    ids = study.results.trials["trial_id"]
    points = [
        pd.DataFrame({"trial_id": ids, "name": SCORE, "discriminator_updates": at, "value": value})
        for at, value in zip((0, 50, 100), values, strict=True)
    ]
    vars(study)["primary_points"] = pd.concat(points).sort_values("trial_id", kind="stable")
    return study


@pytest.mark.parametrize(
    ("sign", "checkpoint", "at"), [(1, "best", 0), (-1, "best", 50), (-1, "last", 100)]
)
def test_the_ring_is_round_the_checkpoint_that_ranks(sign, checkpoint, at):
    table = seeded.trials("a", np.array([[0.9], [0.8], [0.7]]))
    judged = {"judgement": {"checkpoint": checkpoint}}
    study = with_curves(seeded.study_of({"a": table}, sign=sign, **judged))
    figures = [part for part in training.section(study).parts if not isinstance(part, str)]
    (ring,) = (t for t in figures[0].plot.data if t.marker.symbol == "circle-open")
    assert list(ring.x) == [at]
    assert f"its {checkpoint} checkpoint ringed" in training.section(study).parts[0]


def test_roles_are_of_all_that_counts_before_any_is_left_out():
    scores = np.append(np.arange(1.0, 81.0), np.full(20, math.inf))[:, None]
    table = seeded.trials("a", scores)
    table.loc[0, "config_id"] = DEFAULT_CONFIG  # the best score of all, and no draw
    study = seeded.study_of({"a": table})
    drawn = training.chosen_trials(study, "a", most=10).set_index("role")["trial_id"]
    assert drawn["best"] == table["trial_id"][1]
    # Of 99 that count the 50th, failures last.
    assert drawn["median"] == table["trial_id"][50]
    assert len(drawn) <= 12
    picks = {pick.why: pick.trial_id for pick in pictured(study)}
    assert (picks["best"], picks["lower median"]) == (drawn["best"], drawn["median"])


def pictured(study: Study) -> list[samples.Pick]:
    trials = study.results.trials
    files = {"samples": "last.png", "samples_best": "best.png"}
    trials = trials.assign(**files, best_at=50, discriminator_updates=100)
    events = study.results.events
    made = dataclasses.replace(study, results=type(study.results).of(trials, events=events))
    return samples.sample_picks(made, "a")


def test_no_median_where_half_failed_or_the_best_is_it():
    half = np.array([[1.0], [2.0], [math.inf], [math.inf], [math.inf]])
    for scores in (half, np.array([[1.0], [2.0]]), np.full((3, 1), math.inf)):
        study = seeded.study_of({"a": seeded.trials("a", scores)})
        assert "median" not in set(training.chosen_trials(study, "a")["role"])


@pytest.mark.parametrize(
    ("checkpoint", "image", "caption"),
    [("best", "best.png", "at 50 updates, fd_small_cnn_1k 1"),
     ("last", "last.png", "at 100 updates, fd_small_cnn_1k 1.5")],
)  # fmt: skip
def test_samples_are_of_the_checkpoint_that_ranked_and_say_its_score(checkpoint, image, caption):
    table = seeded.trials("a", np.array([[1.0], [2.0], [3.0]]))
    study = seeded.study_of({"a": table}, judgement={"checkpoint": checkpoint})
    best = pictured(study)[0]
    assert (best.why, best.image) == ("best", image)
    assert best.caption == f"a-c000-s0 {caption}"


def test_a_checkpoint_gain_is_one_value_a_configuration_and_no_interval_where_adaptive():
    table = seeded.trials("a", np.arange(1.0, 31.0).reshape(10, 3))
    table[f"last.{SCORE}"] = table[f"best.{SCORE}"] * np.tile([1.0, 2.0, 6.0], 10)
    (found,), _ = optimism.checkpoint_choices(with_curves(seeded.study_of({"a": table})))
    assert (found.ratio.value, found.ratio.n) == (2.0, 10)
    assert found.ratio.has_interval
    for sampler in ("tpe", "sobol", "grid"):
        design = {"sampler": sampler, "paired": False}
        study = with_curves(seeded.study_of({"a": table}, design=design))
        (found,), _ = optimism.checkpoint_choices(study)
        assert not found.ratio.has_interval
    again = with_curves(seeded.replicate({"a": table[table["config_id"] == "c000"]}))
    (found,), _ = optimism.checkpoint_choices(again)
    assert found.ratio.n == 3
