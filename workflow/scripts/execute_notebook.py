"""Execute one notebook on a run."""

import papermill

from lrqmm.bench.progress import logged

with logged(snakemake.log[0]):
    papermill.execute_notebook(
        snakemake.input[0],
        snakemake.output[0],
        parameters={"run": snakemake.params.run},
        cwd="notebooks",
        progress_bar=False,
    )
