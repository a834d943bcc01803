"""The explorer: one page that shows the settings of one or several runs, from disk alone.

`page` puts the rows, the style, the script and Vega-Lite into one HTML file. Nothing is measured.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lrqmm import methods
from lrqmm._files import write_whole
from lrqmm.figures import _data, _style
from lrqmm.run.metrics import NETWORKS
from lrqmm.run.read import Run

SETTING = ["input", "layer", "m", "k", "n", "method", "parameters", "calibration"]
FILTERS = ["bits", "rank", "rounding"]
"""Parameters that the page filters by; the others are text."""
NETWORK = ["relative_error", "seconds_per_item", "average_bits"]
SCORES = [name for name, metric in NETWORKS.items() if metric.score]
FEW = ["direct", "mean_fix", "lrqmm", "lrqmm_aware", "two_slice", "sgemm", "bf16"]
"""Methods that are ticked when the page opens, with usual ones that were added to the library."""
WHOLE = "whole "
"""Prefix of networks' names among the inputs."""
DIGITS = 4


def rows(run: Run) -> pd.DataFrame:
    """One row per setting on an input.

    Returns
    -------
    DataFrame: input, layer, m, k, n, method, calibration, bits, rank, rounding, levels (of runs
    older than the parameter the method's default), `words` (the other parameters that are not the
    method's defaults), `error` with `error_low`, `error_high` and
    `seeds`, the number of distinct inputs; `ms` of a product and `ms_prepared` where B was
    prepared, each a median with `_low`, `_high` and `_loaded`, whether others used the machine
    during any of its samples; `each`, bits of an element of both operands. Of a whole network the
    input is its name, `data` what it was measured on, `error` that of its outputs, `ms` that of an
    item, and `score` its scores in words. Not measured is NaN.
    """
    wide = pd.concat([_products(run), _networks(run)], ignore_index=True)
    parameters = [json.loads(text) for text in wide["parameters"]]
    for name in FILTERS:
        wide[name] = [p.get(name) for p in parameters]
    usual = {method: _defaults(method).get("levels") for method in wide["method"].unique()}
    pairs = zip(wide["method"], parameters, strict=True)
    wide["levels"] = [p.get("levels", usual[method]) for method, p in pairs]
    wide["words"] = [_words(*each) for each in zip(wide["method"], parameters, strict=True)]
    return wide.drop(columns="parameters")


def _products(run: Run) -> pd.DataFrame:
    table = run.measurements
    table = table[(table["status"] == "ok") & table["phase"].fillna("model").eq("model")]
    errors, seconds, held = (
        table[table["metric"] == metric] for metric in ("relative_error", "seconds", "operand_bits")
    )
    parts = [_spread(errors, "error", 1.0).drop(columns="error_loaded")]
    for prepared, name in ((False, "ms"), (True, "ms_prepared")):
        of_kind = seconds["phase"].isna() & seconds["b_prepared"].fillna(False).eq(prepared)
        parts.append(_spread(seconds[of_kind], name, 1e3).drop(columns="seeds"))
    if len(held):
        each = held.assign(each=_data.element_bits(held)).groupby(SETTING, dropna=False)["each"]
        parts.append(each.median().to_frame())
    wide = pd.concat(parts, axis=1).reset_index()
    wide = wide[wide["error"].notna() | wide["ms"].notna() | wide["ms_prepared"].notna()]
    return wide.assign(data=None, score=None)


def _networks(run: Run) -> pd.DataFrame:
    table = run.networks
    table = table[(table["status"] == "ok") & table["layer"].isna()]
    key = ["network", "data", "method", "parameters", "calibration", "per_gemm", "ranks_within"]
    key += ["keep", "reference"]
    wide = table.groupby([*key, "metric"], dropna=False, observed=True)["value"].first()
    wide = wide.unstack("metric").reindex(columns=[*NETWORK, *SCORES])
    timed = table[table["metric"] == "seconds_per_item"].groupby(key, dropna=False, observed=True)
    wide["loaded"] = timed["loaded"].first().astype(float)
    wide = wide.reset_index()
    scores, data = [], []
    for row in wide.to_dict("records"):
        told = (name for name in SCORES if pd.notna(row[name]))
        scores.append(", ".join(f"{name} {row[name]:.4g}" for name in told))
        parts = [row["data"]] if pd.notna(row["data"]) else []
        parts.append(f"{row['per_gemm']} per GEMM")
        if pd.notna(row["ranks_within"]):
            parts.append(f"ranks within {row['ranks_within']} bits")
        if row["keep"]:
            parts.append(f"in float: {row['keep']}")
        data.append(", ".join(parts))
    return pd.DataFrame(
        {
            "input": WHOLE + wide["network"],
            **wide[["method", "parameters", "calibration"]],
            **dict.fromkeys(("error", "error_low", "error_high"), wide["relative_error"]),
            **dict.fromkeys(("ms", "ms_low", "ms_high"), 1e3 * wide["seconds_per_item"]),
            "ms_loaded": wide["loaded"],
            "each": wide["average_bits"],
            "data": data,
            "score": scores,
        }
    )


def _spread(table: pd.DataFrame, name: str, unit: float) -> pd.DataFrame:
    """Median, least and most of a metric by setting; whether on a loaded machine; of how many
    distinct inputs."""
    columns = [name, f"{name}_low", f"{name}_high", f"{name}_loaded", "seeds"]
    if table.empty:
        index = pd.MultiIndex.from_tuples([], names=SETTING)
        return pd.DataFrame(columns=columns, index=index, dtype=float)
    groups = table.groupby(SETTING, dropna=False, observed=True)
    spread = groups["value"].agg(["median", "min", "max"]) * unit
    spread["loaded"] = groups["loaded"].any().astype(float)
    spread["seeds"] = groups["input_sha256"].nunique()
    return spread.set_axis(columns, axis="columns")


def _words(method: str, parameters: dict[str, Any]) -> str:
    """The parameters that are not the method's defaults, but for `FILTERS` and the seed."""
    defaults = _defaults(method)
    return ", ".join(
        f"{name} {value}"
        for name, value in parameters.items()
        if name not in (*FILTERS, "seed") and value != defaults.get(name)
    )


def _defaults(method: str) -> dict[str, Any]:
    try:
        return methods.preset(method).defaults
    except ValueError:  # of other people's runs
        return {}


def page(runs: Sequence[Run]) -> str:
    """The whole page; a merged run is shown machine by machine."""
    import vl_convert

    machines = {}
    parts = []
    for run in runs:
        for machine in run.machines or [""]:
            part = run.on(machine) if len(run.machines) > 1 else run
            name = run.folder.name + (f", {machine}" if len(run.machines) > 1 else "")
            machines[name] = machine
            parts.append(rows(part).assign(run=name))
    table = pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
    names = sorted(set(table["method"]))
    new = {name for name in names if name not in _style.LOOKS and _style.is_usual(name)}
    data = {
        "runs": [{"name": run, "machine": machines[run]} for run in dict.fromkeys(table["run"])],
        "labels": {name: _style.label(name) for name in names},
        "short": {name: _style.short_label(name) for name in names},
        "colours": {name: _colour(name) for name in names},
        "inputs": {name: _input(name, runs) for name in sorted(set(table["input"]))},
        "order": _style.order(names),
        "usual": [name for name in names if name in {*FEW, *new}] or names,
        "columns": {name: _packed(table[name]) for name in table},
    }
    folder = files(__name__)
    fillings = {
        "title": html.escape(", ".join(run.folder.name for run in runs)),
        "style": folder.joinpath("style.css").read_text(),
        "data": json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
        "vega": _inside_script(vl_convert.javascript_bundle()),  # type: ignore[call-arg]
        "script": _inside_script(folder.joinpath("explorer.js").read_text()),
    }
    empty = folder.joinpath("page.html").read_text()
    return re.sub(r"\{\{(\w+)\}\}", lambda match: fillings[match[1]], empty)


def write(runs: Sequence[Run], path: Path) -> None:
    """Write the page atomically."""
    text = page(runs)
    with write_whole(path) as part:
        part.write_text(text)


def _inside_script(text: str) -> str:
    """JavaScript in which nothing ends the script that it stands in."""
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _input(name: str, runs: Sequence[Run]) -> str:
    network = name.removeprefix(WHOLE)
    title = next((run.titles[network] for run in runs if network in run.titles), network)
    return title if network == name else f"{title}, the whole network"


def _colour(method: str) -> str:
    """A method's colour; black is the text's, which a dark page shows."""
    from matplotlib.colors import to_hex

    colour = to_hex(_style.colour(method))
    return "currentColor" if colour == "#000000" else colour


def _packed(column: pd.Series[Any]) -> Any:
    """Numbers to `DIGITS` digits, null where there is none; words as a list of them and numbers."""
    if pd.api.types.is_numeric_dtype(column) or all(
        isinstance(x, int | float) for x in column.dropna()
    ):
        numbers = pd.to_numeric(column, errors="coerce").astype(float)
        return [
            None if not np.isfinite(x) else int(x) if x == int(x) else float(f"{x:.{DIGITS}g}")
            for x in numbers
        ]
    codes, values = pd.factorize(column.astype("string"))
    return {"values": list(values), "codes": [int(code) for code in codes]}
