"""Table 4: networks on low-bit products: accuracy, error, bits, operations and time."""

import pandas as pd

from lrqmm.figures import _data
from lrqmm.run.metrics import NETWORKS
from lrqmm.run.read import Run

NEEDS = ("measure: network",)

SETTING = [
    "network", "reference", "data", "keep", "per_gemm", "bits", "bits_a", "rounding", "granularity",
    "levels", "zero_point", "zero_point_a", "variant", "rank", "ranks_within", "power_iterations",
    "sides", "execution", "calibration",
]  # fmt: skip

ALWAYS_SHOWN = ("network", "bits", "method", "rank")
"""Columns that are shown even where all rows are the same."""

COLUMNS = [metric for metric in NETWORKS.values() if not metric.detail]


def tabulate(run: Run) -> pd.DataFrame:
    """One row per network, its data and setting; scores with 95% intervals.

    Intervals take items as independent: those over the tokens of one text are too narrow. 'Moved by
    others' is the relative change of the earlier half's outputs when the later half of the pictures
    of a GEMM, or of the tokens of a window, is replaced. What is the same in all rows is in the
    title. Average bits count codes, scales, zero points and factors of both operands of every
    layer.
    """
    table = _data.networks(run, *(metric.name for metric in COLUMNS))
    rows = []
    for _, setting in table.groupby(_data.NETWORK_SETTING, dropna=False, sort=False):
        row = {**setting.iloc[0][SETTING], "items": setting["items"].max()}
        for metric in COLUMNS:
            values = setting[setting["metric"] == metric.name]
            if len(values):
                first = values.iloc[0]
                row[metric.title] = metric.text(first["value"])
                if metric.interval and not pd.isna(first["low"]):
                    ends = metric.text(first["low"]), metric.text(first["high"])
                    row[metric.title] += f" [{ends[0]}, {ends[1]}]"
        rows.append(row)
    failed = _data.variants(run.networks[run.networks["status"] == "failed"])
    rows += [{**row[SETTING], "failed": row["reason"]} for _, row in failed.iterrows()]
    result = pd.DataFrame(rows)
    titles = [title for title in [*(m.title for m in COLUMNS), "failed"] if title in result]
    result = result[[*SETTING, "items", *titles]].rename(
        columns={
            "variant": "method",
            "power_iterations": "q",
            "per_gemm": "items per GEMM",
            "ranks_within": "ranks by layer within bits",
        }
    )
    result = result.dropna(axis="columns", how="all")
    same = [
        name for name in result.columns
        if name not in (*ALWAYS_SHOWN, *titles) and result[name].nunique(dropna=False) == 1
    ]  # fmt: skip
    constants = [
        f"{name} {result[name].iloc[0]}"
        for name in same
        if result[name].iloc[0] not in ("", "same", "none")
    ]
    title = "; ".join(["Table 4: accuracy of networks on low-bit products", *constants])
    return _data.titled(result.drop(columns=same), title)
