# Errors do not depend on the neighbours, so those shards run side by side, a core each.
rule measure_errors:
    input:
        files=files_of,
        ready=ancient(INPUTS_READY),
    output:
        f"{RUN}/measurements/{{shard}}.parquet",
    log:
        f"{RUN}/logs/measure/{{shard}}.log",
    wildcard_constraints:
        shard=shards_of("error", "count"),
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


# A timing shard has the machine to itself, or one of its GPUs and a share of its cores.
rule measure_times:
    input:
        files=files_of,
        ready=ancient(INPUTS_READY),
    output:
        f"{RUN}/measurements/{{shard}}.parquet",
    log:
        f"{RUN}/logs/measure/{{shard}}.log",
    wildcard_constraints:
        shard=shards_of("time"),
    conda:
        "../../envs/conda.yaml"
    threads: TIMING_CORES
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


rule measure_arrays:
    input:
        files=files_of,
        ready=ancient(INPUTS_READY),
    output:
        f"{RUN}/arrays/{{shard}}.parquet",
    log:
        f"{RUN}/logs/measure/{{shard}}.log",
    wildcard_constraints:
        shard=shards_of("spectrum", "steps", "pictures"),
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=memory_of,
        runtime=minutes_of,
        attempt=attempt_of,
    params:
        shard=plan_of,
        code=code_of,
        device="cpu",
        progress=str(PROGRESS),
    script:
        "../scripts/measure.py"


# A network's passes are timed too, so its shards have the machine to themselves.
rule measure_networks:
    input:
        own=own_files_of,
        ready=ancient(INPUTS_READY),
    output:
        f"{RUN}/networks/{{shard}}.parquet",
    log:
        f"{RUN}/logs/measure/{{shard}}.log",
    wildcard_constraints:
        shard=shards_of("network"),
    conda:
        "../../envs/conda.yaml"
    threads: TIMING_CORES
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
