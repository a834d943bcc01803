"""The workflow as a user meets it: runs, reruns, redraws, errors, interruption, a new method."""

import json
import shutil
from pathlib import Path

import pytest

from lrqmm.figures import list_figures
from lrqmm.store import read_run

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


def every_drawing() -> set[str]:
    return {f"{d.folder}/{d.name}.{suffix}" for d in list_figures() for suffix in d.suffixes}


def test_small_study_from_inputs_to_figures(small):
    run = small.folder / "results/small"
    assert shown(run) == every_drawing()
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
    output = project.run("figures", "--config", f"run={copy}")
    assert "measure_" not in output
    assert shown(copy) == every_drawing()
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
    assert all(drawing.name in report for drawing in list_figures())
