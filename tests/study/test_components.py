"""What a study tells of the components that it runs: for a reader without our code."""

from __future__ import annotations

import json

from ganstudy.registry import explained
from ganstudy.store import StudyFolder
from ganstudy.study.components import components
from ganstudy.study.spec import parse_study
from ganstudy.sweep.driver import Run


def test_every_arm_tells_what_it_trains_with(tiny, tmp_path):
    tiny["arms"]["wgan_gp"]["regularizers"]["gradient_penalty"] = {"variant": "agce_code"}
    folder = StudyFolder(tmp_path / "tiny")
    folder.create()
    Run(parse_study(tiny), folder, "unused").begin()
    told = folder.read_json("components.json")
    assert list(told["arms"]) == ["non_saturating", "wgan_gp"]
    mine = told["arms"]["wgan_gp"]
    (loss,), (penalty,) = mine["loss"], mine["regularizers"]
    assert loss["name"] == "wasserstein"
    assert loss["formula"] == {
        "discriminator": "E[f] - E[r]", "generator": "-E[f]", "sigmoid": "no"
    }  # fmt: skip
    assert loss["paper"] == "Arjovsky et al. 2017, arXiv:1701.07875"
    assert "sqrt(1e-4" in penalty["formula"]["penalty"], "the variant that runs"
    assert penalty["options"]["weight"] == 10.0
    assert mine["architecture"][0]["options"]["width"] == 16
    assert mine["dataset"][0]["name"] == "digits"
    assert mine["stabilizers"] == []
    assert {"generator_optimizer", "discriminator_optimizer"} <= set(mine)


def test_all_that_the_space_can_choose_is_told(tiny):
    tiny["arms"] = {"tuned": {}}
    tiny["space"] = {
        "loss": {"choice": ["least_squares", "hinge"]},
        "loss.variant": {
            "choice": ["reference", "agce_code"], "when": {"loss": "least_squares"}
        },
    }  # fmt: skip
    spec = parse_study(tiny)
    losses = json.loads(json.dumps(components(spec)))["arms"]["tuned"]["loss"]
    assert [loss["name"] for loss in losses].count("least_squares") == 2
    assert {loss["name"] for loss in losses} == {"non_saturating", "least_squares", "hinge"}
    sigmoids = [x["formula"]["sigmoid"] for x in losses if x["name"] == "least_squares"]
    assert sorted(sigmoids) == ["no", "yes"]


def test_a_docstring_is_split_into_its_parts():
    told = explained(
        """First line.

        More
        text.

        Formula:
            penalty: a +
                b
            penalty (sharp): c
            at: d

        Elsewhere:
            The
            same.
        """
    )
    formula = {"penalty": "a + b", "penalty (sharp)": "c", "at": "d"}
    assert told == ("First line.", "More\ntext.", formula, "The same.")
    assert explained("One line.") == ("One line.", "", {}, "")
