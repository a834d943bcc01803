"""Pareto: error against time, every method, on four kinds of data."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lrqmm.figures import _data, _style
from lrqmm.store import Run

KEY = ["input", "m", "k", "n", "method", "bits"]


def points(run: Run) -> pd.DataFrame:
    """One row an input, method and bits: `slowness` (time over SGEMM's) and `error`."""
    ratios = _data.speed_ratios(_data.seconds(run, "pareto"))
    slowness = (1 / ratios.set_index(KEY)["ratio"]).groupby(KEY, dropna=False).median()
    error = _data.errors(run, "pareto").set_index(KEY)["value"]
    error = error.groupby(KEY, dropna=False).median()
    return pd.DataFrame({"slowness": slowness, "error": error}).reset_index()


def front(here: pd.DataFrame) -> pd.DataFrame:
    """The points that no other point beats in both time and error, by time."""
    ordered = here.sort_values(["slowness", "error"])
    return ordered[ordered["error"] < ordered["error"].cummin().shift(fill_value=float("inf"))]


def draw(run: Run) -> Figure:
    """A panel an input; filled markers 4 bits, hollow ones 8; the line joins the undominated."""
    table = points(run).dropna(subset=["slowness", "error"])
    inputs = list(dict.fromkeys(table["input"]))
    columns = min(2, len(inputs))
    rows = -(-len(inputs) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(_style.WIDTH, 2.6 * rows + 0.8), sharex=True, squeeze=False
    )
    for axis, name in zip(axes.flat, inputs, strict=False):
        here = table[table["input"] == name]
        best = front(here)
        axis.plot(best["slowness"], best["error"], color="0.75", lw=4, zorder=0)
        for point in here.itertuples():
            method, wide = str(point.method), not pd.isna(point.bits) and point.bits > 4
            axis.plot(
                point.slowness, point.error, ls="", color=_style.colour(method), ms=6,
                marker=_style.marker(method), label="_8 bits" if wide else _style.label(method),
                markerfacecolor="white" if wide else None,
            )  # fmt: skip
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_title(_style.input_label(name), fontsize=9)
    for axis in axes.flat[len(inputs) :]:
        axis.axis("off")
    n = "/".join(str(size) for size in sorted(table["n"].unique()))
    figure.supxlabel(
        f"time / time of SGEMM (n = {n}; left is faster; filled 4 bits, hollow 8)", fontsize=9
    )
    figure.supylabel("relative error", fontsize=9)
    _style.figure_legend(figure, axes.flat)
    return figure
