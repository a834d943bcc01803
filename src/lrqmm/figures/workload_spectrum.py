"""LRAMM beside LRQMM: error against rank, by how fast the operands' singular values fall."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from lrqmm.figures import _data, _style
from lrqmm.store import Run


def draw(run: Run) -> Figure:
    """A column an input, a row for the bits; direct has no rank."""
    table = _data.settings(run, "lramm")
    inputs = list(table["input"].unique())
    bits = sorted(table["bits"].unique())
    figure, axes = plt.subplots(
        len(bits), len(inputs), figsize=(_style.WIDTH, 1.9 * len(bits) + 0.5), squeeze=False,
        sharex=True, sharey=True,
    )  # fmt: skip
    for number, b in enumerate(bits):
        row = axes[number]
        for axis, name in zip(row, inputs, strict=True):
            own = table[(table["input"] == name) & (table["bits"] == b)]
            for method in _style.order(set(own["method"])):
                here = own[own["method"] == method]
                colour, words = _style.colour(method), _style.label(method)
                if here["rank"].isna().all():
                    axis.axhline(here["relative_error"].median(), color=colour, ls=":", label=words)
                    continue
                spread = here.groupby("rank")["relative_error"]
                axis.plot(spread.median(), color=colour, marker=_style.marker(method), label=words)
                axis.fill_between(
                    spread.min().index, spread.min(), spread.max(), color=colour, alpha=0.15
                )
            axis.set_xscale("log", base=2)
            axis.xaxis.set_major_formatter("{x:g}")
            axis.set_yscale("log")
            if number == 0:
                axis.set_title(_style.input_label(name), fontsize=8)
        row[0].set_ylabel(f"{int(b)} bits", fontsize=8)
    figure.supxlabel("rank", fontsize=8)
    figure.supylabel("relative error", fontsize=8)
    _style.figure_legend(figure, axes.flat)
    return figure
