"""A GPU alone, with stand-ins where there is none; the memory that a process may use."""

import itertools
import os
import subprocess
import sys
import time

import pytest

from lrqmm import load
from lrqmm.bench import devices, job
from lrqmm.bench.devices import VISIBLE, gpus, one_gpu
from lrqmm.bench.measures._experiment import Shard
from lrqmm.bench.measures.error import Error
from lrqmm.run.folder import StoreError

HOLD = """
import sys, time
from lrqmm.bench.devices import one_gpu
with one_gpu(["0", "1"], sys.argv[1]) as gpu:
    begun = time.time()
    time.sleep(float(sys.argv[2]))
    print(gpu, begun, time.time())
"""


def test_jobs_side_by_side_have_a_gpu_each_and_alone(tmp_path):
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path), "0.5"], stdout=subprocess.PIPE, text=True
        )
        for _ in range(5)
    ]
    held = [job.communicate(timeout=120)[0].split() for job in jobs]
    assert {gpu for gpu, _, _ in held} == {"0", "1"}
    for name in ("0", "1"):
        spans = sorted((float(a), float(b)) for gpu, a, b in held if gpu == name)
        assert all(first[1] <= second[0] for first, second in itertools.pairwise(spans))


def test_a_killed_job_gives_its_gpu_back(tmp_path, monkeypatch):
    job = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path), "60"])
    lock = tmp_path / "lrqmm-gpu-0.lock"
    while not lock.exists():
        time.sleep(0.05)
    time.sleep(0.2)
    with one_gpu(["0", "1"], tmp_path) as gpu:
        assert gpu == "1"
    job.kill()
    job.wait()
    with one_gpu(["0", "1"], tmp_path) as gpu:
        assert gpu == "0"


def test_only_that_gpu_is_visible(tmp_path, monkeypatch):
    monkeypatch.setenv(VISIBLE, "GPU-ab/c,MIG-2")
    assert gpus() == ["GPU-ab/c", "MIG-2"]
    with one_gpu(gpus(), tmp_path):
        assert os.environ[VISIBLE] == "GPU-ab/c"
        assert [path.name for path in tmp_path.iterdir()] == ["lrqmm-gpu-GPU-ab-c.lock"]
    assert os.environ[VISIBLE] == "GPU-ab/c,MIG-2"
    monkeypatch.setenv(VISIBLE, "")
    assert gpus() == []


def test_no_gpu(tmp_path, monkeypatch):
    monkeypatch.delenv(VISIBLE, raising=False)
    monkeypatch.setattr(devices, "DRIVER", tmp_path / "none")
    assert gpus() == []
    with one_gpu([]) as gpu:
        assert gpu is None
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(devices, "DRIVER", tmp_path)
    assert gpus() == ["0", "1"]


TOO_MUCH = """
import numpy as np, torch
from lrqmm.bench.memory import free_memory, limit_memory
limit_memory()
wanted = 2 * free_memory()
by_numpy = lambda: np.zeros(wanted, np.uint8)
by_torch = lambda: torch.empty(wanted, dtype=torch.uint8)
for allocate in (by_numpy, by_torch):
    try:
        allocate()
        print("allocated")
    except (MemoryError, RuntimeError) as error:
        print("refused")
np.zeros(10**7)
"""


def test_a_job_with_too_little_memory_is_tried_again_with_more(tmp_path, monkeypatch):
    failed = {"status": "failed", "reason": "RuntimeError: can't allocate memory"}
    monkeypatch.setattr(Error, "rows", lambda *_: [failed])
    monkeypatch.setattr(job, "limit_memory", lambda: None)
    monkeypatch.setattr(job, "gpus", list)
    target = tmp_path / "measurements/s.parquet"
    shard = Shard("s", "x", Error(measure="error"), "numpy", "direct", (), ())
    given = shard.as_dict(), [], target, "cpu", 1
    with pytest.raises(StoreError, match=r"no such columns|not a table"):
        job.measure(*given, attempt=1)  # outside a cluster it is a row; here, not a whole one
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "2000")
    for attempt in (1, 2):
        with pytest.raises(MemoryError, match=r"the 2000 MB of this job.*can't allocate"):
            job.measure(*given, attempt=attempt)
    with pytest.raises(StoreError, match=r"no such columns|not a table"):
        job.measure(*given, attempt=3)
    assert not target.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_an_allocation_beyond_the_memory_fails_and_the_process_goes_on():
    done = subprocess.run([sys.executable, "-c", TOO_MUCH], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["refused", "refused"]


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 8), ("150000 100000", 2), ("20000 100000", 1), (None, 8)]
)
def test_a_container_s_quota_is_what_there_is(tmp_path, monkeypatch, quota, cores):
    monkeypatch.setattr(load, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    if quota:
        load.QUOTA.write_text(quota + "\n")
    assert load.available_cores() == cores
