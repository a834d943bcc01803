"""What figures take from a run: the rows of experiments; NothingToDraw names what is missing."""

import json

import pandas as pd

from lrqmm.figures import NothingToDraw
from lrqmm.run.read import Run
from lrqmm.run.schema import PARAMETERS


def errors(run: Run, experiment: str) -> pd.DataFrame:
    """Rows of relative error of an experiment, failures and unsupported settings left out."""
    return values(run, "relative_error", experiment)


def seconds(run: Run, *experiments: str) -> pd.DataFrame:
    """Rows of time of experiments: every sample, whole products (`phase` null) and phases."""
    return values(run, "seconds", *experiments)


def values(run: Run, metric: str, *experiments: str) -> pd.DataFrame:
    """Rows of one metric of experiments."""
    table = ok(run, *experiments)
    table = table[table["metric"] == metric]
    if table.empty:
        named = " or ".join(f"'{name}'" for name in experiments)
        raise NothingToDraw(f"this run has no {metric.replace('_', ' ')} of the experiment {named}")
    return table.copy()


def ok(run: Run, *experiments: str) -> pd.DataFrame:
    """Every value of experiments."""
    table = run.measurements
    return table[table["experiment"].isin(experiments) & (table["status"] == "ok")]


def settings(run: Run, *experiments: str) -> pd.DataFrame:
    """One row per setting on an input: what identifies it, `parameters` as a dict and those of the
    schema as columns, one column per metric (medians), and `each_bits`, those of B's elements."""
    table = ok(run, *experiments)
    table = table[table["phase"].isna() | table["phase"].eq("model")]
    if table.empty:
        raise NothingToDraw(f"this run lacks the experiment {' and '.join(experiments)}")
    key = ["shard", "machine", "input", "layer", "input_seed", "calibration", "setting", "method"]
    key += ["parameters", "m", "k", "n"]
    wide = table.groupby([*key, "metric"], dropna=False, observed=True)["value"].median()
    wide = wide.unstack("metric").reset_index()
    parameters = [json.loads(text) for text in wide["parameters"]]
    absent = [column for column in PARAMETERS if column not in wide]
    wide = wide.assign(
        parameters=pd.Series(parameters, wide.index, dtype=object),
        **{name: [p.get(name) for p in parameters] for name in absent},
    )
    if "right_bits" in wide:
        wide["each_bits"] = wide["right_bits"] / (wide["k"] * wide["n"])
    return wide


def networks(run: Run, *metrics: str) -> pd.DataFrame:
    """Rows of scores of whole networks, with a column `variant` as `variants` makes it."""
    table = run.networks
    failed = table[table["status"] == "failed"]
    table = table[(table["status"] == "ok") & table["metric"].isin(metrics)]
    if table.empty:
        lacking = ", ".join(metric.replace("_", " ") for metric in metrics)
        if len(failed):
            lacking += f"; {len(failed)} failed, the first: {failed['reason'].iloc[0]}"
        raise NothingToDraw(f"this run has no scores of networks (measure: network): {lacking}")
    return variants(table)


NETWORK_SETTING = [
    "shard", "parameters", "ranks_within", "per_gemm", "network", "reference", "data",
]  # fmt: skip
"""Columns that identify a setting of a network: a shard has each of its settings once."""


def blocks(layers: pd.Series) -> pd.DataFrame:
    """Columns `block` and `kind` of layers' names: of 'model.layers.3.mlp.up_proj' the number and
    what follows it; null and the whole name where a name has no number."""
    parts = layers.str.extract(r"\.(?P<block>\d+)\.(?P<kind>.*)$")
    kind = parts["kind"].fillna(layers)
    return pd.DataFrame({"block": parts["block"].astype("Int64"), "kind": kind})


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of networks without extras: one scale per vector, no variant, the same bits in both
    operands, one rank for all layers, both operands compensated, no layer kept in float, and of
    each network the largest number of items per GEMM and the first weights and data."""
    same_bits = table["bits_a"].isna() | (table["bits_a"] == table["bits"])
    table = table[(table["variant"] == table["method"]) & same_bits]
    table = table[table["granularity"].fillna("vector").eq("vector")]
    table = table[table["ranks_within"].isna() & table["sides"].fillna("ab").eq("ab")]
    table = table[table["keep"] == ""]
    for column, of_all in (("per_gemm", "max"), ("reference", "first"), ("data", "first")):
        table = table[table[column] == table.groupby("network")[column].transform(of_all)]
    return table


def usual(table: pd.DataFrame) -> pd.DataFrame:
    """`plain` rows at the largest rank that every low-rank method of that network and number of
    bits was measured at; the first setting of each method."""
    table = plain(table)
    parts = []
    for _, group in table.groupby(["network", "bits"], dropna=False, sort=False):
        ranks = [set(of_one) for _, of_one in group["rank"].dropna().groupby(group["method"])]
        common = set.intersection(*ranks) if ranks else set()
        group = group[group["rank"].isna() | group["rank"].isin(sorted(common)[-1:])]
        setting = group["shard"] + group["parameters"]
        parts.append(group[setting == setting.groupby(group["method"]).transform("first")])
    return pd.concat(parts) if parts else table


def arrays(run: Run, experiment: str) -> pd.DataFrame:
    """The small matrices of an experiment."""
    table = run.arrays[run.arrays["experiment"] == experiment]
    if table.empty:
        raise NothingToDraw(f"this run has no matrices of the experiment '{experiment}'")
    once = [name for name in table if name not in ("value", "input_sha256")]
    return table.drop_duplicates(once)  # a merged run has them from each machine


def titled(table: pd.DataFrame, title: str) -> pd.DataFrame:
    """The table with its title, which pages show."""
    table.attrs["title"] = title
    return table


def matrix(table: pd.DataFrame) -> pd.DataFrame:
    """Rows (row, column, value) as a matrix."""
    return table.pivot(index="row", columns="column", values="value")


def element_bits(held: pd.DataFrame) -> pd.Series:
    """Bits of an element of both operands, of rows of operand_bits."""
    rows = held["rows"].fillna(held["m"])
    return held["value"] / (rows * held["k"] + held["k"] * held["n"])


def in_rounding(table: pd.DataFrame, rounding: str) -> pd.DataFrame:
    """Rows with this rounding, and those of methods that have none or their own."""
    return table[(table["rounding"] == rounding) | table["rounding"].isna()]


def setting(table: pd.DataFrame) -> str:
    """The bits and ranks that occur in a table, as text."""
    return ", ".join(
        f"{before}{'/'.join(f'{x:g}' for x in sorted(table[name].dropna().unique()))}{after}"
        for before, name, after in (("", "bits", " bits"), ("rank ", "rank", ""))
        if table[name].notna().any()
    )


def rank(table: pd.DataFrame) -> str:
    """The largest rank in a table, as text; nothing where no method has one."""
    largest = table["rank"].max()
    return "" if pd.isna(largest) else f", rank {largest:g}"


def whole_products(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of whole products of the shards' own methods, phases and baselines left out."""
    products = table[table["phase"].isna()]
    return products[products["shard"].str.split("-").str[1] == products["method"]]


def speed_ratios(table: pd.DataFrame, baseline: str = "sgemm") -> pd.DataFrame:
    """Time of the baseline over time of the method, round by round of the same shard.

    Methods run in turns, so sample i of both met the same pace of the machine. A baseline that
    prepares B is compared with the method's rows of the same kind. Columns: those of the method's
    rows, and `ratio`.
    """
    products = table[table["phase"].isna()]
    same_process = ["shard", "machine", "measured_at"]  # merged runs have a shard several times
    same_round = [*same_process, "setting", "input", "input_seed", "m", "k", "n", "sample"]
    if baseline != "sgemm":
        same_round.append("b_prepared")
    base = products[products["method"] == baseline][[*same_round, "value"]]
    joined = whole_products(table).merge(base, on=same_round, suffixes=("", "_baseline"))
    return joined.assign(ratio=joined["value_baseline"] / joined["value"])


def called_ratios(run: Run, *experiments: str) -> pd.DataFrame:
    """As `speed_ratios`, of products as users call them: time of SGEMM over that of the whole call.
    Empty where the run has none."""
    table = ok(run, *experiments)
    called = table["metric"] == "call_seconds"
    sgemm = (table["metric"] == "seconds") & (table["method"] == "sgemm")
    return speed_ratios(table[called | sgemm]).query("metric == 'call_seconds'")


def slowness(ratios: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    """Of rows of `speed_ratios`, by key: `slowness`, the median of the method's time over the
    baseline's, and its 5th and 95th percentile `fast` and `slow`."""
    grouped = (1 / ratios.set_index(key)["ratio"]).groupby(key, dropna=False, sort=False)
    ends = {"fast": grouped.quantile(0.05), "slow": grouped.quantile(0.95)}
    return pd.DataFrame({"slowness": grouped.median(), **ends})


def variants(table: pd.DataFrame) -> pd.DataFrame:
    """Rows with a column `variant`: the method, and how its setting differs from the usual."""
    of_left = table["zero_point_a"].fillna("none").isin(("integer", "float"))
    with_one = table["zero_point"].notna() | of_left
    zero_point = with_one.map({True: " + zero point", False: ""})
    truncated = (table["rounding"] == "truncate").fillna(False)
    truncated = truncated.map({True: ", truncated", False: ""})
    kinds = table["levels"].fillna("odd")
    levels = (" + " + kinds + " levels").where(kinds != "odd", "")
    return table.assign(variant=table["method"] + zero_point + levels + truncated)


def apart(table: pd.DataFrame) -> pd.Series:
    """Of each row, in words, how its setting differs from the first one of its method in the table:
    ', signed levels'; of the first ones an empty text."""
    first: dict[tuple[str, str], object] = {}
    words: dict[tuple[str, str], str] = {}
    ordered = table.sort_values("setting", kind="stable")
    for method, text in ordered[["method", "parameters"]].drop_duplicates().itertuples(index=False):
        words[method, text] = "".join(
            f", {_in_words(name, value)}"
            for name, value in json.loads(text).items()
            if value != first.setdefault((method, name), value)  # older runs lack parameters
        )
    pairs = zip(table["method"], table["parameters"], strict=True)
    return pd.Series([words[pair] for pair in pairs], table.index, dtype="string")


def _in_words(name: str, value: object) -> str:
    """A parameter and its value: '8 bits', 'groups of 128', 'signed levels', 'scale rule floor'."""
    if name == "granularity" and str(value).startswith("group:"):
        return f"groups of {str(value).partition(':')[2]}"
    if name in ("bits", "levels"):
        return f"{value} {name}"
    return f"{name.replace('_', ' ')} {value}"


def time_variants(table: pd.DataFrame) -> pd.DataFrame:
    """Rows with a column `variant`: ', q=1' and ', r=16' where a method was timed with several
    numbers of power iterations or ranks in a panel."""
    variant = pd.Series("", index=table.index, dtype="string")
    for name, sign in (("power_iterations", "q"), ("rank", "r")):
        several = table.groupby(["panel", "method"])[name].transform("nunique") > 1
        named = several & (table[name] > 0).fillna(False)
        variant += (f", {sign}=" + table[name].astype("string")).where(named, "")
    return table.assign(variant=variant)


def ablation_gains(run: Run) -> pd.DataFrame:
    """Medians over seeds of error and gain: direct's error over the method's, same input."""
    table = errors(run, "ablation")
    setting = ["method", "terms", "rank", "sketch"]
    same = ["input", "n", "input_seed", "rounding", "bits"]
    direct = table[table["method"] == "direct"][[*same, "value"]]
    joined = table.merge(direct, on=same, suffixes=("", "_direct"))
    joined = joined.assign(gain=joined["value_direct"] / joined["value"])
    grouped = joined.groupby(["input", "n", "bits", "rounding", *setting], dropna=False, sort=False)
    return grouped.agg(
        error=("value", "median"),
        gain=("gain", "median"),
        least_gain=("gain", "min"),
        largest_gain=("gain", "max"),
        seeds=("gain", "size"),
    ).reset_index()
