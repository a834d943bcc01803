"""Rivals in networks: error of the output against average bits, every method that was measured."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lrqmm.figures import NothingToDraw, _data, _style
from lrqmm.figures.rivals import MOST_BITS, label_front
from lrqmm.store import Run


def points(run: Run) -> pd.DataFrame:
    """One row a setting of a network at up to four bits, to nearest: `x` (average bits), `error`
    (relative, of the outputs), `calibration`, `network`, `data` and `name`: method and rank."""
    table = _data.networks(run, "average_bits", "relative_error")
    table = _data.in_rounding(table, "nearest")
    table = table[table["layer"].isna() & ~(table["bits"] > 4).fillna(False)]
    table = table[table["per_gemm"] == table.groupby("network")["per_gemm"].transform("max")]
    key = [*_data.NETWORK_SETTING, "method", "rank", "calibration"]
    wide = table.groupby([*key, "metric"], dropna=False, observed=True)["value"].first()
    wide = wide.unstack("metric").dropna().reset_index()
    wide = wide.rename(columns={"average_bits": "x", "relative_error": "error"})
    ranked = wide["rank"].notna()
    rank = wide["rank"].astype("string").fillna("")
    by_layer = wide["ranks_within"].notna()
    short = wide["method"].map(_style.short_label)
    wide["name"] = short.where(~ranked, short + " r=" + rank).where(~by_layer, short + " by layer")
    wide["calibration"] = wide["calibration"].fillna("none")  # of runs older than the column
    return wide[(wide["x"] <= MOST_BITS + 2) & (wide["error"] > 0)]


def draw(run: Run) -> Figure:
    """A panel a network; the line joins the settings that no other beats in bits and error."""
    table = points(run)
    if table.empty:
        raise NothingToDraw("this run has no networks at up to four bits")
    shown = _style.networks(table["network"])
    figure, axes = plt.subplots(
        len(shown), 1, figsize=(_style.WIDTH - 1.5, 2.9 * len(shown)), squeeze=False
    )
    for axis, network in zip(axes.flat, shown, strict=True):
        own = table[table["network"] == network]
        label_front(axis, own)
        items = ", ".join(dict.fromkeys(own["data"]))
        axis.set_title(f"{_style.input_label(network)}: {items}", fontsize=9)
        axis.set_ylabel("error of the outputs")
    axes[-1, 0].set_xlabel("average bits: codes, scales, factors", fontsize=8)
    if (table["calibration"] == "same").any():
        figure.supxlabel("hollow: calibrated on the measured operand itself", fontsize=8)
    return figure
