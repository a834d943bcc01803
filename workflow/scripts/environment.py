"""Record machine, software and code."""

from lrqmm.measure.environment import environment
from lrqmm.measure.progress import logged
from lrqmm.runfolder import write_json

with logged(snakemake.log[0]):
    write_json(environment(), snakemake.output[0])
