CATEGORIES = {"figures": "Figures", "tables": "Tables"}


# One figure or table of the run; reruns when its measurements or its own file change.
for drawing in figures.list_figures():

    rule:
        name:
            f"draw_{drawing.name}"
        input:
            MANIFEST,
        output:
            report(
                f"{RUN}/{drawing.folder}/{drawing.name}.{drawing.suffixes[0]}",
                caption=f"../report/{drawing.name}.rst",
                category=CATEGORIES[drawing.folder],
                labels={"name": drawing.name},
            ),
            f"{RUN}/{drawing.folder}/{drawing.name}.{drawing.suffixes[1]}",
        log:
            f"{RUN}/logs/draw/{drawing.name}.log",
        localrule: True
        conda:
            "../../envs/conda.yaml"
        params:
            name=drawing.name,
            code=source_hash(
                f"figures/{drawing.name}.py", "figures/_style.py", "figures/_data.py"
            ),
        script:
            "../scripts/draw.py"


# Every figure and table of any run folder, from its measurements alone: nothing is measured.
rule figures:
    log:
        f"{RUN}/logs/figures.log",
    conda:
        "../../envs/conda.yaml"
    threads: ALL_CORES
    params:
        run=str(RUN),
    script:
        "../scripts/draw_all.py"


# The notebooks, executed on a run folder; like `figures` they read it and measure nothing.
NOTEBOOKS = glob_wildcards("notebooks/{name}.ipynb").name


rule execute_notebook:
    input:
        "notebooks/{name}.ipynb",
    output:
        f"{RUN}/notebooks/{{name}}.ipynb",
    log:
        f"{RUN}/logs/notebooks/{{name}}.log",
    conda:
        "../../envs/conda.yaml"
    params:
        run=str(RUN.resolve()),
        manifest=sha256(Path(MANIFEST)) if os.path.exists(MANIFEST) else "none yet",
    script:
        "../scripts/execute_notebook.py"


rule notebooks:
    input:
        expand(f"{RUN}/notebooks/{{name}}.ipynb", name=NOTEBOOKS),
    localrule: True
