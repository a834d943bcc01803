"""Measure one shard."""

import json
import sys
from pathlib import Path

from lrqmm.measure.environment import available_cores
from lrqmm.measure.job import measure
from lrqmm.measure.progress import logged, report

target = Path(snakemake.output[0])
with logged(snakemake.log[0]):
    shard = json.loads(snakemake.params.shard)
    threads = min(snakemake.threads, available_cores())
    files = snakemake.input.get("files", [])
    measure(shard, files, target, snakemake.params.device, threads)
progress = report(Path(snakemake.params.progress), target.parent.parent)
print(f"{shard['name']}: {progress}", file=sys.stderr)
