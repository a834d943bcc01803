"""Two runs beside each other: what both measured, setting by setting."""

from __future__ import annotations

import pandas as pd

from lrqmm.run.read import Run

SETTING = ["input", "layer", "m", "k", "n", "method", "parameters", "calibration", "b_prepared"]
METRICS = ("relative_error", "seconds")
OF_NETWORKS = ("top1", "agreement", "perplexity", "cosine", "average_bits", "seconds_per_item")


def compare(left: Run, right: Run) -> pd.DataFrame:
    """A row a setting and metric that both runs have.

    Returns
    -------
    DataFrame of `SETTING`, `metric`, `left` and `right` (medians over seeds and samples) and
    `ratio`, right over left. Times are of whole products. A network is an input, and its data the
    layer.

    Raises
    ------
    ValueError : nothing in common
    """
    key = [*SETTING, "metric"]
    sides = []
    for run in (left, right):
        products = run.measurements[run.measurements["phase"].isna()]
        networks = run.networks[run.networks["layer"].isna()].drop(columns="layer")
        networks = networks.rename(columns={"network": "input", "data": "layer"})
        parts = [
            table[(table["status"] == "ok") & table["metric"].isin(metrics)].reindex(
                columns=[*key, "value"]
            )
            for table, metrics in ((products, METRICS), (networks, OF_NETWORKS))
        ]
        table = pd.concat([part for part in parts if len(part)] or parts)
        sides.append(table.groupby(key, dropna=False, observed=True)["value"].median())
    both = pd.concat(sides, axis=1, keys=["left", "right"], join="inner").reset_index()
    if both.empty:
        raise ValueError(f"{left.folder} and {right.folder} have no setting in common")
    return both.assign(ratio=both["right"] / both["left"])


def by_method(both: pd.DataFrame) -> pd.DataFrame:
    """A row a method and metric of `compare`: `settings` in common, how many are `equal`, and the
    `ratio`, median, with the `least` and `most`."""
    found = both.assign(equal=both["left"] == both["right"]).groupby(["metric", "method"])
    return found.agg(
        settings=("ratio", "size"),
        equal=("equal", "sum"),
        ratio=("ratio", "median"),
        least=("ratio", "min"),
        most=("ratio", "max"),
    ).reset_index()
