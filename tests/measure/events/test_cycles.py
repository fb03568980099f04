from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from ganstudy.measure.events import DETECTORS, EventsConfig, replay
from ganstudy.measure.events.cycles import Pyramid, find_cycle
from ganstudy.records import Point
from ganstudy.registry import StudyError

EVERY = 25
"""Discriminator updates between two readings."""
BUDGET = 625
"""Readings of a run of 15,625 updates."""
AR8, WALK, DECAY = "AR(1) 0.8", "random walk", "decay"
NOISES = ("white", "AR(1) 0.5", AR8, DECAY)


def noise(kind: str, rng: np.random.Generator, n: int) -> np.ndarray:
    shocks = rng.standard_normal(n)
    if kind == WALK:
        return shocks.cumsum()
    if kind == DECAY:
        return 20 * np.exp(-np.arange(n) / rng.choice([5, 15, 50, 150])) + shocks
    coefficient = {"white": 0.0, "AR(1) 0.5": 0.5, AR8: 0.8}[kind]
    values = [shocks[0]]
    for shock in shocks[1:]:
        values.append(coefficient * values[-1] + math.sqrt(1 - coefficient**2) * shock)
    return np.array(values)


def sine(rng: np.random.Generator, n: int, period: float, noise: float = 0.2) -> np.ndarray:
    values = np.sin(2 * np.pi * (np.arange(n) / period + rng.random()))
    return values + noise * rng.standard_normal(n)


def oscillations(*series: np.ndarray, **options: object):
    """Return the events of one run, whose logits are the series."""
    names = ("real_logits_mean", "fake_logits_mean")
    points = [
        Point(name, 0, EVERY * (i + 1), 0, 0.0, value)
        for i, values in enumerate(zip(*(s.tolist() for s in series), strict=True))
        for name, value in zip(names, values, strict=False)
    ]
    return replay(points, [DETECTORS.build("oscillation", **options)])


def false_alarms(kind: str, runs: int, seed: int, n: int = BUDGET) -> int:
    """Return how many runs of two logits without a cycle have an event."""
    count = 0
    for run in range(runs):
        rng = np.random.default_rng([seed, run])
        count += bool(oscillations(noise(kind, rng, n), noise(kind, rng, n)))
    return count


@pytest.mark.parametrize("kind", NOISES)
def test_a_whole_run_of_noise_has_no_oscillation(kind):
    # A test without corrections fired in 6 and 7 of these 12 runs of AR(1) noise. At a true rate
    # of 1 %, more than one of 12 has a probability of 0.6 %.
    assert false_alarms(kind, runs=12, seed=1) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", NOISES)
def test_at_most_2_percent_of_runs_have_a_false_alarm(kind):
    # Seeds below 1100 were used while the constants were chosen.
    count = false_alarms(kind, runs=1000, seed=3000)
    interval = binomtest(count, 1000, alternative="less").proportion_ci(0.95, method="exact")
    assert interval.high <= 0.02


@pytest.mark.parametrize(
    ("reads", "period"),
    [(60, 5), (60, 20), (120, 25), (120, 40), (400, 5), (400, 133), (625, 60), (625, 208)],
)
def test_sines_in_noise_are_detected_from_5_readings_to_a_third_of_the_run(reads, period):
    # With a true rate of 99 %, fewer than 9 of 10 have a probability of 0.4 %.
    found = [
        oscillations(sine(np.random.default_rng([3, period, run]), reads, period))
        for run in range(10)
    ]
    detected = [events for events in found if events]
    assert len(detected) >= 9
    for events in detected:
        assert events[0].evidence["period_updates"] == pytest.approx(EVERY * period, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("reads", [60, 120, 400, 625])
def test_at_least_90_percent_of_noisy_sines_are_detected(reads):
    found = [
        bool(oscillations(sine(np.random.default_rng([3001, period, run]), reads, period)))
        for period in sorted({5, 10, reads // 12, reads // 6, reads // 3})
        for run in range(60)
    ]
    interval = binomtest(sum(found), len(found), alternative="greater").proportion_ci(
        0.95, method="exact"
    )
    assert interval.low >= 0.9


def test_a_cycle_that_begins_late_is_detected_and_one_that_stops_ends():
    rng = np.random.default_rng(4)
    quiet, cycle = 0.2 * rng.standard_normal(150), sine(rng, 150, 12)
    events = oscillations(np.concatenate([quiet, cycle, quiet]))
    assert len(events) >= 1
    assert EVERY * 150 < events[0].detected <= EVERY * 250
    assert events[-1].ended is not None


@pytest.mark.parametrize("decay", [0.9, 0.97, 0.99])
def test_a_spiral_that_converges_is_no_oscillation(decay):
    t = np.arange(400)
    for period in (4.3, 6.28, 15):
        assert oscillations(decay**t * np.sin(2 * np.pi * t / period)) == []


def test_a_cycle_without_noise_is_one_whatever_its_shape():
    t = np.arange(100)
    for values in (np.sin(t), 1e-3 * np.sin(t) + 50):
        (event,) = oscillations(values)
        assert event.ended is None
    # What no sine with two harmonics fits is detected later, and at first not for good.
    for values in (np.sign(np.sin(t / 2)), (t / 7) % 1):
        assert oscillations(values.astype(float))[-1].ended is None


def test_cycles_beside_a_trend_are_detected():
    t = np.arange(200)
    values = 10 * np.exp(-t / 40) + sine(np.random.default_rng(5), 200, 9)
    assert oscillations(values)


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, 1e200])
def test_readings_that_are_constant_or_not_finite_are_no_cycle(value):
    assert oscillations(np.full(100, value)) == []


def test_modes_in_turn_are_one_cycle_of_several_harmonics():
    shares = [np.array([6.0 if i % 6 == k else 0.0 for k in range(6)]) for i in range(24)]
    cycle = find_cycle(list(range(24)), shares)
    assert cycle.period == pytest.approx(6, abs=0.2)
    assert cycle.correlation > 0.95


def test_times_that_are_uneven_do_not_hide_a_cycle():
    times = 25 * np.ceil(np.arange(1, 25) * 35 / 25)  # as probes, which wait for a read
    series = [np.array([np.cos(2 * np.pi * t / 110)]) for t in times]
    cycle = find_cycle(times.tolist(), series)
    assert cycle.period == pytest.approx(110, rel=0.02)
    assert cycle.correlation > 0.99


def test_p_values_of_noise_are_no_smaller_than_they_say():
    # One window, not the many looks of a run: with the number of frequencies and of harmonics
    # that may be the fundamental one, log p is a bound. At a level of 5 %, more than 20 of 200
    # have a probability of 0.1 %.
    for kind in ("white", AR8):
        low = 0
        for run in range(200):
            rng = np.random.default_rng([6, run])
            cycle = find_cycle(list(range(60)), list(noise(kind, rng, 60)[:, None]))
            if cycle is not None:
                low += cycle.log_p + math.log(3 * cycle.frequencies) < math.log(0.05)
        assert low <= 20


def test_levels_hold_means_and_their_number_grows_with_the_logarithm():
    pyramid = Pyramid(12)
    levels = {}
    for i in range(1000):
        levels |= dict(pyramid.add(i, [float(i)]))
    assert sorted(levels) == list(range(7))  # the next has not seen enough
    for number, level in levels.items():
        assert len(level.vectors) == min(12, 1000 >> number)
        np.testing.assert_allclose(np.diff(np.array(level.vectors)[:, 0]), 2**number)
        np.testing.assert_allclose(np.array(level.vectors)[:, 0], list(level.times))


def test_options_of_older_studies_are_read_and_others_refused():
    old = {
        "correlation": 0.5, "standard_errors": 3.0, "trough": 0.1, "amplitude": 0.8, "swing": 0.5,
        "window": 60, "probes": 20,
    }  # fmt: skip
    config = EventsConfig.from_dict({"detectors": {"oscillation": old}})
    assert DETECTORS.build("oscillation") in config.detectors
    with pytest.raises(StudyError, match="trough"):
        EventsConfig.from_dict({"detectors": {"oscillation": {"trough": 0.2}}})
