"""The report in a browser: Debian's Chromium, driven by selenium, from a file."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlparse

import numpy as np
import pandas as pd
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from analysis import html
from analysis.page import Figure, Section, walk
from analysis.report import compose
from analysis.tables import Study
from tests.analysis.conftest import writer

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="no browser and driver on this machine"
)
PER_ARM, PAGE = 16, 25
WIDE, NARROW = 1400, 420


class Opened(NamedTuple):
    """A report that a browser shows, its downloads, and what it was made from."""

    driver: webdriver.Chrome
    page: Path
    downloads: Path
    sections: list[Section]

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def until(self, true: Any) -> Any:
        return WebDriverWait(self.driver, 120).until(lambda _: true())

    def run(self, script: str, *given: Any) -> Any:
        return self.driver.execute_script(script, *given)

    def width(self, pixels: int) -> None:
        """Take the place of a screen so wide."""
        screen = {"width": pixels, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    place = tmp_path_factory.mktemp("browser")
    rng = np.random.default_rng(0)
    scores = {arm: rng.uniform(5, 500, PER_ARM).tolist() for arm in ("plain", "r1", "wgan")}
    for number, arm in enumerate(scores.values()):
        arm[number : number + 5] = [math.inf] * 5
    folder = writer(place)(scores, question=f"Does a word as long as a hash, {'0a' * 32}, fit?")
    page = place / "out" / "report.html"
    page.parent.mkdir()
    front, sections = compose(Study.load(folder))
    page.write_text(html.render(front, sections, html.relative(str(folder), str(page))))
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage",
                 "no-first-run", "disable-background-networking", "disable-component-update",
                 f"user-data-dir={place / 'profile'}"):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(DRIVER))
    (place / "downloads").mkdir()
    driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior",
        {"behavior": "allow", "downloadPath": str(place / "downloads")},
    )
    found = Opened(driver, page, place / "downloads", sections)
    found.width(WIDE)
    driver.get(page.as_uri())
    found.until(lambda: found.all(".browse tbody tr"))
    yield found
    driver.quit()


@pytest.fixture
def table(opened: Opened) -> Iterator[WebElement]:
    """The table of all trials; its filter is emptied afterwards."""
    found = opened.one("#table-trials .browse")
    yield found
    search = found.find_element(By.CSS_SELECTOR, "input")
    search.send_keys(Keys.CONTROL, "a")
    search.send_keys(Keys.BACKSPACE)


def heads(table: WebElement) -> dict[str, WebElement]:
    found = table.find_elements(By.CSS_SELECTOR, "th button")
    return {button.get_attribute("textContent"): button for button in found}


def column(opened: Opened, table: WebElement, name: str) -> list[str]:
    """Return what the shown cells of a column say."""
    at = list(heads(table)).index(name) + 1
    script = "return [...arguments[0].querySelectorAll(arguments[1])].map((c) => c.textContent)"
    return opened.run(script, table, f"tbody td:nth-child({at})")


def press(opened: Opened, button: WebElement) -> None:
    opened.run("arguments[0].click()", button)


def test_every_figure_is_drawn(opened):
    figures = [part for part in walk(opened.sections) if isinstance(part, Figure)]
    marks = ".trace path, .heatmaplayer image, .contourlayer path, canvas"
    drawn = opened.run(
        "return [...document.querySelectorAll('.js-plotly-plot')].map("
        "(plot) => [plot.id, plot.querySelectorAll(arguments[0]).length])", marks,
    )  # fmt: skip
    assert len(drawn) == len(figures)
    assert [name for name, count in drawn if not count] == []


def test_numbers_sort_as_numbers_and_failures_come_last(opened, table):
    press(opened, heads(table)["best"])
    first = column(opened, table, "best")
    press(opened, table.find_element(By.CSS_SELECTOR, ".next"))
    values = first + column(opened, table, "best")
    known = [float(value) for value in values[: 3 * (PER_ARM - 5)]]
    assert known == sorted(known)
    assert len(set(known)) > PAGE
    assert set(values[3 * (PER_ARM - 5) :]) == {"–"}
    press(opened, heads(table)["best"])
    falling = column(opened, table, "best")
    assert [float(v) for v in falling[: len(known)]] == known[::-1][: len(falling)]
    assert table.find_elements(By.CSS_SELECTOR, "th[aria-sort=descending]")


def test_the_table_filters_and_turns_pages(opened, table):
    status = table.find_element(By.CSS_SELECTOR, "[role=status]")
    following, before = (
        table.find_element(By.CSS_SELECTOR, name) for name in (".next", ".previous")
    )
    while before.is_enabled():
        press(opened, before)
    assert status.text == f"1 to {PAGE} of {3 * PER_ARM} ({3 * PER_ARM} in all)"
    press(opened, following)
    assert status.text.startswith(f"{PAGE + 1} to {3 * PER_ARM} of")
    assert not following.is_enabled()
    table.find_element(By.CSS_SELECTOR, "input").send_keys("WGAN diverged")
    assert column(opened, table, "arm") == ["wgan"] * 5
    assert set(column(opened, table, "status")) == {"diverged"}
    table.find_element(By.CSS_SELECTOR, "input").send_keys(" nowhere")
    assert status.text == f"none of {3 * PER_ARM}"


def test_the_keyboard_reaches_the_heads_and_sorts(opened, table):
    search = table.find_element(By.CSS_SELECTOR, "input")
    opened.run("arguments[0].focus()", search)
    for _ in range(20):
        opened.driver.switch_to.active_element.send_keys(Keys.TAB)
        if opened.driver.switch_to.active_element.tag_name == "button":
            break
    head = opened.driver.switch_to.active_element
    assert head.text.startswith("trial")
    outline = head.value_of_css_property("outline-style")
    assert outline == "solid", "what has the focus must be seen"
    head.send_keys(Keys.ENTER)
    rising = column(opened, table, "trial")
    assert rising == sorted(rising)
    head.send_keys(Keys.ENTER)
    assert column(opened, table, "trial")[0] > rising[-1]


def test_links_to_samples_lead_to_files(opened, table):
    links = table.find_elements(By.CSS_SELECTOR, "tbody a")
    assert len(links) == PAGE
    for link in links[:20]:
        assert Path(unquote(urlparse(link.get_attribute("href")).path)).is_file()


def test_a_figures_data_can_be_downloaded(opened):
    figures = [part for part in walk(opened.sections) if isinstance(part, Figure)]
    for figure in figures[:3]:
        press(opened, opened.one(f'[data-csv="{figure.key}"]'))
        file = opened.downloads / f"{figure.key}.csv"
        opened.until(file.exists)
        told = pd.read_csv(io.StringIO(figure.data.to_csv(index=False)))
        pd.testing.assert_frame_equal(pd.read_csv(file), told)


def test_headings_and_landmarks_tell_where_one_is(opened):
    levels = opened.run(
        "return [...document.querySelectorAll('h1, h2, h3, h4')].map((h) => Number(h.tagName[1]))"
    )
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert len(opened.all("main")) == 1
    assert opened.one("nav").get_attribute("aria-label")
    targets = [link.get_attribute("href").split("#")[1] for link in opened.all("nav a")]
    assert len(set(targets)) == len(targets) > 5
    assert all(opened.all(f"[id='{target}']") for target in targets)
    assert opened.run("return [...document.images].every((image) => image.alt)")
    ids = opened.run("return [...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert [name for name, count in Counter(ids).items() if count > 1] == []


def test_nothing_sticks_out_of_a_narrow_screen(opened):
    opened.width(NARROW)
    try:
        opened.run("window.dispatchEvent(new Event('resize'))")
        sizes = "return [document.documentElement.scrollWidth, window.innerWidth]"
        opened.until(lambda: opened.run(sizes)[0] <= opened.run(sizes)[1])
        assert opened.run(sizes)[1] == NARROW
    finally:
        opened.width(WIDE)


def test_it_prints(opened):
    printed = opened.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    pdf = base64.b64decode(printed["data"])
    assert pdf.startswith(b"%PDF")
    assert len(re.findall(rb"/Type /Page\b(?!s)", pdf)) > 1


def test_the_console_is_silent_and_no_request_leaves_the_page(opened):
    """The last test: the logs hold what all others did."""
    assert opened.driver.get_log("browser") == []
    messages = [json.loads(row["message"])["message"]
                for row in opened.driver.get_log("performance")]  # fmt: skip
    asked = [m["params"]["request"]["url"] for m in messages
             if m["method"] == "Network.requestWillBeSent"
             and m["params"]["documentURL"].startswith(opened.page.as_uri())]  # fmt: skip
    assert asked
    assert {urlparse(url).scheme for url in asked} <= {"file", "data", "blob"}
