"""Write one seeded pair of matrices."""

from lrqmm.bench.progress import logged
from lrqmm.bench.sources.files import write_sample

with logged(snakemake.log[0]):
    about = snakemake.wildcards
    m, k, n, seed = (int(value) for value in (about.m, about.k, about.n, about.seed))
    write_sample(snakemake.output[0], about.distribution, m, k, n, seed)
