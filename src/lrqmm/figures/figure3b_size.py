"""Figure 3b: error against the size of the matrices, by method."""

from matplotlib.figure import Figure

from lrqmm.figures import _data, _style
from lrqmm.run.read import Run

NEEDS = ("size",)

SHOWN_RANK = 16


def draw(run: Run) -> Figure:
    """One panel per input and rounding; low-rank methods at rank 16; bands over seeds."""
    table = _data.errors(run, "size")
    table = table[(table["rank"] == SHOWN_RANK) | table["rank"].isna()]
    table = table[table["method"] != "sgemm"]  # 1e-7: it would flatten all the rest
    inputs = list(dict.fromkeys(table["input"]))
    roundings = sorted(table["rounding"].dropna().unique())
    height = 2 * len(roundings) + 0.6
    figure, axes = _style.panels(len(roundings), len(inputs), height, sharex=True)
    for row, rounding in zip(axes, roundings, strict=True):
        for axis, name in zip(row, inputs, strict=True):
            panel = _data.in_rounding(table[table["input"] == name], rounding)
            for method, rows in _style.by_method(panel):
                _style.spread_line(axis, method, rows.groupby("n")["value"])
            _style.log(axis, "x", panel["n"])
            _style.log(axis, "y")
            axis.set_title(f"{run.title(name)}, {rounding}")
    figure.supxlabel(f"n   (n x n x n, {_data.setting(table)})")
    figure.supylabel("relative error (Frobenius)")
    _style.figure_legend(figure, axes.flat)
    return figure
