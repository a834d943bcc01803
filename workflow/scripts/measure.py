"""Measure one shard."""

import json
import sys
import time
from pathlib import Path

import psutil

from lrqmm.measure.environment import available_cores
from lrqmm.measure.job import measure
from lrqmm.measure.progress import logged, report

target = Path(snakemake.output[0])
with logged(snakemake.log[0]):
    shard = json.loads(snakemake.params.shard)
    threads = min(snakemake.threads, available_cores())
    files = snakemake.input.get("files", [])
    attempt = snakemake.resources.attempt
    measure(shard, files, target, snakemake.params.device, threads, attempt)
    took = time.time() - psutil.Process().create_time()
    print(f"took {took:.2f} s, imports included", file=sys.stderr)
progress = report(Path(snakemake.params.progress), target.parent.parent)
print(f"{shard['name']}: {progress}", file=sys.stderr)
