# Errors do not depend on the neighbours, so those shards run side by side, a core each.
rule measure_errors:
    input:
        files=files_of,
        own=own_files_of,
        ready=ancient(INPUTS_READY),
    output:
        f"{RUN}/{{table}}/{{shard}}.parquet",
    log:
        f"{RUN}/logs/{{table}}/{{shard}}.log",
    wildcard_constraints:
        table="|".join(FOLDERS),
        shard=shards_that(alone=False),
    conda:
        "../../envs/conda.yaml"
    threads: 1
    resources:
        mem_mb=memory_of,
        runtime=minutes_of,
        attempt=attempt_of,
    params:
        shard=plan_of,
        code=code_of,
        device=study.device,
        progress=str(PROGRESS),
    script:
        "../scripts/measure.py"


# A shard that times has the machine to itself, or one of its GPUs and a share of its cores.
use rule measure_errors as measure_times with:
    wildcard_constraints:
        table="|".join(FOLDERS),
        shard=shards_that(alone=True),
    threads: TIMING_CORES


rule environment:
    output:
        f"{RUN}/environment.json",
    log:
        f"{RUN}/logs/environment.log",
    conda:
        "../../envs/conda.yaml"
    script:
        "../scripts/environment.py"


rule manifest:
    input:
        tables=TABLES,
        environment=f"{RUN}/environment.json",
    output:
        MANIFEST,
    log:
        f"{RUN}/logs/manifest.log",
    localrule: True
    conda:
        "../../envs/conda.yaml"
    params:
        study=json.dumps(study.config, sort_keys=True),
    script:
        "../scripts/manifest.py"
