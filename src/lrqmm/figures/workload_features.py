"""Random Fourier features: error of the kernel matrix against the number of features."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from lrqmm.figures import _data, _style
from lrqmm.store import Run

GAINS = {"unit": "naive gain", "fitted": "fitted gain"}


def variant(method: str, parameters: dict[str, object]) -> str:
    """A method with its gain and the blocks that it condenses."""
    words = [_style.label(method)]
    if "gain" in parameters:
        words.append(GAINS[str(parameters["gain"])])
    if parameters.get("condense", 1) != 1:
        words.append(f"λ={parameters['condense']}")
    return ", ".join(words)


def draw(run: Run) -> Figure:
    """A panel for the bits of a feature; the band is the range over seeds."""
    table = _data.settings(run, "features")
    table = table.assign(
        count=table["layer"].astype(int),
        variant=[
            variant(method, p)
            for method, p in zip(table["method"], table["parameters"], strict=True)
        ],
    )
    bits = sorted(table["bits"].dropna().unique())
    figure, axes = plt.subplots(
        1, len(bits), figsize=(_style.WIDTH, 3.4), squeeze=False, sharey=True
    )
    colours = plt.get_cmap("tab10")
    names = sorted(table["variant"].unique())
    for axis, b in zip(axes[0], bits, strict=True):
        own = table[table["bits"].eq(b) | table["bits"].isna()]
        for name in names:
            here = own[own["variant"] == name]
            if here.empty:
                continue
            spread = here.groupby("count")["gram_error"]
            plain = name == _style.label("sgemm")
            colour = "black" if plain else colours(names.index(name) % 10)
            axis.plot(
                spread.median(), color=colour, ls=":" if plain else "-", marker=".", label=name
            )
            axis.fill_between(
                spread.min().index, spread.min(), spread.max(), color=colour, alpha=0.15
            )
        axis.set_title(f"{int(b)} bit{'s' if b > 1 else ''} a feature", fontsize=9)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(sorted(own["count"].unique()))
        axis.xaxis.set_major_formatter("{x:g}")
        _style.plain_log(axis.yaxis)
    axes[0, 0].set_ylabel("error of the kernel, off the diagonal")
    figure.supxlabel("features", fontsize=8)
    _style.figure_legend(figure, axes.flat, 3)
    return figure
