from __future__ import annotations

import math
import time

import numpy as np
import pytest
from scipy.signal import lfilter

from ganstudy.measure.events import DETECTORS, EventLog, EventsConfig, replay
from ganstudy.records import Point
from ganstudy.registry import StudyError
from tests.measure.events.traces import EVERY, FALLING, HEALTHY, events, points, probes

LOSING = [2000.0, 900.0, 400.0, 200.0, *[205.0, 195.0, 203.0, 199.0] * 3]
"""A score that stops to gain."""


def spans(found):
    return [(event.onset, event.detected, event.ended) for event in found]


@pytest.mark.parametrize("kind", DETECTORS.names())
def test_silent_on_a_healthy_run_and_without_its_signals(kind):
    assert events(kind, HEALTHY) == []
    assert events(kind, {"something_else": [1.0, 2.0, 3.0]}) == []


@pytest.mark.parametrize("kind", DETECTORS.names())
def test_silent_on_nothing_but_a_foreign_score_that_falls(kind):
    assert events(kind, {"fid": FALLING}) == []


def test_every_event_has_a_signal_a_rule_and_a_severity_between_0_and_1():
    series = HEALTHY | probes(
        [2000.0, 900.0, 400.0, *[2500.0] * 9],
        effective_modes=[0.1] * 12,
        diversity=[0.1] * 12,
        auc=[1.0] * 12,
        memorization=[-9.0] * 12,
    )
    # The score of collapsed samples is no divergence, however bad it is.
    series["discriminator_loss"] = [*[1.2] * 11, math.inf]
    found = replay(points(series))
    assert {e.kind for e in found} >= {
        "divergence",
        "mode_collapse",
        "discriminator_overpowering",
        "quality_drop",
        "memorization",
    }
    for event in found:
        assert {"signal", "value", "rule"} <= set(event.evidence)
        assert 0 <= event.severity <= 1
        assert event.onset <= event.detected


def test_detectors_need_constant_memory_and_time():
    # Twice as many points take about twice the time: the best of three, with room for noise.
    def seconds(length: int) -> float:
        rng = np.random.default_rng(0)
        series = {name: rng.uniform(1, 2, length).tolist() for name in HEALTHY}
        made, taken = points(series), []
        for _ in range(3):
            begun = time.process_time()
            replay(made)
            taken.append(time.process_time() - begun)
        return min(taken)

    assert seconds(2000) < 5 * seconds(1000)


# --- numbers and gradients


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_divergence_fires_at_once_and_names_the_term(value):
    losses = [0.7, 0.8, value, 1.0, math.nan]
    (event,) = events("divergence", {"penalty/r1": losses, "fake_logits_mean": [0.0] * 5})
    assert (event.onset, event.detected, event.ended) == (200, 200, None)
    assert event.evidence["signal"] == "penalty/r1"
    assert event.severity == 1


@pytest.mark.parametrize("name", ["generator_loss", "real_logits_mean", "generator_weight_norm"])
def test_divergence_by_doubling_begins_where_the_doubling_began(name):
    rising = [5.0, 5.0, *(5.0 * 2.1**i for i in range(1, 8))]
    (event,) = events("divergence", {name: rising})
    assert (event.onset, event.detected) == (200, 700)
    assert "doubled" in event.evidence["rule"]


def test_five_doublings_or_small_values_are_no_divergence():
    five = [5.0 * 2.1**i for i in range(6)]
    assert events("divergence", {"generator_loss": [*five, five[-1]]}) == []
    assert events("divergence", {"generator_loss": [1e-6 * 2.1**i for i in range(12)]}) == []


def test_a_generator_left_behind_where_it_began_has_diverged():
    score = [100.0, 90.0, 80.0, 70.0, 60.0, 150.0, 160.0, 170.0, 180.0]
    (event,) = events("divergence", probes(score))
    assert (event.onset, event.detected) == (500, 700)
    # The first steps may lead away.
    assert events("divergence", probes([100.0, 150.0, 150.0, 150.0, 90.0, 50.0, 40.0])) == []


BAD = [100.0, 90.0, 80.0, 70.0, 60.0, 150.0, 160.0, 170.0, 180.0, 190.0]
"""A score that falls back behind the untrained generator's."""
FEW = [0.2, 0.5, 0.6, 0.7, 0.8, 0.1, 0.1, 0.1, 0.1, 0.1]
"""Effective modes, nearly all of which are lost when that score falls back."""


@pytest.mark.parametrize(
    "order", [("divergence", "mode_collapse"), ("mode_collapse", "divergence")]
)
def test_a_bad_score_of_collapsed_samples_is_a_collapse_alone_in_either_order(order):
    def kinds(values: dict[str, list[float]], **options: object) -> set[str]:
        built = [DETECTORS.build(kind, **options.get(kind, {})) for kind in order]
        return {event.kind for event in replay(points(probes(BAD, **values)), built)}

    spread = [0.1, 0.5, 0.6, 0.7, 0.8, *[0.7] * 5]
    assert kinds({"effective_modes": spread}) == {"divergence"}
    assert kinds({"effective_modes": FEW}) == {"mode_collapse"}
    alike = [0.0, 0.5, 0.6, 0.7, 0.8, *[0.05] * 5]
    assert kinds({"effective_modes": [1.0] * 10, "diversity": alike}) == {"mode_collapse"}
    # Few modes from the start are a collapse too, though mode_collapse waits longer for it.
    always = [*BAD[:1], *[150.0] * 11]
    found = replay(points(probes(always, effective_modes=[0.1] * 12)), map(DETECTORS.build, order))
    assert [event.kind for event in found] == ["mode_collapse"]
    # The limits are those of the trial's own mode_collapse.
    strict = {"mode_collapse": {"effective_modes": 0.05}}
    assert kinds({"effective_modes": FEW}, **strict) == {"divergence"}


def test_without_mode_collapse_a_bad_score_is_a_divergence_whatever_the_samples():
    for modes in ([0.7] * 10, FEW):
        (event,) = events("divergence", probes(BAD, effective_modes=modes))
        assert event.detected == 700


def test_a_score_near_real_images_own_is_no_divergence():
    score = [10.0, 9.0, 8.0, 8.0, 8.0, *[14.0] * 5]
    assert len(events("divergence", probes(score, error=0.1, floor=[5.0]))) == 1
    assert events("divergence", probes(score, error=0.1, floor=[20.0])) == []


def passing(slope: list[float], gradient: list[float], auc: float = 1.0):
    return events(
        "vanishing_gradient",
        {
            "discriminator_auc": [auc] * len(slope),
            "generator_logit_slope": slope,
            "discriminator_input_grad_norm": gradient,
        },
    )


def test_vanishing_needs_nothing_to_pass_and_separation():
    usual, gone = [0.5] * 8, [1e-4] * 6
    (event,) = passing([*usual, *gone], [1.0] * 14)
    assert (event.onset, event.detected, event.ended) == (800, 900, None)
    assert passing([*usual, *gone], [1.0] * 14, auc=0.8) == []
    # Near the end of a good game little passes, since little is left to learn.
    quiet = {
        **probes([100.0, *[5.0] * 13]),
        "discriminator_auc": [1.0] * 14,
        "generator_logit_slope": [1.0] * 14,
        "discriminator_input_grad_norm": [*usual, *[1e-6] * 6],
    }
    assert events("vanishing_gradient", quiet) == []
    assert len(events("vanishing_gradient", quiet | probes([100.0, *[50.0] * 13]))) == 1
    # A flat discriminator is as bad as a flat loss.
    (flat,) = passing([1.0] * 14, [*usual, *[4e-4] * 6])
    assert (flat.onset, flat.detected, flat.ended) == (800, 900, None)
    assert flat.severity == pytest.approx(1 - 4e-4 / 0.5)
    # Gone before the first read.
    (early,) = passing(gone, [1.0] * 6)
    assert early.severity == pytest.approx(1 - 1e-4)
    # A hundredth is no vanishing.
    assert passing([0.5] * 14, [*[1.0] * 8, *[0.01] * 6]) == []


def test_explosion_of_either_gradient():
    usual = [1.0, 3.0, 0.5, 2.0, 1.0, 1.5]
    for name in ("generator_grad_norm", "discriminator_grad_norm"):
        (event,) = events("exploding_gradient", {name: [*usual, *[1e3] * 4, *usual]})
        assert (event.onset, event.detected, event.ended) == (600, 800, 1000)
        assert event.evidence["signal"] == name
        assert events("exploding_gradient", {name: [*usual, 1e3, 1e3, *usual]}) == []
        assert events("exploding_gradient", {name: [*usual, *[30.0] * 4]}) == []
    both = {
        n: [*usual, *[1e3] * 4, *usual] for n in ("generator_grad_norm", "discriminator_grad_norm")
    }
    assert spans(events("exploding_gradient", both)) == [(600, 800, 1000)]


# --- modes


def collapse(modes: list[float], score: list[float] | None = None):
    flat = [900.0] * len(modes)
    series = probes(score or flat, effective_modes=modes, diversity=[1.0] * len(modes))
    return events("mode_collapse", series)


def test_collapse_from_onset_to_end():
    (event,) = collapse([0.1, 0.5, 0.8, 0.1, 0.1, 0.1, 0.1, 0.8, 0.8, 0.8])
    assert (event.onset, event.detected, event.ended) == (300, 500, 700)
    assert event.severity == pytest.approx(0.9)


def test_two_low_probes_are_no_collapse_and_neither_is_a_slow_learner():
    assert collapse([0.1, 0.5, 0.8, 0.1, 0.1, 0.8, 0.1, 0.1, 0.8]) == []
    assert collapse([0.1] * 8, [900.0 - 100 * i for i in range(8)]) == []
    # Few modes that were never more count once 30 % of the budget are gone.
    assert spans(collapse([0.1] * 10)) == [(700, 900, None)]


def test_samples_that_are_alike_are_collapsed_however_they_spread_over_modes():
    def alike(diversity: list[float]):
        n = len(diversity)
        series = probes([900.0] * n, effective_modes=[1.0] * n, diversity=diversity)
        return events("mode_collapse", series)

    (event,) = alike([0.0, 0.1, 0.9, 0.01, 0.01, 0.01])
    assert (event.onset, event.evidence["signal"]) == (300, "probe/diversity")
    # Who never told samples apart has not learned.
    assert alike([0.01] * 9) == []


def test_an_event_is_told_once_per_episode():
    low, high = [0.1] * 4, [0.9] * 4
    found = collapse([0.9, *high, *low, *high, *low])
    assert [(e.onset, e.ended) for e in found] == [(500, 900), (1300, None)]


def dropping(shares: dict[str, list[float]], effective: float = 0.8):
    n = len(next(iter(shares.values())))
    named = {f"share__{mode}": values for mode, values in shares.items()}
    score = LOSING[:n]
    return events("mode_dropping", probes(score, 5.0, effective_modes=[effective] * n, **named))


def test_dropping_is_of_the_same_mode_at_several_probes():
    had, lost = [1.0] * 5, [0.05] * 5
    (event,) = dropping({"a": [*had, *lost], "b": [1.0] * 10})
    assert (event.onset, event.detected) == (500, 800)
    assert event.evidence["modes"] == ["a"]
    assert event.severity == 0.5
    # A mode that was never learnt is lost once half of the budget is gone.
    late = dropping({"a": [0.05] * 16, "b": [1.0] * 16})
    assert spans(late) == [(1100, 1400, None)]
    # Three modes in turn are an oscillation, not a loss.
    turns = {
        m: [*had, *(0.0 if i % 3 == k else 1.0 for i in range(6))] for k, m in enumerate("abc")
    }
    assert dropping(turns) == []
    # So few modes are a collapse, which has a name of its own.
    assert dropping({"a": [*had, *lost], "b": [1.0] * 10}, effective=0.2) == []


def swinging(period: float, decay: float = 1.0, n: int = 64, noise: float = 0.0):
    rng = np.random.default_rng(1)
    t = np.arange(n)
    return (decay**t * np.sin(2 * np.pi * t / period) + noise * rng.standard_normal(n)).tolist()


@pytest.mark.parametrize("period", [6, 10, 17])
def test_a_limit_cycle_of_logits_is_found_with_its_period(period):
    (event,) = events("oscillation", {"fake_logits_mean": swinging(period, noise=0.1)})
    assert event.evidence["period_updates"] == pytest.approx(EVERY * period, rel=0.05)
    assert event.ended is None


def test_no_cycle_in_a_decaying_spiral_a_trend_or_noise():
    rng = np.random.default_rng(0)
    trend = (np.linspace(0, 3, 64) + 0.1 * rng.standard_normal(64)).tolist()
    walk = rng.standard_normal(64).cumsum().tolist()
    for series in (swinging(10, decay=0.97), trend, rng.standard_normal(64).tolist(), walk):
        assert events("oscillation", {"fake_logits_mean": series}) == []


def test_a_generator_that_takes_modes_in_turn_oscillates():
    def turning(period: int, width: float):
        shares = {
            f"share__{k}": [
                1 + width * (period - 1) if i % period == k else 1 - width for i in range(21)
            ]
            for k in range(period)
        }
        return events("oscillation", probes([9.0] * 21, **shares))

    for period in (3, 4, 6):
        (event,) = turning(period, 1.0)
        assert event.evidence["period_updates"] == pytest.approx(EVERY * period, rel=0.05)
        assert turning(period, 0.05) == []
    rng = np.random.default_rng(0)
    noise = {f"share__{k}": rng.uniform(0, 2, 21).tolist() for k in range(8)}
    assert events("oscillation", probes([9.0] * 21, **noise)) == []


# --- balance


def overpowering(auc: list[float], score: list[float], error: float = 5.0):
    series = probes(score, error, auc=auc, floor=[20.0])
    return events("discriminator_overpowering", series)


def test_discriminator_overpowering_needs_separation_and_no_gain():
    stuck = [2000.0, 900.0, 905.0, 902.0, 907.0, 903.0]
    (event,) = overpowering([1.0] * 6, stuck)
    assert (event.onset, event.detected) == (200, 500)
    assert event.severity == pytest.approx(1 - 40 / 903)  # twice the floor of 20
    assert overpowering([0.9] * 6, stuck) == []
    assert overpowering([1.0] * 6, [2000.0, 900.0, 700.0, 600.0, 500.0, 400.0]) == []
    # Gains within two standard errors of the difference are none.
    creeping = [2000.0, 900.0, 895.0, 890.0, 885.0, 880.0]
    assert len(overpowering([1.0] * 6, creeping, error=20.0)) == 1
    # At the floor nothing is left to gain.
    assert overpowering([1.0] * 6, [2000.0, 30.0, 31.0, 30.0, 31.0, 30.0]) == []


def test_discriminator_overpowering_ends_when_the_score_gains_again():
    score = [2000.0, *[900.0] * 5, 700.0, 500.0, 400.0, 300.0, 200.0]
    assert spans(overpowering([1.0] * 11, score)) == [(200, 500, 600)]


def test_generator_overpowering_needs_guesses_far_from_the_floor():
    def weak(auc: float, score: float):
        return events("generator_overpowering", probes([score] * 6, auc=[auc] * 6, floor=[20.0]))

    assert spans(weak(0.5, 900.0)) == [(100, 300, None)]
    assert weak(0.7, 900.0) == []
    assert weak(0.5, 30.0) == []
    # Far above the floor of simple data, and yet a twentieth of what it was.
    series = probes([900.0, *[45.0] * 6], auc=[0.5] * 7, floor=[1.0])
    assert events("generator_overpowering", series) == []


# --- quality


def test_quality_drop_leaves_its_best_and_stays_away():
    best = [2000.0, 300.0, 100.0, 90.0]
    (event,) = events("quality_drop", probes([*best, 150.0, 140.0, 150.0, 160.0]))
    assert (event.onset, event.detected) == (600, 700) or event.onset == 400
    assert event.evidence["best_at"] == 300
    assert events("quality_drop", probes([*best, 150.0, 150.0, 95.0, 150.0, 150.0])) == []
    assert events("quality_drop", probes([*best, 120.0, 120.0, 120.0, 120.0])) == []
    # Within the noise of the score nothing has dropped.
    assert events("quality_drop", probes([*best, *[150.0] * 4], error=20.0)) == []
    # Close to real images' own score the ratio means nothing.
    near = [2000.0, 300.0, 10.0, 3.0, *[8.0] * 4]
    assert events("quality_drop", probes(near, error=0.1, floor=[20.0])) == []


def test_the_best_of_hundreds_of_noisy_probes_is_no_level_to_drop_from():
    def alarms(coefficient: float) -> int:
        count = 0
        for run in range(20):
            rng = np.random.default_rng([7, run])
            shocks = rng.standard_normal(312) * math.sqrt(1 - coefficient**2)
            noise = lfilter([1.0], [1.0, -coefficient], shocks)
            count += bool(
                events("quality_drop", probes((100 * np.exp(0.1 * noise)).tolist(), 7.5))
            )
        return count

    # With the lowest score as the best, 12 and 17 of these 20 runs had an event.
    assert alarms(0.0) == 0
    assert alarms(0.5) <= 4
    # A fall that stays is one after 300 probes, too.
    rng = np.random.default_rng(8)
    steady = (100 * np.exp(0.1 * rng.standard_normal(300))).tolist()
    (event,) = events("quality_drop", probes([*steady, *[200.0] * 6], 7.5))
    assert event.onset == 30_000


def test_quality_drop_reads_the_scores_of_other_systems():
    (event,) = events("quality_drop", {"fid": [300.0, 100.0, 40.0, 30.0, *[50.0] * 4]})
    assert (event.onset, event.detected) == (400, 600)


def near(*shares: float, samples: int = 500) -> dict[str, list[float]]:
    """Return probes of a good score whose samples lie near a mode in these shares."""
    score = [2.0, 0.2, *[0.004] * (len(shares) - 2)]
    errors = [math.sqrt(share * (1 - share) / samples) for share in shares]
    named = {"high_quality_fraction": list(shares), "high_quality_fraction_se": errors}
    return probes(score, error=0.001, floor=[0.004], **named)


def test_quality_drop_sees_samples_that_scatter_between_known_modes():
    learning = [0.0, 0.1, 0.3, 0.4, 0.48]
    (event,) = events("quality_drop", near(*learning, 0.3, 0.2, 0.11, 0.1))
    assert (event.onset, event.detected) == (500, 700)
    assert event.evidence["signal"] == "probe/high_quality_fraction"
    assert (event.evidence["best"], event.evidence["best_at"]) == (0.48, 400)
    assert event.evidence["limit"] == pytest.approx(0.32)
    assert event.severity == pytest.approx(1 - 0.11 / 0.48)
    # It ends when the share is back.
    assert spans(events("quality_drop", near(*learning, *[0.1] * 3, *[0.5] * 3))) == [
        (500, 700, 800)
    ]
    assert events("quality_drop", near(*learning, 0.1, 0.1, 0.4, 0.1, 0.1)) == []
    assert events("quality_drop", near(*learning, *[0.35] * 4)) == []
    # Of few samples, or of few that were near, such a share is chance.
    assert events("quality_drop", near(*learning, *[0.25] * 4, samples=50)) == []
    assert events("quality_drop", near(0.0, 0.0, 0.01, 0.015, *[0.002] * 4)) == []
    # The untrained generator has nothing to lose, and a score that drops is told as before.
    assert events("quality_drop", near(0.9, 0.1, 0.1, 0.1, 0.1)) == []
    # Nor is a heap of samples that passes over a mode before anything is learned.
    early = near(0.0, 0.3, 0.05, 0.05, 0.05, 0.06) | {
        "probe/frechet_distance": [2.0, 1.5, *[0.1] * 4]
    }
    assert events("quality_drop", early) == []
    both = near(*learning, *[0.1] * 4) | {"probe/frechet_distance": [2.0, *[0.2] * 4, *[1.0] * 4]}
    (event,) = events("quality_drop", both)
    assert event.evidence["signal"] == "probe/frechet_distance"


def test_no_learning_is_told_at_30_percent_of_the_budget_and_ends_with_learning():
    flat = [100.0, *[95.0] * 12]
    (event,) = events("no_learning", probes(flat))
    assert (event.detected, event.ended) == (600, None)
    assert spans(events("no_learning", probes([*flat, 80.0])))[0][2] == 1300
    assert events("no_learning", probes([100.0, *[89.0] * 12])) == []
    # Who begins as good as real images has nothing to learn.
    assert events("no_learning", probes(flat, floor=[60.0])) == []
    # Far worse than untrained is a divergence.
    assert events("no_learning", probes([100.0, *[150.0] * 12])) == []
    # Without an untrained generator's score there is nothing to compare with.
    late = [p for p in points(probes(flat)) if p.discriminator_updates > 0]
    assert replay(late, [DETECTORS.build("no_learning")]) == []


def test_checkerboard_must_stand_out_beyond_its_error():
    def pattern(level: float, error: float):
        n = 10
        series = probes(
            [90.0, *[9.0] * (n - 1)], checkerboard=[level] * n, checkerboard_se=[error] * n
        )
        return events("checkerboard", series)

    assert spans(pattern(9.0, 0.5)) == [(400, 600, None)]
    assert pattern(9.0, 1.5) == []
    assert pattern(5.0, 0.1) == []
    # Few different images have a spectrum of peaks.
    alike = probes([9.0] * 10, checkerboard=[30.0] * 10, diversity=[0.2] * 10)
    assert events("checkerboard", alike) == []


def test_memorization_is_a_low_z_score():
    def copies(z: float):
        return events("memorization", probes([9.0] * 6, memorization=[z] * 6))

    assert spans(copies(-5.0)) == [(100, 300, None)]
    assert copies(-2.0) == []


def test_recovery_is_the_end_of_an_event_with_the_score_back():
    detectors = [DETECTORS.build("quality_drop"), DETECTORS.build("recovery")]
    best, away = [2000.0, 300.0, 100.0, 90.0], [300.0] * 4
    found = replay(points(probes([*best, *away, *[100.0] * 4])), detectors)
    assert [e.kind for e in found] == ["quality_drop", "recovery"]
    recovery = found[1]
    assert recovery.onset == found[0].ended == 800
    assert recovery.evidence["of"] == "quality_drop"
    # As long as another failure lasts nothing has recovered.
    drops = {"mode_collapse": DETECTORS.build("mode_collapse")}
    series = probes([*best, *away, *[100.0] * 4], effective_modes=[0.9] * 4 + [0.1] * 8)
    found = replay(points(series), [*detectors, *drops.values()])
    assert "recovery" not in {e.kind for e in found}
    # Nothing was lost that could come back.
    series = probes([*best, *[95.0] * 8], effective_modes=[0.9] * 4 + [0.1] * 4 + [0.9] * 4)
    found = replay(points(series), [*detectors, *drops.values()])
    assert [e.kind for e in found] == ["mode_collapse"]
    # Over, and yet not back.
    found = replay(points(probes([*best, *away, *[120.0] * 4])), detectors)
    assert [e.kind for e in found] == ["quality_drop"]


def test_a_score_near_real_images_own_was_not_lost_and_has_not_recovered():
    def recoveries(score: list[float], error: float = 0.1, floor: float = 20.0):
        modes = [0.1, *[0.9] * 4, *[0.1] * 4, *[0.9] * 4]
        series = probes(score, error, floor=[floor], effective_modes=modes)
        built = [DETECTORS.build(kind) for kind in ("mode_collapse", "recovery")]
        return [event for event in replay(points(series), built) if event.kind == "recovery"]

    doubled = [2000.0, 300.0, 10.0, 3.0, 3.0, *[8.0] * 4, *[3.0] * 4]
    assert recoveries(doubled) == []
    assert len(recoveries(doubled, floor=1.0)) == 1
    # Nor was a score lost within its standard errors.
    assert recoveries(doubled, error=2.0, floor=1.0) == []
    # Within a fifth of real images' own score it is as good as it was.
    lost = [2000.0, 300.0, 10.0, 3.0, 3.0, *[80.0] * 4, *[22.0] * 4]
    assert len(recoveries(lost)) == 1


def test_samples_that_scattered_recover_when_they_are_near_the_modes_again():
    def kinds(*shares: float) -> list[str]:
        built = [DETECTORS.build(kind) for kind in ("quality_drop", "recovery")]
        return [event.kind for event in replay(points(near(*shares)), built)]

    learning = [0.0, 0.1, 0.3, 0.4, 0.48]
    assert kinds(*learning, *[0.1] * 4, *[0.45] * 4) == ["quality_drop", "recovery"]
    assert kinds(*learning, *[0.1] * 4, *[0.36] * 4) == ["quality_drop"]


# --- the log and its configuration


def test_a_log_that_goes_on_tells_what_one_sitting_tells():
    score = [2000.0, 300.0, 100.0, 90.0, *[300.0] * 4, *[100.0] * 4]
    made = points(HEALTHY | probes(score, effective_modes=[0.1] * 12, diversity=[0.1] * 12))
    whole = replay(made)
    assert whole
    for cut in range(0, len(made), 7):
        log = EventLog([DETECTORS.build(kind) for kind in DETECTORS.names()])
        log.update(made[:cut])
        log.update(made[cut:])
        assert log.events == whole


def test_raw_and_unknown_points_change_nothing():
    made = points(HEALTHY)
    extra = [Point("fd_small_cnn_1k_raw", 0, p.discriminator_updates, 0, 0.0, 1e9) for p in made]
    mixed = [p for both in zip(made, extra, strict=True) for p in both]
    assert replay(mixed) == replay(made)


def test_config_removes_detectors_and_refuses_to_stop_on_what_nobody_watches():
    config = EventsConfig.from_dict(
        {"detectors": {"mode_collapse": None, "divergence": {"doublings": 3}}, "stop_on": []}
    )
    assert {d.name for d in config.detectors} == set(DETECTORS.names()) - {"mode_collapse"}
    assert EventsConfig.from_dict(config.to_dict()) == config
    with pytest.raises(StudyError, match="unknown event that is watched for 'mode_collapse'"):
        EventsConfig.from_dict(
            {"detectors": {"mode_collapse": None}, "stop_on": ["mode_collapse"]}
        )
    with pytest.raises(StudyError, match="stop_on: recovery is no failure"):
        EventsConfig.from_dict({"stop_on": ["divergence", "recovery"]})
