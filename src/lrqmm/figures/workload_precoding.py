"""One-bit precoding: error of what users receive against the distance of the antennas."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from lrqmm.figures import _data, _style
from lrqmm.store import Run
from lrqmm.workloads.precoding import DISTANCES


def draw(run: Run) -> Figure:
    """A line a method; the band is the range over seeds."""
    table = _data.settings(run, "precoding")
    table = table.assign(distance=table["layer"].map(DISTANCES))
    figure, axis = plt.subplots(figsize=(_style.WIDTH / 2 + 0.6, 2.9))
    for method in _style.order(set(table["method"])):
        spread = table[table["method"] == method].groupby("distance")["relative_error"]
        axis.plot(
            spread.median(), color=_style.colour(method), marker=_style.marker(method),
            label=_style.label(method),
        )  # fmt: skip
        axis.fill_between(
            spread.min().index, spread.min(), spread.max(), color=_style.colour(method), alpha=0.15
        )
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(list(DISTANCES.values()), [f"1/{round(1 / d)}" for d in DISTANCES.values()])
    _style.plain_log(axis.yaxis)
    axis.set_xlabel("distance of antennas, wavelengths")
    axis.set_ylabel("relative error received")
    axis.legend()
    return figure
