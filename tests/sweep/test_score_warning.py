"""A folder of shapes on which the score is doubtful: check, the console and the page say so."""

from __future__ import annotations

import html
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy.stats import spearmanr
from typer.testing import CliRunner

from ganstudy.cli import app
from ganstudy.records import load_results
from ganstudy.storage import read_text
from ganstudy.store import StudyFolder
from tests.conftest import write_yaml

cli = CliRunner()
CLASSES = {"circle": 0, "triangle": 3, "square": 4}
DOUBT = "may rank the arms wrongly"


def invoke(*arguments):
    return cli.invoke(app, [str(a) for a in arguments])


def draw_shapes(folder: Path, images: int, side: int = 16) -> None:
    """Write noisy pictures of circles, triangles and squares, each in its class's folder.

    Colour, place, size and turn vary, so that so few images do not show what makes a class.
    """
    rng = np.random.default_rng(0)
    for name, corners in CLASSES.items():
        (folder / name).mkdir(parents=True)
        for index in range(images // len(CLASSES)):
            ground, colour = (tuple(map(int, rng.integers(256, size=3))) for _ in range(2))
            radius = rng.uniform(0.2, 0.4) * side
            centre = rng.uniform(radius, side - radius, size=2)
            picture = Image.new("RGB", (side, side), ground)
            pencil = ImageDraw.Draw(picture)
            if corners:
                turn = rng.uniform(0, 360)
                pencil.regular_polygon((*centre, radius), corners, rotation=turn, fill=colour)
            else:
                pencil.ellipse((*(centre - radius), *(centre + radius)), fill=colour)
            noisy = np.asarray(picture) + rng.normal(0, 40, (side, side, 3))
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(
                folder / name / f"{index}.png"
            )


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    """Write the study of two arms on 180 pictures, and return its file."""
    place = tmp_path_factory.mktemp("shapes")
    draw_shapes(place / "pictures", 180)
    study = {
        "study": "shapes",
        "base": {
            "dataset": {"name": "image_folder", "path": str(place / "pictures"), "size": 16},
            "architecture": {"name": "mlp", "width": 16, "latent_dim": 8},
            "batch_size": 16,
            "budget": {"discriminator_updates": 40},
        },
        "arms": {"non_saturating": {}, "hinge": {"loss": "hinge"}},
        "space": {"generator_optimizer.lr": {"log_uniform": [1e-4, 1e-2]}},
        "design": {"configs": 2},
        "measure": {"metrics": ["kernel_distance"], "samples": 100,
                    "every": {"discriminator_updates": 20}},
    }  # fmt: skip
    return write_yaml(place / "study.yaml", study)


@pytest.fixture(scope="module")
def before(shapes):
    """What `check` says while no classifier has been trained on these pictures."""
    return invoke("check", shapes)


@pytest.fixture(scope="module")
def ran(shapes, before, tracking_store):
    """Run the study; return what the console said."""
    run = invoke("run", shapes, "--runs", shapes.parent, "--in-process", "--tracking-uri",
                 tracking_store)  # fmt: skip
    assert run.exit_code == 0, run.output
    return run


def page_answer(folder: Path) -> str:
    """Return what the page says before its contents."""
    page = read_text(folder / "report.html")
    return page[page.index("<main") : page.index("<nav")]


def test_check_warns_before_the_run_of_too_little_to_train_on(before):
    assert before.exit_code == 0
    assert f"warning: The score kd_small_cnn_100 {DOUBT}" in before.stderr
    assert "small_cnn will train for 10 updates" in before.stderr
    assert "What to do: give the classifier more images" in before.stderr


def test_the_console_and_the_page_warn_after_the_run_with_the_accuracy(shapes, ran):
    folder = shapes.parent / "shapes"
    held = StudyFolder(folder).read_json("protocol.json")["scores"]["kd_small_cnn_100"][
        "features_facts"
    ]["held_out"]
    assert (held["n"], held["classes"], held["n_train"]) == (72, 3, 108)
    told = f"right on {held['accuracy']:.0%} [{held['low']:.0%}, {held['high']:.0%}] of 72"
    # Once before the trials take their time, once at the end.
    assert ran.stderr.count(f"warning: The score kd_small_cnn_100 {DOUBT}") == 2
    assert ran.stderr.count(told) == 2
    answer = page_answer(folder)
    assert answer.count(DOUBT) == 1
    assert told in answer
    assert answer.index(DOUBT) < answer.index('id="verdict"')


def test_report_resume_and_check_warn_too(shapes, ran, tmp_path, tracking_store):
    folder = shapes.parent / "shapes"
    report = invoke("report", folder, "-o", tmp_path / "page.html", "--format", "md")
    assert report.stderr.count(DOUBT) == 1
    lines = (tmp_path / "page.md").read_text("utf-8").splitlines()
    assert DOUBT in next(line for line in lines if line.startswith("> ")).replace("\\", "")
    resumed = invoke("resume", folder, "--in-process")
    assert resumed.exit_code == 0, resumed.output
    assert resumed.stderr.count(DOUBT) == 1  # nothing is left to run
    # By now the classifier is known, and stands in place of the guess from its updates.
    after = invoke("check", shapes)
    assert "of 72 held-out images of 3 classes" in after.stderr
    assert "will train for" not in after.stderr


def test_sanity_adds_what_the_score_does_not_see(shapes, ran):
    folder = shapes.parent / "shapes"
    sanity = invoke("sanity", folder, "--features", "pixels", "--repeats", 2)
    assert sanity.exit_code == 0, sanity.output
    (warning,) = (line for line in sanity.stderr.splitlines() if line.startswith("warning:"))
    assert html.escape(warning.removeprefix("warning: ")) in (
        html.escape(html.unescape(page_answer(folder)))
    )
    rows = load_results(folder).sanity
    mine = rows[(rows["name"] == "kd_small_cnn") & (rows["experiment"] == "ladders")]
    for way in ("blur", "noise"):
        repeats = mine[mine["series"] == way].groupby("repeat")
        rho = np.mean([spearmanr(rows["x"], rows["value"]).statistic for _, rows in repeats])
        assert (f"{way} (rho {rho:.2f})" in warning) == (rho < 0.9)
    # Negatives of pictures in random colours are no worse than these.
    assert "invert" not in warning
