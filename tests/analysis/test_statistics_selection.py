"""Selection optimism against brute force, and against a closed form."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from analysis import statistics

INF = math.inf


def brute_force(chosen, told, k):
    """Return the means over all subsets, ties chosen among evenly, of chosen and told scores."""
    found = []
    for subset in itertools.combinations(range(len(chosen)), k):
        best = min(chosen[i] for i in subset)
        if best < INF:
            found.append((best, np.mean([told[i] for i in subset if chosen[i] == best])))
    return np.mean(found, axis=0)


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        ([3.0, 1.0, 2.0, 5.0], [3.5, 2.0, 1.5, 4.0]),
        ([1.0, 1.0, 2.0, 1.0, INF, INF], [4.0, 1.0, 1.0, 7.0, 2.0, INF]),
        ([1.0, 2.0, 3.0], [INF, 1.0, 2.0]),
    ],
)
def test_optimism_equals_brute_force(chosen, told):
    ks = list(range(1, len(chosen) + 1))
    found = statistics.optimism_of_choosing(chosen, told, ks)
    expected = np.array([brute_force(chosen, told, k) for k in ks])
    assert found.chosen_on == pytest.approx(expected[:, 0])
    assert found.told_on == pytest.approx(expected[:, 1])
    assert found.ks.tolist() == ks
    assert found.n == len(chosen)
    assert found.difference == pytest.approx(found.told_on - found.chosen_on)


def test_optimism_of_nothing_but_failures_is_no_number():
    assert np.isnan(statistics.optimism_of_choosing([INF, INF], [1.0, 2.0], 1).difference).all()


def test_seed_optimism_equals_brute_force_over_seeds():
    scores = np.random.default_rng(0).normal(size=(6, 3))
    found = statistics.seed_optimism(scores, [1, 2, 6])
    for i, k in enumerate((1, 2, 6)):
        each = [
            brute_force(scores[:, s], np.delete(scores, s, axis=1).mean(axis=1), k)
            for s in range(3)
        ]
        assert (found.chosen_on[i], found.told_on[i]) == pytest.approx(np.mean(each, axis=0))
    assert found.difference[0] == pytest.approx(0, abs=1e-12)


def test_seed_optimism_is_that_of_normal_scores():
    # Config and seed each of variance 1: half of the chosen one's lead over the mean is luck, and
    # the lead of the best of 10 normals is 1.5388 standard deviations.
    rng = np.random.default_rng(1)
    found = [
        statistics.seed_optimism(rng.normal(0, 1, (40, 1)) + rng.normal(0, 1, (40, 2)), 10)
        for _ in range(400)
    ]
    optimism = np.mean([one.difference[0] for one in found])
    assert optimism == pytest.approx(1.5388 / math.sqrt(2), abs=0.04)


def test_without_noise_there_is_no_optimism():
    scores = np.repeat(np.arange(1.0, 9.0)[:, None], 4, axis=1)
    assert statistics.seed_optimism(scores, [1, 4, 8]).difference == pytest.approx(0)


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda: statistics.optimism_of_choosing([1.0], [1.0, 2.0], 1), "as many"),
        (lambda: statistics.optimism_of_choosing([1.0, 2.0], [1.0, math.nan], 1), "NaN"),
        (lambda: statistics.optimism_of_choosing([1.0, 2.0], [1.0, 2.0], 3), "between"),
        (lambda: statistics.seed_optimism([[1.0], [2.0]], 1), "2 seeds"),
    ],
)
def test_bad_input(call, rule):
    with pytest.raises(ValueError, match=rule):
        call()
