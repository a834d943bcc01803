"""The record of machine, software and code that every measurement carries."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psutil

import lrqmm
from lrqmm import methods
from lrqmm.products.backends.numpy import device_name as processor_name

PACKAGE = Path(lrqmm.__file__).parent
MEASURING_CORE = (
    "_operands.py",
    "_checks.py",
    "error.py",
    "fused/*.py",
    "fused/passes.cpp",
    "method.py",
    "methods/mean_fix.py",  # of apriori.py
    "methods/two_slice.py",  # of adaptive.py
    *(
        f"products/{name}.py"
        for name in (
            *("adaptive", "apriori", "backends/*", "composition", "decompose", "floatproduct"),
            *("lowrank", "packing", "phases", "precision", "quantize", "rsvd", "scaling"),
        )
    ),
    "bench/machine.py",
    "bench/measures/arrays.py",
    "bench/measures/count.py",
    "bench/measures/shard.py",
    "timing.py",
)
NETWORK_CORE = (
    *("bench/data/pictures.py", "bench/data/text.py", "bench/measures/network.py"),
    *("bench/networks/*.py", "nn/*.py"),
)
RECORDED = (
    "array-api-compat", "cupy-cuda13x", "numba", "numpy", "pandas", "pyarrow", "scipy", "snakemake",
    "torch", "triton",
)  # fmt: skip

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS", "KMP_BLOCKTIME")


def available_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine() -> str:
    """The machine in words; no host name, since runs are shared."""
    return f"{processor_name(None)}, {os.cpu_count()} cores"


def node() -> str:
    """The node of a cluster that this job runs on, as Slurm calls it; 'local' elsewhere."""
    return os.environ.get("SLURMD_NODENAME", "local")


def allocator() -> str:
    """What takes the place of the system's allocator, if anything."""
    return os.environ.get("LD_PRELOAD") or "system"


@cache
def versions(library: str) -> str:
    """Python, and the libraries that compute, with their versions."""
    found = {"python": platform.python_version(), "numpy": _version("numpy")}
    if library == "torch":
        import torch

        found["torch"] = torch.__version__
    if library == "cupy":
        found["cupy"] = _version("cupy-cuda13x")
    return ", ".join(f"{name} {version}" for name, version in found.items())


def file_hash(*files: Path) -> str:
    """A short hash of the content of source files."""
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.relative_to(PACKAGE).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


@cache
def code_hash(method: str | None = None, *, network: bool = False) -> str:
    """Hash of the measuring core and of the files that one method is made of.

    It decides what a change of the source makes Snakemake run again, so figures, the command line
    and other methods are not in it.
    """
    core = MEASURING_CORE + (NETWORK_CORE if network else ())
    files = {file for pattern in core for file in PACKAGE.glob(pattern)}
    if method is not None:
        if "+" not in method:
            files.add(PACKAGE / "methods" / f"{method}.py")
        for cls in methods.preset(method).classes:
            for base in cls.__mro__:
                files |= _sources(base.__module__)
    return file_hash(*files)


def _sources(module: str) -> set[Path]:
    """The file of a module of the package, and those of the functions that it imports by name."""
    used = {module}
    used |= {getattr(part, "__module__", "") or "" for part in vars(sys.modules[module]).values()}
    files = {
        PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py")
        for name in used
        if name.startswith("lrqmm.")
    }
    return {file for file in files if file.is_file()}  # packages are in the core


@cache
def git_state() -> tuple[str, bool]:
    """(commit, whether tracked files but results differ); ('unknown', False) outside git."""
    try:
        commit = _git("rev-parse", "HEAD")
        files = ("--", ":/", ":(top,exclude)results")  # what is kept there measures nothing
        return commit, bool(_git("status", "--porcelain", "--untracked-files=no", *files))
    except (OSError, subprocess.CalledProcessError):
        return "unknown", False


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(PACKAGE), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def environment() -> dict[str, Any]:
    """What `environment.json` holds: machine, devices, libraries and code."""
    import torch
    from threadpoolctl import threadpool_info

    from lrqmm.fused import passes

    commit, dirty = git_state()
    return {
        "machine": machine(),
        "processor": processor_name(None),
        "cores": available_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in RECORDED},
        "lrqmm": lrqmm.__version__,
        "git_commit": commit,
        "git_dirty": dirty,
        "torch_build": "CUDA " + torch.version.cuda if torch.version.cuda else "CPU",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "blas": sorted({
            f"{info['internal_api']} {info.get('version') or ''}".strip()
            for info in threadpool_info()
        }),
        "passes": passes.implementation(),
        "threads": {name: os.environ.get(name) for name in THREAD_VARIABLES},
        "allocator": allocator(),
    }  # fmt: skip


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


@contextmanager
def watch_load(threads: int | None = None) -> Iterator[dict[str, bool]]:
    """Yield a dict; at the end its 'loaded' says whether others used over a tenth of the cores that
    this job has: `threads`, or all. The rest are its neighbours'."""
    cores = available_cores()
    own_cores = min(threads or cores, cores)
    verdict = {"loaded": False}
    wall, busy, own = time.monotonic(), _busy(), time.process_time()
    try:
        yield verdict
    finally:
        wall = max(time.monotonic() - wall, 1e-9)
        others = (_busy() - busy) - (time.process_time() - own)
        verdict["loaded"] = others / wall > cores - own_cores + 0.1 * own_cores


def _busy() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.system + getattr(times, "nice", 0.0))
