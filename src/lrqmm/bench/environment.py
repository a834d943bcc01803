"""The record of machine, software and code that every measurement carries."""

import importlib.metadata
import os
import platform
import re
import subprocess
from functools import cache
from typing import Any

import psutil

import lrqmm
from lrqmm import methods
from lrqmm.bench.imports import PACKAGE, closure, file_hash
from lrqmm.load import available_cores
from lrqmm.products.backends._processor import instruction_sets, processor_name

PEERS = ("auto-round-lib", "nncf", "onnx", "onnxruntime", "openvino", "torchao")
"""Libraries whose products are methods here; of the extra `peers`."""
RECORDED = (
    "array-api-compat", "cupy-cuda13x", "gguf", "numba", "numpy", "pandas", "pyarrow", "scipy",
    "snakemake", "torch", "triton", *PEERS,
)  # fmt: skip

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS", "KMP_BLOCKTIME")
ISA_VARIABLE = "ONEDNN_MAX_CPU_ISA"
"""Holds oneDNN, which multiplies for torch on a CPU, to older instructions than there are."""


def machine() -> str:
    """The machine in words; no host name, since runs are shared."""
    return f"{processor_name()}, {os.cpu_count()} cores"


def allocator() -> str:
    """What takes the place of the system's allocator, if anything."""
    return os.environ.get("LD_PRELOAD") or "system"


@cache
def versions(library: str, method: str | None = None) -> str:
    """Python, and the libraries that compute, with their versions, a method's own among them."""
    numbers = {"python": platform.python_version(), "numpy": _version("numpy")}
    if library == "torch":
        import torch

        numbers["torch"] = torch.__version__
    if library == "cupy":
        numbers["cupy"] = _version("cupy-cuda13x")
    for package in methods.preset(method).packages if method else ():
        numbers[package] = _version(package)
    return ", ".join(f"{name} {version}" for name, version in numbers.items())


@cache
def code_hash(method: str | None, measure: str, network: str | None = None) -> str:
    """Hash of the files that a kind of measurement, a method and a network are made of.

    It decides what a change of the source makes Snakemake run again, so figures, the command line,
    other measurements, methods and networks are not in it.
    """
    names = [] if method is None else methods.sources(method)
    files = [PACKAGE / "bench/measures" / f"{measure}.py", PACKAGE / "method.py"]
    files += [PACKAGE / "methods" / f"{name}.py" for name in names]
    if network is not None:
        at = PACKAGE / "bench/networks" / network
        files += [at.with_suffix(".py"), at / "__init__.py"]
    return file_hash(*closure(file for file in files if file.is_file()))


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

    from lrqmm.fused import gemm, passes

    commit, dirty = git_state()
    return {
        "machine": machine(),
        "processor": processor_name(),
        "cores": available_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in RECORDED},
        "lrqmm": lrqmm.__version__,
        "git_commit": commit,
        "git_dirty": dirty,
        "torch_build": "CUDA " + torch.version.cuda if torch.version.cuda else "CPU",
        "instruction_sets": instruction_sets(),
        "onednn": onednn(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "blas": sorted({
            f"{info['internal_api']} {info.get('version') or ''}".strip()
            for info in threadpool_info()
        }),
        "passes": passes.implementation(),
        "fused_products": gemm.described(),
        "threads": {name: os.environ.get(name) for name in THREAD_VARIABLES},
        "allocator": allocator(),
    }  # fmt: skip


def onednn() -> str:
    """Version of torch's oneDNN, and what it is held to."""
    import torch

    version = re.search(r"MKL-DNN v([\d.]+)", torch.__config__.show())
    held = os.environ.get(ISA_VARIABLE)
    if version is None:
        return "none"
    return version[1] + (f", at most {held} ({ISA_VARIABLE})" if held else "")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
