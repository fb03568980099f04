"""One arm twice, and one broken on purpose: what they share with their arm and what not."""

from __future__ import annotations

import json
import math

import jsonschema
import pytest
from ruamel.yaml import YAML

from ganstudy.catalog import study_schema
from ganstudy.preview import preview
from ganstudy.records import load_results
from ganstudy.registry import StudyError
from ganstudy.store import StudyFolder
from ganstudy.study.checks import load_study, notes
from ganstudy.study.controls import DEFECT, SEED_OFFSET
from ganstudy.study.plan import plan, planned
from ganstudy.study.spec import parse_study
from ganstudy.sweep.driver import Run, first_changed, pending

BOTH = {"same": "wgan_gp", "broken": True}


def trials_of(spec, arm):
    return {(t.config_id, t.seed): t for t in plan(spec) if t.arm == arm}


@pytest.mark.parametrize("sampler", ["random", "sobol", "grid"])
def test_the_arm_again_has_the_same_configs_and_other_seeds(tiny, sampler):
    tiny["design"] = {"configs": 4, "seeds": [0, 3], "sampler": sampler, "include_defaults": True}
    if sampler == "grid":
        tiny["space"] = {"n_critic": {"choice": [2, 3, 5]}}
    alone, spec = parse_study(tiny), parse_study(tiny | {"controls": {"same": "wgan_gp"}})
    one, other = trials_of(spec, "wgan_gp"), trials_of(spec, "wgan_gp_again")
    assert one == trials_of(alone, "wgan_gp"), "no trial of another arm moves"
    assert set(other) == {(config, seed + SEED_OFFSET) for config, seed in one}
    for (config, seed), trial in one.items():
        twin = other[config, seed + SEED_OFFSET]
        assert twin.params == trial.params
        assert twin.train.seed == seed + SEED_OFFSET
    hashes = [t.result_hash for t in (*one.values(), *other.values())]
    assert len(set(hashes)) == len(hashes)
    assert not [note for note in notes(spec) if "one arm twice" in note]


def test_in_an_unpaired_design_it_has_draws_of_its_own(tiny):
    tiny["design"] |= {"paired": False}
    spec = parse_study(tiny | {"controls": {"same": True}})
    assert spec.controls.same is not None
    assert spec.controls.same.arm == "non_saturating"
    rates = {arm.name: {t.params["generator_optimizer.lr"] for t in plan(spec)
                        if t.arm == arm.name} for arm in spec.arms}  # fmt: skip
    assert not rates["non_saturating"] & rates["non_saturating_again"]


def test_the_broken_arm_differs_in_its_defect_alone(tiny):
    spec = parse_study(tiny | {"controls": {"broken": "wgan_gp"}})
    assert [arm.name for arm in spec.arms] == ["non_saturating", "wgan_gp", "wgan_gp_broken"]
    one, other = trials_of(spec, "wgan_gp"), trials_of(spec, "wgan_gp_broken")
    assert set(one) == set(other)
    for key, trial in one.items():
        there, here = trial.train.to_dict(), other[key].train.to_dict()
        assert here.pop("stabilizers") == {DEFECT: {}}
        assert there.pop("stabilizers") == {}
        assert here == there


def test_what_is_resolved_says_which_arm_is_which_and_is_the_same_study(tiny):
    spec = parse_study(tiny | {"controls": BOTH})
    resolved = json.loads(json.dumps(spec.resolved()))
    assert resolved["controls"] == {
        "same": {"arm": "wgan_gp", "again": "wgan_gp_again"},
        "broken": {"arm": "non_saturating", "broken": "non_saturating_broken"},
    }
    assert list(resolved["arms"]) == [arm.name for arm in spec.arms]
    again = parse_study(resolved)
    assert plan(again) == plan(spec)
    assert again.controls == spec.controls
    assert again.resolved() == resolved
    assert parse_study(tiny).resolved()["controls"] == {"same": None, "broken": None}
    for written in (tiny | {"controls": BOTH}, resolved):
        jsonschema.Draft202012Validator(study_schema()).validate(written)


@pytest.mark.parametrize(
    ("controls", "path", "rule"),
    [
        ("wgan_gp", "controls", "must be {same: ARM"),
        ({"sam": True}, "controls.sam", "did you mean 'same'"),
        ({"same": "wgangp"}, "controls.same", "did you mean 'wgan_gp'"),
        ({"broken": 3}, "controls.broken", "letters, digits"),
        ({"same": {"arm": "wgan_gp"}}, "controls.same", "again: NAME"),
        ({"same": {"arm": "wgan_gp", "again": "no name"}}, "controls.same", "letters, digits"),
        ({"same": {"arm": "wgan_gp", "again": ["x"]}}, "controls.same", "letters, digits"),
        ({"same": {"arm": ["x"], "again": "y"}}, "controls.same", "letters, digits"),
        ({"same": {"arm": "wgan_gp", "again": "wgan_gp"}}, "controls.same", "another arm"),
        ({"same": {"arm": "wgan_gp", "again": "non_saturating"}}, "controls.same", "another arm"),
    ],
)
def test_what_is_wrong_is_told(tiny, controls, path, rule):
    with pytest.raises(StudyError) as error:
        parse_study(tiny | {"controls": controls})
    assert error.value.path == path
    assert rule in error.value.rule


def test_a_name_that_is_taken_is_refused(tiny):
    tiny["arms"]["wgan_gp_again"] = {"loss": "hinge"}
    with pytest.raises(StudyError, match="which there is already"):
        parse_study(tiny | {"controls": {"same": "wgan_gp"}})


@pytest.mark.parametrize("seeds", [[0, SEED_OFFSET], [2**63 - 1]])
def test_seeds_that_the_twins_would_share_are_refused(tiny, seeds):
    tiny["design"]["seeds"] = seeds
    parse_study(tiny | {"controls": {"broken": True}})
    with pytest.raises(StudyError, match="controls.same: trains at seeds 1,000,000 above"):
        parse_study(tiny | {"controls": {"same": True}})


def test_controls_are_set_on_the_command_line_and_told_by_the_plan(tiny, write_study):
    path = write_study(tiny)
    spec = load_study(path, ["controls.same=true", "controls.broken=wgan_gp"])
    told = preview(spec, list(planned(spec)))
    assert told["trials_total"] == 8
    lines = [line for line in told["tells"]["text"] if line.startswith("control: ")]
    assert "non_saturating_again is non_saturating again" in lines[0]
    assert "wgan_gp_broken is wgan_gp with its untrained generator" in lines[1]
    pairs = next(line for line in told["tells"]["text"] if "Holm" in line)
    assert "over 1 pairs" in pairs, "the controls are no question of the study"


def test_they_can_be_added_to_a_study_and_extended_with_it(tiny, tmp_path):
    folder = StudyFolder(tmp_path / "tiny")
    folder.create()
    Run(parse_study(tiny), folder, "unused").begin()
    tiny["controls"] = BOTH
    more = parse_study(tiny)
    assert first_changed(more, folder) is None
    Run(more, folder, "unused").begin()
    tiny["design"] |= {"configs": 5, "seeds": [0, 7]}
    assert first_changed(parse_study(tiny), folder) is None


def test_an_adaptive_search_of_the_arm_again_has_its_own_seeds(tiny, tmp_path):
    tiny["design"]["sampler"] = "tpe"
    spec = parse_study(tiny | {"controls": {"same": "wgan_gp"}})
    folder = StudyFolder(tmp_path / "tiny")
    folder.create()
    Run(spec, folder, "unused").begin()
    source = pending(spec, folder)
    seeds = {(t.arm, t.seed) for t in iter(source.next, None)}
    assert seeds == {
        ("non_saturating", 0), ("wgan_gp", 0), ("wgan_gp_again", SEED_OFFSET)
    }  # fmt: skip
    assert first_changed(spec, folder) is None


def test_a_real_study_runs_its_controls(tiny, tmp_path, tracking_store):
    """Rows of the twins differ, units are the same, and the broken arm loses to its arm."""
    from rich.console import Console

    from ganstudy.display import Display

    tiny |= {"controls": {"same": True, "broken": True}}
    tiny["arms"] = {"plain": {"loss": "non_saturating"}}
    tiny["base"] |= {"budget": {"discriminator_updates": 120}}
    tiny["space"] = {"optimizer.lr": {"log_uniform": [5e-4, 2e-3]}}
    tiny["measure"] |= {"every": {"discriminator_updates": 60}}
    spec = parse_study(tiny)
    folder = StudyFolder(tmp_path / "tiny")
    folder.create()
    run = Run(spec, folder, tracking_store, in_process=True)
    run.begin()
    with Display(Console(quiet=True), 6, spec.measure.primary, True, 0) as display:
        run.execute(display, pending(spec, folder))
    run.conclude(score=False)
    resolved = YAML(typ="safe").load((folder.folder / "study.yaml").read_text())
    trials = load_results(folder.folder).trials.set_index(["arm", "config_id"])
    scores = trials[f"best.{spec.measure.primary}"]
    same, broken = resolved["controls"]["same"], resolved["controls"]["broken"]
    assert list(scores[same["arm"]].index) == list(scores[same["again"]].index)
    assert (scores[same["arm"]] != scores[same["again"]]).all()
    assert (scores[broken["arm"]] < scores[broken["broken"]]).all()
    assert set(trials["status"]) == {"completed"}
    assert not scores.map(math.isnan).any()
