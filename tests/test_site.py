"""The documentation's site: built from the repository, whole, and usable by everyone."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

import lrqmm

ROOT = Path(__file__).parent.parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Built without a warning, from a copy: what it generates stays out of the checkout."""
    folder = tmp_path_factory.mktemp("site")
    for name in ("docs", "config", "workflow", "src", "results/reference"):
        ignored = shutil.ignore_patterns("_build", "generated", "__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    build = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "-b", "html"]
    done = subprocess.run(
        [*build, "docs", "built"], cwd=folder, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder / "built"


def pages(site):
    return sorted(page for page in site.rglob("*.html") if "_static" not in page.parts)


def test_every_page_is_reached_and_every_link_leads_somewhere(site):
    reached, ahead = set(), [site / "index.html"]
    while ahead:
        page = ahead.pop()
        if page in reached:
            continue
        reached.add(page)
        for link in re.findall(r'(?:href|src)="([^"]+)"', page.read_text()):
            if re.match(r"[a-z]+:", link):
                continue
            target, anchor = urldefrag(link.split("?")[0])
            there = (page.parent / unquote(target)).resolve() if target else page
            assert there.exists(), f"{page.name}: {link}"
            if there.suffix == ".html":
                assert not anchor or f'id="{anchor}"' in there.read_text(), f"{page.name}: {link}"
                ahead.append(there)
    assert reached == set(pages(site))


def test_the_reference_has_every_public_name(site):
    text = (site / "reference/python.html").read_text()
    for name in lrqmm.__all__:
        assert re.search(rf'id="lrqmm\.([\w.]+\.)?{name}(\.|")', text), name


def test_every_figure_is_in_the_gallery(site):
    from lrqmm.figures import list_figures

    text = (site / "generated/gallery.html").read_text()
    for drawing in list_figures():
        assert drawing.suffixes[0] != "png" or f"{drawing.name}.svg" in text


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_everyone_can_use_it_and_nothing_comes_from_outside(site):
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    heard, broken = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for scheme, width in (("light", 1200), ("dark", 375)):
            viewport = {"width": width, "height": 900}
            page = browser.new_page(viewport=viewport, color_scheme=scheme)
            page.on("request", lambda asked: heard.append(asked.url))
            page.on("console", lambda said: heard.append(said.text))
            # every page once; in the dark and narrow one page of each folder, whose pages are alike
            folders = {path.parent: path for path in pages(site)}
            for path in pages(site) if scheme == "light" else folders.values():
                page.goto(path.as_uri())
                axe = Axe().run(page, options={"preload": False})
                broken += [
                    f"{path.name} {scheme} {width}: {rule['id']} {rule['nodes'][0]['html']}"
                    for rule in axe.response["violations"]
                ]
    assert not broken, "\n".join(broken)
    assert [words for words in heard if not words.startswith(("file:", "data:"))] == []
