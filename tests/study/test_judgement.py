"""How arms will be judged: read, defaulted, hashed before trial 1, and kept."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime

import jsonschema
import pytest
from typer.testing import CliRunner

from analysis.statistics import largest_k_with_interval
from ganstudy.catalog import study_schema
from ganstudy.cli import app
from ganstudy.preview import preview
from ganstudy.records import judgement_hash
from ganstudy.registry import StudyError
from ganstudy.storage import EDITED
from ganstudy.store import StudyFolder
from ganstudy.study.judgement import largest_k, rejudged
from ganstudy.study.plan import planned
from ganstudy.study.reading import read_yaml
from ganstudy.study.spec import parse_study
from ganstudy.sweep.driver import Run


def test_the_largest_k_is_that_of_the_order_statistics():
    assert [largest_k(n) for n in (4, 12, 16, 50, 100)] == [0, 2, 3, 9, 18]
    assert [largest_k(n) for n in range(1, 200)] == [
        largest_k_with_interval(n) for n in range(1, 200)
    ]


def changed(study, **judgement):
    return study | {"judgement": judgement}


@pytest.mark.parametrize(
    ("design", "k"),
    [
        ({"configs": 4}, 1),
        ({"configs": 16}, 3),
        ({"configs": 16, "sampler": "sobol"}, 1),  # not independent: no interval at any k
        ({"sampler": "grid"}, 1),
    ],
)
def test_k_is_the_largest_with_an_interval_unless_given(tiny, design, k):
    tiny["design"] = design
    if design.get("sampler") == "grid":
        tiny["space"] = {"n_critic": {"choice": [1, 2]}}
    spec = parse_study(tiny)
    assert spec.judgement.model_dump() == {
        "k": k, "margin": 0.1, "checkpoint": "best", "failures": []
    }  # fmt: skip
    assert parse_study(spec.resolved()).judgement == spec.judgement
    assert parse_study(changed(tiny, k=2)).judgement.k == 2


def test_a_stopping_rule_leaves_no_best_of_k(tiny):
    tiny["design"]["configs"] = 16
    tiny["stopping"] = {"asha": {"grace": 0.5}}
    assert parse_study(tiny).judgement.k == 1


@pytest.mark.parametrize(
    ("judgement", "path", "rule"),
    [
        ("k", "judgement", "must be {k: 3"),
        ({"margins": 1.0}, "judgement.margins", "did you mean 'margin'"),
        ({"k": 0}, "judgement.k", "greater than or equal to 1"),
        ({"k": 3}, "judgement.k", "an arm has 2 configs"),
        ({"margin": 0.0}, "judgement.margin", "greater than 0"),
        ({"checkpoint": "lst"}, "judgement.checkpoint", "did you mean 'last'"),
        ({"failures": ["mode_colapse"]}, "judgement.failures", "did you mean 'mode_collapse'"),
        ({"failures": ["recovery"]}, "judgement.failures", "unknown failure"),
        ({"failures": ["oscillation"] * 2}, "judgement.failures", "once"),
        ({1: 2}, "judgement", "keys are names"),
    ],
)
def test_what_is_wrong_is_told(tiny, judgement, path, rule):
    tiny["judgement"] = judgement
    with pytest.raises(StudyError) as error:
        parse_study(tiny)
    assert error.value.path == path
    assert rule in error.value.rule
    if judgement != {"k": 3} and judgement != {1: 2}:  # n is beyond a schema
        assert not jsonschema.Draft202012Validator(study_schema()).is_valid(tiny)


def test_a_failure_must_be_watched_for(tiny):
    tiny["judgement"] = {"failures": ["oscillation"]}
    assert parse_study(tiny).judgement.failures == ["oscillation"]
    tiny["events"] = {"detectors": {"oscillation": None}}
    with pytest.raises(StudyError, match="unknown failure that is watched for"):
        parse_study(tiny)


def test_the_hash_is_of_the_canonical_json():
    rule = {"primary": "fd", "minimize": True, "k": 3, "margin": 0.1, "checkpoint": "best",
            "failures": ["oscillation"]}  # fmt: skip
    text = ('{"checkpoint":"best","failures":["oscillation"],"k":3,"margin":0.1,"minimize":true,'
            '"primary":"fd"}')  # fmt: skip
    assert judgement_hash(rule) == hashlib.sha256(text.encode()).hexdigest()
    assert judgement_hash(dict(reversed(rule.items()))) == judgement_hash(rule)
    for key, other in [("k", 4), ("margin", 0.2), ("checkpoint", "last"), ("failures", [])]:
        assert judgement_hash(rule | {key: other}) != judgement_hash(rule)


def test_the_plan_tells_how_the_study_will_be_judged(tiny):
    tiny["design"]["configs"] = 12
    spec = parse_study(changed(tiny, margin=0.25, failures=["oscillation"]))
    told = preview(spec, list(planned(spec)))["tells"]
    assert told["judgement"] == spec.judged_by
    assert "best of k = 2 of 12 configs, with an interval" in told["text"][-1]
    assert "within 25 %" in told["text"][-1]
    assert "oscillation" in told["text"][-1]
    bold = parse_study(changed(tiny, k=5))
    assert "k = 5 of 12 configs, which has no interval" in preview(bold, [])["tells"]["text"][-1]


@pytest.fixture
def begun(tmp_path, tiny):
    """A folder as a driver leaves it before the first trial, of 12 configs an arm."""
    tiny["design"]["configs"] = 12
    folder = StudyFolder(tmp_path / "runs" / "tiny")
    folder.create()
    Run(parse_study(tiny), folder, f"sqlite:///{tmp_path}/mlflow.db").begin()
    return folder


def test_it_is_fixed_at_the_studys_creation(begun):
    settings, told = read_yaml(begun.folder / "study.yaml"), begun.read_json("provenance.json")
    fixed = told["judgement"]
    rule = settings["judgement"] | {key: fixed["rule"][key] for key in ("primary", "minimize")}
    assert rule == fixed["rule"]
    assert judgement_hash(rule) == fixed["hash"]
    assert re.fullmatch("[0-9a-f]{64}", fixed["hash"])
    assert fixed["rule"]["primary"].startswith("kd_")
    assert (fixed["configs"], fixed["seeds"]) == (12, 1)
    assert datetime.fromisoformat(fixed["fixed_at"]).tzinfo is not None
    assert not list((begun.folder / "trials").iterdir())


def test_an_extension_keeps_what_was_fixed_and_changes_none_of_it(tiny, begun, write_study):
    more = parse_study(tiny | {"design": {"configs": 50}})
    before = parse_study(read_yaml(begun.folder / "study.yaml"))
    assert more.judgement.k == 9
    assert more.judged_like(before).judgement.k == 2
    study = write_study(changed(tiny, k=1))
    asked = ["run", study, "--runs", begun.folder.parent, "--extend", "--in-process"]
    done = CliRunner().invoke(app, list(map(str, asked)))
    assert done.exit_code == 2
    assert "--extend: judgement.k 2 -> 1" in done.stderr


def edit(folder, **judgement):
    text = (folder / "study.yaml").read_text()
    for key, (old, new) in judgement.items():
        assert f"{key}: {old}" in text
        text = text.replace(f"{key}: {old}", f"{key}: {new}")
    lines = text.splitlines()[:-1]  # the last one holds the checksum
    (folder / "study.yaml").write_text("\n".join([*lines, EDITED, ""]))


def test_a_resume_by_another_rule_is_refused_or_marked(begun):
    first = begun.read_json("provenance.json")["judgement"]
    edit(begun.folder, margin=(0.1, 0.3))
    done = CliRunner().invoke(app, ["resume", str(begun.folder), "--in-process"])
    assert done.exit_code == 2
    assert "judgement.margin 0.1 -> 0.3" in " ".join(done.stderr.split())

    spec = parse_study(read_yaml(begun.folder / "study.yaml"))
    Run(spec, begun, "unused").mark_mixed(["judgement.margin 0.1 -> 0.3"])
    told = begun.read_json("provenance.json")
    assert told["mixed"] == ["judgement.margin 0.1 -> 0.3"]
    assert told["judgement"]["hash"] == first["hash"]
    (other,) = told["judgement"]["changed"]
    assert other["hash"] == judgement_hash(json.loads(json.dumps(spec.judged_by)))
    # Once marked, a further resume goes on by it.
    assert rejudged(told, spec.judged_by) == []
