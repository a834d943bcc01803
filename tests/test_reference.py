"""The committed runs are whole, clean, and show what the README says."""

from pathlib import Path

import pytest

from lrqmm.figures import list_figures, make
from lrqmm.store import read_run

RUNS = sorted((Path(__file__).parent.parent / "results/reference").iterdir())


@pytest.fixture(scope="module", params=RUNS, ids=lambda folder: folder.name)
def run(request):
    return read_run(request.param)


def test_measured_from_one_clean_commit_on_an_idle_machine(run):
    table = run.measurements
    assert table["git_commit"].nunique() == 1
    assert not table["git_dirty"].any()
    assert not table.loc[table["metric"] == "seconds", "loaded"].any()
    assert not (table["status"] == "failed").any()


def test_every_figure_has_its_measurements(run):
    for drawing in list_figures():
        make(drawing.name, run)  # NothingToDraw where something is missing


def test_all_layers_of_resnet50_are_there(run):
    table = run.experiment("resnet50")
    assert table[table["status"] == "ok"].groupby("method")["layer"].nunique().eq(54).all()


def test_ablation_shows_where_the_gain_comes_from(run):
    table = make("table_ablation", run)
    table = table[(table["terms"] == "full") & (table["sketch"] == "ones+gaussian")]
    keys = ["input", "rounding", "method", "rank"]
    rows = table.set_index(keys).sort_index()
    assert rows.loc[("uniform01", "truncate", "lrqmm", 1), "least_gain"] >= 100
    assert abs(rows.loc[("normal", "nearest", "lrqmm", 1), "gain"] - 1) < 0.02
    error = rows["error"]
    plain = error.loc[("lowrank", "nearest", "lrqmm", 32)]
    assert error.loc[("lowrank", "nearest", "lrqmm_aware", 32)] <= plain / 5
