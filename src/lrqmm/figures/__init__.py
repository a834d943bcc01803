"""One file a figure or table: the run's table in, the figure out. Nothing here measures.

A module named `table...` defines `tabulate(run) -> DataFrame`, `findings` defines `compose(run) ->
Page`; any other defines `draw(run) -> matplotlib Figure`. `NEEDS` in it names the experiments whose
rows it draws: all of them must have been measured, 'a or b' means one of them, and 'measure:
network' or 'network: llama' any experiment whose configuration says so. `ALSO` names experiments
that it draws too where they were measured. Modules whose names begin with an underscore are shared
parts.
"""

from __future__ import annotations

import ast
import importlib
import multiprocessing
import pkgutil
import traceback
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrqmm import _checks
from lrqmm._extras import needs_extra
from lrqmm._files import write_whole

if TYPE_CHECKING:
    from lrqmm.run.read import Run

needs_extra(__name__, "bench")


class NothingToDraw(ValueError):
    """The run lacks the measurements that a figure shows; the message names them."""


@dataclass(frozen=True)
class Drawing:
    """A figure, table or page: its name, the function that makes it, where and as what it is
    written in a run folder, and the experiments that it needs and that it draws also."""

    name: str
    function: str
    folder: str
    suffixes: tuple[str, ...]
    needs: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    def missing(self, experiments: Experiments) -> list[str]:
        """The needs that the experiments of a study do not meet."""
        met = set().union(*(met_by(name, keys) for name, keys in experiments.items()))
        return [need for need in self.needs if met.isdisjoint(need.split(OR))]

    def paths(self, folder: Path) -> list[Path]:
        """The files that it is written to in a run folder."""
        return [folder / self.folder / f"{self.name}.{suffix}" for suffix in self.suffixes]


Experiments = Mapping[str, Mapping[str, Any]]
"""Experiments by name, as a configuration has them: of each its measure, and its network if any."""
OR = " or "
LEFT_OUT = Drawing("left_out", "tabulate", "tables", ("html",))
"""The table of figures that were not drawn."""


def list_figures() -> list[Drawing]:
    """Every figure, table and page, sorted by name."""
    names = sorted(info.name for info in pkgutil.iter_modules(__path__) if info.name[0] != "_")
    return [_drawing(name) for name in names]


@cache
def _drawing(name: str) -> Drawing:
    experiments = _constant(name, "NEEDS"), _constant(name, "ALSO")
    if not experiments[0]:
        raise ValueError(f"figures/{name}.py does not define NEEDS, the experiments that it draws")
    if name == "findings":
        return Drawing(name, "compose", "tables", ("html",), *experiments)
    if name.startswith("table"):
        return Drawing(name, "tabulate", "tables", ("html", "csv"), *experiments)
    return Drawing(name, "draw", "figures", ("png", "pdf"), *experiments)


def _constant(name: str, constant: str) -> tuple[str, ...]:
    """A tuple in a module, read without importing it: planning has no time for matplotlib."""
    for line in ast.parse(Path(__path__[0], f"{name}.py").read_text()).body:
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == constant:
            return tuple(ast.literal_eval(line.value))
    return ()


def met_by(name: str, experiment: Mapping[str, Any]) -> set[str]:
    """The needs that an experiment meets."""
    return {name, f"measure: {experiment['measure']}", f"network: {experiment.get('network')}"}


def without_figure(experiments: Experiments) -> list[str]:
    """A line for each experiment that no figure draws by its name: it may have been renamed."""
    drawn = [each for drawing in list_figures() for each in (*drawing.needs, *drawing.also)]
    names = {name for each in drawn for name in each.split(OR)}
    lines = []
    for name, experiment in experiments.items():
        if name not in names and experiment["measure"] != "network":  # drawn by their kind
            hint = _checks.suggestion(name, names)
            lines.append(f"experiment {name!r}: no figure draws it by this name{hint}")
    return lines


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
    titles = {name: title.replace("$", r"\$") for name, title in run.titles.items()}
    return replace(run, titles=titles, **tables)


def show(name: str, run: Run, **only: Any) -> Any:
    """As `make`, of a table the rows whose columns are `only`; where the run lacks its
    measurements, a line of text that says so."""
    try:
        drawn = make(name, run)
    except NothingToDraw as reason:
        return _notice(name, str(reason))
    for column, value in only.items():
        drawn = drawn[drawn[column] == value]
    return drawn


def _notice(name: str, text: str) -> Any:
    import pandas as pd

    from lrqmm.figures import _page, _style

    drawing = _drawing(name)
    if drawing.function == "draw":
        return _style.notice(text)
    if drawing.function == "tabulate":
        return pd.DataFrame({"note": [text]})
    return _page.Page("Findings", [_page.Section("Nothing to show", text)])


def save_all(
    parts: Mapping[Path, Run], processes: int, promised: Collection[str] = ()
) -> Iterator[Path]:
    """Draw everything into each folder from its part of a run, in several processes; the paths.

    A figure whose measurements the run lacks is left out, and `tables/left_out.html` says why; if
    its name is `promised`, it is a line of text. So is one whose file has a mistake, beside a
    traceback on stderr; the others are drawn.
    """
    from lrqmm.figures import _style  # noqa: F401 - loaded once, before the processes part

    drawings = [
        (drawing.name, folder, drawing.name in promised)
        for folder in parts
        for drawing in list_figures()
    ]
    left_out: dict[Path, list[dict[str, str]]] = {folder: [] for folder in parts}
    forking = multiprocessing.get_context("fork")  # the tables are inherited, not sent
    with ProcessPoolExecutor(processes, forking, _inherited.update, (parts,)) as pool:
        results = pool.map(_save_inherited, *zip(*drawings, strict=True))
        for (name, folder, _), (paths, reason) in zip(drawings, results, strict=True):
            yield from paths
            if reason:
                needs = ", ".join(_drawing(name).needs)
                left_out[folder].append({"figure": name, "needs": needs, "why": reason})
    import pandas as pd

    for folder, rows in left_out.items():
        table = pd.DataFrame(rows, columns=["figure", "needs", "why"])
        table.attrs["title"] = "Figures and tables that this run has no measurements for"
        yield from _write(LEFT_OUT, table, folder)


_inherited: dict[Path, Run] = {}


def _save_inherited(name: str, folder: Path, promised: bool) -> tuple[list[Path], str]:
    """The files that were written, and why it was left out, if so."""
    drawing = _drawing(name)
    try:
        return _write(drawing, make(name, _inherited[folder]), folder), ""
    except NothingToDraw as reason:
        if promised:
            return _write(drawing, _notice(name, str(reason)), folder), str(reason)
        for path in drawing.paths(folder):  # of an earlier drawing
            path.unlink(missing_ok=True)
        return [], str(reason)
    except Exception as error:
        traceback.print_exc()
        text = f"{name} could not be drawn, {type(error).__name__}: {error}"
        return _write(drawing, _notice(name, text), folder), ""


def save(name: str, run: Run, folder: str | Path) -> list[Path]:
    """Draw one figure or table into a run folder, every file atomically; NothingToDraw as
    `make`."""
    return _write(_drawing(name), make(name, run), Path(folder))


def _write(drawing: Drawing, content: Any, folder: Path) -> list[Path]:
    from lrqmm.figures import _style

    paths = drawing.paths(folder)
    for path in paths:
        with write_whole(path) as part:
            _style.write(content, part, path.suffix[1:])
    _style.close(content)
    return paths
