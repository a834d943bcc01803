"""Write one seeded pair of matrices."""

from lrqmm.inputs.distributions import sample
from lrqmm.inputs.files import write_pair
from lrqmm.measure.progress import logged

with logged(snakemake.log[0]):
    about = dict(snakemake.wildcards)
    m, k, n, seed = (int(about[key]) for key in ("m", "k", "n", "seed"))
    write_pair(snakemake.output[0], *sample(about["distribution"], m, k, n, seed), about)
