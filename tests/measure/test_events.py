from __future__ import annotations

import math

import pytest

from ganstudy.measure.events import DETECTORS, EventsConfig, Primary, replay
from ganstudy.records import Point
from ganstudy.registry import StudyError

PRIMARY = Primary("fd_small_cnn_1k")


def points(**series: list[float]) -> list[Point]:
    """Return points read at 0, 100, 200 ..., all signals of one read together."""
    length = max(len(values) for values in series.values())
    return [
        Point(name, 100 * i, 100 * i, 6400 * i, float(i), values[i])
        for i in range(length)
        for name, values in series.items()
        if i < len(values)
    ]


def run(kind: str, **series: list[float]):
    return replay(points(**series), PRIMARY, [DETECTORS.build(kind)])


def collapse(diversity: list[float], coverage: list[float] | None = None):
    coverage = coverage or [0.5] * len(diversity)
    return run("mode_collapse", diversity_small_cnn_1k=diversity, coverage_small_cnn_1k=coverage)


def overpowering(auc: list[float], score: list[float], error: float = 5.0):
    return run(
        "discriminator_overpowering",
        fd_small_cnn_1k=score,
        fd_small_cnn_1k_se=[error] * len(score),
        heldout_discriminator_auc=auc,
    )


HEALTHY = {
    "generator_loss": [0.7, 0.9, 1.1, 1.0, 1.2, 1.1, 1.0],
    "discriminator_loss": [1.4, 1.2, 1.1, 1.2, 1.1, 1.2, 1.2],
    "real_logits_mean": [0.0, 0.5, 0.8, 0.7, 0.9, 0.8, 0.9],
    "fake_logits_mean": [0.0, -0.5, -0.7, -0.8, -0.9, -0.7, -0.8],
    "fd_small_cnn_1k": [2000.0, 900.0, 400.0, 200.0, 120.0, 90.0, 80.0],
    "fd_small_cnn_1k_se": [5.0] * 7,
    "diversity_small_cnn_1k": [0.0, 0.1, 0.3, 0.5, 0.7, 0.8, 0.85],
    "coverage_small_cnn_1k": [0.0, 0.0, 0.1, 0.2, 0.3, 0.4, 0.4],
    "heldout_discriminator_auc": [1.0, 1.0, 1.0, 0.99, 0.98, 0.97, 0.97],
}


@pytest.mark.parametrize("kind", DETECTORS.names())
def test_silent_on_a_healthy_run_and_without_its_signals(kind):
    assert run(kind, **HEALTHY) == []
    assert run(kind, something_else=[1.0, 2.0, 3.0]) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_divergence_fires_at_once_and_names_the_term(value):
    losses = [0.7, 0.8, value, 1.0, math.nan]
    (event,) = run("divergence", **{"penalty/r1": losses, "fake_logits_mean": [0.0] * 5})
    assert (event.onset, event.detected, event.ended) == (200, 200, None)
    assert event.evidence["signal"] == "penalty/r1"
    assert event.severity == 1


def test_divergence_by_doubling_begins_where_the_doubling_began():
    rising = [5.0, 5.0, *(5.0 * 2.1**i for i in range(1, 8))]
    (event,) = run("divergence", generator_loss=rising)
    assert (event.onset, event.detected) == (200, 700)
    assert "doubled" in event.evidence["rule"]


def test_five_doublings_or_small_values_are_no_divergence():
    five = [5.0 * 2.1**i for i in range(6)]
    assert run("divergence", generator_loss=[*five, five[-1]]) == []
    assert run("divergence", generator_loss=[1e-6 * 2.1**i for i in range(12)]) == []


def test_collapse_of_diversity_from_onset_to_end():
    events = collapse([0.0, 0.5, 0.8, 0.1, 0.1, 0.1, 0.1, 0.8, 0.8, 0.8])
    (event,) = events
    assert (event.onset, event.detected, event.ended) == (300, 500, 700)
    assert event.severity == pytest.approx(0.9)


def test_two_low_evaluations_are_no_collapse():
    assert collapse([0.0, 0.5, 0.8, 0.1, 0.1, 0.8, 0.1, 0.1, 0.8]) == []


def test_a_constant_output_is_a_collapse():
    (event,) = collapse([0.0] * 6)
    assert (event.onset, event.detected, event.severity) == (100, 300, 1.0)


def test_a_slow_learner_is_no_collapse():
    assert collapse([0.001, 0.03, 0.05, 0.08, 0.12, 0.16, 0.2]) == []


def test_collapse_of_coverage_that_was_had():
    held = [0.8] * 8
    (event,) = collapse(held, [0.0, 0.3, 0.6, 0.1, 0.1, 0.1, 0.1, 0.1])
    assert (event.onset, event.detected) == (300, 500)
    # Coverage that was never had cannot be lost.
    assert collapse(held, [0.0, 0.1, 0.2, 0.01, 0.01, 0.01, 0.01, 0.01]) == []


def test_overpowering_needs_separation_and_no_gain():
    stuck = [2000.0, 900.0, 905.0, 902.0, 907.0, 903.0]
    (event,) = overpowering([1.0] * 6, stuck)
    assert (event.onset, event.detected) == (200, 400)
    assert event.evidence["heldout_discriminator_auc"] == 1.0
    assert overpowering([0.9] * 6, stuck) == []
    gaining = [2000.0, 900.0, 700.0, 600.0, 500.0, 400.0]
    assert overpowering([1.0] * 6, gaining) == []
    # Gains within two standard errors of the difference are none.
    creeping = [2000.0, 900.0, 895.0, 890.0, 885.0, 880.0]
    assert len(overpowering([1.0] * 6, creeping, error=20.0)) == 1


def test_overpowering_ends_when_the_score_gains_again():
    score = [2000.0, 900.0, 900.0, 900.0, 900.0, 700.0, 500.0, 300.0, 200.0]
    (event,) = overpowering([1.0] * 9, score)
    assert (event.onset, event.detected, event.ended) == (200, 400, 500)


def test_a_score_where_higher_is_better():
    primary = Primary("precision_x", minimize=False)
    rising = points(
        precision_x=[0.0, 0.2, 0.4, 0.6, 0.8],
        precision_x_se=[0.01] * 5,
        heldout_discriminator_auc=[1.0] * 5,
    )
    assert replay(rising, primary) == []


def test_an_event_is_told_once_per_episode():
    low, high = [0.1] * 4, [0.9] * 4
    events = collapse([0.0, *high, *low, *high, *low])
    assert [(e.onset, e.ended) for e in events] == [(500, 900), (1300, None)]


def test_config_removes_detectors_and_refuses_to_stop_on_what_nobody_watches():
    config = EventsConfig.from_dict(
        {"detectors": {"mode_collapse": None, "divergence": {"doublings": 3}}, "stop_on": []}
    )
    assert [d.name for d in config.detectors] == ["discriminator_overpowering", "divergence"] or [
        d.name for d in config.detectors
    ] == ["divergence", "discriminator_overpowering"]
    assert EventsConfig.from_dict(config.to_dict()) == config
    with pytest.raises(StudyError, match="unknown event that is watched for 'mode_collapse'"):
        EventsConfig.from_dict(
            {"detectors": {"mode_collapse": None}, "stop_on": ["mode_collapse"]}
        )
