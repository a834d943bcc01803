rule make_input:
    input:
        files_of_input,
    output:
        f"{FOLDER}/{{pair}}.safetensors",
        f"{FOLDER}/{{pair}}.safetensors.sha256",
    log:
        f"{RUN}/logs/inputs/{{pair}}.log",
    wildcard_constraints:
        pair="|".join(map(re.escape, ONE_BY_ONE)) or "(?!)",
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: attempt
        * megabytes_of([ONE_BY_ONE[wildcards.pair]]),
    params:
        plan=lambda wildcards: plan_of_inputs([ONE_BY_ONE[wildcards.pair]]),
        code=lambda wildcards: code_of_input(ONE_BY_ONE[wildcards.pair].input),
    script:
        "../scripts/make_input.py"


# A source that makes all of its pairs in one job, with the machine to itself.
for name, inputs in AT_ONCE.items():

    rule:
        name:
            f"make_{name}"
        output:
            [given.path for given in inputs],
            [f"{given.path}.sha256" for given in inputs],
        log:
            f"{RUN}/logs/inputs/{name}.log",
        conda:
            "../../envs/conda.yaml"
        threads: ALL_CORES
        resources:
            mem_mb=megabytes_of(inputs),
            runtime=30,
        params:
            plan=plan_of_inputs(inputs),
            code=code_of_input(inputs[0].input),
        script:
            "../scripts/make_input.py"


# Nothing is measured before every input is there and whole. Some need packages from a registry:
# without a connection they fail alone, and all that does not need them is still measured.
rule inputs_ready:
    input:
        [path for path in study.inputs if path not in PACKAGED],
    output:
        INPUTS_READY,
    log:
        f"{RUN}/logs/inputs_ready.log",
    conda:
        "../../envs/conda.yaml"
    script:
        "../scripts/inputs_ready.py"
