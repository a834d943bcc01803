"""Table 7: the leaderboard of each workload at equal bits, with spread and time."""

import json
from contextlib import suppress

import pandas as pd

from lrqmm.figures import NothingToDraw, _data, _style, workload_llama
from lrqmm.run.metrics import PRODUCTS
from lrqmm.run.read import Run

NEEDS = ("features or images or neighbours or precoding or llama_weights",)
ALSO = ("features_time", "images_time", "neighbours_time", "precoding_time")

SCORES = [name for name, metric in PRODUCTS.items() if metric.score]
"""Metrics of workloads; the relative error where one has none."""
SETTING = ["case", "bits", "method", "setting"]
COLUMNS = {
    **{name: name for name in ("workload", "case", "bits", "place", "method", "setting")},
    "each_bits": "bits per element of B", "score": "score", "value": "value", "low": "least",
    "high": "most", "error": "relative error", "seeds": "seeds", "ms": "ms, B not prepared",
}  # fmt: skip
"""Columns in their order, and their titles."""


def tabulate(run: Run) -> pd.DataFrame:
    """One row per method and setting, ranked within its workload, case and bits."""
    parts = [_products(run, name) for name in _workloads(run)]
    with suppress(NothingToDraw):
        parts.append(_weights(run))
    if not parts:
        raise NothingToDraw("this run has no workloads")
    title = "relatives of LRQMM on the workloads that they were made for, ranked at equal bits"
    return _data.titled(pd.concat(parts, ignore_index=True), f"Table 7: {title}")


def _workloads(run: Run) -> list[str]:
    """The experiments on the cases and seeds of the workload that they are named after."""
    table = run.measurements
    cases = table["layer"].notna() & table["input_seed"].notna()
    return sorted(table.loc[cases & (table["input"] == table["experiment"]), "input"].unique())


def _products(run: Run, name: str) -> pd.DataFrame:
    """Of a workload whose products were measured: medians over seeds, and the extremes."""
    table = _data.settings(run, name)
    metric = next((score for score in SCORES if score in table), "relative_error")
    table = table.assign(case=table["layer"], setting=[_setting(p) for p in table["parameters"]])
    result = table.groupby(SETTING, dropna=False, sort=False).agg(
        each_bits=("each_bits", "median"),
        value=(metric, "median"),
        low=(metric, "min"),
        high=(metric, "max"),
        error=("relative_error", "median"),
        seeds=(metric, "size"),
    )
    result = result.reset_index()
    seconds = _seconds(run, name)
    result["ms"] = [seconds.get(key) for key in _keys(result)]
    return _ranked(result, run.title(name), metric, PRODUCTS[metric].better == "higher")


def _weights(run: Run) -> pd.DataFrame:
    """Of LLaMA's weights; the extremes are those of the 95% interval over tokens."""
    names = {"network": "case", "weight_bits": "each_bits", "perplexity": "value"}
    result = workload_llama.settings(run).rename(columns={**names, "relative_error": "error"})
    result["setting"] = [_setting(json.loads(text)) for text in result["parameters"]]
    return _ranked(result.assign(seeds=1, ms=None), "LLaMA's weights", "perplexity", False)


def _ranked(result: pd.DataFrame, title: str, metric: str, higher: bool) -> pd.DataFrame:
    """The table's rows; `higher` where higher values are better."""
    ranks = result.groupby(["case", "bits"], dropna=False)["value"]
    places = ranks.rank(method="min", ascending=not higher, na_option="top")  # exact: no PSNR
    result = result.assign(
        workload=title, score=metric.replace("_", " "), place=places.astype(int),
        method=result["method"].map(_style.label),
    )  # fmt: skip
    return result.sort_values(["case", "bits", "place"])[[*COLUMNS]].rename(columns=COLUMNS)


def _setting(parameters: dict[str, object]) -> str:
    """The parameters that tell settings of one method apart, in words."""
    told = ("bits_left", "bits_right", "rank", "gain", "condense", "beta")
    return ", ".join(f"{key}={parameters[key]}" for key in told if parameters.get(key) is not None)


def _seconds(run: Run, name: str) -> dict[tuple[object, ...], float]:
    """Median milliseconds by setting, where the run has them."""
    table = _data.ok(run, f"{name}_time")
    table = table[(table["metric"] == "seconds") & table["phase"].isna()]
    table = table[~table["b_prepared"].fillna(False).astype(bool)]
    text = [_setting(json.loads(parameters)) for parameters in table["parameters"]]
    table = table.assign(case=table["layer"], setting=text)
    medians = table.groupby(SETTING, dropna=False, observed=True)["value"].median().reset_index()
    return dict(zip(_keys(medians), 1e3 * medians["value"], strict=True))


def _keys(table: pd.DataFrame) -> list[tuple[object, ...]]:
    """The settings; no bits are None, which unlike NaN equals itself."""
    settings = table[SETTING].astype(object)
    return list(settings.where(settings.notna(), None).itertuples(index=False, name=None))
