from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchmetrics.image.inception import InceptionScore

from ganstudy.measure.metrics import METRICS, inception_score


def probabilities(n: int, k: int = 5, seed: int = 0, sharpness: float = 2.0):
    x = np.random.default_rng(seed).normal(size=(n, k)) * sharpness
    x = np.exp(x - x.max(axis=1, keepdims=True))
    return x / x.sum(axis=1, keepdims=True)


@pytest.mark.filterwarnings("ignore:Metric `InceptionScore`", "ignore:std\\(\\)")
@pytest.mark.parametrize("sharpness", [0.3, 2.0, 20.0])
def test_agrees_with_torchmetrics(sharpness):
    logits = np.random.default_rng(0).normal(size=(300, 7)) * sharpness
    theirs = InceptionScore(feature=torch.nn.Identity(), splits=1)
    theirs.update(torch.from_numpy(logits))
    x = np.exp(logits - logits.max(axis=1, keepdims=True))
    found = inception_score(x / x.sum(axis=1, keepdims=True)).value
    assert found == pytest.approx(float(theirs.compute()[0]), rel=1e-12)


def test_closed_forms():
    one_hot = np.eye(10)
    assert inception_score(np.full((20, 10), 0.1)).value == pytest.approx(1)
    assert inception_score(np.repeat(one_hot, 7, axis=0)).value == pytest.approx(10)
    assert inception_score(one_hot[[3] * 20]).value == 1
    # Certain of half the classes: the exponential of an entropy of log 5.
    assert inception_score(np.repeat(one_hot[:5], 4, axis=0)).value == pytest.approx(5)
    # Even mixture of (1 - e, e) and (e, 1 - e): log 2 less the binary entropy of e.
    e = 0.1
    entropy = -(e * math.log(e) + (1 - e) * math.log(1 - e))
    found = inception_score(np.array([[1 - e, e], [e, 1 - e]] * 5)).value
    assert found == pytest.approx(2 * math.exp(-entropy))


def test_splits_are_consecutive_rows_whose_scores_are_averaged():
    x = probabilities(60)
    parts = [inception_score(x[i : i + 20]).value for i in (0, 20, 40)]
    score = inception_score(x, splits=3)
    assert score.value == pytest.approx(np.mean(parts))
    assert score.standard_error == pytest.approx(np.std(parts, ddof=1) / math.sqrt(3))
    assert METRICS.build("inception_score", splits=3)(x, x) == score


def test_both_standard_errors_match_the_spread_over_repeats():
    for splits in (1, 10):
        scores = [inception_score(probabilities(500, seed=s), splits) for s in range(200)]
        spread = np.std([s.value for s in scores], ddof=1)
        told = np.sqrt(np.mean([s.standard_error**2 for s in scores]))
        # 200 repeats know the spread to 5 %; the delta method drops terms in 1 / n.
        assert told == pytest.approx(spread, rel=0.2)


def test_fewer_rows_score_less():
    x = probabilities(400)
    assert inception_score(x, splits=40).value < inception_score(x).value


def test_contract():
    metric, x = METRICS.build("inception_score"), probabilities(100)
    assert (metric.reads, metric.direction, metric.short) == ("probabilities", "maximize", "is")
    assert metric.identity_value is None
    blurred = 0.5 * x + 0.1
    assert metric(blurred, x).value < metric(x, x).value
    assert metric(x, blurred) == metric(x, x)  # the real data are not looked at
    order = np.random.default_rng(0).permutation(100)
    assert metric(x[order], x) == pytest.approx(metric(x, x))
    assert metric(x.astype(np.float32), x).value == pytest.approx(metric(x, x).value, rel=1e-5)


@pytest.mark.parametrize(
    ("bad", "rule"),
    [
        (np.full((20, 4), np.nan), "hold 80 non-finite values"),
        (np.full((20, 4), np.inf), "hold 80 non-finite values"),
        (np.full((20, 4), 0.2), "must add up to 1, got 0.8"),
        (np.array([[1.5, -0.5]] * 4), "not be negative, got -0.5"),
        (np.ones((1, 1)), r"got shape \(1, 1\)"),
        (np.ones(20), r"got shape \(20,\)"),
        (np.ones((0, 4)), r"got shape \(0, 4\)"),
        (np.ones((20, 0)), r"got shape \(20, 0\)"),
    ],
)
def test_bad_input_is_a_value_error(bad, rule):
    with pytest.raises(ValueError, match=rule):
        METRICS.build("inception_score")(bad, probabilities(20))


def test_too_few_samples_for_the_splits_are_refused():
    with pytest.raises(ValueError, match=r"splits must lie in \[1, n // 2 = 10\], got 11"):
        inception_score(probabilities(20), splits=11)
    metric = METRICS.build("inception_score", splits=11)
    with pytest.raises(ValueError, match="two samples for each of 11 splits, .* offer 21"):
        metric.check_size(21, 5)
    metric.check_size(22, 5)
