"""Each rule of the score's warning fires on what it is for, and on nothing a healthy study has."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from ganstudy.store import StudyFolder
from ganstudy.study.checks import load_study, score_facts
from ganstudy.study.score_validity import (
    LEAST_ODDS_RATIO,
    Measured,
    ScoreFacts,
    find_doubts,
    odds_ratio,
    recorded_facts,
    warning_text,
)
from ganstudy.sweep.driver import prepare
from tests.conftest import ROOT

SHAPES = {
    "accuracy": 0.73, "low": 0.67, "high": 0.79, "n": 240, "chance": 0.35, "classes": 3,
    "n_train": 360,
}  # fmt: skip
"""Three classes of shapes, as small_cnn reads them after 30 updates."""
HEALTHY = ScoreFacts(
    name="fd_small_cnn_1k",
    network="small_cnn",
    held_out={
        "accuracy": 0.97, "low": 0.96, "high": 0.98, "n": 2000, "chance": 0.12, "classes": 10,
        "n_train": 3000,
    },
    classes=10,
    n=1000,
    dimension=64,
    n_needed=320,
    floor=Measured(5.2, 0.3),
    arms={
        "non_saturating": Measured(79.67, 4.6),
        "wgan_clip": Measured(338.9, 2.9),
        "wgan_gp": Measured(86.61, 2.9),
        "hinge_sn": Measured(99.8, 3.5),
    },
    judge="kd_lite0_1k",
    judged={
        "non_saturating": Measured(5.167, 0.16),
        "wgan_clip": Measured(8.117, 0.3),
        "wgan_gp": Measured(3.496, 0.13),
        "hinge_sn": Measured(4.714, 0.17),
    },
    sight={"classes missing": 1.0, "blur": 1.0, "noise": 0.99},
    agreement={"kd_lite0": (0.5, 16)},
)  # fmt: skip
"""What one run of the quickstart recorded, and `ganstudy sanity` on it."""


def keys(**changes: object) -> list[str]:
    return [finding.key for finding in find_doubts(replace(HEALTHY, **changes))]


def test_a_healthy_study_has_no_finding():
    assert find_doubts(HEALTHY) == []
    assert warning_text("fd", []) == ""
    assert find_doubts(ScoreFacts(name="best.fid")) == []


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"held_out": SHAPES, "classes": 3}, "weak_features"),
        ({"held_out": SHAPES | {"low": 0.34}, "classes": 3}, "weak_features"),
        ({"classes": 1}, "one_class"),
        ({"held_out": {}, "updates": 10}, "little_training"),
        ({"n": 319}, "few_samples"),
        ({"arms": {"a": Measured(5.7, 0.3), "b": Measured(60.0, 2.0)}}, "at_the_floor"),
        ({"arms": {"a": Measured(4.0), "b": Measured(60.0)}}, "at_the_floor"),
        ({"sight": {"classes missing": math.nan}}, "blind_to_damage"),
        ({"sight": {"blur": -0.5}}, "blind_to_damage"),
        ({"agreement": {"kd_lite0": (-0.2, 8)}}, "networks_disagree"),
    ],
)
def test_each_rule_fires_alone(changes, key):
    assert keys(**changes) == [key]


@pytest.mark.parametrize(
    "changes",
    [
        {"n": 320},
        {"held_out": {}, "updates": 15},
        {"arms": {"a": Measured(6.1, 0.3)}},
        {"floor": Measured(math.nan)},
        {"arms": {"a": Measured(math.nan, math.nan)}},
        {"sight": {"blur": 0.9}},
        {"agreement": {"kd_lite0": (-0.2, 7)}},
        # 8 of 8 modes, as real images show: nothing is better.
        {"minimize": False, "floor": Measured(8.0), "arms": {"a": Measured(8.0)}, "judged": {}},
    ],
)
def test_none_fires_at_its_limit(changes):
    assert keys(**changes) == []


def test_the_odds_ratio_takes_many_classes_for_much():
    """62 % of 1,000 classes and 91 % of ten are features to rely on, 73 % of three are not."""
    assert odds_ratio(0.622, 0.0036) > odds_ratio(0.905, 0.1) > LEAST_ODDS_RATIO
    assert odds_ratio(0.73, 1 / 3) < LEAST_ODDS_RATIO
    assert odds_ratio(0.5, 0.5) == 1
    assert odds_ratio(1.0, 0.1) == math.inf


SMUDGES = {"smudges": Measured(2.7, 0.3), "shapes": Measured(49.7, 1.0)}


def judged(**scores: tuple[float, float]) -> dict[str, Measured]:
    return {arm: Measured(*score) for arm, score in scores.items()}


def test_smudges_above_shapes_are_told_with_both_scores():
    other = judged(smudges=(28.1, 0.5), shapes=(3.9, 0.2))
    (finding,) = find_doubts(
        replace(HEALTHY, floor=Measured(0.1, 0.01), arms=SMUDGES, judged=other)
    )
    assert finding.key == "judge_disagrees"
    assert "ranks smudges (2.7 ± 0.3) above shapes (49.7 ± 1)" in finding.evidence
    assert "(28.1 ± 0.5 against 3.9 ± 0.2)" in finding.evidence
    assert "1 of 1 clear orders" in finding.evidence


@pytest.mark.parametrize(
    "other",
    [
        judged(smudges=(3.9, 0.2), shapes=(28.1, 0.5)),  # the same order
        judged(smudges=(5.0, 0.2), shapes=(3.9, 0.2)),  # not clear: by less than a factor of 2
        judged(smudges=(28.1, 15.0), shapes=(3.9, 9.0)),  # not clear: within noise
        judged(smudges=(28.1, 0.5)),  # one arm alone
        judged(smudges=(-0.1, 0.01), shapes=(-0.4, 0.01)),  # both as good as 0
    ],
)
def test_a_judge_that_does_not_clearly_disagree_is_no_finding(other):
    facts = replace(HEALTHY, floor=Measured(0.1, 0.01), arms=SMUDGES, judged=other)
    assert find_doubts(facts) == []


def test_one_turned_pair_among_many_that_agree_is_no_finding():
    arms = judged(a=(1, 0.1), b=(4, 0.1), c=(16, 0.1), d=(64, 0.1))
    other = judged(a=(4, 0.1), b=(1, 0.1), c=(16, 0.1), d=(64, 0.1))
    floor = Measured(0.1, 0.01)
    assert find_doubts(replace(HEALTHY, floor=floor, arms=arms, judged=other)) == []
    turned = dict(zip(arms, reversed(arms.values()), strict=True))
    (finding,) = find_doubts(replace(HEALTHY, floor=floor, arms=arms, judged=turned))
    assert "and 3 more pairs (6 of 6 clear orders" in finding.evidence


def test_higher_may_be_better():
    arms = judged(a=(0.8, 0.01), b=(0.2, 0.01))
    high = replace(HEALTHY, minimize=False, floor=Measured(0.95, 0.01), arms=arms)
    agree, turn = judged(a=(1, 0.1), b=(4, 0.1)), judged(a=(4, 0.1), b=(1, 0.1))
    assert find_doubts(replace(high, judged=agree)) == []
    assert [f.key for f in find_doubts(replace(high, judged=turn))] == ["judge_disagrees"]
    above = replace(high, arms=judged(a=(0.99, 0.001)), judged={})
    assert [f.key for f in find_doubts(above)] == ["at_the_floor"]


def test_one_warning_holds_all_evidence_and_each_advice_once():
    facts = replace(HEALTHY, held_out=SHAPES, classes=3, sight={"blur": 0.1}, n=40)
    text = warning_text(facts.name, find_doubts(facts))
    for told in ("73% [67%, 79%] of 240", "35%", "blur (rho 0.10)", "40 images of 64 features"):
        assert told in text
    assert text.count("What to do") == 1
    assert "\n" not in text


def test_the_quickstart_is_not_warned_of(tmp_path):
    """Before its first trial, and by what its preparation records of real digits."""
    spec = load_study(ROOT / "studies" / "quickstart.yaml")
    assert find_doubts(score_facts(spec)) == []
    folder = StudyFolder(tmp_path / "quickstart")
    folder.create()
    prepare(spec, folder)
    protocol = folder.read_json("protocol.json")
    facts = recorded_facts(protocol)
    held = facts.held_out
    assert (held["n"], held["classes"], held["n_train"]) == (2000, 10, 3000)
    assert held["low"] < held["accuracy"] < held["high"]
    assert held["chance"] < 0.15
    assert np.isfinite(facts.floor).all()
    assert (facts.n, facts.n_needed) == (1000, 320)
    assert find_doubts(facts) == []
    # The classifier is in the user's cache now, and `check` reads what it reached.
    assert score_facts(spec).held_out == held
