"""The documentation's site, `make docs`: nothing comes from outside, built or read."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import latex2mathml.converter
import ziamath
from docutils.nodes import SkipNode

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import generate

import lrqmm

project = "LRQMM Bench"
author = "The LRQMM Bench developers"
project_copyright = "2026, the LRQMM Bench developers. Apache-2.0"
version = release = lrqmm.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "experiments", "generated/gain.md"]

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["ref.python"]  # shapes in words are no cross-references

napoleon_google_docstring = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_class_signature = "mixed"

html_theme = "furo"
html_title = "LRQMM Bench"
html_static_path = ["_static", str(Path(ziamath.__file__).parent / "fonts")]  # a font for formulas
html_css_files = ["site.css"]
html_math_renderer = "mathml"
smartquotes = False
html_copy_source = False
html_domain_indices = False
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"


def described(app, what, name, obj, options, lines):
    """`name : what it is`, as the docstrings have fields, as the two lines that napoleon reads."""
    for i, line in reversed(list(enumerate(lines))):
        if found := re.fullmatch(r"([\w.*]+(?:, [\w.*]+)*) : (.*)", line):
            lines[i : i + 1] = [found[1], f"    {found[2]}"]


def mathml(display):
    """Formulas as MathML, which browsers show and screen readers read without a script."""

    def visit(self, node):
        self.body.append(latex2mathml.converter.convert(node.astext(), display=display))
        raise SkipNode

    return visit, None


SAID = {  # what the theme leaves unsaid to screen readers and keyboards
    r'role="heading"(?! aria-level)': 'role="heading" aria-level="2"',
    r'<aside class="sidebar-drawer">': '<aside class="sidebar-drawer" aria-label="Pages">',
    r'<aside class="toc-drawer': '<aside aria-label="This page" class="toc-drawer',
    r'<div class="(math-wrapper|table-wrapper)': r'<div tabindex="0" class="\1',
    r'(?<!</h1>)<div id="search-results">': '<h1>Search</h1><div id="search-results">',
    r'<div class="highlight"><pre>': '<div class="highlight"><pre tabindex="0">',
}


def accessible(app, error):
    for page in Path(app.outdir).rglob("*.html"):
        text = page.read_text()
        for pattern, words in SAID.items():
            text = re.sub(pattern, words, text)
        page.write_text(text)


def setup(app):
    app.add_html_math_renderer("mathml", mathml("inline"), mathml("block"))
    app.connect("builder-inited", lambda app: generate.write(HERE / "generated"))
    app.connect("autodoc-process-docstring", described, priority=400)  # before napoleon
    app.connect("build-finished", accessible)
