"""Draw one figure or table of a run."""

from pathlib import Path

from lrqmm.figures import save
from lrqmm.measure.progress import logged
from lrqmm.store import read_run

with logged(snakemake.log[0]):
    folder = Path(snakemake.input[0]).parent
    save(snakemake.params.name, read_run(folder), folder)
