"""The tidy table of measurements: its schema, and reading and writing of run folders.

One row is one value of one metric. Rows are checked when written and when read; a setting that
failed or is unsupported is a row with its reason and no value.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pandera.pandas as pa
import pyarrow.parquet

from lrqmm.inputs.files import sha256

INPUT = ("input", "layer", "input_seed", "m", "k", "n")
"""Columns that say which matrices were multiplied."""

METRICS = (
    "relative_error",
    "seconds",
    "cpu_seconds",
    "peak_bytes",
    "code_bytes",
    "unpack_seconds",
    "copy_bytes_per_second",
    "integer_operations_per_second",
    "float_operations_per_second",
    "clock_hz",
    "integer_operations",
    "float_operations",
    "bytes",
    "operand_bits",
)
STATUSES = ("ok", "unsupported", "failed")
PARAMETERS = {
    "bits": "Int64",
    "bits_a": "Int64",
    "rounding": "string",
    "granularity": "string",
    "zero_point": "string",
    "zero_point_a": "string",
    "rank": "Int64",
    "terms": "string",
    "oversampling": "Int64",
    "power_iterations": "Int64",
    "sketch": "string",
    "factor_dtype": "string",
    "sides": "string",
    "seed": "Int64",
    "execution": "string",
}
"""Parameters with a column of their own; `parameters` holds all of them as JSON."""
LATER = (*PARAMETERS, "ranks_within", "node", "versions", "allocator")
"""Columns that a run may be older than."""


def _column(dtype: str, *checks: pa.Check, nullable: bool = False) -> pa.Column:
    return pa.Column(dtype, list(checks), nullable=nullable)


_positive = pa.Check.ge(0)

_PROVENANCE = {  # where and with what
    "shard": _column("string"),
    "library": _column("string"),
    "device": _column("string"),
    "machine": _column("string"),
    "node": _column("string", nullable=True),  # of a cluster
    "threads": _column("Int64"),
    "compute_dtype": _column("string"),
    "integer_route": _column("string"),
    "loaded": _column("boolean"),
    "code_hash": _column("string"),
    "version": _column("string"),
    "versions": _column("string", nullable=True),  # of the libraries that computed
    "allocator": _column("string", nullable=True),
    "git_commit": _column("string"),
    "git_dirty": _column("boolean"),
    "measured_at": _column("string"),
}
_valued = pa.Check(
    lambda table: table["value"].notna() == (table["status"] == "ok"),
    error="a row has a value exactly where its status is 'ok'",
)

SCHEMA = pa.DataFrameSchema(
    {
        # what was measured
        "experiment": _column("string"),
        "input": _column("string"),
        "layer": _column("string", nullable=True),
        "input_seed": _column("Int64", nullable=True),
        "input_sha256": _column("string", pa.Check.str_matches(r"^[0-9a-f]{64}$")),
        "m": _column("Int64", _positive),
        "k": _column("Int64", _positive),
        "n": _column("Int64", _positive),
        "method": _column("string"),
        "parameters": _column("string"),
        **{name: _column(dtype, nullable=True) for name, dtype in PARAMETERS.items()},
        "calibration": _column("string"),
        "setting": _column("Int64", _positive),  # number within its shard; baselines have it too
        "b_prepared": _column("boolean", nullable=True),  # before the clock started; of times only
        # the value
        "metric": _column("string", pa.Check.isin(METRICS)),
        "phase": _column("string", nullable=True),
        "sample": _column("Int64", _positive),
        "value": _column("float64", _positive, nullable=True),
        "status": _column("string", pa.Check.isin(STATUSES)),
        "reason": _column("string", nullable=True),
        **_PROVENANCE,
    },
    checks=_valued,
    strict=True,
    ordered=True,
)

NETWORK_METRICS = (
    "top1",
    "top5",
    "top1_drop",
    "agreement",
    "kl",
    "relative_error",
    "relative_error_median",
    "perplexity",
    "cosine",
    "seconds_per_item",
    "times_float_speed",
    "average_bits",
    "integer_operations",
    "float_operations",
    "alone_error",
    "own_error",
    "accumulated_error",
    "moved_by_others",
    "rank",
)
NETWORK_SCHEMA = pa.DataFrameSchema(
    {
        # what was measured
        "experiment": _column("string"),
        "network": _column("string"),
        "reference": _column("string", nullable=True),  # what the float answers come from
        "data": _column("string", nullable=True),
        "per_gemm": _column("Int64", _positive),  # pictures, or windows of text, in a GEMM
        "keep": _column("string"),  # layers in float32
        "layer": _column("string", nullable=True),
        "method": _column("string"),
        "parameters": _column("string"),
        **{name: _column(dtype, nullable=True) for name, dtype in PARAMETERS.items()},
        "ranks_within": _column("float64", nullable=True),  # average bits; ranks by layer
        # the value, its 95% interval, over how many items
        "metric": _column("string", pa.Check.isin(NETWORK_METRICS)),
        "value": _column("float64", nullable=True),
        "low": _column("float64", nullable=True),
        "high": _column("float64", nullable=True),
        "items": _column("Int64", _positive, nullable=True),
        "status": _column("string", pa.Check.isin(STATUSES)),
        "reason": _column("string", nullable=True),
        **_PROVENANCE,
    },
    checks=_valued,
    strict=True,
    ordered=True,
)

ARRAY_SCHEMA = pa.DataFrameSchema(
    {
        "experiment": _column("string"),
        "input": _column("string"),
        "name": _column("string"),
        "parameters": _column("string"),
        "row": _column("Int64", _positive),
        "column": _column("Int64", _positive),
        "value": _column("float64"),
        "input_sha256": _column("string"),
    },
    strict=True,
    ordered=True,
)


TABLES = {"measurements": SCHEMA, "networks": NETWORK_SCHEMA, "arrays": ARRAY_SCHEMA}
"""A folder of a run: the schema of its tables."""


class StoreError(ValueError):
    """A run folder or table that is not what it should be; the message names the file."""


@dataclass(frozen=True)
class Run:
    """A run folder, read and checked: all that drawing needs.

    Attributes
    ----------
    folder : the run's folder
    measurements : table of `SCHEMA`
    networks : table of `NETWORK_SCHEMA`, scores of whole networks
    arrays : table of `ARRAY_SCHEMA`, the small matrices that figures show
    environment : what `environment.json` records of machine and software
    """

    folder: Path
    measurements: pd.DataFrame
    networks: pd.DataFrame
    arrays: pd.DataFrame
    environment: dict[str, Any]

    def experiment(self, name: str) -> pd.DataFrame:
        """The measurements of one experiment."""
        table = self.measurements
        return table[table["experiment"] == name].copy()

    @property
    def machines(self) -> list[str]:
        """The machines that measured, in words."""
        return sorted({*self.measurements["machine"], *self.networks["machine"]})

    def on(self, machine: str) -> Run:
        """What one machine measured."""
        measurements, networks = (
            table[table["machine"] == machine] for table in (self.measurements, self.networks)
        )
        return replace(self, measurements=measurements, networks=networks)


def table(rows: Iterable[Mapping[str, Any]], schema: pa.DataFrameSchema = SCHEMA) -> pd.DataFrame:
    """Rows as a checked table; missing columns are null."""
    frame = pd.DataFrame(list(rows))
    unknown = [name for name in frame.columns if name not in schema.columns]
    if unknown:
        raise StoreError(f"new rows: no such columns: {', '.join(map(str, unknown))}")
    frame = frame.reindex(columns=list(schema.columns))
    return validate(_typed(frame, schema, "new rows"), schema, "new rows")


def validate(frame: pd.DataFrame, schema: pa.DataFrameSchema, source: str) -> pd.DataFrame:
    """The frame, or StoreError naming the column and the first values that are wrong."""
    try:
        return schema.validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases
        columns = cases[cases["schema_context"] != "DataFrameSchema"].head(3)
        wrong = [
            f"{case.column}: {case.check}: {case.failure_case}" for case in columns.itertuples()
        ]
        for check, of_check in cases.groupby("check") if not wrong else ():
            named = str(check).startswith("column_")  # the others list every row of every column
            found = f": {', '.join(map(str, of_check['failure_case']))}" if named else ""
            wrong.append(f"table: {check}{found}")
        raise StoreError(f"{source}: not a table of measurements: {'; '.join(wrong)}") from None


def write_table(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a Parquet file whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    frame.to_parquet(part, compression="zstd", index=False)
    os.replace(part, path)


def write_json(content: Any, path: str | Path) -> None:
    """Write a JSON file whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    os.replace(part, path)


def read_table(path: str | Path, schema: pa.DataFrameSchema = SCHEMA) -> pd.DataFrame:
    """Read and check one Parquet file."""
    return validate(_read_parquet(Path(path), schema), schema, str(path))


def _read_parquet(path: Path, schema: pa.DataFrameSchema) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(path)
    except Exception as error:  # pyarrow raises several kinds for a damaged file
        raise StoreError(f"{path}: cannot be read: {error}") from None
    for place, name in enumerate(schema.columns):
        if name in LATER and name not in frame:
            frame.insert(min(place, frame.shape[1]), name, None)
    missing = set(schema.columns) - set(frame.columns)
    if missing:
        raise StoreError(f"{path}: columns are missing: {', '.join(sorted(missing))}")
    return _typed(frame, schema, str(path))


def _typed(frame: pd.DataFrame, schema: pa.DataFrameSchema, source: str) -> pd.DataFrame:
    for name, column in schema.columns.items():
        try:
            frame[name] = frame[name].astype(str(column.dtype))
        except (ValueError, TypeError) as error:
            raise StoreError(f"{source}: not a table of measurements: {name}: {error}") from None
    return frame


def _read_tables(paths: list[Path], schema: pa.DataFrameSchema) -> pd.DataFrame:
    """All files as one table; checked as a whole, since a check costs more than its rows."""
    if not paths:
        return table([], schema)
    try:
        return validate(_read_together(paths, schema), schema, "the run")
    except Exception:  # damaged files raise almost anything
        frames = [read_table(path, schema) for path in paths]  # names the file
        return validate(pd.concat(frames, ignore_index=True), schema, "the run")


def _read_together(paths: list[Path], schema: pa.DataFrameSchema) -> pd.DataFrame:
    """All files in one go: many times faster than a frame a file."""
    tables = [pyarrow.parquet.read_table(path, partitioning=None) for path in paths]
    needed = set(schema.columns) - set(LATER)
    if not all(needed <= set(each.column_names) for each in tables):
        raise StoreError("columns are missing")
    frame = pyarrow.concat_tables(tables, promote_options="permissive").to_pandas()
    for name in set(schema.columns) - set(frame.columns):
        frame[name] = None
    foreign = [name for name in frame.columns if name not in schema.columns]
    return _typed(frame[[*schema.columns, *foreign]], schema, "the run")


def read_run(folder: str | Path, *, unfinished: bool = False) -> Run:
    """Read and check a run folder. Raises StoreError naming the file that is missing or wrong.

    A run without manifest.json, which it has once every shard is measured, is refused, or, where
    `unfinished` is true, read as far as it went.
    """
    folder = Path(folder)
    files: Iterable[str]
    if unfinished and not (folder / "manifest.json").exists():
        paths = [path for kind in TABLES for path in (folder / kind).glob("*.parquet")]
        files = [path.relative_to(folder).as_posix() for path in paths]
        if not files:
            raise StoreError(f"{folder}: nothing is measured there yet")
    else:
        files = _listed(folder)
    tables = {
        kind: _read_tables(
            [folder / name for name in sorted(files) if name.startswith(f"{kind}/")],
            schema,
        )
        for kind, schema in TABLES.items()
    }
    about = folder / "environment.json"
    environment = {} if unfinished and not about.exists() else read_json(about)
    return Run(folder, **tables, environment=environment)


def _listed(folder: Path) -> Iterable[str]:
    """Files that the manifest lists; they are there, and what was written."""
    files = read_json(folder / "manifest.json").get("files")
    if not isinstance(files, dict):
        raise StoreError(f"{folder / 'manifest.json'}: 'files' is missing, or no object")
    for name, digest in files.items():
        path = folder / name
        inside = path.resolve().is_relative_to(folder.resolve()) and ".." not in Path(name).parts
        if name != "environment.json" and not (inside and Path(name).parts[0] in TABLES):
            raise StoreError(
                f"{folder / 'manifest.json'}: lists {name!r}; allowed: environment.json, and files "
                f"in {', '.join(TABLES)}"
            )
        if not path.is_file():
            raise StoreError(f"{path}: missing, though manifest.json of the run lists it")
        if sha256(path) != digest:
            raise StoreError(f"{path}: differs from the SHA-256 in manifest.json of the run")
    return files


def write_manifest(folder: str | Path, files: Iterable[str | Path], about: Any) -> None:
    """Write manifest.json: the run's files with their SHA-256, and what was asked for."""
    folder = Path(folder)
    hashes = {Path(path).relative_to(folder).as_posix(): sha256(Path(path)) for path in files}
    write_json({"files": hashes, "study": about}, folder / "manifest.json")


def reopen(folder: str | Path) -> None:
    """Make a run unfinished: a table is measured anew, so its manifest holds no longer."""
    (Path(folder) / "manifest.json").unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's object, or StoreError where it is missing or damaged."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise StoreError(f"{path}: missing; a run folder has it once measuring ended") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise StoreError(f"{path}: holds no JSON object")
    return content
