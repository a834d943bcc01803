"""Prediction: the error foretold from O(n²) statistics over the error measured."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lrqmm.figures import NothingToDraw, _style
from lrqmm.run.read import Run
from lrqmm.run.schema import INPUT

NEEDS = ("measure: error",)

WITHIN = 0.1


def points(run: Run) -> pd.DataFrame:
    """One row per product that has both: `predicted`, `measured`, `method`, `bits`, `rounding`."""
    keys = ["shard", "calibration", "machine", "measured_at", "setting", *INPUT]
    table = run.measurements
    table = table[(table["status"] == "ok") & table["phase"].isna()]
    predicted = table[table["metric"] == "predicted_error"]
    if predicted.empty:
        raise NothingToDraw("this run has no predicted errors (of direct, mean_fix, hadamard)")
    measured = table[table["metric"] == "relative_error"]
    measured = measured[measured["shard"].isin(predicted["shard"])]  # times have several of one
    pairs = predicted.rename(columns={"value": "predicted"}).set_index(keys)
    pairs = pairs[["method", "bits", "rounding", "predicted"]].join(
        measured.set_index(keys)["value"].rename("measured"), validate="one_to_one"
    )
    pairs = pairs.reset_index()
    return pairs[(pairs["measured"] > 0) & (pairs["predicted"] > 0)]


def draw(run: Run) -> Figure:
    """One point per product; the band is what is within a tenth of the measured error."""
    table = points(run)
    ratio = table["predicted"] / table["measured"]
    figure, axis = plt.subplots(figsize=(_style.COLUMN, 2.3))
    axis.axhspan(1 - WITHIN, 1 + WITHIN, color="0.9", zorder=0)
    axis.axhline(1, color="0.5", lw=0.8, zorder=1)
    for name in _style.order(table["method"].unique()):
        of_method = table["method"] == name
        axis.plot(
            table["measured"][of_method], ratio[of_method], ls="", ms=3, alpha=0.7,
            marker=_style.marker(name), color=_style.colour(name), label=_style.label(name),
        )  # fmt: skip
    _style.log(axis, "x")
    shards = ", ".join(sorted(set(table["shard"].str.split("-").str[0])))
    axis.set_xlabel(f"relative error, measured   ({shards})")
    axis.set_ylabel("predicted / measured")
    share = (abs(ratio - 1) <= WITHIN).mean()
    axis.set_title(f"{share:.0%} of {len(table)} products within a tenth")
    _style.figure_legend(figure, [axis])
    return figure
