"""List every input of the study with its SHA-256, once all are there and whole."""

from lrqmm.bench.data.matrices import check_pair
from lrqmm.bench.progress import logged
from lrqmm.run.folder import write_json

with logged(snakemake.log[0]):
    write_json({path: check_pair(path) for path in snakemake.input}, snakemake.output[0])
