"""Keep the small matrices that a figure shows."""

import json

from lrqmm.measure.progress import logged
from lrqmm.measure.shard import measure_arrays
from lrqmm.store import ARRAY_SCHEMA, table, write_table

with logged(snakemake.log[0]):
    rows = measure_arrays(json.loads(snakemake.params.shard), snakemake.input.files)
    write_table(table(rows, ARRAY_SCHEMA), snakemake.output[0])
