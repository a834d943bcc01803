"""Figure 3a: error against rank, uniform(0, 1) matrices of the paper's size."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrqmm.figures import _data, _style
from lrqmm.store import Run


def draw(run: Run) -> Figure:
    """A panel a rounding and bits; lines are medians over seeds, bands from least to largest."""
    table = _data.errors(run, "rank")
    bits = sorted(table["bits"].dropna().unique())
    roundings = sorted(table["rounding"].dropna().unique())
    figure, axes = plt.subplots(
        len(roundings), len(bits), figsize=(_style.WIDTH, 2.3 * len(roundings) + 0.7),
        sharex=True, squeeze=False,
    )  # fmt: skip
    for row, rounding in zip(axes, roundings, strict=True):
        for axis, width in zip(row, bits, strict=True):
            here = _data.in_rounding(table, rounding)
            _panel(axis, here[(here["bits"] == width) | here["bits"].isna()])
            axis.set_title(f"{width} bits, {rounding}", fontsize=9)
    size = table.iloc[0]
    name = _style.input_label(size["input"])
    figure.supxlabel(f"rank   ({name}, {size['m']} x {size['k']} x {size['n']})", fontsize=9)
    figure.supylabel("relative error (Frobenius)", fontsize=9)
    _style.figure_legend(figure, axes.flat)
    return figure


def _panel(axis: Axes, table: pd.DataFrame) -> None:
    for method in _style.order(table["method"].unique()):
        lines = _data.spread(table[table["method"] == method], ["rank"])
        colour, text = _style.colour(method), _style.label(method)
        if lines["rank"].isna().all():
            axis.axhline(lines["median"].iloc[0], color=colour, label=text, ls="--", lw=1)
            continue
        lines = lines.sort_values("rank")
        rank = lines["rank"].astype(float)
        axis.plot(rank, lines["median"], color=colour, label=text, marker=_style.marker(method))
        axis.fill_between(rank, lines["min"], lines["max"], color=colour, alpha=0.2, lw=0)
    axis.set_yscale("log")
    axis.set_xscale("symlog", linthresh=1)
    ticks = [0, 1, 2, 5, 10, 20, 50, 100, 200]
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
