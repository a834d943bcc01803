"""Close a run: its files with their SHA-256, the study that asked for them, and titles."""

import json
from pathlib import Path

from lrqmm.bench.progress import logged
from lrqmm.bench.study import titles
from lrqmm.run.folder import write_manifest

with logged(snakemake.log[0]):
    folder = Path(snakemake.output[0]).parent
    write_manifest(folder, snakemake.input, json.loads(snakemake.params.study), titles())
