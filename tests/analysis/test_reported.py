from __future__ import annotations

from analysis.report import render
from analysis.reported import curves_data, curves_figure, score_rows, what_is_better
from analysis.tables import Study
from ganstudy.storage import read_json, write_json
from ganstudy.store import StudyFolder
from tests.analysis.conftest import SCORE


def told(folder, arms=("a", "b")) -> Study:
    """Write what the driver tells of the best generators: two scores, and two lines of a curve."""
    scores, curves = [], []
    for i, arm in enumerate(arms):
        who = {"arm": arm, "trial_id": f"{arm}-c00-s0"}
        for name, value, error in ((SCORE, 10.0 + i, 0.5), ("kd_lite0_1k", 0.1, float("nan"))):
            row = {"discriminator_updates": 100, "name": name, "split": "report", "floor": 1.25}
            row |= {"n_generated": 1000, "n_real": 900, "value": value, "standard_error": error}
            scores.append(who | row)
        for line in ("recall", "precision"):
            axes = {"line": line, "x_name": "delta", "y_name": "share"}
            for name in ("polygon_f1_1k", "polygon_recall_1k"):  # both are read off one curve
                points = [{"x": x, "y": y} for x, y in ((0.1, 0.2), (1.0, 0.5), (10.0, 1.0))]
                curves += [who | {"name": name} | axes | point for point in points]
    StudyFolder(folder).write_reported(scores, curves)
    path = folder / "protocol.json"
    how = {"direction": "minimize", "features": {"name": "lite0"}, "features_hash": "abc"}
    how |= {"features_facts": {"experimental": "yes"}, "dimension": 1280, "floor": 1.25}
    how |= {"n_generated": 1000, "n_real": 900, "split": "report", "resize": "bilinear to 64 px"}
    write_json(path, read_json(path) | {"reported": {"kd_lite0_1k": how}})
    return Study.load(folder)


def test_every_score_of_the_best_generators_stands_beside_its_floor(synthetic):
    rows = score_rows(told(synthetic({"a": [3.0], "b": [4.0]})))
    assert [row.name for row in rows] == [SCORE, "kd_lite0_1k"]
    assert rows[0].values == {"a": (10.0, 0.5), "b": (11.0, 0.5)}
    assert (rows[1].floor, rows[1].better, rows[1].n) == (1.25, "lower", "1000 against 900")


def test_a_score_whose_best_is_no_best_generator_is_better_near_its_floor():
    assert what_is_better({"direction": "maximize", "chooses": False}) == "near the floor"
    assert what_is_better({"direction": "maximize", "chooses": True}) == "higher"
    assert what_is_better({"direction": "minimize"}) == "lower"  # of a study from before


def test_a_curve_that_several_scores_bring_is_drawn_once(synthetic):
    study = told(synthetic({"a": [3.0], "b": [4.0]}))
    (group,) = curves_data(study)
    assert group.names == ["polygon_f1_1k", "polygon_recall_1k"]
    assert [(line.arm, line.line) for line in group.lines] == [
        ("a", "recall"), ("a", "precision"), ("b", "recall"), ("b", "precision")
    ]  # fmt: skip
    assert group.lines[0].x == [0.1, 1.0, 10.0]
    figure = curves_figure(group, study.arms)
    assert figure.layout.xaxis.type == "log"
    assert len({trace.line.dash for trace in figure.data}) == 2
    assert figure.layout.yaxis.range == (-0.02, 1.02)


def test_a_curve_of_shares_has_linear_axes(synthetic):
    study = told(synthetic({"a": [3.0]}), arms=["a"])
    (group,) = curves_data(study)
    line = group.lines[0]._replace(x=[1e-10, 0.5, 1.0])
    figure = curves_figure(group._replace(lines=[line]), study.arms)
    assert figure.layout.xaxis.type is None
    assert figure.layout.xaxis.range == (-0.02, 1.02)


def test_the_page_tells_them(synthetic):
    page = render(told(synthetic({"a": [3.0], "b": [4.0]})))
    assert "Every score of the best generators" in page
    assert "10 ± 0.5" in page
    assert "images resized: bilinear to 64 px; experimental: yes; chose nothing" in page
    assert "share by delta" in page


def test_a_study_without_them_shows_no_such_section(synthetic):
    assert "Every score of the best" not in render(Study.load(synthetic({"a": [3.0]})))
