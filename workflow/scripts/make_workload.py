"""Write the pair of matrices of one case of a workload."""

from lrqmm.bench.progress import logged
from lrqmm.bench.sources import workload
from lrqmm.bench.sources.files import write_pair

with logged(snakemake.log[0]):
    about = dict(snakemake.wildcards)
    A, B = workload(about["workload"]).make(about["case"], int(about["seed"]))
    write_pair(snakemake.output[0], A, B, about)
