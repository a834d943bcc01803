"""Score a network on the products of one method."""

import json
import sys
from pathlib import Path

from lrqmm.measure.environment import available_cores
from lrqmm.measure.network import measure_network
from lrqmm.measure.progress import logged, report
from lrqmm.store import NETWORK_SCHEMA, table, write_table

with logged(snakemake.log[0]):
    shard = json.loads(snakemake.params.shard)
    threads = min(snakemake.threads, available_cores())
    rows = measure_network(shard, snakemake.params.device, threads)
    write_table(table(rows, NETWORK_SCHEMA), snakemake.output[0])
run = Path(snakemake.output[0]).parent.parent
print(f"{shard['name']}: {report(Path(snakemake.params.progress), run)}", file=sys.stderr)
