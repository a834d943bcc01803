"""Figure 5a: share of time of each phase of a compensated product."""

from itertools import cycle

from matplotlib.figure import Figure

from lrqmm.figures import _data, _style
from lrqmm.products.phases import PHASES
from lrqmm.run.read import Run

NEEDS = ("time",)

SHOWN = ("direct", "lrqmm", "lrqmm_aware")
TITLES = {
    "quantize": "quantise",
    "residual": "dequantise, residual",
    "sketch": "sketch and project",
    "factorize": "QR and SVD",
    "product": "integer product and scaling",
    "correct": "low-rank update",
    "other": "other",
    "transform": "transform",
}


def draw(run: Run) -> Figure:
    """One panel per method, one bar per size; medians over samples of each phase, shares of their
    sum."""
    table = _data.seconds(run, "time")
    table = table[table["phase"].notna() & table["method"].isin(SHOWN)]
    table = table[~table["b_prepared"].astype(bool)]
    table = table[~(table["power_iterations"] > 0).fillna(False)]
    shown = [method for method in SHOWN if method in set(table["method"])]
    figure, axes = _style.panels(1, len(shown), 2.5, sharey=True)
    every = [*PHASES, "other"]
    colours = dict(zip(every, cycle(_style.MUTED), strict=False))
    names = [phase for phase in every if phase in set(table["phase"])]
    for axis, method in zip(axes[0], shown, strict=True):
        of_method = table[table["method"] == method]
        medians = of_method.groupby(["n", "phase"])["value"].median().unstack(fill_value=0.0)
        shares = 100 * medians.div(medians.sum(axis=1), axis=0)
        bottom = 0 * shares.iloc[:, 0]
        ticks = [str(n) for n in shares.index]
        for phase in names:
            share = shares.get(phase, 0 * bottom)
            axis.bar(
                ticks, share, bottom=bottom, color=colours[phase], label=TITLES[phase], width=0.75
            )
            bottom = bottom + share
        axis.set_title(_style.label(method))
        axis.grid(axis="x", visible=False)
    axes[0, 0].set_ylabel("share of time (%)")
    first = table.iloc[0]
    figure.supxlabel(f"n   ({_data.setting(table)}; {first['machine']}, {first['library']})")
    _style.figure_legend(figure, axes.flat)
    return figure
