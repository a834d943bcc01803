import json
import os
import re
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from lrqmm import figures
from lrqmm._files import sha256
from lrqmm.bench.configuration import ConfigError, check_keys
from lrqmm.bench.data.matrices import InputError, check_pair
from lrqmm.bench.data.packages import PackageError, check_archives
from lrqmm.bench import progress
from lrqmm.bench.devices import gpus
from lrqmm.bench.imports import PACKAGE, file_hash
from lrqmm.load import available_cores
from lrqmm.bench.study import plan
from lrqmm.run.folder import FOLDERS
from lrqmm.bench.sources import input_sources

try:
    for path in workflow.configfiles:
        check_keys(path)
    study = plan(config, workflow.config_settings.config_args or [])
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
EXPERIMENTS = {
    shard.experiment: {"measure": shard.measure.name, **shard.measure.options()}
    for shard in study.shards
}
DRAWINGS = [each for each in figures.list_figures() if not each.missing(EXPERIMENTS)]


FOLDER = (RUN.parent / "inputs").as_posix()
SOURCES = input_sources(study.config)
# Made of what comes from a package registry.
PACKAGED = {
    path for path, given in study.inputs.items() if SOURCES[given.input].packaged
}
ONE_BY_ONE = {}  # by path below the folder, without its suffix
AT_ONCE = {}  # by source
for path, given in study.inputs.items():
    if SOURCES[given.input].at_once:
        AT_ONCE.setdefault(SOURCES[given.input].name, []).append(given)
    else:
        file = Path(path).relative_to(FOLDER).with_suffix("")
        ONE_BY_ONE[file.as_posix()] = given
CAPTIONS = Path(str(workflow.current_basedir)) / "../report"


def shards_that(*, alone):
    """A wildcard constraint that only shards meet which have the machine alone, or do not."""
    names = {shard.experiment for shard in study.shards if shard.measure.alone == alone}
    return "|".join(f"{name}(-.+)?" for name in sorted(names)) or "(?!)"


def files_of(wildcards):
    return [pair.path for pair in SHARDS[wildcards.shard].inputs]


def own_files_of(wildcards):
    """Files of the user's that a shard reads beside its inputs, such as a network's weights."""
    return SHARDS[wildcards.shard].measure.files()


def plan_of(wildcards):
    return json.dumps(SHARDS[wildcards.shard].as_dict(), sort_keys=True)


def memory_of(wildcards, attempt):
    """Megabytes that a cluster is asked for; more at each retry."""
    return attempt * SHARDS[wildcards.shard].megabytes


def attempt_of(wildcards, attempt):
    return attempt


def minutes_of(wildcards, attempt):
    return attempt * SHARDS[wildcards.shard].minutes


def code_of(wildcards):
    shard = SHARDS[wildcards.shard]
    chosen = {setting["method"] for setting in shard.settings if "method" in setting}
    names = chosen or {shard.method}
    return sorted(shard.measure.code_hash(name) for name in names)


def source_hash(*names):
    return file_hash(*(PACKAGE / name for name in names))


def drawn():
    """Every figure and table that the study's experiments are enough for, and what is left out."""
    drawings = (*DRAWINGS, figures.LEFT_OUT)
    return [str(path) for drawing in drawings for path in drawing.paths(RUN)]


def say_what_no_figure_draws():
    for line in figures.without_figure(EXPERIMENTS):
        print(line, file=sys.stderr)


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


def section_of(name):
    """What the configuration says of an input."""
    return SOURCES[name].section_of(name, study.config.get(SOURCES[name].name, {}))


def files_of_input(wildcards):
    name = ONE_BY_ONE[wildcards.pair].input
    return [str(file) for file in SOURCES[name].files(name, section_of(name))]


def plan_of_inputs(inputs):
    """What a job makes: some pairs of one source."""
    name = inputs[0].input
    plan = {"source": SOURCES[name].name, "section": section_of(name)}
    return json.dumps(
        {**plan, "pairs": [asdict(given) for given in inputs]}, sort_keys=True
    )


def code_of_input(name):
    source = SOURCES[name]
    file = f"bench/sources/{source.name}.py"
    return source_hash(file, "bench/data/matrices.py", *source.code)


def megabytes_of(inputs):
    return max(SOURCES[given.input].megabytes(given) for given in inputs)


def caption_of(name):
    """Its own, where there is one."""
    return f"../report/{name if (CAPTIONS / f'{name}.rst').exists() else 'figure'}.rst"
