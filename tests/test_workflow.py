"""The workflow as a user meets it: runs, reruns, redraws, errors, interruption, a new method."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml

from lrqmm.bench import progress
from lrqmm.figures import LEFT_OUT, list_figures
from lrqmm.run.folder import write_json
from lrqmm.run.read import read_run

ROOT = Path(__file__).parent.parent
SMALL = ("--configfile", "config/test/small.yaml")


@pytest.fixture(scope="module")
def small(make_project):
    project = make_project("small")
    project.run(*SMALL)
    return project


def shown(folder: Path) -> set[str]:
    """Relative paths of all figures and tables in a run folder."""
    return {
        path.relative_to(folder).as_posix()
        for kind in ("figures", "tables")
        for path in (folder / kind).iterdir()
    }


def drawings(configuration: Path) -> set[str]:
    """What the experiments of a configuration are enough for, and the table of what is left out."""
    experiments = yaml.safe_load(configuration.read_text())["experiments"]
    enough = [drawing for drawing in list_figures() if not drawing.missing(experiments)]
    return {path.as_posix() for each in (*enough, LEFT_OUT) for path in each.paths(Path())}


def test_small_study_from_inputs_to_figures(small):
    run = small.folder / "results/small"
    assert shown(run) == drawings(ROOT / SMALL[1])
    assert all((run / path).stat().st_size > 0 for path in shown(run))
    table = read_run(run).measurements
    assert set(table["experiment"]) == {
        "rank", "size", "distributions", "ablation", "resnet50", "time", "time_plain", "growth",
        "growth_rank", "pareto", "cost", "time_int4", "shapes", "images", "precoding",
    }  # fmt: skip
    assert set(table.loc[table["status"] != "ok", "method"]) <= {"fp8", "tf32"}
    networks = read_run(run).networks
    assert set(networks["network"]) == {"resnet50", "minilm"}
    assert (networks["status"] == "ok").all()
    layers = table[(table["experiment"] == "resnet50") & (table["method"] == "direct")]
    assert set(layers["layer"]) == {"res2a_branch2b", "fc1000"}
    assert layers["value"].between(1e-4, 1).all()
    assert not any("no " in p.read_text()[:400] for p in (run / "tables").glob("table[1-4]*.csv"))
    assert "Nothing to be done" in small.run(*SMALL)


def test_figures_are_redrawn_from_a_run_folder_alone(small, project):
    source, copy = small.folder / "results/small", project.folder / "elsewhere"
    copy.mkdir()
    for part in ("measurements", "networks", "arrays"):
        shutil.copytree(source / part, copy / part)
    for part in ("environment.json", "manifest.json"):
        shutil.copy(source / part, copy / part)
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*.*")}
    project.run("figures", "--config", f"run={copy}")
    assert "rule figures" in project.log
    assert "measure_" not in project.log
    assert shown(copy) == drawings(ROOT / SMALL[1])
    assert all(path.stat().st_mtime_ns == old for path, old in before.items())


def test_notebooks_run(small):
    small.run("notebooks", *SMALL)
    for source in (small.folder / "notebooks").glob("*.ipynb"):
        assert not any(cell.get("outputs") for cell in json.loads(source.read_text())["cells"])
        made = json.loads((small.folder / "results/small/notebooks" / source.name).read_text())
        kinds = {
            kind
            for cell in made["cells"]
            for output in cell.get("outputs", [])
            for kind in output.get("data", {})
        }
        assert kinds & {"image/png", "text/html"}, source.name


def test_report(small):
    small.run(*SMALL, "--report", "results/small/report.html")
    report = (small.folder / "results/small/report.html").read_text()
    promised = drawings(ROOT / SMALL[1]) - {LEFT_OUT.paths(Path())[0].as_posix()}
    assert all(Path(path).stem in report for path in promised)


MANY = {
    "run": "results/many",
    "device": "cpu",
    "experiments": {
        "distributions": {
            "measure": "error",
            "inputs": ["uniform01", "normal"],
            "sizes": list(range(8, 20)),
            "methods": ["direct"],
            "settings": {"bits": 4},
        }
    },
}
"""24 jobs that make inputs, and one that takes all of them."""


@pytest.fixture(scope="module")
def many(make_project):
    """A run of many short jobs: the project, its console, threads of Snakemake each moment."""
    project = make_project("many")
    (project.folder / "many.yaml").write_text(yaml.safe_dump(MANY))
    console = project.folder / "console"
    with console.open("w") as stream:
        process = subprocess.Popen(
            project.command("measurements", "--configfile", "many.yaml"),
            cwd=project.folder, env=project.environment, stdout=stream, stderr=subprocess.STDOUT,
        )  # fmt: skip
        threads = []
        while process.poll() is None:
            threads.append(psutil.Process(process.pid).num_threads())
            time.sleep(0.2)
    assert process.returncode == 0, console.read_text()
    return project, console.read_text(), threads


def test_the_scheduler_sleeps_while_jobs_run(many):
    """Snakemake's timers, a thread for each job that ended, are not there."""
    _, _, threads = many
    assert len(threads) > 20
    assert max(threads) < 16  # 24 jobs ended; 2 at once, and Snakemake's own seven


def test_the_console_shows_progress_and_not_each_job(many):
    project, console, _ = many
    lines = console.splitlines()
    assert sum("steps" in line for line in lines) == 10
    assert sum(line.endswith("(100%) done") for line in lines) == 1
    assert len(lines) < 50
    assert max(map(len, lines)) < 200
    assert not any(word in console for word in ("jobid", "Select jobs", "rule make_input"))
    (log,) = (project.folder / ".snakemake/log").iterdir()
    assert str(log) in console
    assert log.read_text().count("localrule make_input:") == 24


def test_shards_are_announced_once_in_a_while(tmp_path, capsys):
    record = tmp_path / "progress.json"
    write_json({"started": time.time() - 60, "todo": {"a.parquet": 1.0, "b.parquet": 3.0}}, record)
    (tmp_path / "a.parquet").touch()
    progress.announce(record, tmp_path, "a")
    assert capsys.readouterr().err == ""  # the run has just begun
    os.utime(record, (0, time.time() - progress.PAUSE))
    progress.announce(record, tmp_path, "a")
    assert capsys.readouterr().err == "a: 1 of 2 shards in 60 s, about 3.0 min left\n"
    progress.announce(record, tmp_path, "b")
    assert capsys.readouterr().err == ""
    progress.announce(tmp_path / "none.json", tmp_path, "a")  # of a run that another began
    assert capsys.readouterr().err == "a: shard done\n"


def test_a_plan_of_jobs_shows_each_job_in_short_lines(many):
    project, _, _ = many
    shown = project.run("--dry-run", "--forceall", "measurements", "--configfile", "many.yaml")
    assert any(re.search("^    input: .* and 2[0-9] more$", line) for line in shown.splitlines())
    assert max(map(len, shown.splitlines())) < 300


def test_a_job_that_fails_is_shown_with_its_log(many, project):
    shutil.copytree(many[0].folder / "results", project.folder / "results")
    (project.folder / "many.yaml").write_text(yaml.safe_dump(MANY))
    script = project.folder / "workflow/scripts/measure.py"
    script.write_text(script.read_text().replace("    shard = ", "    1 / 0\n    shard = "))
    result = project.snakemake("measurements", "--forceall", "--configfile", "many.yaml")
    assert result.returncode != 0
    assert "error: division by zero" in result.stderr
    log = "results/many/logs/measurements/distributions-direct-torch-0.log"
    assert "Error in rule measure_errors:" in result.stderr
    assert f"    log: {log} (check log file(s) for error details)" in result.stderr
    assert "ZeroDivisionError" in (project.folder / log).read_text()
    assert (
        "    output: results/many/measurements/distributions-direct-torch-0.parquet"
        in result.stderr
    )
    assert max(map(len, result.stderr.splitlines())) < 300


ODD = "it's 100% of $HOME & #1; ~ü [a-z] (x) <B> *?"


def test_below_any_path(make_project):
    """Checkout, environment, configuration, run and matrices lie where a shell would stumble."""
    project = make_project("below")
    folder = project.folder / ODD
    folder.mkdir()
    for part in [*project.folder.iterdir()]:
        if part != folder:
            part.rename(folder / part.name)
    project.folder = folder
    (folder / ".venv").symlink_to(sys.prefix)
    project.python = str(folder / ".venv/bin/python")
    project.environment["PYTHONPATH"] = str(folder / "src")
    A = np.random.default_rng(0).random((16, 16), np.float32)
    matrix, config, run = f"{folder}/:{ODD}{{}}.npz", f"{folder}/{ODD}.yaml", f"results/:{ODD}:"
    np.savez(matrix, A=A)
    study = {
        "run": "unused",
        "device": "cpu",
        "matrices": {"mine": {"A": f"{matrix}:A", "B": f"{matrix}:A"}},
        "experiments": {
            "distributions": {
                "measure": "error", "inputs": ["mine", "normal"], "sizes": [16],
                "methods": ["direct"], "settings": {"bits": 4},
            },
        },
    }  # fmt: skip
    Path(config).write_text(yaml.safe_dump(study))
    project.run("--configfile", config, "--config", f"run={run}")
    table = read_run(folder / run).measurements
    assert set(table["input"]) == {"mine", "normal"}
    assert (table["status"] == "ok").all()
    assert shown(folder / run) == drawings(Path(config))
    report = "report of it's run.html"  # Snakemake puts the variable in the place of $HOME here
    project.run("--configfile", config, "--config", f"run={run}", "--report", report)
    assert (folder / report).stat().st_size > 1e5


NEW_FIGURE = '''"""Errors against bits, for a test."""

from matplotlib.figure import Figure

from lrqmm.figures import _style
from lrqmm.run.read import Run

NEEDS = ("distributions",)


def draw(run: Run) -> Figure:
    """One point per row."""
    table = run.experiment("distributions").query("metric == 'relative_error'")
    figure, axes = _style.plt.subplots()
    axes.plot(table["bits"].astype(float), table["value"], "o")
    return figure
'''


def test_a_new_file_is_a_new_figure(project):
    """Drawn, and in the report, without another edit."""
    (project.folder / "src/lrqmm/figures/brand_new.py").write_text(NEW_FIGURE)
    project.run("--configfile", "config/test/tiny.yaml")
    for suffix in ("png", "pdf"):
        assert (project.folder / f"results/tiny/figures/brand_new.{suffix}").stat().st_size > 3000
    left_out = (project.folder / "results/tiny/tables/left_out.html").read_text()
    assert "brand_new" not in left_out


def test_words_of_the_command_line_in_the_workflow(project):
    tiny = ("measurements", "--dry-run", "--configfile", "config/test/tiny.yaml", "--config")
    shown = project.run(*tiny, "run=results/007", "methods=direct")
    assert "results/007/measurements/distributions-direct-torch-0.parquet" in shown
    assert "resnet50-3pictures" in project.run(
        "--dry-run", "measurements", "--config", "resnet50={pictures: 3}", "run=20261129"
    )


def test_a_key_that_stands_twice_in_a_configuration(project):
    path = project.folder / "config/test/tiny.yaml"
    again = path.read_text().partition("experiments:\n")[2]
    path.write_text(path.read_text().rstrip("\n") + "\n" + again)
    result = project.snakemake("--dry-run", "--configfile", "config/test/tiny.yaml")
    assert result.returncode != 0
    said = result.stdout + result.stderr
    assert "tiny.yaml: key 'distributions' stands twice, in lines 7 and 13" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("name", ["a:b", "$HOME", "a {b}"])
def test_where_no_environment_can_be_none_is_begun(name, tmp_path):
    folder = tmp_path / name
    folder.mkdir()
    for part in ("Makefile", "pyproject.toml", "setup.py", "envs", "src/lrqmm/fused/passes.cpp"):
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        (folder / part).symlink_to(ROOT / part)
    done = subprocess.run(
        ["make", "run", f"PYTHON={sys.executable}"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode != 0
    said = f"This folder is {folder}; allowed for an environment: a path without : $ {{ }}\n"
    assert done.stderr.startswith(said)
    assert not (folder / ".venv").exists()
