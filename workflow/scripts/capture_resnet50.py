"""Run the packaged ResNet-50 and store the product of each of its layers."""

import sys
from pathlib import Path

from lrqmm.bench.data.pictures import labelled_pictures
from lrqmm.bench.networks.resnet50 import load_resnet50, top1
from lrqmm.bench.progress import logged
from lrqmm.bench.sources.files import write_pair
from lrqmm.bench.sources.resnet50 import capture_resnet50

with logged(snakemake.log[0]):
    correct, total = top1(load_resnet50(), labelled_pictures())
    print(f"float32 ResNet-50: {correct} of {total} pictures right", file=sys.stderr)
    wanted = {Path(path).stem: path for path in snakemake.output if not path.endswith(".sha256")}
    about = {"pictures": snakemake.params.pictures, "top1": f"{correct} of {total}"}
    for layer, A, B in capture_resnet50(snakemake.params.pictures):
        if layer in wanted:
            write_pair(wanted[layer], A, B, {"layer": layer, **about})
            print(f"{layer}: A {A.shape}, B {B.shape}", file=sys.stderr)
