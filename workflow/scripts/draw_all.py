"""Draw every figure and table of a run folder; of a merged run, a folder a machine."""

import re
import sys
from collections import Counter
from dataclasses import replace

from lrqmm.bench.progress import logged
from lrqmm.bench.study import titles
from lrqmm.figures import save_all
from lrqmm.run.read import read_run

with logged(snakemake.log[0]):
    run = read_run(snakemake.params.run, unfinished=True)
    if not (run.folder / "manifest.json").exists():
        print(f"{run.folder} is unfinished: drawn from what is there", file=sys.__stderr__)
        run = replace(run, titles=titles())
    parts = {run.folder: run}
    if len(run.machines) > 1 and "merged" in run.environment:
        names = {machine: re.sub(r"[^A-Za-z0-9]+", "-", machine) for machine in run.machines}
        parts = {run.folder / name: run.on(machine) for machine, name in names.items()}
    paths = save_all(parts, snakemake.threads, snakemake.params.promised)
    drawn = Counter(path.parent for path in paths)
    for folder, files in drawn.items():
        print(f"{files} files in {folder}", file=sys.__stderr__)
    print("what is left out: tables/left_out.html", file=sys.__stderr__)
