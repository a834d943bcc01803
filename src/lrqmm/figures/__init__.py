"""One file a figure or table: the run's table in, the figure out. Nothing here measures.

A module named `table...` defines `tabulate(run) -> DataFrame`, `findings` defines
`compose(run) -> Page`; any other defines `draw(run) -> matplotlib Figure`. Modules whose names
begin with an underscore are shared parts.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pkgutil
import traceback
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrqmm import _checks

if TYPE_CHECKING:
    from lrqmm.run.read import Run


class NothingToDraw(ValueError):
    """The run lacks the measurements that a figure shows; the message names them."""


@dataclass(frozen=True)
class Drawing:
    """A figure, table or page: its name, the function that makes it, and where and as what it is
    written in a run folder."""

    name: str
    function: str
    folder: str
    suffixes: tuple[str, ...]


def list_figures() -> list[Drawing]:
    """Every figure, table and page, sorted by name."""
    names = sorted(info.name for info in pkgutil.iter_modules(__path__) if info.name[0] != "_")
    return [_drawing(name) for name in names]


def _drawing(name: str) -> Drawing:
    if name == "findings":
        return Drawing(name, "compose", "tables", ("html",))
    if name.startswith("table"):
        return Drawing(name, "tabulate", "tables", ("html", "csv"))
    return Drawing(name, "draw", "figures", ("png", "pdf"))


def make(name: str, run: Run) -> Any:
    """The matplotlib Figure, pandas DataFrame or Page of that name; NothingToDraw if data is
    missing."""
    _checks.choice("figure", name, [drawing.name for drawing in list_figures()])
    from lrqmm.figures import _style  # matplotlib is slow to import, and listing needs none of it

    _style.use()
    drawing = _drawing(name)
    function = getattr(importlib.import_module(f"{__name__}.{name}"), drawing.function)
    return function(_as_text(run) if drawing.function == "draw" else run)


NAMES = ("input", "layer", "method", "machine", "library", "network", "reference", "data", "reason")
"""Columns whose words come from configurations and other people's runs."""


def _as_text(run: Run) -> Run:
    """The run with its names safe to draw: matplotlib takes text between dollars for formulas."""
    tables = {
        kind: getattr(run, kind).assign(
            **{
                name: column.str.replace("$", r"\$")
                for name, column in getattr(run, kind).items()
                if name in NAMES and column.str.contains("$", regex=False).any()
            }
        )
        for kind in ("measurements", "networks", "arrays")
    }
    return replace(run, **tables)


def show(name: str, run: Run, **only: Any) -> Any:
    """As `make`, of a table the rows whose columns are `only`; where the run lacks its
    measurements, a line of text that says so."""
    try:
        made = make(name, run)
    except NothingToDraw as reason:
        return _notice(name, str(reason))
    for column, value in only.items():
        made = made[made[column] == value]
    return made


def _notice(name: str, words: str) -> Any:
    import pandas as pd

    from lrqmm.figures import _page, _style

    drawing = _drawing(name)
    if drawing.function == "draw":
        return _style.notice(words)
    if drawing.function == "tabulate":
        return pd.DataFrame({"note": [words]})
    return _page.Page("Findings", [_page.Section("Nothing to show", words)])


def save_all(parts: Mapping[Path, Run], processes: int) -> Iterator[Path]:
    """Draw everything into each folder from its part of a run, in several processes; the paths.

    A mistake in one figure's file is a line of text in its place, and a traceback on stderr; the
    others are drawn.
    """
    from lrqmm.figures import _style  # noqa: F401 - loaded once, before the processes part

    drawings = [(drawing.name, folder) for folder in parts for drawing in list_figures()]
    forking = multiprocessing.get_context("fork")  # the tables are inherited, not sent
    with ProcessPoolExecutor(processes, forking, _inherited.update, (parts,)) as pool:
        for paths in pool.map(_save_inherited, *zip(*drawings, strict=True)):
            yield from paths


_inherited: dict[Path, Run] = {}


def _save_inherited(name: str, folder: Path) -> list[Path]:
    try:
        return save(name, _inherited[folder], folder)
    except Exception as error:
        traceback.print_exc()
        words = f"{name} could not be drawn, {type(error).__name__}: {error}"
        return _write(name, _notice(name, words), folder)


def save(name: str, run: Run, folder: str | Path) -> list[Path]:
    """Draw one figure or table into a run folder; every file whole or not at all.

    Where the run lacks its measurements the figure is a line of text that says so.
    """
    return _write(name, show(name, run), Path(folder))


def _write(name: str, made: Any, folder: Path) -> list[Path]:
    from lrqmm.figures import _style

    drawing = _drawing(name)
    target = folder / drawing.folder
    target.mkdir(parents=True, exist_ok=True)
    paths = []
    for suffix in drawing.suffixes:
        path = target / f"{name}.{suffix}"
        part = target / f".{name}.part.{suffix}"
        _style.write(made, part)
        os.replace(part, path)
        paths.append(path)
    _style.close(made)
    return paths
