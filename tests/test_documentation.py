"""Every snippet of the documentation runs, and does what the text beside it says."""

from __future__ import annotations

import ast
import contextlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
import torch
import typer
from rich.console import Console
from ruamel.yaml import YAML
from typer.testing import CliRunner

from ganstudy.cli import app
from ganstudy.display import Display
from ganstudy.gan import losses
from ganstudy.measure.features.cache import read_torch
from ganstudy.measure.protocol import evaluator
from ganstudy.records import load_results
from ganstudy.registry import explained
from ganstudy.store import StudyFolder
from ganstudy.study.checks import load_study
from ganstudy.study.plan import plan
from ganstudy.study.reading import merge_plain
from ganstudy.study.spec import StudySpec, parse_study
from ganstudy.sweep.driver import Run, pending
from ganstudy.trial import labels_of, latents_of
from tests.conftest import ROOT

PAGES = sorted(
    page
    for page in (ROOT / "README.md", ROOT / "studies" / "README.md", *(ROOT / "docs").glob("*.md"))
    if page.name != "components.md"  # made from docstrings, and has no snippet
)


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    found, text = [], page.read_text(encoding="utf-8")
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(str(page.relative_to(ROOT)), line, match[1], match[2]))
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def only(language: str, needle: str) -> Block:
    """The one block that holds a text."""
    (block,) = (b for b in BLOCKS if b.language == language and needle in b.text)
    return block


def commands(block: Block) -> list[str]:
    """The command lines of a shell block, without comments."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [" ".join(shlex.split(line, comments=True)) for line in lines if line.strip()]


SHELL = [(block, line) for block in BLOCKS if block.language == "sh" for line in commands(block)]

NOT_RUN = {
    # What is not run, and why. `ganstudy` lines of these are parsed, and their studies checked.
    "ganstudy run": "trains for minutes; tested in tests/sweep and tests/test_quickstart.py",
    "ganstudy submit": "needs a cluster; tested in tests/cluster/test_submit.py",
    "ganstudy ui": "serves until Ctrl-C; tested in tests/test_tracking.py",
    "--format png": "needs a browser; tested in tests/analysis/test_exports.py",
    "make": "installs from a package index, or runs all tests; the targets must exist",
    "source": "a shell's own command",
    "cd": "a shell's own command",
    "export": "a shell's own command",
    "xdg-open": "opens a browser",
    "pip": "installs from a package index",
    "ray": "starts or asks a cluster; commands of Ray, tested in tests/cluster",
    "scp": "copies to other machines",
    "$EDITOR": "a person edits",
    "mlflow": "serves; a command of MLflow",
    "python benchmarks/": "takes a study of hours",
}


def reason(line: str) -> str | None:
    """Why a command line is not run."""
    return next((why for start, why in NOT_RUN.items() if start in line.split("|")[0]
                 and (line.startswith(start) or start.startswith("--"))), None)  # fmt: skip


def test_every_block_is_of_a_kind_that_is_tested():
    assert {block.language for block in BLOCKS} == {"sh", "python", "yaml", "csv"}
    assert {b.name for b in BLOCKS if b.language == "python"} == {b.name for b in PYTHON}
    assert {b.name for b in BLOCKS if b.language == "yaml"} == {b.name for b, _, _ in FRAGMENTS}
    used = {why for _, line in SHELL if (why := reason(line))}
    assert used == set(NOT_RUN.values()), "a reason that nothing needs any more"


# One study for all: what the snippets name is in it.


def made_study() -> dict[str, Any]:
    return {
        "study": "quickstart",
        "base": {
            "dataset": "mnist5k",
            "architecture": {"name": "mlp", "width": 16, "latent_dim": 8},
            "batch_size": 32,
            "budget": {"discriminator_updates": 60},
        },
        "arms": {
            "projection": {"loss": "hinge", "conditioning": "projection"},
            "wgan_gp": {"loss": "wasserstein", "regularizers": {"gradient_penalty": {}}},
        },
        "space": {"optimizer.lr": {"log_uniform": [1e-2, 0.3]}},  # high: the last is not the best
        "design": {"configs": 4},
        "measure": {
            "features": {"name": "small_cnn", "epochs": 1},
            "metrics": ["frechet_distance"],
            "samples": 1000,
            "every": {"discriminator_updates": 20},
            "probe": None,
        },
    }


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory, tracking_store):
    """A folder in which the snippets' files and studies are there."""
    folder = tmp_path_factory.mktemp("docs")
    spec = parse_study(made_study())
    made = StudyFolder(folder / "runs" / "quickstart")
    made.create()
    run = Run(spec, made, tracking_store, in_process=True)
    run.begin()
    with Display(Console(quiet=True), 8, spec.measure.primary, True, 0) as display:
        run.execute(display, pending(spec, made))
    run.conclude(score=False)
    for name in ("my_study", "agce_wide"):
        shutil.copytree(folder / "runs" / "quickstart", folder / "runs" / name)
    shutil.copytree(ROOT / "studies", folder / "studies")
    whole = only("yaml", "study: clipping").text
    for name in ("clipping.yaml", "my_study.yaml", "study.yaml"):
        (folder / name).write_text(whole, encoding="utf-8")
    (folder / "logs.csv").write_text(only("csv", "run,step").text, encoding="utf-8")
    # In a folder of its own: beside a study.yaml the table would be taken for that study's.
    (folder / "table").mkdir()
    shutil.copy(folder / "runs" / "quickstart" / "trials.parquet", folder / "table")
    (folder / "out").mkdir()
    return folder


# Python


PYTHON = [
    only("python", "groupby"),
    only("python", "generator_best"),
    only("python", "LOSSES.register"),
]


def executed(block: Block, names: dict[str, Any], **substitutions: str) -> dict[str, Any]:
    """Run a block; its last line, if an expression, is the value of `_`."""
    text = block.text
    for old, new in substitutions.items():
        assert old.replace("__", "-") in text
        text = text.replace(old.replace("__", "-"), new)
    *body, last = ast.parse(text).body
    if not isinstance(last, ast.Expr):
        exec(compile(text, block.name, "exec"), names)
        return names
    exec(compile(ast.Module(body, []), block.name, "exec"), names)
    names["_"] = eval(compile(ast.Expression(last.value), block.name, "eval"), names)
    return names


def test_the_readme_reads_each_arms_median(sandbox, monkeypatch):
    monkeypatch.chdir(sandbox)
    medians = executed(PYTHON[0], {})["_"]
    table = pd.read_parquet(sandbox / "runs" / "quickstart" / "trials.parquet")
    for arm in ("projection", "wgan_gp"):
        scores = table[table["arm"] == arm]["best.fd_small_cnn_1k"]
        assert len(scores) == 4
        assert medians[arm] == scores.median()


def test_the_tutorial_loads_a_trials_best_generator(sandbox, monkeypatch):
    monkeypatch.chdir(sandbox)
    folder = sandbox / "runs" / "quickstart"
    trials = load_results(folder).trials.set_index("trial_id")
    mine = trials[(trials["arm"] == "projection") & trials["best_at"].lt(60)]
    row = mine.iloc[0]  # one whose best generator is not its last
    assert row["generator_best"] != row["generator_last"]
    named = {"STUDY": "quickstart", "projection__c00__s0": str(mine.index[0])}
    names = executed(PYTHON[1], {}, **named)
    trainer = names["trainer"]
    best, last = (read_torch(folder / row[f"generator_{which}"]) for which in ("best", "last"))
    held = trainer.generator_state_dict()
    assert all(torch.equal(held[key], best[key]) for key in best)
    assert not all(torch.equal(held[key], last[key]) for key in last)
    assert names["threes"].shape == (16, 1, 28, 28)
    assert names["threes"].abs().max() <= 1
    spec = load_study(folder / "study.yaml")
    judge = evaluator(spec.measure, spec.dataset, "select", folder / "features")
    images = trainer.sample(judge.config.samples, judge.noise())
    scores = judge.evaluate(images, latents_of(trainer), labels_of(trainer, judge, len(images)))
    assert scores.scores["fd_small_cnn_1k"].value == row["best.fd_small_cnn_1k"]
    assert row["best.fd_small_cnn_1k"] < row["last.fd_small_cnn_1k"]


def test_a_new_loss_is_registered_by_its_one_object():
    known = set(losses.LOSSES.names())
    try:
        executed(PYTHON[2], dict(vars(losses)))
        assert set(losses.LOSSES.names()) - known == {"absolute"}
        loss = losses.LOSSES.parse("absolute")
        real, fake = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 0.5])
        assert loss.discriminator(real, fake).item() == 1.25
        assert loss.generator(fake).item() == 0.75
        assert explained(type(loss).__doc__ or "").elsewhere.startswith("What other codes")
        assert losses.LOSSES.paper("absolute") == "yours"
    finally:
        losses.LOSSES._classes.pop("absolute", None)
        losses.LOSSES._papers.pop("absolute", None)


# YAML: a fragment is laid on a study, which is then checked as a whole


def drawn_under_their_conditions(spec: StudySpec) -> None:
    for trial in plan(spec):
        for name in ("r1", "gradient_penalty"):
            chosen = name in trial.params["regularizers"]
            assert (f"regularizers.{name}.weight" in trial.params) == chosen
        narrow = trial.params["architecture"] == "dcgan"
        assert ("architecture.width" in trial.params) == narrow


def has_controls(spec: StudySpec) -> None:
    first, *_ = spec.arms
    assert {arm.name for arm in spec.arms} >= {f"{first.name}_again", f"{first.name}_broken"}


def has_networks(spec: StudySpec) -> None:
    swept = {arm.name for arm in spec.arms if "stabilizers.packing.images" in arm.space}
    assert swept == {"packed"}
    styles = {arm.name: arm.train({}, 0).architecture.name for arm in spec.arms}
    assert styles["style"] == "style"


def is_narrow(spec: StudySpec) -> None:
    assert set(spec.arms[0].narrow) == {"optimizer.lr", "optimizer.beta1", "n_critic"}
    wide = load_study(ROOT / "studies" / "agce_wide.yaml")
    assert set(spec.arms[0].space) <= set(wide.arms[0].space)


def is_asha(spec: StudySpec) -> None:
    assert spec.stopping is not None
    assert spec.stopping.name in {"asha", "median_stopping"}
    assert spec.stopping.to_dict()["grace"] == 0.25


def stops_and_watches(spec: StudySpec) -> None:
    assert spec.events.to_dict()["stop_on"] == ["divergence", "mode_collapse"]
    kinds = spec.events.to_dict()["detectors"]
    assert kinds["mode_collapse"]["patience"] == 5
    assert kinds["oscillation"] is None


def scores_raw(spec: StudySpec) -> None:
    assert spec.measure.raw
    assert [metric.name for metric in spec.measure.final][0] == "memorization"


def is_clipping(spec: StudySpec) -> None:
    assert [arm.name for arm in spec.arms] == ["clip", "penalty"]
    assert len(plan(spec)) == 2 * 16


UNDER = {"study": "fragment", "base": {"dataset": "mnist5k"}, "arms": {"a": {}}}
WIDE = {"optimizer.lr": {"log_uniform": [1e-5, 1e-2]}, "optimizer.beta1": {"uniform": [0, 0.9]},
        "n_critic": {"choice": [1, 5]}}  # fmt: skip
AVERAGED = {"base": {"dataset": "mnist5k", "stabilizers": {"ema": {}}}}
FRAGMENTS: list[tuple[Block, dict[str, Any], Callable[[StudySpec], None]]] = [
    (only("yaml", "study: clipping"), {}, is_clipping),
    (only("yaml", "when: {regularizers"), UNDER | {"arms": {}}, drawn_under_their_conditions),
    (only("yaml", "stopping: asha"), UNDER, is_asha),
    (only("yaml", "controls:"), UNDER | {"space": WIDE}, has_controls),
    (only("yaml", "unrolled:"), UNDER | {"arms": {}}, has_networks),
    (only("yaml", "narrow:"), UNDER | {"space": WIDE}, is_narrow),
    (only("yaml", "stop_on: [divergence, mode_collapse]"), UNDER, stops_and_watches),
    (only("yaml", "final: [memorization"), UNDER | AVERAGED, scores_raw),
]


@pytest.mark.parametrize(
    ("block", "under", "claim"), FRAGMENTS, ids=lambda v: getattr(v, "name", "")
)
def test_a_yaml_is_a_study_or_belongs_in_one(block, under, claim, write_study):
    alternatives = [block.text]
    if block.text.startswith("stopping:"):  # one line each
        alternatives = block.text.strip().splitlines()
        assert len(alternatives) == 3
    for text in alternatives:
        fragment = YAML(typ="safe", pure=True).load(text)
        claim(load_study(write_study(merge_plain(under, fragment))))


# Shell


def parsed(line: str) -> dict[str, Any]:
    """Parse a `ganstudy` line by the real command line: commands, arguments and options exist."""
    _, command, *arguments = shlex.split(line)
    if "..." in arguments:  # stands for the options of the lines before
        assert command == "submit"
        arguments.remove("...")
        arguments += ["--address", "http://127.0.0.1:8265", "--runs", "/shared/runs"]
    if ">" in arguments:
        arguments = arguments[: arguments.index(">")]
    group = typer.main.get_command(app)
    context = typer.Context(group)
    known = group.get_command(context, command)
    assert known is not None, f"there is no command {command}"
    return known.make_context(command, arguments, parent=context).params


def runnable(line: str) -> str:
    """A line with the sandbox's names in place of DIR, and without what needs a browser."""
    line = line.replace("DIR DIR ...", "runs/quickstart runs/my_study")
    return line.replace("DIR", "runs/quickstart").replace("[FILE.html]", "out/bare.html")


GANSTUDY = [line for _, line in SHELL if line.startswith("ganstudy ")]
OTHERS = [line for _, line in SHELL if not line.startswith("ganstudy ")]


def says(*parts: str) -> Callable[[str], None]:
    def check(output: str) -> None:
        for part in parts:
            assert part in output

    return check


def written(path: str, *parts: str) -> Callable[[str], None]:
    def check(output: str) -> None:
        text = Path(path).read_bytes().decode("utf-8", "replace")
        assert Path(path).stat().st_size > 0
        for part in parts:
            assert part in text

    return check


def same_events(output: str) -> None:
    assert "the replay tells what the record tells, row for row" in output
    folder = Path("runs/my_study")
    assert (folder / "events-replayed.parquet").exists()


CLAIMS: dict[str, Callable[[str], None]] = {
    "ganstudy list": says("gradient_penalty", "mnist5k", "recipe"),
    "ganstudy list recipe": says("agce/wgan_gp", "r3gan"),
    "ganstudy describe gradient_penalty": says("weight", "source: Gulrajani"),
    "ganstudy describe agce/wgan_gp": says("wide:", "narrow:", "agce_code"),
    "ganstudy check my_study.yaml": says("fine, 2 arms (clip, penalty), 32 trials"),
    "ganstudy plan my_study.yaml": says("32 trials"),
    "ganstudy status runs/quickstart": says("8 of 8 trials done"),
    "ganstudy status /shared/runs/study": says("8 of 8 trials done"),
    "ganstudy why runs/my_study wgan_gp-c03-s0": says("wgan_gp-c03-s0"),
    "ganstudy why runs/my_study wgan_gp-c03 --html story.html": written(
        "story.html", "wgan_gp-c03-s0"
    ),
    "ganstudy events runs/my_study": same_events,
    "ganstudy events runs/my_study --set mode_collapse.patience=5 --set oscillation=null": says(
        "events-replayed.parquet"
    ),
    "ganstudy events --traces logs.csv > events.csv": written(
        "events.csv", "run,kind,onset,detected,ended,severity"
    ),
    "ganstudy report DIR": written("runs/quickstart/report.html", "projection"),
    "ganstudy report DIR -o out/page.html --format html --format md --format csv --format png":
        written("out/page.md", "projection"),
    "ganstudy report DIR DIR ... -o comparison.html": written("comparison.html", "my_study"),
    "ganstudy report trials.parquet": written("report.html", "wgan_gp"),
    "python -m analysis DIR [FILE.html]": written("out/bare.html", "projection"),
}  # fmt: skip


def test_each_command_line_is_run_with_its_claim_or_has_a_reason():
    for block, line in SHELL:
        assert (line in CLAIMS) or reason(line), f"{block.name}: {line}: neither"
    assert set(CLAIMS) <= {line for _, line in SHELL}, "a claim about a line that is gone"


@pytest.mark.parametrize("line", GANSTUDY)
def test_a_ganstudy_line_parses_and_its_study_is_fine(line, sandbox, monkeypatch):
    monkeypatch.chdir(sandbox / "table" if "trials.parquet" in line else sandbox)
    options = parsed(runnable(line))
    if options.get("study") is not None:
        load_study(options["study"], options.get("overrides") or ())


@pytest.mark.parametrize("line", CLAIMS)
def test_a_cheap_line_does_what_is_said_of_it(line, sandbox, monkeypatch):
    monkeypatch.chdir(sandbox / "table" if "trials.parquet" in line else sandbox)
    command, _, target = runnable(line).replace(" --format png", "").partition(" > ")
    command = command.replace("/shared/runs/study", "runs/my_study")  # a folder of a cluster
    _, *arguments = shlex.split(command)
    if command.startswith("python"):
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True,
                              check=False, env={"PYTHONPATH": str(ROOT)})  # fmt: skip
        assert done.returncode == 0, done.stderr
        CLAIMS[line](done.stdout)
        return
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    if target:
        Path(target).write_text(result.stdout, encoding="utf-8")
    CLAIMS[line](result.stdout)


@pytest.mark.parametrize("line", OTHERS)
def test_what_other_lines_name_exists(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = shlex.split(line)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", Path("Makefile").read_text(encoding="utf-8"), re.M)
    for word in words:
        if word.startswith(("benchmarks/", "studies/")) or word == "cluster.yaml":
            assert Path(word).exists()
    if words[0] in {"ray", "mlflow"}:
        beside = Path(sys.executable).with_name(words[0])
        with contextlib.suppress(subprocess.TimeoutExpired):
            asked = [beside, *words[1:2], "--help"]
            helped = subprocess.run(
                asked, capture_output=True, text=True, check=False, timeout=120
            )
            assert helped.returncode == 0, helped.stderr
            for option in (w.partition("=")[0] for w in words[2:] if w.startswith("--")):
                assert option in helped.stdout or words[1] in {"job"}
