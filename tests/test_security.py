"""Names and words from configurations and other people's runs stay words."""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from lrqmm.figures import NothingToDraw, list_figures, save
from lrqmm.run.read import read_run

ROOT = Path(__file__).parent.parent
SCRIPT = "<script>alert('$x_{$')</script>&\u202e\x1b[31m"


def foreign(table: pd.DataFrame, columns: tuple[str, ...]) -> pd.DataFrame:
    """Names that others gave, in place of some of the table's."""
    changed = table.copy()
    for column in columns:
        some = changed[column].notna() & (changed[column] == changed[column].dropna().iloc[-1])
        changed.loc[some, column] = SCRIPT
    return changed


@pytest.fixture(scope="module")
def run():
    found = read_run(ROOT / "results/reference/networks-cpu-2core")
    measured = read_run(ROOT / "results/reference/cpu-2core").measurements
    names = ("input", "method", "machine", "library", "layer")
    return replace(
        found,
        measurements=foreign(measured, names),
        networks=foreign(found.networks, ("network", "method", "machine", "reference", "data")),
    )


@pytest.mark.parametrize("name", [drawing.name for drawing in list_figures()])
def test_names_of_a_run_are_drawn_as_text(run, name, tmp_path):
    try:
        paths = save(name, run, tmp_path)
    except NothingToDraw:
        paths = []
    for path in paths:
        if path.suffix == ".html":
            page = path.read_text()
            assert "<script" not in page
            if "alert" in page:
                assert "&lt;script&gt;" in page


def test_the_workflow_has_no_shell_commands():
    for path in (ROOT / "workflow").rglob("*"):
        if path.suffix in (".smk", ".py") or path.name == "Snakefile":
            assert not re.search(r"^\s*shell:|\bshell\(", path.read_text(), re.MULTILINE), path
