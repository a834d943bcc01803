"""Two runs beside each other: what both measured, setting by setting."""

import pandas as pd

from lrqmm.run import metrics
from lrqmm.run.read import Run

SETTING = ["input", "layer", "m", "k", "n", "method", "parameters", "calibration", "b_prepared"]


def compare(left: Run, right: Run) -> pd.DataFrame:
    """One row per setting and metric that both runs have; ValueError where there is none.

    Columns are `SETTING`, `metric`, `left` and `right` (medians over seeds and samples) and
    `ratio`, right over left. Times are of whole products. A network is an input, and its data the
    layer.
    """
    key = [*SETTING, "metric"]
    sides = []
    for run in (left, right):
        products = run.measurements[run.measurements["phase"].isna()]
        networks = run.networks[run.networks["layer"].isna()].drop(columns="layer")
        networks = networks.rename(columns={"network": "input", "data": "layer"})
        parts = []
        for table, listed in ((products, metrics.PRODUCTS), (networks, metrics.NETWORKS)):
            main = [name for name, metric in listed.items() if metric.main]
            compared = (table["status"] == "ok") & table["metric"].isin(main)
            parts.append(table[compared].reindex(columns=[*key, "value"]))
        table = pd.concat([part for part in parts if len(part)] or parts)
        sides.append(table.groupby(key, dropna=False, observed=True)["value"].median())
    both = pd.concat(sides, axis=1, keys=["left", "right"], join="inner").reset_index()
    if both.empty:
        raise ValueError(f"{left.folder} and {right.folder} have no setting in common")
    return both.assign(ratio=both["right"] / both["left"])


def by_method(both: pd.DataFrame) -> pd.DataFrame:
    """One row per method and metric of `compare`: `settings` in common, how many are `equal`, and
    the `ratio`, median, with the `least` and `most`."""
    groups = both.assign(equal=both["left"] == both["right"]).groupby(["metric", "method"])
    return groups.agg(
        settings=("ratio", "size"),
        equal=("equal", "sum"),
        ratio=("ratio", "median"),
        least=("ratio", "min"),
        most=("ratio", "max"),
    ).reset_index()
