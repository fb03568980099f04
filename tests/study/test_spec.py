"""Wrong input: one message with the key's path, the rule and the nearest right name."""

from __future__ import annotations

import numpy as np
import pytest

from ganstudy.registry import StudyError
from ganstudy.study.checks import load_study, notes
from ganstudy.study.spec import parse_study
from tests.conftest import ROOT


def change(study, path, value):
    *parents, last = path.split("/")
    for part in parents:
        study = study.setdefault(part, {})
    study[last] = value


WRONG = [
    # where, what is written there, path in the message, rule in the message
    ("stdy", "x", "stdy", "did you mean 'study'"),
    ("study", "no spaces please", "study", "letters, digits"),
    ("arms", {}, "arms", "at least one arm"),
    ("arms/wgan_gp/los", "hinge", "arms.wgan_gp.los", "did you mean 'loss'"),
    ("arms/wgan_gp/loss", "wasserstien", "arms.wgan_gp.loss", "did you mean 'wasserstein'"),
    ("arms/wgan_gp/regularizers", {"gradient_penality": {}}, "arms.wgan_gp.regularizers",
     "did you mean 'gradient_penalty'"),
    ("arms/wgan_gp/regularizers", {"gradient_penalty": {"lambda": 10}},
     "arms.wgan_gp.regularizers.gradient_penalty.lambda",
     "known: interval, one_sided, target, variant, weight"),
    ("base/architecture", {"name": "mlp", "width": "wide"}, "architecture.width", "integer"),
    ("base/architecture", {"name": "mlp", "width": 0}, "architecture.width", "than or equal"),
    ("base/n_critic", "two", "n_critic", "whole number"),
    ("base/batch_size", 4000, "batch_size", "1197 training images"),
    ("base/budget", {"updates": 5}, "base.budget", "discriminator_updates"),
    ("base/dataset", {"name": "image_folder", "path": "/not/there"}, "dataset", "no such folder"),
    ("space/generator_optimizer.lr", {"log_uniform": [0, 1]}, "space.generator_optimizer.lr",
     "greater than 0"),
    ("space/generator_optimizer.lr", {"log_uniform": [1e-2, 1e-4]}, "space.generator_optimizer.lr",
     "inverted"),
    ("space/generator_optimizer.lr", {"uniform": [1, 1]}, "space.generator_optimizer.lr", "empty"),
    ("space/generator_optimizer.lrr", {"uniform": [1, 2]}, "space.generator_optimizer.lrr",
     "did you mean 'generator_optimizer.lr'"),
    ("space/regularizers.r1.weight", {"uniform": [1, 2]}, "space.regularizers.r1.weight",
     "no arm has r1"),
    ("arms/non_saturating/space", {"regularizers.gradient_penalty.weight": {"uniform": [1, 2]}},
     "arms.non_saturating.space.regularizers.gradient_penalty.weight", "unknown key of this arm"),
    ("space/optimizer.beta1", {"uniform": [0, 1.5]}, "space.optimizer.beta1", "less than 1"),
    ("space/loss", {"choice": ["hinge", "hing"]}, "space.loss", "did you mean 'hinge'"),
    ("design/config", 3, "design.config", "did you mean 'configs'"),
    ("design/configs", 0, "design.configs", "greater than or equal to 1"),
    ("design/sampler", "randm", "design.sampler", "did you mean 'random'"),
    ("design/sampler", "grid", "space.generator_optimizer.lr", "choices"),
    ("design/seeds", [], "design.seeds", "at least 1"),
    ("measure/metrics", ["fid"], "measure.metrics.0", "unknown metric"),
    ("measure/metrics", ["frechet_distance"], "measure.metrics", "use kernel_distance"),
    ("measure/features", "vgg", "measure.features", "unknown feature network"),
    ("measure/every", 20, "measure.every", "discriminator_updates"),
    ("events/stop_on", ["colapse"], "events.stop_on", "unknown event"),
    ("events/detectors", {"divergence": {"doubling": 3}}, "events.detectors.divergence.doubling",
     "did you mean 'doublings'"),
    ("resources/cpu", 0, "resources.cpu", "greater than or equal to 1"),
    ("retries", -1, "retries", "at least 0"),
    # What a review found: keys that are right alone and wrong together, and odd YAML.
    ("design/seeds", [0, 0], "design.seeds", "twice"),
    ("design", {1: 2}, "design", "keys are names"),
    ("base/los", "hinge", "base.los", "did you mean 'loss'"),
    ("base/n_critic", 0, "base.n_critic", "at least 1"),
    ("base/regularizers", {"r1": {1: 2}}, "base.regularizers.r1", "keys are names"),
    ("base/regularizers", {"r1": {"name": "r1"}}, "base.regularizers.r1.name", "unknown option"),
    ("events/detectors", {"divergence": {"name": "x"}}, "events.detectors.divergence.name",
     "unknown option"),
    ("space", {"ttur_ratio": {"choice": [1, 2]},
               "discriminator_optimizer.lr": {"uniform": [1e-4, 1e-3]}}, "space.ttur_ratio",
     "excludes"),
    ("space", {"architecture": {"choice": ["mlp", "dcgan"]},
               "architecture.width": {"choice": [4, 8]}}, "architecture.width", "excludes"),
    ("measure/final", ["class_accuracy"], "measure.final.class_accuracy",
     "needs a conditional generator, which arms.non_saturating has not"),
    ("measure/metrics", ["kernel_distance", {"name": "precision", "k": 500}],
     "measure.metrics.precision", "needs more than 500"),
    ("measure/metrics", ["kernel_distance", "precision", {"name": "precision", "k": 5}],
     "measure.metrics", "stored as precision_small_cnn_60"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("where", "value", "path", "rule"), WRONG, ids=[f"{w[0]}={w[1]}" for w in WRONG]
)
def test_wrong_input_names_path_and_rule(tiny, write_study, where, value, path, rule):
    change(tiny, where, value)
    with pytest.raises(StudyError) as error:
        load_study(write_study(tiny))
    assert path in error.value.path
    assert rule in error.value.rule


def test_an_image_size_that_an_architecture_cannot_make(tiny, write_study, tmp_path):
    from PIL import Image

    for label in "ab":
        (tmp_path / label).mkdir()
        for i in range(200):
            Image.new("L", (30, 30), i).save(tmp_path / label / f"{i}.png")
    tiny["base"] |= {
        "dataset": {"name": "image_folder", "path": str(tmp_path), "size": 30, "channels": 1},
        "architecture": "dcgan",
    }
    with pytest.raises(StudyError, match=r"arms.non_saturating.architecture: dcgan .*not 30x30"):
        load_study(write_study(tiny))


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"study: \xff\xfe", "not UTF-8"),
        (b"study: [1", "not valid YAML"),
        (b"- a\n- b\n", "a study is a mapping"),
        (b"study: a\nstudy: b\n", "duplicate key"),
        (b"study: !!python/object/apply:os.system ['touch /tmp/pwned']", "tags are not allowed"),
        (b"study: a\x07b", "not valid YAML"),
    ],
)
def test_unreadable_yaml(tmp_path, content, rule):
    path = tmp_path / "study.yaml"
    path.write_bytes(content)
    with pytest.raises(StudyError, match=rule):
        load_study(path)
    with pytest.raises(StudyError, match="cannot read the file"):
        load_study(tmp_path)


def test_numbers_as_people_write_them(tmp_path, tiny, write_study):
    path = write_study(tiny)
    path.write_text(path.read_text().replace("0.0001", "1e-4"))
    assert "1e-4" in path.read_text()
    assert load_study(path).arms[0].space["generator_optimizer.lr"].low == 1e-4


def test_set_changes_one_key_and_is_checked(tiny, write_study):
    path = write_study(tiny)
    spec = load_study(path, ["design.configs=3", "base.loss=hinge", "base.architecture.width=4"])
    assert spec.design.configs == 3
    with pytest.raises(StudyError, match="design.config: unknown key"):
        load_study(path, ["design.config=3"])
    with pytest.raises(StudyError, match="unknown arm 'wgan_pg'; did you mean 'wgan_gp'"):
        load_study(path, ["arms.wgan_pg.loss=hinge"])
    with pytest.raises(StudyError, match="KEY=VALUE"):
        load_study(path, ["design.configs"])


def test_shared_space_applies_to_the_arms_that_have_the_key(tiny, write_study):
    tiny["space"]["regularizers.gradient_penalty.weight"] = {"log_uniform": [0.1, 100]}
    spec = load_study(write_study(tiny))
    assert [len(arm.space) for arm in spec.arms] == [1, 2]


STUDIES = sorted((ROOT / "studies").glob("*.yaml"))


def test_the_only_study_that_needs_another_one_says_so(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError, match=r"replicate.from: .*agce_wide is not a study's folder"):
        load_study(ROOT / "studies" / "agce_best.yaml")


@pytest.mark.parametrize(
    "path", [p for p in STUDIES if p.stem != "agce_best"], ids=lambda p: p.stem
)
def test_every_study_of_ours_checks(path):
    spec = load_study(path)
    assert spec.question.endswith("?")
    assert spec.source


def on_ring(tiny):
    tiny["base"] |= {"dataset": {"name": "ring", "train": 500, "test": 200}}
    tiny["measure"] |= {"features": "pixels"}
    return tiny


@pytest.mark.parametrize(
    ("settings", "path"),
    [({"flips": True}, "flips"), ({"regularizers": {"consistency": {}}}, "consistency")],
)
def test_what_moves_pictures_is_refused_on_points(tiny, write_study, settings, path):
    tiny = on_ring(tiny)
    load_study(write_study(tiny))
    tiny["base"] |= settings
    with pytest.raises(StudyError, match=f"{path}: points"):
        load_study(write_study(tiny))


def test_values_that_exclude_each_other_are_told_together(tiny, write_study):
    tiny["space"] |= {"n_critic": {"choice": [1, 5]}, "generator_steps": {"choice": [1, 2]}}
    with pytest.raises(StudyError) as error:
        load_study(write_study(tiny))
    assert error.value.path == "space.generator_steps"
    assert "n_critic: 5" in error.value.rule
    assert "generator_steps: 2" in error.value.rule


def test_a_damaged_data_file_is_told_of_the_study(tiny, write_study, tmp_path):
    (tmp_path / "broken.npz").write_bytes(b"PK no archive")
    tiny["base"]["dataset"] = {"name": "npz", "path": str(tmp_path / "broken.npz")}
    with pytest.raises(StudyError, match=r"dataset: .*broken\.npz: cannot be read"):
        load_study(write_study(tiny))


def test_images_that_are_all_the_same_are_refused(tiny, write_study, tmp_path):
    images = np.full((100, 8, 8), 7, np.uint8)
    images[0] = 9  # one image is in one split: of the others all are the same
    np.savez(tmp_path / "same.npz", images=images)
    tiny["base"]["dataset"] = {"name": "npz", "path": str(tmp_path / "same.npz")}
    tiny["measure"]["features"] = "pixels"
    with pytest.raises(StudyError, match="of npz are the same") as error:
        load_study(write_study(tiny))
    assert error.value.path == "arms.non_saturating.dataset"
    # Data that is one point by its nature stays.
    tiny["base"]["dataset"] = "dirac"
    load_study(write_study(tiny))


def test_null_takes_a_key_away_that_is_not_there(tiny, write_study):
    tiny["space"]["architecture.discriminator_normalization"] = None
    tiny["arms"]["wgan_gp"]["space"] = {"n_critic": None}
    assert [len(arm.space) for arm in load_study(write_study(tiny)).arms] == [1, 1]


def test_null_on_a_name_that_nothing_has_is_a_slip_and_told(tiny):
    tiny["arms"]["other"] = {"stabilizers": {"pakcing": None}}
    with pytest.raises(StudyError, match=r"^arms\.other\.stabilizers: .*did you mean 'packing'"):
        parse_study(tiny)


def test_a_space_for_a_stabiliser_that_no_arm_has_says_where_to_write_it(tiny):
    tiny["space"]["stabilizers.packing.images"] = {"choice": [1, 2]}
    with pytest.raises(StudyError, match=r"no arm has packing: write stabilizers: \{packing: "):
        parse_study(tiny)


def test_runs_that_repeat_each_other_are_noted(tiny):
    tiny["space"] = {}
    tiny["design"] = {"configs": 3}
    tiny["arms"] = {"a": {}, "b": {"stabilizers": {}}, "c": {"loss": "hinge"}}
    found = notes(parse_study(tiny))
    assert [note.partition(":")[0] for note in found] == ["a", "b", "c", "a, b"]
    assert "only 1 of its 3 trials differ" in found[0]
    assert "one arm twice" in found[3]
