"""One file per kind of measurement: its keys in a configuration, its shards, how one is measured.

A module here defines `MEASURE`, a class of experiments, and its name is what `measure` says in a
configuration. Adding a kind is adding a file; nothing else lists them.
"""

from collections.abc import Mapping
from typing import Any

from lrqmm.bench.measures._experiment import MEASURES as MEASURES
from lrqmm.bench.measures._experiment import Shard
from lrqmm.bench.sources import Pair


def read_shard(plan: Mapping[str, Any]) -> Shard:
    """The shard that `Shard.as_dict` gave; its inputs have no paths."""
    measure = MEASURES.get(plan["measure"]["measure"]).model_validate(plan["measure"])
    inputs = tuple(Pair(**pair, path="") for pair in plan["inputs"])
    return Shard(
        **{**plan, "measure": measure, "inputs": inputs, "settings": tuple(plan["settings"])}
    )
