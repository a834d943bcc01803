"""Ablation: where the gain over the direct product comes from."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from lrqmm.figures import _data, _style
from lrqmm.run.read import Run

NEEDS = ("ablation",)


def draw(run: Run) -> Figure:
    """Upper: gain by method and rank. Lower: what terms and the ones column change at rank 1."""
    table = _data.ablation_gains(run)
    ranked = table[
        ((table["terms"] == "full") & (table["sketch"] == "ones+gaussian"))
        | (table["method"] == "mean_fix")
    ]
    ranks = " r=" + ranked["rank"].astype("string")
    names = ranked["method"].map(_style.short_label).astype("string")
    ranked = ranked.assign(column=(names + ranks.fillna("")))
    first_rank = table["rank"].min()
    parts = table[(table["method"] == "lrqmm") & (table["rank"] == first_rank)]
    parts = parts.assign(column=parts["terms"] + "\n" + parts["sketch"].str.replace("+", "+\n"))
    roundings = ["nearest", "truncate"]
    figure, axes = _style.panels(2, 2, 5, sharey=True)
    for column, rounding in enumerate(roundings):
        upper = ranked[(ranked["rounding"] == rounding) & (ranked["method"] != "direct")]
        _heat(run, axes[0, column], upper, f"{rounding}: by method and rank")
        lower = parts[parts["rounding"] == rounding]
        _heat(run, axes[1, column], lower, f"{rounding}: LRQMM r={first_rank}, by terms and sketch")
    n = "/".join(str(n) for n in sorted(table["n"].unique()))
    figure.suptitle(f"Error of direct / error of the method ({_data.setting(table)}, n = {n})")
    return figure


def _heat(run: Run, axis: Axes, table: pd.DataFrame, title: str) -> None:
    inputs, columns = list(dict.fromkeys(table["input"])), list(dict.fromkeys(table["column"]))
    cells = table.pivot_table(index="input", columns="column", values="gain", sort=False)
    cells = cells.reindex(index=inputs, columns=columns)
    text = cells.map(lambda x: "" if np.isnan(x) else (f"{x:.0f}" if x >= 10 else f"{x:.1f}"))
    sns.heatmap(
        cells, annot=text, fmt="", norm=LogNorm(1, 200), cmap="mako_r", cbar=False, ax=axis,
        linewidths=0.5, annot_kws={"fontsize": _style.SMALL},
    )  # fmt: skip
    axis.set_title(title)
    axis.set(xlabel="", ylabel="")
    axis.set_yticklabels([run.title(name) for name in inputs], rotation=0)
    axis.set_xticklabels(columns, rotation=0 if "\n" in columns[0] else 40, fontsize=_style.SMALL)
