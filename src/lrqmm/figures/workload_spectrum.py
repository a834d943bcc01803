"""LRAMM beside LRQMM: error against rank, by how fast the operands' singular values fall."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from lrqmm.figures import _data, _style
from lrqmm.run.read import Run

NEEDS = ("lramm",)


def draw(run: Run) -> Figure:
    """One column per input, a row for the bits; direct has no rank."""
    table = _data.settings(run, "lramm")
    inputs = list(table["input"].unique())
    bits = sorted(table["bits"].unique())
    figure, axes = plt.subplots(
        len(bits), len(inputs), figsize=(_style.WIDTH, 1.6 * len(bits) + 0.6), squeeze=False,
        sharex=True, sharey="row",
    )  # fmt: skip
    for number, b in enumerate(bits):
        row = axes[number]
        for axis, name in zip(row, inputs, strict=True):
            shown = table[(table["input"] == name) & (table["bits"] == b)]
            for method in _style.order(set(shown["method"])):
                of_method = shown[shown["method"] == method]
                if of_method["rank"].isna().all():
                    _style.level(axis, method, of_method["relative_error"].median())
                    continue
                _style.spread_line(axis, method, of_method.groupby("rank")["relative_error"])
            _style.log(axis, "x", shown["rank"].dropna().astype(float))
            _style.log(axis, "y")
            if number == 0:
                axis.set_title(run.title(name))
        row[0].set_ylabel(f"{int(b)} bits")
    n = "/".join(str(size) for size in sorted(table["n"].unique()))
    figure.supxlabel(f"rank   (n = {n})")
    figure.supylabel("relative error")
    _style.figure_legend(figure, axes.flat)
    return figure
