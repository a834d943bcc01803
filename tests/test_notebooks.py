"""The notebooks that compute as they run: executed as the workflow does, facts checked inside."""

from pathlib import Path

import nbformat
import papermill
import pytest

ROOT = Path(__file__).parent.parent

TOUR = """
def library(method, rounding, **of_rank):
    C = lrqmm.matmul(A, B, method, bits=4, rounding=rounding, **of_rank)
    return relative_error(C, exact)


def gain(data, rounding, method, rank):
    return gains.loc[(TITLES[data], rounding), (method, rank)]


# by hand as by the library: rank 1 wins a lot on truncated one-sided data, a mean fix as much
assert np.isclose(relative_error(direct, exact), by_hand["direct"], rtol=1e-4)
assert np.isclose(by_hand["direct"], library("direct", "truncate"), rtol=1e-4)
assert np.isclose(by_hand["LRQMM, rank 1"], library("lrqmm", "truncate", rank=1), rtol=0.01)
assert np.isclose(by_hand["mean fix"], library("mean_fix", "truncate"), rtol=1e-3)
won = gain("uniform01", "truncate", "lrqmm", 1)
assert won > 50
assert np.isclose(won, by_hand["direct"] / by_hand["LRQMM, rank 1"], rtol=0.01)
assert np.isclose(won, gain("uniform01", "truncate", "mean_fix", 0), rtol=0.01)
# rounding to nearest leaves LRQMM of rank 1 nothing, but a mean fix its factor of two
assert gain("uniform01", "nearest", "lrqmm", 1) < 1.1
assert 1.7 < gain("uniform01", "nearest", "mean_fix", 0) < 2.3
# it does not help on zero-mean data, but for product-aware LRQMM on data of low rank
useless = gains.loc[TITLES["normal"]]
assert (useless < 1.3).all(None)
assert (useless.loc[:, useless.columns.get_level_values("rank") < 16] < 1.05).all(None)
assert gain("lowrank", "nearest", "lrqmm", 16) < 1.2
assert gain("lowrank", "nearest", "lrqmm_aware", 16) > 3
eight = lrqmm.get_method("direct", bits=8).cost(256, 256, 256).operand_bits / (A.size + B.size)
assert np.isclose(bits["lrqmm", 16], eight, rtol=0.01)
"""

OWN_MATRICES = """
from lrqmm.bench.study import plan

assert (read_matrix(left) == A).all() and (A >= 0).all() and (B == weight.T).all()
assert np.isclose(error, advice.best["error"], rtol=1e-3) and error <= advice.max_error
kept = advice.table[advice.table["keeps"]]
assert kept["bits"].iloc[0] == kept["bits"].min()
assert set(advice.left_out) == {"tf32", "bf16", "fp8"}
assert rows.min() < error < rows.max()
planned = plan(yaml.safe_load(config.read_text()))
assert {"direct", "lrqmm", "lrqmm_aware"} <= {shard.method for shard in planned.shards}
assert {(own.m, own.k, own.n) for s in planned.shards for own in s.inputs} == {(512, 384, 256)}
"""

OWN_MODEL = """
scores = table.set_index(["method", "bits"])
assert accuracy > 0.9 and scores["top1"].max() <= 1
assert scores.loc[("two_slice", 4), "agreement"] > 0.98
for bits in (3, 4):
    errors = scores.xs(bits, level="bits")["relative_error"]
    assert errors["two_slice"] < errors["lrqmm_aware"] < errors["lrqmm"] < errors["direct"]
    assert errors["direct, zero points"] < errors["direct"]
for name, of_method in table.groupby("method"):
    assert of_method.sort_values("bits")["relative_error"].is_monotonic_decreasing, name
assert own["two_slice"] < own["lrqmm_aware"] < own["direct"]
assert "gradient" in refusals[0] and "training mode" in refusals[1]
assert dependence["direct"] == dependence["lrqmm, sides='b'"] == 0
assert dependence["lrqmm"] > 0.01 and dependence["lrqmm_aware, sides='b'"] > 0.01
"""


@pytest.mark.parametrize(
    ("name", "run", "facts"),
    [
        ("0_tour", "cpu-2core", TOUR),
        ("8_own_matrices", "cpu-2core", OWN_MATRICES),
        ("9_own_model", "networks-cpu-2core", OWN_MODEL),
    ],
)
def test_what_a_notebook_says_is_so(name, run, facts, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # small matrices: threads would wait for each other
    folder = ROOT / "notebooks"
    before = sorted(folder.rglob("*"))
    notebook = nbformat.read(folder / f"{name}.ipynb", as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(facts))
    nbformat.write(notebook, tmp_path / "with_facts.ipynb")
    made = papermill.execute_notebook(
        tmp_path / "with_facts.ipynb",
        tmp_path / "executed.ipynb",
        parameters={"run": str(ROOT / "results/reference" / run)},
        cwd=folder,
        progress_bar=False,
    )
    kinds = {kind for c in made.cells for o in c.get("outputs", []) for kind in o.get("data", {})}
    assert {"image/png", "text/html"} <= kinds
    assert sorted(folder.rglob("*")) == before
