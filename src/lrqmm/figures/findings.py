"""Findings: where LRQMM's gain comes from, when it pays, when it does not, and what that rests on.

Every sentence and number follows from the run's measurements by the rules below, whatever the run.
"""

from collections.abc import Callable
from typing import Any

import pandas as pd

from lrqmm._files import sha256
from lrqmm.figures import NothingToDraw, _data, _style, pareto, rivals, rivals_networks
from lrqmm.figures._page import Page, Section
from lrqmm.run.folder import read_json
from lrqmm.run.metrics import TIMES
from lrqmm.run.read import Run

NEEDS = ("ablation or pareto or rivals or measure: network",)

OURS = ("lrqmm", "lrqmm_aware")
LESS = 0.1
"""The share of an error that LRQMM must remove before its gain is compared with a mean fix's."""
AS_GOOD = 0.05
"""An error that is larger by at most this share counts as equally good."""
CASE = ["input", "n", "bits", "rounding"]
CALIBRATED = {"held_out": " (calibrated)", "same": " (calibrated on itself)"}


def compose(run: Run) -> Page:
    """The page; NothingToDraw where the run has none of the experiments behind it."""
    sections, missing = [], []
    try:
        sections.append(_origin(run))
    except NothingToDraw as reason:
        missing.append(str(reason))
    table, reasons = contests(run)
    missing += reasons
    if len(table):
        sections += _use(table)
    if not sections:
        raise NothingToDraw("; ".join(missing))
    if missing:
        text = " ".join(f"{reason[0].upper()}{reason[1:]}." for reason in missing)
        sections.append(Section("Not measured", text))
    return Page(f"Findings of {run.folder.name}", [*sections, _provenance(run)])


def origin(run: Run) -> pd.DataFrame:
    """One row per case of the ablation: the setting of most gain of LRQMM, product-aware LRQMM and
    a mean fix (columns `gain`, `least_gain`, `largest_gain`, `rank`, `seeds` by method), and
    `part`: of what LRQMM removes of direct's error the part that a mean fix removes too."""
    table, methods = _data.ablation_gains(run), [*OURS, "mean_fix"]
    table = table[table["method"].isin(methods)]
    if table.empty:
        raise NothingToDraw("this run has no low-rank method or mean fix in the ablation")
    best = table.loc[table.groupby([*CASE, "method"], sort=False)["gain"].idxmax()]
    values = ["gain", "least_gain", "largest_gain", "rank", "seeds"]
    wide = best.pivot(index=CASE, columns="method", values=values)
    wide = wide.reindex(list(dict.fromkeys(best[CASE].itertuples(index=False, name=None))))
    wide = wide.reindex(columns=pd.MultiIndex.from_product([values, methods]))
    removed = 1 - 1 / wide["gain"].astype(float)
    wide["part", ""] = (removed["mean_fix"] / removed["lrqmm"]).where(removed["lrqmm"] >= LESS)
    return wide


def _origin(run: Run) -> Section:
    cases = origin(run)
    gain = cases["gain"].astype(float)
    won = 1 / gain["lrqmm"] <= 1 - LESS
    text = (
        f"In {won.sum()} of {len(cases)} cases (a kind of data and a rounding) LRQMM's error is "
        f"at least {LESS:.0%} below direct's. "
    )
    if gain["mean_fix"].notna().any():
        same = cases["part", ""] >= 1 - AS_GOOD
        text += (
            f"In {same.sum()} of these a mean fix, which needs no SVD, wins at least "
            f"{1 - AS_GOOD:.0%} of what LRQMM wins; over 100% it wins more. "
        )
    if gain["lrqmm_aware"].notna().any():
        more = gain["lrqmm_aware"] >= gain[["lrqmm", "mean_fix"]].max(axis=1) / (1 - LESS)
        text += (
            f"In {more.sum()} cases product-aware LRQMM's error is at least {LESS:.0%} below that "
            "of LRQMM and of the mean fix. "
        )
    text += (
        "A gain is direct's error over the method's, median [least, largest] of the seeds (here "
        f"{cases['seeds'].max(axis=None)}); each method is at its best setting. The experiment is "
        f"the ablation: {_data.setting(_data.errors(run, 'ablation'))}."
    )
    rows = []
    for (data, n, bits, rounding), row in cases.iterrows():
        gains = {f"gain, {_style.short_label(m)}": _gain(row.xs(m, level=1)) for m in gain}
        part = row["part", ""]
        rows.append({
            "data": f"{run.title(data)}, n = {n}, {bits} bits",
            "rounding": rounding,
            **gains,
            "of LRQMM's, a mean fix wins": "" if pd.isna(part) else f"{part:.0%}",
        })  # fmt: skip
    return Section("Where the gain comes from", text, pd.DataFrame(rows))


def _gain(of_one: pd.Series) -> str:
    if pd.isna(of_one["gain"]):
        return "not measured"
    rank = "" if pd.isna(of_one["rank"]) else f", r={of_one['rank']}"
    ends = f"[{of_one['least_gain']:.3g}, {of_one['largest_gain']:.3g}]"
    return f"{of_one['gain']:.3g} {ends}{rank}"


def contests(run: Run) -> tuple[pd.DataFrame, list[str]]:
    """One row per setting in a contest: `price` (what is compared beside the error), `where`,
    `name`, `method`, `ours`, `x` (the price), `error` with `low` and `high`, `calibration`; and the
    reasons why a price was not measured."""
    tables, missing = [], []
    for price, points in PRICES.items():
        try:
            tables.append(points(run).assign(price=price))
        except NothingToDraw as reason:
            missing.append(str(reason))
    if not tables:
        return pd.DataFrame(), missing
    table = pd.concat(tables, ignore_index=True)
    table["name"] += table["calibration"].map(CALIBRATED).fillna("")
    table["ours"] = [any(part in OURS for part in name.split("+")) for name in table["method"]]
    return table.dropna(subset=["x", "error"]), missing


def _product(run: Run, table: pd.DataFrame, x: str) -> pd.DataFrame:
    return table.assign(where=table["input"].map(run.title), x=table[x])


def _pareto(run: Run) -> pd.DataFrame:
    table = pareto.points(run)
    names = table["method"].map(_style.short_label)
    named = _product(run, table.assign(calibration="none", name=names), "slowness")
    bits = table["bits"].astype("string")
    return named.assign(
        where=named["where"] + ", n = " + table["n"].astype("string"),
        name=named["name"].where(bits.isna(), named["name"] + ", " + bits + " bits"),
    )


def _network(run: Run, price: str) -> pd.DataFrame:
    table = rivals_networks.points(run, price)
    return table.assign(where=table["network"].map(run.title) + ", " + table["data"])


def _network_times(run: Run) -> pd.DataFrame:
    """With the float network, which every error and speed is measured against."""
    table = _network(run, "times_float_speed")
    table["x"] = 1 / table["x"]
    exact = table.drop_duplicates("where")[["where"]]
    exact = exact.assign(name="float network", method="sgemm", x=1.0, error=0.0, low=0.0, high=0.0)
    return pd.concat([table, exact], ignore_index=True)


PRICES: dict[str, Callable[[Run], pd.DataFrame]] = {
    "bits per element": lambda run: _product(run, rivals.fair(rivals.points(run)), "bits"),
    "time, B prepared / SGEMM's": lambda run: _product(run, rivals.timed(run), "slowness"),
    "time / SGEMM's": _pareto,
    "average bits of the network": lambda run: _network(run, "average_bits"),
    "time / float network's": _network_times,
}
"""The prices that methods are compared by, and the points of each."""


def verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """Of `contests`: the settings of ours, of an error below 1, beside which there is a rival that
    costs no more. Columns `rival_...` are those of the most exact of these, or, where one is as
    good, of the cheapest such; `wins` where none is as good; `first` where no setting of all is as
    cheap and as exact."""
    rows = []
    for _, contest in table.groupby(["price", "where"], sort=False):
        for _, point in contest[contest["ours"] & (contest["error"] < 1)].iterrows():
            rival = contest[~contest["ours"] & (contest["x"] <= point["x"])]
            if rival.empty:
                continue
            as_good = rival[rival["error"] <= (1 + AS_GOOD) * point["error"]]
            best = rival["error"].idxmin() if as_good.empty else as_good["x"].idxmin()
            others = contest.drop(point.name)
            beaten = (others["x"] <= point["x"]) & (others["error"] <= point["error"])
            beside = rival.loc[best].add_prefix("rival_")
            rows.append({**point, **beside, "wins": as_good.empty, "first": not beaten.any()})
    return pd.DataFrame(rows)


def _use(table: pd.DataFrame) -> list[Section]:
    compared = verdicts(table)
    useless = (table["ours"] & (table["error"] >= 1)).sum()
    left_out = f" Left out for an error of 1 or more: {useless}."
    if compared.empty:
        text = "No setting of LRQMM stands beside a rival that costs no more." + left_out
        return [Section("When to use it", text)]
    won = compared[compared["wins"] & compared["first"]]
    plain = compared[compared["method"].isin(OURS)]
    lost = plain[~plain["wins"]]
    places = compared.groupby(["price", "where"]).ngroups
    count = won["method"].value_counts()
    compositions = (~won["method"].isin(OURS)).sum()
    use = (
        f"Comparisons, each of one kind of data or network at one price, bits or time: {places}. "
        f"In {won.groupby(['price', 'where']).ngroups} of them LRQMM, product-aware LRQMM or a "
        "composition with one of them has the least error of all that cost no more, and the error "
        f"of every rival that costs no more is over {AS_GOOD:.0%} larger. Of these settings LRQMM "
        f"alone has {count.get('lrqmm', 0)}, product-aware LRQMM alone "
        f"{count.get('lrqmm_aware', 0)}, compositions {compositions}. Errors are medians [least, "
        "largest] of the seeds, of networks values [95% interval]." + left_out
    )
    avoid = (
        f"In {len(lost)} of {len(plain)} settings LRQMM or product-aware LRQMM alone meets a rival "
        f"that costs no more and whose error is smaller or at most {AS_GOOD:.0%} larger. The "
        "cheapest such rival is beside it. Compositions are left out."
    )
    return [
        Section("When to use it", use, _beside(won, "least error of rivals at no more")),
        Section("When not", avoid, _beside(lost, "as good at no more")),
    ]


def _beside(compared: pd.DataFrame, title: str) -> pd.DataFrame | None:
    if compared.empty:
        return None
    rows = [
        {
            "data": row["where"],
            "compared by": row["price"],
            "method": row["name"],
            "price": f"{row['x']:.3g}",
            "error": _spread(row),
            title: row["rival_name"],
            "its price": f"{row['rival_x']:.3g}",
            "its error": _spread(row, "rival_"),
            "its error over the method's": f"{row['rival_error'] / row['error']:.3g}",
        }
        for _, row in compared.iterrows()
    ]
    return pd.DataFrame(rows)


def _spread(row: pd.Series, prefix: str = "") -> str:
    error, low, high = (row[prefix + name] for name in ("error", "low", "high"))
    return f"{error:.3g}" if low == high else f"{error:.3g} [{low:.3g}, {high:.3g}]"


def _provenance(run: Run) -> Section:
    """What `environment.json`, `manifest.json` and the rows themselves record."""
    rows = pd.concat([run.measurements, run.networks], ignore_index=True)
    statuses = rows["status"].value_counts()
    timed = rows[rows["metric"].isin(TIMES) & (rows["status"] == "ok")]
    facts = {
        "machine": "; ".join(run.machines),
        "measured": f"{rows['measured_at'].min()} to {rows['measured_at'].max()}",
        "commit": ", ".join(sorted(rows["git_commit"].unique())),
        "files that were not committed": "yes" if rows["git_dirty"].any() else "no",
        "values": ", ".join(f"{count} {status}" for status, count in statuses.items()),
        "times taken while the machine was loaded": f"{timed['loaded'].sum()} of {len(timed)}",
        "threads of times": _words(sorted(timed["threads"].dropna().unique())),
    }
    manifest = run.folder / "manifest.json"
    if manifest.exists():
        facts["files"] = f"{len(read_json(manifest)['files'])} listed in manifest.json"
        facts["SHA-256 of manifest.json"] = sha256(manifest)
    merged = run.environment.get("merged", {"": run.environment})
    for source, record in merged.items():
        before = f"{source}: " if source else ""
        facts |= {
            before + key.replace("_", " "): _words(value)
            for key, value in record.items()
            if key not in ("machine", "git_commit", "git_dirty")
        }
    table = pd.DataFrame(facts.items(), columns=["what", "recorded"])
    text = (
        "As recorded when the run was measured: in each value's row, in environment.json and in "
        "manifest.json of its folder. Times hold for this machine."
    )
    return Section("Environment and provenance", text, table)


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {part}" for key, part in value.items() if part is not None)
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "not recorded" if value is None else str(value)
