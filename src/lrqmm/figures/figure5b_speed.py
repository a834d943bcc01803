"""Figure 5b: speed of quantised products against SGEMM, by size and method."""

from matplotlib.figure import Figure

from lrqmm.figures import _data, _style
from lrqmm.run.read import Run

NEEDS = ("time or time_rivals or time_plain",)

EXPERIMENTS = ("time", "time_rivals", "time_plain")


def draw(run: Run) -> Figure:
    """One panel per library, execution and bits; medians of the ratio, 5th to 95th percentile."""
    ratios = _data.speed_ratios(_data.seconds(run, *EXPERIMENTS))
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
            for variant, rows in of_method.groupby("variant", sort=False):
                _style.timed_line(
                    axis, method, rows.groupby("n")["ratio"], rows["loaded"].any(),
                    label=_style.label(method) + str(variant), ls=":" if variant else "-",
                )  # fmt: skip
        _style.level(axis, "sgemm", 1)
        _style.log(axis, "x", shown["n"])
        if shown["n"].nunique() == 1:
            axis.set_xlim(shown["n"].iloc[0] / 2, shown["n"].iloc[0] * 2)
        _style.log(axis, "y")
        axis.set_title(panel)
    axes[0, 0].set_ylabel("speed against SGEMM (above 1: faster)")
    first = table.iloc[0]
    figure.supxlabel(
        f"n   ({_data.setting(table)}; {first['machine']}; hollow: machine was loaded)"
    )
    _style.label_ends(axes.flat)
    return figure
