"""Figure 1: singular values of matrices and of their quantisation residuals."""

import json

from matplotlib.figure import Figure

from lrqmm.figures import _data, _style
from lrqmm.run.read import Run

NEEDS = ("spectrum",)

LINES = {
    "matrix": ("matrix", "black"),
    "nearest": ("residual, rounding to nearest", _style.MUTED[0]),
    "truncate": ("residual, truncation", _style.MUTED[6]),
}


def draw(run: Run) -> Figure:
    """One panel per distribution; all divided by the matrix's largest singular value."""
    table = _data.arrays(run, "spectrum")
    inputs = list(table["input"].unique())
    residuals = table.loc[table["name"] != "matrix", "parameters"].unique()
    figure, axes = _style.wrapped(len(inputs), 5, 1.5, 0.5, sharex=True, sharey=True)
    for axis, name in zip(axes, inputs, strict=True):
        panel = table[table["input"] == name]
        largest = panel.loc[panel["name"] == "matrix", "value"].max()
        for (kind, parameters), group in panel.groupby(["name", "parameters"]):
            key = kind if kind == "matrix" else json.loads(parameters)["rounding"]
            text, colour = LINES[key]
            values = group.sort_values("row")["value"].to_numpy() / largest
            axis.plot(range(1, len(values) + 1), values, color=colour, label=text)
        _style.log(axis, "y")
        axis.set_title(run.title(name))
        axis.set_ylim(1e-4, 2)
    size = table["row"].max() + 1
    bits = "/".join(sorted({str(json.loads(setting).get("bits")) for setting in residuals}))
    figure.supxlabel(f"index   (smaller side {size}, {bits} bits)")
    figure.supylabel("singular value / largest of the matrix")
    _style.figure_legend(figure, axes)
    return figure
