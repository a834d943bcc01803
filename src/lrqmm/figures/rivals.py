"""Rivals: every method at four bits, error against bits and against time, on four kinds of data."""

import itertools

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

FILLS = ("full", "bottom", "top", "left")
"""Of the markers of a method's settings."""

SETTING = ["input", "method", "apart"]
"""What tells points apart; those of one setting differ in what they were calibrated on."""

MOST_BITS = 8.5
"""Beyond are float products and three slices; table 6 has them."""


def points(run: Run) -> pd.DataFrame:
    """One row per input, method, setting (`apart`: how it differs from the method's first one) and
    calibration: `name` for figures, `bits` an element of both operands, `error`, its seeds'
    extremes `low` and `high`."""
    key = [*SETTING, "calibration"]
    errors = _data.errors(run, "rivals")
    errors = errors.assign(apart=_data.apart(errors)).groupby(key, sort=False)["value"]
    held = _data.ok(run, "rivals")
    held = held[held["metric"] == "operand_bits"]
    held = held.assign(apart=_data.apart(held), bits=_data.element_bits(held))
    bits = held.groupby(key)["bits"].median()
    table = errors.agg(error="median", low="min", high="max").join(bits).reset_index()
    return table.assign(name=table["method"].map(_style.short_label) + table["apart"])


def fair(table: pd.DataFrame) -> pd.DataFrame:
    """Without the points calibrated on the measured operand, where held-out ones exist."""
    held_out = table[table["calibration"] == "held_out"]
    both = table.set_index(SETTING).index.isin(held_out.set_index(SETTING).index)
    return table[~both | (table["calibration"] == "held_out")]


def timed(run: Run) -> pd.DataFrame:
    """One row per input and setting: `slowness` beside SGEMM, `fast` and `slow`, with B prepared
    where there is something to prepare; the rest are those of `points`."""
    seconds = _data.seconds(run, "rivals_time")
    prepared = seconds["b_prepared"].eq(True)
    once = ~seconds["method"].isin(seconds.loc[prepared, "method"])
    ratios = _data.speed_ratios(seconds[prepared | once])
    ratios = ratios.assign(apart=_data.apart(ratios))
    errors = fair(points(run)).set_index(SETTING)[["name", "error", "low", "high", "calibration"]]
    return errors.join(_data.slowness(ratios, SETTING), how="inner").reset_index()


def draw(run: Run) -> Figure:
    """One row per input: error against bits and, where the run has times, against time, whose
    dashed line is SGEMM's. The grey line joins the methods that no other beats; they are named at
    the right, in the order of their errors."""
    by_bits = fair(points(run)).rename(columns={"bits": "x"})
    sides = [by_bits[by_bits["x"] <= MOST_BITS]]
    titles = ["bits per element: codes, scales, factors"]
    try:
        by_time = timed(run).rename(columns={"slowness": "x"})
        sides.append(by_time[by_time["method"] != "sgemm"])  # exact: a line in the place of a point
        titles.append("time / time of SGEMM, B prepared")
    except NothingToDraw:
        pass  # a run of errors alone
    inputs = list(dict.fromkeys(by_bits["input"]))
    panels = [(name, side) for name in inputs for side in range(len(sides))]
    figure, axes = _style.wrapped(len(panels), 2, 2.1, 0.4)
    for axis, (name, side) in zip(axes, panels, strict=True):
        table = sides[side]
        shown = table[(table["input"] == name) & (table["error"] > 0)]
        label_front(axis, shown, legend=True)
        axis.set_title(run.title(name))
        if side:
            _style.log(axis, "x")
            axis.axvline(1, color="0.5", lw=0.8, ls="--", zorder=1)
        if axis.get_subplotspec().is_last_row():
            axis.set_xlabel(titles[side])
    figure.supylabel("relative error")
    errors = _data.errors(run, "rivals")
    usual = _data.setting(errors[_data.apart(errors) == ""])
    caption = f"{usual} where not said otherwise; lower left is better; bars: extremes of the seeds"
    figure.supxlabel(caption + hollow(pd.concat(sides)))
    _style.figure_legend(figure, axes)
    return figure


def hollow(table: pd.DataFrame) -> str:
    """The explanation of hollow points, if there are any."""
    itself = (table["calibration"] == "same").any()
    return "; hollow: calibrated on the measured operand itself" if itself else ""


def label_front(axis: Axes, points: pd.DataFrame, legend: bool = False) -> None:
    """Points (`x`, `error` from `low` to `high`, `method`, `name`, `calibration`) on one panel;
    those that no other beats have their names beside it. The few in `NAMED` have colours; the most
    exact of each has its name beside the panel too, or, for a `legend`, every setting has a fill
    and a label."""
    best = front(points.rename(columns={"x": "slowness"}))
    axis.plot(best["slowness"], best["error"], color="0.85", lw=3, zorder=0)
    _style.log(axis, "y")
    labels = []
    of_named = points[points["method"].isin(NAMED)]
    most_exact = of_named.groupby("method")["error"].idxmin()
    beside = best.index.difference(of_named.index) if legend else best.index.union(most_exact)
    fills = {  # of each method's settings, in their order
        name: fill
        for _, names in of_named.groupby("method")["name"]
        for name, fill in zip(names.unique(), itertools.cycle(FILLS), strict=False)
    }
    for point in points.itertuples():
        method, name = str(point.method), str(point.name)
        named = point.Index in beside
        large = named or (legend and method in NAMED)
        colour = _style.colour(method) if method in NAMED else "0.2" if named else "0.65"
        axis.errorbar(
            point.x, point.error, yerr=[[point.error - point.low], [point.high - point.error]],
            ls="", marker=_style.marker(method) if method in NAMED else "o", color=colour,
            ms=4.5 if large else 3, elinewidth=0.7, zorder=3 if large else 2,
            markerfacecolor="white" if point.calibration == "same" else None,
            markerfacecoloralt="white", fillstyle=fills[name] if legend and name in fills else None,
            label=name if legend and method in NAMED else None,
        )  # fmt: skip
        if named:
            labels.append((point.x, point.error, name, colour))
    _style.label_at_right(axis, labels)
