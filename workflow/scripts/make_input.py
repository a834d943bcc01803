"""Make pairs of matrices of a source, and write each."""

import json
import sys

from lrqmm.bench.data.matrices import write_pair
from lrqmm.bench.progress import logged
from lrqmm.bench.sources import SOURCES, Pair

with logged(snakemake.log[0]):
    plan = json.loads(snakemake.params.plan)
    pairs = [Pair(**pair) for pair in plan["pairs"]]
    for pair, A, B, about in SOURCES.get(plan["source"]).make(pairs, plan["section"]):
        write_pair(pair.path, A, B, about)
        print(f"{pair.path}: A {A.shape}, B {B.shape}, {dict(about)}", file=sys.stderr)
