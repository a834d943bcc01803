"""Pareto: error against time, every method, on four kinds of data."""

import pandas as pd
from matplotlib.figure import Figure

from lrqmm.figures import _data, _style
from lrqmm.run.read import Run

NEEDS = ("pareto",)

KEY = ["input", "m", "k", "n", "method", "bits"]


def points(run: Run) -> pd.DataFrame:
    """One row per input, method and bits: `slowness` beside SGEMM with `fast` and `slow`, `error`
    with its inputs' extremes `low` and `high`, `rank`."""
    slowness = _data.slowness(_data.speed_ratios(_data.seconds(run, "pareto")), KEY)
    errors = _data.errors(run, "pareto").groupby(KEY, dropna=False)
    spread = errors["value"].agg(error="median", low="min", high="max")
    return spread.join(slowness).assign(rank=errors["rank"].first()).reset_index()


def front(points: pd.DataFrame) -> pd.DataFrame:
    """The points that no other point beats in both time and error, by time."""
    ordered = points.sort_values(["slowness", "error"])
    return ordered[ordered["error"] < ordered["error"].cummin().shift(fill_value=float("inf"))]


def draw(run: Run) -> Figure:
    """One panel per input; filled markers 4 bits, hollow ones 8; the line joins the undominated."""
    table = points(run).dropna(subset=["slowness", "error"])
    inputs = list(dict.fromkeys(table["input"]))
    figure, axes = _style.wrapped(len(inputs), 2, 2.3, 0.6, sharex=True)
    for axis, name in zip(axes, inputs, strict=True):
        panel = table[table["input"] == name]
        best = front(panel)
        axis.plot(best["slowness"], best["error"], color="0.85", lw=3, zorder=0)
        for point in panel.itertuples():
            method, wide = str(point.method), not pd.isna(point.bits) and point.bits > 4
            look = _style.bar_look(method, wide) | ({"label": "_8 bits"} if wide else {})
            bars = [[point.slowness - point.fast], [point.slow - point.slowness]]
            axis.errorbar(point.slowness, point.error, xerr=bars, ls="", **look)
        _style.log(axis, "x")
        _style.log(axis, "y")
        axis.set_title(run.title(name))
    n = "/".join(str(size) for size in sorted(table["n"].unique()))
    caption = f"n = {n}, {_data.setting(table)}; left is faster; filled: up to 4 bits, hollow: more"
    figure.supxlabel(f"time / time of SGEMM   ({caption})")
    figure.supylabel("relative error")
    _style.figure_legend(figure, axes)
    return figure
