import json
import os
import shlex
import sys
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from lrqmm import figures
from lrqmm.bench.configuration import ConfigError, check_keys
from lrqmm.bench.sources.files import InputError, check_pair, matrix_file, sha256
from lrqmm.bench.data.packages import PackageError, check_archives
from lrqmm.bench import progress
from lrqmm.bench.devices import gpus
from lrqmm.bench.environment import PACKAGE, available_cores, code_hash, file_hash
from lrqmm.bench.study import plan
from lrqmm.bench.sources import list_workloads, workload

with open(workflow.source_path("../schemas/config.schema.yaml")) as stream:
    SCHEMA = yaml.safe_load(stream)
try:
    for path in workflow.configfiles:
        check_keys(path)
    study = plan(config, SCHEMA, workflow.config_settings.config_args or [])
except ConfigError as error:
    raise WorkflowError(str(error))

# Snakemake puts it into the shell's command of each job without quotes.
if os.path.exists(sys.executable):
    sys.executable = shlex.quote(sys.executable)

# The console. Where --logger puts another in its place, that one is left alone.
CONSOLES = [
    handler for handler in logger.handlers if handler.name == "DefaultStreamHandler"
]
for console in CONSOLES:
    console.setFormatter(progress.Readable(console.formatter))

# Jobs in environments of their own find lrqmm in this checkout.
os.environ.update(PYTHONPATH=str(PACKAGE.parent))

# `workflow.cores` raises where no --cores is given, as for --report and on clusters.
ALL_CORES = workflow.resource_settings.cores or available_cores()
# Timing shards run side by side only where each has a GPU.
GPUS = gpus() if study.device == "cuda" else []
TIMING_CORES = max(1, ALL_CORES // max(1, len(GPUS)))

RUN = Path(study.run)
MANIFEST = f"{RUN}/manifest.json"
INPUTS_READY = f"{RUN}/inputs.json"
PROGRESS = RUN / "progress.json"
TABLES = [str(progress.output(RUN, shard)) for shard in study.shards]
SHARDS = {shard.name: shard for shard in study.shards}


def shards_of(*measures):
    """A wildcard constraint that only shards of these measures meet."""
    names = {shard.experiment for shard in study.shards if shard.measure in measures}
    return "|".join(f"{name}(-.+)?" for name in sorted(names)) or "(?!)"


def files_of(wildcards):
    return [given.path for given in SHARDS[wildcards.shard].inputs]


def own_files_of(wildcards):
    """The user's weights and data that a network is measured on, where they are files."""
    asked = SHARDS[wildcards.shard].network
    return [asked[key] for key in ("weights", "data") if os.path.isfile(asked[key])]


def plan_of(wildcards):
    return json.dumps(SHARDS[wildcards.shard].as_dict(), sort_keys=True)


def memory_of(wildcards, attempt):
    """Megabytes that a cluster is asked for; more at each retry."""
    return attempt * SHARDS[wildcards.shard].megabytes


def attempt_of(wildcards, attempt):
    return attempt


def memory_to_generate(wildcards):
    m, k, n = int(wildcards.m), int(wildcards.k), int(wildcards.n)
    return 500 + 40 * (m * k + k * n) // 10**6


def minutes_of(wildcards, attempt):
    return attempt * SHARDS[wildcards.shard].minutes


def code_of(wildcards):
    shard = SHARDS[wildcards.shard]
    chosen = {setting["method"] for setting in shard.settings if "method" in setting}
    names = chosen or {shard.method}
    return sorted(code_hash(name, network=bool(shard.network)) for name in names)


def source_hash(*names):
    return file_hash(*(PACKAGE / name for name in names))


def drawn():
    """Every figure and table of the run."""
    return [
        f"{RUN}/{figure.folder}/{figure.name}.{suffix}"
        for figure in figures.list_figures()
        for suffix in figure.suffixes
    ]


def check_inputs():
    """Files that are already there must be what was written, before anything is measured."""
    try:
        check_archives()
    except PackageError as error:
        raise WorkflowError(str(error))
    for path in study.inputs:
        if os.path.exists(path):
            try:
                check_pair(path)
            except InputError as error:
                raise WorkflowError(str(error))


def show_less():
    """No lines about each job, unless --verbose asks for them; the log file has them."""
    if not workflow.output_settings.verbose:
        for console in CONSOLES:
            console.addFilter(progress.Brief())


def let_scheduler_sleep():
    """Drop Snakemake's usual limit of 100 starts a second, unless another one was asked for.

    To keep it, each look for jobs starts a timer for the next look, and each job that ends begins
    a chain of them: after 300 jobs the scheduler looks 300 times a second.
    """
    limiter = workflow.scheduler.job_rate_limiter
    if limiter and (limiter.max_jobs, limiter.timespan) == (100, 1):
        workflow.scheduler.job_rate_limiter = None
