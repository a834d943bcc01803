"""Figure 8: a network's error against time and against average bits."""

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrqmm.figures import NothingToDraw, _data, _style
from lrqmm.figures.table4_accuracy import SETTING
from lrqmm.run.read import Run

NEEDS = ("measure: network",)

ACROSS = {
    "average_bits": "average bits (codes, scales, factors)",
    "times_float_speed": "speed against the float network",
}
QUALITY = {"resnet50": ("agreement", "agreement with float"), "llama": ("perplexity", "perplexity")}
OTHERS = ("cosine", "cosine to float")


def draw(run: Run) -> Figure:
    """One row per network; filled markers up to 4 bits of weights, hollow ones above; float dashed.

    Rounding to nearest, one scale per vector or group, usual methods; the rest is in table 4 and
    the figure `rivals_networks`. Settings with a perplexity above 1000 are left out and counted in
    the title."""
    metrics = list(dict.fromkeys([*ACROSS, *(metric for metric, _ in (*QUALITY.values(), OTHERS))]))
    table = _data.networks(run, *metrics)
    table = _data.in_rounding(table, "nearest")
    table = table[table["method"].map(_style.is_usual)]
    if (table["method"] == "sgemm").all():
        raise NothingToDraw("this run has no usual methods in networks; see rivals_networks")
    table = table[~table["granularity"].eq("tensor").fillna(False)]
    table = table[table["per_gemm"] == table.groupby("network")["per_gemm"].transform("max")]
    setting = dict.fromkeys([*SETTING, *_data.NETWORK_SETTING])
    groups = table.groupby([*setting, "metric"], dropna=False, observed=True)
    by_metric = groups[["value", "low", "high"]].first().unstack("metric")
    wide = by_metric["value"].reindex(columns=metrics)
    for end in ("low", "high"):
        wide = wide.join(by_metric[end].reindex(columns=metrics).add_suffix(f" {end}"))
    wide = wide.reset_index()
    wide["method"] = wide["variant"].str.split(" |,").str[0]
    shown = _style.networks(table["network"])
    measured = {name: title for name, title in ACROSS.items() if wide[name].notna().any()}
    figure, axes = _style.panels(len(shown), len(measured), 2 * len(shown) + 0.6, sharey="row")
    for row, network in zip(axes, shown, strict=True):
        metric, title = QUALITY.get(network, OTHERS)
        settings = wide[(wide["network"] == network) & wide[metric].notna()]
        is_exact = settings["method"] == "sgemm"
        exact, settings = settings[is_exact], settings[~is_exact]
        seen = settings[settings[metric] <= 1000]
        for axis, (across, name) in zip(row, measured.items(), strict=True):
            if len(exact):
                _style.level(axis, "sgemm", exact[metric].iloc[0])
            for point in seen.to_dict("records"):
                _mark(axis, point, across, metric)
            axis.set_xlabel(name)
            if settings[across].isna().all():
                axis.text(0.5, 0.5, "not measured", ha="center", transform=axis.transAxes)
                axis.tick_params(labelbottom=False)
                continue
            if across == "times_float_speed":
                _style.log(axis, "x")
            if metric == "perplexity":
                _style.log(axis, "y")
        row[0].set_ylabel(title)
        left_out = len(settings) - len(seen)
        omitted = f"; {left_out} settings above 1000 not shown" if left_out else ""
        data = ", ".join(settings["data"].dropna().unique())
        row[0].set_title(f"{run.title(network)}, {data}{omitted}", loc="left")
    figure.supxlabel(
        "bars: 95% intervals; numbers: ranks, signed: levels; filled: up to 4 bits, hollow: more; "
        "ring: zero points"
    )
    _style.figure_legend(figure, axes.flat)
    return figure


def _mark(axis: Axes, point: Mapping[Hashable, Any], across: str, metric: str) -> None:
    method, bits, rank = point["method"], point["bits"], point["rank"]
    more = not pd.isna(bits) and bits > 4
    ends = [abs(point[f"{metric} {end}"] - point[metric]) for end in ("low", "high")]
    axis.errorbar(
        point[across], point[metric], yerr=[[end] for end in ends], ls="",
        **_style.bar_look(method, more),
    )  # fmt: skip
    if "zero point" in point["variant"]:
        axis.plot(
            point[across], point[metric], ls="", marker="o", ms=9, mfc="none", mew=0.6,
            color=_style.colour(method),
        )  # fmt: skip
    ranks = "" if pd.isna(rank) else f"{rank:g}"
    ranks = ranks if pd.isna(point["ranks_within"]) else "by layer"
    kind = "" if pd.isna(point["levels"]) or point["levels"] == "odd" else point["levels"]
    words = ", ".join(filter(None, (ranks, kind)))
    if words:
        axis.annotate(
            words, (point[across], point[metric]), xytext=(3, 3), fontsize=_style.SMALL,
            textcoords="offset points", color=_style.colour(method),
        )  # fmt: skip
