"""The replay of searches on recorded trials: nothing in it is cheaper or better than it was."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.statistics import expected_best_of_k
from benchmarks.search import STARTUP, Table, reached, searches, unit
from ganstudy.study.space import Choice

SEARCHES = searches(20)


@pytest.fixture(scope="module")
def table():
    return Table.load()


@pytest.fixture(scope="module")
def smooth(table):
    """400 drawn configurations, with a score that a model of it can learn."""
    space, rng = table.arm.space, np.random.default_rng(0)
    params = [{key: d.at(u) for key, d, u in draw} for draw in draws(space, rng, 400)]
    points = np.array([[unit(d, drawn[key]) for key, d in space.items()] for drawn in params])
    numbers = [i for i, d in enumerate(space.values()) if not isinstance(d, Choice)]
    scores = ((points[:, numbers] - 0.3) ** 2).sum(axis=1)
    return Table(table.arm, params, points, scores, scores, [[score] * 20 for score in scores])


def draws(space, rng, n):
    return [[(key, d, rng.random()) for key, d in space.items()] for _ in range(n)]


def test_the_kept_table_is_of_the_study_beside_it(table):
    assert len(table) > 100
    for params in table.params:
        assert set(params) == set(table.arm.space)
        for key, distribution in table.arm.space.items():
            low, high = distribution.ends()[0], distribution.ends()[-1]
            within = unit(distribution, params[key])
            assert unit(distribution, low) <= within <= unit(distribution, high)
    assert {len(reports) for reports in table.reports} == {20}
    assert not np.isnan(table.scores).any()
    assert 0.1 < np.isfinite(table.scores).mean() < 0.95


@pytest.mark.parametrize("k", [1, 5, 20])
def test_random_search_reaches_the_expected_best_of_k(smooth, k):
    found = [
        reached(smooth, list(SEARCHES["random"](smooth, repeat=i, budget=k)), [k])
        for i in range(1000)
    ]
    error = np.std(found) / math.sqrt(len(found))
    assert np.mean(found) == pytest.approx(
        expected_best_of_k(smooth.scores, k).value, abs=4 * error
    )


@pytest.mark.parametrize("name", SEARCHES)
def test_a_trial_is_used_once_and_paid_up_to_its_stop(table, name):
    steps = list(SEARCHES[name](table, repeat=3, budget=15))
    assert len({step.trial for step in steps}) == len(steps)
    spent = [1.0 if step.stop is None else step.stop / 20 for step in steps]
    assert sum(spent[:-1]) < 15 + 1e-9
    assert sum(spent) >= 15 - 1e-9 or len(steps) == len(table)
    assert reached(table, steps, [sum(spent[:8]) - 0.01]) == reached(table, steps[:7], [math.inf])
    ended = [table.scores[step.trial] for step in steps if step.stop is None]
    assert reached(table, steps, [math.inf]) == [min(ended)]
    assert list(SEARCHES[name](table, repeat=3, budget=15)) == steps
    assert list(SEARCHES[name](table, repeat=4, budget=15)) != steps
    if "ASHA" in name:
        assert 0 < len(ended) < len(steps)


def test_repeats_of_all_searches_are_pairs(table):
    first = [
        [step.trial for step in search(table, repeat=5, budget=STARTUP)][:STARTUP]
        for name, search in SEARCHES.items()
    ]
    assert all(trials == first[0] for trials in first)


def test_the_nearest_of_what_is_left_answers(table):
    everyone = list(range(len(table)))
    for trial in range(20):
        assert table.nearest(table.params[trial], everyone) == trial
        without = [other for other in everyone if other != trial]
        assert table.nearest(table.params[trial], without) != trial


def test_a_search_that_learns_beats_random_where_there_is_something_to_learn(smooth):
    def regret(search):
        return [reached(smooth, list(search(smooth, repeat=i, budget=30)), [30]) for i in range(8)]

    random, learned = regret(SEARCHES["random"]), regret(SEARCHES["TPE"])
    assert sum(a < b for a, b in zip(learned, random, strict=True)) >= 5
    assert np.median(learned) < np.median(random)
