"""Parts of the rows that measurements give: what was measured, where, with what code."""

import datetime
import json
import os
from collections.abc import Mapping
from typing import Any

import lrqmm
from lrqmm._checks import Array
from lrqmm.bench import environment
from lrqmm.bench.measures._experiment import Row, Shard
from lrqmm.method import Method


def describe(method: Method, like: Array) -> Row:
    """A method with its parameters, and how it multiplies integers beside the array `like`."""
    return {
        "method": method.name,
        **parameters(method.parameters),
        "integer_route": method.integer_route(like),
    }


def parameters(parameters: Mapping[str, Any]) -> Row:
    """Parameters as JSON, and those that have a column."""
    from lrqmm.run.schema import parameter_columns  # which loads pandas

    return {"parameters": json.dumps(parameters, sort_keys=True), **parameter_columns(parameters)}


def provenance(shard: Shard, threads: int) -> Row:
    """What every row of a shard carries: machine, software, code, time."""
    commit, dirty = environment.git_state()
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {
        "experiment": shard.experiment,
        "shard": shard.name,
        "library": shard.library,
        "machine": environment.machine(),
        "node": os.environ.get("SLURMD_NODENAME", "local"),  # of a cluster, as Slurm calls it
        "threads": threads,
        "compute_dtype": "float32",
        "code_hash": shard.measure.code_hash(shard.method),
        "version": lrqmm.__version__,
        "versions": environment.versions(shard.library, shard.method),
        "allocator": environment.allocator(),
        "git_commit": commit,
        "git_dirty": dirty,
        "measured_at": now,
    }
