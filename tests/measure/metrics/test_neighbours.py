from __future__ import annotations

import math

import numpy as np
import pytest

from ganstudy.measure import metrics
from tests.measure.metrics.samples import sample


def test_precision_and_recall_by_hand():
    # Real balls have radius 1 around 0, 1, 2 (k = 1); generated balls have radius 10.
    real, generated = np.array([[0.0], [1.0], [2.0]]), np.array([[0.5], [10.5], [20.5]])
    precision, recall = metrics.precision_recall(generated, real, k=1)
    assert (precision, recall) == (1 / 3, 1.0)


def test_precision_falls_with_quality_and_recall_with_variety():
    real = sample(400)
    far = metrics.precision_recall(sample(400, seed=1, shift=5), real)
    narrow = metrics.precision_recall(sample(400, seed=1, scale=0.2), real)
    assert far[0] < 0.1
    assert narrow[0] > 0.9
    assert narrow[1] < 0.3


def test_coverage_of_two_samples_of_one_distribution():
    n, m, k = 300, 200, 5
    found = [
        metrics.density_coverage(sample(n, 4, s), sample(m, 4, s + 999), k)[1] for s in range(40)
    ]
    expected = 1 - math.prod((m - i) / (n + m - i) for i in range(1, k + 1))
    assert np.mean(found) == pytest.approx(expected, abs=0.01)


def test_diversity_is_scale_and_zero_for_a_constant():
    x = sample(100)
    assert metrics.diversity(3 * x, x) == pytest.approx(3)
    assert metrics.diversity(np.ones((50, 4)), x) == 0
