"""Rivals: error against bits, every method at four bits, on four kinds of data."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lrqmm.figures import _data, _style
from lrqmm.figures.pareto import front
from lrqmm.store import Run

NAMED = ("direct", "lrqmm", "lrqmm_aware")
"""Methods with a label wherever they lie; of the others those that none beats."""

MOST_BITS = 8.5
"""Beyond are float products and three slices; table 6 has them."""


def points(run: Run) -> pd.DataFrame:
    """One row an input and method: `bits` an element of both operands, `error`, its seeds'
    extremes `low` and `high`, `calibration`."""
    key = ["input", "method", "calibration"]
    errors = _data.errors(run, "rivals").groupby(key, sort=False)["value"]
    held = _data.ok(run, "rivals")
    held = held[held["metric"] == "operand_bits"]
    bits = held["value"] / (held["m"] * held["k"] + held["k"] * held["n"])
    bits = bits.groupby([held[name] for name in key]).median().rename("bits")
    table = errors.agg(error="median", low="min", high="max")
    return table.join(bits).reset_index()


def draw(run: Run) -> Figure:
    """A panel an input; the line joins the methods that no other beats in bits and error."""
    table = points(run)
    table = table[(table["bits"] <= MOST_BITS) & (table["error"] > 0)]
    inputs = list(dict.fromkeys(table["input"]))
    rows = -(-len(inputs) // 2)
    figure, axes = plt.subplots(
        rows, 2, figsize=(_style.WIDTH, 2.9 * rows), sharex=True, squeeze=False
    )
    for axis, name in zip(axes.flat, inputs, strict=False):
        here = table[table["input"] == name]
        best = front(here.rename(columns={"bits": "slowness"}))
        axis.plot(best["slowness"], best["error"], color="0.8", lw=4, zorder=0)
        at_front = list(best["method"])
        for point in here.itertuples():
            method = str(point.method)
            named = method in NAMED or method in at_front
            low = method in at_front and at_front.index(method) % 2 == 0
            axis.plot(
                point.bits, point.error, ls="", ms=6 if named else 4,
                marker=_style.marker(method) if method in NAMED else "o",
                color=_style.colour(method) if method in NAMED else "0.45",
                markerfacecolor="white" if point.calibration == "same" else None,
            )  # fmt: skip
            if named:
                axis.annotate(
                    _style.label(method), (point.bits, point.error), xytext=(4, -9 if low else 4),
                    textcoords="offset points", fontsize=7,
                )  # fmt: skip
        axis.set_yscale("log")
        axis.set_title(_style.input_label(name), fontsize=9)
        axis.set_xlim(3.7, MOST_BITS + 1.2)  # room for a label
    for axis in axes.flat[len(inputs) :]:
        axis.axis("off")
    figure.supxlabel(
        "bits an element: codes, scales, factors (hollow: calibrated on its own operands)",
        fontsize=9,
    )
    figure.supylabel("relative error", fontsize=9)
    return figure
