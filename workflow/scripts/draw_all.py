"""Draw every figure and table of a run folder."""

import sys

from lrqmm.figures import list_figures, save
from lrqmm.measure.progress import logged
from lrqmm.store import read_run

with logged(snakemake.log[0]):
    run = read_run(snakemake.params.run, unfinished=True)
    if not (run.folder / "manifest.json").exists():
        print(f"{run.folder} is unfinished: drawn from what is there", file=sys.__stderr__)
    for drawing in list_figures():
        for path in save(drawing.name, run, run.folder):
            print(path, file=sys.__stderr__)
