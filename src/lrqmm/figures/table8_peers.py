"""Table 8: ours beside products of other libraries: time, error, and whose version."""

import pandas as pd

from lrqmm.figures import _data
from lrqmm.figures.peers import EXPERIMENTS, FORMATS, points, with_names
from lrqmm.figures.table5_speed import machine
from lrqmm.run.read import Run

NEEDS = ("peers or peers_4bits",)
ALSO = ("peers_formats",)


def tabulate(run: Run) -> pd.DataFrame:
    """One row per number of bits, shape, method and parameters; a column of errors per input.

    Speeds are medians over the inputs of the medians over rounds, each beside SGEMM and `direct` in
    the same round, all weights made ready. One not installed is a row with the reason.
    """
    table = points(run)
    key = ["experiment", "shape", "name"]
    grouped = table.groupby(key, sort=False)
    errors = table.pivot_table(index=key, columns="input", values="error", sort=False)
    errors.columns = [f"error, {run.title(each)}" for each in errors.columns]
    result = errors.assign(
        sgemm=1 / grouped["slowness"].median(),
        direct=1 / grouped["beside_direct"].median(),
        versions=grouped["versions"].first(),
    ).reset_index()
    result = pd.concat([result, _formats(run), _refused(run)], ignore_index=True)
    result["experiment"] = result["experiment"].map({**EXPERIMENTS, FORMATS: "formats"})
    result = result.rename(
        columns={
            "experiment": "bits", "name": "method", "sgemm": "times SGEMM's speed",
            "direct": "times direct's speed",
        }
    )  # fmt: skip
    result.attrs["title"] = (
        "Table 8: ours and products of other libraries, in turns, weights made ready. "
        + machine(run)
    )
    return result


def _formats(run: Run) -> pd.DataFrame:
    """Errors of formats that a CPU only imitates."""
    rows = with_names(_data.ok(run, FORMATS))
    rows = rows[rows["metric"] == "relative_error"]
    key = ["experiment", "shape", "name"]
    errors = rows.pivot_table(index=key, columns="input", values="value", sort=False)
    errors.columns = [f"error, {run.title(each)}" for each in errors.columns]
    return errors.join(rows.groupby(key)["versions"].first()).reset_index()


def _refused(run: Run) -> pd.DataFrame:
    """Methods that could not run, and why."""
    rows = run.measurements
    rows = rows[rows["experiment"].isin(list(EXPERIMENTS)) & (rows["status"] != "ok")]
    rows = rows.drop_duplicates(["experiment", "method", "reason"])
    return rows[["experiment", "method", "reason"]].rename(columns={"method": "name"})
