"""Record machine, software and code."""

from lrqmm.bench.environment import environment
from lrqmm.bench.progress import logged
from lrqmm.run.folder import write_json

with logged(snakemake.log[0]):
    write_json(environment(), snakemake.output[0])
