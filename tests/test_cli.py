"""The command line: what it prints, writes and exits with."""

import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
import yaml
from oracle import distance
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch
from test_verify import measure
from typer.testing import CliRunner

import lrqmm
from lrqmm import _extras, methods, tiled
from lrqmm.bench import template
from lrqmm.cli import app
from lrqmm.cli.matmul import parse_parameters
from lrqmm.run import compare as comparison
from lrqmm.run.read import read_run

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


def test_bfloat16_of_safetensors(matrices, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    W = torch.from_numpy(matrices[1].T.copy()).bfloat16()
    save_torch({"fc": W, "other": W[:1].clone()}, tmp_path / "W.safetensors")
    words = ["A.npy", "W.safetensors:fc", "--transpose-b"]
    found = run(app, ["matmul", *words, "--method", "sgemm", "--out", "C.npy"])
    assert found.exit_code == 0, found.output
    assert distance(np.load(tmp_path / "C.npy"), matrices[0] @ W.float().numpy().T) < 1e-6
    found = run(app, ["advise", *words, "--max-error", "0.01", "--goal", "bits"])
    assert found.exit_code == 0, found.output


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


def test_matmul_of_files_in_little_memory(matrices, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["matmul", "A.npy", "W.npy", "--transpose-b", "--memory", "1", "--out", "C.npy"]
    found = run(app, [*words, "-p", "bits=6", "--json"])
    assert found.exit_code == 0, found.output
    said = json.loads(found.stdout)
    assert said["relative_error"] is None
    assert said["parameters"]["power_iterations"] == 0
    C, W = np.load("C.npy"), np.load("W.npy")
    expected = lrqmm.matmul(matrices[0], W.T, bits=6, memory_limit=10**6)
    assert distance(C, expected) < 1e-6  # sums of other lengths
    assert distance(C, matrices[0] @ matrices[1]) < 0.02


def test_tiles_say_how_far_they_are(matrices):
    shares = []
    tiled.matmul(*matrices, memory_limit=60_000, progress=lambda words, share: shares.append(share))
    assert len(set(shares)) > 2
    assert shares == sorted(shares)
    assert 0 <= shares[0] <= shares[-1] < 1


def test_a_warning_is_a_line(matrices, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["-p", "bits=2", "-p", "rank=auto", "-p", "tolerance=1e-7", "--out", "C.npy", "--json"]
    found = run(app, ["matmul", "A.npy", "B.npy", *words])
    assert found.exit_code == 0, found.output
    assert found.stderr.startswith("warning: the tolerance 1e-07 is not reached")
    assert json.loads(found.stdout)["out"] == "C.npy"


# values that float32 does not hold


def float64_files(A, B):
    np.save("A64.npy", A)
    np.save("B64.npy", B)
    return ["A64.npy", "B64.npy"]


def cancelling(m=20, k=16, n=12):
    """Operands of float64 whose product is what rounding them to float32 loses."""
    rng = np.random.default_rng(0)
    A = np.ones((m, k)) + 1e-9 * rng.standard_normal((m, k))
    B = np.where(np.arange(k) % 2, 1.0, -1.0)[:, None] * np.ones((k, n))
    return A, B


def test_the_error_is_against_the_values_of_the_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((20, 30)), rng.standard_normal((30, 10))
    for left, right in ((A, B), cancelling()):
        words = ["matmul", *float64_files(left, right), "--method", "sgemm", "--out", "C.npy"]
        said = json.loads(run(app, [*words, "--json"]).stdout)
        C = np.load("C.npy")
        assert C.dtype == np.float32
        expected = distance(C, left @ right)
        assert said["relative_error"] == pytest.approx(expected, rel=1e-9)
    assert expected == 1  # all of it is lost


def test_advice_is_against_the_values_of_the_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = float64_files(*cancelling())
    found = run(app, ["advise", *files, "--max-error", "0.5", "--json"])
    assert found.exit_code == 2, found.output
    errors = [row["error"] for row in json.loads(found.stdout)["candidates"]]
    assert min(errors) > 0.9


@pytest.mark.parametrize("command", ["matmul", "matmul by tiles", "advise"])
@pytest.mark.parametrize("value", [1e-50, 1e-40, 1e-36])
def test_a_matrix_that_underflows_is_refused(command, value, matrices, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = float64_files(value * matrices[0].astype(np.float64), matrices[1].astype(np.float64))
    end = {
        "matmul": ["--out", "C.npy"],
        "matmul by tiles": ["--out", "C.npy", "--memory", "1"],
        "advise": ["--max-error", "0.1"],
    }
    for pair in (files, [files[1], files[0]]):
        if pair != files:
            np.save("T.npy", np.load("A64.npy").T)  # the right operand underflows
            np.save("L.npy", np.load("B64.npy").T)
            pair = ["L.npy", "T.npy"]
        found = run(app, [command.split()[0], *pair, *end[command]])
        assert found.exit_code == 1
        assert "underflows: its largest magnitude is" in found.stderr
        assert "allowed: 0, or at least 1.5e-36" in found.stderr
        assert not Path("C.npy").exists()


def test_small_elements_beside_large_ones_and_zeros_are_no_underflow(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    A, B = np.ones((4, 5)), np.zeros((5, 3))
    A[1:, 2] = 1e-60
    for end in ([], ["--memory", "1"]):
        words = ["matmul", *float64_files(A, B), "--method", "direct", "--out", "C.npy"]
        assert run(app, [*words, *end]).exit_code == 0
        assert not np.load("C.npy").any()


def test_a_product_beyond_float32_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = float64_files(np.full((4, 5), 1e30), np.full((5, 3), 1e30))
    found = run(app, ["matmul", *files, "--method", "sgemm", "--out", "C.npy"])
    assert found.exit_code == 1
    assert "error: the product holds NaN or infinity" in found.stderr
    assert not Path("C.npy").exists()


def test_a_product_that_should_be_zero_has_no_relative_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = float64_files(np.ones((4, 8)), np.tile([[1.0], [-1.0]], (4, 3)))
    words = ["matmul", *files, "--method", "dsvd", "--out", "C.npy"]
    found = run(app, words)
    assert np.load("C.npy").any()
    assert "AB is zero and this is not" in found.stdout
    assert json.loads(run(app, [*words, "--json"]).stdout)["relative_error"] is None


FAILURES = [
    np.linalg.LinAlgError("SVD did not converge"),
    torch.linalg.LinAlgError("linalg.svd: the algorithm failed\nto converge"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
    OverflowError("math range error"),
    ZeroDivisionError("division by zero"),
    FloatingPointError("invalid value"),
    KeyError("factor"),
    AssertionError(),
    NotImplementedError("no kernel"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_whatever_a_method_raises_is_one_sentence(failure, matrices, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def fail(*args, **kwargs):
        raise failure

    monkeypatch.setattr(lrqmm.method.Method, "matmul", fail)
    name = type(failure).__name__
    for words, doing in (
        (["matmul", "A.npy", "B.npy", "--out", "C.npy"], "multiplying by lrqmm"),
        (["advise", "A.npy", "B.npy", "--max-error", "0.1"], "multiplying by sgemm"),
    ):
        found = run(app, words)
        assert found.exit_code == 1
        assert found.stderr.startswith(f"error: {doing} failed: {name}: ")
        assert len(found.stderr.splitlines()) == 1
        assert " ".join(str(failure).split()) in found.stderr
        assert not Path("C.npy").exists()


def test_a_candidate_that_fails_is_left_out(matrices, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matmul = lrqmm.method.Method.matmul

    def fail(self, A, B, **kwargs):
        if self.name == "lrqmm":
            raise torch.linalg.LinAlgError("the algorithm failed to converge")
        if self.name == "direct" and A.shape[0] == 40 and kwargs and fail.sampled:
            raise MemoryError
        fail.sampled |= self.name == "two_slice"
        return matmul(self, A, B, **kwargs)

    fail.sampled = False
    monkeypatch.setattr(lrqmm.method.Method, "matmul", fail)
    found = run(app, ["advise", "A.npy", "B.npy", "--max-error", "0.1", "--json"])
    assert found.exit_code == 0, found.output
    said = json.loads(found.stdout)
    assert not {"lrqmm", "direct"} & {row["method"] for row in said["candidates"] if row["whole"]}
    why = said["left_out"]
    assert any("LinAlgError: the algorithm failed" in words for words in why.values())
    assert any("MemoryError" in words for words in why.values())


# every command


COMMANDS = typer.main.get_command(app).commands
SMALL_RUN = ROOT / "results/reference/perplexity-groups-cpu-2core"
AT_ONCE = ("methods", "new-method")
"""Commands that are done before a bar would be seen."""


def example(name):
    """The words of a command's example, the program's own name left out."""
    program, *words = COMMANDS[name].epilog.rsplit("Example: ", 1)[1].split()
    assert (program, words[0]) == ("lrqmm", name)
    return words


@pytest.fixture
def workplace(matrices, tmp_path, monkeypatch):
    """What the examples work on: matrices, two runs, a checkout for a new method."""
    for own in ("ours", "theirs"):
        shutil.copytree(SMALL_RUN, tmp_path / "results" / own)
    (tmp_path / "results/reference").mkdir()
    (tmp_path / "src/lrqmm/methods").mkdir(parents=True)
    monkeypatch.setattr(methods, "__file__", str(tmp_path / "src/lrqmm/methods/__init__.py"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_prints_one_json_document(name, workplace):
    found = run(app, [*example(name), "--json"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout, parse_constant=pytest.fail)
    assert found.stderr == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_works_as_its_example_says(name, workplace, monkeypatch, capsys):
    monkeypatch.setenv("TERM", "xterm")
    shown, hidden = Terminal(), Terminal()
    monkeypatch.setattr("sys.stderr", hidden)
    assert not app([*example(name), "--json"], standalone_mode=False)
    assert hidden.getvalue() == ""
    for path in ("results/both", "src/lrqmm/methods/my_method.py"):
        if (workplace / path).exists():  # what it will not write over
            (workplace / path).rename(workplace / "before")
    capsys.readouterr()
    monkeypatch.setattr("sys.stderr", shown)
    assert not app(example(name), standalone_mode=False)
    assert capsys.readouterr().out.strip()
    assert ("%" in shown.getvalue()) == (name not in AT_ONCE)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_ends_with_exit_codes_and_an_example(name):
    found = run(app, [name, "--help"], env={"COLUMNS": "80", "TERM": "dumb"})
    assert found.exit_code == 0
    lines = [line.strip() for line in found.stdout.splitlines() if line.strip()]
    assert lines[-1] == f"Example: lrqmm {' '.join(example(name))}"
    assert any(line.startswith("Exit codes: 0 fine; 1 ") for line in lines[-4:-1])
    assert any("--json" in line for line in lines)


def test_what_no_command_knows_is_wrong_usage():
    for words in (["advize"], ["doctor", "--jsn"], ["advise", "A.npy"]):
        found = run(app, words)
        assert (found.exit_code, found.stdout) == (2, "")


def test_shards_of_composed_methods_are_of_this_code(tmp_path):
    rivals = {
        "rivals": {
            "measure": "error", "inputs": ["normal"], "sizes": [16], "settings": {"bits": 4},
            "methods": ["direct", "hadamard+lrqmm_aware"],
        },
    }  # fmt: skip
    folder = measure(tmp_path / "run", experiments=rivals)
    said = json.loads(run(app, ["verify", str(folder), "--again", "9", "--json"]).stdout)
    assert (said["refusals"], said["warnings"]) == ([], [])
    assert said["checked"][1].startswith("2 errors measured again")


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
        (["A.npy", "B.npy", "-p", "bitz=4", "--out", "C.npy"], "did you mean 'bits'?"),
        (["A.npy", "B.npy", "--out", "none/C.npy"], "in an existing folder"),
        (["A.npy", "B.npy", "--memory", "1", "--method", "gptq", "--out", "C.npy"], "'gptq'"),
        (["A.npy", "none.npy", "--memory", "1", "--out", "C.npy"], "none.npy"),
        (
            ["A.npy", "B.safetensors:B", "--memory", "1", "--out", "C.npy"],
            "B is 'B.safetensors:B'; allowed with --memory: a .npy file",
        ),
        (
            ["A.npz:A", "B.npy", "--memory", "1", "--transpose-b", "--out", "C.npy"],
            "A is 'A.npz:A'; allowed with --memory: a .npy file",
        ),
        (
            ["A.npy", "B.npz", "--memory", "1", "--transpose-b", "--out", "C.npy"],
            "B is 'B.npz'; allowed with --memory: a .npy file",
        ),
        (["A.npy", "text.npy", "--memory", "1", "--out", "C.npy"], "'text.npy', which cannot"),
        (["A.npy", "text.npy", "--out", "C.npy"], "text.npy cannot be read"),
        (["A.npy", "text.npz", "--out", "C.npy"], "text.npz cannot be read"),
        (["A.npy", "objects.npy", "--out", "C.npy"], "objects.npy cannot be read"),
        (["A.npy", "objects.npy", "--memory", "1", "--out", "C.npy"], "'objects.npy', which can"),
        (["A.npy", "B.npy", "-p", "bits=4", "-p", "bits=8", "--out", "C.npy"], "bits is given twi"),
        (["A.npy", "B.npy", "-p", "bits=[4", "--out", "C.npy"], "parameter is 'bits=[4'; allowed"),
        (["A.npy", "B.npy", "-p", "bits={a: 1, a: 2}", "--out", "C.npy"], "key 'a' stands twice"),
    ],
)
def test_wrong_words_are_one_error_and_leave_nothing(words, said, matrices, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "A.npz", A=matrices[0])
    save_file({"B": matrices[1]}, tmp_path / "B.safetensors")
    np.save(tmp_path / "objects.npy", np.array([[None]]))
    for name in ("text.npy", "text.npz"):
        (tmp_path / name).write_text("1 2 3")
    before = sorted(tmp_path.iterdir())
    found = run(app, ["matmul", *words])
    assert found.exit_code == 1
    assert found.stderr.count("error: ") == 1
    assert said in found.stderr
    assert "pickle" not in found.stderr.lower()
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "folder",
    [
        ":smile:",
        "[bold]b[/bold]",
        "[/]",
        "\\[x]",
        ":warning: [red]",
        "<b>",
        "{x}",
        "$HOME",
        "a\u0301é",
    ],
)
def test_paths_are_printed_as_they_are(folder, matrices, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / folder).mkdir(parents=True)
    for name in ("A.npy", "B.npy"):
        shutil.move(name, folder)
    words = ["matmul", f"{folder}/A.npy", f"{folder}/B.npy", "--out", f"{folder}/C.npy"]
    found = run(app, words)
    assert found.exit_code == 0, found.output
    assert found.stdout.endswith(f", in {folder}/C.npy\n")
    words[2] = f"{folder}/none.npy"
    found = run(app, words)
    assert (found.exit_code, found.stdout) == (1, "")
    assert f"{folder}/none.npy" in found.stderr
    shutil.copytree(SMALL_RUN, tmp_path / folder / "run")
    found = run(app, ["compare", f"{folder}/run", f"{folder}/run"], env={"COLUMNS": "200"})
    assert found.exit_code == 0, found.output
    assert f"{folder}/run against {folder}/run" in found.stdout
    found = run(app, ["verify", folder])
    assert found.exit_code == 1
    assert f"{folder}/manifest.json" in found.output


def test_a_path_that_is_no_text_is_printed(matrices, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"C\xff.npy")
    found = run(app, ["matmul", "A.npy", "B.npy", "--out", name])
    assert found.exit_code == 0, found.output
    assert found.stdout.endswith(", in C\\udcff.npy\n")
    assert (tmp_path / name).exists()


def test_the_library_is_a_program_too():
    words = [sys.executable, "-m", "lrqmm", "methods", "lrqmm", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == json.loads(run(app, words[3:]).stdout)


def test_parameters_are_words_of_a_configuration():
    found = parse_parameters(["bits=4", "rank=auto", "zero_point=null", "tolerance=1.0e-3"])
    assert found == {"bits": 4, "rank": "auto", "zero_point": None, "tolerance": 1e-3}


@pytest.mark.parametrize("word", ["tolerance=1e-3", "tolerance=0.001", "tolerance=1.0e-3"])
def test_numbers_are_numbers(word):
    assert parse_parameters([word]) == {"tolerance": 1e-3}


def test_methods():
    names = [each["name"] for each in json.loads(run(app, ["methods", "--json"]).stdout)]
    assert names == lrqmm.list_methods()
    assert "LRQMM" in run(app, ["methods"]).stdout
    assert "gu2024lrqmm" in run(app, ["methods", "lrqmm"]).stdout
    assert run(app, ["methods", "lrqm"]).exit_code == 1


def test_doctor_says_which_extras_are_there(monkeypatch):
    monkeypatch.setitem(_extras.EXTRAS, "docs", ("sphinx", "no_such_module"))
    findings = {it["what"]: it for it in json.loads(run(app, ["doctor", "--json"]).stdout)}
    assert findings["extra bench"]["state"] == "ok"
    assert findings["extra docs"]["found"] == "not installed: no_such_module"
    assert findings["extra docs"]["advice"] == "pip install 'lrqmm[docs]'"


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
    method, test = template.new_method("my_own", checkout)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(method.parent)])
    assert "my_own" in lrqmm.list_methods()
    assert methods.preset("my_own").usual  # in every figure
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
