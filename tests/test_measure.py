"""Measuring one shard: right values, every failure recorded, nothing wrong measured."""

import contextlib
import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from oracle import distance, low_rank, product

import lrqmm
from lrqmm import load
from lrqmm.bench import environment, imports, machine
from lrqmm.bench.data.matrices import InputError, write_pair
from lrqmm.bench.measures import MEASURES, read_shard
from lrqmm.bench.measures._counter import count
from lrqmm.bench.measures._experiment import Shard
from lrqmm.bench.progress import begin, output, report
from lrqmm.bench.sources import Pair
from lrqmm.bench.sources.distributions import sample
from lrqmm.error import exact_product, relative_error
from lrqmm.methods.hadamard import Hadamard
from lrqmm.products import phases
from lrqmm.products.apriori import predicted_error
from lrqmm.products.composition import Preset
from lrqmm.products.cost import Cost
from lrqmm.products.operands import CheckedOperand
from lrqmm.products.parts import Compensator
from lrqmm.products.quantize import Uniform
from lrqmm.run import read as store
from lrqmm.run import schema
from lrqmm.timing import WARM_UP, time_phases, time_products


@pytest.fixture(autouse=True)
def _keep_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


SHAPES = ((12, 20, 16), (9, 7, 8))


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{number}.safetensors" for number in range(len(SHAPES))]
    for seed, (path, shape) in enumerate(zip(paths, SHAPES, strict=True)):
        write_pair(path, *sample("uniform01", *shape, seed=seed), {})
    return paths


def shard(
    method="lrqmm", measure="error", settings=({"bits": 4, "rank": 2},), library="torch", **options
):
    if measure == "time":
        options = {"samples": 3, **options}
    return read_shard({
        "name": f"test-{method}",
        "experiment": "test",
        "measure": {"measure": measure, **options},
        "library": library,
        "method": method,
        "inputs": [
            {"input": "uniform01", "layer": None, "input_seed": seed, "m": m, "k": k, "n": n}
            for seed, (m, k, n) in enumerate(SHAPES)
        ],
        "settings": list(settings),
    })  # fmt: skip


def measured(files, *args, **kwargs):
    """The checked table of a shard's rows, of as many inputs as there are files."""
    asked = shard(*args, **kwargs)
    asked = replace(asked, inputs=asked.inputs[: len(files)])
    rows = asked.measure.rows(asked, files, "cpu", threads=1)
    return store.table(rows, schema.TABLES[asked.measure.table])


# errors


@pytest.mark.parametrize("library", ["torch", "numpy"])
def test_errors_of_every_setting_on_every_input(files, library):
    settings = [{"bits": 4, "rank": 2}, {"bits": 8, "rank": 2}]
    table = measured(files, settings=settings, library=library)
    assert len(table) == 4
    assert (table["status"] == "ok").all()
    assert (table["metric"] == "relative_error").all()
    rows = iter(table.itertuples())
    for seed, shape in enumerate(SHAPES):
        A, B = sample("uniform01", *shape, seed=seed)
        if library == "torch":
            A, B = torch.from_numpy(A), torch.from_numpy(B)
        for setting in settings:
            row = next(rows)
            expected = distance(lrqmm.matmul(A, B, **setting), product(*map(np.asarray, (A, B))))
            assert row.value == pytest.approx(expected, rel=1e-9)
            assert (row.input_seed, row.m, row.k, row.n) == (seed, *shape)
            assert (row.bits, row.rank, row.rounding) == (setting["bits"], 2, "nearest")
            assert json.loads(row.parameters) == lrqmm.get_method("lrqmm", **setting).parameters


def test_rows_say_where_they_come_from(files):
    table = measured(files)
    first = table.iloc[0]
    expected = {
        "experiment": "test",
        "shard": "test-lrqmm",
        "method": "lrqmm",
        "library": "torch",
        "threads": 1,
        "calibration": "none",
        "compute_dtype": "float32",
        "integer_route": lrqmm.integer_route(torch.ones(1)),
        "version": lrqmm.__version__,
        "code_hash": environment.code_hash("lrqmm", "error"),
        "input_sha256": Path(f"{files[0]}.sha256").read_text().split()[0],
    }
    assert {key: first[key] for key in expected} == expected
    assert (table["measured_at"].str.len() == 25).all()


def test_relative_error():
    exact = np.array([[3.0, 4.0]])
    assert relative_error(np.array([[3.0, 4.0]], np.float32), exact) == 0
    assert relative_error(np.array([[3.0, 4.5]]), exact) == pytest.approx(0.1)
    assert relative_error(np.zeros((1, 2)), np.zeros((1, 2))) == 0
    assert relative_error(np.ones((1, 2)), np.zeros((1, 2))) == np.inf
    assert np.isnan(relative_error(np.array([[np.nan, 4.0]]), exact))


def test_exact_product_is_in_float64():
    A = np.array([[1.0, 1e-7]], np.float32)
    B = np.array([[1.0], [1.0]], np.float32)
    assert exact_product(A, B)[0, 0] == 1 + np.float64(np.float32(1e-7))


def test_errors_are_against_the_values_as_stored(tmp_path):
    rng = np.random.default_rng(0)
    A, B = 1 + 1e-9 * rng.standard_normal((12, 20)), np.ones((20, 16))
    B[::2] = -1  # what is left of the product is what float32 loses
    write_pair(tmp_path / "0.safetensors", A, B, {})
    write_pair(tmp_path / "1.safetensors", A[:9, :7], B[:7, :8], {})
    files = [tmp_path / f"{number}.safetensors" for number in range(2)]
    table = measured(files, "sgemm", settings=({},))
    assert table["value"].tolist() == pytest.approx([1, 0], abs=1e-6)
    half = measured(files[:1], "direct", settings=({},), held_out=True)
    errors = half[half["metric"] == "relative_error"]
    assert errors["value"].tolist() == pytest.approx([1], abs=1e-6)


def test_arrays_of_a_pair_of_float64(tmp_path):
    A, B = np.random.default_rng(0).standard_normal((2, 40, 40))
    write_pair(tmp_path / "pair.safetensors", A, B, {})
    table = measured([tmp_path / "pair.safetensors"], None, "spectrum", ({"bits": 4},))
    values = table.loc[table["name"] == "matrix", "value"]
    expected = np.linalg.svd(A.astype(np.float32), compute_uv=False)
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_a_pair_that_underflows_is_refused(files):
    A, B = sample("uniform01", *SHAPES[0], seed=0)
    write_pair(files[0], A, 1e-50 * B.astype(np.float64), {})
    with pytest.raises(InputError, match=r"0.safetensors:B underflows: .*allowed: 0, or at least"):
        measured(files)


def test_a_result_that_should_be_zero_is_a_failed_row(tmp_path):
    path = tmp_path / "pair.safetensors"
    write_pair(path, np.ones((12, 20), "f"), np.tile(np.float32([[1], [-1]]), (10, 16)), {})
    table = measured([path], "dsvd", settings=({},))
    assert table["status"].tolist() == ["failed"]
    assert "the result is not zero and A B is (relative error inf)" in table["reason"][0]


def test_errors_of_tiny_and_huge_products():
    exact = np.array([[3.0, 4.0]])
    for size in (1e-200, 1e200):
        wrong = np.array([[3.0, 4.5]]) * size
        assert relative_error(wrong, size * exact) == pytest.approx(0.1)
        assert relative_error(np.zeros((1, 2)), size * exact) == 1


# beside errors


def pairs():
    return [[torch.from_numpy(X) for X in sample("uniform01", *shape, seed=i)]
            for i, shape in enumerate(SHAPES)]  # fmt: skip


def test_half_of_the_rows_calibrate_and_half_are_measured(files):
    how = {"bits": 4, "rank": 2}
    table = measured(files, "qera", settings=(how,), held_out=True, cost=True)
    errors = table[table["metric"] == "relative_error"].reset_index()
    method = lrqmm.get_method("qera", **how)
    for number, (A, B) in enumerate(pairs()):
        half = len(A) // 2
        same, held_out = errors.iloc[2 * number], errors.iloc[2 * number + 1]
        assert (same["calibration"], held_out["calibration"]) == ("same", "held_out")
        for row, given in ((same, A[half:]), (held_out, A[:half])):
            C = method.matmul(A[half:], B, calibration=given).numpy()
            expected = distance(C, product(A[half:].numpy(), B.numpy()))
            assert row["value"] == pytest.approx(expected, rel=1e-9)
            assert (row["m"], row["rows"]) == (len(A), len(A) - half)
    bits = table.loc[table["metric"] == "operand_bits", "value"].iloc[0]
    assert bits == method.cost(6, 20, 16).operand_bits
    others = measured(files, "direct", settings=({"bits": 4},), held_out=True)
    assert others["calibration"].eq("none").all()
    assert others["rows"].tolist() == [6, 6, 5, 5]  # an error and its prediction each
    assert measured(files, "qera", settings=(how,))["rows"].isna().all()


@pytest.mark.parametrize("name", ["direct", "mean_fix", "hadamard", "hadamard+mean_fix"])
def test_errors_are_predicted_where_they_can_be(files, name):
    table = measured(files, name, settings=({"bits": 4},))
    found = table.loc[table["metric"] == "predicted_error", "value"].tolist()
    for value, (A, B) in zip(found, pairs(), strict=True):
        if "hadamard" in name:
            rotation = Hadamard()
            signs = rotation.fit(B, Uniform(), None)
            A, B = rotation.left(A, signs), rotation.right(B, signs)
        removed = "mean_fix" in name
        assert value == pytest.approx(predicted_error(A, B, bits=4, mean_removed=removed))
    assert table["metric"].value_counts()["relative_error"] == len(SHAPES)


@pytest.mark.parametrize("name", ["lrqmm", "octav", "smoothquant", "two_slice", "ozaki"])
def test_other_errors_are_not_predicted(files, name):
    table = measured(files, name, settings=({},))
    assert "predicted_error" not in table["metric"].tolist()


# failures


@dataclass(frozen=True, kw_only=True)
class Breaks(Compensator):
    """Returns something wrong, as `seed` says."""

    seed: int = 0

    def correct(self, A, B, prepared):
        right = A.exact @ B.exact
        if self.seed == 1:
            raise RuntimeError("it broke")
        if self.seed == 2:
            return right * float("nan")
        if self.seed == 3:
            return right[None, :1, :].expand(3, *right.shape)
        return right * 0

    def cost(self, m, k, n):
        return Cost()


@pytest.mark.parametrize("measure", ["error", "time"])
def test_a_failing_setting_is_a_row_and_its_neighbours_go_on(files, monkeypatch, measure):
    monkeypatch.setattr("lrqmm.methods.direct.METHOD", Preset("direct", compensator=Breaks))
    settings = [{"seed": seed} for seed in range(5)]
    options = {"baselines": []} if measure == "time" else {}
    table = measured(files, "direct", measure, settings, **options)
    for seed in range(5):
        rows = table[table["seed"] == seed]
        assert set(rows["input_seed"]) == {0, 1}
        if seed in (0, 4):
            assert (rows["status"] == "ok").all()
            assert (rows["metric"] == "relative_error").sum() == 2
            continue
        assert len(rows) == 2
        assert (rows["status"] == "failed").all()
        assert rows["value"].isna().all()
        assert set(rows["metric"]) == {"relative_error" if measure == "error" else "seconds"}
        said = {1: "RuntimeError: it broke", 2: "NaN or infinity", 3: r"shape \(3, 12, 16\), not"}
        assert rows["reason"].iloc[0].startswith(("RuntimeError: ", "ValueError: "))
        assert rows["reason"].str.contains(said[seed]).iloc[0]


@pytest.mark.parametrize("measure", ["error", "time", "count"])
def test_unsupported_is_recorded_as_such(files, measure):
    table = measured(files, "tf32", measure, settings=[{}])
    assert table["status"].tolist() == ["unsupported"] * 2
    assert table["reason"].str.contains("TF32 needs a CUDA device").all()
    assert table["value"].isna().all()


def test_an_unsupported_baseline_is_not_silently_left_out(files):
    table = measured(files, "direct", "time", settings=[{}], baselines=["tf32"])
    assert (table["status"] == "unsupported").all()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ([{"bits": 4}, {"bits": 9}], ValueError, "bits is 9; allowed"),
        ([{"bits": 4}, {"bots": 4}], TypeError, "no parameter 'bots'"),
        ([{"rank": 8}, {"rank": 9}], ValueError, "rank is 8; allowed: 0 to .* = 7 for a 9 x 7 by"),
    ],
)
def test_wrong_settings_stop_before_anything_is_measured(
    files, monkeypatch, settings, error, message
):
    calls = []
    matmul = lrqmm.Method.matmul
    monkeypatch.setattr(lrqmm.Method, "matmul", lambda *a, **k: calls.append(1) or matmul(*a, **k))
    with pytest.raises(error, match=message):
        measured(files, settings=settings)
    assert calls == []
    measured(files)
    assert len(calls) == 2  # so that the check above can fail


def corrupt(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("spoil", [corrupt, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_wrong_input_file_is_an_error(files, spoil):
    spoil(files[1])
    with pytest.raises(InputError, match=str(files[1])):
        measured(files)


# times


def test_times_by_phase_and_beside_baselines(files):
    settings = [{"bits": 4, "rank": 2}, {"bits": 5, "rank": 2}]
    table = measured(files, "lrqmm", "time", settings)
    errors = table[table["metric"] == "relative_error"]
    assert errors.groupby(["input_seed", "bits"]).size().tolist() == [1, 1, 1, 1]
    seconds = table[table["metric"] == "seconds"]
    whole = seconds[seconds["phase"].isna()]
    keys = ["input_seed", "sample"]
    assert (whole["value"] > 0).all()
    assert set(whole["method"]) == {"lrqmm", "sgemm", "direct"}
    for (method, *_), rows in whole.groupby(["method", "input_seed"]):
        assert sorted(rows["sample"]) == sorted([0, 1, 2] * 2), method
    # a baseline is timed at the parameters that it shares with the method
    assert sorted(whole.loc[whole["method"] == "direct", "bits"].unique()) == [4, 5]
    parts = seconds[seconds["phase"].notna()]
    assert set(parts["method"]) == {"lrqmm"}
    assert set(parts["phase"]) == {*phases.PHASES, "other"} - {"transform"}
    assert parts.groupby([*keys, "bits"]).size().nunique() == 1
    assert (parts["value"] >= 0).all()
    # what belongs beside a time
    assert (whole.groupby(["setting", "input_seed", "method"]).size() == 3).all()
    assert whole["b_prepared"].eq(False).all()
    cpu = table[table["metric"] == "cpu_seconds"]
    assert len(cpu) == len(whole)
    for metric in ("copy_bytes", "integer_operations", "float_operations"):
        assert (table.loc[table["metric"] == f"{metric}_per_second", "value"] > 1e6).all()
    model = table[table["phase"] == "model"]
    operations = {"integer_operations", "float_operations"}
    assert set(model["metric"]) == {"bytes", "operand_bits", "right_bits", *operations}


def test_float_products_have_nothing_to_prepare(files):
    table = measured(files, "bf16", "time", [{}], prepared=[False, True])
    whole = table[(table["metric"] == "seconds") & table["phase"].isna()]
    assert set(whole.groupby("method")["b_prepared"].agg(tuple).loc["bf16"]) == {False}
    assert set(whole.groupby("method")["b_prepared"].agg(tuple).loc["direct"]) == {False, True}


def test_products_are_timed_as_they_are_called(files, monkeypatch):
    looked = []
    of = CheckedOperand.of

    def watched(name, X, check_finite):
        looked.append(check_finite)
        return of(name, X, check_finite)

    monkeypatch.setattr(CheckedOperand, "of", watched)
    how = {"prepared": [False, True], "baselines": ["sgemm", "direct"]}
    counts = {}
    for called in (False, True):
        looked.clear()
        table = measured(files[:1], "lrqmm", "time", as_called=called, **how)
        counts[called] = sum(looked)
    # both operands in every round, and A alone where B is ready: 3 samples
    assert counts[True] - counts[False] == 3 * (WARM_UP + 3)
    found = table[table["metric"] == "call_seconds"]
    assert set(found["method"]) == {"lrqmm"}
    assert found.groupby("b_prepared")["sample"].agg(list).to_dict() == {
        False: [0, 1, 2],
        True: [0, 1, 2],
    }
    assert (found["value"] > 0).all()
    assert found["setting"].eq(0).all()
    seconds = table[(table["metric"] == "seconds") & table["phase"].isna()]
    assert seconds.groupby(["method", "b_prepared"]).size().eq(3).all()


@pytest.mark.parametrize("library", ["torch", "numpy"])
def test_fused_products_are_timed_with_b_prepared_and_not(files, library):
    settings = [{"rank": 2, "execution": "fused"}]
    table = measured(files, "lrqmm", "time", settings, prepared=[False, True], library=library)
    assert (table["status"] == "ok").all()
    whole = table[(table["metric"] == "seconds") & table["phase"].isna()]
    counted = whole.groupby(["method", "b_prepared"]).size()
    assert counted.to_dict() == {
        ("direct", False): 6, ("direct", True): 6, ("lrqmm", False): 6, ("lrqmm", True): 6,
        ("sgemm", False): 6,
    }  # fmt: skip
    direct = whole[whole["method"] == "direct"]
    assert direct["execution"].eq("fused").all()
    own = whole[whole["method"] == "lrqmm"].iloc[0]
    stated = own[["power_iterations", "oversampling", "terms", "factor_dtype", "sketch"]]
    assert stated.tolist() == [0, 0, "full", "int8", "ones+sign"]
    assert "fused passes" in own["integer_route"]
    errors = table[table["metric"] == "relative_error"]
    assert len(errors) == 4  # one a way of preparing and input
    expected = measured(files, "lrqmm", "error", settings, library=library)
    found = errors.groupby("input_seed")["value"].max()
    np.testing.assert_allclose(found, expected["value"], rtol=1e-6)


def test_what_is_emulated_has_an_error_and_no_time(files, monkeypatch):
    monkeypatch.setattr("lrqmm.methods.fp8.has_float8", lambda device: False)
    errors = measured(files, "fp8", "error", [{}])
    assert errors["value"].between(1e-3, 0.05).all()
    (reason,) = measured(files, "fp8", "time", [{}])["reason"].unique()
    assert "emulated" in reason


def test_codes_are_stored_without_gaps(files):
    settings = [{"bits": 8}, {"bits": 3}]
    table = measured(files, "direct", "time", settings)
    stored = table[table["metric"] == "code_bytes"].set_index("bits")
    whole = (stored["k"] * stored["n"]).astype(float)
    assert (stored["k"] % 8).any()  # such a row ends in fewer than eight codes
    assert stored.loc[8, "value"].tolist() == whole.loc[8].tolist()
    packed = 3 * ((stored["k"] + 7) // 8) * stored["n"]
    assert stored.loc[3, "value"].tolist() == packed.loc[3].tolist()
    unpacking = table[table["metric"] == "unpack_seconds"]
    assert set(unpacking["bits"]) == {3}
    assert unpacking.groupby("input_seed").size().tolist() == [3, 3]
    assert "code_bytes" not in set(measured(files, "sgemm", "time", [{}])["metric"])
    signs = measured(files, "binary_mean", "time", [{}])
    signs = signs[signs["metric"] == "code_bytes"]
    assert signs["value"].tolist() == (((signs["k"] + 7) // 8) * signs["n"]).tolist()


@pytest.mark.parametrize("name", lrqmm.list_methods())
def test_every_method_has_times_or_says_why_not(files, name):
    table = measured(files, name, "time", [{}])
    assert set(table["status"]) in ({"ok"}, {"unsupported"}), table["reason"].dropna().tolist()


def test_products_are_timed_in_turns():
    calls = []
    products = {
        "slow": lambda: calls.append("slow") or time.sleep(0.002),
        "quick": lambda: calls.append("quick"),
    }
    seconds = time_products(products, 4, lambda: None, lambda: calls.append("flush"))
    assert calls == ["flush", "slow", "flush", "quick"] * (4 + WARM_UP)
    assert {name: len(samples) for name, samples in seconds.items()} == {"slow": 4, "quick": 4}
    assert all(wall >= 0.002 and cpu < 0.002 for wall, cpu in seconds["slow"])
    assert len(time_phases(products["quick"], 3, lambda: None)) == 3


def test_peak_memory_is_what_a_product_adds():
    X = np.ones(1)
    found = machine.peak_bytes(lambda: np.ones(2**24), X)
    assert found is None or 0.98 * 2**27 < found < 1.2 * 2**27
    assert machine.peak_bytes(lambda: None, X) in (None, pytest.approx(0, abs=2**22))


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still; `clock(seconds)` lets time pass."""
    now = [100.0]
    monkeypatch.setattr(phases, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def wait(seconds):
        now[0] += seconds

    return wait


def test_phases_nest_and_sum_to_the_whole(clock):
    waits = []
    with phases.record(lambda: waits.append(1)) as seconds:
        with phases.phase("residual"):
            clock(1)
            with phases.phase("sketch"):
                clock(2)
            clock(4)
        clock(8)
        with phases.phase("sketch"):
            clock(16)
    clock(32)
    assert seconds == {"residual": 5, "sketch": 18, "other": 8}
    assert len(waits) >= 7  # the device is waited for at every change of phase
    with phases.phase("sketch"):  # outside of a record nothing is measured
        clock(64)
    assert sum(seconds.values()) == 31


def test_a_phase_that_fails_is_closed(clock):
    with phases.record() as seconds:
        with contextlib.suppress(KeyError), phases.phase("sketch"):
            clock(1)
            raise KeyError
        clock(2)
    assert seconds == {"other": 2, "sketch": 1}


# adding a kind of measurement

NEW_MEASURE = re.search(
    r"```python\n# src/lrqmm/bench/measures/transposed\.py\n(.*?)```",
    (Path(__file__).parent.parent / "docs/howto/add-a-measure.md").read_text(),
    re.DOTALL,
)[1]


def test_a_new_file_is_a_new_measure(project):
    """Planned, run by the workflow, and in the tables of the run, without another edit."""
    (project.folder / "src/lrqmm/bench/measures/transposed.py").write_text(NEW_MEASURE)
    config = project.folder / "config/test/tiny.yaml"
    known = config.read_text().replace("methods: [direct, lrqmm, mean_fix]", "methods: [direct]")
    new = known.partition("experiments:\n")[2].replace("distributions:", "turned:")
    new = new.replace("measure: error", "measure: transposed\n    cost: true")
    config.write_text(known.rstrip("\n") + "\n" + new)
    project.run("measurements", "--configfile", "config/test/tiny.yaml")
    table = store.read_run(project.folder / "results/tiny").measurements
    assert (table["status"] == "ok").all()
    errors = table[table["metric"] == "relative_error"].groupby("experiment")["value"].apply(list)
    assert len(errors["turned"]) == len(errors["distributions"])
    assert errors["turned"] != errors["distributions"]
    assert set(table.loc[table["phase"] == "model", "experiment"]) == {"turned"}
    config.write_text(config.read_text().replace("    cost: true\n", "    costs: true\n"))
    result = project.snakemake("--dry-run", "--configfile", "config/test/tiny.yaml")
    said = r"unknown key 'costs' at experiments\.turned \(did you mean 'cost'\?\); allowed: cases"
    assert re.search(said, result.stdout + result.stderr)


# counts


def test_counts_beside_the_model(files):
    table = measured(files, "lrqmm", "count").set_index(["input_seed", "phase", "metric"])["value"]
    for seed, shape in enumerate(SHAPES):
        A, B = (torch.from_numpy(X) for X in sample("uniform01", *shape, seed=seed))
        method = lrqmm.get_method("lrqmm", bits=4, rank=2)
        counted, model = count(method, A, B), vars(method.cost(*shape))
        for metric in ("integer_operations", "float_operations", "bytes"):
            assert table[seed, "counted", metric] == counted[metric]
            assert table[seed, "model", metric] == model[metric]


def test_counting_knows_products_and_bytes():
    A, B = torch.ones(3, 4), torch.ones(4, 5)
    counted = count(lrqmm.get_method("sgemm"), A, B)
    assert counted["integer_operations"] == 0
    assert counted["float_operations"] == 2 * 3 * 4 * 5
    assert counted["bytes"] >= 4 * (12 + 20 + 15)


# the arrays of figures 1 and 2


def test_spectra():
    A, _ = sample("normal", 24, 24, 24, seed=0)
    found = MEASURES.get("spectrum")(measure="spectrum").arrays(A, A, {"bits": 4})
    residual = A - Uniform(bits=4).quantize(A).dequantize()
    for name, X in (("matrix", A), ("residual", residual)):
        exact = np.linalg.svd(X.astype(float), compute_uv=False)
        np.testing.assert_allclose(found[name][:, 0], exact, rtol=1e-4, atol=1e-5)


def test_steps():
    A, B = sample("uniform01", 100, 30, 60, seed=0)
    found = MEASURES.get("steps")(measure="steps").arrays(
        A, B, {"bits": 4, "rounding": "truncate", "rank": 3}
    )
    X = found["matrix"]
    np.testing.assert_allclose(X, (A[34:66] @ B[:, :32]), rtol=1e-5)
    assert np.abs(found["codes"]).max() == 7
    np.testing.assert_allclose(found["dequantized"] + found["residual"], X, rtol=1e-6)
    np.testing.assert_allclose(
        found["low-rank part"] + found["what is left"], found["residual"], atol=1e-5
    )
    assert np.linalg.matrix_rank(found["low-rank part"], tol=1e-3) == 3
    best = np.linalg.norm(found["residual"] - low_rank(found["residual"], 3))
    assert np.linalg.norm(found["what is left"]) < 1.05 * best


def test_measured_arrays_are_a_table(files):
    table = measured(files, None, "steps", [{"bits": 4, "rank": 2}], library="numpy")
    first = table[table["input_sha256"] == table["input_sha256"][0]]
    A, B = sample("uniform01", *SHAPES[0], seed=0)
    found = MEASURES.get("steps")(measure="steps").arrays(A, B, {"bits": 4, "rank": 2})
    for name, X in found.items():
        rows = first[first["name"] == name]
        shown = np.zeros(X.shape)
        shown[rows["row"].astype(int), rows["column"].astype(int)] = rows["value"]
        np.testing.assert_array_equal(shown, X)
    assert set(table["name"]) == set(found)
    assert set(table["parameters"]) == {'{"bits": 4, "rank": 2}'}


# what makes a measurement run again


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package's files, whose hashes are taken."""
    copied = tmp_path / "lrqmm"
    shutil.copytree(environment.PACKAGE, copied, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(environment, "PACKAGE", copied)
    monkeypatch.setattr(imports, "PACKAGE", copied)
    environment.code_hash.cache_clear()
    yield copied
    environment.code_hash.cache_clear()


def hashes(measure="error"):
    environment.code_hash.cache_clear()
    names = (None, *lrqmm.list_methods(), "hadamard+octav+lrqmm")
    return {name: environment.code_hash(name, measure) for name in names}


@pytest.mark.parametrize(
    ("file", "whose"),
    [
        ("methods/lrqmm.py", {"lrqmm", "lrqmm_first", "hadamard+octav+lrqmm"}),
        ("methods/octav.py", {"octav", "hadamard+octav+lrqmm"}),
        ("methods/midpoint.py", {"midpoint"}),
        ("methods/bf16.py", {"bf16"}),
        ("methods/smoothquant.py", {"smoothquant", "awq", "svdquant", "flrq"}),
        (
            "products/weightside.py",
            {
                "flrq",
                "lopro",
                "arhq",
                "caldera",
                "eora",
                "espace",
                "l2qer",
                "lowrank_first",
                "lqer",
                "qera",
                "resq",
                "srr",
                "svdquant",
            },
        ),
        ("methods/fp8.py", {"fp8", "fp8_f32"}),
        ("figures/_style.py", set()),
        ("bench/progress.py", set()),
        ("bench/data/packages.py", set()),
        ("run/read.py", set()),
        ("products/quantize.py", "compositions"),
        ("products/lowrank.py", "compositions"),
        ("products/adaptive.py", "compositions"),
        ("products/method.py", "all"),
        ("products/backends/torch.py", "all"),
        ("error.py", "all"),
    ],
)
def test_code_hash_follows_the_code_that_decides(package, file, whose):
    before = hashes()
    path = package / file
    path.write_text(path.read_text() + "\n# changed\n")
    changed = {name for name, found in hashes().items() if found != before[name]}
    if whose == "compositions":
        assert {"direct", "lrqmm", "hadamard"} < changed
        assert changed.isdisjoint({"sgemm", "bf16", None})
    else:
        assert changed == (set(before) if whose == "all" else whose)


@pytest.mark.parametrize(
    ("file", "measures"),
    [
        ("bench/measures/_counter.py", {"count"}),
        ("bench/measures/error.py", {"error"}),
        ("timing.py", {"time"}),
        ("bench/measures/_products.py", {"count", "error", "time"}),
        ("fused/passes.cpp", {"count", "error", "time"}),
        ("bench/study.py", set()),
        ("tiled/__init__.py", set()),
    ],
)
def test_a_kind_of_measurement_follows_its_own_code(package, file, measures):
    before = {measure: hashes(measure) for measure in ("count", "error", "time")}
    path = package / file
    path.write_text(path.read_text() + "\n# changed\n")
    assert {measure for measure in before if hashes(measure) != before[measure]} == measures


def test_environment_is_recorded():
    found = environment.environment()
    assert found["lrqmm"] == lrqmm.__version__
    assert found["cores"] >= 1
    assert found["packages"]["torch"] == torch.__version__
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(("others", "loaded"), [(0.0, False), (0.05, False), (0.5, True)])
def test_load_by_others_is_noticed(monkeypatch, others, loaded):
    """`others`: the share of all cores that other processes use."""
    cores = load._cores()
    started = time.monotonic()

    def busy():
        return (time.monotonic() - started) * others * cores + time.process_time()

    monkeypatch.setattr(load, "_busy", busy)
    with load.watch_load(cores) as verdict:
        time.sleep(0.05)
    assert verdict == {"loaded": loaded}


def test_the_work_of_all_cores_is_read_as_psutil_reads_it(monkeypatch, tmp_path):
    here = load._busy()
    monkeypatch.setattr(load, "STAT", tmp_path / "none")
    assert load._busy() == pytest.approx(here, abs=5)


# progress


def test_seconds_of_a_process():
    script = (
        "import time\nbegun = time.monotonic()\n"
        "from lrqmm.bench.progress import process_seconds\n"
        "print(process_seconds() - (time.monotonic() - begun))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert 0 <= float(done.stdout) < 5  # Python's own start, on a busy machine


def test_progress_counts_what_was_still_to_do(tmp_path):
    pairs = (Pair("normal", None, 0, 8, 8, 8, "x"),)
    error, steps = (MEASURES.get(name)(measure=name) for name in ("error", "steps"))
    todo = [Shard(f"s{i}", "test", error, "torch", "direct", pairs, ({},)) for i in range(4)]
    arrays_shard = Shard("s4", "test", steps, "numpy", None, pairs, ({},))
    done = output(tmp_path, todo[0])
    assert done == tmp_path / "measurements/s0.parquet"
    done.parent.mkdir()
    done.touch()
    record = tmp_path / "progress.json"
    begin(record, tmp_path, [*todo, arrays_shard])
    assert report(record, tmp_path).startswith("0 of 4 shards in 0 s")
    output(tmp_path, todo[1]).touch()
    output(tmp_path, arrays_shard).parent.mkdir()
    output(tmp_path, arrays_shard).touch()
    assert report(record, tmp_path).startswith("2 of 4 shards")
    assert report(tmp_path / "absent.json", tmp_path) == "shard done"
