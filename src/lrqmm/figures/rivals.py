"""Rivals: every method at four bits, error against bits and against time, on four kinds of data."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrqmm.figures import NothingToDraw, _data, _style
from lrqmm.figures.pareto import front
from lrqmm.run.read import Run

NEEDS = ("rivals",)
ALSO = ("rivals_time",)

NAMED = ("direct", "lrqmm", "lrqmm_aware")
"""Methods that always have a colour and a label; others have a label where no method beats them."""

MOST_BITS = 8.5
"""Beyond are float products and three slices; table 6 has them."""


def points(run: Run) -> pd.DataFrame:
    """One row per input, method and calibration: `bits` an element of both operands, `error`, its
    seeds' extremes `low` and `high`."""
    key = ["input", "method", "calibration"]
    errors = _data.errors(run, "rivals").groupby(key, sort=False)["value"]
    held = _data.ok(run, "rivals")
    held = held[held["metric"] == "operand_bits"]
    bits = held.assign(bits=_data.element_bits(held)).groupby(key)["bits"].median()
    return errors.agg(error="median", low="min", high="max").join(bits).reset_index()


def fair(table: pd.DataFrame) -> pd.DataFrame:
    """Without the points calibrated on the measured operand, where held-out ones exist."""
    held_out = table[table["calibration"] == "held_out"]
    key = ["input", "method"]
    both = table.set_index(key).index.isin(held_out.set_index(key).index)
    return table[~both | (table["calibration"] == "held_out")]


def timed(run: Run) -> pd.DataFrame:
    """One row per input and method: `slowness` beside SGEMM, `fast` and `slow`, with B prepared
    where there is something to prepare; the rest are those of `points`."""
    seconds = _data.seconds(run, "rivals_time")
    prepared = seconds["b_prepared"].eq(True)
    once = ~seconds["method"].isin(seconds.loc[prepared, "method"])
    ratios = _data.speed_ratios(seconds[prepared | once])
    key = ["input", "method"]
    errors = fair(points(run)).set_index(key)[["error", "low", "high", "calibration"]]
    return errors.join(_data.slowness(ratios, key), how="inner").reset_index()


def draw(run: Run) -> Figure:
    """One row per input: error against bits and, where the run has times, against time. The line
    joins the methods that no other beats; they are named at the right, in the order of their
    errors."""
    by_bits = fair(points(run)).rename(columns={"bits": "x"})
    sides = [by_bits[by_bits["x"] <= MOST_BITS]]
    titles = ["bits per element: codes, scales, factors"]
    try:
        sides.append(timed(run).rename(columns={"slowness": "x"}))
        titles.append("time / time of SGEMM, B prepared")
    except NothingToDraw:
        pass  # a run of errors alone
    inputs = list(dict.fromkeys(by_bits["input"]))
    panels = [(name, side) for name in inputs for side in range(len(sides))]
    figure, axes = _style.wrapped(len(panels), 2, 2.1, 0.4)
    for axis, (name, side) in zip(axes, panels, strict=True):
        table = sides[side]
        label_front(axis, table[(table["input"] == name) & (table["error"] > 0)])
        axis.set_title(run.title(name))
        if side:
            _style.log(axis, "x")
        if axis.get_subplotspec().is_last_row():
            axis.set_xlabel(titles[side])
    figure.supylabel("relative error")
    caption = f"{_data.setting(_data.errors(run, 'rivals'))}; bars: least to largest of the seeds"
    figure.supxlabel(caption + hollow(pd.concat(sides)))
    return figure


def hollow(table: pd.DataFrame) -> str:
    """The explanation of hollow points, if there are any."""
    itself = (table["calibration"] == "same").any()
    return "; hollow: calibrated on the measured operand itself" if itself else ""


def label_front(axis: Axes, points: pd.DataFrame) -> None:
    """Points (`x`, `error` from `low` to `high`, `method`, `calibration`) on one panel; those that
    no other beats, and of the few in `NAMED` the most exact, by `name`, or their method's."""
    best = front(points.rename(columns={"x": "slowness"}))
    axis.plot(best["slowness"], best["error"], color="0.85", lw=3, zorder=0)
    _style.log(axis, "y")
    labels = []
    of_named = points[points["method"].isin(NAMED)]
    shown = best.index.union(of_named.groupby("method")["error"].idxmin())
    for point in points.itertuples():
        method = str(point.method)
        named = point.Index in shown
        colour = _style.colour(method) if method in NAMED else "0.2" if named else "0.65"
        axis.errorbar(
            point.x, point.error, yerr=[[point.error - point.low], [point.high - point.error]],
            ls="", marker=_style.marker(method) if method in NAMED else "o", color=colour,
            ms=4.5 if named else 3, elinewidth=0.7, zorder=3 if named else 2,
            markerfacecolor="white" if point.calibration == "same" else None,
        )  # fmt: skip
        if named:
            name = str(getattr(point, "name", _style.short_label(method)))
            labels.append((point.x, point.error, name, colour))
    _style.label_at_right(axis, labels)
