"""LLaMA's weights in few bits: perplexity after, and the error of each kind of layer."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrqmm.figures import NothingToDraw, _data, _style
from lrqmm.run.read import Run

NEEDS = ("llama_weights",)

EXPERIMENT = "llama_weights"
RUINED = 1000
"""A perplexity that leaves nothing of the model; beyond it settings are counted, not drawn."""


def settings(run: Run) -> pd.DataFrame:
    """One row per setting: `data`, `method`, `bits`, `weight_bits`, `relative_error` of the logits,
    and `perplexity` with its interval `low` and `high`."""
    table = _rows(run, "perplexity", "weight_bits", "relative_error")
    key = [*_data.NETWORK_SETTING, "method", "bits", "metric"]
    values = table.groupby(key, dropna=False, observed=True)[["value", "low", "high"]].first()
    wide = values.unstack("metric")
    ends = {end: wide[end, "perplexity"] for end in ("low", "high")}
    return wide["value"].assign(**ends).reset_index()


def draw(run: Run) -> Figure:
    """Left: perplexity against bits. Right: errors of layers, fed with float activations."""
    figure, ((left, right),) = _style.panels(1, 2, 2.8, width_ratios=(1, 1.2))
    _perplexity(run, left)
    _layers(right, _rows(run, "alone_error"))
    _style.figure_legend(figure, (left, right))
    return figure


def _rows(run: Run, *metrics: str) -> pd.DataFrame:
    table = _data.networks(run, *metrics)
    table = table[table["experiment"] == EXPERIMENT]
    if table.empty:
        raise NothingToDraw(f"this run lacks the experiment {EXPERIMENT}")
    return table


def _perplexity(run: Run, axis: Axes) -> None:
    table = settings(run)
    ruined = table["perplexity"] > RUINED
    for method, of_method in _style.by_method(table[~ruined].sort_values("weight_bits")):
        if method == "sgemm":
            _style.level(axis, method, of_method["perplexity"].iloc[0])
            continue
        by_bits = of_method.set_index("weight_bits")
        _style.line(axis, method, by_bits["perplexity"], by_bits["low"], by_bits["high"])
    _style.log(axis, "y")
    title = f"{run.title(table['network'].iloc[0])}, {table['data'].iloc[0]}"
    if ruined.any():
        title += f"\n{ruined.sum()} settings above {RUINED} not shown"
    axis.set_title(title)
    axis.set_xlabel("bits per weight: codes, scales, factors")
    axis.set_ylabel("perplexity")


def _layers(axis: Axes, table: pd.DataFrame) -> None:
    """Median over depth and the range, at 4 bits or the number nearest to it."""
    table = table[table["method"] != "sgemm"]
    table = table.join(_data.blocks(table["layer"])).dropna(subset=["block"])
    bits = min(table["bits"].unique(), key=lambda b: abs(b - 4))
    table = table[table["bits"] == bits]
    kinds = list(dict.fromkeys(table["kind"]))
    for method, rows in _style.by_method(table):
        _style.spread_line(axis, method, rows.groupby(rows["kind"].map(kinds.index))["value"])
    names = [kind.split(".")[-1].removesuffix("_proj") for kind in kinds]
    axis.set_xticks(range(len(kinds)), names)
    _style.log(axis, "y")
    axis.set_xlabel("kind of layer")
    axis.set_ylabel("error of a layer's output")
    axis.set_title(f"layers, {bits} bits per weight")
