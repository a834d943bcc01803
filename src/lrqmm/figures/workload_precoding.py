"""One-bit precoding: error of what users receive against the distance of the antennas."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from lrqmm.figures import _data, _style
from lrqmm.run.read import Run

NEEDS = ("precoding",)

DISTANCES = {"sixteenth": 1 / 16, "eighth": 1 / 8, "quarter": 1 / 4, "half": 1 / 2}
"""The cases: the distance of the antennas in wavelengths."""


def draw(run: Run) -> Figure:
    """One line per method; the band is the range over seeds."""
    table = _data.settings(run, "precoding")
    table = table.assign(distance=table["layer"].map(DISTANCES))
    figure, axis = plt.subplots(figsize=(_style.COLUMN, 2.3))
    for method, rows in _style.by_method(table):
        _style.spread_line(axis, method, rows.groupby("distance")["relative_error"])
    _style.log(axis, "y")
    _style.log(axis, "x")
    axis.set_xticks(list(DISTANCES.values()), [f"1/{round(1 / d)}" for d in DISTANCES.values()])
    axis.set_xlabel("distance of antennas, wavelengths")
    axis.set_ylabel("relative error received")
    antennas, users = table["k"].iloc[0] // 2, table["m"].iloc[0] // 2  # complex numbers
    axis.set_title(f"{antennas} antennas, {users} users, 1 bit an antenna")
    _style.label_ends([axis])
    return figure
