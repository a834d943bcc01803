"""The figure of peers and table 8, from a small run measured here."""

import pytest
from test_verify import measure

from lrqmm.figures import make, peers
from lrqmm.run.read import read_run

METHODS = ["direct", "lrqmm_aware", "torch_int8", "torch_qlinear", "gguf"]
SETTINGS = {"bits": 8, "rank": 4, "execution": "fused"}
STUDY = {
    "peers": {
        "measure": "time", "inputs": ["uniform01", "normal"], "sizes": [48],
        "samples": 3, "methods": METHODS, "baselines": ["sgemm", "direct"], "prepared": [True],
        "settings": SETTINGS, "baseline_settings": {"bits": 8, "execution": "fused"},
        "overrides": {"torch_int8": {"engine": ["x86", "onednn"]}},
    },
    "peers_formats": {
        "measure": "error", "inputs": ["normal"], "sizes": [48], "methods": ["direct", "gguf"],
        "settings": {"bits": 4}, "overrides": {"gguf": {"format": ["Q4_0", "MXFP4"]}},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return read_run(measure(tmp_path_factory.mktemp("runs") / "run", experiments=STUDY))


def test_baselines_run_at_settings_that_the_method_lacks(run):
    rows = run.measurements.query("experiment == 'peers' and metric == 'seconds'")
    rows = rows[rows["shard"].str.contains("torch_int8") & (rows["method"] == "direct")]
    assert set(rows["execution"]) == {"fused"}
    assert set(rows["bits"]) == {8}


def test_every_product_has_a_time_beside_both_and_an_error(run):
    table = peers.points(run)
    assert set(table["method"]) == {*METHODS} - {"gguf"}  # which has no time
    names = set(table["name"])
    assert {"torch dynamic int8", "torch dynamic int8 engine=onednn", "torch int8, packed"} <= names
    assert (table["slowness"] > 0).all()
    ours = table["method"] == "direct"
    assert (table.loc[~ours, "beside_direct"] > 0).all()
    assert ((table["error"] > 1e-5) & (table["error"] < 0.05)).all()
    assert table.loc[table["method"] == "torch_int8", "versions"].str.contains("torch").all()


def test_figure_and_table(run):
    figure = make("peers", run)
    assert len(figure.axes) == 2
    said = {text.get_text() for text in figure.axes[0].texts}
    assert "torch int8, packed" in said
    table = make("table8_peers", run)
    timed = table[table["bits"] == "8 bits"]
    assert timed["times SGEMM's speed"].notna().sum() == 5
    formats = table[table["bits"] == "formats"]
    assert set(formats["method"]) == {"direct", "GGUF", "GGUF format=MXFP4"}
    assert formats["error, normal"].between(0.05, 0.3).all()
    (reason,) = table["reason"].dropna().unique()
    assert "emulated" in reason
