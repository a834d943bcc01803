"""Nearest neighbours: accuracy against the bits of the database's elements."""

from matplotlib.figure import Figure

from lrqmm.figures import _data, _style
from lrqmm.run.read import Run

NEEDS = ("neighbours",)


def draw(run: Run) -> Figure:
    """One panel per data set; the band is the range over seeds, the dotted line float32."""
    table = _data.settings(run, "neighbours")
    cases = list(table["layer"].unique())
    figure, axes = _style.panels(1, len(cases), 2.6, sharex=True)
    for axis, case in zip(axes[0], cases, strict=True):
        for method, rows in _style.by_method(table[table["layer"] == case]):
            spread = rows.groupby("bits", dropna=False)[["each_bits", "accuracy"]]
            middle, low, high = (100 * getattr(spread, f)() for f in ("median", "min", "max"))
            if method == "sgemm":
                _style.level(axis, method, middle["accuracy"].iloc[0])
                continue
            bits = middle["each_bits"] / 100
            _style.line(
                axis, method, *(end["accuracy"].set_axis(bits) for end in (middle, low, high))
            )
        axis.set_title(_style.CASES.get(case, case))
        _style.log(axis, "x", (1, 2, 4, 8))
    axes[0, 0].set_ylabel("accuracy, %")
    figure.supxlabel("bits per element of the database: codes, scales, factors")
    _style.label_ends(axes.flat)
    return figure
