"""A trial's story: who it is, what happened, and the nearest trial that fared otherwise."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console
from ruamel.yaml import YAML
from typer.testing import CliRunner

from ganstudy import telling
from ganstudy.cli import app
from ganstudy.measure.events import names
from ganstudy.records import Event, Point, TrialRecord, TrialResult, TrialStatus
from ganstudy.registry import StudyError
from ganstudy.store import StudyFolder
from ganstudy.study.space import parse_distribution
from ganstudy.why import PROBE, Curve, differences, resolve, story, unlike
from tests.conftest import seal

cli = CliRunner()
SCORE = "fd_small_cnn_1k"
SPACE = {
    "optimizer.lr": {"log_uniform": [1e-5, 1e-1]},
    "optimizer.beta1": {"uniform": [0.0, 1.0]},
    "n_critic": {"choice": [1, 5]},
}
COLLAPSE = Event(
    "mode_collapse",
    50,
    100,
    0.9,
    {"signal": "probe/diversity", "value": 0.05, "limit": 0.25, "rule": "at 3 probes running"},
)
RECOVERY = Event("recovery", 75, 100, 0.0, {}, 100)
DIVERGENCE = Event("divergence", 50, 50, 1.0, {"signal": "generator_loss", "value": math.nan})


class Made:
    """A study's folder, filled trial by trial as its driver and its trials would."""

    def __init__(self, folder: Path, arms: Sequence[str] = ("gan", "wgan"), **rule: Any) -> None:
        self.study = StudyFolder(folder)
        self.study.create()
        settings = {arm: {"loss": arm, "space": SPACE} for arm in arms}
        with (folder / "study.yaml").open("w") as file:
            comparison = {"failures": ["mode_collapse"]} | rule
            YAML().dump({"study": "made", "arms": settings, "judgement": comparison}, file)
        seal(folder / "study.yaml")
        self.study.write_json("protocol.json", {"primary": SCORE, "minimize": True})
        self.study.write_plan([])

    def plan(self, trial_id: str, **params: object) -> None:
        arm, config, seed = trial_id.rsplit("-", 2)
        identity = {"study": "made", "arm": arm, "trial_id": trial_id, "config_id": config}
        identity |= {"seed": int(seed[1:]), "result_hash": trial_id}
        keys = {"lr": "optimizer.lr", "beta1": "optimizer.beta1"}
        named = {keys.get(key, key): value for key, value in params.items()}
        self.study.append_plan([identity | {"params": named}])

    def add(
        self,
        trial_id: str,
        events: Sequence[Event] = (),
        status: TrialStatus = TrialStatus.COMPLETED,
        best: float = 10.0,
        untrained: float = 1000.0,
        roles: Sequence[str] = (),
        **params: object,
    ) -> Path:
        """Add a trial with its record; return its attempt's folder."""
        self.plan(trial_id, **params)
        points = [
            Point(SCORE, at, at, at, 0.0, value)
            for at, value in ((0, untrained), (50, 2 * best), (100, best))
        ]
        result = TrialResult(status, "", 100, 100, 100, 1e9, best_at=100)
        files = {role: f"{role}.png" for role in ("samples", "samples_best", *roles)}
        png = io.BytesIO()
        Image.new("L", (8, 8), 100).save(png, "PNG")
        attempt = self.study.trial(trial_id).new_attempt()
        attempt.save(
            TrialRecord(result, points, list(events), files),
            {name: lambda path: path.write_bytes(png.getvalue()) for name in files.values()},
        )
        return attempt.folder

    def why(self, *arguments: object) -> Any:
        return cli.invoke(app, ["why", str(self.study.folder), *map(str, arguments)])


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path / "made")


def nearest_of(made: Made, trial_id: str) -> str | None:
    neighbour = story(made.study, trial_id).neighbour
    return None if neighbour is None else neighbour.identity["trial_id"]


IDS = ["gan-c00-s0", "gan-c01-s0", "wgan_gp-c00-s0"]


@pytest.mark.parametrize("name", ["wgan_gp-c00-s0", "wgan", "wgan_gp-c00"])
def test_a_trial_is_named_by_its_id_or_a_beginning_of_its_own(name):
    assert resolve(name, IDS) == "wgan_gp-c00-s0"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("gna-c00-s0", "did you mean 'gan-c00-s0'?"),
        ("xyz", "did you mean"),
        ("gan-c0", "beginning of 2 trials: gan-c00-s0, gan-c01-s0"),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_ones(name, told):
    with pytest.raises(StudyError, match=re.escape(told)):
        resolve(name, IDS)


def test_a_whole_id_that_begins_another_is_itself():
    assert resolve("a-c1-s1", ["a-c1-s10", "a-c1-s1"]) == "a-c1-s1"


def distributions(**chosen: dict[str, Any]):
    return {key: parse_distribution(d) for key, d in chosen.items()}


def test_differences_are_shares_of_the_range_on_its_scale_and_the_largest_comes_first():
    space = distributions(
        log={"log_uniform": [1e-4, 1.0]},
        even={"uniform": [2.0, 4.0]},
        whole={"int_uniform": [1, 9]},
        choice={"choice": [1, 2, 64]},
    )
    here = {"log": 1e-3, "even": 2.5, "whole": 9, "choice": 1, "same": 3}
    there = {"log": 1e-2, "even": 3.5, "whole": 3, "choice": 2, "same": 3}
    found = differences(here, there, space)
    assert [d.key for d in found] == ["choice", "whole", "even", "log"]
    assert [d.size for d in found] == pytest.approx([1.0, 0.75, 0.5, 0.25])
    assert (found[0].here, found[0].there) == (1, 2)


def test_what_only_one_of_two_trials_sweeps_differs_wholly():
    (found,) = differences({"a": 1.0}, {}, distributions(a={"uniform": [0.0, 10.0]}))
    assert (found.size, found.there) == (1.0, None)


def test_the_nearest_healthy_trial_is_nearest_in_decades_not_in_numbers(made):
    made.add("gan-c00-s0", [COLLAPSE], lr=1e-2, beta1=0.5, n_critic=1)
    made.add("gan-c01-s0", lr=1e-3, beta1=0.5, n_critic=1)  # a quarter of the range away
    made.add("gan-c02-s0", lr=9e-3, beta1=0.9, n_critic=1)  # nearly the same rate, other beta1
    assert nearest_of(made, "gan-c00-s0") == "gan-c01-s0"


CHECKERBOARD = Event("checkerboard", 80, 90, 0.5, {})


def test_a_late_event_that_the_comparison_rule_does_not_name_leaves_a_trial_healthy(made):
    """The own arm's trial at 98.6 comes before another arm's at 451."""
    near = {"lr": 1e-2, "beta1": 0.5, "n_critic": 1}
    made.add("gan-c00-s0", [DIVERGENCE], TrialStatus.DIVERGED, **near)
    made.add("gan-c01-s0", [CHECKERBOARD], best=98.6, lr=1e-3, beta1=0.5, n_critic=1)
    made.add("wgan-c00-s0", best=451.0, **near)
    assert nearest_of(made, "gan-c00-s0") == "gan-c01-s0"
    told = made.why("gan-c00-s0").stdout
    assert "gan-c01-s0 of the same arm" in told
    assert f"completed with checkerboard, best {SCORE} 98.6" in told
    assert re.search(r"outcome +failed, by the study's comparison rule", told)
    assert re.search(r"outcome +did not fail, by the", made.why("gan-c01-s0").stdout)


def test_the_comparison_rule_decides_who_is_healthy(tmp_path):
    strict = Made(tmp_path / "strict", failures=["checkerboard"], checkpoint="last")
    strict.add("gan-c00-s0", [DIVERGENCE], TrialStatus.DIVERGED, lr=1e-2)
    strict.add("gan-c01-s0", [CHECKERBOARD], lr=1e-2)
    strict.add("gan-c02-s0", [COLLAPSE], lr=1e-3)  # the rule does not name it
    strict.add("gan-c03-s0", (), lr=1e-4)
    assert nearest_of(strict, "gan-c00-s0") == "gan-c02-s0"
    assert f"last {SCORE} 10" in strict.why("gan-c00-s0").stdout
    # Beside a collapse, a trial that did not end with one tells more, even from further away.
    strict.add("gan-c04-s0", [COLLAPSE, CHECKERBOARD], lr=1e-3)
    assert nearest_of(strict, "gan-c04-s0") == "gan-c03-s0"


def test_a_trial_that_learned_nothing_is_not_healthy(made):
    made.add("gan-c00-s0", [COLLAPSE], lr=1e-2)
    made.add("gan-c01-s0", lr=1e-2, best=1001.0)  # worse than the untrained generator
    made.add("gan-c02-s0", lr=1e-5, best=999.0)
    assert nearest_of(made, "gan-c00-s0") == "gan-c02-s0"


def test_a_trial_that_a_pruner_or_the_clock_stopped_is_no_outcome(made):
    made.add("gan-c00-s0", (), lr=1e-2)
    made.add("gan-c01-s0", (), TrialStatus.RUNNING, lr=1e-2)
    made.study.trial("gan-c01-s0").stop("time_limit")
    assert nearest_of(made, "gan-c00-s0") is None
    assert "not counted: its end is no outcome" in made.why("gan-c01-s0").stdout


def test_only_trials_that_did_not_fail_by_the_comparison_rule_are_healthy(made):
    near, far = {"lr": 1e-2, "beta1": 0.5, "n_critic": 1}, {"lr": 1e-5}
    made.add("gan-c00-s0", [COLLAPSE], **near)
    made.add("gan-c01-s0", [COLLAPSE], **near)
    made.add("gan-c02-s0", [DIVERGENCE], TrialStatus.DIVERGED, **near)
    made.add("gan-c03-s0", (), TrialStatus.RUNNING, **near)
    made.add("gan-c04-s0", (), TrialStatus.STOPPED, **near)
    made.plan("gan-c05-s0", **near)
    assert nearest_of(made, "gan-c00-s0") is None
    assert "This study has no healthy trial so far." in made.why("gan-c00-s0").stdout
    made.add("gan-c06-s0", [RECOVERY], **near | far)
    assert nearest_of(made, "gan-c00-s0") == "gan-c06-s0"


def test_a_trial_of_the_same_arm_is_preferred_and_another_arm_told(made):
    made.add("gan-c00-s0", [COLLAPSE], lr=1e-2, n_critic=1)
    made.add("wgan-c00-s0", lr=1e-2, n_critic=1)
    assert nearest_of(made, "gan-c00-s0") == "wgan-c00-s0"
    told = made.why("gan-c00-s0").stdout
    assert "of another arm (this one has none)" in told
    assert "the arms differ in loss (gan here, wgan there)" in told
    made.add("gan-c01-s0", lr=1e-5, n_critic=5)
    assert nearest_of(made, "gan-c00-s0") == "gan-c01-s0"
    assert "of the same arm" in made.why("gan-c00-s0").stdout


def test_arms_are_unlike_by_key_path_spaces_aside():
    one = {"loss": "gan", "regularizers": {"r1": {"weight": 1.0}}, "space": {"lr": 1}}
    other = {"loss": "gan", "regularizers": {"r1": {"weight": 2.0}, "clip": {}}}
    told = [(d.key, d.here, d.there) for d in unlike(one, other)]
    assert told == [("regularizers.clip", None, {}), ("regularizers.r1.weight", 1.0, 2.0)]


def test_a_failure_is_told_with_evidence_samples_and_the_first_parameter_that_differs(made):
    roles = ["samples_before_mode_collapse", "samples_at_mode_collapse"]
    made.add("gan-c00-s0", [COLLAPSE], roles=roles, best=1.0, lr=1e-1, beta1=0.5, n_critic=1)
    made.add("gan-c01-s0", lr=1e-3, beta1=0.6, n_critic=1)
    told = made.why("gan-c00-s0").stdout
    assert "mode_collapse: onset 50, detected 100, lasted to the end, severity 0.90" in told
    assert "probe/diversity = 0.05 against its limit 0.25: at 3 probes running" in told
    assert f"{SCORE} (lower is better, drawn in logarithms): 1000 at 0, best 1 at 100" in told
    assert "gan-c01-s0 of the same arm, at a distance of 0.51: completed" in told
    assert f"best {SCORE} 10" in told
    first = next(line for line in told.splitlines() if "first difference" in line)
    assert first.endswith("optimizer.lr, 0.1 here, 0.001 there")
    paths = [Path(found) for found in re.findall(r"\S+\.png", told)]
    assert [path.name for path in paths[:4]] == [
        *(f"{role}.png" for role in roles), "samples_best.png", "samples.png",
    ]  # fmt: skip
    assert all(path.exists() for path in paths)


def test_events_are_told_in_the_order_of_their_onsets(made):
    late = Event("quality_drop", 75, 90, 0.5, {})
    made.add("gan-c00-s0", [late, COLLAPSE])
    told = story(made.study, "gan-c00-s0")
    assert [event.kind for event in told.events] == ["mode_collapse", "quality_drop"]
    assert telling.verdict(told) == "mode_collapse from update 50 on, then quality_drop."


def test_the_same_parameters_under_another_seed(made):
    made.add("gan-c00-s0", [COLLAPSE], lr=1e-2, beta1=0.5, n_critic=1)
    made.add("gan-c00-s1", lr=1e-2, beta1=0.5, n_critic=1)
    told = made.why("gan-c00-s0").stdout
    assert "no swept parameter differs: the seed does, 0 here, 1 there" in told


def test_a_healthy_trial_is_told_of_its_nearest_failed_neighbour(made):
    made.add("gan-c00-s0", [RECOVERY], lr=1e-3, beta1=0.5, n_critic=1)
    made.add("gan-c01-s0", lr=1e-3, beta1=0.5, n_critic=1)
    made.add("gan-c02-s0", [DIVERGENCE], TrialStatus.DIVERGED, lr=1e-2, beta1=0.5, n_critic=1)
    made.add("gan-c03-s0", [COLLAPSE], lr=1e-1, beta1=0.5, n_critic=1)
    told = made.why("gan-c00-s0").stdout
    assert "Nothing happened" in told
    assert "nearest failed trial\n  gan-c02-s0" in told
    assert "diverged with divergence" in told


def test_trials_that_have_not_begun_or_are_running(made):
    made.plan("gan-c00-s0", lr=1e-3)
    made.add("gan-c01-s0", (), TrialStatus.RUNNING)
    assert "It has not begun." in made.why("gan-c00-s0").stdout
    assert "interrupted" in made.why("gan-c01-s0").stdout, "nobody drives the study"
    made.study.lock()
    told = made.why("gan-c01-s0").stdout
    made.study.unlock()
    assert re.search(r"status +running", told)
    assert "Nothing has happened so far." in told


def test_a_failed_trial_shows_the_last_line_of_its_traceback(made):
    made.add("gan-c00-s0", (), TrialStatus.RUNNING)
    folder = made.study.trial("gan-c00-s0")
    folder.new_attempt().note_error("Traceback (most recent call last):\n ...\nMemoryError: big\n")
    folder.fail("killed")
    told = made.why("gan-c00-s0").stdout
    assert re.search(r"status +failed: out of memory \(.+\): MemoryError: big", told)
    assert "The program failed, not the training" in told


def test_before_anything_was_measured(made):
    (made.study.folder / "protocol.json").unlink()
    made.plan("gan-c00-s0", lr=1e-3)
    assert made.why("gan-c00-s0").exit_code == 0


def test_wrong_input_exits_2_with_one_message(made, tmp_path):
    made.add("gan-c00-s0")
    wrong = made.why("gan-c0O-s0")
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert wrong.stderr.endswith("unknown trial 'gan-c0O-s0'; did you mean 'gan-c00-s0'?\n")
    assert cli.invoke(app, ["why", str(tmp_path), "x"]).exit_code == 2
    assert made.why("gan-c00-s0", "--html", tmp_path / "none" / "x.html").exit_code == 2


def test_nothing_is_changed(made):
    made.add("gan-c00-s0", [COLLAPSE])
    before = {path: path.stat().st_mtime_ns for path in made.study.folder.rglob("*")}
    assert made.why("gan-c00-s0").exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in made.study.folder.rglob("*")} == before


def test_the_page_is_escaped_and_needs_nothing_else(made, tmp_path):
    marked = Event("mode_collapse", 50, 100, 0.9, {"rule": "<script>alert(1)</script>"})
    made.add("gan-c00-s0", [marked], roles=["samples_at_mode_collapse"])
    page = tmp_path / "page.html"
    assert made.why("gan-c00-s0", "--html", page).exit_code == 0
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert text.count("data:image/png;base64,") == 3
    assert not re.search(r"(src|href)=\"(?!data:)", text)


@pytest.mark.parametrize("width", [40, 80, 140])
def test_no_line_but_a_path_is_wider_than_the_terminal(made, width):
    made.add("gan-c00-s0", [COLLAPSE], lr=1e-1, beta1=0.5, n_critic=1)
    made.add("gan-c01-s0", lr=1e-3, beta1=0.6, n_critic=1)
    out = io.StringIO()
    telling.tell(story(made.study, "gan-c00-s0"), Console(file=out, width=width))
    lines = out.getvalue().splitlines()
    assert max(len(line) for line in lines if ".png" not in line) <= width
    assert not any("\x1b" in line for line in lines), "plain where there is no terminal"


def test_a_curve_is_drawn_over_updates_with_what_is_not_finite():
    curve = Curve("s", True, [0, 50, 75, 100], [8.0, 1.0, math.nan, 4.5])
    line, marks = telling.curve_lines(curve, [COLLAPSE], 9, "01234567")
    assert line == "777700xx4"
    assert marks == "    ^   !"
    assert curve.best == 1


def test_a_curve_of_one_value_or_of_none_that_is_finite():
    assert telling.curve_lines(Curve("s", True, [0], [3.0]), [], 4, "01") == ["0000"]
    broken = Curve("s", True, [0, 10], [math.nan, math.inf])
    assert telling.curve_lines(broken, [], 4, "01") == ["xxxx"]
    assert broken.best is None
    assert "nan at 0, last inf at 10" in telling.caption(broken, [])


def test_the_probes_score_is_the_detectors():
    assert PROBE.name == names.SCORE
