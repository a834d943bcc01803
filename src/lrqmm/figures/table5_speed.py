"""Table 5: time of each method beside SGEMM and direct, with intervals and that run's error."""

from typing import Any

import numpy as np
import pandas as pd

from lrqmm._intervals import bootstrap
from lrqmm.figures import _data, _style
from lrqmm.run.read import Run

NEEDS = ("time or time_rivals or time_int4",)

EXPERIMENTS = ("time", "time_rivals", "time_int4")
SETTING = [
    "m", "k", "n", "library", "method", "execution", "b_prepared", "bits", "rank", "terms",
    "oversampling", "power_iterations", "factor_dtype",
]  # fmt: skip
SAME = ["shard", "setting", "m", "k", "n"]
AS_INT8 = " (as int8)"  # stored two per byte, multiplied one per byte
SHOWN = {
    "b_prepared": "B prepared",
    "oversampling": "p",
    "power_iterations": "q",
    "factor_dtype": "factors",
}


def tabulate(run: Run) -> pd.DataFrame:
    """One row per shape, method and setting.

    Ratios are medians over rounds of the time beside the other method's in the same round, with a
    bootstrap 95% interval; `direct` is compared with B prepared where the method has it prepared.
    The ceiling is the roofline: the time that the modelled operations take at the best GEMM rates
    of the same process, or the modelled bytes at its best copy bandwidth, whichever is longer.
    Drift is the last tenth of the samples over the first. A product as users call it looks for NaN
    in its operands and makes a fresh result; the other times leave both out.
    """
    every = _data.ok(run, *EXPERIMENTS)
    times = _data.seconds(run, *EXPERIMENTS)
    sgemm, direct = (_data.speed_ratios(times, name) for name in ("sgemm", "direct"))
    called = _data.called_ratios(run, *EXPERIMENTS)
    rows = []
    for setting, samples in _data.whole_products(times).groupby(SETTING, dropna=False, sort=False):
        first = samples.iloc[0]
        beside = _like(every, first, SAME)
        of_sgemm, of_direct, of_call = (
            _like(table, first, [*SAME, "b_prepared"]) for table in (sgemm, direct, called)
        )
        cpu = _like(beside, first, ["method", "b_prepared"])
        rows.append(
            {
                **dict(zip(SETTING, setting, strict=True)),
                **_times(samples["value"]),
                "CPU ms": 1e3 * _value(cpu, "cpu_seconds"),
                "times SGEMM's speed": _words(of_sgemm["ratio"], "{:.2f}"),
                "as called, ms": 1e3 * of_call["value"].median(),
                "as called, times SGEMM's speed": _words(of_call["ratio"], "{:.2f}"),
                "extra over direct": _words(100 / of_direct["ratio"] - 100, "{:+.0f}%"),
                "% of ceiling": _ceiling(beside, samples["value"].median()),
                "error": _value(beside, "relative_error"),
                "peak MB": _value(beside, "peak_bytes") / 1e6,
                "B's codes MB": _value(beside, "code_bytes") / 1e6,
                "unpacking ms": 1e3 * _value(beside, "unpack_seconds"),
                "samples": len(samples),
                "loaded": bool(samples["loaded"].any()),
            }
        )
    result = pd.DataFrame(rows).sort_values(["n", "m", "k"], kind="stable")
    if called.empty:
        result = result.drop(columns=[name for name in result if name.startswith("as called")])
    packed, bits = (result["bits"] <= 4).fillna(False), result["bits"].astype("string")
    result["bits"] = bits.mask(packed, bits + AS_INT8)
    title = "Table 5: time beside SGEMM and direct, and the error of the same run."
    return _data.titled(result.rename(columns=SHOWN), f"{title} {machine(run)}")


def machine(run: Run) -> str:
    """The machines of a run, in a sentence, with what decides their speed; ends with a period."""
    environment = run.environment
    each = environment.get("merged", {"": environment}).values()
    described = [
        ", ".join(filter(None, (one.get("machine"), *one.get("instruction_sets", ()))))
        + (f"; oneDNN {one['onednn']}" if "onednn" in one else "")
        for one in each
    ]
    return "; ".join(filter(None, described)) + "."


def _times(seconds: pd.Series) -> dict[str, Any]:
    tenth = max(1, len(seconds) // 10)
    ordered = seconds.to_numpy()
    return {
        "ms": 1e3 * seconds.median(),
        "5th": 1e3 * seconds.quantile(0.05),
        "95th": 1e3 * seconds.quantile(0.95),
        "drift": float(ordered[-tenth:].mean() / ordered[:tenth].mean()),
    }


def _like(table: pd.DataFrame, first: pd.Series, keys: list[str]) -> pd.DataFrame:
    """The rows that agree with one row in these columns."""
    return table[(table[keys] == first[keys]).all(axis=1)]


def _words(values: pd.Series, form: str) -> str | None:
    """Median and bootstrap interval; None where the baseline was not timed."""
    if values.empty:
        return None
    interval = bootstrap(lambda drawn: np.median(drawn, -1), values.to_numpy(float))
    low, high = (form.format(end) for end in interval)
    return f"{form.format(values.median())} [{low}, {high}]"


def _value(beside: pd.DataFrame, metric: str, phase: str | None = None) -> float:
    rows = beside[beside["metric"] == metric]
    rows = rows[rows["phase"] == phase] if phase else rows
    return float(rows["value"].median()) if len(rows) else float("nan")


def _ceiling(beside: pd.DataFrame, seconds: float) -> float:
    integer, floating, moving = (
        _value(beside, metric, "model") / _value(beside, rate)
        for metric, rate in (
            ("integer_operations", "integer_operations_per_second"),
            ("float_operations", "float_operations_per_second"),
            ("bytes", "copy_bytes_per_second"),
        )
    )
    return 100 * max(integer + floating, moving) / seconds


def text(run: Run) -> str:
    """The table for a terminal."""
    left_out = ["m", "k", "library", "terms", "factors", "drift", "B's codes MB", "unpacking ms"]
    result = tabulate(run).drop(columns=left_out)
    result["method"] = result["method"].map(_style.label)
    shown: str = (
        result.astype(object)
        .where(result.notna(), "")
        .to_string(index=False, float_format=lambda x: f"{x:.3g}")
    )
    return shown
