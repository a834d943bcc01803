"""The explorer in a real browser: what it shows, keeps, gives away, and asks of nobody."""

import csv
import json
import shutil
import time
from collections import defaultdict
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lrqmm import explorer, methods
from lrqmm.run.read import read_run

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
    key = [
        "input",
        "layer",
        "m",
        "k",
        "n",
        "data",
        "method",
        "calibration",
        *explorer.FILTERS,
        "words",
    ]
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


def timed(run, **changes):
    """The errors and times of one product of a run, without what it says of networks."""
    table = run.measurements
    own = (table["input"] == "normal") & (table["n"] == 1024) & (table["m"] == 1024)
    own &= table["metric"].isin(["relative_error", "seconds"])
    return replace(run, measurements=table[own].assign(**changes), networks=run.networks[:0])


@pytest.fixture
def show(browser, tmp_path):
    """Opens a run's page."""
    pages = []

    def show(run, width=1100):
        path = tmp_path / f"{len(pages)}.html"
        explorer.write([run], path)
        pages.append(browser.new_page(viewport={"width": width, "height": 900}))
        pages[-1].goto(path.as_uri())
        settled(pages[-1])
        return pages[-1]

    yield show
    for page in pages:
        page.close()


def ticked(page):
    boxes = page.locator("input[name=method]:checked")
    return set(boxes.evaluate_all("boxes => boxes.map(box => box.value)"))


def tips(page, chart, marks="path[aria-roledescription=point]"):
    """What each mark says when it is hovered over."""
    said = []
    for mark in page.locator(f"#{chart} {marks}").all():
        mark.dispatch_event("pointermove")
        said.append(page.locator("#vg-tooltip-element").inner_text())
    return said


@browsing
def test_an_added_method_is_ticked(runs, show, tmp_path, monkeypatch):
    for name, usual in (("added", True), ("aside", False)):
        text = f"METHOD = Preset({name!r}, cites=(), usual={usual})\n"
        (tmp_path / f"{name}.py").write_text(
            "from lrqmm.products.composition import Preset\n" + text
        )
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    table = timed(runs[0]).measurements
    copies = [
        table[table["method"] == "direct"].assign(method=name)
        for name in ("added", "aside", "nobody_knows")
    ]
    page = show(replace(timed(runs[0]), measurements=pd.concat([table, *copies])))
    opened = ticked(page)
    assert {"added", "nobody_knows", "direct", "lrqmm_aware"} <= opened
    assert not {"aside", "full_residual"} & opened
    page.click("#none")
    settled(page, 2)
    assert ticked(page) == set()
    page.click("#usual")
    settled(page, 3)
    assert ticked(page) == opened
    assert "added" in page.locator("#rows tr td:first-child").all_inner_texts()


@browsing
def test_opens_on_what_is_measured_most(runs, show, opened):
    assert opened.locator("#time svg").count() == opened.locator("#rank svg").count() == 1
    table = runs[0].measurements
    errors = (table["metric"] == "relative_error") & table["rank"].fillna(16).eq(16)
    table = pd.concat([table[errors & (table["input"] != "normal")], timed(runs[0]).measurements])
    most = explorer.rows(replace(runs[0], measurements=table, networks=runs[0].networks[:0]))
    assert most["input"].value_counts().index[0] != "normal"
    page = show(replace(runs[0], measurements=table, networks=runs[0].networks[:0]))
    assert page.input_value("select[name=input]") == "normal"
    assert page.locator("#time svg").count() == 1


def test_seeds_are_distinct_inputs(runs):
    table = timed(runs[0]).measurements
    again = pd.concat([table, table.assign(experiment="again")])
    key = [*explorer.SETTING[:5], "method", "rank", "bits", "words", "rounding"]
    once, twice = (
        explorer.rows(replace(timed(runs[0]), measurements=own)).sort_values(key)
        for own in (table, again)
    )
    assert once["seeds"].max() > 1
    pd.testing.assert_series_equal(once["seeds"], twice["seeds"])


@browsing
def test_levels_are_a_filter(runs, show):
    table = timed(runs[0]).measurements
    own = table[table["method"] == "direct"]
    texts = [json.dumps({**json.loads(text), "levels": "signed"}) for text in own["parameters"]]
    both = pd.concat([table, own.assign(parameters=texts, levels="signed")])
    page = show(replace(timed(runs[0]), measurements=both))
    assert page.input_value("select[name=levels]") == "odd"  # of a run older than the parameter
    for name in ("bits", "rounding"):
        select(page, name, "all")
    signed = page.locator("#rows tr", has_text="levels signed")
    assert signed.count() == 0
    for value, every in (("signed", False), ("all", True)):
        select(page, "levels", value)
        assert f"levels={value}" in page.url
        assert signed.count() == own["parameters"].nunique()
        names = page.locator("#rows tr td:first-child").all_inner_texts()
        assert ("LRQMM (paper)" in names) == every
        assert (names.count("direct") > signed.count()) == every


@browsing
def test_tips_say_only_what_there_is(runs, show, opened):
    page = show(timed(runs[0]))
    said = tips(page, "time") + tips(page, "rank")
    assert said
    assert not any("null" in words or "scores" in words for words in said)
    select(opened, "input", "whole resnet50")
    assert any("scores" in words for words in tips(opened, "rank"))


@browsing
def test_ticks_are_the_ranks(runs, show):
    table = timed(runs[0]).measurements
    page = show(timed(runs[0]))
    axis = page.locator("#rank .role-axis-label").first
    shown = [int(text) for text in axis.locator("text").all_text_contents() if text]
    assert shown == sorted(set(table[table["bits"] == 4]["rank"].dropna()))


@browsing
def test_float32_is_dashed_without_its_error(runs, show):
    run = timed(runs[0])
    table = run.measurements
    exact = (table["method"] == "sgemm") & (table["metric"] == "relative_error")
    assert exact.any()
    page = show(replace(run, measurements=table[~exact]))
    assert page.locator("#time line[stroke-dasharray]").count() == 1


@browsing
def test_loaded_is_marked(runs, show):
    run = timed(runs[0])
    table = run.measurements
    page = show(replace(run, measurements=table.assign(loaded=table["method"] == "direct")))
    hollow = tips(page, "time", "path[aria-roledescription=point][fill-opacity='0']")
    assert hollow
    assert all("direct" in words and "others used the machine" in words for words in hollow)
    filled = tips(page, "time", "path[aria-roledescription=point]:not([fill-opacity='0'])")
    assert filled
    assert not any("others used the machine" in words for words in filled)
    assert "hollow" in page.locator("section .hint").first.inner_text()


@browsing
@pytest.mark.parametrize("width", [390, 1100])
def test_names_stay_apart_and_inside(runs, show, width):
    page = show(timed(runs[0]), width)
    boxes = page.evaluate(
        """() => [".background", ".names_marks text"].map(found =>
             [...document.querySelectorAll(`#time svg ${found}`)]
               .filter(each => getComputedStyle(each).opacity !== "0")
               .map(each => each.getBoundingClientRect().toJSON()))"""
    )
    (inside, *_), names = boxes
    assert len(names) > 1
    for name in names:
        assert inside["left"] <= name["left"]
        assert name["right"] <= inside["right"]
    for one, other in combinations(names, 2):
        across = min(one["right"], other["right"]) - max(one["left"], other["left"])
        down = min(one["bottom"], other["bottom"]) - max(one["top"], other["top"])
        assert min(across, down) <= 2  # a box is taller than its letters
