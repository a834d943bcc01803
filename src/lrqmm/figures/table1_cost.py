"""Table 1: operations and bytes of each method, as modelled and as counted."""

import pandas as pd

from lrqmm.figures import NothingToDraw, _data, _style
from lrqmm.run.metrics import PRODUCTS
from lrqmm.run.read import Run

NEEDS = ("cost",)

COUNTS = ("integer_operations", "float_operations", "bytes")


def tabulate(run: Run) -> pd.DataFrame:
    """One row per method; 'counted' counts what the torch calls of the plain code do."""
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
    for name in COUNTS:
        for kind in ("model", "counted"):
            columns[f"{PRODUCTS[name].title}, {kind}"] = rows[(name, kind)]
    result = pd.DataFrame(columns)
    place = {name: i for i, name in enumerate(_style.order(result["method"].unique()))}
    result = result.sort_values("method", key=lambda names: names.map(place), ignore_index=True)
    return _data.titled(result, "Table 1: cost model, against what was counted")
