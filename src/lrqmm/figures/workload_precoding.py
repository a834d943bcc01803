"""One-bit precoding: error of what users receive against the distance of the antennas."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from lrqmm.bench.sources.precoding import ANTENNAS, DISTANCES, USERS
from lrqmm.figures import _data, _style
from lrqmm.run.read import Run


def draw(run: Run) -> Figure:
    """A line a method; the band is the range over seeds."""
    table = _data.settings(run, "precoding")
    table = table.assign(distance=table["layer"].map(DISTANCES))
    figure, axis = plt.subplots(figsize=(_style.COLUMN, 2.3))
    for method in _style.order(set(table["method"])):
        own = table[table["method"] == method]
        _style.spread_line(axis, method, own.groupby("distance")["relative_error"])
    _style.log(axis, "y")
    _style.log(axis, "x")
    axis.set_xticks(list(DISTANCES.values()), [f"1/{round(1 / d)}" for d in DISTANCES.values()])
    axis.set_xlabel("distance of antennas, wavelengths")
    axis.set_ylabel("relative error received")
    axis.set_title(f"{ANTENNAS} antennas, {USERS} users, 1 bit an antenna")
    _style.label_ends([axis])
    return figure
