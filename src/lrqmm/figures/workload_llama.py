"""LLaMA's weights in few bits: perplexity after, and the error of each kind of layer."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrqmm.figures import NothingToDraw, _data, _style
from lrqmm.store import Run

EXPERIMENT = "llama_weights"
RUINED = 1000
"""A perplexity that leaves nothing of the model; beyond it settings are counted, not drawn."""


def settings(run: Run) -> pd.DataFrame:
    """One row a setting: `data`, `method`, `bits`, `weight_bits`, `relative_error` of the logits,
    and `perplexity` with its interval `low` and `high`."""
    table = _rows(run, "perplexity", "weight_bits", "relative_error")
    key = [*_data.NETWORK_SETTING, "method", "bits", "metric"]
    values = table.groupby(key, dropna=False, observed=True)[["value", "low", "high"]].first()
    wide = values.unstack("metric")
    found = wide["value"].assign(low=wide["low", "perplexity"], high=wide["high", "perplexity"])
    return found.reset_index()


def draw(run: Run) -> Figure:
    """Left: perplexity against bits. Right: errors of layers, fed with float activations."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(_style.WIDTH, 3.4), width_ratios=(1, 1.2))
    _perplexity(left, settings(run))
    _layers(right, _rows(run, "alone_error"))
    _style.figure_legend(figure, (left, right), 3)
    return figure


def _rows(run: Run, *metrics: str) -> pd.DataFrame:
    table = _data.networks(run, *metrics)
    table = table[table["experiment"] == EXPERIMENT]
    if table.empty:
        raise NothingToDraw(f"this run lacks the experiment {EXPERIMENT}")
    return table


def _perplexity(axis: Axes, table: pd.DataFrame) -> None:
    ruined = table["perplexity"] > RUINED
    for method in _style.order(table["method"].unique()):
        own = table[(table["method"] == method) & ~ruined].sort_values("weight_bits")
        if method == "sgemm":
            axis.axhline(
                own["perplexity"].iloc[0], color="black", ls=":", label=_style.label(method)
            )
            continue
        axis.plot(
            own["weight_bits"], own["perplexity"], color=_style.colour(method),
            marker=_style.marker(method), label=_style.label(method),
        )  # fmt: skip
    axis.set_yscale("log")
    _style.plain_log(axis.yaxis)
    if ruined.any():
        names = ", ".join(map(_style.label, _style.order(table.loc[ruined, "method"].unique())))
        words = f"{ruined.sum()} settings above {RUINED} not shown:\n{names}"
        axis.set_title(words, fontsize=7)
    axis.set_xlabel("bits a weight: codes, scales, factors")
    axis.set_ylabel("perplexity")


def _layers(axis: Axes, table: pd.DataFrame) -> None:
    """Median over depth and the range, at 4 bits or the number nearest to it."""
    table = table[table["method"] != "sgemm"]
    table = table.join(_data.blocks(table["layer"])).dropna(subset=["block"])
    bits = min(table["bits"].unique(), key=lambda b: abs(b - 4))
    table = table[table["bits"] == bits]
    kinds = list(dict.fromkeys(table["kind"]))
    for method in _style.order(table["method"].unique()):
        colour = _style.colour(method)
        errors = table[table["method"] == method].groupby("kind")["value"]
        spread = errors.agg(["median", "min", "max"]).reindex(kinds)
        axis.plot(
            kinds, spread["median"], color=colour, marker=_style.marker(method),
            label=_style.label(method),
        )  # fmt: skip
        axis.fill_between(kinds, spread["min"], spread["max"], color=colour, alpha=0.12)
    names = [kind.split(".")[-1].removesuffix("_proj") for kind in kinds]
    axis.set_xticks(range(len(kinds)), names)
    axis.set_yscale("log")
    axis.set_xlabel("kind of layer")
    axis.set_ylabel("relative error of a layer's output")
    axis.set_title(f"{bits} bits a weight", fontsize=9)
