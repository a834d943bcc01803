"""What a machine has for measuring, and what is missing: `lrqmm doctor`."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lrqmm._extras import EXTRAS, missing
from lrqmm._progress import Report, silent
from lrqmm.bench.data.packages import PACKAGES, archive_of
from lrqmm.bench.environment import ISA_VARIABLE, PEERS, environment
from lrqmm.products.backends import integer_route


@dataclass(frozen=True)
class Finding:
    """The state of one thing: ok; note, where something is slower or left out; bad, where nothing
    can be measured. With what was found there, and what to do about it."""

    what: str
    state: Literal["ok", "note", "bad"]
    found: str
    advice: str = ""


def examine(progress: Report = silent) -> list[Finding]:
    """Devices, libraries, extras, threads, BLAS, compiler, versions and packaged data.

    `progress` is called with what is being looked at and the share that is done.
    """
    progress("libraries and devices", 0.0)
    record = environment()
    progress("tools and packaged data", 0.7)
    return [
        *_machine(record),
        *_libraries(record),
        *_extras(),
        *_devices(record),
        *_passes(record),
        *_integer_products(),
        *_tools(),
        *_packages(),
    ]


def _machine(record: Mapping[str, Any]) -> Iterator[Finding]:
    memory = record["memory_bytes"] / 2**30
    small = memory < 8
    yield Finding("processor", "ok", f"{record['machine']}, {record['cpu_capability']}")
    sets = ", ".join(record["instruction_sets"]) or "unknown"
    yield Finding("instruction sets", "ok", sets)
    held = os.environ.get(ISA_VARIABLE)
    advice = "Products are slower than this processor's." if held else ""
    yield Finding("oneDNN", "note" if held else "ok", record["onednn"], advice)
    advice = "The networks of the study need about 8 GiB." if small else ""
    yield Finding("memory", "note" if small else "ok", f"{memory:.0f} GiB", advice)
    yield Finding("system", "ok", f"{record['system']}, Python {record['python']}")
    limits = {name: value for name, value in record["threads"].items() if value}
    listed = ", ".join(f"{name}={value}" for name, value in limits.items()) or "not limited"
    busy = os.getloadavg()[0] > 0.1 * record["cores"] if hasattr(os, "getloadavg") else False
    advice = "Rows record it." if limits else ""
    yield Finding("threads", "note" if limits else "ok", listed, advice)
    found = "others are computing" if busy else "idle"
    advice = "Times would be marked as loaded." if busy else ""
    yield Finding("load", "note" if busy else "ok", found, advice)
    yield Finding("allocator", "ok", record["allocator"])


def _libraries(record: Mapping[str, Any]) -> Iterator[Finding]:
    optional = {
        "cupy-cuda13x": "Only for CuPy on a GPU: make env EXTRAS=[cuda13].",
        "triton": "Only for the fast path on a GPU.",
        **dict.fromkeys(PEERS, "Only for the methods that are its products."),
    }
    for name, version in record["packages"].items():
        if version:
            yield Finding(name, "ok", version)
        elif name in optional:
            yield Finding(name, "note", "not installed", optional[name])
        else:
            yield Finding(name, "bad", "not installed", "make env")
    blas = ", ".join(record["blas"])
    yield Finding("BLAS", "ok" if blas else "note", blas or "unknown")


def _extras() -> Iterator[Finding]:
    for extra in EXTRAS:
        absent = ", ".join(missing(extra))
        text = f"not installed: {absent}" if absent else "installed"
        advice = f"pip install 'lrqmm[{extra}]'" if absent else ""
        yield Finding(f"extra {extra}", "note" if absent else "ok", text, advice)


def _devices(record: Mapping[str, Any]) -> Iterator[Finding]:
    gpus = record["gpus"]
    if gpus:
        yield Finding("GPU", "ok", f"{', '.join(gpus)}; torch build: {record['torch_build']}")
    elif shutil.which("nvidia-smi") and record["torch_build"] == "CPU":
        advice = "Install a CUDA build of torch (README, 'Which torch?')."
        yield Finding("GPU", "note", "there is a driver, and torch is a CPU build", advice)
    else:
        yield Finding("GPU", "note", f"none; torch build: {record['torch_build']}", "CPU only.")


def _passes(record: Mapping[str, Any]) -> Iterator[Finding]:
    compiled = record["passes"] == "C++"
    advice = "" if compiled else "Install g++ and run make env again: about three times faster."
    yield Finding("passes of the fast path", "ok" if compiled else "note", record["passes"], advice)
    yield Finding("products of the fast path", "ok", record["fused_products"])


def _integer_products() -> Iterator[Finding]:
    import torch

    from lrqmm.products.backends.torch import cpu_int_mm_refused

    route = integer_route(torch.zeros((1, 1), device="cpu"))
    reason = cpu_int_mm_refused()
    advice = "They are exact, but slower than float32 products." if reason else ""
    yield Finding("integer products", "note" if reason else "ok", route, advice)


def _tools() -> Iterator[Finding]:
    for tool, use in (
        ("g++", "to compile the fast path"),
        ("git", "or rows carry no commit"),
        ("npm", "to download the packaged ResNet-50"),
    ):
        path = shutil.which(tool)
        if path is None:
            yield Finding(tool, "note", "not found", f"Needed {use}.")
            continue
        done = subprocess.run([path, "--version"], capture_output=True, text=True)
        yield Finding(tool, "ok", (done.stdout.strip().splitlines() or ["found"])[0])


def _packages() -> Iterator[Finding]:
    for key, package in PACKAGES.items():
        present = archive_of(key).exists()
        text = str(archive_of(key)) if present else f"{package.size / 1e6:.0f} MB to download"
        yield Finding(f"{key} ({package.contents})", "ok" if present else "note", text)
