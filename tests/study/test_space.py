from __future__ import annotations

import pytest

from ganstudy.registry import StudyError
from ganstudy.study.space import parse_distribution


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"uniform": [0, 2]}, [0.0, 1.0, 2.0]),
        ({"log_uniform": [1e-4, 1e-2]}, [1e-4, 1e-3, 1e-2]),
        ({"int_uniform": [1, 4]}, [1, 3, 4]),
        ({"choice": ["a", "b", "c"]}, ["a", "b", "c"]),
    ],
)
def test_quantiles(given, expected):
    distribution = parse_distribution(given)
    found = [distribution.at(u) for u in (0.0, 0.5, 1 - 1e-12)]
    assert found == pytest.approx(expected) if "choice" not in given else found == expected
    assert parse_distribution(distribution.to_dict()) == distribution


@pytest.mark.parametrize(
    ("given", "path", "rule"),
    [
        ({"uniform": [2, 1]}, "uniform", "inverted"),
        ({"uniform": [1, 1]}, "uniform", "empty"),
        ({"uniform": [1]}, "uniform", "two numbers"),
        ({"uniform": ["a", "b"]}, "uniform", "two numbers"),
        ({"uniform": [0, float("inf")]}, "uniform", "two numbers"),
        ({"log_uniform": [0, 1]}, "log_uniform", "greater than 0"),
        ({"log_uniform": [-1, 1]}, "log_uniform", "greater than 0"),
        ({"int_uniform": [1, 2.5]}, "int_uniform", "whole numbers"),
        ({"choice": []}, "choice", "empty"),
        ({"choice": [1, 1]}, "choice", "twice"),
        ({"choices": [1]}, "", "did you mean 'choice'"),
        ({"uniform": [0, 1], "choice": [1]}, "", "one of"),
        (3, "", "one of"),
    ],
)
def test_wrong_distributions(given, path, rule):
    with pytest.raises(StudyError, match=rule) as error:
        parse_distribution(given)
    assert error.value.path == path
