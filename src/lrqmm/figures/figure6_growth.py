"""Figure 6: how time and memory grow with size, time with rank, and speed on networks' shapes."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrqmm.figures import _data, _style
from lrqmm.run.read import Run

NEEDS = ("growth", "growth_rank", "shapes")


def draw(run: Run) -> Figure:
    """Medians over samples on log-log axes; exponents fitted to the upper half of the sizes."""
    times = _data.whole_products(_data.seconds(run, "growth"))
    figure, grid = _style.panels(2, 2, 4.6)
    axes = grid.flat
    _growth(axes[0], times.assign(value=1e3 * times["value"]))
    axes[0].set(xlabel="n", ylabel="time (ms)")
    peaks = _data.values(run, "peak_bytes", "growth")
    _growth(axes[1], peaks.assign(value=peaks["value"] / 1e6))
    axes[1].set(xlabel="n", ylabel="memory added (MB)")
    ranks = _data.speed_ratios(_data.seconds(run, "growth_rank"), "direct")
    _ranks(axes[2], ranks)
    size = "/".join(str(n) for n in sorted(ranks["n"].unique()))
    axes[2].set(xlabel=f"rank (n = {size})", ylabel="extra time over direct (%)")
    _shapes(axes[3], _data.speed_ratios(_data.seconds(run, "shapes")))
    axes[3].set(xlabel="speed against SGEMM")
    setting, machine = _data.setting(times), times["machine"].iloc[0]
    figure.supxlabel(f"{setting}; {machine}; corner: fits; hollow: machine was loaded")
    _style.figure_legend(figure, axes)
    return figure


def exponent(sizes: pd.Series, values: pd.Series) -> float:
    """Slope of log(value) against log(size) by least squares, over the upper half of the sizes."""
    upper = slice(len(sizes) // 2, None)
    if len(sizes) < 2:
        return float("nan")
    x, y = np.log(np.asarray(sizes, float)[upper]), np.log(np.asarray(values, float)[upper])
    return float(np.polyfit(x, y, 1)[0]) if len(x) > 1 else float("nan")


def _growth(axis: Axes, table: pd.DataFrame) -> None:
    for line, (method, rows) in enumerate(_style.by_method(table)):
        values = rows.groupby("n")["value"]
        medians = values.median()
        slope = exponent(medians.index.to_series(), medians)
        _style.timed_line(axis, method, values, rows["loaded"].any())
        if np.isfinite(slope):
            axis.text(
                0.04, 0.95 - 0.08 * line, f"$n^{{{slope:.2f}}}$", va="top",
                color=_style.colour(method), transform=axis.transAxes,
            )  # fmt: skip
    _style.log(axis, "x", table["n"])
    _style.log(axis, "y")


def _ranks(axis: Axes, ratios: pd.DataFrame) -> None:
    ratios = ratios[ratios["method"] != "direct"].assign(extra=100 / ratios["ratio"] - 100)
    for method, rows in _style.by_method(ratios):
        _style.timed_line(axis, method, rows.groupby("rank")["extra"], rows["loaded"].any())
    _style.log(axis, "x", ratios["rank"].dropna().astype(float))


def _shapes(axis: Axes, ratios: pd.DataFrame) -> None:
    """One line per shape, smallest product at the bottom; medians, 5th to 95th percentile."""
    shape = ["m", "k", "n"]
    volume = ratios[shape].astype(float).prod(axis=1)
    shapes = ratios.assign(volume=volume).sort_values("volume").groupby(shape, sort=False)
    names = [f"{m}×{k}×{n}" for m, k, n in shapes.groups]
    for line, (_, of_shape) in enumerate(shapes):
        for method, rows in _style.by_method(of_shape):
            low, middle, high = rows["ratio"].quantile([0.05, 0.5, 0.95])
            axis.errorbar(
                middle, line, xerr=[[middle - low], [high - middle]], ls="",
                **_style.bar_look(method, rows["loaded"].any()),
            )  # fmt: skip
    axis.axvline(1, color=_style.colour("sgemm"), ls="--", lw=1)
    axis.set_yticks(range(len(names)), names, fontsize=_style.SMALL)
    _style.log(axis, "x")
