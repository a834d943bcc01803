"""Check a user's own matrices and store them as a pair."""

from lrqmm.bench.progress import logged
from lrqmm.bench.sources.files import read_values, write_pair

with logged(snakemake.log[0]):
    files = snakemake.params.files
    A, B = read_values(files["A"]), read_values(files["B"])
    B = B.T if files.get("transpose_B") else B
    write_pair(snakemake.output[0], A, B, files)
