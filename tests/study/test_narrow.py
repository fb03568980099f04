"""The narrow space: read and checked, without a word in what is drawn, run or judged."""

from __future__ import annotations

import json

import jsonschema
import pandas as pd
import pytest
from typer.testing import CliRunner

from analysis.sceptic import narrowed
from analysis.tables import Study
from ganstudy.catalog import study_schema
from ganstudy.cli import app
from ganstudy.registry import StudyError
from ganstudy.store import StudyFolder
from ganstudy.study.checks import load_study
from ganstudy.study.narrow import within
from ganstudy.study.plan import plan
from ganstudy.study.reading import read_yaml
from ganstudy.study.replicate import expand
from ganstudy.study.space import parse_distribution
from ganstudy.study.spec import parse_study
from ganstudy.sweep.driver import Run, first_changed, pending
from ganstudy.why import unlike
from tests.conftest import ROOT

LR = "generator_optimizer.lr"
HALF = {LR: {"log_uniform": [1e-3, 1e-2]}}


def of(spec):
    """Return arm -> its narrow space as plain data."""
    return {name: arm["narrow"] for name, arm in spec.resolved()["arms"].items()}


def test_it_is_the_studys_for_every_arm_unless_an_arm_says_its_own(tiny):
    tiny["arms"]["wgan_gp"]["space"] = {"n_critic": {"choice": [1, 2, 5]}}
    tiny["arms"]["third"] = {"loss": "hinge", "narrow": {LR: None}}
    tiny["narrow"] = HALF | {"n_critic": {"choice": [2]}}
    tiny["arms"]["wgan_gp"]["narrow"] = {LR: {"log_uniform": [1e-4, 2e-4]}}
    spec = parse_study(tiny)
    assert of(spec) == {
        "non_saturating": HALF,
        "wgan_gp": {LR: {"log_uniform": [1e-4, 2e-4]}, "n_critic": {"choice": [2]}},
        "third": {},
    }
    resolved = json.loads(json.dumps(spec.resolved()))
    assert parse_study(resolved).resolved() == resolved
    for written in (tiny, resolved):
        jsonschema.Draft202012Validator(study_schema()).validate(written)
    wrong = tiny | {"narrow": {LR: {"log_unform": [1e-3, 1e-2]}}}
    assert not jsonschema.Draft202012Validator(study_schema()).is_valid(wrong)


@pytest.mark.parametrize("sampler", ["random", "sobol"])
def test_it_changes_no_trial_and_no_judgement(tiny, sampler):
    tiny["design"] = {"configs": 8, "seeds": [0, 1], "sampler": sampler}
    plain, spec = parse_study(tiny), parse_study(tiny | {"narrow": HALF})
    assert plan(spec) == plan(plain)
    assert [t.result_hash for t in plan(spec)] == [t.result_hash for t in plan(plain)]
    assert spec.judged_by == plain.judged_by


def test_controls_have_that_of_their_arm(tiny):
    tiny["narrow"] = HALF
    tiny["arms"]["wgan_gp"]["narrow"] = {LR: {"log_uniform": [1e-4, 2e-4]}}
    tiny["controls"] = {"same": "wgan_gp", "broken": True}
    spec = parse_study(tiny)
    assert of(spec)["wgan_gp_again"] == of(spec)["wgan_gp"] != HALF
    assert of(spec)["non_saturating_broken"] == HALF
    resolved = spec.resolved()
    resolved["arms"]["wgan_gp"]["narrow"] = {}
    assert of(parse_study(resolved))["wgan_gp_again"] == {}, "the arm alone was edited"


@pytest.mark.parametrize(
    ("narrow", "path", "rule"),
    [
        ("lr", "narrow", "a mapping is needed"),
        ({"generator_optimizer.lt": HALF[LR]}, "narrow.generator_optimizer.lt", f"mean '{LR}'"),
        ({"batch_size": {"choice": [32]}}, "narrow.batch_size", "unknown key of any arm's space"),
        ({LR: 0.001}, f"narrow.{LR}", "a mapping with one of"),
        ({LR: {"log_uniform": [1e-2, 1e-3]}}, f"narrow.{LR}.log_uniform", "inverted"),
        (
            {LR: {"log_uniform": [1e-5, 1e-3]}},
            f"narrow.{LR}",
            "log_uniform [1e-05, 0.001] does not lie within log_uniform [0.0001, 0.01], from "
            f"which space.{LR} draws: give a narrower log_uniform",
        ),
        ({LR: {"uniform": [1e-3, 1e-2]}}, f"narrow.{LR}", "uniform [0.001, 0.01] does not lie"),
        ({LR: {"choice": [1e-3]}}, f"narrow.{LR}", "give a narrower log_uniform"),
        ({LR: HALF[LR] | {"when": {"loss": "hinge"}}}, f"narrow.{LR}.when", "leave it out"),
    ],
)
def test_what_is_wrong_is_told(tiny, narrow, path, rule):
    with pytest.raises(StudyError) as error:
        parse_study(tiny | {"narrow": narrow})
    assert error.value.path == path
    assert rule in error.value.rule


def test_what_is_wrong_in_an_arm_is_told_of_the_arm(tiny):
    tiny["arms"]["wgan_gp"]["narrow"] = {"n_critic": {"choice": [1]}}
    with pytest.raises(StudyError, match=r"arms.wgan_gp.narrow.n_critic: unknown key of this arm"):
        parse_study(tiny)
    tiny["arms"]["wgan_gp"]["narrow"] = {LR: {"log_uniform": [1e-3, 1.0]}}
    with pytest.raises(StudyError, match=rf"arms.wgan_gp.narrow.{LR}: .*does not lie within"):
        parse_study(tiny)
    # A study's range must suit all arms, those too that have a space of their own.
    del tiny["arms"]["wgan_gp"]["narrow"]
    tiny["arms"]["wgan_gp"]["space"] = {LR: {"log_uniform": [1e-5, 5e-3]}}
    with pytest.raises(StudyError, match=rf"narrow.{LR}: .*arms.wgan_gp.space.{LR} draws"):
        parse_study(tiny | {"narrow": HALF})


@pytest.mark.parametrize(
    ("narrow", "space", "lies"),
    [
        ({"uniform": [0.2, 1]}, {"uniform": [0, 1]}, True),
        ({"uniform": [0.2, 1.1]}, {"uniform": [0, 1]}, False),
        ({"choice": [0.5]}, {"uniform": [0, 1]}, False),
        ({"int_uniform": [2, 3]}, {"int_uniform": [1, 4]}, True),
        ({"choice": [1, 4]}, {"int_uniform": [1, 4]}, True),
        ({"choice": [5]}, {"int_uniform": [1, 4]}, False),
        ({"choice": [True]}, {"int_uniform": [1, 4]}, False),
        ({"int_uniform": [1, 2]}, {"uniform": [1, 4]}, False),
        ({"choice": ["a"]}, {"choice": ["a", "b"]}, True),
        ({"choice": ["c"]}, {"choice": ["a", "b"]}, False),
        ({"choice": [True]}, {"choice": [1, 2]}, False),
        ({"int_uniform": [1, 2]}, {"choice": [1, 2]}, False),
    ],
)
def test_within(narrow, space, lies):
    assert within(parse_distribution(narrow), parse_distribution(space)) is lies


def test_under_a_condition_the_condition_is_the_spaces(tiny):
    drawn = {"log_uniform": [0.1, 10.0], "when": {"n_critic": 5}}
    key = "regularizers.gradient_penalty.weight"
    tiny["arms"]["wgan_gp"]["space"] = {"n_critic": {"choice": [1, 5]}, key: drawn}
    tiny["narrow"] = {key: {"log_uniform": [1.0, 2.0], "when": {"n_critic": 5}}}
    assert of(parse_study(tiny))["wgan_gp"] == {key: {"log_uniform": [1.0, 2.0]}}


def recipe(name, **keys):
    base = {"dataset": "digits"}
    return parse_study({"study": "s", "base": base, "recipe": name, **keys})


def test_a_recipes_wide_space_brings_its_narrow_one():
    lr, once = {"log_uniform": [1e-4, 1e-3]}, {"choice": [1]}
    wide = {"name": "agce", "space": "wide"}
    found = of(recipe(wide))
    # beta1 0.5, at which no draw of [0, 1] lies, is left out, as is what is not narrower.
    assert found["minimax"] == {"optimizer.lr": lr, "n_critic": once}
    assert found["wgan_gp"] == {
        "optimizer.lr": lr, "n_critic": once,
        "architecture.discriminator_normalization": {"choice": ["none"]},
        "regularizers.gradient_penalty.weight": {"log_uniform": [0.1, 10.0]},
    }  # fmt: skip
    assert found["began"]["loss.gamma"] == {"uniform": [0.6, 0.9]}
    assert "loss.k_rate" not in found["began"]
    assert not any(of(recipe({"name": "agce", "space": "narrow"})).values())
    assert not any(of(recipe("r3gan")).values())
    own = of(recipe(wide, narrow={"n_critic": None, "optimizer.beta1": {"uniform": [0.4, 0.6]}}))
    assert own["vae"] == {"optimizer.lr": lr, "optimizer.beta1": {"uniform": [0.4, 0.6]}}
    arm = {"mine": {"recipe": "agce/minimax", "space": {"optimizer.lr": None}}}
    study = {"study": "s", "base": {"dataset": "digits"}, "arms": arm}
    assert of(parse_study(study)) == {"mine": {"n_critic": once}}


def test_the_wide_study_of_the_repository_has_it():
    path = ROOT / "studies" / "agce_wide.yaml"
    spec = load_study(path)
    assert all(arm.narrow for arm in spec.arms)
    setting = "narrow={optimizer.lr: {log_uniform: [0.0002, 0.001]}}"
    assert of(load_study(path, [setting]))["vae"]["optimizer.lr"] == {"log_uniform": [2e-4, 1e-3]}


def test_two_arms_that_differ_in_it_alone_do_not_differ(tiny):
    tiny["arms"]["wgan_gp"] = {"loss": "hinge", "narrow": HALF}
    arms = parse_study(tiny).resolved()["arms"]
    assert [difference.key for difference in unlike(*arms.values())] == ["loss.name"]


def test_a_real_study_has_it_read_out_and_takes_another_later(
    tiny, tmp_path, tracking_store, write_study
):
    """Trials inside are counted by hand from trials.parquet, before and after a change."""
    from rich.console import Console

    from ganstudy.display import Display

    tiny["design"] = {"configs": 6, "include_defaults": True}
    tiny["base"]["budget"] = {"discriminator_updates": 20}
    tiny["space"] = {LR: {"log_uniform": [1e-4, 1e-2]}, "n_critic": {"choice": [1, 2]}}
    first = {LR: {"log_uniform": [1e-3, 1e-2]}, "n_critic": {"choice": [2]}}
    spec = parse_study(tiny | {"narrow": first})
    folder = StudyFolder(tmp_path / "runs" / "tiny")
    folder.create()
    run = Run(spec, folder, tracking_store, in_process=True)
    run.begin()
    with Display(Console(quiet=True), 14, spec.measure.primary, True, 0) as display:
        run.execute(display, pending(spec, folder))
    run.conclude(score=False)
    trials = pd.read_parquet(folder.folder / "trials.parquet")
    mine = trials[(trials["arm"] == "wgan_gp") & (trials["config_id"] != "default")]

    def read_out():
        study = narrowed(Study.load(folder.folder))
        return study and set(study.unit_scores("wgan_gp").index)

    large, twice = mine[f"param.{LR}"] >= 1e-3, mine["param.n_critic"] == 2
    assert 0 < sum(large & twice) < sum(large)
    assert read_out() == set(mine["config_id"][large & twice])

    # Another one is no other study: nothing is run again, the judgement stays.
    judged = folder.read_json("provenance.json")["judgement"]
    asked = ["run", write_study(tiny | {"narrow": HALF}), "--runs", folder.folder.parent]
    asked += ["--extend", "--in-process", "--tracking-uri", tracking_store]
    done = CliRunner().invoke(app, list(map(str, asked)))
    assert done.exit_code == 0, done.output
    page = (folder.folder / "report.html").read_text(encoding="utf-8")
    assert "What of a narrower space?" in page
    assert f"{LR} log_uniform [0.001, 0.01]." in page
    assert read_out() == set(mine["config_id"][large])
    assert folder.read_json("provenance.json")["judgement"] == judged
    settings = read_yaml(folder.folder / "study.yaml")
    assert settings["arms"]["wgan_gp"]["narrow"] == HALF
    assert first_changed(parse_study(tiny), folder) is None
    # The best configs again: what is repeated was chosen, so nothing is read out of it.
    data = {"study": "again", "replicate": {"from": str(folder.folder), "seeds": 2}}
    assert not any(of(parse_study(*expand(data))).values())
