"""Figure 5b: speed of quantised products against SGEMM, by size and method."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lrqmm.figures import NothingToDraw, _data, _style
from lrqmm.store import Run


def draw(run: Run) -> Figure:
    """A panel a library; medians of the ratio within a round, bars from 5th to 95th percentile."""
    found = []
    for experiment in ("time", "time_numpy"):
        try:
            found.append(_data.speed_ratios(_data.seconds(run, experiment)))
        except NothingToDraw:
            continue
    if not found:
        raise NothingToDraw("this run has no seconds of the experiments 'time', 'time_numpy'")
    table = pd.concat(found)
    libraries = list(dict.fromkeys(table["library"]))
    figure, axes = plt.subplots(
        1, len(libraries), figsize=(_style.WIDTH, 3.5), sharey=True, squeeze=False
    )
    for axis, library in zip(axes[0], libraries, strict=True):
        own = table[table["library"] == library]
        for method in _style.order(own["method"].unique()):
            if method == "sgemm":
                continue
            grouped = own[own["method"] == method].groupby("n")["ratio"]
            middle = grouped.median()
            low, high = middle - grouped.quantile(0.05), grouped.quantile(0.95) - middle
            loaded = own.loc[own["method"] == method, "loaded"].any()
            axis.errorbar(
                middle.index.astype(float), middle, yerr=[low, high], color=_style.colour(method),
                marker=_style.marker(method), label=_style.label(method), capsize=2, elinewidth=0.7,
                markerfacecolor="white" if loaded else None,
            )  # fmt: skip
        axis.axhline(1, color=_style.colour("sgemm"), label=_style.label("sgemm"), ls="--")
        axis.set_xscale("log", base=2)
        axis.set_yscale("log", base=2)
        axis.yaxis.set_major_formatter("{x:g}")
        axis.set_xticks(sorted(own["n"].unique().astype(float)))
        axis.xaxis.set_major_formatter("{x:g}")
        route = own.loc[own["method"] == "direct", "integer_route"]
        title = f"{library}; {route.iloc[0]}" if len(route) else library
        axis.set_title(title, fontsize=8)
    axes[0, 0].set_ylabel("speed against SGEMM (above 1: faster)")
    first = table.iloc[0]
    figure.supxlabel(f"n   ({first['machine']}; hollow: machine was loaded)", fontsize=8)
    _style.figure_legend(figure, axes.flat)
    return figure
