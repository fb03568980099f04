"""One rule chooses an arm's best configuration: driver, `replicate` and report agree."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from analysis import seeds
from analysis.tables import Study
from ganstudy.display import Display
from ganstudy.measure.features.cache import read_torch, write_torch
from ganstudy.records import (
    EVENTS,
    EVENTS_SCHEMA,
    TRIALS,
    Event,
    TrialRecord,
    TrialStatus,
    load_results,
    table,
    trials_schema,
)
from ganstudy.registry import StudyError
from ganstudy.storage import write_checked, write_json
from ganstudy.store import StudyFolder
from ganstudy.study.outcomes import (
    rank_configs,
    score_configs,
    select_candidates,
    select_counted,
    select_median_trial,
)
from ganstudy.study.replicate import Replicate, best_configs
from ganstudy.study.spec import StudySpec, parse_study
from ganstudy.sweep.driver import Run, best_trials, pending
from tests.conftest import TINY, write_yaml

INF = math.inf
ARM = "ns"
COLLAPSE = Event("mode_collapse", 5, 10, 1.0, {})
"""A collapse that lasts to the end of the trial."""


def test_the_rule_is_imported_without_torch():
    code = "import sys; import ganstudy.study.outcomes; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def parse(**keys) -> StudySpec:
    """Return a study of one arm and the smallest measure."""
    measure = {"features": "pixels", "metrics": ["kernel_distance", "precision"], "samples": 50}
    measure |= {"every": {"discriminator_updates": 10}, "probe": None}
    base = TINY["base"] | {"budget": {"discriminator_updates": 20}}
    plain = {"study": "tiny", "base": base, "arms": {ARM: {"loss": "non_saturating"}}}
    plain |= {"space": TINY["space"], "measure": measure}
    return parse_study(plain | keys)


class Recorded:
    """A study of two configs, two seeds and the defaults that was trained; scores are rewritten.

    Evaluations are at updates 0, 10 and 20.
    """

    def __init__(self, place, uri: str, **keys) -> None:
        design = {"configs": 2, "include_defaults": True, "seeds": [0, 1]}
        self.spec = parse(design=design, **keys)
        self.folder = StudyFolder(place / "tiny")
        self.folder.create()
        self.run = Run(self.spec, self.folder, uri, in_process=True)
        self.run.begin()
        with Display(Console(quiet=True), 100, self.spec.measure.primary, True, 0) as display:
            self.run.execute(display, pending(self.spec, self.folder))

    def rewrite(self, trial: str, best: float, last: float | None = None, **changes) -> None:
        """Give a trial (`c00-s1`) these scores, the best one at update 10, and other changes.

        Its best generator becomes another one than its last: all weights are zero.
        """
        attempt, record = self.folder.trial(f"{ARM}-{trial}").latest()
        values = {0: 100.0, 10: best, 20: 2 * best if last is None else last}
        name = self.spec.measure.primary
        points = [
            point._replace(value=values[point.discriminator_updates])
            if point.name == name
            else point
            for point in record.points
        ]
        status = changes.get("status", TrialStatus.COMPLETED)
        result = dataclasses.replace(record.result, best_at=10, status=status)
        weights = read_torch(attempt.folder / record.files["generator_last"])
        zero = {key: torch.zeros_like(value) for key, value in weights.items()}
        write_torch(attempt.folder / "generator-best.pt", zero)
        files = dict(record.files) | {"generator_best": "generator-best.pt"}
        changed = TrialRecord(result, points, changes.get("events", ()), files)
        write_checked(attempt.folder / "record.json", changed.to_json().encode())

    def rewrite_all(self, **scores) -> None:
        """Rewrite `c00=(1, 2)`: the scores of a config by seed; None diverged."""
        for config, values in scores.items():
            for seed, value in enumerate(values):
                status = TrialStatus.DIVERGED if value is None else TrialStatus.COMPLETED
                self.rewrite(f"{config}-s{seed}", value or 1.0, status=status)

    def best(self) -> tuple[str, str, str]:
        """Return the trial that the driver scores, and the best config by the other two."""
        self.run.conclude(score=True)
        reported = load_results(self.folder.folder).reported
        (trial,) = reported["trial_id"].unique()
        (shown,) = seeds.best_configs(Study.load(self.folder.folder))
        (repeated,) = best_configs(self.folder.folder, ARM, 1)
        return trial, shown.config, repeated


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, tracking_store):
    judgement = {"failures": ["mode_collapse"]}
    return Recorded(tmp_path_factory.mktemp("best"), tracking_store, judgement=judgement)


@pytest.fixture(scope="module")
def by_last(tmp_path_factory, tracking_store):
    judgement = {"checkpoint": "last"}
    return Recorded(tmp_path_factory.mktemp("last"), tracking_store, judgement=judgement)


def test_a_config_of_which_half_the_seeds_diverged_has_failed_for_all_three(recorded):
    recorded.rewrite_all(c00=(1, None), c01=(5, 6), default=(9, 9))
    assert recorded.best() == (f"{ARM}-c01-s0", "c01", "c01")


def test_an_event_that_the_comparison_rule_names_fails_a_trial_for_all_three(recorded):
    recorded.rewrite_all(c00=(1, 1), c01=(5, 4), default=(9, 9))
    for seed in (0, 1):
        recorded.rewrite(f"c00-s{seed}", 1, events=[COLLAPSE])
    assert recorded.best() == (f"{ARM}-c01-s1", "c01", "c01")
    for seed in (0, 1):  # one that has passed fails none
        recorded.rewrite(f"c00-s{seed}", 1, events=[dataclasses.replace(COLLAPSE, ended=15)])
    assert recorded.best() == (f"{ARM}-c00-s0", "c00", "c00")


def test_the_arms_defaults_never_compete(recorded):
    recorded.rewrite_all(c00=(3, 3), c01=(5, 6), default=(1, 1))
    assert recorded.best() == (f"{ARM}-c00-s0", "c00", "c00")
    with pytest.raises(StudyError, match=r"has 2 configs to choose from \(its defaults"):
        best_configs(recorded.folder.folder, ARM, 3)


def test_the_checkpoint_that_the_comparison_rule_names_chooses_and_is_scored(by_last):
    by_last.rewrite_all(default=(9, 9))
    for seed in (0, 1):
        by_last.rewrite(f"c00-s{seed}", best=1, last=9)
        by_last.rewrite(f"c01-s{seed}", best=5, last=6)
    assert by_last.best() == (f"{ARM}-c01-s0", "c01", "c01")
    reported = load_results(by_last.folder.folder).reported
    assert reported["discriminator_updates"].tolist() == [20] * len(reported)
    # The last generator is the one that was trained: the best one of this test draws one image.
    own = reported.set_index("name")["value"][by_last.spec.measure.primary]
    with_best = dataclasses.replace(
        by_last.spec, judgement=by_last.spec.judgement.model_copy(update={"checkpoint": "best"})
    )
    by_last.run.spec = with_best
    by_last.run.conclude(score=True)
    by_last.run.spec = by_last.spec
    other = load_results(by_last.folder.folder).reported
    assert set(other["discriminator_updates"]) == {10}
    assert own != other.set_index("name")["value"][by_last.spec.measure.primary]


def test_the_better_of_the_middle_two_seeds_stands_for_an_even_number():
    trials = pd.DataFrame(
        {"config_id": "c00", "seed": range(4), "score": [7.0, 4.0, 4.0, 9.0]},
        index=[10, 11, 12, 13],
    )
    assert score_configs(trials["config_id"], trials["score"]).tolist() == [5.5]
    assert select_median_trial(trials) == 12  # 4, 4, 7, 9: the second, of two equal ones
    assert select_median_trial(trials.iloc[:3]) == 12  # 4, 4, 7
    assert select_median_trial(trials.assign(score=INF)) is None


def test_of_equal_configs_the_first_by_name_ranks_first_and_failed_ones_do_not_rank():
    trials = pd.DataFrame({"config_id": ["c02", "c01", "c00"], "score": [4.0, 4.0, INF]})
    assert rank_configs(trials).index.tolist() == ["c01", "c02"]


def test_where_configs_are_repeated_the_first_is_shown_and_all_compete_for_a_next_study():
    outcomes = pd.DataFrame(
        {"config_id": ["default", "c01", "c02"], "result_hash": None, "score": [3.0, 2.0, 1.0]}
    )
    repeated = ["default", "c01"]  # chosen beforehand, in this order
    assert select_counted(outcomes, repeated)["config_id"].tolist() == ["default"]
    assert rank_configs(select_candidates(outcomes, repeated)).index.tolist() == ["c01", "default"]
    assert select_candidates(outcomes)["config_id"].tolist() == ["c01", "c02"]
    assert select_counted(outcomes, []).empty


STATUSES = [*TrialStatus]
KINDS = ("mode_collapse", "oscillation")


def random_trials(rng: np.random.Generator, spec: StudySpec) -> tuple[list[dict], list[dict]]:
    """Return rows of trials.parquet and events.parquet of a study that ended in every way."""
    name, rows, events = spec.measure.primary, [], []
    fates = rng.choice([0.0, 0.3, 0.8])
    for config in ("default", *(f"c{i:02d}" for i in range(rng.integers(1, 6)))):
        for seed in range(spec.design.seeds[-1] + 1):
            trial_id = f"{ARM}-{config}-s{seed}"
            troubled = rng.random() < fates
            status = rng.choice(STATUSES) if troubled else TrialStatus.COMPLETED
            reason = str(rng.choice(["", "time_limit", "asha", "oscillation"]))
            row = {"study": "tiny", "arm": ARM, "trial_id": trial_id, "config_id": config}
            row |= {"seed": seed, "result_hash": trial_id, "status": status, "reason": reason}
            row |= {f"generator_{which}": f"{which}.pt" for which in ("best", "last")}
            if rng.random() < 0.1:  # the same run as another config's
                row["result_hash"] = f"{ARM}-c00-s{seed}"
            for which in ("best", "last"):
                value = float(rng.integers(1, 5))  # few values, so that many are equal
                row[f"{which}.{name}"] = rng.choice([value, math.nan, INF], p=[0.9, 0.05, 0.05])
            rows.append(row | {"best_at": 10, "discriminator_updates": 20})
            for kind in KINDS:
                if rng.random() < fates / 2:
                    ended = None if rng.random() < 0.5 else 15
                    event = {"kind": kind, "onset": 5, "detected": 10, "ended": ended}
                    events.append({"trial_id": trial_id, "severity": 1.0, **event})
    return rows, events


@pytest.fixture(scope="module")
def bases() -> dict[str, StudySpec]:
    return {
        "lower": parse(design={"seeds": [0, 1]}),
        "higher": parse(
            design={"seeds": [0, 1, 2]},
            measure={"features": "pixels", "metrics": ["precision"], "samples": 50},
        ),
    }


@pytest.mark.parametrize("repeats", [False, True], ids=["drawn", "repeated"])
@pytest.mark.parametrize("better", ["lower", "higher"])
def test_driver_replicate_and_report_choose_the_same_config_of_any_table(
    better, repeats, bases, tmp_path
):
    """Over all endings, events, checkpoints, rules, ties, copies and missing values."""
    rng, chosen = np.random.default_rng(17), []
    for case in range(12):
        spec, folder = bases[better], tmp_path / f"s{case}"
        judgement = spec.judgement.model_copy(
            update={
                "checkpoint": str(rng.choice(["best", "last"])),
                "failures": [kind for kind in KINDS if rng.random() < 0.5],
            }
        )
        spec = dataclasses.replace(spec, judgement=judgement)
        settings = spec.resolved()
        if rng.random() < 0.5:
            settings["stopping"] = {"asha": {"grace": 0.25, "reduction_factor": 4}}
        if repeats:  # one config, chosen beforehand; with more `replicate` chooses anew
            only = {"from": "x", "configs": {ARM: {"c00": {}}}}
            spec = dataclasses.replace(spec, replicate=Replicate(**only))
            settings["replicate"] = spec.replicate.model_dump(by_alias=True)
        rows, events = random_trials(rng, spec)
        folder.mkdir()
        write_yaml(folder / "study.yaml", settings)
        minimize = spec.measure.primary_score.minimize
        protocol = {"primary": spec.measure.primary, "minimize": minimize, "scores": {}}
        write_json(folder / "protocol.json", protocol)
        study = StudyFolder(folder)
        study.write_plan(
            {"arm": ARM, "config_id": c, "params": {}} for c in {row["config_id"] for row in rows}
        )
        study.write_table(TRIALS, table(rows, trials_schema(rows)))
        study.write_table(EVENTS, table(events, EVENTS_SCHEMA))

        class Resolved(StudySpec):
            """The study as it is resolved here, its pruner included."""

            def resolved(self, settings=settings):
                return settings

        same = Resolved(**{f.name: getattr(spec, f.name) for f in dataclasses.fields(spec)})
        scored = [t["config_id"] for t in best_trials(same, rows, load_results(folder).events)]
        shown = [c.config for c in seeds.best_configs(Study.load(folder)) if c.ok]
        try:
            repeated = list(best_configs(folder, ARM, 1))
        except StudyError:
            repeated = []
        assert scored == repeated, case
        assert shown == scored or repeats, case
        chosen += scored
    assert len(chosen) > 3
    assert "default" not in chosen
    assert repeats or len(set(chosen)) > 1
