"""Write the pair of matrices of one case of a workload."""

from lrqmm.inputs.files import write_pair
from lrqmm.measure.progress import logged
from lrqmm.workloads import workload

with logged(snakemake.log[0]):
    about = dict(snakemake.wildcards)
    A, B = workload(about["workload"]).make(about["case"], int(about["seed"]))
    write_pair(snakemake.output[0], A, B, about)
