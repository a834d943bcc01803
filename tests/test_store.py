"""The table of measurements: what may be in it, and run folders that cannot be trusted."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lrqmm.run.folder import StoreError, reopen, write_json, write_manifest
from lrqmm.run.read import read_run, read_table, table, validate, write_table
from lrqmm.run.schema import ARRAY_SCHEMA, MEASUREMENT_SCHEMA


def row(**changes):
    return {
        "experiment": "rank",
        "input": "normal",
        "input_seed": 0,
        "input_sha256": "0123456789abcdef" * 4,
        "m": 3,
        "k": 4,
        "n": 5,
        "method": "lrqmm",
        "parameters": '{"bits": 4, "rank": 2}',
        "bits": 4,
        "rank": 2,
        "calibration": "none",
        "metric": "relative_error",
        "sample": 0,
        "value": 0.25,
        "status": "ok",
        "shard": "rank-lrqmm-torch-0",
        "library": "torch",
        "device": "cpu",
        "machine": "a processor, 2 cores",
        "threads": 2,
        "compute_dtype": "float32",
        "integer_route": "torch._int_mm (cpu)",
        "loaded": False,
        "setting": 0,
        "code_hash": "abc",
        "version": "0.1.0",
        "git_commit": "unknown",
        "git_dirty": False,
        "measured_at": "2025-01-01T00:00:00+00:00",
        **changes,
    }


FAILED = dict(value=None, status="failed", reason="ValueError: it broke")


def array_row(**changes):
    return {
        "experiment": "steps",
        "input": "conv1",
        "name": "residual",
        "parameters": "{}",
        "row": 0,
        "column": 0,
        "value": -1.5,
        "input_sha256": "0",
        **changes,
    }


HAS_VALUE = "table: a row has a value exactly where its status is 'ok'"

# tables


def test_tables_come_back_as_they_were_written(tmp_path):
    rows = [
        row(),
        row(layer="conv1", input_seed=None, phase="sketch", metric="seconds", value=0.0),
        row(**FAILED, rank=None, zero_point="integer"),
    ]
    written = table(rows)
    write_table(written, tmp_path / "deep" / "t.parquet")
    found = read_table(tmp_path / "deep" / "t.parquet")
    pd.testing.assert_frame_equal(found, written)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["t.parquet"]
    assert found["value"].tolist()[:2] == [0.25, 0.0]
    assert found["value"].isna().tolist() == [False, False, True]
    assert found["rank"].isna().tolist() == [False, False, True]
    assert found["reason"][2] == "ValueError: it broke"
    assert found["zero_point"].isna().tolist() == [True, True, False]


def test_empty_tables(tmp_path):
    for schema in (MEASUREMENT_SCHEMA, ARRAY_SCHEMA):
        write_table(table([], schema), tmp_path / "t.parquet")
        found = read_table(tmp_path / "t.parquet", schema)
        assert len(found) == 0
        assert list(found.columns) == list(schema.columns)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metric": "error"}, "metric: "),
        ({"metric": None}, "metric: "),
        ({"status": "fine"}, "status: "),
        ({"value": -0.1}, "value: "),
        ({"value": None}, HAS_VALUE),
        ({"value": float("nan")}, HAS_VALUE),
        ({"status": "failed", "reason": "x"}, HAS_VALUE),
        ({"status": "unsupported", "reason": "x"}, HAS_VALUE),
        ({"m": -1}, "m: "),
        ({"m": None}, "m: "),
        ({"sample": -1}, "sample: "),
        ({"method": None}, "method: "),
        ({"input_sha256": "0123"}, "input_sha256: "),
        ({"input_sha256": "G" * 64}, "input_sha256: "),
        ({"loaded": None}, "loaded: "),
    ],
    ids=str,
)
def test_rows_that_are_no_measurements(tmp_path, changes, said):
    with pytest.raises(StoreError, match=rf"new rows: not a table of measurements: {said}"):
        table([row(), row(**changes)])
    # nor are they read from a file that somebody else wrote
    frame = table([row()])
    wrong = pd.DataFrame([{**frame.iloc[0].to_dict(), **changes}], columns=frame.columns)
    wrong.to_parquet(tmp_path / "wrong.parquet")
    with pytest.raises(StoreError, match=rf"wrong\.parquet: not a table of measurements: {said}"):
        read_table(tmp_path / "wrong.parquet")


def test_columns_are_fixed(tmp_path):
    frame = table([row()])
    path = tmp_path / "t.parquet"
    for wrong, said in (
        (frame.assign(extra=1), "extra"),
        (frame[frame.columns[::-1]], "column"),
    ):
        with pytest.raises(StoreError, match=said):
            validate(wrong, MEASUREMENT_SCHEMA, "a frame")
        wrong.to_parquet(path)
        with pytest.raises(StoreError, match=rf"t\.parquet.*{said}"):
            read_table(path)
    frame.drop(columns=["metric", "input"]).to_parquet(path)
    with pytest.raises(StoreError, match=r"t\.parquet: columns are missing: input, metric"):
        read_table(path)


def test_a_run_older_than_a_parameter_is_still_read(tmp_path):
    frame = table([row()])
    frame.drop(columns=["bits_a", "execution"]).to_parquet(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.parquet"), frame)


def test_types_are_fixed(tmp_path):
    frame = table([row()]).astype({"m": "string"})
    frame["m"] = "three"
    frame.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(StoreError, match=r"t\.parquet"):
        read_table(tmp_path / "t.parquet")


def test_arrays_may_be_negative_but_not_incomplete():
    assert table([array_row()], ARRAY_SCHEMA)["value"][0] == -1.5
    for changes, column in (
        ({"row": -1}, "row"),
        ({"value": None}, "value: "),
        ({"name": None}, "name"),
    ):
        with pytest.raises(StoreError, match=column):
            table([array_row(**changes)], ARRAY_SCHEMA)


@pytest.mark.parametrize("how", ["raises at once", "raises half-way"])
def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch, how):
    path = tmp_path / "t.parquet"
    write_table(table([row()]), path)
    old = path.read_bytes()

    def fails(frame, target, **kwargs):
        if how == "raises half-way":
            Path(target).write_bytes(b"PAR1 torn")
        raise OSError("no space left")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", fails)
    with pytest.raises(OSError, match="no space left"):
        write_table(table([row(value=0.5)]), path)
    assert path.read_bytes() == old


def test_json_is_written_whole(tmp_path):
    path = tmp_path / "deep" / "x.json"
    write_json({"b": 1, "a": [2]}, path)
    assert json.loads(path.read_text()) == {"a": [2], "b": 1}
    old = path.read_bytes()
    with pytest.raises(TypeError):
        write_json({"b": object()}, path)
    assert path.read_bytes() == old
    assert [p.name for p in path.parent.iterdir()] == ["x.json"]


# run folders


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    files = {
        "measurements/b.parquet": table([row(shard="b", value=0.5)]),
        "measurements/a.parquet": table([row(), row(experiment="size")]),
        "arrays/steps.parquet": table([array_row()], ARRAY_SCHEMA),
    }
    for name, frame in files.items():
        write_table(frame, folder / name)
    write_json({"machine": "a processor"}, folder / "environment.json")
    write_manifest(folder, [folder / name for name in files], {"device": "cpu"})
    return folder


def test_a_row_with_a_column_of_its_own_is_refused():
    with pytest.raises(StoreError, match="no such columns: bitz"):
        table([row(), row(bitz=4)])


def test_a_run_is_read(run):
    found = read_run(run)
    assert found.measurements["value"].tolist() == [0.25, 0.25, 0.5]
    assert found.experiment("size")["value"].tolist() == [0.25]
    assert found.arrays["value"].tolist() == [-1.5]
    assert found.environment == {"machine": "a processor"}
    assert found.folder == run
    manifest = json.loads((run / "manifest.json").read_text())
    assert list(manifest["files"]) == [
        "arrays/steps.parquet", "measurements/a.parquet", "measurements/b.parquet",
    ]  # fmt: skip
    assert manifest["study"] == {"device": "cpu"}


def test_titles_are_read_from_the_manifest(run):
    assert read_run(run).title("normal") == "normal"
    manifest = json.loads((run / "manifest.json").read_text())
    write_manifest(run, [run / name for name in manifest["files"]], {}, {"normal": "normal(0, 1)"})
    found = read_run(run)
    assert [found.title(name) for name in ("normal", "mine")] == ["normal(0, 1)", "mine"]
    write_json(
        json.loads((run / "manifest.json").read_text()) | {"titles": [1]}, run / "manifest.json"
    )
    with pytest.raises(StoreError, match="'titles' is no object of text"):
        read_run(run)


def test_files_that_the_manifest_does_not_list_are_not_read(run):
    write_table(table([row(value=9.0)]), run / "measurements/stale.parquet")
    assert 9.0 not in read_run(run).measurements["value"].tolist()


def test_an_unfinished_run_is_read_where_asked(run):
    (run / "manifest.json").unlink()
    with pytest.raises(StoreError, match=r"manifest\.json: missing"):
        read_run(run)
    found = read_run(run, unfinished=True)
    assert sorted(found.measurements["value"]) == [0.25, 0.25, 0.5]
    truncate(run / "measurements/a.parquet")
    with pytest.raises(StoreError, match=r"a\.parquet: cannot be read"):
        read_run(run, unfinished=True)
    for path in run.rglob("*.parquet"):
        path.unlink()
    with pytest.raises(StoreError, match="nothing is measured there yet"):
        read_run(run, unfinished=True)


def test_a_run_that_is_measured_anew_is_unfinished(run):
    reopen(run)
    reopen(run)  # by the next job
    with pytest.raises(StoreError, match=r"manifest\.json: missing"):
        read_run(run)
    assert sorted(read_run(run, unfinished=True).measurements["value"]) == [0.25, 0.25, 0.5]


def test_what_one_machine_measured(run):
    write_table(table([row(machine="another", value=0.75)]), run / "measurements/c.parquet")
    (run / "manifest.json").unlink()
    both = read_run(run, unfinished=True)
    assert both.machines == ["a processor, 2 cores", "another"]
    assert both.on("another").measurements["value"].tolist() == [0.75]
    assert len(both.on("a processor, 2 cores").measurements) == 3


def test_a_moved_run_is_read(run, tmp_path):
    moved = run.rename(tmp_path / "elsewhere")
    assert len(read_run(str(moved)).measurements) == 3


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def tamper(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def swap(path):
    write_table(table([row(value=0.001)]), path)


@pytest.mark.parametrize(
    ("name", "spoil", "said"),
    [
        (
            "measurements/a.parquet",
            Path.unlink,
            "missing, though manifest.json of the run lists it",
        ),
        ("arrays/steps.parquet", Path.unlink, "missing, though manifest.json"),
        ("measurements/a.parquet", tamper, "differs from the SHA-256 in manifest.json"),
        ("measurements/a.parquet", truncate, "differs from the SHA-256 in manifest.json"),
        ("measurements/b.parquet", swap, "differs from the SHA-256 in manifest.json"),
        ("manifest.json", Path.unlink, "missing; a run folder has it once measuring ended"),
        ("manifest.json", truncate, "cannot be read"),
        ("manifest.json", lambda path: path.write_text("{}"), ""),
        ("manifest.json", lambda path: path.write_text("[]"), ""),
        ("manifest.json", lambda path: path.write_text('{"files": null}'), ""),
        ("manifest.json", lambda path: path.write_bytes(b"\xff\xfe\x80"), "cannot be read"),
        ("environment.json", Path.unlink, "missing"),
        ("environment.json", lambda path: path.write_text("no JSON"), "cannot be read"),
    ],
)
def test_a_run_that_is_not_what_was_measured(run, name, spoil, said):
    spoil(run / name)
    with pytest.raises(StoreError, match=rf"{name}: .*{said}"):
        read_run(run)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (truncate, "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.write_text("value\n1\n"), "cannot be read"),
        (
            lambda path: table([row()]).assign(value=-1.0).to_parquet(path),
            "not a table of measurements: value",
        ),
        (
            lambda path: table([row()]).drop(columns="status").to_parquet(path),
            "columns are missing: status",
        ),
    ],
    ids=["truncated", "empty", "text", "negative", "column"],
)
def test_a_listed_file_is_checked_even_if_its_hash_is_right(run, spoil, said):
    spoil(run / "measurements/a.parquet")
    write_manifest(run, run.glob("*/*.parquet"), {})
    with pytest.raises(StoreError, match=rf"measurements/a\.parquet: {said}"):
        read_run(run)


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(StoreError, match=r"manifest\.json: missing"):
        read_run(tmp_path / "nowhere")


def test_many_rows_are_checked_too():
    rows = [row(value=float(v)) for v in np.linspace(0, 1, 500)]
    assert len(table(rows)) == 500
    rows[321]["value"] = -1.0
    with pytest.raises(StoreError, match=r"value: .*: -1\.0"):
        table(rows)
