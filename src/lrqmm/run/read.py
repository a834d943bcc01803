"""Reading and writing the tables of a run folder, checked against `lrqmm.run.schema` both ways."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pandera.pandas as pa
import pyarrow.parquet

from lrqmm._files import write_whole
from lrqmm._repr import Shown
from lrqmm.run.folder import StoreError, listed, read_json, recorded_titles
from lrqmm.run.schema import LATER, MEASUREMENT_SCHEMA, NEGATIVE, TABLES


@dataclass(frozen=True)
class Run(Shown):
    """A run folder, read and checked: all that drawing needs.

    Attributes
    ----------
    folder : the run's folder
    measurements : table of `MEASUREMENT_SCHEMA`
    networks : table of `NETWORK_SCHEMA`, scores of whole networks
    arrays : table of `ARRAY_SCHEMA`, the small matrices that figures show
    environment : what `environment.json` records of machine and software
    titles : titles of inputs and networks by name, as `manifest.json` records them

    Examples
    --------
    In a checkout of the project:

    >>> from lrqmm.run.read import read_run
    >>> run = read_run("results/reference/rivals-cpu-2core")
    >>> len(run.experiment("rivals")) > 0, len(run.machines)
    (True, 1)
    """

    folder: Path
    measurements: pd.DataFrame
    networks: pd.DataFrame
    arrays: pd.DataFrame
    environment: dict[str, Any] = field(repr=False)
    titles: dict[str, str] = field(default_factory=dict, repr=False)

    def experiment(self, name: str) -> pd.DataFrame:
        """The measurements of one experiment."""
        table = self.measurements
        return table[table["experiment"] == name].copy()

    def title(self, name: str) -> str:
        """The title of an input or a network; its name where the run records none."""
        return self.titles.get(name, name)

    @property
    def machines(self) -> list[str]:
        """Descriptions of the machines that measured."""
        return sorted({*self.measurements["machine"], *self.networks["machine"]})

    def on(self, machine: str) -> Run:
        """What one machine measured."""
        measurements, networks = (
            table[table["machine"] == machine] for table in (self.measurements, self.networks)
        )
        return replace(self, measurements=measurements, networks=networks)


def table(
    rows: Iterable[Mapping[str, Any]], schema: pa.DataFrameSchema = MEASUREMENT_SCHEMA
) -> pd.DataFrame:
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
        columns = cases[cases["schema_context"] != "DataFrameSchema"].head(3).itertuples()
        wrong = [f"{case.column}: {case.check}: {case.failure_case}" for case in columns]
        for check, of_check in cases.groupby("check") if not wrong else ():
            if str(check) == NEGATIVE:  # checks of the table list every row of every column
                first = of_check.loc[of_check["column"] == "value", "failure_case"].iloc[0]
                wrong.append(f"{check}: {first}")
                continue
            named = str(check).startswith("column_")
            names = f": {', '.join(map(str, of_check['failure_case']))}" if named else ""
            wrong.append(f"table: {check}{names}")
        raise StoreError(f"{source}: not a table of measurements: {'; '.join(wrong)}") from None


def write_table(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a Parquet file atomically."""
    with write_whole(path) as part:
        frame.to_parquet(part, compression="zstd", index=False)


def read_table(path: str | Path, schema: pa.DataFrameSchema = MEASUREMENT_SCHEMA) -> pd.DataFrame:
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


def read_tables(paths: list[Path], schema: pa.DataFrameSchema) -> pd.DataFrame:
    """All files as one table; checked as a whole, since a check costs more than its rows."""
    if not paths:
        return table([], schema)
    try:
        return validate(_read_together(paths, schema), schema, "the run")
    except Exception:  # damaged files raise almost anything
        frames = [read_table(path, schema) for path in paths]  # names the file
        return validate(pd.concat(frames, ignore_index=True), schema, "the run")


def _read_together(paths: list[Path], schema: pa.DataFrameSchema) -> pd.DataFrame:
    """All files at once: many times faster than one by one."""
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
    """Read and check a run folder.

    Parameters
    ----------
    folder : a run folder
    unfinished : read a run without manifest.json, which it has once every shard is measured, as far
        as it went

    Raises
    ------
    StoreError : a ValueError, which names the file that is missing or wrong

    Examples
    --------
    In a checkout of the project:

    >>> from lrqmm.run.read import read_run
    >>> run = read_run("results/reference/rivals-cpu-2core")
    >>> errors = run.measurements.query("metric == 'relative_error' and method == 'sgemm'")
    >>> bool((errors["value"] < 1e-4).all())
    True
    """
    folder = Path(folder)
    files: Iterable[str]
    titles: dict[str, str] = {}
    if unfinished and not (folder / "manifest.json").exists():
        paths = [path for kind in TABLES for path in (folder / kind).glob("*.parquet")]
        files = [path.relative_to(folder).as_posix() for path in paths]
        if not files:
            raise StoreError(f"{folder}: nothing is measured there yet")
    else:
        files = listed(folder)
        titles = recorded_titles(folder)
    tables = {
        kind: read_tables(
            [folder / name for name in sorted(files) if name.startswith(f"{kind}/")], schema
        )
        for kind, schema in TABLES.items()
    }
    path = folder / "environment.json"
    environment = {} if unfinished and not path.exists() else read_json(path)
    return Run(folder, **tables, environment=environment, titles=titles)
