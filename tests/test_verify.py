"""What a submission checker refuses; merging; and what the command line says of both."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from lrqmm._files import sha256
from lrqmm.bench.keep import keep
from lrqmm.bench.progress import output
from lrqmm.bench.sources.distributions import write_sample
from lrqmm.bench.study import plan
from lrqmm.bench.verify import verify, words
from lrqmm.cli import app
from lrqmm.run.folder import StoreError, write_json, write_manifest
from lrqmm.run.merge import merge
from lrqmm.run.read import read_run, read_table, table, write_table

STUDY = {
    "run": "run",
    "experiments": {
        "distributions": {
            "measure": "error",
            "inputs": ["normal", "uniform01"],
            "sizes": [16],
            "seeds": 2,
            "methods": ["direct", "lrqmm"],
            "settings": {"bits": [4, 8], "rank": 2},
        },
        "time": {
            "measure": "time",
            "inputs": ["normal"],
            "sizes": [32],
            "samples": 5,
            "methods": ["direct"],
            "settings": {"bits": 8},
        },
    },
}
DIRECT = "distributions-direct-torch-0"
RUNS = sorted((Path(__file__).parent.parent / "results/reference").iterdir())
runner = CliRunner()


def measure(folder: Path, **changes) -> Path:
    """A run folder, measured here as the workflow does it."""
    asked = {**STUDY, "run": str(folder), **changes}
    study = plan(asked)
    for path, given in study.inputs.items():
        write_sample(path, given.input, given.m, given.k, given.n, given.input_seed)
    tables = []
    for shard in study.shards:
        files = [given.path for given in shard.inputs]
        tables.append(output(folder, shard))
        write_table(table(shard.measure.rows(shard, files, "cpu", 1)), tables[-1])
    write_json({"machine": "this one"}, folder / "environment.json")
    write_manifest(folder, [*tables, folder / "environment.json"], study.config)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return measure(tmp_path / "run")


def change(run: Path, shard: str, edit, *, and_manifest: bool = True) -> None:
    """Change a table of a run, and its hash in the manifest, as a careful forger would."""
    path = run / f"measurements/{shard}.parquet"
    write_table(edit(read_table(path)), path)
    if and_manifest:
        manifest = json.loads((run / "manifest.json").read_text())
        write_manifest(run, [run / name for name in manifest["files"]], manifest["study"])


def drop(run: Path, shard: str) -> None:
    """Take a shard away, from the manifest too."""
    manifest = json.loads((run / "manifest.json").read_text())
    kept = [name for name in manifest["files"] if shard not in name]
    assert len(kept) < len(manifest["files"])
    write_manifest(run, [run / name for name in kept], manifest["study"])


def add(run: Path, shard: str) -> None:
    """Put a shard in that nobody asked for, in the manifest too."""
    shutil.copy(run / f"measurements/{DIRECT}.parquet", run / f"measurements/{shard}.parquet")
    manifest = json.loads((run / "manifest.json").read_text())
    files = [*manifest["files"], f"measurements/{shard}.parquet"]
    write_manifest(run, [run / name for name in files], manifest["study"])


def forget_study(run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    write_json({**manifest, "study": {"merged": {}}}, run / "manifest.json")


def list_file(run: Path, name: str) -> None:
    """List a file outside the run, with its true hash."""
    manifest = json.loads((run / "manifest.json").read_text())
    shutil.copy(run / f"measurements/{DIRECT}.parquet", run / name)
    manifest["files"][name] = sha256(run / name)
    write_json(manifest, run / "manifest.json")


def set_values(table: pd.DataFrame, where: str, value) -> pd.DataFrame:
    rows = table.query(where).index
    assert len(rows)
    return table.assign(value=table["value"].mask(table.index.isin(rows), value))


def test_a_run_that_was_measured_here_is_verified(run):
    verdict = verify(run, again=8)
    assert verdict.refusals == ()
    assert verdict.warnings == ()
    assert "8 errors measured again" in verdict.checked[1]


@pytest.mark.parametrize("folder", RUNS, ids=lambda folder: folder.name)
def test_reference_runs_are_verified(folder):
    verdict = verify(folder, again=2)
    assert verdict.refusals == ()
    assert not [line for line in verdict.warnings if "completeness" in line]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda run: change(run, DIRECT, lambda t: set_values(t, "setting == 0", 0.01),
                            and_manifest=False), "differs from the SHA-256 in manifest.json"),
        (lambda run: (run / f"measurements/{DIRECT}.parquet").unlink(), "missing, though manifest"),
        (lambda run: drop(run, DIRECT), f"shard {DIRECT} is missing, though the study asks"),
        (lambda run: change(run, DIRECT, lambda t: t[t["setting"] == 0]),
         f"shard {DIRECT}: rows of 4 settings, and the study asks for 8"),
        (lambda run: change(run, DIRECT, lambda t: t.assign(input_sha256="0" * 64)),
         "input normal 0 16 16 16: several matrices under one name"),
        (lambda run: add(run, "distributions-extra-torch-0"), "extra-torch-0.parquet: no shard of"),
        (lambda run: forget_study(run), "does not say what study was measured"),
        (lambda run: list_file(run, "../outside.parquet"), "lists '../outside.parquet'; allowed"),
        (lambda run: change(run, "time-direct-torch-0",
                            lambda t: set_values(t, "metric == 'seconds' and sample == 1", 0.0)),
         "a time of 0 or less"),
        (lambda run: change(run, "time-direct-torch-0",
                            lambda t: set_values(t, "metric == 'seconds'", 1e-9)),
         "above 2.0 times the machine's own ceiling"),
        (lambda run: change(run, "time-direct-torch-0",
                            lambda t: set_values(t, "metric == 'seconds'", 0.5)),
         "times without any spread"),
        (lambda run: change(run, DIRECT, lambda t: t.assign(method="sgemm")),
         "float32 products with an error above 1e-4"),
        (lambda run: change(run, DIRECT,
                            lambda t: t.assign(measured_at="2199-01-01T00:00:00+00:00")),
         "measured at no time, or in the future: 2199"),
    ],
    ids=["value", "file", "shard", "rows", "inputs", "extra", "no study", "outside", "zero",
         "fast", "even", "sgemm", "future"],
)  # fmt: skip
def test_what_no_honest_run_has_is_refused(run, spoil, said):
    spoil(run)
    found = verify(run).refusals
    assert any(said in line for line in found), found
    result = runner.invoke(app, ["verify", str(run)])
    assert result.exit_code == 1
    assert "refused: " in result.output


@pytest.fixture
def kept(run, tmp_path, monkeypatch):
    """The run as a reference: one table of each kind."""
    monkeypatch.setattr("lrqmm.bench.keep.objections", lambda _: [])  # this checkout may be dirty
    keep(run, tmp_path / "kept")
    return tmp_path / "kept"


def test_a_kept_run_has_one_table_of_each_kind_with_the_same_rows(run, kept):
    names = {path.relative_to(kept).as_posix() for path in kept.rglob("*.*")}
    assert names == {"measurements/all.parquet", "environment.json", "manifest.json"}
    pd.testing.assert_frame_equal(read_run(kept).measurements, read_run(run).measurements)
    assert verify(kept) == verify(run)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda t: t[t["shard"] != DIRECT], f"shard {DIRECT} is missing, though the study asks"),
        (lambda t: t[(t["shard"] != DIRECT) | (t["setting"] == 0)],
         f"shard {DIRECT}: rows of 4 settings, and the study asks for 8"),
        (lambda t: t.assign(shard=t["shard"].replace(DIRECT, "extra")), "extra: no shard of the"),
    ],
    ids=["shard", "rows", "extra"],
)  # fmt: skip
def test_a_kept_run_is_checked_shard_by_shard(kept, edit, said):
    change(kept, "all", edit)
    assert any(said in line for line in verify(kept).refusals)


def test_a_merged_run_is_kept_source_by_source(run, tmp_path, monkeypatch):
    monkeypatch.setattr("lrqmm.bench.keep.objections", lambda _: [])
    merge([run, measure(tmp_path / "other")], tmp_path / "both")
    keep(tmp_path / "both", tmp_path / "kept")
    names = {path.parent.name for path in (tmp_path / "kept").rglob("all.parquet")}
    assert names == {"run", "other"}
    found, wanted = (read_run(tmp_path / name).measurements for name in ("kept", "both"))
    pd.testing.assert_frame_equal(found, wanted)
    assert verify(tmp_path / "kept") == verify(tmp_path / "both")


def test_a_careful_forgery_is_found_by_measuring_again(run):
    for shard in (DIRECT, "distributions-lrqmm-torch-0", "time-direct-torch-0"):
        change(run, shard, lambda t: set_values(t, "metric == 'relative_error'", 0.9 * t["value"]))
    assert verify(run).refusals == ()
    refusals = verify(run, again=3).refusals
    assert len(refusals) == 3
    assert "and measured again" in refusals[0]


def test_errors_recorded_before_a_method_had_a_parameter_are_only_warned_of(run):
    def older(table):
        table = set_values(table, "metric == 'relative_error'", 0.9 * table["value"])
        recorded = [json.loads(parameters) for parameters in table["parameters"]]
        without = [{k: v for k, v in each.items() if k != "levels"} for each in recorded]
        return table.assign(parameters=[json.dumps(each, sort_keys=True) for each in without])

    for shard in (DIRECT, "distributions-lrqmm-torch-0", "time-direct-torch-0"):
        change(run, shard, older)
    verdict = verify(run, again=3)
    assert not [line for line in verdict.refusals if "measured again" in line]
    assert len([line for line in verdict.warnings if "recorded without levels" in line]) == 3
    assert "0 errors measured again" in verdict.checked[1]


def test_held_out_rows_are_counted_and_measured_again(tmp_path):
    held_out = {
        "held": {
            "measure": "error", "inputs": ["normal"], "sizes": ["60x32x32"], "held_out": True,
            "methods": ["qera", "direct"], "settings": {"bits": 4, "rank": 2},
        },
    }  # fmt: skip
    run = measure(tmp_path / "run", experiments=held_out)
    verdict = verify(run, again=9)
    assert verdict.refusals == ()
    assert any("3 errors measured again: the same" in line for line in verdict.checked)
    shard = "held-qera-torch-0"
    change(run, shard, lambda table: table[table["calibration"] == "same"])
    assert any("rows of 1 settings, and the study asks for 2" in r for r in verify(run).refusals)
    change(run, shard, lambda table: table.assign(calibration="other"))
    verdict = verify(run, again=9)
    assert any("no error with calibration 'other'" in line for line in verdict.warnings)


def test_what_is_not_listed_is_said(run):
    shutil.copy(run / f"measurements/{DIRECT}.parquet", run / "measurements/stale.parquet")
    verdict = verify(run)
    assert verdict.refusals == ()
    assert "1 tables are not in manifest.json, and not read: stale.parquet" in verdict.warnings[0]


def test_a_method_that_is_newer_than_the_run_is_not_missing(run):
    drop(run, "distributions-lrqmm-torch-0")
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["study"]["experiments"]["distributions"]["methods"] == ["direct", "lrqmm"]
    assert len(verify(run).refusals) == 1
    manifest["study"]["experiments"]["distributions"]["methods"] = "all"  # of an older suite
    manifest["study"]["methods"] = "direct,lrqmm"
    write_json(manifest, run / "manifest.json")
    assert verify(run).refusals == ()


def test_older_code_is_a_warning(run):
    change(run, DIRECT, lambda t: t.assign(code_hash="0" * 16))
    verdict = verify(run)
    assert verdict.refusals == ()
    assert "1 shards were measured by other code than is here" in verdict.warnings
    assert "warning: " in "\n".join(words(verdict))


def test_json_for_programs(run):
    result = runner.invoke(app, ["verify", str(run), "--json"])
    assert result.exit_code == 0
    assert json.loads(result.output)["refusals"] == []


# merging


def test_merged_runs_keep_what_was_measured_twice(run, tmp_path):
    other = measure(tmp_path / "other")
    change(other, DIRECT, lambda t: t.assign(machine="another"))
    merge([run, other], tmp_path / "both")
    one, both = (read_run(folder).measurements for folder in (run, tmp_path / "both"))
    assert len(both) == 2 * len(one)
    assert set(both["machine"]) == {*one["machine"], "another"}
    assert verify(tmp_path / "both").refusals == ()
    drop(tmp_path / "both", f"other/{DIRECT}")
    assert verify(tmp_path / "both").refusals == (
        f"shard {DIRECT} is missing, though the study asks for it",
    )


def test_parts_of_a_study_merge(run, tmp_path):
    parts = [measure(tmp_path / name, methods=[name]) for name in ("direct", "lrqmm")]
    merge(parts, tmp_path / "both")
    keys = ["shard", "input", "input_seed", "parameters", "metric", "phase", "sample"]
    found, wanted = (
        read_run(folder).measurements.query("metric == 'relative_error'")[[*keys, "value"]]
        .sort_values(keys).reset_index(drop=True)
        for folder in (tmp_path / "both", run)
    )  # fmt: skip
    pd.testing.assert_frame_equal(found, wanted)


def test_a_clash_of_inputs_is_refused(run, tmp_path):
    other = measure(tmp_path / "other")
    change(other, DIRECT, lambda t: t.assign(input_sha256="0" * 64))
    with pytest.raises(StoreError, match="different matrices under one name: uniform01 0 16 16 16"):
        merge([run, other], tmp_path / "both")
    assert not (tmp_path / "both").exists()
    result = runner.invoke(app, ["merge", str(run), str(other), "--into", str(tmp_path / "both")])
    assert result.exit_code == 1
    assert "error: the runs other, run multiplied different matrices" in result.output


def test_what_cannot_be_merged(run, tmp_path):
    with pytest.raises(StoreError, match="is there already"):
        merge([run], run)
    with pytest.raises(StoreError, match="called the same"):
        merge([run, run], tmp_path / "both")
    (run / "manifest.json").unlink()
    with pytest.raises(StoreError, match=r"manifest\.json: missing"):
        merge([run], tmp_path / "both")
    assert not (tmp_path / "both").exists()
