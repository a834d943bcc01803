"""Measuring whole networks: tasks, rows, failures."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

import lrqmm
from lrqmm.bench import environment, imports
from lrqmm.bench.compare import compare
from lrqmm.bench.data.text import read_text, windows
from lrqmm.bench.measures import _network, read_shard
from lrqmm.bench.networks import NETWORKS, Batch, Task, load_task
from lrqmm.bench.networks._shared import halves
from lrqmm.bench.networks.llama.model import load_llama
from lrqmm.nn.replace import call, replace_layers
from lrqmm.run import read as store
from lrqmm.run import schema


def tiny(scores="classes"):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 30), nn.ReLU(), nn.Linear(30, 7)).eval()
    inputs = torch.randn(9, 12, generator=torch.Generator().manual_seed(1))
    labels = None if scores == "vectors" else model(inputs).argmax(1)

    def batches(size):
        for i in range(0, len(inputs), size):
            part = None if labels is None else labels[i : i + size]
            yield Batch(inputs[i : i + size], len(inputs[i : i + size]), part)

    return Task(model, "float32", "9 rows", scores, batches, lambda n: torch.randn(n, 12), call,
                halves)  # fmt: skip


@pytest.fixture
def task(monkeypatch):
    found = tiny()
    monkeypatch.setattr(_network, "load_task", lambda *_: found)
    return found


def measured(method, *settings, threads=1, **options):
    defaults = {"network": "resnet50", "items": 9, "length": 8, "per_gemm": [3]}
    shard = read_shard({
        "name": f"test-{method}", "experiment": "test", "library": "torch", "method": method,
        "measure": {"measure": "network", **defaults, **options},
        "inputs": [], "settings": list(settings) or [{}],
    })  # fmt: skip
    return store.table(shard.measure.rows(shard, [], "cpu", threads), schema.NETWORK_SCHEMA)


def value(table, metric):
    (found,) = table.loc[table["metric"] == metric, "value"]
    return found


def test_float_products_score_as_the_network_itself(task):
    table = measured("sgemm")
    assert (table["status"] == "ok").all()
    assert value(table, "top1") == value(table, "agreement") == 1
    assert value(table, "top1_drop") == 0
    assert value(table, "relative_error") < 1e-6
    assert value(table, "average_bits") == value(table, "weight_bits") == 32
    assert value(table, "float_operations") == 2 * (12 * 30 + 30 * 7)
    assert value(table, "seconds_per_item") > 0
    assert table["reference"].eq("float32").all()


def test_weights_are_counted_apart(task):
    table = measured("naive", {"bits": 4})
    elements = 12 * 30 + 30 * 7
    scale_and_minimum = 2 * 32
    assert value(table, "weight_bits") == (4 * elements + 2 * scale_and_minimum) / elements
    assert value(table, "average_bits") > value(table, "weight_bits")  # activations are float32


def test_methods_calibrate_on_items_that_are_not_measured(task):
    setting = {"bits": 4, "rank": 3}
    same, held_out = (measured("qera", setting, calibration=n) for n in (0, 5))
    assert same["calibration"].eq("same").all()
    assert held_out["calibration"].eq("held_out").all()
    assert value(same, "relative_error") != value(held_out, "relative_error")
    assert measured("direct", calibration=5)["calibration"].eq("none").all()
    ranked = measured("qera", {"bits": 4}, calibration=5, ranks_within=20.0)
    assert ranked["calibration"].eq("held_out").all()
    assert ranked["metric"].eq("rank").sum() == 2


@pytest.mark.parametrize(
    ("name", "items", "count"), [("resnet50", 15, 5), ("llama", 2, 3), ("minilm", 4, 3)]
)
def test_calibration_takes_other_items(name, items, count):
    task = load_task(name, "packaged", "packaged", items, 16)
    (batch,) = task.batches(items)
    others = task.others(count)
    assert len(others) == count

    def keys(inputs):
        rows = inputs if isinstance(inputs, list) else [x.numpy().tobytes() for x in inputs]
        return set(rows)

    assert len(keys(others)) == count
    assert not keys(others) & keys(batch.inputs)
    if name == "resnet50":
        with pytest.raises(ValueError, match="calibration is 6; allowed: up to 5"):
            task.others(6)


@pytest.mark.parametrize("scores", ["classes", "vectors"])
def test_without_times_the_scores_are_the_same(monkeypatch, scores):
    found = tiny(scores)
    monkeypatch.setattr(_network, "load_task", lambda *_: found)
    settings = [{"bits": bits, "rank": 1} for bits in (3, 4, 5)]
    timed, table = (
        measured("lrqmm", *settings, per_gemm=[2, 4], speed=speed) for speed in (True, False)
    )
    times = ["seconds_per_item", "times_float_speed"]
    assert not table["metric"].isin(times).any()
    timed = timed[~timed["metric"].isin(times)]
    columns = ["metric", "bits", "per_gemm", "layer", "value", "low", "high", "items"]
    pd.testing.assert_frame_equal(
        *(x[columns].sort_values(columns[:4], ignore_index=True) for x in (timed, table))
    )


def test_ranks_by_layer_within_a_budget(task):
    table = measured("lrqmm_aware", {"bits": 3}, ranks_within=12, per_gemm=[9])
    assert (table["status"] == "ok").all(), table["reason"].dropna().tolist()
    ranks = table[table["metric"] == "rank"].set_index("layer")["value"]
    assert ranks.index.tolist() == ["0", "2"]
    assert ranks.max() > 0
    assert table["rank"].isna().all()
    assert (table["ranks_within"] == 12).all()
    bits = value(table, "average_bits")
    assert bits <= 12
    low = replace_layers(
        task.model,
        {name: lrqmm.get_method("lrqmm_aware", bits=3, rank=int(r)) for name, r in ranks.items()},
    )
    inputs = next(task.batches(9)).inputs
    exact = task.model(inputs).detach()
    want = torch.linalg.norm(low(inputs) - exact) / torch.linalg.norm(exact)
    assert np.isclose(value(table, "relative_error"), float(want), rtol=1e-4)
    # a kept layer has no rank, and its 32 bits count
    kept = measured("lrqmm_aware", {"bits": 3}, ranks_within=31, per_gemm=[9], keep=["0"])
    assert kept[kept["metric"] == "rank"]["layer"].tolist() == ["2"]


def test_a_budget_that_no_rank_fits_is_said(task):
    table = measured("lrqmm", {"bits": 3}, ranks_within=1)
    assert table["status"].tolist() == ["failed"]
    assert "allowed: at least" in table["reason"][0]


def test_settings_items_and_layers(task):
    table = measured("lrqmm", {"bits": 3, "rank": 1}, {"bits": 8, "rank": 1}, per_gemm=[1, 3])
    errors = table[table["metric"] == "relative_error"].set_index(["bits", "per_gemm"])["value"]
    assert len(errors) == 4
    assert errors[8].max() < 0.05 < errors[3].min()
    layers = table[table["metric"] == "accumulated_error"]
    by_setting = layers.groupby(["bits", "per_gemm"])["layer"].apply(list)
    assert by_setting.tolist() == [["0", "2"]] * 4
    bits = table[table["metric"] == "average_bits"].set_index(["bits", "per_gemm"])["value"]
    assert (bits[3] < bits[8]).all()


def test_layers_that_are_kept_are_float(task):
    table = measured("direct", {"bits": 2}, keep=["0"])
    own = table[table["metric"] == "own_error"].set_index("layer")["value"]
    assert own["0"] < 1e-6 < 1e-2 < own["2"]
    assert table["keep"].eq("0").all()


def test_how_far_others_move_an_answer(task):
    def moved(method, **setting):
        return value(measured(method, {"bits": 3, **setting}), "moved_by_others")

    assert moved("direct") < 1e-6  # a row is its own with a scale a row
    assert moved("lrqmm", rank=1, sides="b") < 1e-6
    assert moved("lrqmm", rank=1) > 1e-3
    assert moved("lrqmm_aware", rank=1) > 1e-3


def test_vectors_are_compared_by_their_angle(monkeypatch):
    monkeypatch.setattr(_network, "load_task", lambda *_: tiny("vectors"))
    table = measured("direct", {"bits": 4})
    assert 0.9 < value(table, "cosine") < 1
    assert "top1" not in set(table["metric"])


def test_a_failure_is_a_row_and_its_neighbours_go_on(task):
    table = measured("lrqmm", {"bits": 4, "rank": 12}, {"bits": 4, "rank": 2})
    failed = table[table["status"] == "failed"]
    assert failed["rank"].tolist() == [12]
    assert "rank is 12; allowed" in failed["reason"].iloc[0]
    assert (table.loc[table["rank"] == 2, "status"] == "ok").all()


def test_a_pattern_that_fits_nothing_stops_the_shard(task):
    with pytest.raises(ValueError, match="'conv9' fits no layer"):
        measured("direct", keep=["conv9"])


def test_a_network_of_ones_own():
    model = tiny().model
    batch = torch.randn(16, 12, generator=torch.Generator().manual_seed(2))
    methods = [lrqmm.get_method("direct", bits=b) for b in (2, 8)]
    table = compare(model, batch, methods, labels=model(batch).argmax(1), keep=["2"])
    assert table["method"].tolist() == ["direct"] * 2
    assert table["bits"].tolist() == [2, 8]
    assert table["relative_error"][0] > 10 * table["relative_error"][1]
    assert table["worst layer"].tolist() == ["0", "0"]
    assert (table["top1"] == table["agreement"]).all()
    assert {"average_bits", "times_float_speed", "seconds_per_item", "kl"} <= set(table)


# tasks


def test_pictures_are_spread_over_the_folder(tmp_path, monkeypatch):
    lines = ["file,label"]
    for i in range(10):
        Image.new("RGB", (32, 32), (i, i, i)).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{i}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr("lrqmm.bench.networks.resnet50.model.load_resnet50", lambda _: resnet())
    task = load_task("resnet50", "packaged", str(tmp_path), 4, 0)
    labels = [batch.labels.tolist() for batch in task.batches(3)]
    assert labels == [[0, 2, 5], [7]]
    assert task.data == f"4 of 10 pictures ({tmp_path.name})"
    with pytest.raises(ValueError, match="items is 11; allowed: up to 10"):
        load_task("resnet50", "packaged", str(tmp_path), 11, 0)


def resnet():
    model = nn.Linear(1, 1)
    model.preprocessing = lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
    return model


def test_only_packaged_minilm():
    with pytest.raises(ValueError, match="allowed for minilm: 'packaged'"):
        load_task("minilm", "mine.safetensors", "packaged", 4, 0)


def perplexity(items, length):
    """exp of the mean of -log p(token | the tokens before it in its window)."""
    model, tokenizer, _ = load_llama()
    ids = tokenizer.encode(read_text("wikipedia"), add_special_tokens=False).ids
    tokens = windows(ids, length, items)
    log_p = model(tokens)[:, :-1].double().log_softmax(-1)
    return float(log_p.gather(2, tokens[:, 1:, None]).mean().neg().exp())


@pytest.mark.parametrize("name", ["llama", "minilm"])
def test_real_networks_on_float_products_are_themselves(name):
    table = measured("sgemm", network=name, items=2, length=24, per_gemm=[1], threads=2)
    assert (table["status"] == "ok").all()
    if name == "minilm":
        assert value(table, "cosine") > 1 - 1e-6
    else:
        assert value(table, "relative_error") < 1e-4
        assert "Q4_1" in table["reference"].iloc[0]
        assert value(table, "perplexity") == pytest.approx(perplexity(2, 24), rel=1e-3)
    assert (table.loc[table["metric"] == "accumulated_error", "value"] < 1e-4).all()


# a new network

NEW = '''"""Two layers with random weights, on random numbers. Source: none."""

from lrqmm.bench.networks import Batch, Network, Task


def load(weights, data, items, length):
    import torch
    from torch import nn

    from lrqmm.bench.networks._shared import halves
    from lrqmm.nn.replace import call

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 30), nn.ReLU(), nn.Linear(30, 7)).eval()
    inputs = torch.randn(2 * items, 12)

    def batches(size):
        for part in inputs[:items].split(size):
            yield Batch(part, len(part))

    def others(count):
        return inputs[items : items + count]

    return Task(model, "float32", f"{items} rows", "classes", batches, others, call, halves)


NETWORK = Network("two_layers", "two layers", work=1000, load=load)
'''
STUDY = """
run: results/two_layers
device: cpu
experiments:
  two_layers:
    measure: network
    network: two_layers
    items: 6
    per_gemm: [3]
    methods: [direct, lrqmm]
    settings: {bits: 8, rank: 2}
"""


def test_a_new_network_is_one_file(project):
    (project.folder / "src/lrqmm/bench/networks/two_layers.py").write_text(NEW)
    (project.folder / "two_layers.yaml").write_text(STUDY)
    study = ("--configfile", "two_layers.yaml")
    project.run("measurements", *study)
    table = store.read_run(project.folder / "results/two_layers").networks
    assert set(table["network"]) == {"two_layers"}
    assert (table["status"] == "ok").all()
    assert set(table["method"]) == {"direct", "lrqmm"}
    assert value(table[table["method"] == "direct"], "relative_error") < 0.05
    assert "Nothing to be done" in project.run("measurements", *study)


def test_a_new_network_measures_no_other_anew(tmp_path, monkeypatch):
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    package = shutil.copytree(environment.PACKAGE, tmp_path / "lrqmm", ignore=ignored)
    monkeypatch.setattr(environment, "PACKAGE", package)
    monkeypatch.setattr(imports, "PACKAGE", package)
    code_hash = environment.code_hash.__wrapped__  # without its cache
    before = {name: code_hash("direct", "network", name) for name in NETWORKS.names()}
    (package / "bench/networks/two_layers.py").write_text(NEW)
    assert {name: code_hash("direct", "network", name) for name in before} == before
    model = package / "bench/networks/minilm/model.py"
    model.write_text(model.read_text() + "# changed")
    after = {name: code_hash("direct", "network", name) for name in before}
    assert {name for name in before if after[name] != before[name]} == {"minilm"}
