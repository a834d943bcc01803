"""What figures and tables of networks take from a run, and how they tell settings apart."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from lrqmm.figures import NothingToDraw, _data, make, rivals_networks, show
from lrqmm.figures.figure4_transformers import _short
from lrqmm.store import read_run

FOLDER = Path(__file__).parent.parent / "results/reference/networks-cpu-2core"


@pytest.fixture(scope="module")
def run():
    return read_run(FOLDER)


def changed(run, select, **columns):
    """The run with rows that are copies of others, but for some columns."""
    more = run.networks[select(run.networks)].assign(**columns)
    return replace(run, networks=pd.concat([run.networks, more], ignore_index=True))


def resnet50(table):
    return (table["network"] == "resnet50") & (table["method"] == "lrqmm") & (table["rank"] == 16)


def test_settings_that_differ_in_anything_are_rows_of_their_own(run):
    before = make("table4_accuracy", run)
    for how in (
        {"parameters": json.dumps({"terms": "first"})},
        {"shard": "another"},
        {"reference": "mine: float32"},
        {"ranks_within": 5.0},
        {"keep": "conv1", "shard": "another"},
    ):
        after = make("table4_accuracy", changed(run, resnet50, **how))
        assert len(after) == len(before) + 2, how  # 1 and 10 pictures a GEMM
    make("figure8_accuracy", changed(run, resnet50, parameters="{}"))


def test_failed_settings_are_rows_with_a_reason(run):
    broken = changed(
        run, lambda t: resnet50(t) & (t["metric"] == "kl") & (t["per_gemm"] == 10),
        shard="broken", value=None, status="failed", reason="out of memory",
    )  # fmt: skip
    table = make("table4_accuracy", broken)
    (reason,) = table["failed"].dropna()
    assert reason == "out of memory"
    only = replace(broken, networks=broken.networks[broken.networks["status"] == "failed"])
    with pytest.raises(NothingToDraw, match="1 failed, the first: out of memory"):
        make("table4_accuracy", only)
    assert "1 failed" in show("table4_accuracy", only)["note"][0]


def test_usual_settings_have_one_line_a_method(run):
    extras = (
        {"keep": "conv1"}, {"ranks_within": 5.0}, {"sides": "b"}, {"rounding": "truncate"},
        {"granularity": "tensor"}, {"zero_point_a": "integer"}, {"bits_a": 8}, {"per_gemm": 1},
        {"data": "others"}, {"reference": "mine: float32"}, {"parameters": "{}"},
    )  # fmt: skip
    want = _data.usual(_data.networks(run, "own_error"))
    for how in extras:
        more = changed(run, resnet50, **how)
        found = _data.usual(_data.networks(more, "own_error"))
        assert len(found) == len(want), how
        assert not found.duplicated(["network", "bits", "method", "layer"]).any()
    ranks = want[want["network"] == "llama"].groupby("bits")["rank"].max()
    assert ranks.to_dict() == {4: 64, 8: 16}


def test_blocks_of_layers():
    names = pd.Series(
        ["model.layers.3.mlp.up_proj", "lm_head", "res2a_branch1", "features.10.conv"]
    )
    found = _data.blocks(names)
    assert found["kind"].tolist() == ["mlp.up_proj", "lm_head", "res2a_branch1", "conv"]
    assert found["block"].tolist() == [3, pd.NA, pd.NA, 10]


def test_kinds_have_short_names_of_their_own():
    kinds = ["attention.self.query", "attention.output.dense", "output.dense", "mlp.up_proj"]
    assert list(_short(kinds).values()) == ["query", "attention output", "output", "up"]


COMPOSITIONS = FOLDER.with_name("compositions-cpu-2core")


def test_rivals_in_networks_are_points_with_names():
    run = read_run(COMPOSITIONS)
    table = rivals_networks.points(run)
    assert not table.duplicated(["network", "name", "data"]).any()
    own = run.networks[run.networks["layer"].isna() & (run.networks["method"] == "lopro")]
    (point,) = table[table["method"] == "lopro"].itertuples()
    for column, metric in (("x", "average_bits"), ("error", "relative_error")):
        (value,) = own.loc[own["metric"] == metric, "value"]
        assert getattr(point, column) == value
    assert (point.name, point.calibration) == ("lopro r=16", "held_out")
    names = {text.get_text() for axis in make("rivals_networks", run).axes for text in axis.texts}
    assert {"direct", "LRQMM r=16", "product-aware r=16", "lopro r=16"} <= names


def test_figure_8_leaves_rivals_to_their_own(run):
    found = make("figure8_accuracy", read_run(COMPOSITIONS))
    shown = {label for axis in found.axes for label in axis.get_legend_handles_labels()[1]}
    assert shown
    assert not {"lopro", "resq", "hadamard"} & shown
