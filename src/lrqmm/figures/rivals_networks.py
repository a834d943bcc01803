"""Rivals in networks: error of the output against average bits, every method that was measured."""

import pandas as pd
from matplotlib.figure import Figure

from lrqmm.figures import NothingToDraw, _data, _style
from lrqmm.figures.rivals import hollow, label_front
from lrqmm.run.read import Run

NEEDS = ("measure: network",)


def points(run: Run, price: str = "average_bits") -> pd.DataFrame:
    """One row per setting of a network at up to four bits, to nearest, one scale per vector or
    group: `x` (bits, or the price asked for), `error` (relative, of the outputs) with its interval
    `low` and `high`, `calibration`, `network`, `data` and `name`: the method and what sets it
    apart."""
    table = _data.networks(run, price, "relative_error")
    table = _data.in_rounding(table, "nearest")
    table = table[table["layer"].isna() & ~(table["bits"] > 4).fillna(False)]
    table = table[~table["granularity"].eq("tensor").fillna(False)]
    table = table[table["per_gemm"] == table.groupby("network")["per_gemm"].transform("max")]
    key = [*_data.NETWORK_SETTING, "method", "variant", "bits", "bits_a", "levels", "rank", "sides"]
    groups = table.groupby([*key, "calibration", "metric"], dropna=False, observed=True)
    by_metric = groups[["value", "low", "high"]].first().unstack("metric")
    wide = by_metric["value"].reindex(columns=[price, "relative_error"]).dropna()
    if wide.empty:
        title = price.replace("_", " ")
        raise NothingToDraw(f"this run has no {title} and errors of networks at up to four bits")
    wide = wide.rename(columns={price: "x", "relative_error": "error"})
    wide = wide.assign(**{end: by_metric[end]["relative_error"] for end in ("low", "high")})
    wide = wide.reset_index()
    wide["name"] = _names(wide)
    wide["calibration"] = wide["calibration"].fillna("none")  # of runs older than the column
    return wide[wide["error"] > 0]


def _names(table: pd.DataFrame) -> pd.Series:
    """The method, its rank, bits of the left operand where they differ, its levels if they are not
    the usual odd number, zero points where the same setting has none too."""
    short = table["method"].map(_style.short_label).astype("string")
    ranked = short.where(table["rank"].isna(), short + " r=" + table["rank"].astype("string"))
    names = ranked.where(table["ranks_within"].isna(), short + " by layer")
    other = (table["bits_a"] != table["bits"]).fillna(False)
    names = names.mask(other, names + ", left " + table["bits_a"].astype("string") + " bits")
    names = names.mask(table["sides"].eq("b").fillna(False), names + ", weights only")
    kinds = table["levels"].fillna("odd")
    names = names.where(kinds == "odd", names + ", " + kinds + " levels")
    twice = table.assign(name=names).duplicated(["network", "data", "name"], keep=False)
    return names.mask(twice & table["variant"].str.contains("zero point"), names + ", zero point")


def draw(run: Run) -> Figure:
    """One panel per network; the line joins the settings that no other beats in bits and error."""
    table = points(run)
    shown = _style.networks(table["network"])
    figure, axes = _style.panels(len(shown), 1, 2.3 * len(shown) + 0.2)
    for axis, network in zip(axes.flat, shown, strict=True):
        of_network = table[table["network"] == network]
        label_front(axis, of_network)
        items = ", ".join(dict.fromkeys(of_network["data"]))
        axis.set_title(f"{run.title(network)}, {items}")
        axis.set_ylabel("error of the outputs")
    axes[-1, 0].set_xlabel("average bits: codes, scales, factors")
    figure.supxlabel("operands at up to 4 bits, to nearest; bars: 95% intervals" + hollow(table))
    return figure
