"""The detectors against the kept labelled runs, and the runs against the script that made them."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ganstudy.gan.datasets import DATASETS, normalize
from ganstudy.measure.events import names
from ganstudy.records import Point
from ganstudy.trial import READ_EVERY
from tests.labelled import traces
from tests.labelled.fates import KINDS, judged, recovered, stands_still, without_collapse
from tests.labelled.faults import (
    Constant,
    FaultyTrainer,
    LearningRate,
    NonFinite,
    OverTrain,
    Pattern,
    Remove,
    Rotate,
    Scale,
    Squeeze,
    Stored,
)
from tests.labelled.make import kept, told, trained
from tests.labelled.outside import Look, outside
from tests.labelled.runs import PARTS, Run, game, mlp, r1, runs
from tests.labelled.scoring import (
    Decision,
    Replayed,
    Share,
    decided,
    false_alarms,
    is_healthy,
    replayed,
    tallies,
)

EVERY = 4
"""One in so many kept runs is replayed here; benchmarks/events.py replays all."""
EARLY = 50
"""Discriminator updates after which a run that is made again may have drifted."""
NO_SIZE = (NonFinite, Stored)
"""Faults that come in one size: a NaN, and real images as they are."""
RING = game({"name": "ring", "std": 0.02}, "non_saturating", regularizers=r1(0.1))
DIGITS = game({"name": "digits"}, "non_saturating", architecture=mlp(16))


# ------------------------------------------------------------------------------ the kept runs


FAULTY_PARTS = ("choose", "publish")


@pytest.fixture(scope="module", params=FAULTY_PARTS)
def part(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def sample(part) -> list[Replayed]:
    rows = traces.read_fates(part)[::EVERY]
    return list(replayed(rows, traces.read_traces(part, [row["run"] for row in rows])))


@pytest.mark.parametrize("part", list(PARTS))
def test_the_tables_hold_the_runs_that_the_script_lists(part):
    listed = {run.name: run for run in runs(part)}
    rows = traces.read_fates(part)
    assert [row["run"] for row in rows] == list(listed)
    assert [name for name, _ in traces.read_traces(part)] == list(listed)
    for row in rows:
        run = listed[row["run"]]
        settings = run.spec().train
        found = row["seed"], row["dataset"], row["loss"], row["budget"], row["fault"]
        fault = None if run.fault is None else run.fault.name
        assert found == (
            run.seed,
            settings.dataset.name,
            settings.loss.name,
            settings.discriminator_updates,
            fault,
        )


def test_the_parts_share_no_data_no_loss_but_minimax_and_no_size():
    used = {part: {r["dataset"] for r in traces.read_fates(part)} for part in FAULTY_PARTS}
    assert used == {"choose": {"ring", "digits"}, "publish": {"grid", "mnist5k", "dirac"}}
    losses = [{r["loss"] for r in traces.read_fates(part)} for part in FAULTY_PARTS]
    assert losses[0] & losses[1] == {"minimax"}
    planted = [
        {replace(r.fault, at=0, until=None) for r in runs(part) if r.fault}
        for part in FAULTY_PARTS
    ]
    assert all(isinstance(fault, NO_SIZE) for fault in planted[0] & planted[1])


def test_there_are_as_many_runs_as_the_claims_need():
    rows = traces.read_fates("publish")
    true = {kind: sum(row[f"fate.{kind}"] is True for row in rows) for kind in KINDS}
    for kind in KINDS:
        strict = kind in ("divergence", "mode_collapse", "vanishing_gradient", "quality_drop")
        assert true[kind] >= (60 if strict else 30), kind
    assert sum(map(is_healthy, rows)) >= 150


def test_there_are_ten_long_healthy_runs_of_each_data_set_and_three_losses():
    rows = [row for row in traces.read_fates("long") if is_healthy(row)]
    for dataset in ("ring", "mnist5k", "stacked_mnist"):
        own = [row for row in rows if row["dataset"] == dataset]
        assert sum(row["budget"] == 3000 for row in own) >= 10, dataset
        assert len({row["loss"] for row in own}) >= 3, dataset
    joint = [row["final_joint_modes"] for row in rows if row["dataset"] == "stacked_mnist"]
    assert min(joint) > 0.5, "a generator that shows few triples of digits has collapsed"


def test_the_alarms_of_long_healthy_runs_are_the_published_ones():
    """Neither more, which would be worse, nor fewer: then docs/events.md has to be updated."""
    with (traces.FOLDER / "long_wrong.csv").open(encoding="utf-8", newline="") as file:
        published = {tuple(line) for line in csv.reader(file)}
    rows = [row for row in traces.read_fates("long") if row["family"] != "longest_ring"]
    found = replayed(rows, traces.read_traces("long", [row["run"] for row in rows]))
    alarms = false_alarms(found, lambda fate: fate is not True)
    replayed_runs = {row["run"] for row in rows}
    assert {(kind, row["run"]) for row, kinds in alarms for kind in kinds} == {
        line for line in published if line[1] in replayed_runs
    }


def test_what_detectors_get_wrong_is_what_was_told(part, sample):
    """Neither more, which would be worse, nor less: then the figures are to be told anew."""
    with (traces.FOLDER / f"{part}_wrong.csv").open(encoding="utf-8", newline="") as file:
        told_wrong = {tuple(line) for line in csv.reader(file)}
    seen = {run.row["run"] for run in sample}
    wrong = {
        (kind, row["run"], str(call.decision))
        for kind, tally in tallies(sample).items()
        for row, call in tally.calls
        if call.decision in (Decision.MISSED, Decision.FALSE, Decision.EARLY)
    }
    assert wrong == {line for line in told_wrong if line[1] in seen}


def test_a_planted_failure_is_told_soon_after_its_onset(sample):
    delays = [probes for tally in tallies(sample).values() for _, probes in tally.delays]
    assert len(delays) > 20
    assert np.median(delays) <= 4


def test_nothing_is_told_of_a_failure_before_it_was_planted(sample):
    calls = [call for tally in tallies(sample).values() for _, call in tally.calls]
    early = sum(call.decision is Decision.EARLY for call in calls)
    hits = sum(call.decision is Decision.HIT for call in calls)
    assert early <= 0.05 * hits


@pytest.mark.parametrize(("part_", "family"), [("choose", "not_finite"), ("publish", "spiral")])
def test_the_script_makes_a_run_again(part_, family, tmp_path):
    rows = {row["run"]: row for row in traces.read_fates(part_)}
    run = next(run for run in runs(part_) if run.family.name == family)
    row = rows[run.name]
    record, trainer = trained(run, tmp_path)
    fates = {f"fate.{kind}" for kind in KINDS}
    again = told(run, record, trainer)
    assert {key: again[key] for key in fates} == {key: row[key] for key in fates}
    [(_, before)] = traces.read_traces(part_, [run.name])
    points = kept(list(record.points), run.spec().measure)
    # The kept runs are older than the share of samples near a known mode.
    points = [p for p in points if not p.name.startswith(names.HIGH_QUALITY)]
    keys = [[(p.name, p.discriminator_updates) for p in found] for found in (points, before)]
    assert keys[0] == keys[1]
    # Bits are those of one processor and its libraries, and a game drifts apart from the last of
    # them: the first updates are close on any.
    values, old = (
        np.array([p.value for p in found if p.discriminator_updates <= EARLY])
        for found in (points, before)
    )
    np.testing.assert_allclose(values, old, rtol=1e-2, atol=1e-4)


# ------------------------------------------------------------------------------- what decides


def looks(*scores: float, effective: float = 0.9, lost: tuple[int, ...] = ()) -> list[Look]:
    untrained = Look(0, 1.0, 0.01, 0.2, frozenset({0, 1}))
    return [untrained] + [
        Look(25 * i, score, 0.01, effective, frozenset(lost))
        for i, score in enumerate(scores, start=1)
    ]


def test_a_run_that_learns_and_stays_has_no_failure():
    found = judged(looks(0.6, 0.4, 0.3, 0.25, 0.25, 0.24, 0.25, 0.26))
    assert set(found.values()) == {False}


def test_a_run_that_is_not_finite_has_diverged_and_nothing_else_is_known():
    assert judged(looks(0.6, math.nan, 0.3, 0.3)) == {"divergence": True}


@pytest.mark.parametrize(
    ("tail", "known"),
    [((0.6, 0.6, 0.6), True), ((0.2, 0.2, 0.2), False), ((0.28, 0.29, 0.28), None)],
)
def test_a_score_that_stays_half_as_much_above_its_best_has_dropped(tail, known):
    assert judged(looks(0.6, 0.4, 0.2, 0.2, *tail))["quality_drop"] is known


def test_a_drop_of_two_looks_is_none_and_one_of_four_is_one():
    assert judged(looks(0.4, 0.2, 0.2, 0.6, 0.6, 0.2, 0.2, 0.2))["quality_drop"] is False
    assert judged(looks(0.4, 0.2, 0.6, 0.6, 0.6, 0.6, 0.2, 0.2))["quality_drop"] is True


def test_few_modes_at_the_end_are_a_collapse_and_few_at_the_start_are_none():
    begun = looks(0.6, 0.5, 0.4, effective=0.1)
    learned = looks(0.6, 0.5, 0.4, 0.3, 0.3, 0.3)[4:]
    assert judged(begun + learned)["mode_collapse"] is False
    assert judged(begun)["mode_collapse"] is True


def test_a_bad_score_at_the_end_is_a_divergence_unless_the_samples_are_collapsed():
    learned = looks(0.6, 0.4, 0.3)
    away = [look._replace(update=100 + look.update) for look in looks(2.0, 2.0, 2.0)[1:]]
    assert judged(learned + away)["divergence"] is True
    few = [look._replace(effective_modes=0.1) for look in away]
    found = judged(learned + few)
    assert (found["divergence"], found["mode_collapse"]) == (False, True)
    unsure = [look._replace(effective_modes=0.3) for look in away]
    assert judged(learned + unsure)["divergence"] is None


def test_no_kept_run_that_ended_collapsed_counts_as_diverged(part):
    rows = traces.read_fates(part)
    assert all(without_collapse(row) is row["fate.divergence"] for row in rows)
    ended = [
        row
        for row in rows
        if row["onset.mode_collapse"] is not None and row["final_effective_modes"] <= 0.25
    ]
    assert len(ended) > 10
    assert not any(row["fate.divergence"] for row in ended)


def test_a_collapse_is_told_as_a_collapse_and_not_as_a_divergence(sample):
    collapsed = [run for run in sample if run.row["fate.mode_collapse"]]
    kinds = [{event.kind for event in run.events} for run in collapsed]
    assert sum("mode_collapse" in found for found in kinds) > 0.8 * len(kinds) > 10
    assert sum("divergence" in found for found in kinds) <= 1


def test_the_same_mode_must_be_lost_at_the_end():
    kept_modes = looks(0.5, 0.3, 0.2, 0.2)
    gone = looks(*[0.2] * 7, lost=(3,))[5:]
    assert judged(kept_modes + gone)["mode_dropping"] is True
    others = [look._replace(lost=frozenset({i})) for i, look in enumerate(gone)]
    assert judged(kept_modes + others)["mode_dropping"] is False


def test_recovery_is_the_score_coming_back():
    assert recovered(looks(0.4, 0.2, 0.9, 0.9, 0.9, 0.22, 0.21, 0.22), 75, 150) is True
    assert recovered(looks(0.4, 0.2, 0.9, 0.9, 0.9, 0.6, 0.6, 0.6), 75, 150) is False


def steps(*values: float) -> list[Point]:
    return [Point("update_ratio", 0, 25 * i, 0, 0.0, v) for i, v in enumerate(values, start=1)]


def test_a_generator_stands_still_if_its_steps_become_far_smaller_and_stay_so():
    fault = OverTrain(at=75)
    assert stands_still(steps(0.01, 0.02, 0.01, 0.01, 1e-4, 1e-4, 1e-5), fault)
    assert not stands_still(steps(0.01, 0.02, 0.01, 1e-4, 0.01, 1e-4, 1e-4), fault)
    assert not stands_still(steps(0.001, 0.002, 0.001, 1e-3, 1e-3, 1e-3, 1e-3), fault)


# ---------------------------------------------------------------------------------- the faults


def trainer_of(settings, fault) -> FaultyTrainer:
    run = Run("choose", next(f for f in PARTS["choose"] if f.name == "constant"), 0)
    object.__setattr__(run, "game", settings)
    config = run.spec().train
    watch = outside(config.dataset)
    return FaultyTrainer(config, fault, watch.modes_of, watch.modes_count)


def drawn(trainer, count=400) -> torch.Tensor:
    return trainer.sample(count, torch.Generator().manual_seed(3))


def test_a_fault_of_samples_leaves_the_training_as_it_is():
    trainers = [trainer_of(RING, fault) for fault in (None, Constant(at=25, size=0.0))]
    signals = [[trainer.advance(READ_EVERY) for _ in range(3)] for trainer in trainers]
    assert signals[0] == signals[1]


def test_a_fault_is_there_from_its_onset_until_its_end():
    trainer = trainer_of(RING, Constant(at=25, until=50, size=0.0))
    spread = []
    for _ in range(3):
        spread.append(float(drawn(trainer).std(dim=0).max()))
        trainer.advance(READ_EVERY)
    assert spread[0] > 0
    assert spread[1] == pytest.approx(0, abs=1e-6)
    assert spread[2] > 0


def test_squeezing_leaves_as_many_heaps_as_there_are_anchors():
    trainer = trainer_of(RING, Squeeze(at=0, size=1.0, anchors=2))
    assert len(drawn(trainer).flatten(1).unique(dim=0)) == 2


def test_removed_modes_are_gone_and_rotating_ones_take_turns():
    trainer = trainer_of(RING, None)
    for _ in range(6):
        trainer.advance(READ_EVERY)
    counts = {}
    for fault in (
        None,
        Remove(at=0, modes=(1, 4)),
        Rotate(at=0, size=1.0, period=150),
        Rotate(at=0, size=1.0, period=300),
    ):
        trainer.fault = fault
        counts[fault] = np.bincount(trainer.modes_of(drawn(trainer, 800)), minlength=8)
    before, removed, now, half_a_turn_away = counts.values()
    assert before.min() > 20
    assert removed[[1, 4]].max() == 0
    assert removed[[0, 2, 3, 5, 6, 7]].min() > 20
    assert now.argmax() in (7, 0, 1)
    assert half_a_turn_away.argmax() in (3, 4, 5)


def test_a_pattern_is_as_strong_as_it_says_on_real_images():
    trainer = trainer_of(DIGITS, Pattern(at=0, size=10.0))
    real = normalize(DATASETS.build("digits").images("report"))
    spoilt = trainer.fault.sampled(trainer, real, torch.Generator())
    power = [np.mean(np.abs(np.fft.fft2(x.numpy())[..., 4, 4]) ** 2) for x in (real, spoilt)]
    # The images' own pattern adds to the planted one, or takes from it, where it has a sign.
    assert 10 * math.log10(power[1] / power[0]) == pytest.approx(10, abs=0.5)


def test_copies_are_training_images():
    trainer = trainer_of(DIGITS, Stored(at=0, size=0.0))
    assert outside(trainer.config.dataset).copies(trainer) == 1.0
    trainer.fault = Stored(at=0, size=0.0, split="report")
    assert outside(trainer.config.dataset).copies(trainer) < 0.01


def test_faults_of_networks_do_what_they_say():
    trainer = trainer_of(RING, Scale(at=0, size=3.0, role="discriminator"))
    before = [w.detach().clone() for w in trainer.weights("discriminator")]
    trainer.fault.strike(trainer)
    for old, new in zip(before, trainer.weights("discriminator"), strict=True):
        torch.testing.assert_close(new.detach(), 3 * old)
    trainer.fault = NonFinite(at=0, role="generator")
    trainer.fault.strike(trainer)
    assert any(w.isnan().any() for w in trainer.weights("generator"))


def test_a_learning_rate_of_nothing_stops_one_network_only():
    trainer = trainer_of(RING, LearningRate(at=0, size=0.0, roles=("discriminator",)))
    before = {
        role: [w.detach().clone() for w in trainer.state.__dict__[role].parameters()]
        for role in ("generator", "discriminator")
    }
    trainer.advance(READ_EVERY)
    same = {
        role: all(
            torch.equal(old, new)
            for old, new in zip(olds, trainer.state.__dict__[role].parameters(), strict=True)
        )
        for role, olds in before.items()
    }
    assert same == {"generator": False, "discriminator": True}


def test_over_training_makes_the_discriminator_surer_and_drops_its_penalties():
    plain, over = (trainer_of(RING, f) for f in (None, OverTrain(at=0, size=2, burst=100)))
    signals = [trainer.advance(READ_EVERY) for trainer in (plain, over)]
    assert "penalty/r1" in signals[0]
    assert "penalty/r1" not in signals[1]
    gaps = [s["real_logits_mean"] - s["fake_logits_mean"] for s in signals]
    assert gaps[1] > 2 * gaps[0]
    assert over.discriminator_updates == plain.discriminator_updates == READ_EVERY


# --------------------------------------------------------------------------------- the scoring


def test_bounds_are_those_that_the_number_of_runs_allows():
    assert Share(59, 59).lower > 0.95 > Share(58, 58).lower
    assert Share(29, 29).lower > 0.90 > Share(28, 28).lower
    assert Share(0, 149).upper < 1 / 50 < Share(0, 148).upper
    assert (Share(0, 0).lower, Share(0, 0).upper) == (0.0, 1.0)


def test_an_event_before_the_onset_is_a_false_alarm_and_a_miss(sample):
    planted = next(
        (run, kind)
        for run in sample
        for kind in KINDS
        if run.row[f"onset.{kind}"] and decided(run.row, kind, run.points, run.events).delay
    )
    (row, points, events), kind = planted
    call = decided(row, kind, points, events)
    assert call.decision is Decision.HIT
    probes = [p for p in points if p.name == names.SCORE]
    assert 0 < call.probes <= len(probes)
    later = {**row, f"onset.{kind}": 10**6, "fault_until": 10**6}
    assert decided(later, kind, points, events).decision is Decision.EARLY
    assert decided(row, kind, points, []).decision is Decision.MISSED
    unknown = {**row, f"fate.{kind}": None}
    assert decided(unknown, kind, points, events).decision is Decision.UNKNOWN


def test_healthy_runs_are_those_that_nothing_is_known_against(sample):
    told_of = dict.fromkeys(KINDS, False)
    row = {f"fate.{kind}": fate for kind, fate in told_of.items()}
    assert is_healthy(row)
    assert not is_healthy(row | {"fate.oscillation": True})
    assert not is_healthy(row | {"fate.mode_collapse": None})
    assert is_healthy(row | {"fate.discriminator_overpowering": None})
    healthy = [run for run in sample if is_healthy(run.row)]
    assert len(false_alarms(sample)) == len(healthy) > 10


def test_tables_are_written_and_read_back(tmp_path):
    rows = traces.read_fates("choose")[:2]
    pairs = list(traces.read_traces("choose", [row["run"] for row in rows]))
    traces.write("choose", pairs, rows, tmp_path)
    assert list(traces.read_traces("choose", folder=tmp_path)) == pairs
    assert traces.read_fates("choose", tmp_path) == rows


def test_the_kept_tables_are_small():
    paths = [path for part in PARTS for path in Path(traces.FOLDER).glob(f"{part}*.parquet")]
    assert len(paths) == 6
    assert sum(path.stat().st_size for path in paths) < 4_000_000
