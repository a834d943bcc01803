"""The schemas of a run's tidy tables.

One row is one value of one metric. A setting that failed or is unsupported is a row with its reason
and no value.
"""

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


_positive = pa.Check.ge(0)
_PROVENANCE = {  # where and with what
    "shard": pa.Column("string"),
    "library": pa.Column("string"),
    "device": pa.Column("string"),
    "machine": pa.Column("string"),
    "node": pa.Column("string", nullable=True),  # of a cluster
    "threads": pa.Column("Int64"),
    "compute_dtype": pa.Column("string"),
    "integer_route": pa.Column("string"),
    "loaded": pa.Column("boolean"),
    "code_hash": pa.Column("string"),
    "version": pa.Column("string"),
    "versions": pa.Column("string", nullable=True),  # of the libraries that computed
    "allocator": pa.Column("string", nullable=True),
    "git_commit": pa.Column("string"),
    "git_dirty": pa.Column("boolean"),
    "measured_at": pa.Column("string"),
}
_valued = pa.Check(
    lambda table: table["value"].notna() == (table["status"] == "ok"),
    error="a row has a value exactly where its status is 'ok'",
)
_SIGNED = [metric.name for metric in metrics.PRODUCTS.values() if metric.least < 0]
_signs = pa.Check(
    lambda table: ~(table["value"] < 0) | table["metric"].isin(_SIGNED), error=NEGATIVE
)

MEASUREMENT_SCHEMA = pa.DataFrameSchema(
    {
        # what was measured
        "experiment": pa.Column("string"),
        "input": pa.Column("string"),
        "layer": pa.Column("string", nullable=True),
        "input_seed": pa.Column("Int64", nullable=True),
        "input_sha256": pa.Column("string", pa.Check.str_matches(r"^[0-9a-f]{64}$")),
        **{side: pa.Column("Int64", _positive) for side in "mkn"},
        "rows": pa.Column("Int64", _positive, nullable=True),  # of A, where the rest calibrates
        "method": pa.Column("string"),
        "parameters": pa.Column("string"),
        **{name: pa.Column(dtype, nullable=True) for name, dtype in PARAMETERS.items()},
        "calibration": pa.Column("string"),
        "setting": pa.Column("Int64", _positive),  # number within its shard; baselines have it too
        "b_prepared": pa.Column("boolean", nullable=True),  # of times, before the clock
        # the value
        "metric": pa.Column("string", pa.Check.isin(metrics.PRODUCTS)),
        "phase": pa.Column("string", nullable=True),
        "sample": pa.Column("Int64", _positive),
        "value": pa.Column("float64", nullable=True),
        "status": pa.Column("string", pa.Check.isin(STATUSES)),
        "reason": pa.Column("string", nullable=True),
        **_PROVENANCE,
    },
    checks=[_valued, _signs],
    strict=True,
    ordered=True,
)

NETWORK_SCHEMA = pa.DataFrameSchema(
    {
        # what was measured
        "experiment": pa.Column("string"),
        "network": pa.Column("string"),
        "reference": pa.Column("string", nullable=True),  # what the float answers come from
        "data": pa.Column("string", nullable=True),
        "per_gemm": pa.Column("Int64", _positive),  # pictures, or windows of text, in a GEMM
        "keep": pa.Column("string"),  # layers in float32
        "layer": pa.Column("string", nullable=True),
        "method": pa.Column("string"),
        "parameters": pa.Column("string"),
        **{name: pa.Column(dtype, nullable=True) for name, dtype in PARAMETERS.items()},
        "ranks_within": pa.Column("float64", nullable=True),  # average bits; ranks by layer
        "calibration": pa.Column("string", nullable=True),
        # the value, its 95% interval, over how many items
        "metric": pa.Column("string", pa.Check.isin(metrics.NETWORKS)),
        "value": pa.Column("float64", nullable=True),
        "low": pa.Column("float64", nullable=True),
        "high": pa.Column("float64", nullable=True),
        "items": pa.Column("Int64", _positive, nullable=True),
        "status": pa.Column("string", pa.Check.isin(STATUSES)),
        "reason": pa.Column("string", nullable=True),
        **_PROVENANCE,
    },
    checks=_valued,
    strict=True,
    ordered=True,
)

ARRAY_SCHEMA = pa.DataFrameSchema(
    {
        "experiment": pa.Column("string"),
        "input": pa.Column("string"),
        "name": pa.Column("string"),
        "parameters": pa.Column("string"),
        "row": pa.Column("Int64", _positive),
        "column": pa.Column("Int64", _positive),
        "value": pa.Column("float64"),
        "input_sha256": pa.Column("string"),
    },
    strict=True,
    ordered=True,
)


TABLES = dict(zip(FOLDERS, (MEASUREMENT_SCHEMA, NETWORK_SCHEMA, ARRAY_SCHEMA), strict=True))
"""The schema of the tables in each folder of a run."""
