"""Figure 5b: speed of quantised products against SGEMM, by size and method."""

import pandas as pd
from matplotlib.figure import Figure

from lrqmm.figures import _data, _style
from lrqmm.run.read import Run

NEEDS = ("time or time_rivals or time_plain",)

EXPERIMENTS = ("time", "time_rivals", "time_plain")


def draw(run: Run) -> Figure:
    """One panel per library, execution and bits; medians of the ratio, 5th to 95th percentile;
    dashed: as users call it, with a look for NaN and a fresh result."""
    core = _data.speed_ratios(_data.seconds(run, *EXPERIMENTS))
    called = _data.called_ratios(run, *EXPERIMENTS)
    ratios = pd.concat([core.assign(called=False), called.assign(called=True)])
    ratios = ratios[~ratios["b_prepared"].fillna(False).astype(bool)]
    ratios = ratios[ratios["method"] != "sgemm"]
    fused = (ratios["execution"] == "fused").fillna(False)
    fused = fused.groupby([ratios["library"], ratios["experiment"]]).transform("any")
    panel = ratios["library"] + fused.map({True: ", fast path", False: ", plain array code"})
    if ratios["bits"].nunique() > 1:
        panel += ", " + (ratios["bits"].astype("string") + " bits").fillna("float")
    table = _data.time_variants(ratios.assign(panel=panel))
    panels = list(dict.fromkeys(table["panel"]))
    figure, axes = _style.panels(1, len(panels), 2.8, sharey=True)
    for axis, panel in zip(axes[0], panels, strict=True):
        shown = table[table["panel"] == panel]
        for method, of_method in _style.by_method(shown):
            own = of_method[~(of_method["called"] & (of_method["variant"] != ""))]
            for (variant, called), rows in own.groupby(["variant", "called"], sort=False):
                _style.timed_line(
                    axis, method, rows.groupby("n")["ratio"], rows["loaded"].any(),
                    label=f"{_style.label(method)}{variant}{', as called' if called else ''}",
                    ls="--" if called else ":" if variant else "-",
                )  # fmt: skip
        _style.level(axis, "sgemm", 1)
        _style.log(axis, "x", shown["n"])
        if shown["n"].nunique() == 1:
            axis.set_xlim(shown["n"].iloc[0] / 2, shown["n"].iloc[0] * 2)
        _style.log(axis, "y")
        axis.set_title(panel)
    axes[0, 0].set_ylabel("speed against SGEMM (above 1: faster)")
    first = table.iloc[0]
    whole = "; dashed: whole calls of lrqmm.matmul" if table["called"].any() else ""
    figure.supxlabel(
        f"n   ({_data.setting(table)}; {first['machine']}{whole}; hollow: machine was loaded)"
    )
    _style.label_ends(axes.flat)
    return figure
