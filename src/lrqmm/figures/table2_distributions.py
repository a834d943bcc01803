"""Table 2: error by distribution, bits, rounding and method."""

import pandas as pd

from lrqmm.figures import _data, _style
from lrqmm.run.read import Run

NEEDS = ("distributions",)

RANK = " r="


def tabulate(run: Run) -> pd.DataFrame:
    """One row per distribution, bits and rounding; medians over seeds, one column per method (and
    rank)."""
    table = _data.errors(run, "distributions")
    parts = []
    for rounding in sorted(table["rounding"].dropna().unique()):
        rounded = _data.in_rounding(table, rounding).assign(rounding=rounding)
        for bits in sorted(table["bits"].dropna().unique()):
            of_bits = rounded[(rounded["bits"] == bits) | rounded["bits"].isna()]
            parts.append(of_bits.assign(bits=bits))
    every = _data.variants(pd.concat(parts))
    several = every.groupby("method")["rank"].transform("nunique") > 1
    ranks = (RANK + every["rank"].astype("string")).where(several & every["rank"].notna(), "")
    every["variant"] = every["variant"].str.replace(", truncated", "") + ranks
    cells = every.pivot_table(
        index=["input", "bits", "rounding"], columns="variant", values="value", aggfunc="median",
        sort=False, observed=True,
    )  # fmt: skip
    spread = every.groupby(["input", "bits", "rounding", "variant"], sort=False)["value"]
    widest = (spread.max() / spread.min() - 1).groupby(["input", "bits", "rounding"]).max()
    methods = _style.order({_method(name) for name in cells.columns})

    def place(name: str) -> tuple[int, str, int]:
        variant, _, rank = name.partition(RANK)
        return methods.index(_method(name)), variant, int(rank or 0)

    order = sorted(cells.columns, key=place)
    result = cells[order].assign(**{"widest spread over seeds, %": 100 * widest}).reset_index()
    result.columns.name = None
    result["input"] = result["input"].map(run.title)
    seeds = max(every["input_seed"].nunique(), 1)
    return _data.titled(result, f"Table 2: relative error, medians over inputs ({seeds} seeds)")


def _method(variant: str) -> str:
    """The method of a column, without how its setting differs, and without its rank."""
    return variant.partition(RANK)[0].partition(" + ")[0]
