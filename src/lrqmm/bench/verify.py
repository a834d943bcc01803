"""Check a run folder as the checker of a submission would: `lrqmm verify RUN`.

A refusal is something that no honest run has; a warning is something that a reader should know.
"""

import io
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lrqmm import methods
from lrqmm._progress import Report, silent
from lrqmm.bench.environment import code_hash
from lrqmm.bench.measures import read_shard
from lrqmm.bench.progress import output
from lrqmm.bench.sources.distributions import DISTRIBUTIONS, write_sample
from lrqmm.bench.study import ConfigError, Shard, plan, without_meaningless
from lrqmm.run.folder import KEPT, StoreError, read_json
from lrqmm.run.metrics import NETWORKS
from lrqmm.run.read import Run, read_run
from lrqmm.run.schema import INPUT, TABLES

ABOVE_CEILING = 2.0
"""How far above the measured ceiling of its machine a rate may lie: the ceiling is measured at
another moment, and a machine's pace changes."""
OTHER_FORMATS = ("bf16", "bf16_f32", "fp8", "fp8_f32", "tf32")
"""Methods whose format has a ceiling of its own, which is not measured."""
SAME_ERROR = 0.02
"""Relative difference allowed when an error is measured again on another machine."""
LARGEST_AGAIN = 1024**3
"""Multiply-adds of the largest product that is measured again."""
SETTINGS = {
    "measurements": ["shard", *INPUT, "setting", "calibration"],
    "networks": ["shard", "parameters", "per_gemm"],
    "arrays": ["experiment"],
}
"""Columns that tell the settings of a shard apart, after the column of its name."""


@dataclass(frozen=True)
class Verdict:
    """The result: `refusals`, `warnings` and what was `checked`, as lines of text."""

    refusals: tuple[str, ...]
    warnings: tuple[str, ...]
    checked: tuple[str, ...]


def verify(folder: str | Path, *, again: int = 0, progress: Report = silent) -> Verdict:
    """Check a run folder: hashes, schema, completeness, one input under one name, possible values.

    Parameters
    ----------
    folder : a run folder, its manifest included
    again : number of errors to measure again here and compare, picked at random among those of
        seeded distributions
    progress : called with what is being done and the share that is done
    """
    progress(f"reading {folder}", 0.0)
    try:
        run = read_run(folder)
    except StoreError as error:
        return Verdict((str(error),), (), ())
    progress("checking", 0.1 if again else 0.5)
    missing, unplanned = _incomplete(run)
    refusals = [*_mixed_inputs(run.measurements), *missing, *_impossible(run)]
    warnings = [*unplanned, *_not_listed(run), *_older_code(run)]
    rows = len(run.measurements) + len(run.networks)
    names = run.measurements["shard"], run.networks["shard"], run.arrays["experiment"]
    shards = pd.concat(names).nunique()
    checked = [f"{rows} rows in {shards} shards: hashes, schema, completeness, values"]
    if again:
        result = measure_again(run, again, lambda text, share: progress(text, 0.2 + 0.8 * share))
        refusals += result.refusals
        warnings += result.warnings
        checked += result.checked
    return Verdict(tuple(refusals), tuple(warnings), tuple(checked))


def _mixed_inputs(table: pd.DataFrame) -> Iterator[str]:
    """One name, size and seed stand for one pair of matrices; a layer's for one on each machine."""
    machine = table["machine"].where(table["layer"].notna())
    keys = [*(table[name] for name in INPUT), machine]
    hashes = table.groupby(keys, dropna=False)["input_sha256"].nunique()
    for names in hashes[hashes > 1].index:
        pair = " ".join(str(part) for part in names if not pd.isna(part))
        yield f"input {pair}: several matrices under one name (their SHA-256 differ)"


def _incomplete(run: Run) -> tuple[list[str], list[str]]:
    """What the study asked for and the run lacks; and why that could not be checked, if so."""
    studies = _studies(run)
    if not studies:
        return ["manifest.json does not say what study was measured"], []
    listed = _listed(run)
    missing: list[str] = []
    unplanned: list[str] = []
    measured = {*run.measurements["method"].unique(), *run.networks["method"].unique()}
    for name, config in studies.items():
        try:
            shards = plan(_of_its_time(without_meaningless(config), measured)).shards
        except (ConfigError, OSError) as error:
            unplanned.append(f"completeness is not checked: {error}")
            continue
        tables = {kind: _by_shard(run, kind, name, listed) for kind in TABLES}
        planned = set()
        for shard in shards:
            path = output(Path(), shard)
            planned.add(path.parent / name / path.name)
            rows = tables[path.parent.name].pop(shard.name, None)
            if rows is not None:
                columns, wanted = shard.measure.rows_asked(shard)
                found = len(rows[columns].drop_duplicates()) if columns else wanted
                if found < wanted:
                    missing.append(
                        f"shard {shard.name}: rows of {found} settings, and the study asks for "
                        f"{wanted}"
                    )
            elif not _newer_than(measured, config, shard):
                missing.append(f"shard {shard.name} is missing, though the study asks for it")
        planned |= {Path(kind, name, KEPT) for kind in TABLES}
        files = {at for at in listed if at.parent in {path.parent for path in planned}} - planned
        others = [str(at) for at in files] + [shard for kind in tables.values() for shard in kind]
        missing.extend(f"{other}: no shard of the study" for other in sorted(others))
    return missing, unplanned


def _studies(run: Run) -> dict[str, Any]:
    """The configuration of each part of a merged run, or that of the run; none where the manifest
    does not say."""
    study = read_json(run.folder / "manifest.json").get("study")
    studies = study.get("merged", {"": study}) if isinstance(study, dict) else None
    return studies if isinstance(studies, dict) else {}


def _listed(run: Run) -> set[Path]:
    """The files that the manifest lists, below the run's folder."""
    return {Path(name) for name in read_json(run.folder / "manifest.json")["files"]}


def _of_its_time(config: Mapping[str, Any], measured: set[str]) -> dict[str, Any]:
    """A stored study without the methods that were added since: 'all' and 'usual' are more today,
    and what is new may not fit its settings."""
    present = set(methods.list_methods())
    of_then = {"methods": sorted(present & measured)}
    experiments = {
        name: {**keys, **of_then} if keys.get("methods") in ("all", ["all"]) else keys
        for name, keys in config["experiments"].items()
    }
    return {**config, "experiments": experiments, "leave_out": sorted(present - measured)}


def _by_shard(run: Run, kind: str, source: str, listed: set[Path]) -> dict[str, pd.DataFrame]:
    """The rows of one kind that came from one source of a merged run, or from the run, by shard;
    columns are those that tell settings apart."""
    columns = SETTINGS[kind]
    paths = [run.folder / at for at in listed if at.parent == Path(kind, source)]
    tables = [pd.read_parquet(path, columns=columns) for path in paths]
    if not tables:
        return {}
    return dict(list(pd.concat(tables).groupby(columns[0])))


def _newer_than(measured: set[str], config: dict[str, Any], shard: Shard) -> bool:
    """Whether a shard is of a method that was added since: its study named none, only 'all'."""
    named = config["experiments"][shard.experiment].get("methods", "usual")
    return shard.method not in measured and (named == "usual" or "all" in named)


def _not_listed(run: Run) -> Iterator[str]:
    """Tables beside those that the manifest lists."""
    tables = (path for kind in TABLES for path in (run.folder / kind).rglob("*.parquet"))
    listed = _listed(run)
    beside = [path for path in tables if path.relative_to(run.folder) not in listed]
    if beside:
        yield f"{len(beside)} tables are not in manifest.json, and not read: {beside[0].name}, ..."


def _impossible(run: Run) -> Iterator[str]:
    """Values that no measurement gives."""
    times = run.measurements[run.measurements["metric"].str.endswith("seconds")]
    yield from _named("a time of 0 or less", times[(times["value"] <= 0).fillna(False)])
    yield from _too_fast(run.measurements)
    yield from _too_even(run.measurements)
    sgemm = run.measurements.query("metric == 'relative_error' and method == 'sgemm'")
    sgemm = sgemm[sgemm["input"].isin([*DISTRIBUTIONS, "resnet50"])]  # one's own may cancel
    yield from _named("float32 products with an error above 1e-4", sgemm[sgemm["value"] > 1e-4])
    scores = run.networks[run.networks["status"] == "ok"]
    least, most = (
        scores["metric"]
        .map({name: getattr(metric, end) for name, metric in NETWORKS.items()})
        .astype(float)
        for end in ("least", "most")
    )
    outside = (scores["value"] < least) | (scores["value"] > most)
    outside |= (scores["low"] > scores["value"]) | (scores["high"] < scores["value"])
    yield from _named("scores outside their range or interval", scores[outside.fillna(False)])
    every = pd.concat([run.measurements["measured_at"], run.networks["measured_at"]])
    stamps = pd.to_datetime(every, errors="coerce", utc=True)
    if (wrong := stamps.isna() | (stamps > pd.Timestamp.now("UTC") + pd.Timedelta(days=1))).any():
        yield f"measured at no time, or in the future: {every[wrong].iloc[0]}"


def _too_fast(table: pd.DataFrame) -> Iterator[str]:
    """Products above the rate that the machine itself reached, in its formats."""
    table = table[~table["method"].isin(OTHER_FORMATS)]
    place = ["machine", "library", "device"]
    rates = table[table["metric"].str.endswith("_operations_per_second")]
    ceiling = rates.groupby(place)["value"].max().rename("ceiling").reset_index()
    products = table[(table["metric"] == "seconds") & table["phase"].isna()]
    products = products.merge(ceiling, on=place)
    rate = 2.0 * products["m"] * products["k"] * products["n"] / products["value"]
    fast = products[(rate > ABOVE_CEILING * products["ceiling"]).fillna(False)]
    yield from _named(f"products above {ABOVE_CEILING} times the machine's own ceiling", fast)


def _too_even(table: pd.DataFrame) -> Iterator[str]:
    """Five or more times, all the same to the last digit."""
    products = table[(table["metric"] == "seconds") & table["phase"].isna()]
    keys = [*INPUT, "shard", "setting", "method", "b_prepared"]
    same = products.groupby(keys, dropna=False)["value"].agg(["nunique", "size"])
    even = same[(same["nunique"] == 1) & (same["size"] >= 5)].reset_index()
    yield from _named("times without any spread", even)


def _named(problem: str, rows: pd.DataFrame) -> Iterator[str]:
    if len(rows):
        shards = sorted(rows["shard"].unique())
        yield f"{problem}: {len(rows)} rows, in {', '.join(shards[:3])}" + (
            f" and {len(shards) - 3} more shards" if len(shards) > 3 else ""
        )


def _older_code(run: Run) -> Iterator[str]:
    """Shards that other code measured than is here."""
    measures = {
        name: experiment["measure"]
        for study in _studies(run).values()
        for name, experiment in study["experiments"].items()
    }
    older = []
    for table in (run.measurements, run.networks):
        ours = table[_of_their_shard(table)]
        network = ["network"] if "network" in ours else []
        for key, rows in ours.groupby(["experiment", "method", "code_hash", *network]):
            experiment, method, code, *of_network = key
            measure = measures.get(str(experiment))
            here = measure and _known(method) and code_hash(method, measure, *of_network)
            if here != code:
                older.extend(rows["shard"].unique())
    if older:
        yield f"{len(older)} shards were measured by other code than is here"


def _of_their_shard(table: pd.DataFrame) -> pd.Series:
    """Rows of the method that their shard is about; others are its baselines."""
    return table["shard"].str.split("-").str[1] == table["method"]


def _known(method: str) -> bool:
    """Whether the method is here; parts joined by `+` are one too."""
    try:
        methods.preset(method)
    except ValueError:
        return False
    return True


def measure_again(run: Run, count: int, progress: Report = silent) -> Verdict:
    """Measure again up to `count` errors of seeded distributions that a CPU measured.

    One that differs is a refusal; a warning where the method has grown parameters since, whose
    defaults need not be what was measured, or where it fails here.
    """
    table = run.measurements
    places = zip(table["machine"], table["device"], strict=True)
    of_cpu = np.array([machine.startswith(device) for machine, device in places], bool)
    seeded = table["input"].isin(list(DISTRIBUTIONS)) & table["library"].isin(("numpy", "torch"))
    small = table["m"] * table["k"] * table["n"] <= LARGEST_AGAIN
    present = table["method"].isin([name for name in table["method"].unique() if _known(name)])
    errors = (table["metric"] == "relative_error") & (table["status"] == "ok")
    rows = table[seeded & small & present & _of_their_shard(table) & errors & of_cpu]
    if rows.empty:
        return Verdict((), ("no error can be measured again here",), (_agree(0),))
    rows = rows.sample(min(count, len(rows)), random_state=np.random.default_rng())
    refusals: list[str] = []
    warnings: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        for number, row in enumerate(rows.itertuples()):
            progress(f"measuring again: {row.method}, {row.input}", number / len(rows))
            setting = f"{row.shard}, {row.input} {row.m}x{row.k}x{row.n}, {row.parameters}"
            try:
                again = _measure_one(row, Path(scratch, "pair.safetensors"))
            except (ValueError, TypeError) as error:
                again = {"status": "failed", "reason": str(error)}
            if again["status"] != "ok":
                warnings.append(f"{setting}: fails here: {again['reason']}")
            elif again["input_sha256"] != row.input_sha256:
                refusals.append(f"{setting}: its seed gives other matrices here")
            elif abs(again["value"] - row.value) > SAME_ERROR * row.value + 1e-6:
                values = f"an error of {row.value:.4g}, and measured again {again['value']:.4g}"
                defaults = methods.preset(row.method).defaults
                new = ", ".join(name for name in defaults if name not in json.loads(row.parameters))
                if new:
                    warnings.append(f"{setting}: {values}; recorded without {new}")
                else:
                    refusals.append(f"{setting}: {values}")
    same = len(rows) - len(refusals) - len(warnings)
    return Verdict(tuple(refusals), tuple(warnings), (_agree(same),))


def _agree(count: int) -> str:
    return f"{count} errors measured again: the same within {SAME_ERROR:.0%}"


def _measure_one(row: Any, path: Path) -> dict[str, Any]:
    write_sample(path, row.input, row.m, row.k, row.n, row.input_seed)
    columns = {name: getattr(row, name) for name in INPUT}
    recorded, defaults = json.loads(row.parameters), methods.preset(row.method).defaults
    shard = read_shard({
        "name": row.shard, "experiment": row.experiment, "library": row.library,
        "measure": {"measure": "error", "held_out": not pd.isna(row.rows)}, "method": row.method,
        "settings": [{key: recorded[key] for key in defaults if key in recorded}],
        "inputs": [{**columns, "layer": None}],
    })  # fmt: skip
    same = {"metric": "relative_error", "calibration": row.calibration}
    with redirect_stderr(io.StringIO()):  # where it says how far the shard has come
        rows = shard.measure.rows(shard, [path], "cpu", 1)
    for measured in rows:
        if same.items() <= measured.items():
            return measured
    raise ValueError(f"no error with calibration {row.calibration!r} is measured here")


def words(verdict: Verdict) -> Iterable[str]:
    """The verdict line by line."""
    yield from (f"refused: {line}" for line in verdict.refusals)
    yield from (f"warning: {line}" for line in verdict.warnings)
    yield from (f"checked: {line}" for line in verdict.checked)
