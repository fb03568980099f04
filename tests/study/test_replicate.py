"""Phases: a study, and then its best configurations again over fresh seeds."""

from __future__ import annotations

import copy
import dataclasses
import shutil

import pytest
from rich.console import Console
from ruamel.yaml import YAML

from ganstudy.display import Display
from ganstudy.preview import preview
from ganstudy.records import TrialStatus, load_results
from ganstudy.registry import StudyError
from ganstudy.store import StudyFolder
from ganstudy.study.checks import load_study, notes
from ganstudy.study.plan import plan, planned
from ganstudy.study.spec import parse_study
from ganstudy.sweep.driver import Run, best_trials, pending
from tests.conftest import TINY, write_yaml


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tracking_store):
    """A real finished study of three configs an arm, the defaults besides."""
    tiny = copy.deepcopy(TINY)
    tiny["design"] = {"configs": 3, "include_defaults": True, "seeds": [0, 2]}
    tiny["base"]["budget"] = {"discriminator_updates": 20}
    spec = parse_study(tiny)
    folder = StudyFolder(tmp_path_factory.mktemp("runs") / "tiny")
    folder.create()
    run = Run(spec, folder, tracking_store, in_process=True)
    run.begin()
    with Display(Console(quiet=True), 100, spec.measure.primary, True, 0) as display:
        run.execute(display, pending(spec, folder))
    run.conclude(score=False)
    return folder.folder


@pytest.fixture
def source(finished, tmp_path):
    """A copy of it that a test may change."""
    return shutil.copytree(finished, tmp_path / "source")


def replicate(source, write_study, **keys):
    asked = {"from": str(source), "select": {"top": 2}, "seeds": 3} | keys.pop("replicate", {})
    return load_study(write_study({"study": "again", "replicate": asked, **keys}))


def ranked(source, arm):
    """The arm's configs by their median over seeds, by pandas alone."""
    trials = load_results(source).trials
    mine = trials[(trials["arm"] == arm) & (trials["status"] == TrialStatus.COMPLETED)]
    mine = mine[mine["config_id"] != "default"]  # no draw from the search space
    (score,) = [c for c in trials if c.startswith("best.kd_") and not c.endswith("_se")]
    return mine.groupby("config_id")[score].median().sort_values()


def test_the_best_configs_of_each_arm_are_run_over_seeds_that_the_source_did_not_use(
    source, write_study
):
    spec = replicate(source, write_study)
    trials = plan(spec)
    original = load_results(source).trials.set_index("trial_id")
    for arm in ("non_saturating", "wgan_gp"):
        mine = [t for t in trials if t.arm == arm]
        assert {t.config_id for t in mine} == set(ranked(source, arm).index[:2])
        assert sorted({t.seed for t in mine}) == [3, 4, 5]
        assert len(mine) == 2 * 3
        for trial in mine:
            row = original.loc[f"{arm}-{trial.config_id}-s0"]
            drawn = trial.params.get("generator_optimizer.lr")
            assert drawn == row["param.generator_optimizer.lr"]
            assert trial.train.generator_optimizer.lr == drawn
    # The config that is first in an arm comes before all that are second everywhere.
    first = {ranked(source, arm).index[0] for arm in ("non_saturating", "wgan_gp")}
    assert trials[0].config_id in first


def test_what_is_resolved_needs_its_source_no_more(source, write_study):
    spec = replicate(source, write_study)
    for file in source.iterdir():
        if file.is_file():
            file.unlink()
    again = parse_study(spec.resolved())
    assert [t.result_hash for t in plan(again)] == [t.result_hash for t in plan(spec)]


def test_more_seeds_move_no_trial_and_other_settings_lie_over_the_sources(source, write_study):
    few, many = replicate(source, write_study), replicate(source, write_study,
                                                          replicate={"seeds": 5})  # fmt: skip
    hashes = {t.trial_id: t.result_hash for t in plan(many)}
    assert all(hashes[t.trial_id] == t.result_hash for t in plan(few))
    other = replicate(
        source,
        write_study,
        base={"budget": {"discriminator_updates": 40}},
        arms={"wgan_gp": None},
        measure={"features": "pixels", "metrics": ["kernel_distance"], "samples": 50},
    )
    assert [arm.name for arm in other.arms] == ["non_saturating"]
    assert other.arms[0].train({}, 0).discriminator_updates == 40
    assert other.measure.samples == 50
    assert few.measure.samples == 60, "the source's measures, unless others are written"


def test_the_plan_tells_what_seeds_can_tell(source, write_study):
    study = replicate(source, write_study)
    told = preview(study, list(planned(study)))["tells"]
    # Three seeds each: 20 equally likely orders of ranks, two of them the most extreme.
    assert told["smallest_p"] == pytest.approx(2 / 20)
    assert "chosen configs are repeated" in told["text"][0]
    assert "3 seeds each" in told["text"][1]


def test_the_generator_that_is_told_of_is_of_the_arms_first_config(source, write_study):
    spec = replicate(source, write_study)
    score = f"best.{spec.measure.primary}"
    arm = "wgan_gp"
    first, second = spec.replicate.configs[arm]
    trials = [
        {"arm": arm, "config_id": c, "status": TrialStatus.COMPLETED, score: value, "seed": 0,
         "trial_id": c, "result_hash": c, "reason": "", "generator_best": c}
        for c, value in ((first, 2.0), (second, 1.0))
    ]  # fmt: skip
    assert [t["config_id"] for t in best_trials(spec, trials, load_results(source).events)] == [
        first
    ]


def test_notes_are_of_the_configs_that_are_repeated(source, write_study):
    plain = {"name": "infogan", "width": 2, "discriminator_normalization": "none"}
    spec = replicate(source, write_study, base={"architecture": plain})
    assert notes(spec) == []
    drawn = dict.fromkeys(spec.replicate.configs["wgan_gp"])
    batch, none = (
        {
            c: {"architecture.discriminator_normalization": norm, "optimizer.beta1": i / 10}
            for i, c in enumerate(drawn)
        }
        for norm in ("batch", "none")
    )
    for values, told in ((batch, 1), (none, 0)):
        chosen = spec.replicate.model_copy(
            update={"configs": spec.replicate.configs | {"wgan_gp": values}}
        )
        assert len(notes(dataclasses.replace(spec, replicate=chosen))) == told


@pytest.mark.parametrize(
    ("keys", "path", "rule"),
    [
        ({"replicate": {"from": "nowhere"}}, "replicate.from", "is not a study's folder"),
        ({"replicate": {"select": {"on": "report"}}}, "replicate.select.on", "known: select"),
        ({"replicate": {"select": {"top": 0}}}, "replicate.select.top", "greater than"),
        ({"replicate": {"select": {"top": 9}}}, "replicate.select.top", "has 3 configs"),
        ({"replicate": {"seed": 3}}, "replicate.seed", "did you mean 'seeds'"),
        ({"design": {"seeds": [1]}}, "replicate", "leave them out"),
        ({"design": {"sampler": "grid"}}, "replicate", "leave them out"),
        ({"arms": ["wgan_gp"]}, "replicate.arms", "a mapping is needed"),
        ({"arms": {"hinge": {"loss": "hinge"}}}, "replicate", "its source has no arm hinge"),
    ],
    ids=str,
)
def test_wrong_input_names_the_place(keys, path, rule, source, write_study):
    with pytest.raises(StudyError) as error:
        replicate(source, write_study, **keys)
    assert error.value.path == path
    assert rule in error.value.rule


def test_a_sampler_of_that_name_needs_the_key(tiny, write_study):
    tiny["design"]["sampler"] = "replicate"
    with pytest.raises(StudyError, match="design.sampler"):
        load_study(write_study(tiny))


def test_more_seeds_repeat_none(source, write_study):
    three = {trial.trial_id: trial.result_hash for trial in plan(replicate(source, write_study))}
    asked = {"select": {"top": 2}, "seeds": 5}
    spec = replicate(source, write_study, replicate=asked)
    five = {trial.trial_id: trial.result_hash for trial in plan(spec)}
    assert five.items() > three.items()
    assert len(five) / 5 == len(three) / 3


def test_a_control_repeats_the_configs_of_its_arm_and_the_sources_controls_stay_there(
    source, write_study
):
    settings = YAML(typ="safe").load((source / "study.yaml").read_text())
    settings["arms"]["wgan_gp_again"] = settings["arms"]["wgan_gp"]
    settings["controls"] = {"same": {"arm": "wgan_gp", "again": "wgan_gp_again"}, "broken": None}
    write_yaml(source / "study.yaml", settings)
    plain = replicate(source, write_study)
    assert [arm.name for arm in plain.arms] == ["non_saturating", "wgan_gp"]

    spec = replicate(source, write_study, controls={"same": "wgan_gp", "broken": True})
    assert [arm.name for arm in spec.arms][2:] == ["wgan_gp_again", "non_saturating_broken"]
    mine = {
        arm.name: {(t.config_id, t.seed, tuple(t.params.items()))
                   for t in plan(spec) if t.arm == arm.name}
        for arm in spec.arms
    }  # fmt: skip
    assert mine["non_saturating_broken"] == mine["non_saturating"]
    shifted = {(c, seed + 1_000_000, params) for c, seed, params in mine["wgan_gp"]}
    assert mine["wgan_gp_again"] == shifted
    assert plan(parse_study(spec.resolved())) == plan(spec)


def test_a_source_may_lie_in_an_object_store(source, write_study):
    from upath import UPath

    store = UPath("memory://bucket/tiny")
    for name in ("study.yaml", "protocol.json", "plan.jsonl", "trials.parquet"):
        (store / name).write_bytes((source / name).read_bytes())
    spec = replicate("memory://bucket/tiny", write_study)
    local = replicate(source, write_study)
    assert spec.replicate.from_.startswith("memory://")
    assert spec.replicate.configs == local.replicate.configs
    with pytest.raises(StudyError, match=r"replicate.from: memory://bucket/none is not a study's"):
        replicate("memory://bucket/none", write_study)
