from __future__ import annotations

import math

import numpy as np
import pytest

from ganstudy.measure import metrics
from tests.measure.metrics.samples import sample


def test_kernel_distance_agrees_with_the_double_sum():
    x, y = sample(12, 3, 0, 0.2), sample(9, 3, 1)

    def k(a, b):
        return (a @ b / 3 + 1) ** 3

    xx = np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    yy = np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    xy = np.mean([k(a, b) for a in x for b in y])
    score = metrics.kernel_distance(x, y)
    assert score.value == pytest.approx(xx + yy - 2 * xy, rel=1e-12)
    without_x = [metrics.kernel_distance(np.delete(x, i, 0), y).value for i in range(12)]
    without_y = [metrics.kernel_distance(x, np.delete(y, i, 0)).value for i in range(9)]
    jackknife = 11 / 12 * np.sum((without_x - np.mean(without_x)) ** 2)
    jackknife += 8 / 9 * np.sum((without_y - np.mean(without_y)) ** 2)
    assert score.standard_error == pytest.approx(math.sqrt(jackknife), rel=1e-9)


def test_kernel_distance_is_unbiased_and_its_error_honest():
    scores = [
        metrics.kernel_distance(sample(60, 4, s, 0.5), sample(60, 4, s + 999)) for s in range(300)
    ]
    null = [metrics.kernel_distance(sample(60, 4, s), sample(60, 4, s + 999)) for s in range(300)]
    values = np.array([s.value for s in null])
    assert abs(values.mean()) < 4 * values.std() / math.sqrt(300)
    assert values.min() < 0
    spread = np.std([s.value for s in scores], ddof=1)
    assert np.mean([s.standard_error for s in scores]) == pytest.approx(spread, rel=0.25)
