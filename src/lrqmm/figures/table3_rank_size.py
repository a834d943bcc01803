"""Table 3: error and gain against rank and size."""

import pandas as pd

from lrqmm.figures import _data, _style
from lrqmm.run.read import Run

NEEDS = ("size",)


def tabulate(run: Run) -> pd.DataFrame:
    """One row per input, size, rounding and rank; error and gain over direct, medians over
    seeds."""
    table = _data.errors(run, "size")
    same = ["input", "n", "input_seed", "rounding"]
    direct = table[table["method"] == "direct"].set_index(same)["value"].rename("direct")
    ranked = table[table["rank"].notna()].join(direct, on=same)
    ranked = ranked.assign(gain=ranked["direct"] / ranked["value"])
    keys = ["input", "n", "rounding", "bits", "rank"]
    cells = ranked.pivot_table(
        index=keys, columns="method", values=["value", "gain"], aggfunc="median"
    )
    result = cells.reset_index()[keys].droplevel(1, axis=1)
    result["direct: error"] = ranked.groupby(keys)["direct"].median().to_numpy()
    for method in _style.order(ranked["method"].unique()):
        result[f"{method}: error"] = cells[("value", method)].to_numpy()
        result[f"{method}: gain"] = cells[("gain", method)].to_numpy()
    result["input"] = result["input"].map(run.title)
    return _data.titled(result, "Table 3: error and gain over direct, by size and rank")
