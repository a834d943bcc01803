"""What a measuring job of the workflow does: one shard, from its plan to its table."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lrqmm.bench.configuration import Config
from lrqmm.bench.devices import gpus, one_gpu
from lrqmm.bench.measures import read_shard
from lrqmm.bench.measures._experiment import Shard
from lrqmm.bench.memory import allocated, limit_memory
from lrqmm.run.folder import reopen
from lrqmm.run.read import table, write_table
from lrqmm.run.schema import TABLES

LAST_ATTEMPT = 3
"""Of the cluster profiles, whose `retries` is 2; what does not fit then is a failed row."""


def measure(
    plan: Config, files: Sequence[str], target: Path, device: str, threads: int, attempt: int = 1
) -> None:
    """Measure a shard and write its table, whole or not at all.

    Parameters
    ----------
    plan : of the shard, as `Shard.as_dict` gives it
    files : the pair files of its inputs, in order
    target : the table's file, in a folder of the run
    device : 'auto', 'cpu' or 'cuda'; a GPU is taken alone
    threads : the most threads to use
    attempt : counted from 1; on a cluster each is given more memory than the one before

    Raises
    ------
    MemoryError : some setting did not fit into what the cluster gave, and `LAST_ATTEMPT` is to come
    ValueError, TypeError, FileNotFoundError, PackageError, InputError : before anything is measured
    """
    shard = read_shard(plan)
    reopen(target.parent.parent)
    usable = gpus() if device != "cpu" and _computes_on_gpu(shard) else []
    if not usable:
        limit_memory()
    with one_gpu(usable):
        rows = shard.measure.rows(shard, files, device, threads)
    if allocated() and attempt < LAST_ATTEMPT:
        _refuse_too_little_memory(rows)
    reopen(target.parent.parent)  # whatever ended meanwhile
    write_table(table(rows, TABLES[shard.measure.table]), target)


def _refuse_too_little_memory(rows: list[dict[str, Any]]) -> None:
    reasons = [row["reason"] for row in rows if row.get("status") == "failed"]
    for reason in filter(re.compile("alloc|memory", re.IGNORECASE).search, reasons):
        raise MemoryError(
            f"a setting did not fit into the {allocated()} MB of this job, which is to be tried "
            f"again with more: {reason}"
        )


def _computes_on_gpu(shard: Shard) -> bool:
    import torch

    return shard.library == "cupy" or (shard.library == "torch" and torch.version.cuda is not None)
