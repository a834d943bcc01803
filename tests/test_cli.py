"""The command line: what it prints, writes and exits with."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from oracle import distance
from typer.testing import CliRunner

import lrqmm
from lrqmm import comparison, template
from lrqmm.cli import _parameters, app
from lrqmm.store import read_run

ROOT = Path(__file__).parent.parent
run = CliRunner().invoke


@pytest.fixture
def matrices(tmp_path):
    rng = np.random.default_rng(0)
    A, B = rng.random((40, 60), np.float32), rng.random((60, 30), np.float32)
    np.save(tmp_path / "A.npy", A)
    np.save(tmp_path / "B.npy", B)
    np.save(tmp_path / "W.npy", np.ascontiguousarray(B.T))
    return A, B


def test_advise(matrices, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["advise", "A.npy", "W.npy", "--transpose-b", "--max-error", "0.01", "--goal", "bits"]
    found = run(app, words)
    assert found.exit_code == 0, found.output
    assert "C = lrqmm.matmul(A, B, " in found.output
    found = run(app, [*words, "--json"])
    best = json.loads(found.stdout)["best"]
    names = {"A": matrices[0], "B": matrices[1], "lrqmm": lrqmm}
    exec(best["python"], names)
    assert distance(names["C"], matrices[0] @ matrices[1]) < 0.011
    assert set(yaml.safe_load(best["config"])) == {"methods", "settings"}


def test_advise_where_nothing_is_that_exact(matrices, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = run(app, ["advise", "A.npy", "B.npy", "--max-error", "1e-12"])
    assert found.exit_code == 2
    assert "keeps an error of 1e-12" in found.output
    found = run(app, ["advise", "A.npy", "B.npy", "--max-error", "1e-12", "--json"])
    assert found.exit_code == 2
    assert json.loads(found.stdout)["best"] is None


def test_matmul(matrices, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["matmul", "A.npy", "B.npy", "--method", "direct", "-p", "bits=4", "--out", "C.npy"]
    assert run(app, words).exit_code == 0
    C = np.load("C.npy")
    np.testing.assert_array_equal(C, lrqmm.matmul(*matrices, "direct", bits=4))
    said = json.loads(run(app, [*words, "--json"]).stdout)
    assert np.isclose(said["relative_error"], distance(C, matrices[0] @ matrices[1]), rtol=1e-3)
    assert said["parameters"]["bits"] == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["A.npy", "B.npy", "--method", "dirct", "--out", "C.npy"], "method is 'dirct'"),
        (["A.npy", "B.npy", "-p", "bits", "--out", "C.npy"], "allowed: NAME=VALUE"),
        (["A.npy", "B.npy", "-p", "bits=9", "--out", "C.npy"], "bits is 9"),
        (["A.npy", "B.npy", "--out", "C.txt"], "allowed: a .npy file"),
        (["A.npy", "A.npy", "--out", "C.npy"], "40 x 60"),
        (["A.npy", "none.npy", "--out", "C.npy"], "none.npy"),
        (["A.npy", "B.npy", "--library", "jax", "--out", "C.npy"], "library is 'jax'"),
    ],
)
def test_wrong_words_are_one_error_and_leave_nothing(words, said, matrices, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    found = run(app, ["matmul", *words])
    assert found.exit_code == 1
    assert found.stderr.count("error: ") == 1
    assert said in found.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_parameters_are_words_of_a_configuration():
    found = _parameters(["bits=4", "rank=auto", "zero_point=null", "tolerance=1.0e-3"])
    assert found == {"bits": 4, "rank": "auto", "zero_point": None, "tolerance": 1e-3}


def test_methods():
    names = [each["name"] for each in json.loads(run(app, ["methods", "--json"]).stdout)]
    assert names == lrqmm.list_methods()
    assert "LRQMM" in run(app, ["methods"]).stdout
    assert "gu2024lrqmm" in run(app, ["methods", "lrqmm"]).stdout
    assert run(app, ["methods", "lrqm"]).exit_code == 1


@pytest.mark.parametrize("name", ["compositions-cpu-2core", "rivals-cpu-2core"])
def test_a_run_beside_itself(name):
    folder = str(ROOT / "results/reference" / name)
    found = json.loads(run(app, ["compare", folder, folder, "--json"]).stdout)
    assert found
    assert all(row["ratio"] == 1 or row["left"] == 0 for row in found)
    assert run(app, ["compare", folder, folder]).exit_code == 0


def test_a_run_twice_as_wrong(tmp_path):
    left = read_run(ROOT / "results/reference/rivals-cpu-2core")
    table = left.measurements
    worse = table.assign(
        value=table["value"].where(table["metric"] != "relative_error", 2 * table["value"])
    )
    both = comparison.compare(left, replace(left, measurements=worse))
    errors = both[both["metric"] == "relative_error"]
    assert len(errors)
    assert np.allclose(errors["ratio"], 2)
    summary = comparison.by_method(both).set_index(["metric", "method"])
    assert summary.loc[("relative_error", "lrqmm"), "ratio"] == 2
    assert summary.loc[("relative_error", "lrqmm"), "equal"] == 0
    with pytest.raises(ValueError, match="no setting in common"):
        comparison.compare(left, replace(left, measurements=table.iloc[:0]))


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "src/lrqmm/methods").mkdir(parents=True)
    (tmp_path / "tests").mkdir()
    return tmp_path


def test_a_new_method_works_as_it_is_written(checkout, monkeypatch):
    from lrqmm import methods

    method, test = template.new_method("my_own", checkout)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(method.parent)])
    assert "my_own" in lrqmm.list_methods()
    namespace = {"__name__": "written"}
    exec(compile(test.read_text(), str(test), "exec"), namespace)
    namespace["test_my_own"]((40, 60, 30))
    assert "class MyOwn(Compensator)" in method.read_text()


@pytest.mark.parametrize("name", ["My", "my-own", "1st", "for", "_x", "", "größe"])
def test_names_that_no_method_has(name, checkout):
    with pytest.raises(ValueError, match="allowed: lower case"):
        template.new_method(name, checkout)


def test_a_name_that_is_taken(checkout):
    first = template.new_method("mine", checkout)
    text = first[0].read_text()
    first[0].unlink()
    with pytest.raises(ValueError, match=r"test_mine\.py is there already"):
        template.new_method("mine", checkout)
    assert not first[0].exists()
    first[0].write_text(text + "# kept")
    with pytest.raises(ValueError, match=r"mine\.py is there already"):
        template.new_method("mine", checkout)
    assert first[0].read_text().endswith("# kept")


def test_an_explorer_of_two_runs(tmp_path):
    folders = [str(ROOT / "results/reference" / name) for name in ("cpu-2core", "rivals-cpu-2core")]
    said = json.loads(
        run(app, ["explore", *folders, "--out", str(tmp_path / "both.html"), "--json"]).stdout
    )
    assert said["bytes"] == (tmp_path / "both.html").stat().st_size
    text = (tmp_path / "both.html").read_text()
    assert all(Path(folder).name in text for folder in folders)
    assert run(app, ["explore", str(tmp_path), "--out", str(tmp_path / "none.html")]).exit_code == 1
    assert not (tmp_path / "none.html").exists()
