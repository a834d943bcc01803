# The report lists its categories by name; findings come first.
CATEGORIES = {"compose": "1 Findings", "draw": "2 Figures", "tabulate": "3 Tables"}


# Every figure and table of the run in one job: a process for each would spend its time on imports.
# Promised are those that the study's experiments are enough for; left_out.html lists the others.
rule draw:
    input:
        MANIFEST,
    output:
        [
            report(
                str(drawing.paths(RUN)[0]),
                caption=caption_of(drawing.name),
                category=CATEGORIES[drawing.function],
                labels={"name": drawing.name},
            )
            for drawing in DRAWINGS
        ],
        [str(path) for drawing in DRAWINGS for path in drawing.paths(RUN)[1:]],
        str(figures.LEFT_OUT.paths(RUN)[0]),
    log:
        f"{RUN}/logs/draw.log",
    localrule: True
    conda:
        "../../envs/conda.yaml"
    threads: ALL_CORES
    params:
        run=lambda wildcards, input: os.path.dirname(input[0]),
        promised=[drawing.name for drawing in DRAWINGS],
        code=source_hash(
            *(f"figures/{drawing.name}.py" for drawing in figures.list_figures()),
            "figures/_style.py",
            "figures/_data.py",
            "figures/_page.py",
        ),
    script:
        "../scripts/draw_all.py"


# One page that shows every setting of the run; `lrqmm explore` makes one of several runs.
rule explorer:
    input:
        MANIFEST,
    output:
        report(
            f"{RUN}/explorer.html",
            caption="../report/explorer.rst",
            category="4 Explorer",
        ),
    log:
        f"{RUN}/logs/explorer.log",
    localrule: True
    conda:
        "../../envs/conda.yaml"
    params:
        code=source_hash(
            *(
                f"explorer/{name}"
                for name in ("__init__.py", "page.html", "style.css", "explorer.js")
            ),
            "figures/_style.py",
        ),
    script:
        "../scripts/explorer.py"


# Every figure and table of any run folder, from its measurements alone: nothing is measured.
rule figures:
    log:
        f"{RUN}/logs/figures.log",
    conda:
        "../../envs/conda.yaml"
    threads: ALL_CORES
    params:
        run=str(RUN),
        promised=[],
    script:
        "../scripts/draw_all.py"


# The notebooks, executed on a run folder; like `figures` they read it and measure nothing.
NOTEBOOKS = glob_wildcards("notebooks/{name,[^/.]+}.ipynb").name


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
