import json
import os
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

from lrqmm import figures
from lrqmm.inputs.files import InputError, check_pair, sha256
from lrqmm.inputs.packages import PackageError, check_archives
from lrqmm.measure import progress
from lrqmm.measure.devices import gpus
from lrqmm.measure.environment import PACKAGE, available_cores, code_hash, file_hash
from lrqmm.study import ConfigError, plan
from lrqmm.workloads import list_workloads, workload

with open(workflow.source_path("../schemas/config.schema.yaml")) as stream:
    SCHEMA = yaml.safe_load(stream)
try:
    study = plan(config, SCHEMA)
except ConfigError as error:
    raise WorkflowError(str(error))

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
