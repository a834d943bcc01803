"""Faults injected into methods, files and the machine; `make faults` prints what came of each."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
from test_workflow_faults import TINY, errors, set_config, tiny  # noqa: F401

import lrqmm
from lrqmm.bench.progress import report
from lrqmm.run.folder import StoreError, write_json
from lrqmm.run.read import read_run

BROKEN = '''"""Direct, broken: a method for the test.

Source: none.
"""

import os, signal
from dataclasses import dataclass
import torch
from lrqmm.products.composition import Preset
from lrqmm.products.cost import Cost
from lrqmm.products.parts import Compensator


@dataclass(frozen=True, kw_only=True)
class Broken(Compensator):
    def correct(self, A, B, prepared):
        {body}

    def cost(self, m, k, n):
        return Cost()


METHOD = Preset("{name}", compensator=Broken, usual=True)
'''
RECORDED = {
    "raises": ('raise ArithmeticError("it broke")', "ArithmeticError: it broke"),
    "nan": ("return 0 * A.approx @ B.approx + float('nan')", "holds NaN or infinity"),
    "shape": ("return (A.approx @ B.approx)[:1, :, None]", "the result has shape"),
    "memory": ("return torch.zeros(2**46, dtype=torch.uint8)", "alloc"),
    "gpu": (
        'raise torch.AcceleratorError("CUDA error: device is lost")',
        "CUDA error: device is lost",
    ),
}
"""Faults of a method that become rows: (body of the method, what the row says)."""
KILLED = "os.kill(os.getpid(), signal.SIGKILL)"  # as the kernel does when memory runs out


def add_broken(project, name: str, body: str) -> None:
    path = project.folder / f"src/lrqmm/methods/broken_{name}.py"
    path.write_text(BROKEN.format(name=f"broken_{name}", body=body))


@pytest.fixture(scope="module")
def broken(make_project):
    """The tiny study with every broken method beside the good ones."""
    project = make_project("broken")
    for name, (body, _) in RECORDED.items():
        add_broken(project, name, body)
    add_broken(project, "killed", KILLED)
    usual = ("direct", "lrqmm", "mean_fix")
    others = ", ".join(name for name in lrqmm.list_methods() if name not in usual)
    set_config("    methods: [direct, lrqmm, mean_fix]\n", "")(project)  # the broken ones too
    set_config("device: cpu\n", f"device: cpu\nleave_out: [{others}]\n")(project)
    set_config("    sizes: [32]\n", "    sizes: [16]\n")(project)
    set_config("rank: 4", "rank: 4, granularity: vector")(project)
    return project, project.snakemake("measurements", *TINY)


@pytest.mark.parametrize("name", RECORDED)
def test_a_broken_method_is_rows_with_its_reason(broken, name, fault):
    project, _ = broken
    table = read_run(project.folder / "results/tiny", unfinished=True).measurements
    own = table[table["method"] == f"broken_{name}"]
    assert (own["status"] == "failed").all()
    assert own["value"].isna().all()
    assert own["reason"].str.contains(RECORDED[name][1]).all(), own["reason"].iloc[0]
    assert len(own) == 4
    good = table[table["method"] == "direct"]
    assert (good["status"] == "ok").all()
    fault(f"method: {RECORDED[name][0]}", own["reason"].iloc[0], "its rows say so, others measured")


def test_a_killed_job_loses_its_own_shard_only(broken, fault):
    project, result = broken
    assert result.returncode != 0
    assert "Error in rule measure_errors:" in result.stderr
    assert "logs/measurements/distributions-broken_killed-torch-0.log" in result.stderr
    table = read_run(project.folder / "results/tiny", unfinished=True).measurements
    assert "broken_killed" not in set(table["method"])
    assert {"direct", "lrqmm", "mean_fix"} <= set(table["method"])
    (project.folder / "src/lrqmm/methods/broken_killed.py").unlink()
    before = {path: path.stat().st_mtime_ns for path in project.folder.rglob("*.parquet")}
    project.run("measurements", *TINY)
    read_run(project.folder / "results/tiny")
    assert before == {path: path.stat().st_mtime_ns for path in project.folder.rglob("*.parquet")}
    fault("SIGKILL to a measuring job", "Error in rule measure_errors ... exit", "all other shards")


@pytest.mark.parametrize("wait", [0.5, 2, 4])
def test_killed_at_any_moment_the_run_resumes(tiny, project, wait, fault):  # noqa: F811
    process = start(project)
    run = project.folder / "results/tiny"
    while not (run / "inputs.json").exists() and process.poll() is None:
        time.sleep(0.05)
    time.sleep(wait)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    project.run("--unlock", *TINY)
    project.run("measurements", *TINY)
    pd.testing.assert_frame_equal(errors(run), errors(tiny.folder / "results/tiny"))
    fault(f"SIGKILL to the workflow {wait} s after inputs", "nothing", "resumed: the same table")


def test_interrupted_by_the_user(tiny, project, fault):  # noqa: F811
    process = start(project)
    run = project.folder / "results/tiny"
    while not (run / "inputs.json").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) != 0
    project.run("measurements", *TINY)  # the lock is gone
    pd.testing.assert_frame_equal(errors(run), errors(tiny.folder / "results/tiny"))
    fault("SIGINT (Ctrl-C) to the workflow", "Terminating processes", "resumed: the same table")


def start(project) -> subprocess.Popen:
    """It hears Ctrl-C even where these tests run in a shell's background, which ignores it."""
    return subprocess.Popen(
        project.command("measurements", *TINY), cwd=project.folder, env=project.environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def test_two_workflows_at_once(tiny, project, fault):  # noqa: F811
    process = start(project)
    while not (project.folder / "results/tiny/inputs.json").exists() and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGSTOP)  # it must not end before the second looks
    second = project.snakemake("measurements", *TINY)
    os.killpg(process.pid, signal.SIGCONT)
    assert second.returncode != 0
    assert "Directory cannot be locked" in second.stderr
    assert f"Process {process.pid} of this machine works in it" in second.stderr
    assert process.wait(timeout=300) == 0
    found = errors(project.folder / "results/tiny")
    pd.testing.assert_frame_equal(found, errors(tiny.folder / "results/tiny"))
    fault(
        "a second workflow on the same folder", "Directory cannot be locked", "the first finished"
    )


def copy_of(tiny, project) -> Path:  # noqa: F811
    shutil.copytree(tiny.folder / "results", project.folder / "results")
    shutil.copytree(tiny.folder / ".snakemake", project.folder / ".snakemake")
    return project.folder / "results/tiny"


def test_a_truncated_table(tiny, project, fault):  # noqa: F811
    run = copy_of(tiny, project)
    path = run / "measurements/distributions-lrqmm-torch-0.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    result = project.snakemake("figures", *TINY)
    assert result.returncode != 0
    said = "distributions-lrqmm-torch-0.parquet: differs from the SHA-256 in manifest.json"
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    path.unlink()
    project.run("measurements", *TINY)
    pd.testing.assert_frame_equal(errors(run), errors(tiny.folder / "results/tiny"))
    fault("a truncated Parquet file", said, "deleted and measured again: the same table")


def test_a_configuration_that_is_no_yaml(project, fault):
    config = project.folder / "config/test/tiny.yaml"
    config.write_text(config.read_text().replace("settings: {", "settings: ["))
    result = project.snakemake("measurements", *TINY)
    assert result.returncode != 0
    assert "Config file is not valid JSON or YAML" in result.stderr
    assert not (project.folder / "results").exists()
    fault("a config with a bracket wrong", "Config file is not valid JSON or YAML", "nothing begun")


FULL = """
mount -t tmpfs -o size=64k none {run}
cd {folder}
{command}
code=$?
cp -r {run} {folder}/left
exit $code
"""


@pytest.mark.skipif(
    subprocess.run(
        ["unshare", "--mount", "true"], capture_output=True, check=False
    ).returncode if shutil.which("unshare") else True,
    reason="needs the right to mount",
)  # fmt: skip
def test_a_full_disk(tiny, project, fault):  # noqa: F811
    run = project.folder / "results/tiny"
    run.mkdir(parents=True)
    command = " ".join(project.command("measurements", *TINY))
    script = FULL.format(run=run, folder=project.folder, command=command)
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", script], env=project.environment,
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode != 0
    assert "No space left on device" in done.stdout + done.stderr
    left = project.folder / "left"
    assert not list(left.rglob("manifest.json"))
    for path in left.glob("measurements/*.parquet"):
        assert len(pd.read_parquet(path))  # what is there is whole
    project.run("--unlock", *TINY)
    project.run("measurements", *TINY)  # now there is room
    pd.testing.assert_frame_equal(errors(run), errors(tiny.folder / "results/tiny"))
    fault("a full disk", "No space left on device", "no half table; with room the same table")


@pytest.mark.skipif(os.geteuid() != 0, reason="root makes itself another user")
def test_a_read_only_results_folder(tiny, project, fault):  # noqa: F811
    run = copy_of(tiny, project)
    before = errors(run)
    (project.folder / "src/lrqmm/error.py").open("a").write("\n# touched\n")
    folders = [run, *(path for path in run.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    done = subprocess.run(
        ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override",
         *project.command("measurements", *TINY)],
        cwd=project.folder, env=project.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    for folder in folders:
        folder.chmod(0o755)
    assert done.returncode != 0
    assert "Permission denied" in done.stdout + done.stderr
    pd.testing.assert_frame_equal(errors(run), before)
    fault(
        "a read-only results folder", "Permission denied: its path", "the finished run is as it was"
    )


def test_a_clock_that_goes_backwards(tmp_path, fault):
    write_json(
        {"started": time.time() + 3600, "todo": {"measurements/a.parquet": 1.0}},
        tmp_path / "progress.json",
    )
    said = report(tmp_path / "progress.json", tmp_path)
    assert "-" not in said
    assert said.startswith("0 of 1 shards in 0 s")
    fault("the clock goes back an hour", said, "times are from a clock that never goes back")


def test_a_manifest_that_is_cut(tiny, project, fault):  # noqa: F811
    run = copy_of(tiny, project)
    manifest = run / "manifest.json"
    manifest.write_text(manifest.read_text()[:50])
    with pytest.raises(StoreError, match=r"manifest\.json: cannot be read") as caught:
        read_run(run)
    fault(
        "a truncated manifest", str(caught.value).replace(str(project.folder), ""), "tables whole"
    )


def test_python_that_cannot_be_imported_is_named(project, fault):
    (project.folder / "src/lrqmm/methods/broken.py").write_text("METHOD = undefined\n")
    result = project.snakemake("measurements", *TINY)
    assert result.returncode != 0
    assert "broken.py" in result.stdout + result.stderr
    assert "undefined" in result.stdout + result.stderr
    fault("a method file with a mistake", "NameError in broken.py", "nothing begun")
