"""Figure 5b: speed of quantised products against SGEMM, by size and method."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from lrqmm.figures import _data, _style
from lrqmm.store import Run

EXECUTIONS = {"time": "fast path", "time_rivals": "fast path", "time_plain": "plain array code"}


def draw(run: Run) -> Figure:
    """A panel a library and execution; medians of the ratio, 5th to 95th percentile."""
    ratios = _data.speed_ratios(_data.seconds(run, *EXECUTIONS))
    ratios = ratios[~ratios["b_prepared"].fillna(False).astype(bool)]
    execution = ratios["experiment"].map(EXECUTIONS)
    table = _data.power_variants(ratios.assign(panel=ratios["library"] + ", " + execution))
    panels = list(dict.fromkeys(table["panel"]))
    figure, axes = plt.subplots(
        1, len(panels), figsize=(_style.WIDTH, 3.5), sharey=True, squeeze=False
    )
    for axis, panel in zip(axes[0], panels, strict=True):
        own = table[table["panel"] == panel]
        for method in _style.order(own["method"].unique()):
            if method == "sgemm":
                continue
            for variant, rows in own[own["method"] == method].groupby("variant", sort=False):
                grouped = rows.groupby("n")["ratio"]
                middle = grouped.median()
                low, high = middle - grouped.quantile(0.05), grouped.quantile(0.95) - middle
                axis.errorbar(
                    middle.index.astype(float), middle, yerr=[low, high],
                    color=_style.colour(method), marker=_style.marker(method),
                    label=_style.label(method) + str(variant), capsize=2, elinewidth=0.7,
                    markerfacecolor="white" if rows["loaded"].any() else None,
                    ls=":" if variant else "-",
                )  # fmt: skip
        axis.axhline(1, color=_style.colour("sgemm"), label=_style.label("sgemm"), ls="--")
        axis.set_xscale("log", base=2)
        axis.set_yscale("log", base=2)
        axis.yaxis.set_major_formatter("{x:g}")
        axis.set_xticks(sorted(own["n"].unique().astype(float)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.minorticks_off()
        axis.set_title(panel, fontsize=8)
    axes[0, 0].set_ylabel("speed against SGEMM (above 1: faster)")
    first = table.iloc[0]
    figure.supxlabel(f"n   ({first['machine']}; hollow: machine was loaded)", fontsize=8)
    _style.figure_legend(figure, axes.flat)
    return figure
