"""The explorer in a real browser: what it shows, keeps, gives away, and asks of nobody."""

import csv
import shutil
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lrqmm import explorer
from lrqmm.store import read_run

REFERENCE = Path(__file__).parent.parent / "results/reference"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
QUIET = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]
browsing = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")


@pytest.fixture(scope="module")
def runs():
    return [read_run(REFERENCE / name) for name in ("cpu-2core", "rivals-cpu-2core")]


def test_rows_are_the_measurements(runs):
    run = runs[0]
    expected = defaultdict(list)
    measured = run.measurements
    for row in measured[measured["metric"] == "relative_error"].itertuples():
        if row.status == "ok":
            key = tuple(str(getattr(row, name)) for name in explorer.SETTING)
            expected[key].append(row.value)
    found = explorer.rows(run)
    found = found.loc[found["data"].isna(), "error"].dropna()  # products, not whole networks
    np.testing.assert_allclose(sorted(found), sorted(map(np.median, expected.values())))


def test_a_setting_is_one_row(runs):
    key = ["input", "layer", "m", "k", "n", "data", "method", "calibration", *explorer.OWN, "words"]
    for run in runs:
        assert not explorer.rows(run).duplicated(key).any()


@pytest.mark.parametrize("dtype", ["str", "object", "float64"])
def test_a_column_of_nothing(dtype):
    packed = explorer._packed(pd.Series([None, None], dtype=dtype))
    assert packed in ([None, None], {"values": [], "codes": [-1, -1]})


def test_names_of_others_stay_words(runs, tmp_path):
    run = runs[1]
    name = "</script><script>document.title='taken'</script>{{vega}}"
    table = run.measurements
    table = table.assign(input=table["input"].where(table["input"] != "normal", name))
    text = explorer.page([replace(run, measurements=table)])
    assert "<script>document.title" not in text
    assert text.count("<script") == 3


@pytest.fixture(scope="module")
def page_of_all(tmp_path_factory):
    """The reference runs in one page."""
    path = tmp_path_factory.mktemp("explorer") / "explorer.html"
    explorer.write([read_run(folder) for folder in sorted(REFERENCE.iterdir())], path)
    return path


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield made
        made.close()


@pytest.fixture
def opened(browser, page_of_all):
    """A page on screen; whatever it complains of or asks for fails the test."""
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    heard = []
    page.on("console", lambda said: said.type in ("error", "warning") and heard.append(said.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on(
        "request",
        lambda asked: asked.url.startswith(("file:", "data:", "blob:")) or heard.append(asked.url),
    )
    page.goto(page_of_all.as_uri())
    settled(page)
    yield page
    page.close()
    assert heard == []


def settled(page, times=1):
    page.wait_for_function(f"Number(document.documentElement.dataset.ready || 0) >= {times}")


def drawn(page):
    return int(page.evaluate("document.documentElement.dataset.ready"))


def select(page, name, value):
    before = drawn(page)
    page.select_option(f"select[name={name}]", value)
    settled(page, before + 1)


@browsing
def test_small_and_quick(browser, page_of_all):
    assert page_of_all.stat().st_size < 5e6
    page = browser.new_page()
    start = time.perf_counter()
    page.goto(page_of_all.as_uri())
    settled(page)
    took = time.perf_counter() - start
    page.close()
    assert took < 2 * SLACK


SLACK = 3
"""Other tests run beside this one."""


@browsing
def test_filters(opened):
    page = opened
    select(page, "input", "normal")
    assert "input=normal" in page.url
    cells = page.locator("#rows tr td:first-child").all_inner_texts()
    assert "direct" in cells
    before = drawn(page)
    page.uncheck("input[name=method][value=direct]")
    settled(page, before + 1)
    assert "direct" not in page.locator("#rows tr td:first-child").all_inner_texts()
    assert page.locator("#time svg").count() == 1


@browsing
def test_hover_tells_spread_and_setting(opened):
    select(opened, "input", "normal")
    opened.locator("#rank path[aria-roledescription=point]").first.hover(force=True)
    tip = opened.locator("#vg-tooltip-element")
    tip.wait_for(state="visible")
    words = tip.inner_text()
    assert "relative error" in words
    assert " to " in words
    assert "seeds" in words


@browsing
def test_a_link_opens_the_same_view(opened, browser):
    select(opened, "input", "normal")
    before = drawn(opened)
    opened.click("#none")
    settled(opened, before + 1)
    opened.check("input[name=method][value=lrqmm]")
    settled(opened, before + 2)
    other = browser.new_page()
    other.goto(opened.url)
    settled(other)
    assert other.input_value("select[name=input]") == "normal"
    assert other.locator("#summary").inner_text() == opened.locator("#summary").inner_text()
    other.close()


@browsing
def test_rows_as_csv_are_those_shown(opened, tmp_path):
    select(opened, "input", "normal")
    with opened.expect_download() as download:
        opened.click("#csv")
    download.value.save_as(tmp_path / "rows.csv")
    rows = list(csv.DictReader((tmp_path / "rows.csv").open()))
    assert opened.locator("#summary").inner_text().startswith(f"{len(rows)} settings")
    assert {row["input"] for row in rows} == {"normal"}
    assert all(float(row["error_low"]) <= float(row["error"]) for row in rows if row["error"])


@browsing
def test_two_runs_beside_each_other(opened):
    select(opened, "input", "normal")
    shown = set(opened.locator("#rows tr td:last-child").all_inner_texts())
    assert {"cpu-2core", "rivals-cpu-2core"} <= shown
    before = drawn(opened)
    opened.uncheck("input[name=run][value=rivals-cpu-2core]")
    settled(opened, before + 1)
    left = set(opened.locator("#rows tr td:last-child").all_inner_texts())
    assert left == shown - {"rivals-cpu-2core"}


@browsing
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1100])
def test_accessible(opened, scheme, width):
    from axe_playwright_python.sync_playwright import Axe

    opened.set_viewport_size({"width": width, "height": 800})
    opened.emulate_media(color_scheme=scheme)
    opened.wait_for_timeout(300)
    found = Axe().run(opened)
    assert found.violations_count == 0, found.generate_report()
    assert opened.evaluate("document.documentElement.scrollWidth") <= width


@browsing
def test_by_keyboard_alone(opened):
    for _ in range(3):
        opened.keyboard.press("Tab")
    assert opened.evaluate("document.activeElement.name") == "bits"
    before = drawn(opened)
    opened.keyboard.press("ArrowDown")
    settled(opened, before + 1)
