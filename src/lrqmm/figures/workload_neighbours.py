"""Nearest neighbours: accuracy against the bits of the database's elements."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from lrqmm.figures import _data, _style
from lrqmm.store import Run


def draw(run: Run) -> Figure:
    """A panel a data set; the band is the range over seeds, the dotted line float32."""
    table = _data.settings(run, "neighbours")
    cases = list(table["layer"].unique())
    figure, axes = plt.subplots(
        1, len(cases), figsize=(_style.WIDTH, 2.9), squeeze=False, sharex=True
    )
    for axis, case in zip(axes[0], cases, strict=True):
        own = table[table["layer"] == case]
        for method in _style.order(set(own["method"])):
            here = own[own["method"] == method]
            spread = here.groupby("bits", dropna=False)[["each_bits", "accuracy"]]
            middle, low, high = (100 * getattr(spread, f)() for f in ("median", "min", "max"))
            if method == "sgemm":
                axis.axhline(
                    middle["accuracy"].iloc[0], color="black", ls=":", label=_style.label(method)
                )
                continue
            x = middle["each_bits"] / 100
            axis.plot(
                x, middle["accuracy"], color=_style.colour(method), marker=_style.marker(method),
                label=_style.label(method),
            )  # fmt: skip
            axis.fill_between(
                x, low["accuracy"], high["accuracy"], color=_style.colour(method), alpha=0.15
            )
        axis.set_title(_style.CASES.get(case, case), fontsize=9)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:g}")
    axes[0, 0].set_ylabel("accuracy, %")
    figure.supxlabel("bits an element of the database: codes, scales, factors", fontsize=8)
    _style.figure_legend(figure, axes.flat, 3)
    return figure
