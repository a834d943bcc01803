"""Table 7: the leaderboard of each workload at equal bits, with spread and time."""

from __future__ import annotations

import json

import pandas as pd

from lrqmm.bench.sources import list_workloads, workload
from lrqmm.figures import NothingToDraw, _data, _style, workload_llama
from lrqmm.run.read import Run

SCORES = {"psnr": True, "accuracy": True, "gram_error": False}
"""A workload's own metric, and whether more is better; the relative error where it has none."""
SETTING = ["case", "bits", "method", "setting"]


def tabulate(run: Run) -> pd.DataFrame:
    """A row a method and setting, ranked within its workload, case and bits."""
    parts = []
    for name in [*list_workloads(), workload_llama.EXPERIMENT]:
        try:
            weights = name == workload_llama.EXPERIMENT
            parts.append(_weights(run) if weights else _products(run, name))
        except NothingToDraw:
            continue
    if not parts:
        raise NothingToDraw(f"this run has no workloads: {', '.join(list_workloads())}, weights")
    made = pd.concat(parts, ignore_index=True)
    made.attrs["title"] = (
        "Table 7: relatives of LRQMM on the workloads that they were made for, ranked at equal bits"
    )
    return made


def _products(run: Run, name: str) -> pd.DataFrame:
    """Of a workload whose products were measured: medians over seeds, and the extremes."""
    table = _data.settings(run, name)
    metric = next((score for score in SCORES if score in table), "relative_error")
    table = table.assign(case=table["layer"], setting=[_setting(p) for p in table["parameters"]])
    made = table.groupby(SETTING, dropna=False, sort=False).agg(
        each_bits=("each_bits", "median"),
        value=(metric, "median"),
        low=(metric, "min"),
        high=(metric, "max"),
        error=("relative_error", "median"),
        seeds=(metric, "size"),
    )
    made = made.reset_index()
    seconds = _seconds(run, name)
    made["ms"] = [seconds.get(key) for key in _keys(made)]
    return _ranked(made, workload(name).title, metric, SCORES.get(metric, False))


def _weights(run: Run) -> pd.DataFrame:
    """Of LLaMA's weights; the extremes are those of the 95% interval over tokens."""
    made = workload_llama.settings(run).rename(
        columns={
            "network": "case",
            "weight_bits": "each_bits",
            "perplexity": "value",
            "relative_error": "error",
        }
    )
    made["setting"] = [_setting(json.loads(words)) for words in made["parameters"]]
    return _ranked(made.assign(seeds=1, ms=None), "LLaMA's weights", "perplexity", False)


def _ranked(made: pd.DataFrame, title: str, metric: str, better: bool) -> pd.DataFrame:
    """The table's rows; `better` where more is."""
    ranks = made.groupby(["case", "bits"], dropna=False)["value"]
    places = ranks.rank(method="min", ascending=not better, na_option="top")  # exact: no PSNR
    made["place"] = places.astype(int)
    made = made.sort_values(["case", "bits", "place"])
    return pd.DataFrame(
        {
            "workload": title,
            "case": made["case"],
            "bits": made["bits"],
            "place": made["place"],
            "method": [_style.label(method) for method in made["method"]],
            "setting": made["setting"],
            "bits an element of B": made["each_bits"],
            "score": metric.replace("_", " "),
            "value": made["value"],
            "least": made["low"],
            "most": made["high"],
            "relative error": made["error"],
            "seeds": made["seeds"],
            "ms, B not prepared": made["ms"],
        }
    )


def _setting(parameters: dict[str, object]) -> str:
    """The parameters that tell settings of one method apart, in words."""
    told = ("bits_left", "bits_right", "rank", "gain", "condense", "beta")
    return ", ".join(f"{key}={parameters[key]}" for key in told if parameters.get(key) is not None)


def _seconds(run: Run, name: str) -> dict[tuple[object, ...], float]:
    """Median milliseconds by setting, where the run has them."""
    table = _data.ok(run, f"{name}_time")
    table = table[(table["metric"] == "seconds") & table["phase"].isna()]
    table = table[~table["b_prepared"].fillna(False).astype(bool)]
    words = [_setting(json.loads(parameters)) for parameters in table["parameters"]]
    table = table.assign(case=table["layer"], setting=words)
    found = table.groupby(SETTING, dropna=False, observed=True)["value"].median().reset_index()
    return dict(zip(_keys(found), 1e3 * found["value"], strict=True))


def _keys(table: pd.DataFrame) -> list[tuple[object, ...]]:
    """The settings; no bits are None, which unlike NaN equals itself."""
    settings = table[SETTING].astype(object)
    return list(settings.where(settings.notna(), None).itertuples(index=False, name=None))
