from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from html import unescape

import numpy as np
import pandas as pd
import pytest

from analysis import exports
from analysis.html import Front, drawing, plot
from analysis.page import Figure, Section, Table, walk
from analysis.report import compose, composed, write_reports
from analysis.tables import Study
from ganstudy.storage import location, read_text
from tests.conftest import ganstudy

FOUR = {"a": [10.0, 20.0, 30.0, float("inf")], "b": [11.0, 19.0, 33.0, 44.0]}


def parts(study, kind):
    return [part for part in walk(compose(study)[1]) if isinstance(part, kind)]


def test_keys_are_unique_so_that_no_file_or_place_is_another_s(synthetic):
    study = Study.load(synthetic(FOUR))
    for kind in (Figure, Table, Section):
        keys = [part.key for part in parts(study, kind)]
        assert len(keys) == len(set(keys)), keys


def test_every_figure_says_how_to_read_it_and_holds_its_data(synthetic):
    for figure in parts(Study.load(synthetic(FOUR)), Figure):
        assert figure.reading, figure.key
        assert len(figure.data), figure.key


def test_markdown_tells_the_same_and_escapes_what_users_wrote(synthetic):
    study = Study.load(synthetic(FOUR))
    text = exports.markdown(*compose(study))
    assert text == exports.markdown(*compose(study))
    assert "Is \\<b\\>it\\</b\\> escaped?" in text
    assert "<script>" not in text
    assert "cannot tell its 2 arms apart" in text
    rows = [line for line in text.splitlines() if line.startswith("| a |")]
    assert any("1 of 4" in row for row in rows)
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)


def test_long_tables_are_cut_in_markdown_and_said_to_be(synthetic):
    study = Study.load(synthetic({"a": [float(i) for i in range(300)]}))
    text = exports.markdown(*compose(study))
    assert "100 more rows are in table-trials.csv" in text


def test_csv_holds_every_table_and_figure_whole(synthetic, tmp_path):
    study = Study.load(synthetic({"a": [float(i) for i in range(1, 500)]}))
    files = exports.write_csv(compose(study)[1], tmp_path / "csv")
    assert len({file.name for file in files}) == len(files)
    scores = pd.read_csv(tmp_path / "csv" / "scores.csv")
    assert len(scores) == 499, "the drawing is thinned, its data are not"
    assert len(pd.read_csv(tmp_path / "csv" / "table-trials.csv")) == 499


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser on this machine")
def test_figures_are_drawn_as_pictures(synthetic, tmp_path):
    study = Study.load(synthetic(FOUR))
    few = [part for part in parts(study, Figure) if part.key in ("scores", "budget")]
    (folder,) = (tmp_path / "svg",)
    files = exports.write_images([Section("s", "s", few)], folder, "svg")
    assert [file.name for file in files] == ["scores.svg", "budget.svg"]
    assert all("<svg" in file.read_text() for file in files)
    (png, _) = exports.write_images([Section("s", "s", few)], tmp_path / "png", "png")
    assert png.read_bytes().startswith(b"\x89PNG")


def test_without_a_browser_pictures_are_refused_with_the_remedy(synthetic, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("BROWSER_PATH", raising=False)
    with pytest.raises(exports.NoBrowserError, match="apt install chromium"):
        exports.write_images(compose(Study.load(synthetic(FOUR)))[1], tmp_path, "png")


def test_several_studies_make_one_report(synthetic, tmp_path):
    folders = [synthetic(FOUR, at=name) for name in ("one", "two")]
    written = write_reports(folders, tmp_path / "both.html", ["html", "md", "csv"])
    assert [path.name for path in written] == ["both.html", "both.md", "both-csv"]
    assert "2 studies side by side" in written[0].read_text()
    front, _ = composed([Study.load(folders[0])])
    assert front.name == "one"


HOSTILE = '<b>x</b> & <a href="https://evil">y</a>'


def hostile(path) -> Study:
    """A bare table whose arms, parameters, values and score are named in HTML."""
    rng = np.random.default_rng(0)
    rows = {"arm": [HOSTILE] * 40 + [f"other {HOSTILE}"] * 40}
    rows |= {"trial_id": [f"{HOSTILE}{i}" for i in range(80)], "seed": [0, 1] * 40}
    rows |= {f"param.{HOSTILE}": rng.random(80), "param.kind": [HOSTILE, f"{HOSTILE}2"] * 40}
    rows |= {f"best.{HOSTILE}": rng.lognormal(size=80)}
    pd.DataFrame(rows).to_parquet(path / "trials.parquet")
    return Study.load(path)


def test_html_that_users_wrote_is_text_in_every_figure(tmp_path):
    study = hostile(tmp_path)
    figures = parts(study, Figure)
    assert {"scores", "budget"} < {figure.key for figure in figures}
    for figure in figures:
        page = plot(figure).replace("\\u003c", "<")
        assert re.search(r"<(a|b)\b", page) is None, figure.key
    budget = next(figure for figure in figures if figure.key == "budget")
    names = [unescape(trace.get("name", "")) for trace in drawing(budget)["data"]]
    assert any(name.startswith(HOSTILE) for name in names), "the legend reads the arm's name"


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser on this machine")
def test_html_that_users_wrote_is_text_in_pictures(tmp_path):
    few = [part for part in parts(hostile(tmp_path), Figure) if part.key in ("scores", "budget")]
    for file in exports.write_images([Section("s", "s", few)], tmp_path / "svg", "svg"):
        drawn = file.read_text()
        assert "<a " not in drawn
        assert HOSTILE in unescape(drawn)


def test_entities_stay_text_in_markdown():
    front = Front("a &lt;b&gt; & <c>", "", [])
    assert exports.markdown(front, []).startswith("# a &amp;lt;b&amp;gt; &amp; \\<c\\>")


def test_csv_goes_to_an_object_store_too(synthetic):
    folder = location("memory://reports/csv")
    files = exports.write_csv(compose(Study.load(synthetic(FOUR)))[1], folder)
    assert len(pd.read_csv(io.StringIO(read_text(folder / "scores.csv")))) == 8
    assert all(file.exists() for file in files)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser on this machine")
def test_pictures_go_to_an_object_store_too(synthetic):
    few = [p for p in parts(Study.load(synthetic(FOUR)), Figure) if p.key == "scores"]
    (file,) = exports.write_images(few, location("memory://reports/svg"), "svg")
    assert "<svg" in read_text(file)


def test_a_table_that_cannot_be_read_is_told_in_one_line(tmp_path):
    pd.DataFrame({"arm": ["x"]}).to_parquet(tmp_path / "trials.parquet")
    command = [sys.executable, "-m", "analysis", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "has no column best.<score>" in done.stderr
    assert "Traceback" not in done.stderr


def called(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        ganstudy("report", *arguments), capture_output=True, text=True, timeout=300, check=False
    )


def test_the_command_writes_formats_beside_the_page(synthetic, tmp_path):
    folder = synthetic(FOUR)
    page = tmp_path / "out" / "page.html"
    done = called(folder, "-o", page, "--format", "html", "--format", "md", "--format", "csv")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        str(page),
        str(page.with_suffix(".md")),
        f"{page.parent}/page-csv",
    ]
    assert "../study/" in page.read_text(), "links to samples are relative to the page"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "pdf"], "unknown format 'pdf'"),
        (["--format", "cvs"], "csv"),
        (["nowhere"], "holds no trials.parquet"),
        (["{study}"], "the same study is given twice"),
    ],
)
def test_wrong_input_is_refused_with_one_message(synthetic, arguments, message):
    folder = synthetic(FOUR)
    done = called(folder, *(argument.format(study=folder) for argument in arguments))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_analysis_runs_without_the_rest_of_the_product(synthetic, tmp_path):
    """No torch, ray, optuna's studies or mlflow is imported on the way to a page."""
    code = (
        "import sys; from pathlib import Path; from analysis.report import write_report;"
        f"write_report(Path({str(synthetic(FOUR))!r}), Path({str(tmp_path / 'x.html')!r}));"
        "print(sorted({'torch', 'ray', 'mlflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
