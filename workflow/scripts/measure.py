"""Measure one shard."""

import json
import sys
from pathlib import Path

from lrqmm.bench.job import measure
from lrqmm.bench.progress import announce, logged, process_seconds
from lrqmm.load import available_cores

target = Path(snakemake.output[0])
with logged(snakemake.log[0]):
    shard = json.loads(snakemake.params.shard)
    threads = min(snakemake.threads, available_cores())
    files = snakemake.input.get("files", [])
    attempt = snakemake.resources.attempt
    measure(shard, files, target, snakemake.params.device, threads, attempt)
    print(f"took {process_seconds():.2f} s, imports included", file=sys.stderr)
announce(Path(snakemake.params.progress), target.parent.parent, shard["name"])
