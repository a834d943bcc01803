"""LRAMM beside LRQMM: error against rank, by how fast the operands' singular values fall."""

from matplotlib.figure import Figure

from lrqmm.figures import _data, _style
from lrqmm.run.read import Run

NEEDS = ("lramm",)


def draw(run: Run) -> Figure:
    """One column per input, a row for the bits; direct has no rank."""
    table = _data.settings(run, "lramm")
    inputs = list(table["input"].unique())
    bits = sorted(table["bits"].unique())
    height = 1.6 * len(bits) + 0.6
    figure, axes = _style.panels(len(bits), len(inputs), height, sharex=True, sharey="row")
    for row, b in zip(axes, bits, strict=True):
        for axis, name in zip(row, inputs, strict=True):
            shown = table[(table["input"] == name) & (table["bits"] == b)]
            for method, rows in _style.by_method(shown):
                if rows["rank"].isna().all():
                    _style.level(axis, method, rows["relative_error"].median())
                else:
                    _style.spread_line(axis, method, rows.groupby("rank")["relative_error"])
            _style.log(axis, "x", shown["rank"].dropna().astype(float))
            _style.log(axis, "y")
            if b == bits[0]:
                axis.set_title(run.title(name))
        row[0].set_ylabel(f"{int(b)} bits")
    n = "/".join(str(size) for size in sorted(table["n"].unique()))
    figure.supxlabel(f"rank   (n = {n})")
    figure.supylabel("relative error")
    _style.figure_legend(figure, axes.flat)
    return figure
