"""The explorer of a run folder: one page."""

from pathlib import Path

from lrqmm import explorer
from lrqmm.bench.progress import logged
from lrqmm.run.read import read_run

with logged(snakemake.log[0]):
    path = Path(snakemake.output[0])
    explorer.write([read_run(path.parent)], path)
