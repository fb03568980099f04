"""Scores of all trials as they are drawn: which count, and where failures lie."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis import distribution, seeds
from ganstudy.study.outcomes import DEFAULT_CONFIG
from tests.analysis import seeded

SCORES = np.array([[0.5], [0.6], [0.7], [0.8], [0.9], [math.inf], [0.01]])


def study_of(sign: int, default: int | None = None):
    table = seeded.trials("a", SCORES)
    if default is not None:
        table.loc[default, "config_id"] = DEFAULT_CONFIG
    return seeded.study_of({"a": table}, sign=sign)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_lane_of_failures_lies_beyond_the_worst_score(sign):
    data = distribution.score_distribution_data(study_of(sign))
    plot = distribution.score_distribution_figure(data)
    (lane,) = (trace.y[0] for trace in plot.data if trace.marker.symbol == "x")
    assert lane > 0.9 if sign == 1 else lane < 0.01


@pytest.mark.parametrize(("default", "told"), [(5, "n = 6, 0 failed"), (6, "n = 6, 1 failed")])
def test_an_arm_at_its_defaults_is_a_star_and_counts_nowhere(default, told):
    data = distribution.score_distribution_data(study_of(1, default))
    plot = distribution.score_distribution_figure(data)
    assert told in plot.layout.xaxis.ticktext[0]
    stars = [trace for trace in plot.data if trace.marker.symbol == "star"]
    assert sum(len(star.y) for star in stars) == 1
    (box,) = (trace for trace in plot.data if trace.type == "box")
    kept = [v for i, (v,) in enumerate(SCORES) if i != default and math.isfinite(v)]
    assert (box.lowerfence[0], box.median[0]) == (min(kept), np.median(kept))


def test_repeated_defaults_are_what_is_shown():
    table = seeded.trials("a", SCORES.T).assign(config_id=DEFAULT_CONFIG)
    data = distribution.score_distribution_data(seeded.replicate({"a": table}))
    plot = distribution.score_distribution_figure(data)
    assert "n = 7, 1 failed" in plot.layout.xaxis.ticktext[0]


def test_a_best_configuration_of_an_adaptive_search_has_no_interval():
    scores = np.random.default_rng(0).uniform(1, 2, (3, 9))
    tables = {"a": seeded.trials("a", scores)}
    design = {"sampler": "tpe", "paired": False}
    (best,) = seeds.best_configs(seeded.study_of(tables, design=design))
    assert (best.mean.low, best.median.low) == (None, None)
    (best,) = seeds.best_configs(seeded.study_of(tables))
    assert best.mean.low < best.mean.value < best.mean.high
