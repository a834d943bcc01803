"""Table 4: networks on low-bit products: accuracy, error, bits, operations and time."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from lrqmm.figures import _data
from lrqmm.run.read import Run

SETTING = [
    "network", "reference", "data", "keep", "per_gemm", "bits", "bits_a", "rounding", "granularity",
    "zero_point", "zero_point_a", "variant", "rank", "ranks_within", "power_iterations", "sides",
    "execution", "calibration",
]  # fmt: skip


KEPT = ("network", "bits", "method", "rank")
"""Columns that are shown even where all rows are the same."""


def _percent(x: float) -> str:
    return f"{100 * x:.1f}%"


def _short(x: float) -> str:
    return f"{x:.3g}"


COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "top1": ("top-1", _percent),
    "top1_drop": ("below float", _percent),
    "top5": ("top-5", _percent),
    "agreement": ("agrees with float", _percent),
    "perplexity": ("perplexity", lambda x: f"{x:.2f}"),
    "cosine": ("cosine to float", lambda x: f"{x:.4f}"),
    "kl": ("KL (nats)", _short),
    "relative_error": ("error of outputs", _short),
    "moved_by_others": ("moved by others", _short),
    "average_bits": ("average bits", lambda x: f"{x:.2f}"),
    "integer_operations": ("integer Gop an item", lambda x: f"{x / 1e9:.3g}"),
    "float_operations": ("float Gop an item", lambda x: f"{x / 1e9:.3g}"),
    "seconds_per_item": ("s an item", _short),
    "times_float_speed": ("times float's speed", _short),
}
WITH_INTERVAL = ("top1", "top1_drop", "agreement", "perplexity", "cosine", "kl", "relative_error")


def tabulate(run: Run) -> pd.DataFrame:
    """A row a network, its data and setting; scores with 95% intervals.

    Intervals take items as independent: those over the tokens of one text are too narrow. 'Moved by
    others' is the relative change of the earlier half's outputs when the later half of the pictures
    of a GEMM, or of the tokens of a window, is replaced. What is the same in all rows is in the
    title. Average bits count codes, scales, zero
    points and factors of both operands of every layer.
    """
    table = _data.networks(run, *COLUMNS)
    rows = []
    for _, own in table.groupby(_data.NETWORK_SETTING, dropna=False, sort=False):
        row = {**own.iloc[0][SETTING], "items": own["items"].max()}
        for metric, (title, form) in COLUMNS.items():
            found = own[own["metric"] == metric]
            if len(found):
                first = found.iloc[0]
                row[title] = form(first["value"])
                if metric in WITH_INTERVAL and not pd.isna(first["low"]):
                    row[title] += f" [{form(first['low'])}, {form(first['high'])}]"
        rows.append(row)
    failed = _data.variants(run.networks[run.networks["status"] == "failed"])
    rows += [{**row[SETTING], "failed": row["reason"]} for _, row in failed.iterrows()]
    made = pd.DataFrame(rows)
    titles = [title for title, _ in [*COLUMNS.values(), ("failed", str)] if title in made]
    made = made[[*SETTING, "items", *titles]].rename(
        columns={
            "variant": "method",
            "power_iterations": "q",
            "per_gemm": "items a GEMM",
            "ranks_within": "ranks by layer within bits",
        }
    )
    made = made.dropna(axis="columns", how="all")
    same = [
        name for name in made.columns
        if name not in (*KEPT, *titles) and made[name].nunique(dropna=False) == 1
    ]  # fmt: skip
    words = [
        f"{name} {made[name].iloc[0]}"
        for name in same
        if made[name].iloc[0] not in ("", "same", "none")
    ]
    made.attrs["title"] = "; ".join(["Table 4: accuracy of networks on low-bit products", *words])
    return made.drop(columns=same)
