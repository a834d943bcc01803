FOLDER = (RUN.parent / "inputs").as_posix()
PICTURES = study.config["resnet50"]["pictures"]
WORKLOADS = list_workloads()
# Made of what comes from a package registry.
PACKAGED = [
    path
    for path, given in study.inputs.items()
    if given.input == "resnet50"
    or (given.input in WORKLOADS and workload(given.input).packaged)
]
LAYERS = [path for path, given in study.inputs.items() if given.input == "resnet50"]


rule generate:
    output:
        f"{FOLDER}/{{distribution}}/{{m}}x{{k}}x{{n}}-seed{{seed}}.safetensors",
        f"{FOLDER}/{{distribution}}/{{m}}x{{k}}x{{n}}-seed{{seed}}.safetensors.sha256",
    log:
        f"{RUN}/logs/generate/{{distribution}}-{{m}}x{{k}}x{{n}}-seed{{seed}}.log",
    wildcard_constraints:
        distribution="[a-z0-9]+",
        m=r"\d+",
        k=r"\d+",
        n=r"\d+",
        seed=r"\d+",
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: attempt * memory_to_generate(wildcards),
    params:
        code=source_hash("bench/sources/distributions.py", "bench/sources/files.py"),
    script:
        "../scripts/generate.py"


rule make_workload:
    output:
        f"{FOLDER}/{{workload}}/{{case}}-seed{{seed}}.safetensors",
        f"{FOLDER}/{{workload}}/{{case}}-seed{{seed}}.safetensors.sha256",
    log:
        f"{RUN}/logs/generate/{{workload}}-{{case}}-seed{{seed}}.log",
    wildcard_constraints:
        workload="|".join(WORKLOADS),
        case="[a-z0-9_]+",
        seed=r"\d+",
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=4000,
    params:
        code=lambda wildcards: source_hash(
            f"bench/sources/{wildcards.workload}.py", "bench/sources/files.py"
        ),
    script:
        "../scripts/make_workload.py"


rule import_matrices:
    input:
        lambda wildcards: [
            str(matrix_file(study.config["matrices"][wildcards.name][side]))
            for side in "AB"
        ],
    output:
        f"{FOLDER}/matrices/{{name}}.safetensors",
        f"{FOLDER}/matrices/{{name}}.safetensors.sha256",
    log:
        f"{RUN}/logs/import/{{name}}.log",
    conda:
        "../../envs/conda.yaml"
    params:
        files=lambda wildcards: study.config["matrices"][wildcards.name],
        code=source_hash("bench/sources/files.py"),
    script:
        "../scripts/import_matrices.py"


if LAYERS:

    rule capture_resnet50:
        output:
            LAYERS,
            [f"{path}.sha256" for path in LAYERS],
        log:
            f"{RUN}/logs/capture_resnet50.log",
        conda:
            "../../envs/conda.yaml"
        threads: ALL_CORES
        resources:
            mem_mb=6000,
            runtime=30,
        params:
            pictures=PICTURES,
            layers=len(LAYERS),
            code=source_hash(
                "bench/sources/resnet50.py",
                "bench/data/pictures.py",
                "bench/networks/resnet50.py",
                "bench/networks/resnet50_weights.py",
                "bench/sources/files.py",
            ),
        script:
            "../scripts/capture_resnet50.py"


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
