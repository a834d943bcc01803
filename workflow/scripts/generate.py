"""Write one seeded pair of matrices."""

from lrqmm.inputs.files import write_sample
from lrqmm.measure.progress import logged

with logged(snakemake.log[0]):
    about = snakemake.wildcards
    m, k, n, seed = (int(value) for value in (about.m, about.k, about.n, about.seed))
    write_sample(snakemake.output[0], about.distribution, m, k, n, seed)
