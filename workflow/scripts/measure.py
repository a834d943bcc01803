"""Measure one shard."""

import json
import sys
from pathlib import Path

from lrqmm.measure.environment import available_cores
from lrqmm.measure.progress import logged, report
from lrqmm.measure.shard import measure_shard
from lrqmm.store import table, write_table

with logged(snakemake.log[0]):
    shard = json.loads(snakemake.params.shard)
    threads = min(snakemake.threads, available_cores())
    rows = measure_shard(shard, snakemake.input.files, snakemake.params.device, threads)
    write_table(table(rows), snakemake.output[0])
run = Path(snakemake.output[0]).parent.parent
print(f"{shard['name']}: {report(Path(snakemake.params.progress), run)}", file=sys.stderr)
