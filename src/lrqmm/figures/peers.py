"""Peers: ours and products of other libraries, error against time, weights made ready."""

import json

import pandas as pd
from matplotlib.figure import Figure

from lrqmm import methods
from lrqmm.figures import NothingToDraw, _data, _style
from lrqmm.run.read import Run

NEEDS = ("peers or peers_4bits",)

EXPERIMENTS = {"peers": "8 bits", "peers_4bits": "4 bits"}
FORMATS = "peers_formats"
KEY = ["experiment", "input", "m", "k", "n", "method", "parameters"]
OURS = ("direct", "lrqmm", "lrqmm_aware")
"""Methods with a colour."""
SHARED = ("bits", "rank", "execution", "oversampling", "power_iterations")
"""Parameters that an experiment sets for all."""

GRID = {"levels": "{}", "granularity": "{}", "bits_a": "A{}"}
"""Parameters of ours that names tell apart, in words."""


def points(run: Run) -> pd.DataFrame:
    """One row per experiment, input, shape, method and parameters: `slowness` beside SGEMM with
    `fast` and `slow`, `beside_direct`, `error`, `name`, `versions`."""
    times = _data.seconds(run, *EXPERIMENTS)
    table = _data.slowness(_data.speed_ratios(times), KEY)
    direct = _data.slowness(_data.speed_ratios(times, "direct"), KEY)["slowness"]
    rows = _data.ok(run, *EXPERIMENTS)
    errors = rows[rows["metric"] == "relative_error"].groupby(KEY, dropna=False)
    table = table.join(direct.rename("beside_direct")).join(
        errors["value"].median().rename("error")
    )
    table = table.join(errors["versions"].first()).reset_index()
    return with_names(table)


def with_names(table: pd.DataFrame) -> pd.DataFrame:
    """Rows with columns `name` and `shape`."""
    named = [name(*each) for each in zip(table["method"], table["parameters"], strict=True)]
    shapes = zip(table["m"], table["k"], table["n"], strict=True)
    return table.assign(name=named, shape=[f"{m} x {k} x {n}" for m, k, n in shapes])


def name(method: str, parameters: str) -> str:
    """A method's short title and its parameters that are not the usual; of ours, of `GRID`."""
    own = {key: value for key, value in json.loads(parameters).items() if key not in SHARED}
    try:
        recipe = methods.preset(method)
        usual, ours = recipe.defaults, not recipe.packages
    except ValueError:  # of another version
        usual, ours = {}, False
    changed = {
        key: value
        for key, value in own.items()
        if value != usual.get(key) and (key in GRID or not ours)
    }
    words = [GRID.get(key, f"{key}={{}}").format(value) for key, value in changed.items()]
    return " ".join([_style.short_label(method), *words])


def draw(run: Run) -> Figure:
    """One panel per number of bits and input, of the largest square product; dashed: SGEMM."""
    table = points(run)
    squares = table[(table["m"] == table["n"]) & (table["k"] == table["n"])]
    if squares.empty:
        raise NothingToDraw("this run has no square products of peers")
    size = squares["n"].max()
    table = squares[squares["n"] == size]
    kinds = [kind for kind in EXPERIMENTS if kind in set(table["experiment"])]
    inputs = list(dict.fromkeys(table["input"]))[:2]
    panels = [(kind, name) for kind in kinds for name in inputs]
    figure, axes = _style.wrapped(len(panels), 1, 2.1, 0.4)
    for axis, (kind, name) in zip(axes, panels, strict=True):
        panel = table[(table["experiment"] == kind) & (table["input"] == name)]
        labels = []
        for point in panel.itertuples():
            method = str(point.method)
            colour = _style.colour(method) if method in OURS else "0.35"
            axis.errorbar(
                point.slowness, point.error, ls="", color=colour, ms=4.5, elinewidth=0.7,
                xerr=[[point.slowness - point.fast], [point.slow - point.slowness]],
                marker=_style.marker(method) if method in OURS else "o",
            )  # fmt: skip
            labels.append((point.slowness, point.error, str(point.name), colour))
        axis.axvline(1, color="0.5", lw=0.8, ls="--", zorder=1)
        _style.log(axis, "x")
        _style.log(axis, "y")
        axis.set_title(f"{run.title(name)}, {EXPERIMENTS[kind]}")
        _style.label_at_right(axis, labels)
    axes[-1].set_xlabel(f"time / time of SGEMM, n = {size}, B prepared; lower left is better")
    figure.supylabel("relative error")
    return figure
