"""Table 1: operations and bytes of each method, as modelled and as counted."""

from __future__ import annotations

import pandas as pd

from lrqmm.figures import NothingToDraw, _style
from lrqmm.run.read import Run

UNITS = {"integer_operations": "integer Gop", "float_operations": "float Gop", "bytes": "GB"}


def tabulate(run: Run) -> pd.DataFrame:
    """One row a method; 'counted' counts what the torch calls of the plain code do."""
    table = run.experiment("cost")
    table = table[table["status"] == "ok"]
    if table.empty:
        raise NothingToDraw("this run has no counts of the experiment 'cost'")
    cells = table.pivot_table(
        index=["method", "bits", "rank", "m", "k", "n"], columns=["metric", "phase"],
        values="value", dropna=False, observed=True,
    )  # fmt: skip
    cells = cells.dropna(how="all") / 1e9
    rows = cells.reset_index()
    columns = {name: rows[name] for name in ("method", "bits", "rank", "m", "k", "n")}
    for metric, unit in UNITS.items():
        for kind in ("model", "counted"):
            columns[f"{unit}, {kind}"] = rows[(metric, kind)]
    made = pd.DataFrame(columns)
    place = {name: i for i, name in enumerate(_style.order(made["method"].unique()))}
    made = made.sort_values("method", key=lambda names: names.map(place), ignore_index=True)
    made.attrs["title"] = "Table 1: cost model, against what was counted"
    return made
