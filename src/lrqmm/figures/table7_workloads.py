"""Table 7: the leaderboard of each workload at equal bits, with spread and time."""

from __future__ import annotations

import json

import pandas as pd

from lrqmm.figures import NothingToDraw, _data, _style
from lrqmm.store import Run
from lrqmm.workloads import list_workloads, workload

SCORES = {"psnr": True, "accuracy": True, "gram_error": False}
"""A workload's own metric, and whether more is better; the relative error where it has none."""


def tabulate(run: Run) -> pd.DataFrame:
    """A row a method and setting, ranked within its workload, case and bits."""
    parts = []
    for name in list_workloads():
        try:
            parts.append(_ranked(run, name))
        except NothingToDraw:
            continue
    if not parts:
        raise NothingToDraw(f"this run has no workloads: {', '.join(list_workloads())}")
    made = pd.concat(parts, ignore_index=True)
    made.attrs["title"] = (
        "Table 7: relatives of LRQMM on the workloads that they were made for, ranked at equal bits"
    )
    return made


def _ranked(run: Run, name: str) -> pd.DataFrame:
    table = _data.settings(run, name)
    metric = next((score for score in SCORES if score in table), "relative_error")
    table = table.assign(words=[_setting(p) for p in table["parameters"]])
    key = ["layer", "bits", "method", "words"]
    grouped = table.groupby(key, dropna=False, sort=False)
    made = grouped.agg(
        each_bits=("each_bits", "median"),
        score=(metric, "median"),
        low=(metric, "min"),
        high=(metric, "max"),
        error=("relative_error", "median"),
        seeds=(metric, "size"),
    ).reset_index()
    better = SCORES.get(metric, False)
    ranks = made.groupby(["layer", "bits"], dropna=False)["score"]
    places = ranks.rank(method="min", ascending=not better, na_option="top")  # exact: no PSNR
    made["place"] = places.astype(int)
    made = made.sort_values(["layer", "bits", "place"])
    seconds = _seconds(run, name)
    return pd.DataFrame(
        {
            "workload": workload(name).title,
            "case": made["layer"],
            "bits": made["bits"],
            "place": made["place"],
            "method": [_style.label(method) for method in made["method"]],
            "setting": made["words"],
            "bits an element of B": made["each_bits"],
            "score": metric.replace("_", " "),
            "value": made["score"],
            "least over seeds": made["low"],
            "most over seeds": made["high"],
            "relative error": made["error"],
            "seeds": made["seeds"],
            "ms, B not prepared": [
                seconds.get(setting)
                for setting in made[["layer", "bits", "method", "words"]].itertuples(index=False)
            ],
        }
    )


def _setting(parameters: dict[str, object]) -> str:
    """The parameters that tell settings of one method apart, in words."""
    told = ("bits_left", "bits_right", "rank", "gain", "condense", "beta")
    return ", ".join(f"{key}={parameters[key]}" for key in told if parameters.get(key) is not None)


def _seconds(run: Run, name: str) -> dict[tuple[object, ...], float]:
    """Median milliseconds by case, bits, method and setting, where the run has them."""
    table = _data.ok(run, f"{name}_time")
    table = table[(table["metric"] == "seconds") & table["phase"].isna()]
    table = table[~table["b_prepared"].fillna(False).astype(bool)]
    words = [_setting(json.loads(parameters)) for parameters in table["parameters"]]
    key = ["layer", "bits", "method", "words"]
    found = 1e3 * table.assign(words=words).groupby(key, observed=True)["value"].median()
    return {tuple(setting): float(ms) for setting, ms in found.items()}
