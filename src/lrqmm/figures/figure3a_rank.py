"""Figure 3a: error against rank, uniform(0, 1) matrices of the paper's size."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrqmm.figures import _data, _style
from lrqmm.run.read import Run

NEEDS = ("rank",)


def draw(run: Run) -> Figure:
    """One panel per rounding and bits; lines are medians over seeds, bands from least to
    largest."""
    table = _data.errors(run, "rank")
    bits = sorted(table["bits"].dropna().unique())
    roundings = sorted(table["rounding"].dropna().unique())
    figure, axes = plt.subplots(
        len(roundings), len(bits), figsize=(_style.WIDTH, 2.2 * len(roundings) + 0.2),
        sharex=True, squeeze=False,
    )  # fmt: skip
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
    for method in _style.order(table["method"].unique()):
        lines = _data.spread(table[table["method"] == method], ["rank"])
        if lines["rank"].isna().all():
            _style.level(axis, method, lines["median"].iloc[0])
            continue
        lines = lines.set_index("rank").sort_index()
        _style.line(axis, method, lines["median"], lines["min"], lines["max"])
    _style.log(axis, "y")
    axis.set_xscale("symlog", linthresh=1, linscale=0.5)
    ticks = [0, 1, 2, 5, 10, 20, 50, 200]
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
