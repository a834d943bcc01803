"""Figure 7: error against depth: what each layer adds, and what has added up."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lrqmm.figures import NothingToDraw, _data, _style
from lrqmm.store import Run

TITLES = {"own_error": "own error", "accumulated_error": "accumulated error"}
MOST_BITS = 4


def draw(run: Run) -> Figure:
    """A row a network, a column a kind of error, layers in running order.

    Shown are settings of 4 bits in both operands, without variants, at the largest rank that every
    low-rank method was measured at, and the largest number of items a GEMM.
    """
    table = _data.networks(run, *TITLES)
    table = table[(table["bits"] == MOST_BITS) & table["bits_a"].fillna(MOST_BITS).eq(MOST_BITS)]
    table = table[(table["variant"] == table["method"]) & (table["granularity"] == "vector")]
    if table.empty:
        raise NothingToDraw("this run has no networks at 4 bits with a scale a vector")
    table = table[table["per_gemm"] == table.groupby("network")["per_gemm"].transform("max")]
    shown = list(dict.fromkeys(table["network"]))
    figure, axes = plt.subplots(
        len(shown), 2, figsize=(_style.WIDTH, 2.6 * len(shown) + 0.7), sharey="row", squeeze=False
    )
    for row, network in zip(axes, shown, strict=True):
        own = table[table["network"] == network]
        rank = _common_rank(own["method"], own["rank"])
        own = own[own["rank"].isna() | (own["rank"] == rank)]
        for axis, (metric, title) in zip(row, TITLES.items(), strict=True):
            here = own[own["metric"] == metric]
            for method in _style.order(here["method"].unique()):
                line = here[here["method"] == method].drop_duplicates("layer")["value"]
                axis.semilogy(
                    range(1, len(line) + 1), line, color=_style.colour(method),
                    label=_style.label(method), lw=1,
                )  # fmt: skip
            axis.set_title(f"{_style.input_label(network)}: {title}, rank {rank}", fontsize=8)
            axis.set_xlabel("layer")
        row[0].set_ylabel("relative error")
    _style.figure_legend(figure, axes.flat)
    return figure


def _common_rank(methods: pd.Series, ranks: pd.Series) -> int:
    """The largest rank that every method with a rank has."""
    by_method = [set(own) for _, own in ranks.dropna().groupby(methods)]
    return int(max(set.intersection(*by_method))) if by_method else 0
