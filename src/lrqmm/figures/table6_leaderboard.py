"""Table 6: the leaderboard of methods at four bits, ranked on each input."""

import pandas as pd

from lrqmm.figures import _data, _style
from lrqmm.figures.rivals import SETTING, fair, points
from lrqmm.run.read import Run

NEEDS = ("rivals",)

FLOATS = ("bf16", "bf16_f32", "bf16x3", "sgemm", "tf32", "tf32x3")
"""Products of floats, which have no rank here."""


def tabulate(run: Run) -> pd.DataFrame:
    """One row per setting of a method, by its mean rank over the inputs; errors are medians over
    seeds."""
    every = points(run)
    every = every[~every["method"].isin(FLOATS)]
    table = fair(every)
    table["rank"] = table.groupby("input")["error"].rank(method="min")
    _, *of_all = SETTING
    ranks = table.groupby(of_all)["rank"]
    errors = table.pivot_table(index=of_all, columns="input", values="error", sort=False)
    errors.columns = [f"error, {run.title(name)}" for name in errors.columns]
    result = errors.assign(
        bits=table.groupby(of_all)["bits"].first(),
        calibration=table.groupby(of_all)["calibration"].first(),
        rank=ranks.mean(),
        best=ranks.min(),
        worst=ranks.max(),
    ).sort_values(["rank", "bits"])
    table["spread"] = table["high"] / table["low"] - 1
    itself = every[every["calibration"] == "same"].set_index(SETTING)["error"]
    other = table[table["calibration"] == "held_out"].set_index(SETTING)["error"]
    if len(other):
        gain = 100 * (1 - itself / other).groupby(of_all).max()
        result["least error, calibrated on itself, %"] = -gain
    result["widest spread over seeds, %"] = 100 * table.groupby(of_all)["spread"].max()
    result = result.rename(
        columns={"bits": "bits per element", "rank": "mean rank", "best": "best rank",
                 "worst": "worst rank"}
    )  # fmt: skip
    result.insert(0, "method", [_style.label(name) + apart for name, apart in result.index])
    title = (
        "Table 6: every method at four bits where its name does not say others, ranked by error on "
        "each input, whatever its bits"
    )
    return _data.titled(result.reset_index(drop=True), title)
