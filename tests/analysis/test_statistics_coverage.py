"""Intervals hold the truth as often as they say, in every setting of benchmarks/coverage.py."""

from __future__ import annotations

import pytest

from benchmarks import coverage

REPEATS = {
    "interquartile mean": 40,
    "Firth's slope": 400,
    "improvement": 60,
    "intraclass correlation": 120,
}
"""Of the slow ones; the benchmark has more for all."""
CASES = [case for topic in coverage.TOPICS for case in topic() if case.in_use]


SLOW = {
    "Firth's slope", "Firth's test", "log-rank test", "rank test", "rank correlation",
    "share saved",
}  # fmt: skip
"""Minutes, at the repeats that tell anything."""
TOPICS = [
    pytest.param(topic, marks=pytest.mark.slow if topic in SLOW else (), id=topic)
    for topic in sorted({case.topic for case in CASES})
]


@pytest.mark.parametrize("topic", TOPICS)
def test_intervals_cover(topic):
    repeats = REPEATS.get(topic, 200)
    # Three errors of a share of 0.95 below 0.95: with so few repeats this finds what is broken;
    # benchmarks/coverage.py, with more, measures the coverage that docs/statistics.md tells.
    least = 0.95 - 3 * (0.95 * 0.05 / repeats) ** 0.5
    for case in CASES:
        if case.topic == topic:
            held, _ = coverage.coverage(case, repeats)
            assert held >= least, case
