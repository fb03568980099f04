from __future__ import annotations

import copy
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from ganstudy.display import Display
from ganstudy.measure.events import replay
from ganstudy.records import PROBE_SCORE, TrialStatus
from ganstudy.store import StudyFolder
from ganstudy.study.plan import plan
from ganstudy.study.spec import parse_study
from ganstudy.trial import TrialSpec, run_trial, sample_grid, trial_steps


@pytest.fixture
def study(tmp_path):
    folder = StudyFolder(tmp_path / "study")
    folder.create()
    return folder


def first(study_data) -> TrialSpec:
    return plan(parse_study(study_data))[0]


def bits(record):
    """Everything of the rows but the clock."""
    return [(*p[:4], float(p.value).hex()) for p in record.points]


def test_a_trial_records_every_evaluation_and_keeps_only_its_generators(tiny, study):
    spec = first(tiny)
    beats = []
    record = run_trial(spec, study.trial(spec.trial_id), beats.append)
    assert record.result.status is TrialStatus.COMPLETED
    assert [b.discriminator_updates for b in beats] == [0, 20, 40, 60]
    scored = [p.discriminator_updates for p in record.points if p.name == spec.measure.primary]
    assert scored == [0, 20, 40, 60]
    kept = {p.name for p in study.trial(spec.trial_id).latest()[0].folder.iterdir()}
    assert kept == {"begun", "record.json", *record.files.values()}
    assert not any(name.startswith("state") for name in kept)
    assert record.result.best_at in (20, 40, 60)


def test_a_conditional_trial_is_measured_and_watched_like_any_other(tiny, study):
    tiny["base"] |= {
        "conditioning": "projection",
        "stabilizers": {"ema": {}, "minibatch_stddev": {}},
    }
    tiny["measure"]["metrics"] += ["class_accuracy"]
    spec = first(tiny)
    record = run_trial(spec, study.trial(spec.trial_id))
    assert record.result.status is TrialStatus.COMPLETED
    found = {p.name: p.value for p in record.points}
    assert 0 <= found["heldout_discriminator_auc"] <= 1
    assert 0 <= found["class_accuracy_small_cnn_60"] <= 1
    assert math.isfinite(found[spec.measure.primary])


def test_a_trial_killed_at_any_evaluation_goes_on_bit_for_bit(tiny, study):
    spec = first(tiny)
    undisturbed = run_trial(spec, study.trial("undisturbed"))
    for stop_after in (1, 2, 3):
        folder = study.trial(f"killed-{stop_after}")
        steps = trial_steps(spec, folder)
        for _ in range(stop_after):
            next(steps)
        steps.close()
        resumed = run_trial(spec, folder)
        assert bits(resumed) == bits(undisturbed)
        assert resumed.events == undisturbed.events
        assert len(folder.attempts()) == 2
        a, b = (
            torch.load(f.latest()[0].folder / r.files["generator_best"], weights_only=True)
            for f, r in ((folder, resumed), (study.trial("undisturbed"), undisturbed))
        )
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_the_best_score_that_is_shown_is_of_all_attempts(tiny, study):
    tiny["measure"]["every"] = {"discriminator_updates": 10}
    tiny["space"]["generator_optimizer.lr"] = {"log_uniform": [0.02, 0.03]}  # it gets worse
    spec, folder = first(tiny), study.trial("best")
    whole = run_trial(spec, study.trial("whole"))
    scores = [p.value for p in whole.points if p.name == spec.primary.name][1:]
    shown = []
    for _ in range(len(scores) + 1):  # each attempt ends after one evaluation
        console = Console(file=io.StringIO(), width=200)
        with Display(console, 1, spec.primary.name, spec.primary.minimize) as display:
            display.started(spec)
            display.beat(next(trial_steps(spec, folder)))
        shown.append(console.file.getvalue())
    best = min(scores) if spec.primary.minimize else max(scores)
    assert f"{spec.primary.name} best {best:.4g}, last {scores[-1]:.4g}" in shown[-1]
    assert best != scores[-1], "the last attempt alone would show the same"


def test_a_finished_trial_is_not_run_again(tiny, study):
    spec = first(tiny)
    run_trial(spec, study.trial(spec.trial_id))
    beats = []
    run_trial(spec, study.trial(spec.trial_id), beats.append)
    assert len(beats) == 1
    assert len(study.trial(spec.trial_id).attempts()) == 1


def test_metrics_of_the_end_are_scored_once_at_the_end(tiny, study):
    tiny["measure"]["final"] = ["recall"]
    record = run_trial(first(tiny), study.trial("final"))
    scored = [p.discriminator_updates for p in record.points if p.name.startswith("recall")]
    assert scored == [60]


def test_the_raw_generator_is_scored_beside_its_average(tiny, study):
    tiny["measure"]["raw"] = True
    plain = run_trial(first(tiny), study.trial("plain"))
    assert not any(p.name.endswith("_raw") for p in plain.points)
    tiny["base"]["stabilizers"] = {"ema": {"halflife_images": 200}}
    spec = first(tiny)
    averaged = run_trial(spec, study.trial("averaged"))
    at_end = averaged.values_at(60)
    name = spec.measure.primary
    # An average leaves the game alone: as trained, the generator is that of the plain run.
    assert at_end[name + "_raw"] == plain.values_at(60)[name]
    assert at_end[name] != at_end[name + "_raw"]


def test_raw_scores_change_no_event(tiny, study):
    tiny["base"]["stabilizers"] = {"ema": {"halflife_images": 200}}
    tiny["measure"]["every"] = {"discriminator_updates": 6}
    alone = run_trial(first(tiny), study.trial("alone"))
    tiny["measure"]["raw"] = True
    beside = run_trial(first(tiny), study.trial("beside"))
    assert any(p.name.endswith("_raw_se") for p in beside.points)
    assert alone.events == beside.events != []


class Broken:
    """A trainer of one's own whose generator outputs NaN from update 20 on, losses being fine."""

    def __init__(self) -> None:
        self.generator_updates = self.discriminator_updates = 0

    def advance(self, updates: int) -> dict[str, float]:
        self.generator_updates += updates
        self.discriminator_updates += updates
        return {"generator_loss": 0.7}

    def sample(self, count: int, rng: torch.Generator) -> torch.Tensor:
        images = torch.rand(count, 1, 8, 8, generator=rng)
        return images * math.nan if self.discriminator_updates >= 20 else images

    def state_dict(self) -> dict[str, int]:
        return {"updates": self.discriminator_updates}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.generator_updates = self.discriminator_updates = state["updates"]


def test_a_generator_that_outputs_nan_diverges_and_has_no_score(tiny, study):
    tiny["measure"]["final"] = ["recall"]
    spec = first(tiny)
    record = run_trial(spec, study.trial("broken"), trainer=Broken())
    assert record.result.status is TrialStatus.DIVERGED
    assert [(e.kind, e.onset) for e in record.events if e.kind == "divergence"] == [
        ("divergence", 20)
    ]
    assert math.isfinite(record.values_at(0)[spec.measure.primary])
    for at in (20, 40, 60):
        scores = [v for name, v in record.values_at(at).items() if name != "generator_loss"]
        assert scores
        assert all(math.isnan(value) for value in scores)


def exploding(tiny):
    """A study whose first trial truly diverges: SGD with a learning rate of 10^6."""
    tiny["base"]["optimizer"] = {"name": "sgd", "lr": 1e6}
    tiny["arms"] = {"wgan_gp": tiny["arms"]["wgan_gp"]}
    tiny["space"] = {}
    return tiny


def test_divergence_stops_where_asked_and_is_an_outcome(tiny, study):
    tiny = exploding(tiny) | {"events": {"stop_on": ["divergence"]}}
    record = run_trial(first(tiny), study.trial("stopped"))
    assert record.result.status is TrialStatus.DIVERGED
    assert record.result.discriminator_updates < 60
    assert [e.kind for e in record.events] == ["divergence"]
    assert record.events[0].evidence["signal"] in record.result.reason
    last = record.values_at(record.result.discriminator_updates)
    assert math.isnan(last[first(tiny).measure.primary])


def test_divergence_that_does_not_stop_goes_on_to_the_end_and_still_counts(tiny, study):
    record = run_trial(first(exploding(tiny)), study.trial("on"))
    assert record.result.discriminator_updates == 60
    assert record.result.status is TrialStatus.DIVERGED
    assert "not finite at the end" in record.result.reason


def flat_images(folder, tiny):
    """A study of images without spread, past the check that refuses it."""
    path = folder / "flat.npz"
    np.savez(path, images=np.full((200, 8, 8), 100, np.uint8))
    tiny["base"]["dataset"] = {"name": "npz", "path": str(path)}
    tiny["measure"] |= {"features": "pixels", "samples": 40}
    tiny["measure"]["metrics"] += ["checkerboard"]
    return tiny


def dirac(tiny, **base):
    """A study of data that is one point."""
    tiny["base"] |= {"dataset": "dirac", **base}
    tiny["measure"]["features"] = "pixels"
    return tiny


def test_a_ratio_to_real_images_without_spread_is_undefined_and_no_divergence(
    tiny, study, tmp_path
):
    for name, data, undefined in (
        ("flat", flat_images(tmp_path, copy.deepcopy(tiny)), ("diversity", "checkerboard")),
        ("dirac", dirac(copy.deepcopy(tiny)), ("diversity",)),
    ):
        record = run_trial(first(data), study.trial(name))
        assert record.result.status is TrialStatus.COMPLETED
        assert all(math.isfinite(p.value) for p in record.points)
        assert not any(p.name.startswith(undefined) for p in record.points)
        assert any(p.name.startswith("coverage") for p in record.points)
        assert "divergence" not in {e.kind for e in record.events}


def test_a_generator_at_zero_has_no_relative_step_and_has_not_diverged(tiny, study):
    point = {"name": "dirac", "start": 0.0}
    data = dirac(tiny, architecture=point, optimizer={"name": "sgd", "lr": 0.1})
    data["arms"], data["space"] = {"wasserstein": {"loss": "wasserstein"}}, {}
    record = run_trial(first(data), study.trial("zero"))
    assert record.result.status is TrialStatus.COMPLETED
    names = {p.name for p in record.points}
    assert "generator_weight_norm" in names
    assert "update_ratio" not in names


class Spoilt:
    """A trainer of one's own whose samples are spoilt from half of its budget on.

    Its losses are finite; its samples are worse than the first ones.
    """

    def __init__(self, spoil) -> None:
        self.generator_updates = self.discriminator_updates = 0
        self.spoil = spoil

    def advance(self, updates):
        self.generator_updates += updates
        self.discriminator_updates += updates
        return {"generator_loss": 0.7}

    def sample(self, count, rng):
        images = torch.rand(count, 1, 8, 8, generator=rng) * 2 - 1
        return images if self.discriminator_updates < 300 else self.spoil(images)

    def state_dict(self):
        return {"updates": self.discriminator_updates}

    def load_state_dict(self, state):
        self.generator_updates = self.discriminator_updates = state["updates"]


@pytest.mark.parametrize(
    ("spoil", "kind", "status"),
    [
        (lambda images: torch.ones_like(images), "mode_collapse", TrialStatus.COMPLETED),
        (lambda images: 3 * images, "divergence", TrialStatus.DIVERGED),
    ],
)
def test_a_bad_score_of_a_collapse_is_no_divergence(spoil, kind, status, tiny, study):
    tiny["base"]["budget"]["discriminator_updates"] = 600
    tiny["measure"] |= {"features": "pixels", "every": {"discriminator_updates": 300}}
    tiny["events"] = {"stop_on": ["divergence"]}
    spec = first(tiny)
    record = run_trial(spec, study.trial(kind), trainer=Spoilt(spoil))
    score = {p.discriminator_updates: p.value for p in record.points if p.name == PROBE_SCORE}
    assert score[max(score)] > 1.2 * score[0]
    kinds = {e.kind for e in record.events} & {"mode_collapse", "divergence"}
    assert kinds == {kind}
    assert record.result.status is status
    assert replay(record.points, spec.events.detectors) == record.events


def test_live_events_equal_replayed_ones(tiny, study):
    for name, data in (("tiny", tiny), ("exploding", exploding(dict(tiny)))):
        spec = first(data)
        record = run_trial(spec, study.trial(name))
        assert replay(record.points, spec.events.detectors) == record.events


class Constant:
    """A user's own trainer: the four methods and two counters, and nothing of ours."""

    def __init__(self) -> None:
        self.generator_updates = self.discriminator_updates = 0

    def advance(self, updates):
        self.discriminator_updates += updates
        self.generator_updates += updates
        return {"my_loss": 1.0 / self.discriminator_updates}

    def sample(self, count, rng):
        return torch.zeros(count, 1, 8, 8)

    def state_dict(self):
        return {"updates": self.discriminator_updates}

    def load_state_dict(self, state):
        self.generator_updates = self.discriminator_updates = state["updates"]


def test_bring_your_own_trainer(tiny, study):
    tiny["base"]["budget"]["discriminator_updates"] = 300
    spec = first(tiny)
    record = run_trial(spec, study.trial("own"), trainer=Constant())
    assert record.result.status is TrialStatus.COMPLETED
    assert {"my_loss", spec.measure.primary} <= {p.name for p in record.points}
    assert [e.kind for e in record.events] == ["no_learning", "mode_collapse"]


def test_a_failing_trial_leaves_its_traceback(tiny, study):
    class Broken(Constant):
        def advance(self, updates):
            raise RuntimeError("no such luck")

    folder = study.trial("broken")
    with pytest.raises(RuntimeError, match="no such luck"):
        run_trial(first(tiny), folder, trainer=Broken())
    assert folder.fail("otherwise") == "RuntimeError: no such luck"


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sample_grid_places_images_row_by_row(channels):
    images = torch.linspace(-1, 1, 64).view(64, 1, 1, 1).expand(64, channels, 4, 4).clone()
    images[5] = math.nan
    picture = np.asarray(Image.open(io.BytesIO(sample_grid(images))))
    assert picture.shape[:2] == (32, 32)
    assert (picture[0:4, 20:24] == 0).all()  # not finite: black
    assert (picture[28:, 28:] == 255).all()
    assert (picture[4:8, 0:4] == round((8 / 63) * 255)).all()


def test_points_are_drawn_as_a_scatter_x_right_and_y_up():
    points = torch.tensor([[1.4, 1.4], [-1.4, 0.0], [float("nan"), 0.0], [9.0, 9.0]])
    picture = np.asarray(Image.open(io.BytesIO(sample_grid(points.view(4, 2, 1, 1)))))
    assert picture.shape == (128, 128)
    rows, columns = np.nonzero(picture)
    # 1.4 of 1.5 lies 4 pixels from the edge; y = 0 just above the middle; the rest is not drawn.
    assert sorted(zip(columns.tolist(), rows.tolist(), strict=True)) == [(4, 63), (123, 4)]


def test_a_vae_is_a_trial_like_any_other(tiny, study):
    tiny["arms"] = {"vae": {"loss": "vae", "regularizers": None, "stabilizers": {"ema": {}}}}
    spec = first(tiny)
    record = run_trial(spec, study.trial(spec.trial_id))
    assert record.result.status is TrialStatus.COMPLETED
    assert record.result.images_seen == 60 * 32
    assert record.result.generator_updates == 60
    assert "generator_best" in record.files
    names = {point.name for point in record.points}
    assert {"reconstruction_error", "kl_divergence", "generator_loss"} <= names
    assert "heldout_discriminator_auc" not in names


def test_a_trial_on_points_has_scores_and_a_picture(tiny, study):
    tiny["base"] |= {"dataset": {"name": "ring", "train": 500, "test": 200}}
    tiny["measure"] |= {"features": "pixels", "metrics": ["frechet_distance", "precision"]}
    spec = first(tiny)
    record = run_trial(spec, study.trial(spec.trial_id))
    assert record.result.status is TrialStatus.COMPLETED
    assert math.isfinite(record.values_at(60)["fd_pixels_60"])
