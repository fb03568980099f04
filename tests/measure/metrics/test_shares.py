from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from ganstudy.measure.metrics import METRICS, Sample
from ganstudy.measure.metrics.base import share_score
from tests.measure.metrics.samples import sample


def first(hits: int, n: int):
    return np.arange(n) < hits


def test_a_share_has_the_binomial_error():
    assert share_score(first(30, 120)) == (0.25, math.sqrt(0.25 * 0.75 / 120))


def test_a_share_of_0_or_1_is_not_known_for_certain():
    for n in (1, 20, 1000):
        assert share_score(first(0, n)) == (0, 1 / (n + 1))
        assert share_score(first(n, n)) == (1, 1 / (n + 1))
        # The far end of Wilson's interval, where p = sqrt(p (1 - p) / n).
        p = 1 / (n + 1)
        assert p == pytest.approx(math.sqrt(p * (1 - p) / n))


@pytest.mark.parametrize("n", [20, 50, 200])
def test_two_errors_cover_the_truth_wherever_it_lies(n):
    """Exact: every count of hits, weighed by its probability."""
    scores = [share_score(first(k, n)) for k in range(n + 1)]
    shares, errors = np.array(scores).T
    truths = np.linspace(0.1 / n, 1 - 0.1 / n, 1001)
    within = np.abs(shares - truths[:, None]) <= 1.96 * errors
    covered = (binom.pmf(np.arange(n + 1), n, truths[:, None]) * within).sum(axis=1)
    # 0.80 at the worst of truths, some 3 / n; without an error at 0 hits it is 0.1 at 0.1 / n.
    assert covered.min() > 0.79
    assert covered.mean() > 0.92


def test_the_precision_of_generated_samples_far_from_all_real_ones():
    real = Sample(sample(50))
    far = METRICS.build("precision")(Sample(sample(80, shift=1000.0)), real)
    assert far == (0, 1 / 81)
    assert METRICS.build("precision")(real, real) == (1, 1 / 51)
