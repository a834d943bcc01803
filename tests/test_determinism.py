"""The same study gives the same errors: bit for bit here, nearly so across libraries."""

import json
import subprocess
import sys

import pytest

from lrqmm.bench.sources.distributions import write_sample
from lrqmm.bench.study import plan

STUDY = {
    "run": "run",
    "experiments": {
        "plain": {
            "measure": "error",
            "inputs": ["normal", "uniform01"],
            "sizes": ["65x130x33"],
            "libraries": ["numpy", "torch"],
            "settings": {"bits": [4, 8], "rounding": ["nearest", "truncate"], "rank": 5},
        },
        "fused": {
            "measure": "error",
            "inputs": ["normal"],
            "sizes": ["65x130x33"],
            "methods": ["direct", "mean_fix", "lrqmm", "lrqmm_aware"],
            "settings": {"bits": 4, "rank": 5, "execution": "fused"},
        },
    },
}
MEASURE = """
import json, sys
import torch
from lrqmm.bench.measures import read_shard
found = {}
for shard, files in json.load(open(sys.argv[1])):
    shard = read_shard(shard)
    for row in shard.measure.rows(shard, files, "cpu", int(sys.argv[2])):
        key = " ".join(str(row[name]) for name in ("shard", "input", "parameters"))
        found[key] = row["value"].hex() if row["status"] == "ok" else row["status"]
print(json.dumps(found))
"""
BOUND = 1e-5
"""How far errors may differ between NumPy and torch, relative: sums in another order."""
FLOAT32 = 1e-7
"""And absolute: the error of float32 products is such sums and nothing else."""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Errors of the study in processes of their own, by number of threads: twice with 1, with 2."""
    folder = tmp_path_factory.mktemp("determinism")
    study = plan({**STUDY, "run": str(folder / "run")})
    for path, given in study.inputs.items():
        write_sample(path, given.input, given.m, given.k, given.n, given.input_seed)
    asked = [(shard.as_dict(), [given.path for given in shard.inputs]) for shard in study.shards]
    (folder / "asked.json").write_text(json.dumps(asked))

    def measure(threads: int) -> dict[str, str]:
        command = [sys.executable, "-c", MEASURE, str(folder / "asked.json"), str(threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    return [measure(1), measure(1), measure(2)]


def test_the_same_study_gives_the_same_bits(found):
    assert len(found[0]) > 100
    assert found[0] == found[1]


def test_whatever_the_number_of_threads(found):
    """Integer products and their scaling do not depend on threads; float products may, by a sum."""
    exact = {key for key in found[0] if key.split("-")[1] in ("direct", "two_slice", "midpoint")}
    assert exact
    assert all(found[0][key] == found[2][key] for key in exact)
    for key, bits in found[0].items():
        if "0x" in bits:
            one, two = float.fromhex(bits), float.fromhex(found[2][key])
            assert one == pytest.approx(two, rel=BOUND, abs=FLOAT32), key


def test_numpy_and_torch_agree_within_the_bound(found):
    pairs = 0
    for key, bits in found[0].items():
        other = found[0].get(key.replace("-torch-", "-numpy-"))
        if "-torch-" in key and other and "0x" in bits and "0x" in other:
            assert float.fromhex(bits) == pytest.approx(
                float.fromhex(other), rel=BOUND, abs=FLOAT32
            ), key
            pairs += 1
    assert pairs > 50
