"""Figure 7: error against depth: what each layer adds, and what has added up."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lrqmm.figures import NothingToDraw, _data, _style
from lrqmm.run.metrics import NETWORKS
from lrqmm.run.read import Run

NEEDS = ("measure: network",)

ERRORS = ("own_error", "accumulated_error")
BITS = 4


def draw(run: Run) -> Figure:
    """One row per network, one column per kind of error, layers in running order.

    Shown are the settings of `_data.usual` at 4 bits. Of networks made of blocks a point is the
    geometric mean over a block's layers.
    """
    table = _data.networks(run, *ERRORS)
    table = _data.usual(table[table["bits"] == BITS])
    if table.empty:
        raise NothingToDraw("this run has no networks at 4 bits with one scale per vector")
    table = table.join(_data.blocks(table["layer"]))
    shown = _style.networks(table["network"])
    figure, axes = _style.panels(len(shown), 2, 1.95 * len(shown) + 0.4, sharey="row")
    for row, network in zip(axes, shown, strict=True):
        of_network = table[table["network"] == network]
        in_blocks = bool(of_network["block"].notna().any())
        for axis, metric in zip(row, ERRORS, strict=True):
            panel = of_network[of_network["metric"] == metric]
            for method, rows in _style.by_method(panel):
                line = _by_depth(rows, in_blocks)
                axis.plot(
                    range(1, len(line) + 1), line, color=_style.colour(method),
                    label=_style.label(method), lw=1,
                )  # fmt: skip
            bits = f"{BITS} bits{_data.rank(of_network)}"
            axis.set_title(f"{run.title(network)}, {bits}: {NETWORKS[metric].title}")
            unit = "block" if in_blocks else "layer"
            axis.set_xlabel(f"{unit}, {of_network['data'].iloc[0]}")
            _style.log(axis, "y")
        row[0].set_ylabel("relative error")
    _style.figure_legend(figure, axes.flat)
    return figure


def _by_depth(table: pd.DataFrame, in_blocks: bool) -> pd.Series:
    """Errors by layer, or their geometric means by block; layers outside of blocks left out."""
    layers = table.drop_duplicates("layer")
    if not in_blocks:
        return layers["value"]
    logarithms = np.log(layers["value"]).groupby(layers["block"])
    return np.exp(logarithms.mean())
