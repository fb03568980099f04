from __future__ import annotations

import math
import struct

from ganstudy.records import (
    Event,
    Point,
    TrialRecord,
    TrialResult,
    TrialStatus,
    table,
    trials_schema,
)


def bits(x: float) -> bytes:
    return struct.pack("<d", x)


def test_a_record_survives_json_bit_for_bit():
    values = [0.1, 1 / 3, 5e-324, -0.0, math.nan, math.inf, -math.inf, 1e308]
    points = [Point("fd", i, i, 64 * i, i / 7, v) for i, v in enumerate(values)]
    event = Event("divergence", 3, 4, 1.0, {"value": math.nan})
    record = TrialRecord(TrialResult(TrialStatus.RUNNING), points, [event], {"state": "s.pt"})
    back = TrialRecord.from_json(record.to_json())
    assert [bits(p.value) for p in back.points] == [bits(v) for v in values]
    assert [p[:4] for p in back.points] == [p[:4] for p in points]
    assert back.result.status is TrialStatus.RUNNING
    assert back.events[0].kind == "divergence"
    assert math.isnan(back.events[0].evidence["value"])
    assert back.files == record.files


def test_one_schema_holds_arms_with_different_parameters():
    rows = [
        {"arm": "a", "param.lr": 0.1, "param.loss": "hinge"},
        {"arm": "b", "param.weight": 10, "param.loss": {"name": "hinge"}},
    ]
    built = table(rows, trials_schema(rows)).to_pylist()
    assert [row["param.lr"] for row in built] == [0.1, None]
    assert [row["param.weight"] for row in built] == [None, 10.0]
    assert built[1]["param.loss"] == '{"name": "hinge"}'


def test_statuses_that_a_resume_leaves_alone():
    done = {status for status in TrialStatus if status.finished}
    assert done == {"completed", "diverged", "stopped", "failed"}
