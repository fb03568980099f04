"""What `run --extend` adds to a study, and what it refuses to change. Nothing is trained."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from ganstudy.cli import app
from ganstudy.store import StudyFolder
from ganstudy.study.plan import planned
from ganstudy.study.spec import parse_study
from ganstudy.sweep.driver import Run, first_changed

CHOICES = {"n_critic": {"choice": [1, 2]}, "batch_size": {"choice": [16, 32]}}


@pytest.fixture
def begun(tmp_path):
    """Return a study's folder as a driver leaves it before the first trial."""

    def begin(study) -> StudyFolder:
        folder = StudyFolder(tmp_path / "runs" / "tiny")
        folder.create()
        Run(parse_study(study), folder, f"sqlite:///{tmp_path}/mlflow.db").begin()
        return folder

    return begin


def sobol(study):
    study["design"] = {"sampler": "sobol", "configs": 5}
    study["space"] |= CHOICES


def grid(study):
    study["design"], study["space"] = {"sampler": "grid"}, dict(CHOICES)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (None, lambda s: s["design"].update(configs=9)),
        (None, lambda s: s["design"].update(seeds=[0, 1])),
        (None, lambda s: s["arms"].update(hinge={"loss": "hinge"})),
        (sobol, lambda s: s["design"].update(configs=21)),  # from 8 points of the sequence to 32
        (sobol, lambda s: s["arms"].update(hinge={"loss": "hinge"})),
        (grid, lambda s: s["design"].update(seeds=[0, 1])),
        (grid, lambda s: s["arms"].update(hinge={"loss": "hinge"})),
    ],
)
def test_more_configs_seeds_or_arms_leave_every_trial_as_it_is(tiny, begun, first, then):
    if first is not None:
        first(tiny)
    folder, before = begun(tiny), len(list(planned(parse_study(tiny))))
    then(tiny)
    assert first_changed(parse_study(tiny), folder) is None
    assert len(list(planned(parse_study(tiny)))) > before


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (None, lambda s: s["design"].update(seed=1)),
        (None, lambda s: s["design"].update(paired=False)),
        (None, lambda s: s["design"].update(seeds=[1])),
        (None, lambda s: s["design"].update(sampler="sobol")),
        (None, lambda s: s["arms"].pop("wgan_gp")),
        # One key more is one dimension more: every point of the sequence moves.
        (sobol, lambda s: s["space"].update(flips={"choice": [True, False]})),
        # The config ids of a grid are the numbers of its products.
        (grid, lambda s: s["space"].update(n_critic={"choice": [1, 2, 3]})),
    ],
)
def test_what_would_change_a_trial_is_told(tiny, begun, first, then):
    if first is not None:
        first(tiny)
    folder = begun(tiny)
    then(tiny)
    assert first_changed(parse_study(tiny), folder) is not None


def test_trials_that_competed_by_a_rule_go_on_by_that_rule(tiny, begun, write_study):
    tiny["stopping"] = {"asha": {"grace": 0.5}}
    folder = begun(tiny)
    tiny["stopping"] = {"asha": {"grace": 0.4}}
    done = CliRunner().invoke(
        app, ["run", str(write_study(tiny)), "--runs", str(folder.folder.parent), "--extend"]
    )
    assert done.exit_code == 2
    assert "--extend: stopping must be that of" in done.stderr
