"""Figure 3a: error against rank, uniform(0, 1) matrices of the paper's size."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrqmm.figures import _data, _style
from lrqmm.run.read import Run

NEEDS = ("rank",)


def draw(run: Run) -> Figure:
    """One panel per rounding and bits; lines are medians over seeds, bands from least to
    largest; dotted: other levels than the usual odd number."""
    table = _data.errors(run, "rank")
    bits = sorted(table["bits"].dropna().unique())
    roundings = sorted(table["rounding"].dropna().unique())
    height = 2.2 * len(roundings) + 0.2
    figure, axes = _style.panels(len(roundings), len(bits), height, sharex=True)
    for row, rounding in zip(axes, roundings, strict=True):
        for axis, width in zip(row, bits, strict=True):
            panel = _data.in_rounding(table, rounding)
            _panel(axis, panel[(panel["bits"] == width) | panel["bits"].isna()])
            axis.set_title(f"{width} bits, {rounding}")
    size = table.iloc[0]
    name = run.title(size["input"])
    figure.supxlabel(f"rank   ({name}, {size['m']} x {size['k']} x {size['n']})")
    figure.supylabel("relative error (Frobenius)")
    _style.label_ends(axes.flat)
    return figure


def _panel(axis: Axes, table: pd.DataFrame) -> None:
    kinds = table["levels"].fillna("odd")
    words = (", " + kinds + " levels").where(kinds != "odd", "")
    for method, of_method in _style.by_method(table):
        for apart, rows in of_method.groupby(words.loc[of_method.index]):
            look = {"label": _style.label(method) + str(apart)}
            look |= {"ls": ":", "marker": ""} if apart else {}
            if rows["rank"].isna().all():
                _style.level(axis, method, rows["value"].median(), **look)
            else:
                _style.spread_line(axis, method, rows.groupby("rank")["value"], **look)
    _style.log(axis, "y")
    axis.set_xscale("symlog", linthresh=1, linscale=0.5)
    ticks = [0, 1, 2, 5, 10, 20, 50, 200]
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
