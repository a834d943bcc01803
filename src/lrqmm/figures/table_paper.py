"""The paper's claims beside what this run measured."""

import pandas as pd

from lrqmm.figures import NothingToDraw, _data
from lrqmm.run.read import Run

NEEDS = ("ablation or time or network: resnet50",)

UNVERIFIED = ("not measured in this run", "", "unverified")
BY_CONSTRUCTION = ("no method here is given calibration data", "by construction", "reproduced")


def tabulate(run: Run) -> pd.DataFrame:
    """One row per claim of the abstract (arXiv 2409.18772): its words, our figure, conditions,
    verdict.

    Verdicts follow from the measurements by the rules below, whatever the run.
    """
    claims = [
        ("error of direct quantised products falls by 1-2 orders of magnitude", _orders(run, None)),
        ("the same, where rounding is to nearest (our condition)", _orders(run, "nearest")),
        ("several times the accuracy of direct products", _several(run)),
        ("speed falls by only about 20% for larger sizes (we read: against direct)", _slower(run)),
        ("completely data-free", BY_CONSTRUCTION),
        ("ResNet-50 at 4 bits: 61.8% top-1 against 8.3% direct", _resnet50(run)),
    ]  # fmt: skip
    if all(answer == UNVERIFIED for _, answer in claims if answer != BY_CONSTRUCTION):
        raise NothingToDraw("this run measured nothing that the paper's abstract speaks of")
    result = pd.DataFrame(
        [(claim, *answer) for claim, answer in claims],
        columns=["claim of the paper", "ours", "conditions", "verdict"],
    )
    return _data.titled(result, "The paper's abstract, and what this run measured")


def _lrqmm_gains(run: Run) -> pd.DataFrame:
    try:
        table = _data.ablation_gains(run)
    except NothingToDraw:
        return pd.DataFrame(columns=["gain", "input", "rounding", "rank"])
    lrqmm = table[(table["method"] == "lrqmm") & (table["terms"] == "full")]
    return lrqmm[lrqmm["sketch"] == "ones+gaussian"]


def _orders(run: Run, rounding: str | None) -> tuple[str, str, str]:
    """A gain of 10 or more, at the best rank, by kind of data."""
    table = _lrqmm_gains(run)
    if rounding:
        table = table[table["rounding"] == rounding]
    if table.empty:
        return UNVERIFIED
    best = table.groupby("input")["gain"].max()
    reached = best[best >= 10].index
    ours = f"10 times or more on {len(reached)} of {len(best)} kinds of data"
    if len(reached):
        ours += f" ({', '.join(reached)})"
    ours += f"; gains {best.min():.3g} to {best.max():.3g}"
    conditions = f"best rank of {_listed(table['rank'])}, {_listed(table['rounding'])}"
    conditions += f", {_listed(table['bits'])} bits, n = {_listed(table['n'])}"
    return ours, conditions, _verdict(best >= 10)


def _several(run: Run) -> tuple[str, str, str]:
    """A gain of 2 or more, at the best rank, by kind of data and rounding."""
    table = _lrqmm_gains(run)
    if table.empty:
        return UNVERIFIED
    best = table.groupby(["input", "rounding"])["gain"].max()
    ours = (
        f"2 times or more in {(best >= 2).sum()} of {len(best)} cases; median {best.median():.3g}"
    )
    return ours, "kinds of data x rounding, best rank", _verdict(best >= 2)


def _verdict(held: pd.Series) -> str:
    """A claim without conditions is reproduced where it held in every case."""
    if held.all():
        return "reproduced"
    return "reproduced in part" if held.any() else "not reproduced"


def _slower(run: Run) -> tuple[str, str, str]:
    """Reproduced where LRQMM's median time is at most 1.25 times direct's at the largest size."""
    try:
        table = _data.seconds(run, "time")
    except NothingToDraw:
        return UNVERIFIED
    ratios = _data.speed_ratios(table, baseline="direct")
    lrqmm = ratios[(ratios["method"] == "lrqmm") & ~ratios["b_prepared"].astype(bool)]
    if lrqmm.empty:
        return UNVERIFIED
    lrqmm = lrqmm[lrqmm["n"] == lrqmm["n"].max()]
    extra = 100 * (1 / lrqmm["ratio"] - 1)
    low, high = extra.quantile(0.05), extra.quantile(0.95)
    first = lrqmm.iloc[0]
    setting = f"r={first['rank']}, {first['bits']} bits, p={first['oversampling']}"
    return (
        f"{extra.median():.0f}% more time than direct (5th to 95th percentile {low:.0f} to "
        f"{high:.0f}%)",
        f"n = {first['n']}, {setting}, q={first['power_iterations']}, {first['execution']} code, "
        f"{first['machine']}",
        "reproduced" if extra.median() <= 25 else "not reproduced",
    )


def _resnet50(run: Run) -> tuple[str, str, str]:
    """In part where the intervals of LRQMM's best rank and of direct lie apart: other data."""
    try:
        table = _data.networks(run, "top1")
    except NothingToDraw:
        return UNVERIFIED
    table = table[(table["network"] == "resnet50") & (table["bits"] == 4)]
    table = _data.plain(table)
    direct, lrqmm = (table[table["method"] == name] for name in ("direct", "lrqmm"))
    if direct.empty or lrqmm.empty:
        return UNVERIFIED
    best, plain = lrqmm.loc[lrqmm["value"].idxmax()], direct.loc[direct["value"].idxmax()]
    ours = (
        f"{100 * best['value']:.1f}% [{100 * best['low']:.1f}, {100 * best['high']:.1f}] "
        f"at rank {best['rank']} against {100 * plain['value']:.1f}% "
        f"[{100 * plain['low']:.1f}, {100 * plain['high']:.1f}] direct"
    )
    conditions = (
        f"{best['data']}, {best['rounding']}, {best['granularity']}, {best['per_gemm']} per GEMM"
    )
    apart = best["low"] > plain["high"]
    return ours, conditions, "reproduced in part" if apart else "not reproduced"


def _listed(values: pd.Series) -> str:
    return "/".join(str(value) for value in dict.fromkeys(values.dropna()))
