from __future__ import annotations

import pytest

from ganstudy.study.plan import plan, planned
from ganstudy.study.spec import parse_study
from ganstudy.trial import TrialSpec


def by_id(study):
    return {trial.trial_id: trial for trial in plan(parse_study(study))}


def test_the_first_trials_cover_every_arm(tiny):
    assert [t.trial_id for t in plan(parse_study(tiny))] == [
        "non_saturating-c00-s0",
        "wgan_gp-c00-s0",
        "non_saturating-c01-s0",
        "wgan_gp-c01-s0",
    ]


def test_paired_arms_share_their_draws_and_unpaired_do_not(tiny):
    paired = by_id(tiny)
    assert paired["non_saturating-c00-s0"].params == paired["wgan_gp-c00-s0"].params
    tiny["design"]["paired"] = False
    unpaired = by_id(tiny)
    assert unpaired["non_saturating-c00-s0"].params != unpaired["wgan_gp-c00-s0"].params


@pytest.mark.parametrize("change", ["configs", "seeds", "arm", "key"])
def test_extending_a_study_moves_no_other_draw(tiny, change):
    before = by_id(tiny)
    if change == "configs":
        tiny["design"]["configs"] = 5
    elif change == "seeds":
        tiny["design"]["seeds"] = [0, 1]
    elif change == "arm":
        tiny["arms"] = {"hinge": {"loss": "hinge"}} | tiny["arms"]
    else:
        tiny["arms"]["wgan_gp"]["space"] = {"n_critic": {"choice": [1, 5]}}
    after = by_id(tiny)
    for trial_id, trial in before.items():
        if change != "key" or trial.arm != "wgan_gp":
            assert after[trial_id].result_hash == trial.result_hash


def test_draws_are_uniform():
    from ganstudy.study.plan import uniform

    draws = [uniform(0, "", "lr", i) for i in range(4000)]
    # The mean of 4,000 uniforms has a standard deviation of 0.0046.
    assert sum(draws) / 4000 == pytest.approx(0.5, abs=0.02)
    assert 0 <= min(draws) < 0.01
    assert 0.99 < max(draws) < 1


def test_a_grid_takes_every_product(tiny):
    tiny["design"] = {"sampler": "grid"}
    tiny["space"] = {"n_critic": {"choice": [1, 2]}, "batch_size": {"choice": [16, 32, 64]}}
    trials = by_id(tiny)
    assert len(trials) == 2 * 6
    assert len({tuple(t.params.values()) for t in trials.values()}) == 6


def test_sobol_is_shared_by_arms_and_repeatable(tiny):
    tiny["design"] = {"sampler": "sobol", "configs": 8}
    first, second = by_id(tiny), by_id(tiny)
    assert first == second
    assert first["wgan_gp-c03-s0"].params == first["non_saturating-c03-s0"].params
    rates = sorted(t.params["generator_optimizer.lr"] for t in first.values())
    assert len(set(rates)) == 8


@pytest.mark.parametrize("configs", [3, 4, 5, 33])
def test_more_points_of_a_sobol_sequence_move_none(tiny, configs):
    tiny["space"]["n_critic"] = {"choice": [1, 2, 3]}
    tiny["design"] = {"sampler": "sobol", "configs": 3}
    before = by_id(tiny)
    tiny["design"]["configs"] = configs
    after = by_id(tiny)
    assert {name: after[name].params for name in before} == {
        name: trial.params for name, trial in before.items()
    }
    assert len(after) == 2 * configs


def test_what_is_planned_is_what_runs(tiny):
    tiny["design"] |= {"seeds": [3, 4], "include_defaults": True}
    spec = parse_study(tiny)
    for light, built in zip(planned(spec), plan(spec), strict=True):
        assert light.trial_id == built.trial_id
        assert light.values == built.params
        assert light.train() == built.train


def test_defaults_run_beside_the_configs(tiny):
    tiny["design"] |= {"include_defaults": True}
    trials = by_id(tiny)
    assert trials["wgan_gp-default-s0"].params == {}
    assert len(trials) == 6


def test_a_trial_survives_its_own_dict_and_its_hash_means_its_result(tiny):
    trial = plan(parse_study(tiny))[0]
    assert TrialSpec.from_dict(trial.to_dict()) == trial
    tiny["question"] = "Another one?"
    assert plan(parse_study(tiny))[0].result_hash == trial.result_hash
    tiny["measure"]["samples"] = 50
    assert plan(parse_study(tiny))[0].result_hash != trial.result_hash


def test_a_resolved_study_plans_the_same_trials(tiny):
    tiny["arms"]["clip"] = {"loss": "wasserstein", "regularizers": {"weight_clip": {}}}
    tiny["arms"]["clip"]["space"] = {"regularizers.weight_clip.limit": {"log_uniform": [1e-3, 1]}}
    spec = parse_study(tiny)
    assert plan(parse_study(spec.resolved())) == plan(spec)
