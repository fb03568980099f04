"""The key `stopping`: what it reads, what is refused, what is noted."""

from __future__ import annotations

import jsonschema
import pytest

from ganstudy.catalog import study_schema
from ganstudy.registry import StudyError
from ganstudy.study.checks import check, check_in_process, notes
from ganstudy.study.spec import parse_study
from ganstudy.study.stopping import STOPPING, Asha, MedianStopping


@pytest.mark.parametrize(
    ("written", "rule"),
    [
        (None, None),
        ("asha", Asha()),
        ({"asha": {}}, Asha()),
        ({"asha": {"grace": 0.5, "reduction_factor": 2}}, Asha(grace=0.5, reduction_factor=2)),
        ({"median_stopping": {"fewest": 5}}, MedianStopping(fewest=5)),
    ],
)
def test_a_rule_is_read_and_written_back(tiny, written, rule):
    tiny["stopping"] = written
    spec = parse_study(tiny)
    assert spec.stopping == rule
    assert parse_study(spec.resolved()).stopping == rule
    for plain in (tiny, spec.resolved()):
        jsonschema.validate(plain, study_schema())


def test_without_the_key_there_is_none(tiny):
    assert parse_study(tiny).stopping is None


@pytest.mark.parametrize(
    ("written", "path", "rule"),
    [
        ("ahsa", "stopping", "did you mean 'asha'"),
        ({"median": {}}, "stopping", "did you mean 'median_stopping'"),
        ({"asha": {}, "median_stopping": {}}, "stopping", "one of asha, median_stopping"),
        ({"asha": {"reduction": 3}}, "stopping.asha.reduction", "'reduction_factor'"),
        ({"asha": {"reduction_factor": 1}}, "stopping.asha.reduction_factor", "at least|greater"),
        ({"asha": {"grace": 1.0}}, "stopping.asha.grace", "less than 1"),
        ({"asha": 3}, "stopping.asha", "options are a mapping"),
        (3, "stopping", "one of asha"),
    ],
)
def test_wrong_rules_are_refused_with_place_and_rule(tiny, written, path, rule):
    with pytest.raises(StudyError, match=rule) as error:
        parse_study(tiny | {"stopping": written})
    assert error.value.path == path


@pytest.mark.parametrize(
    ("grace", "every", "first"),
    [(0.25, 100, 2), (0.1, 60, 1), (0.3, 60, 3), (0.31, 60, 4), (0.01, 100, 1)],
)
def test_the_first_decision_is_at_the_first_evaluation_after_grace(grace, every, first):
    assert Asha(grace=grace).first(600, every) == first


def test_a_swept_budget_is_refused(tiny):
    tiny["space"]["budget.discriminator_updates"] = {"choice": [60, 120]}
    with pytest.raises(StudyError, match="excludes space.budget.discriminator_updates") as error:
        check(parse_study(tiny | {"stopping": "asha"}))
    assert error.value.path == "stopping"


def test_a_rule_that_could_stop_nothing_is_refused(tiny):
    tiny["measure"]["every"] = {"discriminator_updates": 60}
    with pytest.raises(StudyError, match="measure more often") as error:
        check(parse_study(tiny | {"stopping": "asha"}))
    assert error.value.path == "stopping.asha.grace"


def test_evaluations_long_after_grace_are_noted(tiny):
    late = parse_study(tiny | {"stopping": {"asha": {"grace": 0.05}}})
    assert any("first at its evaluation after 20 updates, grace is 3" in n for n in notes(late))
    fitting = parse_study(tiny | {"stopping": {"asha": {"grace": 0.25}}})
    assert not any("stopping" in note for note in notes(fitting))


@pytest.mark.parametrize("name", STOPPING.names())
def test_rays_schedulers_are_refused_without_ray(tiny, name):
    check_in_process(parse_study(tiny))
    with pytest.raises(StudyError, match="--in-process") as error:
        check_in_process(parse_study(tiny | {"stopping": name}))
    assert error.value.path == "stopping"
