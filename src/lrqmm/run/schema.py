"""The schemas of a run's tidy tables.

One row is one value of one metric. A setting that failed or is unsupported is a row with its reason
and no value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandera.pandas as pa

from lrqmm.run import metrics
from lrqmm.run.folder import FOLDERS

INPUT = ("input", "layer", "input_seed", "m", "k", "n")
"""Columns that say which matrices were multiplied."""

NEGATIVE = "value: negative, which its metric cannot be"
STATUSES = ("ok", "unsupported", "failed")
PARAMETERS = {
    "bits": "Int64",
    "bits_a": "Int64",
    "rounding": "string",
    "granularity": "string",
    "levels": "string",
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


def parameter_columns(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that have a column; text in a column of numbers, as rank 'auto', is null."""
    values = {name: parameters.get(name) for name in PARAMETERS}
    numbers = {name for name, kind in PARAMETERS.items() if kind == "Int64"}
    return {n: None if n in numbers and isinstance(v, str) else v for n, v in values.items()}


LATER = (*PARAMETERS, "ranks_within", "rows", "calibration", "node", "versions", "allocator")
"""Columns that older runs may lack."""


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
_SIGNED = [metric.name for metric in metrics.PRODUCTS.values() if metric.least < 0]
_signs = pa.Check(
    lambda table: ~(table["value"] < 0) | table["metric"].isin(_SIGNED),
    error=NEGATIVE,
)

MEASUREMENT_SCHEMA = pa.DataFrameSchema(
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
        "rows": _column("Int64", _positive, nullable=True),  # of A, where the rest calibrates
        "method": _column("string"),
        "parameters": _column("string"),
        **{name: _column(dtype, nullable=True) for name, dtype in PARAMETERS.items()},
        "calibration": _column("string"),
        "setting": _column("Int64", _positive),  # number within its shard; baselines have it too
        "b_prepared": _column("boolean", nullable=True),  # before the clock started; of times only
        # the value
        "metric": _column("string", pa.Check.isin(metrics.PRODUCTS)),
        "phase": _column("string", nullable=True),
        "sample": _column("Int64", _positive),
        "value": _column("float64", nullable=True),
        "status": _column("string", pa.Check.isin(STATUSES)),
        "reason": _column("string", nullable=True),
        **_PROVENANCE,
    },
    checks=[_valued, _signs],
    strict=True,
    ordered=True,
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
        "calibration": _column("string", nullable=True),
        # the value, its 95% interval, over how many items
        "metric": _column("string", pa.Check.isin(metrics.NETWORKS)),
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


TABLES = dict(zip(FOLDERS, (MEASUREMENT_SCHEMA, NETWORK_SCHEMA, ARRAY_SCHEMA), strict=True))
"""The schema of the tables in each folder of a run."""
